//! SIGKILL at any moment, then a restart: each role goes on where the journal says, and what was
//! done already is not done again.

use crate::harness::compare::is_restored;
use crate::harness::daemon::Daemon;
use crate::harness::hub::{AuditEvent, DAEMON_USER};
use crate::harness::{Result, eventually, kinds, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, Scene, counts, differences, files, in_sync, journal, restore_writes,
    until_role, until_silent,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use understudy::object::{ObjectKey, Set};

const PASSIVE_SETS: [Set; 2] = [Set::Credentials, Set::Resources];

#[tokio::test(flavor = "multi_thread")]
async fn every_role_goes_on_after_a_kill() -> Result<()> {
    let scene = Scene::set(40).await?;
    let mut first = scene.start_first().await?;
    until_role(&mut first, "primary").await?;
    first.until(DEADLINE, "a first backup", |seen| status::newest(seen).map(|_| ())).await?;
    primary_takes_a_delta(&scene, &mut first).await?;
    let mut second = passive_in_mid_sync(&scene).await?;
    assert_eq!(differences(&scene, &PASSIVE_SETS).await?, Vec::<String>::new());
    let everything = restore_writes(&scene.pair.passive)?;

    second.kill9();
    let reads = reads(&scene)?;
    let mut second = scene.start_second().await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    assert_eq!(restore_writes(&scene.pair.passive)?, everything, "nothing is written twice");
    let (lists, gets) = self::reads(&scene)?;
    assert_eq!((lists - reads.0, gets - reads.1), (1, 0), "and everything is compared by one LIST");

    first.kill9();
    let second = promoted_in_mid_activation(&scene, second).await?;
    let everything = [Set::Credentials, Set::Resources, Set::Activation];
    assert_eq!(differences(&scene, &everything).await?, Vec::<String>::new());
    scene.second_did_what_it_may()?;
    scene.canary_is_seen_nowhere(&[&second]).await
}

/// LISTs of Secrets, and GETs of anything that is restored, by the standby.
fn reads(scene: &Scene) -> Result<(usize, usize)> {
    let events = scene.pair.passive.audit()?;
    let ours = |verb| {
        let by_us = events.iter().filter(|event| event.user == DAEMON_USER);
        by_us.filter(move |event: &&AuditEvent| event.verb == verb)
    };
    let lists = ours("list").filter(|event| event.resource == "secrets" && event.group.is_empty());
    let keys: HashSet<_> = scene.items.iter().map(|item| &item.key).collect();
    let is_restored = |event: &&AuditEvent| {
        let AuditEvent { group, resource, namespace, name, .. } = event;
        ObjectKey::new(group, resource, namespace, name).is_ok_and(|key| keys.contains(&key))
    };
    Ok((lists.count(), ours("get").filter(is_restored).count()))
}

/// The term stays, and the first backup of the new process holds what changed meanwhile.
async fn primary_takes_a_delta(scene: &Scene, first: &mut Daemon) -> Result<()> {
    let packs = || files(&scene.repository.join("packs"));
    let (before, old) = (first.status().await?, packs()?);
    first.kill9();
    let api = scene.pair.primary.api()?;
    let secret = scene.items.iter().find(|item| item.set == Some(Set::Credentials));
    let secret = &secret.ok_or("the fleet has no credentials")?.key;
    let path = format!("{}/{}", secret.collection_path("v1"), secret.name());
    api.merge_patch(&path, &json!({"metadata": {"annotations": {"changed": "meanwhile"}}})).await?;

    *first = scene.start_first().await?;
    let newest = first
        .until(DEADLINE, "the backup after the restart", |seen| {
            let newer = status::newest(seen)? != status::newest(&before)?;
            newer.then(|| seen["newest"].clone())
        })
        .await?;
    let changed = |set: &str| newest["sets"][set]["changed"].as_u64();
    assert_eq!(changed("credentials"), Some(1), "{newest}");
    assert_eq!((changed("resources"), changed("activation")), (Some(0), Some(0)), "{newest}");
    assert_eq!(newest["packsWritten"], 1, "{newest}");
    let size = |paths: &[std::path::PathBuf]| -> Result<u64> {
        paths.iter().map(|path| Ok(std::fs::metadata(path)?.len())).sum()
    };
    let new: Vec<_> = packs()?.into_iter().filter(|path| !old.contains(path)).collect();
    let (new, old) = (size(&new)?, size(&old)?);
    assert!(new * 20 < old, "a delta of {new} bytes after {old}");

    let records = journal(&scene.repository)?;
    let counts = counts(&records);
    assert_eq!(counts[&(1, FIRST, "Term")], 1, "{counts:?}");
    assert_eq!(counts[&(1, FIRST, "Open")], 2, "one an incarnation: {counts:?}");
    assert_eq!(status::role(&until_role(first, "primary").await?), "primary");
    Ok(())
}

/// Killed when some objects are there and others are not.
async fn passive_in_mid_sync(scene: &Scene) -> Result<Daemon> {
    let wanted = PASSIVE_SETS.iter().map(|set| scene.keys_of(*set).len()).sum::<usize>();
    let mut second = scene.start_second().await?;
    eventually(DEADLINE, "the first sync to be under way", async || {
        (restore_writes(&scene.pair.passive).ok()? > 20).then_some(())
    })
    .await?;
    second.kill9();
    let held = restored(scene).await?;
    assert!(held > 0 && held < wanted, "killed in the middle: {held} of {wanted}");

    let mut second = scene.start_second().await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    assert_eq!(restored(scene).await?, wanted);
    Ok(second)
}

async fn restored(scene: &Scene) -> Result<usize> {
    let (api, mut count) = (scene.pair.passive.api()?, 0);
    for kind in kinds::all() {
        count += api.list(&kind).await?.iter().filter(|object| is_restored(object)).count();
    }
    Ok(count)
}

/// Killed as soon as it calls itself promoting: the term is taken, the activation is not done.
async fn promoted_in_mid_activation(scene: &Scene, mut second: Daemon) -> Result<Daemon> {
    until_silent(&mut second).await?;
    second.signal("USR1")?;
    eventually(DEADLINE, "the activation to be under way", async || {
        (scene.writes_to(&scene.pair.passive, Set::Activation).ok()?.len() > 5).then_some(())
    })
    .await?;
    second.kill9();
    let wanted = scene.keys_of(Set::Activation).len();
    let done = journal(&scene.repository)?;
    assert!(!done.iter().any(|r| r.epoch == 2 && r.kind == "Activated"), "killed too late");
    let written = scene.writes_to(&scene.pair.passive, Set::Activation)?.len();
    assert!(written < wanted, "killed too late: {written} of {wanted}");

    let mut second = scene.start_second().await?;
    until_role(&mut second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then(|| seen.clone());
    let seen = second.until(DEADLINE, "the first own backup", own).await?;
    assert_eq!(status::epoch(&seen), 2);
    assert_eq!(seen["promotion"]["phase"], "Activated", "{}", seen["promotion"]);
    assert_eq!(seen["promotion"]["running"], false, "{}", seen["promotion"]);

    // Once more, as primary: nothing is activated again.
    second.kill9();
    let mut second = scene.start_second().await?;
    until_role(&mut second, "primary").await?;
    let records = journal(&scene.repository)?;
    let counts = counts(&records);
    assert_eq!(counts[&(2, SECOND, "Term")], 1, "{counts:?}");
    assert_eq!(counts[&(2, SECOND, "Activated")], 1, "{counts:?}");
    assert_eq!(records.iter().filter(|record| record.epoch > 2).count(), 0);
    Ok(second)
}
