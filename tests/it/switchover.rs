//! A planned change of roles: the primary hands over with a last backup, the other hub is promoted
//! without waiting for silence, and nothing is lost. Until then the way back is open.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::{AuditEvent, Hub};
use crate::harness::{Result, pair, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, counts, differences, in_sync, journal, restore_writes,
    until_condition, until_event, until_role,
};
use serde_json::{Value, json};
use std::path::Path;
use understudy::object::Set;

const CLUSTER: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters/cluster-0000";

/// What the command printed, where it ended with this code.
pub(crate) fn ends(hub: &Hub, config: &Path, args: &[&str], code: i32) -> Result<String> {
    let output = cli_on(hub, config, args)?;
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
    let text = text.concat();
    if output.status.code() == Some(code) {
        Ok(text)
    } else {
        Err(format!("{args:?} ended with {}, not {code}: {text}", output.status).into())
    }
}

/// The primary knows that the other hub could take over.
pub(crate) async fn until_ready(primary: &mut Daemon, standby: &str) -> Result<()> {
    let ready = |seen: &Value| {
        let mut peers = seen["peers"].as_array()?.iter();
        peers.any(|peer| peer["hub"] == standby && peer["ready"] == true).then_some(())
    };
    primary.until(DEADLINE, "the standby to be ready", ready).await
}

fn kinds(scene: &Scene) -> Result<Vec<String>> {
    Ok(journal(&scene.repository)?.into_iter().map(|record| record.kind).collect())
}

async fn change(hub: &Hub, value: &str) -> Result<()> {
    let change = json!({"metadata": {"annotations": {"change": value}}});
    hub.api()?.merge_patch(CLUSTER, &change).await?;
    Ok(())
}

