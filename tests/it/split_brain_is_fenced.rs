//! Two hubs that both believe to be primary: the storage lets one of them write.

use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::s3::S3;
use crate::harness::{Result, status};
use crate::scene::{DEADLINE, FIRST, SECOND, Scene, in_sync, journal, until_role, until_silent};
use serde_json::Value;

/// Both configured as the initial primary, both started at once on an empty bucket: the race is for
/// `repo`, for the first slot and for the first term.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_initial_primaries_one_is_fenced() -> Result<()> {
    const ROUNDS: usize = 4;
    let (mut scene, s3) = tokio::try_join!(Scene::set(1), S3::shared())?;
    for round in 0..ROUNDS {
        let prefix = S3::prefix("two-primaries");
        scene.first = primary(FIRST, &scene)?.with_s3(s3, &prefix);
        scene.second = primary(SECOND, &scene)?.with_s3(s3, &prefix);
        forget_what_was_before(&scene).await?;
        let (mut first, mut second) = tokio::try_join!(scene.start_first(), scene.start_second())?;
        let (winner, loser) = decided(&mut first, &mut second).await?;
        let winner_backup = |seen: &Value| status::newest(seen).map(str::to_owned);
        winner.0.until(DEADLINE, "the winner's backup", winner_backup).await?;
        let seen = loser.0.status().await?;
        assert_eq!(seen["holder"], winner.1, "round {round}");
        assert_eq!(status::epoch(&seen), 1, "round {round}");

        loser.0.signal("USR2")?;
        loser.0.kill9();
        winner.0.kill9();
        for (kind, hub) in records(s3, &prefix).await? {
            assert!(kind == "Init" || hub == winner.1, "round {round}: {kind} of {hub}");
        }
        let kinds = records(s3, &prefix).await?.into_iter().map(|(kind, _)| kind);
        assert_eq!(kinds.filter(|kind| kind == "Term").count(), 1, "round {round}");
    }
    Ok(())
}

fn primary(name: &str, scene: &Scene) -> Result<Config> {
    Config::new(name, "primary", &scene.key)
}

/// The next round has a bucket prefix of its own, as if the hubs had never seen another.
async fn forget_what_was_before(scene: &Scene) -> Result<()> {
    for (hub, name) in [(&scene.pair.primary, FIRST), (&scene.pair.passive, SECOND)] {
        let (api, path) = (hub.api()?, crate::scene::hub_path(name));
        if api.find(&path).await?.is_some() {
            api.delete(&path).await?;
        }
    }
    Ok(())
}

type Named<'a> = (&'a mut Daemon, &'static str);

/// Winner and loser, once both know.
async fn decided<'a>(
    first: &'a mut Daemon,
    second: &'a mut Daemon,
) -> Result<(Named<'a>, Named<'a>)> {
    let known = |seen: &Value| {
        let role = status::role(seen);
        ["primary", "fenced"].contains(&role).then(|| role.to_owned())
    };
    let roles = (
        first.until(DEADLINE, "a role", known).await?,
        second.until(DEADLINE, "a role", known).await?,
    );
    match (roles.0.as_str(), roles.1.as_str()) {
        ("primary", "fenced") => Ok(((first, FIRST), (second, SECOND))),
        ("fenced", "primary") => Ok(((second, SECOND), (first, FIRST))),
        (first, second) => Err(format!("{FIRST} is {first}, {SECOND} is {second}").into()),
    }
}

/// Kind and hub of each record, in order.
async fn records(s3: &S3, prefix: &str) -> Result<Vec<(String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let records = s3.records(prefix).await?;
    Ok(records.iter().map(|r| (text(&r["body"]["kind"]), text(&r["hub"]["name"]))).collect())
}

