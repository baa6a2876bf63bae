//! A primary that lost most of its objects goes on to be backed up, but takes no standby with it: not
//! before somebody has looked, and not by a promotion.

use crate::canary;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::fleet::{self, Item};
use crate::harness::hub::AuditEvent;
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, Scene, in_sync, restore_writes, until_condition, until_event, until_metric,
    until_role, until_silent,
};
use serde_json::{Value, json};
use understudy::object::Set;

const CLUSTERS: usize = 8;
const SUSPECT: &str = "understudy_storage_newest_backup_suspect";

/// Most of the credentials: those that can be made again without their owners, and are not looked
/// for in the end.
fn doomed(scene: &Scene) -> Vec<Item> {
    let canaries = canary::items();
    let doomed = |item: &&Item| {
        item.set == Some(Set::Credentials)
            && item.owner.is_none()
            && !canaries.iter().any(|canary| canary.key == item.key)
    };
    scene.items.iter().filter(doomed).cloned().collect()
}

async fn delete(scene: &Scene, items: &[Item]) -> Result<()> {
    let api = scene.pair.primary.api()?;
    for item in items {
        api.delete(&path(item)).await?;
    }
    Ok(())
}

fn path(item: &Item) -> String {
    format!("{}/{}", item.key.collection_path(&item.kind.version), item.key.name())
}

/// What an operator of the first hub runs; it ends with `code`. All that it printed.
fn command(scene: &Scene, args: &[&str], code: i32) -> Result<String> {
    let output = cli_on(&scene.pair.primary, &scene.first_file()?, args)?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    Ok(text)
}

fn deletes(scene: &Scene) -> Result<usize> {
    let deletes = |event: &AuditEvent| event.is_restore_write() && event.verb == "delete";
    Ok(scene.pair.passive.audit_writes(deletes)?.len())
}

