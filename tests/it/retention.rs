//! Old backups go, and their packs after a delay; everything that is still offered can be restored,
//! the storage holds nothing else of ours, and what is not ours stays. With shortened intervals.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, Scene, files, in_sync, journal, metric, stored, until_role,
    until_silent,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use understudy::clock;

const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const MAPS: &str = "/api/v1/namespaces/cluster-0000/configmaps";
const DELAY: SignedDuration = SignedDuration::from_secs(4);
const BACKUPS: usize = 14;
/// So many that hardly a sweep is through with them between two looks.
const ORPHANS: usize = 3_000;

/// Retention that lets nearly everything go.
fn fast(scene: &mut Scene, after: SignedDuration) {
    let rules = json!({
        "keepLast": 1, "sweepAfter": format!("{}s", after.as_secs()), "sweepInterval": "100ms",
    });
    scene.first.set("retention", rules);
}

/// A backup that brings a change larger than all that was there: levels become one, and packs
/// superfluous.
async fn backup(scene: &Scene, first: &mut Daemon, n: usize) -> Result<String> {
    let metadata = json!({"name": format!("m-{n}"), "labels": {BACKUP_LABEL: ""}});
    let noise = |_| format!("{:032x}", clock::random());
    let noise: String = (0..1024).map(noise).collect();
    let data = json!({"noise": noise});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
    let api = scene.pair.primary.api()?;
    api.post(MAPS, &map).await?;
    if n > 0 {
        api.delete(&format!("{MAPS}/m-{}", n - 1)).await?;
    }
    scene.backup(first).await
}

fn command(scene: &Scene, args: &[&str]) -> Result<Output> {
    cli_on(&scene.pair.primary, &scene.first_file()?, args)
}

/// Ends with `code`; what it printed and what it complained about.
fn ended(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{printed}\n{error}");
    (printed, error)
}

fn packs(repository: &Path) -> Result<BTreeSet<String>> {
    let name = |path: &std::path::PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    Ok(files(&repository.join("packs"))?.iter().filter_map(name).collect())
}

/// Packs that a `Retire` names, with the time since which that stands in the journal.
fn condemned(repository: &Path) -> Result<Vec<(String, Timestamp)>> {
    let retires = journal(repository)?.into_iter().filter(|record| record.kind == "Retire");
    let packs = retires.flat_map(|record| {
        let packs = record.body["packs"].as_array().cloned().unwrap_or_default();
        packs
            .into_iter()
            .map(move |pack| (pack.as_str().unwrap_or_default().to_owned(), record.since))
    });
    Ok(packs.collect())
}

/// Packs of the backups that no `Retire` names.
fn needed(repository: &Path) -> Result<BTreeSet<String>> {
    let records = journal(repository)?;
    let slots = records.iter().filter_map(|record| record.body["backups"].as_array()).flatten();
    let retired: BTreeSet<u64> = slots.filter_map(Value::as_u64).collect();
    let offered = records.iter().filter(|r| r.kind == "Commit" && !retired.contains(&r.slot));
    let mut needed = BTreeSet::new();
    for commit in offered {
        for set in commit.body["sets"].as_object().ok_or("no sets")?.values() {
            let levels = set["levels"].as_array().into_iter().flatten();
            let packs = levels.filter_map(|level| level["packs"].as_array()).flatten();
            needed.extend(packs.filter_map(|pack| pack["name"].as_str()).map(str::to_owned));
        }
    }
    Ok(needed)
}

