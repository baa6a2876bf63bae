//! A prune that would delete too much waits for an operator, who releases what he has looked at: that
//! plan, once, and no other one.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::AuditEvent;
use crate::harness::{Result, status};
use crate::scene::{DEADLINE, Scene, in_sync, until_condition, until_event};
use serde_json::{Value, json};

const MAPS: usize = 12;
const DOOMED: usize = 7;
const MAX_DELETES: usize = 5;
const FOLDER: &str = "/api/v1/namespaces/team/configmaps";
const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";

fn path(n: usize) -> String {
    format!("{FOLDER}/m{n:02}")
}

/// A scene whose standby may delete no more than [`MAX_DELETES`] at once.
async fn set() -> Result<Scene> {
    let mut scene = Scene::set(0).await?;
    scene.first.set("schedule.maxShrink", json!("100%"));
    scene.second.set("passive.maxDeletes", json!(MAX_DELETES));
    scene.second.set("passive.maxShrink", json!("100%"));
    let source = scene.pair.primary.api()?;
    let team = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    source.post("/api/v1/namespaces", &team).await?;
    for n in 0..MAPS {
        let metadata = json!({"name": format!("m{n:02}"), "labels": {BACKUP_LABEL: ""}});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        source.post(FOLDER, &map).await?;
    }
    Ok(scene)
}

/// What an operator of the passive hub runs; it ends with `code`. All that it printed.
fn command(scene: &Scene, args: &[&str], code: i32) -> Result<String> {
    let output = cli_on(&scene.pair.passive, &scene.second_file()?, args)?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    Ok(text)
}

/// Names of what the daemon of the passive hub ever deleted.
fn deleted(scene: &Scene) -> Result<Vec<String>> {
    let deletes = |event: &AuditEvent| event.is_restore_write() && event.verb == "delete";
    let events = scene.pair.passive.audit_writes(deletes)?;
    let mut names: Vec<_> = events.into_iter().map(|event| event.name).collect();
    names.sort_unstable();
    // One whose version had moved on is asked for again.
    names.dedup();
    Ok(names)
}

/// Takes a backup, and waits until the standby holds it.
async fn follow(scene: &Scene, first: &mut Daemon, second: &mut Daemon) -> Result<()> {
    scene.backup(first).await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await
}

/// The plan that is held, once it is of so many deletions.
async fn until_held(daemon: &mut Daemon, deletions: usize) -> Result<String> {
    let plan = |seen: &Value| {
        let held = &seen["sync"]["held"];
        (held["deletions"] == deletions).then(|| held["plan"].as_str().map(str::to_owned))?
    };
    daemon.until(DEADLINE, &format!("a held plan of {deletions}"), plan).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_prune_goes_once_it_is_released() -> Result<()> {
    let scene = set().await?;
    let (source, target) = (scene.pair.primary.api()?, scene.pair.passive.api()?);
    let (mut first, mut second) = scene.running().await?;
    for n in 0..DOOMED {
        source.delete(&path(n)).await?;
    }
    follow(&scene, &mut first, &mut second).await?;
    let plan = until_held(&mut second, DOOMED).await?;
    shown(&scene, &second, &plan).await?;

    // Only what is held, and only here.
    let refused = command(&scene, &["sync", "ack", "0123456789abcdef"], 5)?;
    assert!(refused.contains(&format!("understudy sync ack {plan}")), "{refused}");
    let primary = cli_on(&scene.pair.primary, &scene.first_file()?, &["sync", "ack", &plan])?;
    assert_eq!(primary.status.code(), Some(5), "on the primary");

    // A further backup is as good, if the same objects are absent from it.
    source.merge_patch(&path(11), &json!({"data": {"a": "b"}})).await?;
    follow(&scene, &mut first, &mut second).await?;
    assert_eq!(until_held(&mut second, DOOMED).await?, plan);

    // One more goes, which the standby finds only when it is to carry out the plan.
    command(&scene, &["sync", "pause", "--for", "1h", "--reason", "test"], 0)?;
    source.delete(&path(DOOMED)).await?;
    let newest = scene.backup(&mut first).await?;
    let known = |seen: &Value| (status::newest(seen) == Some(&*newest)).then_some(());
    second.until(DEADLINE, "the backup to be seen", known).await?;
    let refused = command(&scene, &["sync", "ack", &plan], 5)?;
    let newer = until_held(&mut second, DOOMED + 1).await?;
    assert!(
        newer != plan && refused.contains(&format!("understudy sync ack {newer}")),
        "{refused}"
    );
    command(&scene, &["sync", "ack", &plan], 5)?;
    assert_eq!(deleted(&scene)?, [""; 0]);

    // Somebody's finalizer is never stripped.
    let keep = json!({"metadata": {"finalizers": ["example.com/keep"]}});
    target.merge_patch(&path(0), &keep).await?;
    let done = command(&scene, &["sync", "ack", &newer, "--reason", "they moved"], 0)?;
    assert!(done.contains(&format!("deleted 8 of 8 objects of the plan {newer}")), "{done}");
    let names: Vec<_> = (0..=DOOMED).map(|n| format!("m{n:02}")).collect();
    assert_eq!(deleted(&scene)?, names, "that and nothing else");
    assert!(done.contains("still going, such as") && done.contains("m00"), "{done}");
    let kept = target.get_json(&path(0)).await?;
    assert_eq!(kept["metadata"]["finalizers"], json!(["example.com/keep"]));
    assert!(kept["metadata"]["deletionTimestamp"].is_string(), "{kept}");
    for n in 1..MAPS {
        assert_eq!(target.find(&path(n)).await?.is_none(), n <= DOOMED, "{}", path(n));
    }
    assert!(second.log_text()?.contains("they moved"));
    let refused = command(&scene, &["sync", "ack", &newer], 5)?;
    assert!(refused.contains("nor any other one"), "{refused}");
    let held = command(&scene, &["sync", "held"], 0)?;
    assert!(held.starts_with("nothing is held\ndeleted, but finalizers keep it:"), "{held}");
    command(&scene, &["sync", "resume"], 0)?;
    until_condition(&scene.pair.passive, "eu-2", "Synced", "True", "InSync").await?;
    Ok(())
}

/// Wherever somebody may look: the plan, and the command that releases it.
async fn shown(scene: &Scene, second: &Daemon, plan: &str) -> Result<()> {
    let ack = format!("understudy sync ack {plan}");
    let hub = &scene.pair.passive;
    let message = until_condition(hub, "eu-2", "Synced", "False", "PruneHeld").await?;
    assert!(message.contains(&ack) && message.contains("passive.maxDeletes (5)"), "{message}");
    let note = until_event(hub, "PruneHeld").await?;
    assert!(note.contains(&ack), "{note}");
    let (_, page) = second.http_get("/").await?;
    assert!(page.contains(&ack), "{page}");
    for args in [&["status"][..], &["status", "-o", "json"], &["sync", "held", "-o", "json"]] {
        let told = command(scene, args, 0)?;
        assert!(told.contains(&ack), "{told}");
    }
    let held = command(scene, &["sync", "held"], 0)?;
    assert!(held.contains("configmaps") && held.contains("team/m00 team/m01"), "{held}");
    let (_, status) = second.http_get("/api/v1/status").await?;
    assert!(!status.contains("m00"), "no names for whoever asks: {status}");
    assert!(second.log_text()?.contains("team/m06"), "the log names all of it");
    Ok(())
}
