//! The process is killed at every point at which it changes the storage: before the request arrives,
//! and after it was applied and before the answer is heard (which, for the next request, is the kill
//! after the answer). Whatever was killed, the next start comes to rest, nothing that was
//! acknowledged is lost, and all that is offered can be read.

use crate::actors::rounds;
use crate::harness::daemon::{Daemon, cli_on, new_key};
use crate::harness::faultd::Faultd;
use crate::harness::faultd::fault::{Fault, Rule, When, is_change};
use crate::harness::s3::S3;
use crate::harness::{Result, eventually, status};
use crate::scene::{DEADLINE, Scene, until_role};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;

const CLUSTER: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters/cluster-0000";

struct Bench {
    scene: Scene,
    faultd: Faultd,
    prefix: String,
    changes: u32,
    /// Where it was killed: the fault and the folder of the key.
    killed: BTreeSet<(String, String)>,
}

impl Bench {
    async fn new(test: &str) -> Result<Self> {
        let mut scene = Scene::set(1).await?;
        let (s3, prefix) = (S3::shared().await?, S3::prefix(test));
        let faultd = s3.faultd().await?;
        for config in [&mut scene.first, &mut scene.second] {
            config.remove("storage.directory");
        }
        scene.first = scene.first.with_s3(s3, &prefix);
        scene.first.set("storage.s3.endpoint", json!(faultd.endpoint));
        scene.second = scene.second.with_s3(s3, &prefix);
        Ok(Self { scene, faultd, prefix, changes: 0, killed: BTreeSet::new() })
    }

    /// So that the next backup has something to say.
    async fn change(&mut self) -> Result<()> {
        self.changes += 1;
        let change = json!({"metadata": {"annotations": {"change": self.changes.to_string()}}});
        self.scene.pair.primary.api()?.merge_patch(CLUSTER, &change).await?;
        Ok(())
    }

    fn stall(&self, nth: u64, fault: Fault) {
        let (method, key, when) = ("CHANGE", self.prefix.clone(), When::Nth(nth));
        self.faultd.add(Rule { fault, method, key, when });
    }

    /// The key at which the daemon waits for an answer that never comes.
    async fn stalled(&self) -> Result<String> {
        eventually(DEADLINE, "the daemon to be where it is to be killed", async || {
            let history = self.faultd.history(&self.prefix);
            let stalls = |fault: &Fault| matches!(fault, Fault::Stall | Fault::ApplyThenStall);
            let found = history.into_iter().find(|one| one.fault.as_ref().is_some_and(stalls));
            found.map(|one| one.key)
        })
        .await
    }

    /// Kills it where it waits, and forgets what was.
    async fn kill(&mut self, mut daemon: Daemon, fault: &Fault) -> Result<()> {
        let key = self.stalled().await?;
        daemon.kill9();
        self.faultd.heal(&self.prefix);
        self.faultd.rest().await?;
        self.faultd.take(&self.prefix);
        let folder = key[self.prefix.len()..].split('/').next().unwrap_or_default().to_owned();
        self.killed.insert((format!("{fault:?}"), folder));
        Ok(())
    }

    /// What was changed so far, and how often.
    fn side_effects(&self) -> u64 {
        let history = self.faultd.take(&self.prefix);
        history.iter().filter(|one| is_change(&one.method, &one.key)).count() as u64
    }

    async fn start(&self) -> Result<Daemon> {
        self.scene.start_first().await
    }

    /// The daemon is the primary, and its newest backup holds the last change.
    async fn at_rest(&self, daemon: &mut Daemon) -> Result<()> {
        until_role(daemon, "primary").await?;
        let wanted = format!("\"change\":\"{}\"", self.changes);
        let arguments = ["backup", "get", "latest", "managedclusters", "cluster-0000"];
        eventually(DEADLINE, "a backup of the last change", async || {
            let output = self.understudy(&[&arguments[..], &["-o", "json"]].concat()).ok()?;
            let text: String = String::from_utf8_lossy(&output.stdout).replace([' ', '\n'], "");
            text.contains(&wanted).then_some(())
        })
        .await?;
        let idle = |seen: &Value| {
            let idle =
                seen["backup"]["runningSince"].is_null() && seen["sweep"]["runningSince"].is_null();
            idle.then_some(())
        };
        daemon.until(DEADLINE, "the daemon to rest", idle).await
    }