/// Asks for sweeps until `packs/` holds exactly these.
async fn until_packs(scene: &Scene, others: &[String]) -> Result<()> {
    let left = eventually(DEADLINE, "nothing but needed packs", async || {
        let output = command(scene, &["backup", "prune", "--yes"]).ok()?;
        output.status.success().then_some(())?;
        let mut expected = needed(&scene.repository).ok()?;
        expected.extend(others.iter().cloned());
        (packs(&scene.repository).ok()? == expected).then_some(())
    });
    left.await.map_err(|error| match packs(&scene.repository) {
        Ok(packs) => format!("{error}: {} packs", packs.len()).into(),
        Err(error) => error,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn old_backups_go_and_their_packs_after_the_delay() -> Result<()> {
    let mut scene = Scene::set(2).await?;
    fast(&mut scene, DELAY);
    let (mut first, mut second) = scene.running().await?;
    let folder = scene.repository.join("packs");
    let plant = |name: String| std::fs::write(folder.join(&name), "x").map(|()| name);
    let unique = || ulid::Ulid::from(clock::random());
    let open =
        journal(&scene.repository)?.into_iter().find(|r| r.kind == "Open").ok_or("no Open")?;
    let own = format!("1-{}-{}", open.slot, unique());
    let orphans = [plant(format!("1-1-{}", unique()))?, plant(own)?];
    let others = [plant(format!("9-9-{}", unique()))?, plant("not-a-pack.txt".to_owned())?];

    let mut most = 0;
    for n in 0..BACKUPS {
        backup(&scene, &mut first, n).await?;
        most = most.max(packs(&scene.repository)?.len());
        // Asked in this order: what was condemned may be gone by the time that the packs are listed,
        // but not before the delay is over.
        let (condemned, stored) = (condemned(&scene.repository)?, packs(&scene.repository)?);
        let begun = clock::now();
        for (pack, since) in condemned {
            let young = begun.duration_since(since) < DELAY;
            assert!(stored.contains(&pack) || !young, "{pack} was deleted early");
        }
    }
    first.until(DEADLINE, "three backups", |s| (s["backupsInStorage"] == 3).then_some(())).await?;
    until_packs(&scene, &others).await?;
    let condemned = condemned(&scene.repository)?;
    assert!(orphans.iter().all(|orphan| condemned.iter().any(|(pack, _)| pack == orphan)));
    let left = packs(&scene.repository)?.len();
    assert!(left < most, "{left} packs of {most}");

    let (_, told) = ended(&command(&scene, &["backup", "verify", "--all"])?, 0);
    assert!(!told.contains("retired"), "{told}");
    second.until(DEADLINE, "the standby to hold the newest", in_sync).await?;
    let seen = first.status().await?;
    assert_eq!(seen["sweep"]["lastOutcome"], "success", "{}", seen["sweep"]);
    let name = "understudy_retention_deleted_backups_total";
    let retired = metric(&first, name).await?.ok_or("no such metric")?;
    assert!(retired >= 12.0, "{retired} backups");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_deleted_by_hand_unless_it_must_stay() -> Result<()> {
    let scene = Scene::set(1).await?;
    let (mut first, _second) = scene.running().await?;
    let mut ids = vec![];
    for n in 0..4 {
        ids.push(backup(&scene, &mut first, n).await?);
    }
    let before = stored(&scene.repository)?;
    let (oldest, newest) = (ids[0].as_str(), ids[3].as_str());
    let (printed, error) =
        ended(&command(&scene, &["backup", "delete", newest, oldest, "--yes"])?, 5);
    assert!(error.contains("the last 3 always stay"), "{error}");
    assert!(printed.contains(&format!("{oldest}  retire")), "{printed}");
    let (_, error) = ended(&command(&scene, &["backup", "delete", oldest])?, 7);
    assert!(error.contains(&format!("understudy backup delete --yes {oldest}")), "{error}");
    ended(&command(&scene, &["backup", "delete", oldest, "--dry-run"])?, 0);
    ended(&command(&scene, &["backup", "delete", "1", "--yes"])?, 1);
    ended(&command(&scene, &["backup", "prune"])?, 7);
    let (printed, _) = ended(&command(&scene, &["backup", "prune", "--dry-run"])?, 0);
    assert!(printed.contains("keepLast 20"), "{printed}");
    let passive = ["backup", "delete", oldest, "--yes"];
    let (_, error) = ended(&cli_on(&scene.pair.passive, &scene.second_file()?, &passive)?, 5);
    assert!(error.contains("not the primary"), "{error}");
    assert!(stored(&scene.repository)? == before, "something was written or deleted");

    let (printed, _) = ended(&command(&scene, &["backup", "delete", oldest, "--yes"])?, 0);
    assert!(printed.contains("1 backup retired"), "{printed}");
    let (list, _) = ended(&command(&scene, &["backup", "list"])?, 0);
    assert!(!list.contains(oldest) && list.contains(newest), "{list}");
    ended(&command(&scene, &["backup", "verify", "--all"])?, 0);
    let (_, error) = ended(&command(&scene, &["backup", "describe", oldest])?, 1);
    assert!(error.contains("there is no backup"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_primary_deletes_nothing() -> Result<()> {
    let mut scene = Scene::set(1).await?;
    // Long enough to stop it before the delay is over.
    let delay = SignedDuration::from_secs(15);
    fast(&mut scene, delay);
    let (mut first, mut second) = scene.running().await?;
    for n in 0..5 {
        backup(&scene, &mut first, n).await?;
    }
    let has_condemned = async || {
        let condemned = condemned(&scene.repository).ok()?;
        (!condemned.is_empty()).then_some(condemned)
    };
    let condemned = eventually(DEADLINE, "a condemned pack", has_condemned).await?;
    first.signal("STOP")?;
    until_silent(&mut second).await?;
    second.promote(DEADLINE).await?;
    until_role(&mut second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then_some(());
    second.until(DEADLINE, "the first own backup", own).await?;
    let due = condemned.iter().map(|(_, since)| *since).max().ok_or("none")? + delay;
    eventually(DEADLINE, "the delay to be over", async || (clock::now() > due).then_some(()))
        .await?;

    first.signal("USR2")?;
    first.signal("CONT")?;
    until_role(&mut first, "fenced").await?;
    let (_, error) = ended(&command(&scene, &["backup", "prune", "--yes"])?, 5);
    assert!(error.contains(FIRST), "{error}");
    let stored = packs(&scene.repository)?;
    let gone: Vec<_> = condemned.iter().filter(|(pack, _)| !stored.contains(pack)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    Ok(())
}

/// Killed after a record, nearly always with more to come, and so in its deletes.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_is_killed_anywhere_comes_to_rest_after_a_restart() -> Result<()> {
    let mut scene = Scene::set(1).await?;
    fast(&mut scene, SignedDuration::from_secs(1));
    let (mut first, mut second) = scene.running().await?;
    for n in 0..5 {
        backup(&scene, &mut first, n).await?;
    }
    first.kill9();
    let folder = scene.repository.join("packs");
    for _ in 0..ORPHANS {
        std::fs::write(folder.join(format!("1-1-{}", ulid::Ulid::from(clock::random()))), "x")?;
    }
    let all = packs(&scene.repository)?.len();
    let named = || Ok::<_, crate::harness::Failure>(condemned(&scene.repository)?.len());
    let before = named()?;
    // The first sweep after the restart is to find the orphans old enough: it comes with the backup
    // at the start, and no other does.
    let due = clock::now() + SignedDuration::from_secs(2);
    let over = async || (clock::now() > due).then_some(());
    eventually(DEADLINE, "the orphans to be old enough", over).await?;

    first = scene.start_first().await?;
    let condemns = async || (named().ok()? > before).then_some(());
    eventually(DEADLINE, "a first record", condemns).await?;
    first.kill9();

    first = scene.start_first().await?;
    let deletes = async || (packs(&scene.repository).ok()?.len() < all).then_some(());
    let asks = async || {
        let _ = command(&scene, &["backup", "run", "--no-wait"]);
        deletes().await
    };
    eventually(DEADLINE, "a first delete", asks).await?;
    first.kill9();

    first = scene.start_first().await?;
    until_role(&mut first, "primary").await?;
    let newest = |seen: &Value| status::newest(seen).map(|_| ());
    first.until(DEADLINE, "a backup", newest).await?;
    until_packs(&scene, &[]).await?;
    ended(&command(&scene, &["backup", "verify", "--all"])?, 0);
    second.until(DEADLINE, "the standby to hold the newest", in_sync).await?;
    Ok(())
}
