//! The primary is lost without a goodbye; an operator promotes the standby by a signal. From the
//! term on the old primary can add nothing, and when it returns it says so and leaves everything
//! as it is.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, SECOND, SOON, Scene, counts, differences, journal, metric, restore_writes, stored,
    until_event, until_metric, until_refused, until_role, until_silent,
};
use understudy::object::Set;

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_and_the_old_primary_stays_fenced() -> Result<()> {
    let mut scene = Scene::set(4).await?;
    let (mut first, mut second) = scene.running().await?;

    refused_while_the_primary_lives(&scene, &mut second).await?;

    first.kill9();
    scene.pair.primary.kill();
    until_silent(&mut second).await?;
    let seconds = second.promote(DEADLINE).await?;
    assert!(seconds <= 2.0, "from the signal to the term it took {seconds} s");
    promoted(&scene, &mut second).await?;

    returns_fenced(&mut scene, &mut first).await?;
    let everything = [Set::Credentials, Set::Resources, Set::Activation];
    assert_eq!(differences(&scene, &everything).await?, Vec::<String>::new());
    scene.second_did_what_it_may()?;
    scene.canary_is_seen_nowhere(&[&second]).await
}

async fn refused_while_the_primary_lives(scene: &Scene, second: &mut Daemon) -> Result<()> {
    second.signal("USR1")?;
    let refused = until_refused(second, "PrimaryAlive").await?;
    let forced = format!(
        "kubectl -n understudy annotate hubs.understudy.dev {SECOND} \
         understudy.dev/promote-reason='why' 'understudy.dev/promote={SECOND}!primary-is-dead'"
    );
    let hint = refused["hint"].as_str().unwrap_or_default();
    assert!(hint.contains(&forced), "the hint holds the command that would work: {refused}");
    let note = until_event(&scene.pair.passive, "PromotionRefused").await?;
    assert!(note.contains(&forced), "and so does the Event: {note}");
    let seen = second.status().await?;
    assert_eq!((status::role(&seen), status::epoch(&seen)), ("passive", 1));
    until_metric(second, r#"understudy_promotions_total{outcome="refused",trigger="signal"}"#, 1.0)
        .await
}

async fn promoted(scene: &Scene, second: &mut Daemon) -> Result<()> {
    until_role(second, "primary").await?;
    let seen = second
        .until(DEADLINE, "the first own backup", |seen| {
            (seen["newest"]["hub"] == SECOND).then(|| seen.clone())
        })
        .await?;
    let promotion = &seen["promotion"];
    assert_eq!(promotion["phase"], "Activated", "{promotion}");
    assert_eq!(promotion["outcome"], "success", "{promotion}");
    assert_eq!(promotion["failed"], serde_json::json!([]), "{promotion}");
    let activation = scene.keys_of(Set::Activation).len();
    assert_eq!(promotion["activated"], activation, "all of the set: {promotion}");

    let records = journal(&scene.repository)?;
    let kinds: Vec<_> = records.iter().filter(|record| record.epoch == 2).collect();
    let kinds: Vec<_> = kinds.iter().map(|record| record.kind.as_str()).collect();
    assert_eq!(kinds, ["Term", "Open", "Activated", "Commit"]);
    let term = records.iter().find(|record| record.epoch == 2).ok_or("no term")?;
    let writes = scene.writes_to(&scene.pair.passive, Set::Activation)?;
    assert!(writes.len() >= activation, "{} writes for {activation} objects", writes.len());
    for write in writes {
        assert!(write.at >= term.since, "before the term of {}: {write:?}", term.since);
    }
    Ok(())
}

async fn returns_fenced(scene: &mut Scene, first: &mut Daemon) -> Result<()> {
    let before = stored(&scene.repository)?;
    scene.pair.primary.restart().await?;
    for run in ["at its return", "after a restart"] {
        *first = scene.start_first().await?;
        let seen = until_role(first, "fenced").await?;
        assert_eq!((status::epoch(&seen), &seen["holder"]), (2, &SECOND.into()), "{run}");
        until_metric(first, r#"understudy_role{role="fenced"}"#, 1.0).await?;
        assert_eq!(metric(first, r#"understudy_role{role="primary"}"#).await?, Some(0.0), "{run}");
        let log = first.log_text()?;
        assert!(log.contains(r#""role":"fenced""#) && log.contains(SECOND), "{run}: {log}");

        first.signal("USR2")?;
        let output = cli_on(&scene.pair.primary, &scene.first_file()?, &["backup", "run"])?;
        assert!(!output.status.success(), "{run}: a backup on a fenced hub");
        first.signal("USR1")?;
        until_refused(first, "Fenced").await?;
        assert_eq!(stored(&scene.repository)?, before, "{run}: nothing was written");
        first.kill9();
    }
    assert_eq!(restore_writes(&scene.pair.primary)?, 0, "its hub is left as it was");
    Ok(())
}

/// The handlers are the first act of `main`: from the moment the kernel knows them, no signal ends
/// the process, whatever it is doing then.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_the_very_start_does_not_end_the_daemon() -> Result<()> {
    let scene = Scene::set(0).await?;
    let mut second = Daemon::start(
        &scene.second_file()?,
        &scene.pair.passive.kubeconfig,
        crate::harness::hub::NAMESPACE,
    )?;
    let file = format!("/proc/{}/status", second.pid());
    eventually(SOON, "the handler of SIGUSR1", async || {
        let text = std::fs::read_to_string(&file).ok()?;
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & (1 << 9) != 0).then_some(())
    })
    .await?;
    for _ in 0..20 {
        second.signal("USR1")?;
    }
    second.wait_live().await?;
    until_refused(&mut second, "NoBackup").await?;

    // A storm on a hub that may not be promoted: each is answered, none does harm.
    storm(&second)?;
    let mut first = scene.start_first().await?;
    until_role(&mut first, "primary").await?;
    second.until(DEADLINE, "the standby to follow", crate::scene::in_sync).await?;
    storm(&second)?;
    until_refused(&mut second, "PrimaryAlive").await?;

    first.kill9();
    until_silent(&mut second).await?;
    storm(&second)?;
    until_role(&mut second, "primary").await?;
    storm(&second)?;
    let seen = second
        .until(DEADLINE, "the first own backup", |seen| {
            (seen["newest"]["hub"] == SECOND).then(|| seen.clone())
        })
        .await?;
    assert_eq!(status::epoch(&seen), 2);
    until_refused(&mut second, "NotPassive").await?;
    let records = journal(&scene.repository)?;
    let counts = counts(&records);
    assert_eq!(counts[&(2, SECOND, "Term")], 1, "{counts:?}");
    assert_eq!(counts[&(2, SECOND, "Activated")], 1, "{counts:?}");
    assert_eq!(records.iter().filter(|record| record.epoch > 2).count(), 0, "{counts:?}");
    let promotion = &second.status().await?["promotion"];
    assert_eq!(promotion["phase"], "Activated", "a late signal changes no record: {promotion}");
    Ok(())
}

/// A thousand times SIGUSR1.
fn storm(daemon: &Daemon) -> Result<()> {
    let script = "i=0; while [ $i -lt 1000 ]; do kill -s USR1 \"$1\" || exit 1; i=$((i+1)); done";
    let pid = daemon.pid().to_string();
    let status = std::process::Command::new("sh").args(["-c", script, "sh", &pid]).status()?;
    if status.success() { Ok(()) } else { Err("the daemon took no signal".into()) }
}
