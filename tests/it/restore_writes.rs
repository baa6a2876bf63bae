//! How an object that changed is written: one patch that names only what changed, and where the
//! object is not as it was left, a look and a full comparison. What the passive hub's own controllers
//! put there stays either way.

use crate::harness::bare::Api;
use crate::harness::faultd::fault::draw;
use crate::harness::hub::{DAEMON_USER, Hub};
use crate::harness::{Result, eventually};
use crate::stage::{DEADLINE, Stage};
use serde_json::{Value, json};

const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const MAPS: &str = "/api/v1/namespaces/team/configmaps";
const DIGEST: &str = "understudy.dev/digest";

#[tokio::test]
async fn an_update_names_only_what_changed() -> Result<()> {
    let stage = Stage::set("writes", |config| config).await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    source.post("/api/v1/namespaces", &namespace).await?;
    for name in NAMES {
        source.post(MAPS, &map(name)).await?;
    }
    source.post(MAPS, &weight()).await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    meddle(&target).await?;

    let before = requests(&stage.pair.passive)?.len();
    change(&source, "second").await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await?;
    let expected = [
        // As it was left: nobody looks at it first.
        "patch plain 200",
        "patch touched 200",
        // Not as it was left.
        "patch edited 422",
        "get edited 200",
        "update edited 200",
        "patch replaced 422",
        "get replaced 200",
        "update replaced 200",
        "patch taken-down 404",
        "create taken-down 201",
    ];
    same_requests(&requests(&stage.pair.passive)?[before..], &expected);
    for name in NAMES {
        let found = target.get_json(&format!("{MAPS}/{name}")).await?;
        let mut data = json!({"keep": "first", "change": "second", "new": "second"});
        match name {
            "touched" | "edited" => data["local"] = "mine".into(),
            // Nobody but the one who put them there can tell whose these are.
            "replaced" => (data["local"], data["drop"]) = ("mine".into(), "first".into()),
            _ => {}
        }
        assert_eq!(found["data"], data, "{name}");
        let metadata = &found["metadata"];
        assert_eq!(metadata["labels"]["understudy.dev/pair"], "test", "{name}");
        let local = &metadata["annotations"]["example.com/seen"];
        let finalizers = &metadata["finalizers"];
        let is_touched = name == "touched" || name == "edited";
        assert_eq!(local == "yes", is_touched, "{name}: {metadata}");
        assert_eq!(*finalizers == json!(["example.com/hold"]), is_touched, "{name}: {metadata}");
    }

    // A daemon that has just started finds in the packs what was applied before.
    passive.kill9();
    change(&source, "third").await?;
    stage.backup(&primary).await?;
    let before = requests(&stage.pair.passive)?.len();
    stage.start_passive().await?;
    // That nobody changed what stayed the same was seen in the list.
    let expected = NAMES.map(|name| format!("patch {name} 200"));
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    same_requests(&requests(&stage.pair.passive)?[before..], &expected);
    let touched = target.get_json(&format!("{MAPS}/touched")).await?;
    assert_eq!(touched["data"]["change"], "third");
    assert_eq!(touched["data"]["local"], "mine");
    Ok(())
}

const NAMES: [&str; 5] = ["plain", "touched", "edited", "replaced", "taken-down"];

fn map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {BACKUP_LABEL: ""}},
        "data": {"keep": "first", "change": "first", "drop": "first"},
    })
}

/// Heavier than all changes: they stay levels of their own, in which older forms are found.
fn weight() -> Value {
    let data: Vec<String> = (0..100).map(|number| draw(7, number).to_string()).collect();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "weight", "labels": {BACKUP_LABEL: ""}}, "data": {"weight": data.concat()},
    })
}

/// The primary changes a field, drops one and adds one.
async fn change(source: &Api, value: &str) -> Result<()> {
    for name in NAMES {
        let data = json!({"change": value, "drop": null, "new": value});
        source.merge_patch(&format!("{MAPS}/{name}"), &json!({"data": data})).await?;
    }
    Ok(())
}