async fn changed(hub: &Hub) -> Result<Value> {
    Ok(hub.api()?.get_json(CLUSTER).await?["metadata"]["annotations"]["change"].take())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_handed_over_writes_no_more_and_may_take_it_back() -> Result<()> {
    let scene = Scene::set(1).await?;
    let (mut first, mut second) = scene.running().await?;
    until_ready(&mut first, SECOND).await?;
    let (hub, config) = (&scene.pair.primary, scene.first_file()?);

    let told = ends(&scene.pair.passive, &scene.second_file()?, &["demote", "--yes"], 5)?;
    assert!(told.contains("eu-2 is not the primary"), "{told}");
    let told = ends(hub, &config, &["demote", "--to", "eu-3", "--yes"], 5)?;
    assert!(told.contains("no hub eu-3 has shown a sign of life; seen were: eu-2"), "{told}");
    let told = ends(hub, &config, &["demote"], 7)?;
    assert!(told.contains("understudy demote --yes"), "{told}");
    let told = ends(hub, &config, &["demote", "--to", SECOND, "--dry-run"], 0)?;
    assert!(told.contains("eu-1 would hand over to eu-2"), "{told}");
    assert!(!kinds(&scene)?.contains(&"Handover".to_owned()));

    change(hub, "before").await?;
    let told = ends(hub, &config, &["demote", "--to", SECOND, "--yes", "--reason", "test"], 0)?;
    assert_eq!(kinds(&scene)?[kinds(&scene)?.len() - 2..], ["Commit", "Handover"]);
    let seen = until_role(&mut first, "passive").await?;
    let backup = status::newest(&seen).ok_or("no backup")?.to_owned();
    assert_eq!(seen["handover"]["handed"]["backup"], backup);
    for part in [&*backup, "understudy.dev/promote=eu-2", "understudy.dev/promote=eu-1"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    until_condition(hub, FIRST, "Ready", "False", "HandedOver").await?;
    until_event(hub, "HandedOver").await?;

    // The same again finds it done; a restart and a signal change nothing.
    let again = ends(hub, &config, &["demote", "--to", SECOND, "--yes"], 0)?;
    assert_eq!(
        again.lines().find(|l| l.contains(&backup)),
        told.lines().find(|l| l.contains(&backup))
    );
    let stands = kinds(&scene)?;
    first.kill9();
    let mut first = scene.start_first().await?;
    until_role(&mut first, "passive").await?;
    first.signal("USR2")?;
    let told = ends(hub, &config, &["backup", "run"], 5)?;
    assert!(told.contains("eu-1 is not the primary"), "{told}");
    assert_eq!(kinds(&scene)?, stands);

    // What happened here since then stays when the hub takes its term back.
    change(hub, "after").await?;
    first.signal("USR1")?;
    let seen = until_role(&mut first, "primary").await?;
    assert_eq!((status::epoch(&seen), &seen["promotion"]["dataLossSeconds"]), (2, &json!(0)));
    assert_eq!(seen["handover"]["handed"], Value::Null);
    let own = |seen: &Value| (seen["newest"]["epoch"] == 2).then_some(());
    first.until(DEADLINE, "a backup of the new term", own).await?;
    assert_eq!(changed(hub).await?, "after");
    assert_eq!(restore_writes(hub)?, 0);
    second.until(DEADLINE, "the standby to follow", in_sync).await?;
    let records = journal(&scene.repository)?;
    let counts = counts(&records);
    assert_eq!(counts[&(2, FIRST, "Activated")], 1, "{counts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_stands_for_silence() -> Result<()> {
    let mut scene = Scene::set(1).await?;
    for config in [&mut scene.first, &mut scene.second] {
        config.set("promotion.primarySilence", json!("1h"));
    }
    let (mut first, mut second) = scene.running().await?;
    until_ready(&mut first, SECOND).await?;
    ends(&scene.pair.primary, &scene.first_file()?, &["demote", "--yes"], 0)?;
    let handed = |seen: &Value| {
        let mut list = seen["promotion"]["checklist"].as_array()?.iter();
        let check = list.find(|check| check["name"] == "primary silent")?;
        (check["ok"] == true).then(|| check["why"].as_str().unwrap_or_default().to_owned())
    };
    let why = second.until(SOON, "the hand-over in the checklist", handed).await?;
    let backup = status::newest(&second.status().await?).map(str::to_owned).ok_or("no backup")?;
    assert!(why.starts_with("handed over by eu-1 at ") && why.ends_with(&backup), "{why}");
    second.until(DEADLINE, "the last backup to stand here", in_sync).await?;

    second.signal("USR1")?;
    let seen = until_role(&mut second, "primary").await?;
    assert_eq!(seen["promotion"]["base"], backup);
    assert_eq!(seen["promotion"]["dataLossSeconds"], 0);
    let follows = |seen: &Value| (status::epoch(seen) == 2).then(|| seen.clone());
    let seen = first.until(SOON, "the hub that handed over to see it", follows).await?;
    assert_eq!((status::role(&seen), &seen["holder"]), ("passive", &json!(SECOND)));
    Ok(())
}

/// From the hub of `config` to the other.
fn switch(scene: &Scene, config: &Path, to: &str, more: &[&str]) -> Result<(Option<i32>, String)> {
    let (from, there) = if to == SECOND { (FIRST, SECOND) } else { (SECOND, FIRST) };
    let file = scene.scratch.path().join("operator.kubeconfig");
    pair::operator([(&scene.pair.primary, FIRST), (&scene.pair.passive, SECOND)], &file)?;
    let output = pair::switchover(&file, config, from, there, more)?;
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
    Ok((output.status.code(), text.concat()))
}

/// The id behind these words in what was told.
fn id_behind<'a>(told: &'a str, words: &str) -> Option<&'a str> {
    told.split(words).nth(1)?.split_whitespace().next()
}

/// Both directions by the one command: what was written last on the primary stands on the other hub, both
/// name the same backup, the hub that handed over follows without being fenced, and nothing is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_again_nothing_is_lost() -> Result<()> {
    let scene = Scene::set(2).await?;
    let (mut first, mut second) = scene.running().await?;
    let (first_file, second_file) = (scene.first_file()?, scene.second_file()?);
    until_ready(&mut first, SECOND).await?;
    let (code, told) = switch(&scene, &first_file, SECOND, &["--dry-run"])?;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("eu-1 would hand over to eu-2"), "{told}");
    let (code, told) = switch(&scene, &first_file, SECOND, &[])?;
    assert_eq!(code, Some(7), "{told}");
    assert!(!kinds(&scene)?.contains(&"Handover".to_owned()));

    for (epoch, to, file) in [(2, SECOND, &first_file), (3, FIRST, &second_file)] {
        let (from, there, hubs) = if to == SECOND {
            (&mut first, &mut second, (&scene.pair.primary, &scene.pair.passive))
        } else {
            (&mut second, &mut first, (&scene.pair.passive, &scene.pair.primary))
        };
        until_ready(from, to).await?;
        change(hubs.0, to).await?;
        let (code, told) = switch(&scene, file, to, &["--yes", "--reason", "maintenance"])?;
        assert_eq!(code, Some(0), "{told}");
        let handed = id_behind(&told, "handed over with backup ").ok_or("no backup")?.to_owned();
        assert_eq!(id_behind(&told, "started from backup "), Some(&*handed), "{told}");
        let seen = until_role(there, "primary").await?;
        assert_eq!((status::epoch(&seen), &seen["promotion"]["base"]), (epoch, &json!(handed)));
        assert_eq!(seen["promotion"]["dataLossSeconds"], 0);
        assert_eq!(changed(hubs.1).await?, to, "written just before");

        let own = |seen: &Value| (seen["newest"]["epoch"] == epoch).then_some(());
        there.until(DEADLINE, "the first own backup", own).await?;
        let follows = |seen: &Value| (seen["newest"]["epoch"] == epoch).then(|| in_sync(seen))?;
        from.until(DEADLINE, "the other hub to follow", follows).await?;
        let seen = from.status().await?;
        assert_eq!((status::role(&seen), &seen["sync"]["held"]), ("passive", &Value::Null));
        assert_eq!(differences(&scene, &Set::ALL).await?, [] as [String; 0]);
        let deletes = |event: &AuditEvent| event.is_restore_write() && event.verb == "delete";
        assert!(hubs.0.audit_writes(deletes)?.is_empty());
    }
    scene.canary_is_seen_nowhere(&[&first, &second]).await
}

