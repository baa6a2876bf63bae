//! However many backups a hub takes, few levels hold them, and they hold what is there: neighbours
//! become one without a word of what was changed, deleted or held back.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::{Result, status};
use crate::scene::{DEADLINE, Record, Scene, differences, in_sync, journal, until_role};
use serde_json::{Value, json};
use understudy::object::{Digest, Set};

const CLUSTERS: usize = 3;
/// So many that levels have been merged, and deltas stand above them again.
const BACKUPS: usize = 17;
const MOST_LEVELS: usize = 32;
const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const MAPS: &str = "/api/v1/namespaces/cluster-0000/configmaps";

#[tokio::test]
async fn levels_stay_few() -> Result<()> {
    let scene = Scene::set(CLUSTERS).await?;
    let source = scene.pair.primary.api()?;
    // A base that no sum of small deltas outweighs.
    let noise = |n: u32| Digest::of(&n.to_le_bytes()).to_string();
    let noise: String = (0..4096).map(noise).collect();
    source.post(MAPS, &map("large", &json!({"noise": noise}))).await?;
    let (mut first, mut second) = scene.running().await?;
    second.kill9();
    for n in 0..BACKUPS {
        source.post(MAPS, &map(&format!("m-{n}"), &json!({"n": n.to_string()}))).await?;
        if n > 2 {
            source.delete(&format!("{MAPS}/m-{}", n - 2)).await?;
            let change = json!({"data": {"n": format!("{n} again")}});
            source.merge_patch(&format!("{MAPS}/m-{}", n - 1), &change).await?;
        }
        backup(&scene, &mut first).await?;
    }

    let commits = journal(&scene.repository)?.into_iter().filter(|record| record.kind == "Commit");
    let counts: Vec<usize> = commits.map(|record| levels(&record)).collect();
    let fell = counts.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(counts.iter().all(|count| *count <= MOST_LEVELS), "{counts:?}");
    assert!(counts.len() > BACKUPS && fell > 0, "levels were merged: {counts:?}");
    assert!(counts.last() > Some(&1), "and not by writing all anew: {counts:?}");

    // Neither a daemon that knows nothing but the levels finds anything to change …
    first.kill9();
    let mut first = scene.start_first().await?;
    until_role(&mut first, "primary").await?;
    scene.backup(&mut first).await?;
    let last = journal(&scene.repository)?.into_iter().rfind(|record| record.kind == "Commit");
    let last = last.ok_or("there is no backup")?;
    assert_eq!(last.body["sets"]["credentials"]["changed"], 0, "{}", last.body);
    // … nor does a standby that was away see anything else than one that was not.
    let mut second = scene.start_second().await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    assert_eq!(differences(&scene, &[Set::Credentials, Set::Resources]).await?, [""; 0]);
    Ok(())
}

/// Without the waiting of the command line, which looks twice a second.
async fn backup(scene: &Scene, first: &mut Daemon) -> Result<()> {
    let before = status::newest(&first.status().await?).map(str::to_owned);
    let output =
        cli_on(&scene.pair.primary, &scene.first_file()?, &["backup", "run", "--no-wait"])?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let newer =
        |seen: &Value| status::newest(seen).filter(|id| Some(*id) != before.as_deref()).map(|_| ());
    first.until(DEADLINE, "a newer backup", newer).await
}

fn map(name: &str, data: &Value) -> Value {
    let metadata = json!({"name": name, "labels": {BACKUP_LABEL: ""}});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
}

/// Of the set that changes.
fn levels(commit: &Record) -> usize {
    commit.body["sets"]["credentials"]["levels"].as_array().map_or(0, Vec::len)
}
