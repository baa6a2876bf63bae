//! What the passive hub does not take keeps nothing else from coming, is told with its reason, and comes
//! as soon as it can.

use crate::harness::bare::Api;
use crate::harness::daemon::Daemon;
use crate::harness::{Result, eventually};
use crate::stage::{DEADLINE, Stage};
use serde_json::{Value, json};

const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const HELD: &str = "/api/v1/namespaces/dying/configmaps/holds-it";
const LATE: &str = "/api/v1/namespaces/dying/configmaps/late";

#[tokio::test]
async fn what_is_refused_is_told_and_comes_when_it_can() -> Result<()> {
    let stage = Stage::set("refusals", |config| {
        config
            .with("sets.resources.include", json!([{"group": "example.com"}]))
            .with("passive.syncInterval", json!("1s"))
    })
    .await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    fill(&source).await?;
    stand_in_the_way(&target).await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    assert!(target.find(&map_path("team", "plain")).await?.is_some(), "the rest goes on");
    let converted = target.get_json(&gadget("v1", "plain")).await?;
    assert_eq!(converted["spec"], json!({"size": 1}), "at the version that is served here");
    told(&mut passive).await?;

    get_out_of_the_way(&target).await?;
    for (namespace, name) in COMING {
        comes(&target, &map_path(namespace, name)).await?;
    }
    assert!(target.find(&gadget("v1", "odd")).await?.is_none(), "nothing is dropped from it");

    // Nothing fails any more, and a kind that was missing is installed.
    source.delete(&gadget("v1beta1", "odd")).await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await?;
    let clean = |seen: &Value| (seen["sync"]["failed"] == json!({})).then_some(());
    passive.until(DEADLINE, "nothing to fail", clean).await?;
    target.post(DEFINITIONS, &definition("widgets", "Widget", "v1beta1", &["size"])).await?;
    comes(&target, "/apis/example.com/v1beta1/namespaces/team/widgets/one").await
}

/// Objects that are refused at first.
const COMING: [(&str, &str); 4] =
    [("team", "denied"), ("team", "away"), ("full", "too-many"), ("dying", "late")];

fn map_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

fn gadget(version: &str, name: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/team/gadgets/{name}")
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn definition(plural: &str, kind: &str, version: &str, fields: &[&str]) -> Value {
    let fields = fields.iter().map(|name| ((*name).to_owned(), json!({"type": "integer"})));
    let spec = json!({"type": "object", "properties": fields.collect::<serde_json::Map<_, _>>()});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

async fn fill(source: &Api) -> Result<()> {
    for name in ["team", "full", "dying"] {
        source.post("/api/v1/namespaces", &namespace(name)).await?;
    }
    for (namespace, name) in COMING.into_iter().chain([("team", "plain")]) {
        let labels = json!({BACKUP_LABEL: "", "case": name});
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": name, "labels": labels},
        });
        source.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map).await?;
    }
    source.post(DEFINITIONS, &definition("widgets", "Widget", "v1beta1", &["size"])).await?;
    source.post(DEFINITIONS, &definition("gadgets", "Gadget", "v1beta1", &["size", "old"])).await?;
    for (plural, kind, name, spec) in [
        ("widgets", "Widget", "one", json!({"size": 1})),
        ("gadgets", "Gadget", "plain", json!({"size": 1})),
        ("gadgets", "Gadget", "odd", json!({"size": 1, "old": 2})),
    ] {
        let object = json!({
            "apiVersion": "example.com/v1beta1", "kind": kind, "metadata": {"name": name},
            "spec": spec,
        });
        let path = format!("/apis/example.com/v1beta1/namespaces/team/{plural}");
        posted(source, &path, &object).await?;
    }
    Ok(())
}

/// A kind is served a moment after its definition was made.
async fn posted(api: &Api, path: &str, object: &Value) -> Result<()> {
    eventually(DEADLINE, "the kind to be served", async || api.post(path, object).await.ok())
        .await?;
    Ok(())
}