    /// Past the proxy, and as a hub that holds nothing but its configuration.
    fn understudy(&self, arguments: &[&str]) -> Result<Output> {
        cli_on(&self.scene.pair.passive, &self.scene.second_file()?, arguments)
    }

    fn sound(&self) -> Result<()> {
        let output = self.understudy(&["backup", "verify", "--all"])?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "killed at {:?}: {text}", self.killed);
        Ok(())
    }

    /// In all of these folders, before and after the change, if every point was tried.
    fn was_killed_in(&self, folders: &[&str]) {
        let expected = if is_campaign() { 2 * folders.len() } else { 2 };
        assert!(self.killed.len() >= expected, "killed at {:?}", self.killed);
        assert!(self.killed.iter().all(|(_, folder)| folders.contains(&&**folder)));
    }

    fn offered(&self) -> Result<BTreeSet<String>> {
        let output = self.understudy(&["backup", "list", "-o", "json"])?;
        let list: Value = serde_json::from_slice(&output.stdout)?;
        let items = list["items"].as_array().ok_or("there are no items")?;
        Ok(items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect())
    }
}

/// Every third one; with a campaign all.
fn points(side_effects: u64) -> impl Iterator<Item = (u64, Fault)> {
    let all =
        (1..=side_effects).flat_map(|nth| [(nth, Fault::Stall), (nth, Fault::ApplyThenStall)]);
    all.step_by(if is_campaign() { 1 } else { 3 })
}

fn is_campaign() -> bool {
    rounds(0).is_ok_and(|rounds| rounds > 0)
}

