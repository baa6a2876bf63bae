//! What the primary holds comes to the passive hub as it was, to the byte, and only what should.
//! What lies in the bucket on the way tells nobody anything.

mod generated;
mod hostile;

use crate::canary;
use crate::harness::bare::Api;
use crate::harness::compare::{Difference, Place, compare, snapshot};
use crate::harness::daemon::Daemon;
use crate::harness::fleet::{self, Item};
use crate::harness::{Result, eventually, kinds};
use crate::stage::{CONNECTIONS, DEADLINE, Stage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use understudy::object::{Kind, ObjectKey};

const CLUSTERS: usize = 12;
const GENERATED: usize = 1_200;
const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";

#[tokio::test]
async fn backup_round_trip() -> Result<()> {
    let stage = Stage::set("round-trip", |config| {
        let roles = json!([{"group": "rbac.authorization.k8s.io", "name": "test:*"}]);
        config
            .with("sets.resources.include", roles)
            .with("passive.allowKinds", json!(["clusterroles.rbac.authorization.k8s.io"]))
    })
    .await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let mut items = fleet::demo(CLUSTERS, 1);
    items.extend(canary::items());
    fleet::populate(&source, &items, CONNECTIONS).await?;
    let hostile = hostile::create(&source).await?;
    let excluded = add_excluded(&source).await?;
    let primary = stage.start_primary().await?;
    let passive = stage.start_passive().await?;

    let mut places = fleet::places_of_standby(&items);
    let comparable = hostile.iter().filter(|key| !hostile::is_deep(key));
    places.extend(comparable.map(|key| (key.clone(), Place::Both)));
    places.extend(excluded.iter().map(|key| (key.clone(), Place::FirstOnly)));
    assert_eq!(differences(&source, &target, &places).await?, []);
    for key in &hostile {
        hostile::compare_bytes(&source, &target, key).await?;
    }
    let seen = passive.status().await?;
    assert_eq!(seen["sync"]["failed"], json!({}), "{seen}");

    nothing_is_collected(&target).await?;
    assert_eq!(differences(&source, &target, &places).await?, [], "after garbage collection");
    canaries_are_in_the_backup(&stage).await?;
    stage.canary_is_seen_nowhere(&[&primary, &passive]).await
}

#[tokio::test]
async fn whatever_may_stand_in_an_object_comes_through() -> Result<()> {
    let stage = Stage::set("generated", |config| config).await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    generated::create_namespace(&source).await?;
    let mut keys = generated::create(&source, GENERATED, CONNECTIONS).await?;
    keys.push(generated::create_large(&source).await?);
    let too_large = generated::create_too_large_for_a_copy(&source).await?;
    let primary = stage.start_primary().await?;
    let mut passive = Daemon::start_on(&stage.pair.passive, &stage.passive_config).await?;
    let failed = |seen: &Value| {
        (seen["sync"]["failed"] == json!({"policies.policy.open-cluster-management.io": 1}))
            .then_some(())
    };
    passive.until(DEADLINE, "all but one object", failed).await?;
    for key in &keys {
        hostile::compare_bytes(&source, &target, key).await?;
    }
    let log = passive.log_text()?;
    assert!(log.contains(&too_large.to_string()), "the one that is too large is named");

    source.delete(&too_large.url_path("v1")).await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await
}

fn all_kinds() -> Vec<Kind> {
    let mut kinds = kinds::all();
    kinds.retain(|kind| (&*kind.group, &*kind.resource) != hostile::DEEP_KIND);
    kinds.push(hostile::cluster_roles());
    kinds
}

async fn differences(
    source: &Api,
    target: &Api,
    places: &BTreeMap<ObjectKey, Place>,
) -> Result<Vec<Difference>> {
    let kinds = all_kinds();
    let (first, second) = tokio::try_join!(snapshot(source, &kinds), snapshot(target, &kinds))?;
    let place = |key: &ObjectKey| places.get(key).copied().unwrap_or(Place::Anywhere);
    assert!(places.keys().all(|key| first.contains_key(key)), "all of it is on the primary");
    Ok(compare(&first, &second, place))
}

/// Objects that ask to be captured by their label and must not be. The fleet has others.
async fn add_excluded(api: &Api) -> Result<Vec<ObjectKey>> {
    let mut keys = Vec::new();
    for (namespace, name, label, kind) in [
        ("understudy", "own", "", "ConfigMap"),
        ("kube-system", "theirs", "", "ConfigMap"),
        ("kube-public", "theirs", "", "Secret"),
        ("local-cluster", "the-hub-itself", "", "Secret"),
        ("open-cluster-management-agent", "bootstrap-hub-kubeconfig", "", "Secret"),
        ("cluster-0001", "other-import", "", "Secret"),
        ("cluster-0001", "asked", "understudy.dev/exclude", "ConfigMap"),
        ("cluster-0001", "asked-velero", "velero.io/exclude-from-backup", "ConfigMap"),
        ("cluster-0001", "held-back", "activation", "ConfigMap"),
        ("cluster-0001", "token", "service-account", "Secret"),
    ] {
        if namespace == "open-cluster-management-agent" {
            let body =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            api.post("/api/v1/namespaces", &body).await?;
        }
        let mut labels = json!({BACKUP_LABEL: ""});
        let mut body = json!({"apiVersion": "v1", "kind": kind});
        let mut annotations = json!({});
        match label {
            "" => {}
            "activation" => labels[BACKUP_LABEL] = "cluster-activation".into(),
            "service-account" => {
                body["type"] = "kubernetes.io/service-account-token".into();
                annotations = json!({"kubernetes.io/service-account.name": "default"});
            }
            label => labels[label] = "true".into(),
        }
        body["metadata"] = json!({"name": name, "labels": labels, "annotations": annotations});
        let resource = format!("{}s", kind.to_lowercase());
        api.post(&format!("/api/v1/namespaces/{namespace}/{resource}"), &body).await?;
        keys.push(ObjectKey::new("", &resource, namespace, name)?);
    }
    Ok(keys)
}

/// Waits until the garbage collector of the hub has collected an object whose owner, of a kind
/// that the fleet's owners are of, never was. What it would collect of ours is gone by then.
async fn nothing_is_collected(api: &Api) -> Result<()> {
    let owner = json!({
        "apiVersion": "authentication.open-cluster-management.io/v1beta1",
        "kind": "ManagedServiceAccount", "name": "never-was",
        "uid": "00000000-0000-4000-8000-000000000000",
    });
    let orphan = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "orphan", "ownerReferences": [owner]},
    });
    let secrets = "/api/v1/namespaces/cluster-0001/secrets";
    api.post(secrets, &orphan).await?;
    let path = format!("{secrets}/orphan");
    let collected = async || api.find(&path).await.ok()?.is_none().then_some(());
    eventually(DEADLINE, "the garbage collector", collected).await
}

async fn canaries_are_in_the_backup(stage: &Stage) -> Result<()> {
    let (mut journal, packs) = stage.repository.open(&stage.primary_config).await?;
    let backup = journal.refresh().await?.newest.clone().ok_or("there is no backup")?;
    let opened = packs.open(backup, None).await?;
    for Item { key, .. } in canary::items() {
        let entry = opened.contents.entries.get(&key).ok_or("a canary is not in the backup")?;
        let mut found = false;
        packs.objects(&opened, entry.pack, |at, object| {
            found |= at == key && canary::form_in(object.get().as_bytes()).is_some();
            ControlFlow::Continue(())
        })?;
        assert!(found, "{key} is in the backup with its value");
    }
    Ok(())
}