/// Why the newest backup is suspect, if it is, once the daemon shows this backup.
async fn suspect(daemon: &mut Daemon, backup: &str) -> Result<Option<String>> {
    let look = |seen: &Value| {
        let shown = status::newest(seen) == Some(backup);
        shown.then(|| seen["newest"]["suspect"].as_str().map(str::to_owned))
    };
    daemon.until(DEADLINE, "the backup to be shown", look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lost_most_is_followed_only_after_an_acknowledgement() -> Result<()> {
    let mut scene = Scene::set(CLUSTERS).await?;
    let rules = json!({"keepLast": 1, "sweepAfter": "1s", "sweepInterval": "100ms"});
    scene.first.set("retention", rules);
    scene.second.set("passive.maxShrink", json!("10%"));
    let (mut first, mut second) = scene.running().await?;
    let good = status::newest(&first.status().await?).ok_or("no backup")?.to_owned();
    let doomed = doomed(&scene);
    let writes = restore_writes(&scene.pair.passive)?;

    delete(&scene, &doomed).await?;
    let mut newest = scene.backup(&mut first).await?;
    let why = suspect(&mut first, &newest).await?.ok_or("it is not suspect")?;
    assert!(why.starts_with(&format!("against backup {good}: credentials fell from ")), "{why}");
    shown_by_the_primary(&scene, &first, &newest, &why).await?;
    let refused =
        until_condition(&scene.pair.passive, "eu-2", "Synced", "False", "ShrinkRefused").await?;
    assert!(refused.contains(&good) && refused.contains(&newest), "{refused}");
    until_event(&scene.pair.passive, "SyncShrinkRefused").await?;
    until_metric(&second, SUSPECT, 1.0).await?;

    // It stays so, and what is compared with stays, too.
    for _ in 0..4 {
        newest = scene.backup(&mut first).await?;
        assert_eq!(suspect(&mut first, &newest).await?.as_deref(), Some(&*why));
    }
    command(&scene, &["backup", "prune", "--yes"], 0)?;
    let list = command(&scene, &["backup", "list"], 0)?;
    assert!(list.contains(&good) && list.lines().count() == 5, "the last three stay: {list}");
    let refused = command(&scene, &["backup", "delete", &good, "--yes"], 5)?;
    assert!(refused.contains("the newest that a standby may use"), "{refused}");
    suspect(&mut second, &newest).await?;
    let seen = second.status().await?;
    assert_eq!(status::restored(&seen), Some(&*good), "{seen}");
    assert_eq!(restore_writes(&scene.pair.passive)?, writes, "nothing is written or deleted");

    // Somebody has looked. What the standby deletes at once is still bounded.
    command(&scene, &["backup", "ack", &newest], 0)?;
    second.until(DEADLINE, "the standby to hold the acknowledged backup", in_sync).await?;
    assert_eq!(suspect(&mut first, &newest).await?, None);
    let described = command(&scene, &["backup", "describe", &newest], 0)?;
    assert!(described.contains("suspect     no more, it was acknowledged: "), "{described}");
    let held = until_condition(&scene.pair.passive, "eu-2", "Synced", "False", "PruneHeld").await?;
    assert!(held.contains("more than passive.maxShrink (10%)"), "{held}");
    assert_eq!(deletes(&scene)?, 0);
    second.kill9();
    scene.second.set("passive.maxShrink", json!("100%"));
    let second = scene.start_second().await?;
    let target = scene.pair.passive.api()?;
    for item in &doomed {
        let gone = async || target.find(&path(item)).await.ok()?.is_none().then_some(());
        eventually(DEADLINE, &format!("{} to be gone", item.key), gone).await?;
    }
    let next = scene.backup(&mut first).await?;
    assert_eq!(suspect(&mut first, &next).await?, None, "it is the measure from now on");
    until_metric(&first, SUSPECT, 0.0).await?;
    scene.canary_is_seen_nowhere(&[&first, &second]).await
}

/// Wherever somebody may look.
async fn shown_by_the_primary(scene: &Scene, first: &Daemon, id: &str, why: &str) -> Result<()> {
    let ack = format!("understudy backup ack {id}");
    until_metric(first, SUSPECT, 1.0).await?;
    let hub = &scene.pair.primary;
    let message = until_condition(hub, "eu-1", "BackupCurrent", "False", "BackupSuspect").await?;
    assert!(message.contains(why), "{message}");
    let note = until_event(hub, "BackupSuspect").await?;
    assert!(note.contains(id), "{note}");
    let (_, page) = first.http_get("/").await?;
    assert!(page.contains("BackupSuspect") && page.contains(&ack), "{page}");
    let told = command(scene, &["status"], 0)?;
    assert!(told.contains(why) && told.contains(&ack), "{told}");
    let list = command(scene, &["backup", "list"], 0)?;
    assert!(list.contains(&format!("suspect: {why}")), "{list}");
    let described = command(scene, &["backup", "describe", id], 0)?;
    assert!(described.contains(why) && described.contains(&ack), "{described}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_ends_it_and_what_does_not_is_not_promoted() -> Result<()> {
    let scene = Scene::set(CLUSTERS).await?;
    let (mut first, mut second) = scene.running().await?;
    let doomed = doomed(&scene);
    delete(&scene, &doomed).await?;
    let lost = scene.backup(&mut first).await?;
    assert!(suspect(&mut first, &lost).await?.is_some());
    until_event(&scene.pair.passive, "SyncShrinkRefused").await?;

    fleet::populate(&scene.pair.primary.api()?, &doomed, 4).await?;
    let back = scene.backup(&mut first).await?;
    assert_eq!(suspect(&mut first, &back).await?, None);
    until_event(&scene.pair.primary, "BackupRecovered").await?;
    second.until(DEADLINE, "the standby to follow again", in_sync).await?;
    assert_eq!(deletes(&scene)?, 0);

    delete(&scene, &doomed).await?;
    let lost = scene.backup(&mut first).await?;
    assert!(suspect(&mut second, &lost).await?.is_some());
    first.kill9();
    until_silent(&mut second).await?;
    second.promote(DEADLINE).await?;
    let seen = until_role(&mut second, "primary").await?;
    assert_eq!(seen["promotion"]["base"], *back, "{seen}");
    let own = |seen: &Value| (seen["newest"]["hub"] == "eu-2").then(|| seen["newest"].clone());
    let own = second.until(DEADLINE, "the first own backup", own).await?;
    assert!(own["suspect"].is_null(), "{own}");
    let target = scene.pair.passive.api()?;
    for item in &doomed {
        assert!(target.find(&path(item)).await?.is_some(), "{} is lost", item.key);
    }
    Ok(())
}
