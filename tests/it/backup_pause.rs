//! A pause holds back what a hub does by itself, shows everywhere, survives a restart, and ends by
//! itself. By hand everything goes on, and no pause outlives its term.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::Hub;
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, in_sync, journal, metric, restore_writes,
    until_condition, until_event, until_metric, until_role, until_silent,
};
use serde_json::{Value, json};
use std::path::Path;

const PAUSED: &str = "understudy_backup_paused";
const SKIPPED: &str = r#"understudy_backup_runs_total{outcome="skipped"}"#;
const WHY: &str = "the store is being moved";

/// What the command printed, where it ended with this code.
fn ends(hub: &Hub, config: &Path, args: &[&str], code: i32) -> Result<String> {
    let output = cli_on(hub, config, args)?;
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let text = text.concat();
    if output.status.code() == Some(code) {
        Ok(text)
    } else {
        Err(format!("{args:?} ended with {}, not {code}: {text}", output.status).into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_backups_holds_and_shows_and_ends() -> Result<()> {
    let mut scene = Scene::set(1).await?;
    scene.first.set("schedule.cron", json!("* * * * *"));
    let (mut first, _second) = scene.running().await?;
    let (hub, config) = (&scene.pair.primary, scene.first_file()?);

    refused(&scene)?;
    let told = ends(hub, &config, &["backup", "pause", "--for", "1h", "--reason", WHY], 0)?;
    assert!(told.contains("the schedule of backups is paused until 2"), "{told}");
    shows(&scene, &first).await?;
    let commits = || Ok::<_, crate::harness::Failure>(count(&journal(&scene.repository)?));
    let before = commits()?;
    eventually(DEADLINE, "a time of the schedule to pass", async || {
        metric(&first, SKIPPED).await.ok()?.filter(|skipped| *skipped >= 1.0)
    })
    .await?;
    assert_eq!(commits()?, before, "no backup by the schedule");

    let told = ends(hub, &config, &["backup", "run", "--reason", "by hand"], 0)?;
    assert!(told.contains("asked for: by hand"), "{told}");
    assert!(told.contains("; the schedule stays paused until 2"), "{told}");
    first.signal("USR2")?;
    let two = |_: &Value| (commits().ok()? == before + 2).then_some(());
    first.until(DEADLINE, "a backup for the signal", two).await?;

    // A daemon that starts takes a first backup, but not against a pause.
    first.kill9();
    let mut first = scene.start_first().await?;
    until_role(&mut first, "primary").await?;
    until_metric(&first, PAUSED, 1.0).await?;
    // Its first turns prove the fence and open the term, and know no schedule yet.
    let held = |seen: &Value| {
        let until = &seen["pause"]["until"];
        (until.is_string() && seen["backup"]["nextRunAt"] == *until).then(|| seen.clone())
    };
    let seen = first.until(SOON, "the schedule to be held", held).await?;
    assert_eq!(seen["pause"]["reason"], WHY);
    let tick = |seen: &Value| seen["loops"]["backup"].as_str().map(str::to_owned);
    let once = tick(&seen);
    first.until(SOON, "the loop to turn again", |seen| (tick(seen) > once).then_some(())).await?;
    assert_eq!(commits()?, before + 2);

    // What was held back comes at once.
    let told = ends(hub, &config, &["backup", "resume"], 0)?;
    assert!(told.contains("the pause is over"), "{told}");
    let three = |_: &Value| (commits().ok()? == before + 3).then_some(());
    first.until(DEADLINE, "the backup that was held back", three).await?;
    until_event(hub, "BackupResumed").await?;
    until_condition(hub, FIRST, "BackupCurrent", "True", "BackupCurrent").await?;
    assert!(metric(&first, "understudy_backup_deadline_timestamp_seconds").await? > Some(0.0));
    assert!(ends(hub, &config, &["backup", "resume"], 0)?.contains("nothing was paused"));

    // By itself.
    ends(hub, &config, &["backup", "pause", "--for", "5s", "--reason", WHY], 0)?;
    until_condition(hub, FIRST, "BackupCurrent", "False", "BackupPaused").await?;
    until_metric(&first, PAUSED, 0.0).await?;
    until_condition(hub, FIRST, "BackupCurrent", "True", "BackupCurrent").await?;
    Ok(())
}

fn count(records: &[crate::scene::Record]) -> usize {
    records.iter().filter(|record| record.kind == "Commit").count()
}

fn refused(scene: &Scene) -> Result<()> {
    let pair = &scene.pair;
    let (first, second) = (scene.first_file()?, scene.second_file()?);
    let pause = ["pause", "--for", "1h", "--reason", WHY];
    let told = ends(&pair.passive, &second, &[&["backup"], &pause[..]].concat(), 5)?;
    assert!(told.contains("eu-2 is not the primary, only the primary can do that"), "{told}");
    let told = ends(&pair.primary, &first, &[&["sync"], &pause[..]].concat(), 5)?;
    assert!(told.contains("eu-1 is not passive, only a passive hub can do that"), "{told}");
    // Neither for how long, nor why, nor both an end and none.
    for args in [
        &["backup", "pause", "--reason", WHY][..],
        &["backup", "pause", "--for", "1h"],
        &["backup", "pause", "--for", "1h", "--indefinitely", "--reason", WHY],
    ] {
        ends(&pair.primary, &first, args, 2)?;
    }
    Ok(())
}

/// Status, page, condition, Event, metrics.
async fn shows(scene: &Scene, first: &Daemon) -> Result<()> {
    let hub = &scene.pair.primary;
    let message = until_condition(hub, FIRST, "BackupCurrent", "False", "BackupPaused").await?;
    assert!(message.contains(WHY), "{message}");
    assert!(until_event(hub, "BackupPaused").await?.contains(WHY));
    until_metric(first, PAUSED, 1.0).await?;
    until_metric(first, "understudy_backup_deadline_timestamp_seconds", 0.0).await?;
    let (_, page) = first.http_get("/").await?;
    assert!(page.contains(WHY) && page.contains("understudy backup resume"), "{page}");
    let seen = first.status().await?;
    assert_eq!(seen["pause"]["reason"], WHY);
    assert_eq!(seen["backup"]["nextRunAt"], seen["pause"]["until"], "{}", seen["backup"]);
    assert_eq!(seen["verdict"]["level"], "attention", "{}", seen["verdict"]);
    let table = ends(hub, &scene.first_file()?, &["status"], 0)?;
    assert!(table.contains("next      backup paused until "), "{table}");
    assert!(table.contains("warning   BackupPaused"), "{table}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_syncs_holds_until_a_promotion() -> Result<()> {
    let scene = Scene::set(1).await?;
    let (mut first, mut second) = scene.running().await?;
    let (hub, config) = (&scene.pair.passive, scene.second_file()?);

    let told = ends(hub, &config, &["sync", "pause", "--indefinitely", "--reason", WHY], 0)?;
    assert!(told.contains("until somebody resumes it"), "{told}");
    until_condition(hub, SECOND, "Synced", "False", "SyncPaused").await?;
    until_event(hub, "SyncPaused").await?;
    let (held, writes) =
        (status::restored(&second.status().await?).map(str::to_owned), restore_writes(hub)?);
    let newest = scene.backup(&mut first).await?;
    let follows = |seen: &Value| (status::newest(seen) == Some(&newest)).then(|| seen.clone());
    let seen = second.until(DEADLINE, "the passive hub to see the backup", follows).await?;
    assert_eq!(status::restored(&seen).map(str::to_owned), held);
    assert_eq!(restore_writes(hub)?, writes);

    let told = ends(hub, &config, &["sync", "now"], 0)?;
    assert!(told.contains(&newest) && told.contains("; the schedule stays paused"), "{told}");
    second.until(SOON, "it to stand there", in_sync).await?;
    scene.backup(&mut first).await?;
    let told = ends(hub, &config, &["sync", "resume"], 0)?;
    assert!(told.contains("the pause is over"), "{told}");
    second.until(DEADLINE, "the standby to follow again", in_sync).await?;
    until_condition(hub, SECOND, "Synced", "True", "InSync").await?;

    // The promoted hub starts from the newest backup, and without a pause.
    ends(hub, &config, &["sync", "pause", "--for", "1h", "--reason", WHY], 0)?;
    let newest = scene.backup(&mut first).await?;
    first.kill9();
    until_silent(&mut second).await?;
    second.signal("USR1")?;
    until_role(&mut second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then(|| seen.clone());
    let seen = second.until(DEADLINE, "the first backup of its own", own).await?;
    assert_eq!(seen["promotion"]["base"], newest);
    assert_eq!(seen["pause"], Value::Null);
    until_metric(&second, PAUSED, 0.0).await
}
