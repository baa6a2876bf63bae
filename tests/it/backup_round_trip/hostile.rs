//! Objects that break whoever is careless with numbers, unknown fields, names, sizes or escapes.
//!
//! An API server spells numbers and the order of keys in its own way when it stores an object. What
//! counts is that the two hubs, which spell alike, answer with the same bytes.

use crate::harness::Result;
use crate::harness::bare::Api;
use bytes::Bytes;
use k8s_openapi::ByteString;
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use understudy::object::{Kind, ObjectKey};

const POLICY: &str = "policy.open-cluster-management.io";
const NAMESPACE: &str = "policies";
/// Kubernetes' limit for the name of an object.
const LONGEST_NAME: usize = 253;
/// The API server's limit for all annotations of an object together is 256 KiB; our own needs room.
const LARGE_ANNOTATION: usize = 255 * 1024;
/// The API server's limit for the values of a `ConfigMap` or Secret.
const LARGEST_DATA: usize = 1024 * 1024;
/// Objects and lists in each other, half of each; the API server takes 10,000.
const DEEP: usize = 500;

/// Of which only one object exists here, the deep one: (group, resource).
pub(super) const DEEP_KIND: (&str, &str) =
    ("addon.open-cluster-management.io", "addondeploymentconfigs");

pub(super) fn cluster_roles() -> Kind {
    Kind {
        group: "rbac.authorization.k8s.io".to_owned(),
        version: "v1".to_owned(),
        kind: "ClusterRole".to_owned(),
        resource: "clusterroles".to_owned(),
        namespaced: false,
        categories: Vec::new(),
    }
}

/// Creates all of them on the hub. Bodies are text, so that nothing here respells them.
pub(super) async fn create(api: &Api) -> Result<Vec<ObjectKey>> {
    let mut keys = Vec::new();
    for (name, rest) in custom() {
        let body = format!(
            r#"{{"apiVersion":"{POLICY}/v1","kind":"Policy","metadata":{{"name":"{name}"}},{rest}}}"#
        );
        let key = ObjectKey::new(POLICY, "policies", NAMESPACE, &name)?;
        keys.push(post(api, key, "v1", body).await?);
    }
    let (group, resource) = DEEP_KIND;
    let body = format!(
        r#"{{"apiVersion":"{group}/v1alpha1","kind":"AddOnDeploymentConfig","metadata":{{"name":"deep"}},{}}}"#,
        deep()
    );
    let key = ObjectKey::new(group, resource, NAMESPACE, "deep")?;
    keys.push(post(api, key, "v1alpha1", body).await?);
    for (resource, name, body) in core() {
        let key = ObjectKey::new("", resource, NAMESPACE, &name)?;
        keys.push(post(api, key, "v1", body.to_string()).await?);
    }
    // Names with colons exist among roles alone.
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "test:a.b:c"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
    });
    let key = ObjectKey::new("rbac.authorization.k8s.io", "clusterroles", "", "test:a.b:c")?;
    keys.push(post(api, key, "v1", role.to_string()).await?);
    Ok(keys)
}

pub(super) fn is_deep(key: &ObjectKey) -> bool {
    (key.group(), key.resource()) == DEEP_KIND
}

