//! The garbage collector of a standby never takes what a restore brought, whatever became of its owner:
//! held back, absent from the backup, of a kind that is not here, made anew, or gone before what it
//! owns. That it had its chance is told by objects with a dead owner, which it does take.

use crate::harness::bare::Api;
use crate::harness::fleet::Item;
use crate::harness::hub::Hub;
use crate::harness::{Result, eventually, kinds};
use crate::stage::DEADLINE;
use crate::world::World;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use understudy::object::{ObjectKey, Set};

const COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";
/// The kinds of what is owned: the collector hears of each in a stream of its own.
const OWNED: [&str; 2] = ["ConfigMap", "Placement"];
const OWNERS: [(&str, &str); 5] = [
    ("ManagedCluster", "held-back"),
    ("ManagedClusterSet", "absent"),
    ("ManagedClusterSet", "there"),
    ("ManagedClusterSet", "goes-first"),
    ("ManagedClusterSet", "renewed"),
];

fn item(kind: &str, namespace: &str, name: &str, owner: Option<&Item>) -> Result<Item> {
    let kind = kinds::named(kind);
    let key = ObjectKey::new(&kind.group, &kind.resource, namespace, name)?;
    let mut metadata = json!({"name": name});
    if kind.namespaced {
        metadata["namespace"] = namespace.into();
    }
    if let Some(Item { kind, key, .. }) = owner {
        metadata["ownerReferences"] = json!([{
            "apiVersion": kind.api_version(), "kind": kind.kind, "name": key.name(), "uid": "",
        }]);
    }
    let body = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata,
    });
    let set = if kind.kind == "ManagedCluster" { Set::Activation } else { Set::Resources };
    Ok(Item { key, kind, body, set: Some(set), owner: owner.map(|owner| owner.key.clone()) })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_garbage_collector_takes_nothing_that_a_restore_brought() -> Result<()> {
    let mut world = World::set(1, 0, |config| {
        config.with("passive.fullCheck", json!("1s")).with("passive.maxDeletes", json!(100))
    })
    .await?;
    let (mut items, mut owners) = (vec![item("Namespace", "", "team", None)?], BTreeMap::new());
    for (kind, name) in OWNERS {
        let owner = item(kind, "", name, None)?;
        for owned in OWNED {
            items.push(item(owned, "team", name, Some(&owner))?);
        }
        if name != "absent" {
            items.push(owner.clone());
        }
        owners.insert(name, owner);
    }
    // A kind that no hub of this pair serves.
    let mut odd = item("ConfigMap", "team", "odd", None)?;
    odd.body["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "moved.io/v1", "kind": "Thing", "name": "x", "uid": "unheard-of"}]);
    items.push(odd.clone());
    let backup = world.back_up_with(items, &[]).await?;
    let mut daemon = world.start(&world.hub.kubeconfig)?;
    daemon.wait_live().await?;
    world.holds(&mut daemon, &backup).await?;
    let api = world.hub.api()?;
    let before = lives(&api).await?;
    assert_eq!(before.len(), OWNERS.len() * OWNED.len() + 1);
    collected_are_canaries(&world.hub, "first").await?;

    // Somebody takes an owner away and leaves what it owns: both come together again.
    let renewed = owners["renewed"].key.url_path("v1beta2");
    let old = uid(&api, &renewed).await?;
    let orphan = Bytes::from(r#"{"propagationPolicy":"Orphan"}"#);
    api.send(reqwest::Method::DELETE, &renewed, "application/json", orphan).await?;
    eventually(DEADLINE, "the owner to come again, and what it owns to it", async || {
        let new = uid(&api, &renewed).await.ok().filter(|new| *new != old)?;
        for kind in OWNED.map(kinds::named) {
            let key = ObjectKey::new(&kind.group, &kind.resource, "team", "renewed").ok()?;
            let owned = api.get_json(&key.url_path(&kind.version)).await.ok()?;
            (owned["metadata"]["ownerReferences"][0]["uid"] == *new).then_some(())?;
        }
        Some(())
    })
    .await?;

    // A backup from between the deletion of an owner and the collection of what it owned.
    let goes = owners["goes-first"].key.clone();
    let backup = world.back_up_with(vec![], std::slice::from_ref(&goes)).await?;
    world.holds(&mut daemon, &backup).await?;
    collected_are_canaries(&world.hub, "second").await?;
    assert_eq!(lives(&api).await?, before, "each is still the object that it was");

    // And the one after it.
    let mut gone: Vec<ObjectKey> = vec![];
    for kind in OWNED.map(kinds::named) {
        gone.push(ObjectKey::new(&kind.group, &kind.resource, "team", "goes-first")?);
    }
    let backup = world.back_up_with(vec![], &gone).await?;
    world.holds(&mut daemon, &backup).await?;
    gone.push(goes);
    for key in gone {
        let version = kinds::all().into_iter().find(|k| k.resource == key.resource());
        let path = key.url_path(&version.ok_or("a kind of the fleet")?.version);
        assert!(api.find(&path).await?.is_none(), "{key} is in no backup any more");
    }
    Ok(())
}

async fn uid(api: &Api, path: &str) -> Result<String> {
    let found = api.get_json(path).await?;
    Ok(found["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
}

/// The owned objects, each by the UID of its life.
async fn lives(api: &Api) -> Result<BTreeMap<String, Value>> {
    let mut lives = BTreeMap::new();
    for kind in OWNED.map(kinds::named) {
        for object in api.list(&kind).await? {
            let metadata = &object["metadata"];
            if metadata["namespace"] == "team" && metadata["name"] != "kube-root-ca.crt" {
                let name = format!("{} {}", kind.kind, metadata["name"]);
                lives.insert(name, metadata["uid"].clone());
            }
        }
    }
    Ok(lives)
}

/// The collector takes what points to the dead, made after all else, and has taken nothing else.
async fn collected_are_canaries(hub: &Hub, name: &str) -> Result<()> {
    let (api, canary) = (hub.api()?, format!("canary-{name}"));
    for kind in OWNED.map(kinds::named) {
        let collection = ObjectKey::new(&kind.group, &kind.resource, "team", &canary)?;
        let dead = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": format!("dead-{name}"),
            "uid": "00000000-0000-4000-8000-000000000000",
        });
        let body = json!({
            "apiVersion": kind.api_version(), "kind": kind.kind,
            "metadata": {"name": canary, "ownerReferences": [dead]},
        });
        api.post(&collection.collection_path(&kind.version), &body).await?;
        let path = collection.url_path(&kind.version);
        let gone = async || api.find(&path).await.ok()?.is_none().then_some(());
        eventually(DEADLINE, "the garbage collector", gone).await?;
    }
    let taken = hub.audit_writes(|event| event.user == COLLECTOR && event.verb == "delete")?;
    let others: Vec<_> = taken.iter().filter(|event| !event.name.starts_with("canary-")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(taken.len() >= OWNED.len(), "it has a name of its own in the log");
    Ok(())
}
