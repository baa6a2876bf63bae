//! Objects by chance, from what JSON and Kubernetes allow: the same ones at every run.

use crate::harness::Result;
use crate::harness::bare::{Api, Post};
use k8s_openapi::ByteString;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use understudy::object::ObjectKey;

const NAMESPACE: &str = "policies";
const POLICY: &str = "policy.open-cluster-management.io";
const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
/// Every so many one is a `ConfigMap`, and the one after it a Secret.
const CORE: usize = 10;

pub(super) async fn create_namespace(api: &Api) -> Result<()> {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api.post("/api/v1/namespaces", &namespace).await?;
    Ok(())
}

/// As large as objects of a hub get.
pub(super) async fn create_large(api: &Api) -> Result<ObjectKey> {
    let key = ObjectKey::new(POLICY, "policies", NAMESPACE, "large")?;
    assert!(post_of_size(api, &key, 1_400 << 10).await?, "an object of 1.4 MiB is possible");
    Ok(key)
}

/// The largest object that the API server stores. With our label and annotation it is one more.
pub(super) async fn create_too_large_for_a_copy(api: &Api) -> Result<ObjectKey> {
    let key = ObjectKey::new(POLICY, "policies", NAMESPACE, "too-large")?;
    let (mut fits, mut does_not) = (1_400 << 10, 1_600 << 10);
    while does_not - fits > 1 {
        let size = usize::midpoint(fits, does_not);
        if post_of_size(api, &key, size).await? {
            api.delete(&key.url_path("v1")).await?;
            fits = size;
        } else {
            does_not = size;
        }
    }
    assert!(post_of_size(api, &key, fits).await?, "what was stored once is stored again");
    Ok(key)
}

/// `false`: it is too large.
async fn post_of_size(api: &Api, key: &ObjectKey, size: usize) -> Result<bool> {
    let body = json!({
        "apiVersion": "policy.open-cluster-management.io/v1", "kind": "Policy",
        "metadata": {"name": key.name()}, "spec": {"text": "x".repeat(size)},
    });
    let (path, body) = (key.collection_path("v1"), body.to_string().into());
    let (status, answer) = api.send(Method::POST, &path, "application/json", body).await?;
    let too_large = String::from_utf8_lossy(&answer).contains("too large");
    if status.is_success() || too_large {
        return Ok(status.is_success());
    }
    Err(format!("{key}: {status} {}", String::from_utf8_lossy(&answer)).into())
}

/// Creates `count` of them.
pub(super) async fn create(api: &Api, count: usize, connections: usize) -> Result<Vec<ObjectKey>> {
    let mut runner = TestRunner::deterministic();
    let mut chosen = |strategy: &BoxedStrategy<String>| -> Result<String> {
        let tree = strategy.new_tree(&mut runner).map_err(|reason| reason.to_string())?;
        Ok(tree.current())
    };
    let [config_map, secret, policy] = [core("ConfigMap"), core("Secret"), policy()];
    let (mut keys, mut posts) = (vec![], vec![]);
    for number in 0..count {
        let (group, resource, body) = match number % CORE {
            0 => ("", "configmaps", chosen(&config_map)?),
            1 => ("", "secrets", chosen(&secret)?),
            _ => (POLICY, "policies", chosen(&policy)?),
        };
        let name = format!("generated.{number}");
        let key = ObjectKey::new(group, resource, NAMESPACE, &name)?;
        let body = body.replacen("NAME", &name, 1).into();
        posts.push(Post { path: key.collection_path("v1"), body });
        keys.push(key);
    }
    api.post_all(&posts, connections).await?;
    Ok(keys)
}

/// A custom resource, as text: its spec is whatever JSON can spell.
fn policy() -> BoxedStrategy<String> {
    let spec = btree_map(key(), json_text(), 0..6).prop_map(|map| object(map.into_iter()));
    (annotations(), spec)
        .prop_map(|(annotations, spec)| {
            let metadata = json!({"name": "NAME", "annotations": annotations});
            format!(
                r#"{{"apiVersion":"{POLICY}/v1","kind":"Policy","metadata":{metadata},"spec":{spec}}}"#
            )
        })
        .boxed()
}

fn core(kind: &'static str) -> BoxedStrategy<String> {
    let bytes = vec(any::<u8>(), 0..2_000).prop_map(ByteString);
    let data = btree_map("[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,40}", bytes, 0..4);
    let field = if kind == "Secret" { "data" } else { "binaryData" };
    (annotations(), data)
        .prop_map(move |(annotations, data)| {
            let metadata = json!({
                "name": "NAME", "annotations": annotations, "labels": {BACKUP_LABEL: ""},
            });
            json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, field: data}).to_string()
        })
        .boxed()
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("([a-z]{1,8}\\.example\\.com/)?[a-z][-._a-zA-Z0-9]{0,20}[a-z]", any::<String>(), 0..3)
}

/// Whatever may stand for a name; often one that means something elsewhere.
fn key() -> impl Strategy<Value = String> {
    let known = ["", "apiVersion", "kind", "metadata", "status", "items", "a", "a", "$patch", "-1"];
    prop_oneof![any::<String>(), proptest::sample::select(known.map(str::to_owned).to_vec()),]
}

/// As text, for what has several spellings or is written twice.
fn json_text() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("JSON has no other", |x| x.is_finite())
            .prop_map(|x| format!("{x:?}")),
        proptest::sample::select(
            [
                "1.0",
                "1e3",
                "1E+2",
                "-0",
                "-0.0",
                "0.10",
                "9007199254740993",
                "1e-400",
                "18446744073709551615",
                "123456789012345678901234567890",
                "1.7976931348623157e308"
            ]
            .map(str::to_owned)
            .to_vec()
        ),
    ];
    let escaped = vec(any::<u16>(), 0..6).prop_map(|units| {
        let units: Vec<String> = units.into_iter().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{}\"", units.concat())
    });
    let leaf = prop_oneof![
        proptest::sample::select(
            ["null", "true", "false", "{}", "[]", "\"\""].map(str::to_owned).to_vec()
        ),
        number,
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        escaped,
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            // Not a map: a key may stand there twice.
            vec((key(), inner), 0..6).prop_map(|fields| object(fields.into_iter())),
        ]
    })
}

fn object(fields: impl Iterator<Item = (String, String)>) -> String {
    let fields = fields.map(|(name, value)| format!("{}: {value}", Value::from(name)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}
