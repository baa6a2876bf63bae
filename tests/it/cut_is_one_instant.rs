//! A backup is one instant over all kinds. A writer changes an object of one kind, then one of the
//! other, in turns and without pause, each time with the next number. So at every instant the second
//! number is that of the first, or one less; a backup that shows anything else mixes two instants. The
//! store is compacted under some of the cuts, as any etcd is every few minutes.
//!
//! `UNDERSTUDY_CAMPAIGN` is the number of backups, for a longer run.

use crate::harness::bare::Api;
use crate::harness::hub::{Hub, HubOptions};
use crate::harness::{Result, eventually, fleet, pair};
use crate::stage::{CONNECTIONS, DEADLINE, Repository, start_primary};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use understudy::object::ObjectKey;
use understudy::repository::chain::Backup;
use understudy::repository::packs::PackStore;

const CUTS: usize = 10;
/// Every so many cuts all revisions but the newest go.
const COMPACT_EVERY: usize = 3;
/// Makes the lists between the two kinds take a while.
const CLUSTERS: usize = 25;
/// The writer's steps during one backup, on average. With fewer the test would prove little.
const STEPS_A_CUT: u64 = 5;

const FIRST: &str = "/api/v1/namespaces/cut/configmaps";
const SECOND: &str = "/apis/policy.open-cluster-management.io/v1/namespaces/cut/policies";

/// As servers answer today: from the revisions that they keep in memory.
#[tokio::test]
async fn cut_is_one_instant() -> Result<()> {
    under_load(vec![]).await
}

/// As older ones do: from etcd, where a revision that is compacted is gone at once.
#[tokio::test]
async fn cut_is_one_instant_from_etcd() -> Result<()> {
    under_load(vec!["--feature-gates=ListFromCacheSnapshot=false".to_owned()]).await
}

async fn under_load(extra_apiserver: Vec<String>) -> Result<()> {
    let cuts = match std::env::var("UNDERSTUDY_CAMPAIGN") {
        Ok(number) => number.parse()?,
        Err(_) => CUTS,
    };
    let options = HubOptions { audit: false, extra_apiserver, ..HubOptions::default() };
    let hub = Hub::start("primary", options).await?;
    pair::prepare(&hub).await?;
    let api = hub.api()?;
    fleet::populate(&api, &fleet::demo(CLUSTERS, 5), CONNECTIONS).await?;
    create_both(&api).await?;
    let repository = Repository::new("cut").await?;
    let config = repository.config("eu-1", "primary")?;
    let file = config.write(&repository.folder().join("primary.yaml"))?;
    let daemon = start_primary(&hub, &file).await?;
    let (mut journal, packs) = repository.open(&file).await?;

    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let writer = write_in_turns(&api, &stop, &written);
    let look = async {
        let outcome = async {
            let mut last = journal.refresh().await?.newest.clone().ok_or("no backup")?;
            for cut in 0..cuts {
                let before = written.load(Ordering::Relaxed);
                daemon.signal("USR2")?;
                if cut % COMPACT_EVERY == 0 {
                    hub.etcd()?.compact().await?;
                }
                last = eventually(DEADLINE, "the next backup", async || {
                    let newest = journal.refresh().await.ok()?.newest.clone()?;
                    (newest.mark != last.mark).then_some(newest)
                })
                .await?;
                let during = before..=written.load(Ordering::Relaxed) + 1;
                let (first, second) = numbers(&packs, &last).await?;
                assert!(
                    first == second || first == second + 1,
                    "backup {} of {cuts} holds {first} and {second}",
                    cut + 1
                );
                assert!(during.contains(&first), "{first} was not written during the backup");
                assert_eq!(last.commit.cut.apart, [], "every kind at one revision");
            }
            Ok::<_, crate::harness::Failure>(())
        }
        .await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    let (written_all, looked) = tokio::join!(writer, look);
    looked?;
    written_all?;
    let steps = written.load(Ordering::Relaxed);
    let again = daemon.log_text()?.matches("the cut again at a new revision").count();
    println!("{cuts} cuts, {steps} steps, {again} cuts were begun again");
    assert!(steps >= STEPS_A_CUT * cuts as u64, "only {steps} steps during {cuts} backups");
    Ok(())
}

async fn create_both(api: &Api) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cut"}});
    api.post("/api/v1/namespaces", &namespace).await?;
    let labels = json!({"cluster.open-cluster-management.io/backup": ""});
    let first = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first", "labels": labels},
        "data": {"number": "0"},
    });
    api.post(FIRST, &first).await?;
    let second = json!({
        "apiVersion": "policy.open-cluster-management.io/v1", "kind": "Policy",
        "metadata": {"name": "second"}, "spec": {"number": "0"},
    });
    api.post(SECOND, &second).await?;
    Ok(())
}

/// `written` counts the numbers of which both objects are there.
async fn write_in_turns(api: &Api, stop: &AtomicBool, written: &AtomicU64) -> Result<()> {
    for number in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = number.to_string();
        api.merge_patch(&format!("{FIRST}/first"), &json!({"data": {"number": text}})).await?;
        api.merge_patch(&format!("{SECOND}/second"), &json!({"spec": {"number": text}})).await?;
        written.store(number, Ordering::Relaxed);
    }
    Ok(())
}

/// The two numbers as the backup holds them.
async fn numbers(packs: &PackStore, backup: &Arc<Backup>) -> Result<(u64, u64)> {
    let opened = packs.open(backup.clone(), None).await?;
    let number = |resource, name, field: &str| -> Result<u64> {
        let group = if resource == "policies" { "policy.open-cluster-management.io" } else { "" };
        let key = ObjectKey::new(group, resource, "cut", name)?;
        let pack = opened.contents.entries.get(&key).ok_or("it is not in the backup")?.pack;
        let mut found = None;
        packs.objects(&opened, pack, |at, object| {
            if at == key {
                found = Some(object.get().to_owned());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        let object: Value = serde_json::from_str(&found.ok_or("its pack does not hold it")?)?;
        Ok(object[field]["number"].as_str().unwrap_or_default().parse()?)
    };
    Ok((number("configmaps", "first", "data")?, number("policies", "second", "spec")?))
}