async fn stand_in_the_way(target: &Api) -> Result<()> {
    // Served at another version, which lacks a field.
    target.post(DEFINITIONS, &definition("gadgets", "Gadget", "v1", &["size"])).await?;
    let hooks = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "away.example.com"},
        "webhooks": [{
            "name": "away.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                "resources": ["configmaps"],
            }],
            "objectSelector": {"matchLabels": {"case": "away"}},
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }],
    });
    target.post(&format!("{REGISTRATION}/validatingwebhookconfigurations"), &hooks).await?;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "denied.example.com"},
        "spec": {
            "matchConstraints": {
                "objectSelector": {"matchLabels": {"case": "denied"}},
                "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                    "resources": ["configmaps"],
                }],
            },
            "validations": [{"expression": "false", "message": "not on this hub"}],
        },
    });
    target.post(&format!("{REGISTRATION}/validatingadmissionpolicies"), &policy).await?;
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "denied.example.com"},
        "spec": {"policyName": "denied.example.com", "validationActions": ["Deny"]},
    });
    target.post(&format!("{REGISTRATION}/validatingadmissionpolicybindings"), &binding).await?;

    for name in ["full", "dying"] {
        target.post("/api/v1/namespaces", &namespace(name)).await?;
    }
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "maps"},
        "spec": {"hard": {"configmaps": "1"}},
    });
    target.post("/api/v1/namespaces/full/resourcequotas", &quota).await?;
    // Until it was counted for the first time it refuses nothing.
    eventually(DEADLINE, "the quota to be counted", async || {
        let quota = target.get_json("/api/v1/namespaces/full/resourcequotas/maps").await.ok()?;
        quota["status"]["used"].is_object().then_some(())
    })
    .await?;
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "holds-it", "finalizers": ["example.com/stuck"]},
    });
    target.post("/api/v1/namespaces/dying/configmaps", &held).await?;
    target.delete("/api/v1/namespaces/dying").await?;
    // A policy is in force a moment after it was made.
    let denied = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"generateName": "try-", "labels": {"case": "denied"}},
    });
    let path = "/api/v1/namespaces/full/configmaps?dryRun=All";
    eventually(DEADLINE, "the policy", async || target.post(path, &denied).await.err()).await?;
    Ok(())
}

async fn get_out_of_the_way(target: &Api) -> Result<()> {
    let hooks = format!("{REGISTRATION}/validatingwebhookconfigurations/away.example.com");
    target.delete(&hooks).await?;
    let policies = format!("{REGISTRATION}/validatingadmissionpolicybindings/denied.example.com");
    target.delete(&policies).await?;
    let more = json!({"spec": {"hard": {"configmaps": "10"}}});
    target.merge_patch("/api/v1/namespaces/full/resourcequotas/maps", &more).await?;
    assert!(target.find(LATE).await?.is_none());
    target.merge_patch(HELD, &json!({"metadata": {"finalizers": null}})).await?;
    Ok(())
}

async fn comes(target: &Api, path: &str) -> Result<()> {
    let there = async || target.find(path).await.ok()?.map(|_| ());
    eventually(DEADLINE, path, there).await
}

/// Each with its reason, and no finalizer was touched.
async fn told(passive: &mut Daemon) -> Result<()> {
    let failed = json!({"configmaps": 4, "namespaces": 1, "gadgets.example.com": 1});
    let seen = passive
        .until(DEADLINE, "what failed", |seen| {
            (seen["sync"]["failed"] == failed).then(|| seen.clone())
        })
        .await?;
    assert!(seen.to_string().contains("1 widgets.example.com wait for their kind"), "{seen}");
    let log = std::fs::read_to_string(passive.log())?;
    for (object, reason) in [
        ("configmaps team/away", "an admission webhook is away"),
        ("configmaps team/denied", "422 Invalid"),
        ("configmaps full/too-many", "a quota is exceeded"),
        ("configmaps dying/late", "its namespace is being deleted"),
        ("namespaces dying", "it is being deleted on this hub"),
        ("gadgets.example.com team/odd", "unknown field"),
    ] {
        let line = |line: &&str| line.contains(object) && line.contains(reason);
        assert!(log.lines().any(|text| line(&text)), "{object}: {reason}\n{log}");
    }
    Ok(())
}