/// The primary is frozen in the middle of its work and knows nothing of the promotion. When it goes
/// on, its first breath is a backup that was asked for while it slept.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_wakes_up_after_the_promotion_adds_nothing() -> Result<()> {
    let scene = Scene::set(2).await?;
    let (mut first, mut second) = scene.running().await?;
    first.signal("STOP")?;
    first.signal("USR2")?;
    until_silent(&mut second).await?;
    second.promote(DEADLINE).await?;
    until_role(&mut second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then_some(());
    second.until(DEADLINE, "the first own backup", own).await?;

    first.signal("CONT")?;
    let seen = until_role(&mut first, "fenced").await?;
    assert_eq!((status::epoch(&seen), &seen["holder"]), (2, &SECOND.into()));
    first.signal("USR2")?;
    let output = cli_on(&scene.pair.primary, &scene.first_file()?, &["backup", "run"])?;
    assert!(!output.status.success(), "a backup on a fenced hub");

    let records = journal(&scene.repository)?;
    let term = records.iter().find(|record| record.epoch == 2).ok_or("no term")?;
    let late: Vec<_> = records.iter().filter(|r| r.slot > term.slot && r.hub == FIRST).collect();
    assert!(late.is_empty(), "written by the superseded primary: {late:?}");
    let backups = second.http_get("/api/v1/backups").await?.1;
    let backups: Value = serde_json::from_str(&backups)?;
    let newer = backups["items"].as_array().ok_or("no items")?.iter();
    let newer = newer.filter(|one| one["slot"].as_u64() > Some(term.slot));
    assert!(newer.clone().count() > 0 && newer.clone().all(|one| one["hub"] == SECOND));
    Ok(())
}

/// The primary is stopped while it uploads: its packs may be complete, its commit comes too late.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_flight_at_the_promotion_is_not_accepted() -> Result<()> {
    let scene = Scene::set(30).await?;
    let (mut first, mut second) = scene.running().await?;
    let api = scene.pair.primary.api()?;
    for item in scene.items.iter().filter(|item| item.key.resource() == "secrets") {
        let path = format!("{}/{}", item.key.collection_path("v1"), item.key.name());
        api.merge_patch(&path, &serde_json::json!({"metadata": {"annotations": {"a": "b"}}}))
            .await?;
    }
    let packs = || crate::scene::files(&scene.repository.join("packs"));
    let before = packs()?.len();
    first.signal("USR2")?;
    crate::harness::eventually(DEADLINE, "a pack of the next backup", async || {
        (packs().ok()?.len() > before).then_some(())
    })
    .await?;
    first.signal("STOP")?;
    let committed = |kind: &str| {
        journal(&scene.repository).map(|records| records.iter().filter(|r| r.kind == kind).count())
    };
    let commits = committed("Commit")?;
    until_silent(&mut second).await?;
    // If the commit was faster than the signal, the standby opens that backup first.
    second.until(DEADLINE, "the standby to hold the newest", in_sync).await?;
    second.promote(DEADLINE).await?;
    first.signal("CONT")?;
    until_role(&mut first, "fenced").await?;
    until_role(&mut second, "primary").await?;
    second
        .until(DEADLINE, "the first own backup", |seen| {
            (seen["newest"]["hub"] == SECOND).then_some(())
        })
        .await?;
    assert_eq!(committed("Commit")?, commits + 1, "the one of the new primary");
    Ok(())
}

/// Two daemons of one hub, by accident: the later one opens the term anew and the earlier one ends,
/// so that never more than one of them adds anything.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_of_one_hub_the_older_ends() -> Result<()> {
    let scene = Scene::set(1).await?;
    let mut older = scene.start_first().await?;
    until_role(&mut older, "primary").await?;
    let newest = |seen: &Value| status::newest(seen).map(|_| ());
    older.until(DEADLINE, "a first backup", newest).await?;

    let again = primary(FIRST, &scene)?.with_directory(&scene.repository);
    let file = again.write(&scene.scratch.path().join("again.yaml"))?;
    let mut newer = Daemon::start_on(&scene.pair.primary, &file).await?;
    until_role(&mut newer, "primary").await?;
    let ended = older.wait_exit(DEADLINE).await?;
    assert_eq!(ended.code(), Some(11), "{}", older.log_text()?);
    let output = cli_on(&scene.pair.primary, &file, &["backup", "run"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let records = journal(&scene.repository)?;
    let kinds: Vec<_> = records.iter().map(|record| record.kind.as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "Term").count(), 1, "{kinds:?}");
    let opened = kinds.iter().rposition(|kind| *kind == "Open").ok_or("no Open")?;
    let incarnation = records[opened].slot;
    for record in &records[opened + 1..] {
        assert_eq!(record.incarnation, incarnation, "of the older daemon: {record:?}");
    }
    let seen = newer.status().await?;
    assert_eq!(seen["writerConflict"], Value::Null, "the conflict is over");
    Ok(())
}