/// A start takes the term again, uploads, commits, retires what the rules do not keep, and deletes what
/// was condemned before.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_a_sweep_may_be_killed_anywhere() -> Result<()> {
    let mut bench = Bench::new("crash-backup").await?;
    bench
        .scene
        .first
        .set("retention", json!({"keepLast": 3, "sweepAfter": "1s", "sweepInterval": "1s"}));
    let mut side_effects = 0;
    for _ in 0..6 {
        bench.change().await?;
        let mut daemon = bench.start().await?;
        bench.at_rest(&mut daemon).await?;
        // What was condemned in the last run is old enough in the next.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        daemon.kill9();
        side_effects = bench.side_effects();
    }
    assert!(side_effects >= 5, "an Open, a pack, a Commit, a Retire and a deletion");
    for (nth, fault) in points(side_effects) {
        let before = bench.offered()?;
        bench.change().await?;
        bench.stall(nth, fault.clone());
        let daemon = bench.start().await?;
        bench.kill(daemon, &fault).await?;
        let newest = before.last().cloned();
        assert!(newest.is_none_or(|id| bench.offered().is_ok_and(|now| now.contains(&id))));

        bench.change().await?;
        let mut daemon = bench.start().await?;
        bench.at_rest(&mut daemon).await?;
        bench.sound()?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        daemon.kill9();
        bench.side_effects();
    }
    bench.was_killed_in(&["journal", "packs"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_may_be_killed_anywhere() -> Result<()> {
    let mut bench = Bench::new("crash-rotation").await?;
    let mut keys: Vec<PathBuf> = vec![bench.scene.key.clone()];
    bench.change().await?;
    let mut daemon = bench.start().await?;
    bench.at_rest(&mut daemon).await?;
    daemon.kill9();

    let side_effects = rotate(&mut bench, &mut keys, None).await?;
    assert!(side_effects >= 5, "a Rekey, a checkpoint, packs and a Commit");
    for (nth, fault) in points(side_effects) {
        rotate(&mut bench, &mut keys, Some((nth, fault))).await?;
    }
    bench.was_killed_in(&["journal", "packs", "checkpoints"]);
    Ok(())
}

/// Changes to a new key, killed on the way or not, and in the end by asking again.
async fn rotate(
    bench: &mut Bench,
    keys: &mut Vec<PathBuf>,
    kill: Option<(u64, Fault)>,
) -> Result<u64> {
    let new = bench.scene.scratch.path().join(format!("key-{}", keys.len()));
    new_key(&new)?;
    keys.insert(0, new.clone());
    for config in [&mut bench.scene.first, &mut bench.scene.second] {
        config.set("encryption.keyFiles", json!(keys));
    }
    bench.change().await?;
    let mut daemon = bench.start().await?;
    bench.at_rest(&mut daemon).await?;
    bench.side_effects();
    if let Some((nth, fault)) = kill {
        bench.change().await?;
        bench.stall(nth, fault.clone());
        ask(bench, &["--timeout", "2s"])?;
        bench.kill(daemon, &fault).await?;
        bench.sound()?;
        daemon = bench.start().await?;
        until_role(&mut daemon, "primary").await?;
    }
    bench.change().await?;
    // Refused where the change came through.
    ask(bench, &[])?;
    cli_on(&bench.scene.pair.primary, &bench.scene.first_file()?, &["backup", "run"])?;
    bench.at_rest(&mut daemon).await?;
    bench.sound()?;
    let newest = status::newest(&daemon.status().await?).map(str::to_owned).ok_or("no backup")?;
    bench.scene.second.set("encryption.keyFiles", json!([new]));
    let output = bench.understudy(&["backup", "verify", &newest])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "the new key alone opens {newest}: {text}");
    bench.scene.second.set("encryption.keyFiles", json!(keys));
    daemon.kill9();
    Ok(bench.side_effects())
}

fn ask(bench: &Bench, more: &[&str]) -> Result<Output> {
    let arguments = [&["key", "rotate", "--force"], more].concat();
    cli_on(&bench.scene.pair.primary, &bench.scene.first_file()?, &arguments)
}

/// Whatever was killed: the hub is primary as before, or has handed over and takes it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_may_be_killed_anywhere() -> Result<()> {
    let mut bench = Bench::new("crash-handover").await?;
    let _second = bench.scene.start_second().await?;
    let side_effects = hand_over(&mut bench, None).await?;
    assert!(side_effects >= 3, "a pack, a Commit and a Handover");
    for (nth, fault) in points(side_effects).chain([(side_effects, Fault::ApplyThenStall)]) {
        hand_over(&mut bench, Some((nth, fault))).await?;
    }
    bench.was_killed_in(&["journal", "packs"]);
    Ok(())
}

/// Hands over, killed on the way or not, and takes back what was handed over.
async fn hand_over(bench: &mut Bench, kill: Option<(u64, Fault)>) -> Result<u64> {
    bench.change().await?;
    let mut daemon = bench.start().await?;
    bench.at_rest(&mut daemon).await?;
    crate::switchover::until_ready(&mut daemon, crate::scene::SECOND).await?;
    let before = bench.offered()?;
    bench.change().await?;
    bench.side_effects();
    let hub = &bench.scene.pair.primary;
    let config = bench.scene.first_file()?;
    let mut side_effects = 0;
    if let Some((nth, fault)) = kill {
        bench.stall(nth, fault.clone());
        cli_on(hub, &config, &["demote", "--yes", "--timeout", "2s"])?;
        bench.kill(daemon, &fault).await?;
        bench.sound()?;
        daemon = bench.start().await?;
    } else {
        let output = cli_on(hub, &config, &["demote", "--yes"])?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        side_effects = bench.side_effects();
    }
    let known = |seen: &Value| match status::role(seen) {
        "" => None,
        role => Some(role == "passive"),
    };
    if daemon.until(DEADLINE, "a role", known).await? {
        daemon.signal("USR1")?;
    }
    bench.at_rest(&mut daemon).await?;
    bench.sound()?;
    let after = bench.offered()?;
    assert!(before.is_subset(&after) || after.len() >= 20, "{before:?} {after:?}");
    daemon.kill9();
    bench.side_effects();
    Ok(side_effects)
}