async fn post(api: &Api, key: ObjectKey, version: &str, body: String) -> Result<ObjectKey> {
    let path = key.collection_path(version);
    let body = Bytes::from(body);
    let (status, answer) = api.send(Method::POST, &path, "application/json", body).await?;
    if !status.is_success() {
        return Err(format!("{key}: {status} {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(key)
}

/// Deeper than a reader that recurses into itself goes, so nothing here reads it but as bytes.
fn deep() -> String {
    let deep = (0..DEEP).fold("0".to_owned(), |inner, _| format!(r#"{{"a":[{inner}]}}"#));
    format!(r#""spec":{deep}"#)
}

/// Custom resources: (name, fields beside metadata).
fn custom() -> Vec<(String, String)> {
    let texts = r#"{"nul":"\u0000","bell":"\u0007","pair":"\ud83d\ude00","plain":"😀 ü \u00fc","html":"<a href=\"x\">&amp;</a>\u2028\u2029","slash":"\/ \\ \"","lines":"a\r\nb\tc"}"#;
    let numbers = r#"{"max":9223372036854775807,"min":-9223372036854775808,"above":9223372036854775808,"huge":1e300,"tiny":1e-300,"whole":1.0,"exp":1e3,"frac":0.1,"long":0.30000000000000004,"zero":-0.0,"precise":123456789.123456789}"#;
    let odd = r#"{"null":null,"map":{},"list":[],"text":"","mixed":[null,{},[],"",0,false,[[]],{"":""}],"":"empty name","a.b/c~d":1,"$ref":"x","__proto__":{}}"#;
    vec![
        ("numbers".to_owned(), format!(r#""spec":{numbers}"#)),
        ("texts".to_owned(), format!(r#""spec":{texts}"#)),
        ("odd".to_owned(), format!(r#""spec":{odd}"#)),
        ("no-spec".to_owned(), r#""status":{"never":"restored"}"#.to_owned()),
        ("0.1.2-3.x".to_owned(), r#""spec":{}"#.to_owned()),
        (long_name(), r#""spec":{"a":"b"}"#.to_owned()),
    ]
}

fn long_name() -> String {
    // Parts of 63, the limit of a part of a host name.
    let part = "n".repeat(63);
    let name = [&*part, &part, &part, &part].join(".");
    name[..LONGEST_NAME].to_owned()
}

/// Config maps and Secrets: (resource, name, object).
fn core() -> Vec<(&'static str, String, Value)> {
    let object = |kind: &str, name: &str, rest: Value| {
        let labels = json!({"cluster.open-cluster-management.io/backup": ""});
        let metadata = json!({"name": name, "labels": labels});
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(rest);
        }
        object
    };
    let mut annotated = object("ConfigMap", "large-annotation", json!({}));
    annotated["metadata"]["annotations"] = json!({"large": "é".repeat(LARGE_ANNOTATION / 2)});
    annotated["metadata"]["finalizers"] = json!(["example.com/never-done"]);
    let binary: Vec<u8> = (0..=u8::MAX).cycle().take(LARGEST_DATA).collect();
    let all_bytes = ByteString((0..=u8::MAX).collect());
    let texts =
        json!({"empty": "", "text": "\u{1}\u{7f}\u{feff}ü😀\r\n \t\"\\", "-._0": "odd name"});
    let long = long_name();
    vec![
        (
            "configmaps",
            "binary".to_owned(),
            object("ConfigMap", "binary", json!({"binaryData": {"all": ByteString(binary)}})),
        ),
        ("configmaps", "bare".to_owned(), object("ConfigMap", "bare", json!({"data": null}))),
        (
            "configmaps",
            "fixed".to_owned(),
            object("ConfigMap", "fixed", json!({"immutable": true, "data": texts})),
        ),
        ("configmaps", "large-annotation".to_owned(), annotated),
        ("configmaps", long.clone(), object("ConfigMap", &long, json!({"data": {"a": "b"}}))),
        (
            "secrets",
            "bytes".to_owned(),
            object(
                "Secret",
                "bytes",
                json!({"type": "example.com/odd", "data": {"all": all_bytes, "none": ""}}),
            ),
        ),
    ]
}

/// Everything but `metadata` and `status`, and all annotations that are not ours: byte for byte.
pub(super) async fn compare_bytes(source: &Api, target: &Api, key: &ObjectKey) -> Result<()> {
    let version = if is_deep(key) { "v1alpha1" } else { "v1" };
    let path = key.url_path(version);
    let (first, second) = tokio::try_join!(source.get(&path), target.get(&path))?;
    let (first, second) = (fields(&first)?, fields(&second)?);
    assert!(first.len() > 2, "{key} has more than its kind");
    assert!(first == second, "{key}: the bytes are others");
    Ok(())
}

fn fields(object: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut top: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(object)?;
    top.remove("status");
    let metadata = top.remove("metadata").ok_or("an object without metadata")?;
    let metadata: BTreeMap<String, Box<RawValue>> = serde_json::from_str(metadata.get())?;
    let mut fields: BTreeMap<_, _> =
        top.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect();
    for name in ["labels", "annotations"] {
        let Some(map) = metadata.get(name) else { continue };
        let map: BTreeMap<String, Box<RawValue>> = serde_json::from_str(map.get())?;
        let theirs = map.into_iter().filter(|(name, _)| !name.starts_with("understudy.dev/"));
        fields.extend(theirs.map(|(at, value)| (format!("{name}/{at}"), value.get().to_owned())));
    }
    for name in ["name", "namespace", "finalizers"] {
        if let Some(value) = metadata.get(name) {
            fields.insert(format!("metadata/{name}"), value.get().to_owned());
        }
    }
    Ok(fields)
}
