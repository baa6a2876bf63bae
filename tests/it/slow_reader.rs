//! A standby that is slow to fetch a backup, and one that has no room to keep it. Everything is fetched
//! before the first write, so neither leaves anything half done.

use crate::harness::author::Author;
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, new_key};
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::fleet::{self, Item};
use crate::harness::holder::Place;
use crate::harness::hub::{AuditEvent, Hub, HubOptions, NAMESPACE};
use crate::harness::s3::S3;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, eventually, pair, status};
use crate::stage::DEADLINE;
use crate::world::World;
use serde_json::{Value, json};
use std::time::Duration;

const SEED: u64 = 5;
const PACKS: &str = "slow/packs/";

/// F57, F58: its packs are gone before they are read.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_retired_while_it_is_fetched_is_not_waited_for() -> Result<()> {
    let scratch = Scratch::new()?;
    new_key(&scratch.path().join("key"))?;
    let hub = Hub::start("passive", HubOptions::default()).await?;
    pair::prepare(&hub).await?;
    let s3 = S3::shared().await?;
    let faultd = s3.faultd().await?;
    let mut config =
        Config::new("eu-2", "passive", &scratch.path().join("key"))?.with_s3(s3, "slow/");
    let place = Place::at(&config, &scratch.path().join("direct.yaml"))?;
    config.set("storage.s3.endpoint", json!(faultd.endpoint));
    let file = config.write(&scratch.path().join("passive.yaml"))?;

    let items = fleet::demo(3, SEED);
    let items: Vec<Item> = items.into_iter().filter(|item| item.set.is_some()).collect();
    let mut author = Author::begin(&place).await?;
    author.back_up(&items).await?;
    let fault = Fault::Slow(Duration::from_secs(5));
    faultd.add(Rule { fault, method: "GET", key: PACKS.to_owned(), when: When::First(3) });
    let mut daemon = Daemon::start(&file, &hub.kubeconfig, NAMESPACE)?;
    eventually(DEADLINE, "a pack to be asked for", async || {
        faultd.history(PACKS).iter().any(|asked| asked.method == "GET").then_some(())
    })
    .await?;
    let newest = author.begin_anew(&items, &place).await?;

    let holds = |seen: &Value| (status::restored(seen) == Some(&*newest)).then(|| seen.clone());
    let seen = daemon.until(DEADLINE, "the standby to hold the newer backup", holds).await?;
    assert_eq!(seen["sync"]["damaged"], Value::Null, "what was retired is not damaged");
    let log = daemon.log_text()?;
    assert!(log.contains("a backup was retired, beginning anew"), "{log}");
    let failed = |run: &Value| run["outcome"] != "changed" && run["outcome"] != "unchanged";
    assert!(!seen["runs"].as_array().is_some_and(|runs| runs.iter().any(failed)), "{seen}");
    Ok(())
}

/// F59: the cache cannot take a pack. It is told where and why, and nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_the_cache_nothing_is_written() -> Result<()> {
    let cache = Scratch::new()?;
    let mut world =
        World::set(SEED, 3, |config| config.with("storage.cacheDir", json!(cache.path()))).await?;
    let backup = world.back_up().await?;
    let packs = world.packs()?;
    let names = packs.iter().filter_map(|pack| pack.file_name());
    let places: Vec<_> = names.map(|name| cache.path().join("packs").join(name)).collect();
    // What stands in the way of a file, also for a process that may write anywhere.
    for place in &places {
        std::fs::create_dir_all(place)?;
    }
    let mut daemon = world.start(&world.hub.kubeconfig)?;
    let told = |seen: &Value| seen["sync"]["lastError"].as_str().map(str::to_owned);
    let error = daemon.until(DEADLINE, "the reason", told).await?;
    assert!(error.contains(&*cache.path().to_string_lossy()), "{error}");
    assert_eq!(world.hub.audit_writes(AuditEvent::is_restore_write)?.len(), 0);

    for place in &places {
        std::fs::remove_dir(place)?;
    }
    world.holds(&mut daemon, &backup).await?;
    world.is_exact().await
}