/// What others do to restored objects.
async fn meddle(target: &Api) -> Result<()> {
    let local = json!({
        "metadata": {
            "annotations": {"example.com/seen": "yes"}, "finalizers": ["example.com/hold"],
        },
        "data": {"local": "mine"},
    });
    for name in ["touched", "edited"] {
        target.merge_patch(&format!("{MAPS}/{name}"), &local).await?;
    }
    let edit = json!({"metadata": {"annotations": {DIGEST: "0123456789abcdef"}}});
    target.merge_patch(&format!("{MAPS}/edited"), &edit).await?;

    let path = format!("{MAPS}/replaced");
    let mut replaced = target.get_json(&path).await?;
    target.delete(&path).await?;
    let metadata = replaced["metadata"].as_object_mut().ok_or("it has no metadata")?;
    metadata.retain(|name, _| ["name", "labels", "annotations"].contains(&name.as_str()));
    replaced["data"]["local"] = "mine".into();
    target.post(MAPS, &replaced).await?;
    target.delete(&format!("{MAPS}/taken-down")).await?;
    Ok(())
}

/// All that the daemon asked about the objects: `verb name code`.
fn requests(hub: &Hub) -> Result<Vec<String>> {
    let ours = hub.audit()?.into_iter().filter(|event| {
        let is_ours = event.user == DAEMON_USER && event.namespace == "team";
        is_ours && event.resource == "configmaps" && !event.name.is_empty()
    });
    Ok(ours.map(|event| format!("{} {} {}", event.verb, event.name, event.code)).collect())
}

/// The same ones, for each object in this order.
fn same_requests(found: &[String], expected: &[&str]) {
    let name = |request: &str| request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    found.sort_by_key(|request| name(request));
    expected.sort_by_key(|request| name(request));
    assert_eq!(found, expected);
}

const HOSTS: &str = "/apis/example.com/v1/namespaces/team/hosts";

/// A kind with the subresource and one without, for both hubs.
fn definition(plural: &str, kind: &str, subresource: bool) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
    let mut version = json!({
        "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
    });
    if subresource {
        version["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": [version],
            "names": {"plural": plural, "kind": kind},
        },
    })
}

#[tokio::test]
async fn the_status_of_kinds_that_are_named_comes_once() -> Result<()> {
    let stage = Stage::set("status", |config| {
        config
            .with("sets.resources.include", json!([{"group": "example.com"}]))
            .with("status", json!(["hosts.example.com", "disks.example.com"]))
            .with("passive.syncInterval", json!("1s"))
            .with("passive.fullCheck", json!("1s"))
    })
    .await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for api in [&source, &target] {
        api.post(definitions, &definition("hosts", "Host", true)).await?;
        api.post(definitions, &definition("disks", "Disk", false)).await?;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    source.post("/api/v1/namespaces", &namespace).await?;
    for (plural, kind) in [("hosts", "Host"), ("disks", "Disk")] {
        let object = json!({
            "apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "a"},
            "spec": {"online": true}, "status": {"phase": "inspected"},
        });
        let path = format!("/apis/example.com/v1/namespaces/team/{plural}");
        let served = async || source.post(&path, &object).await.ok();
        eventually(DEADLINE, "the kind to be served", served).await?;
    }
    let (host, status) = (format!("{HOSTS}/a"), format!("{HOSTS}/a/status"));
    source.merge_patch(&status, &json!({"status": {"phase": "provisioned", "n": 1}})).await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    let disk = target.get_json("/apis/example.com/v1/namespaces/team/disks/a").await?;
    assert_eq!(disk["status"], json!({"phase": "inspected"}), "without the subresource");
    let found = target.get_json(&host).await?;
    assert_eq!(found["status"], json!({"phase": "provisioned", "n": 1}));
    let writes = stage.restore_writes(0)?.len();

    // From here on it is the passive hub's own.
    target.merge_patch(&status, &json!({"status": {"phase": "mine"}})).await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await?;
    stage.full_check().await?;
    assert_eq!(stage.restore_writes(writes)?, [""; 0], "nothing is written back");
    assert_eq!(target.get_json(&host).await?["status"]["phase"], "mine");

    source.merge_patch(&status, &json!({"status": {"phase": "gone", "n": null}})).await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await?;
    assert_eq!(target.get_json(&host).await?["status"], json!({"phase": "gone"}));
    Ok(())
}
