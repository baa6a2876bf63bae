//! Nothing changed: nothing is written, neither to a hub nor, beside one small record a backup, to
//! the storage. Also not by a full check, and not by a daemon that has just started and knows only
//! what the hub and the storage tell.

use crate::harness::bare::Api;
use crate::harness::{Result, fleet, status};
use crate::stage::{self, CONNECTIONS, Stage};
use serde_json::json;

const CLUSTERS: usize = 10;
const BACKUPS: usize = 3;
/// A record that names the packs of three sets, and no object.
const SMALL: usize = 4 * 1024;

#[tokio::test]
async fn no_change_writes_nothing() -> Result<()> {
    let quick = |config: crate::harness::config::Config| {
        config.with("passive.syncInterval", json!("1s")).with("passive.fullCheck", json!("1s"))
    };
    let stage = Stage::set("no-change", quick).await?;
    let source = stage.pair.primary.api()?;
    fleet::populate(&source, &fleet::demo(CLUSTERS, 3), CONNECTIONS).await?;
    add_held_back_owner(&source).await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    let mut writes = stage.restore_writes(0)?;
    let first = writes.len();
    assert!(first > CLUSTERS, "the first sync wrote {first} objects");
    writes.dedup();
    assert_eq!(writes.len(), first, "one write an object");
    let owned = stage.pair.passive.api()?.get_json(OWNED).await?;
    assert!(owned["metadata"]["ownerReferences"].is_null(), "its owner is not there");
    let before = stage.repository.stored().await?;

    let mut newest = String::new();
    for _ in 0..BACKUPS {
        newest = stage.backup(&primary).await?;
    }
    stage.synced(&mut passive, &newest).await?;
    stage.full_check().await?;
    passive.kill9();
    let restarted = stage.start_passive().await?;
    stage.full_check().await?;
    let seen = restarted.status().await?;
    assert_eq!(status::restored(&seen), Some(&*newest), "{seen}");

    assert_eq!(stage.restore_writes(first)?, [""; 0], "writes to the passive hub");
    let primary_writes = stage::restore_writes(&stage.pair.primary, 0)?;
    assert_eq!(primary_writes, [""; 0], "writes to the primary hub");
    let after = stage.repository.stored().await?;
    assert_eq!(stage::packs(&after), stage::packs(&before));
    let records = |stored: &std::collections::BTreeMap<String, bytes::Bytes>| {
        let records = stored.iter().filter(|(name, _)| name.starts_with("journal/"));
        records.map(|(name, bytes)| (name.clone(), bytes.len())).collect::<Vec<_>>()
    };
    let (old, new) = (records(&before), records(&after));
    assert_eq!(new.len(), old.len() + BACKUPS, "one record a backup");
    assert!(new.iter().all(|(_, bytes)| *bytes < SMALL), "{new:?}");
    Ok(())
}

const OWNED: &str = "/api/v1/namespaces/cluster-0001/configmaps/owned";

/// What belongs to an object that is held back comes without the reference, and that is no reason
/// to write it again and again.
async fn add_held_back_owner(api: &Api) -> Result<()> {
    let (clusters, name) =
        ("/apis/cluster.open-cluster-management.io/v1/managedclusters", "cluster-0001");
    let owner = api.get_json(&format!("{clusters}/{name}")).await?;
    let reference = json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name,
        "uid": owner["metadata"]["uid"],
    });
    let labels = json!({"cluster.open-cluster-management.io/backup": ""});
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
        "metadata": {"name": "owned", "labels": labels, "ownerReferences": [reference]},
    });
    api.post(&format!("/api/v1/namespaces/{name}/configmaps"), &map).await?;
    Ok(())
}