/// A backup runs, at any point of its work, when the hub is asked to hand over: it is finished or abandoned,
/// the last backup follows, and behind the record there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_demotion_while_a_backup_runs_leaves_none_behind_it() -> Result<()> {
    let scene = Scene::set(10).await?;
    let (mut first, _second) = scene.running().await?;
    let (hub, config) = (&scene.pair.primary, scene.first_file()?);
    for (round, wait) in [0, 7, 40, 200].into_iter().enumerate() {
        until_ready(&mut first, SECOND).await?;
        change(hub, &round.to_string()).await?;
        first.signal("USR2")?;
        // Not to wait for something, but to come at another point each time.
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        ends(hub, &config, &["demote", "--yes"], 0)?;
        first.signal("USR2")?;
        until_role(&mut first, "passive").await?;
        let kinds = kinds(&scene)?;
        assert_eq!(kinds[kinds.len() - 2..], ["Commit", "Handover"], "round {round}: {kinds:?}");
        first.signal("USR1")?;
        let back = |seen: &Value| (status::role(seen) == "primary").then_some(());
        first.until(DEADLINE, "the term to be taken back", back).await?;
        let own = |seen: &Value| (seen["newest"]["epoch"] == seen["epoch"]).then_some(());
        first.until(DEADLINE, "a backup of the new term", own).await?;
    }
    let records = journal(&scene.repository)?;
    let late = records.windows(2).filter(|two| two[0].kind == "Handover" && two[1].kind != "Term");
    assert_eq!(late.count(), 0, "{records:?}");
    Ok(())
}
