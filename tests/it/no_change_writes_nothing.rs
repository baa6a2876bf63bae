//! Nothing changed: nothing is written, neither to a hub nor, beside one small record a backup, to
//! the storage. Also not by a full check, and not by a daemon that has just started and knows only
//! what the hub and the storage tell.

use crate::harness::hub::DAEMON_USER;
use crate::harness::{Result, eventually, fleet, status};
use crate::stage::{self, CONNECTIONS, DEADLINE, Stage};
use serde_json::json;

const CLUSTERS: usize = 10;
const BACKUPS: usize = 3;
/// A record that names the packs of three sets, and no object.
const SMALL: usize = 4 * 1024;

#[tokio::test]
async fn no_change_writes_nothing() -> Result<()> {
    let quick = |config: crate::harness::config::Config| {
        config.with("passive.syncInterval", json!("1s")).with("passive.fullCheck", json!("3s"))
    };
    let stage = Stage::set("no-change", quick).await?;
    fleet::populate(&stage.pair.primary.api()?, &fleet::demo(CLUSTERS, 3), CONNECTIONS).await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    let first = stage.restore_writes(0)?.len();
    assert!(first > CLUSTERS, "the first sync wrote {first} objects");
    let before = stage.repository.stored().await?;

    let mut newest = String::new();
    for _ in 0..BACKUPS {
        newest = stage.backup(&primary).await?;
    }
    stage.synced(&mut passive, &newest).await?;
    full_check(&stage).await?;
    passive.kill9();
    let restarted = stage.start_passive().await?;
    full_check(&stage).await?;
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

/// Waits for one that began after now: it lists every kind for objects with our label.
async fn full_check(stage: &Stage) -> Result<()> {
    let lists = || -> Result<usize> {
        let events = stage.pair.passive.audit()?.into_iter();
        let ours = events.filter(|event| event.user == DAEMON_USER && event.verb == "list");
        Ok(ours.filter(|event| event.resource == "placements").count())
    };
    let seen = lists()?;
    // One may be under way.
    eventually(DEADLINE, "two full checks", async || (lists().ok()? >= seen + 2).then_some(()))
        .await
}
