//! What a restore costs against bare POSTs of the same objects, in one run: the first one, with a slow
//! network, of few changes, of none, and the full check. The backups are written from generated
//! objects, so there is no primary hub.
//! `cargo bench --bench restore -- [--objects N …] [--slow N] [--json FILE]`.

#[path = "../harness/mod.rs"]
mod harness;

use clap::Parser;
use harness::author::Author;
use harness::bench::{self, per_second};
use harness::config::Config;
use harness::daemon::{Daemon, new_key};
use harness::faultd::fault::{Fault, Rule, When};
use harness::figures::{Figures, Goal};
use harness::fleet::{self, Item};
use harness::holder::Place;
use harness::hub::{Hub, NAMESPACE};
use harness::quiet::{quiet_syncs, settled};
use harness::s3::S3;
use harness::scratch::Scratch;
use harness::{Result, kinds, status, tools};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use understudy::clock::monotonic;

const DEADLINE: Duration = Duration::from_mins(20);
const SEED: u64 = 7;
/// Of the 27 objects of a managed cluster those that a passive hub holds.
const RESTORED_A_CLUSTER: usize = 12;
const LATENCY: Duration = Duration::from_millis(20);
const CHANGES: usize = 100;
const GOALS: [Goal; 8] = [
    ("restore_over_post_20k", '≥', 0.8),
    ("restore_over_post_44k", '≥', 0.8),
    ("restore_per_second_20ms", '≥', 250.0),
    ("nochange_writes", '≤', 0.0),
    ("delta_writes", '≤', 100.0),
    ("delta_seconds", '≤', 3.0),
    ("fullcheck_over_list", '≤', 1.3),
    ("peak_rss_mib", '≤', 256.0),
];

/// Restores against the bare API server.
#[derive(Parser)]
struct Arguments {
    /// Objects of the smaller restore; the names of the figures say what their goals are for.
    #[arg(long, default_value_t = 20_000)]
    objects: usize,
    /// Objects of the larger one, of a backup that holds 27/12 as many.
    #[arg(long, default_value_t = 44_000)]
    more: usize,
    /// Objects of the one with 20 ms of latency.
    #[arg(long, default_value_t = 10_000)]
    slow: usize,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Passed by `cargo bench`, and by it alone.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    bench::measure("restore", arguments.bench, Box::pin(run(&arguments))).await
}

async fn run(arguments: &Arguments) -> Result<()> {
    tools::cluster().await?;
    tools::minio().await?;
    let mut figures = Figures::default();
    let bench = Bench { s3: S3::start().await?, scratch: Scratch::new()? };
    new_key(&bench.scratch.path().join("key"))?;

    let small = bench.backup("small", arguments.objects).await?;
    let posts = bench::post_rate(&[], &fleet::on_standby(&small.items)).await?;
    let rate = bench.first_restore(&small, &bench::hub("passive").await?).await?.1;
    figures.set("post_per_second_20k", posts);
    figures.set("restore_per_second_20k", rate);
    figures.set("restore_over_post_20k", rate / posts);
    drop(small);

    let slow = bench.backup("slow", arguments.slow).await?;
    figures.set("restore_per_second_20ms", bench.slow_restore(&slow).await?);
    drop(slow);

    let mut large = bench.backup("large", arguments.more).await?;
    let posts = bench::post_rate(&[], &fleet::on_standby(&large.items)).await?;
    let hub = bench::hub("passive").await?;
    let (mut passive, rate) = bench.first_restore(&large, &hub).await?;
    figures.set("post_per_second_44k", posts);
    figures.set("restore_per_second_44k", rate);
    figures.set("restore_over_post_44k", rate / posts);
    bench.nothing_changes(&mut figures, &hub, &mut passive).await?;
    bench.little_changes(&mut figures, &hub, &mut passive, &mut large).await?;
    let first = passive.rss_peak_mib()?;
    passive.kill9();
    let second = bench.full_check(&mut figures, &hub, &mut large).await?;
    figures.set("peak_rss_mib", first.max(second));

    let Arguments { objects, more, .. } = arguments;
    figures.tell(
        &format!("restores of {objects} and {more} objects"),
        &GOALS,
        arguments.json.as_deref(),
    )
}

struct Bench {
    s3: S3,
    scratch: Scratch,
}

/// A repository with a backup of all items, and the file of its standby.
struct Stored {
    name: &'static str,
    author: Author,
    items: Vec<Item>,
    config: Config,
    file: PathBuf,
}

impl Bench {
    /// Of so many objects that a standby restores.
    async fn backup(&self, name: &'static str, objects: usize) -> Result<Stored> {
        let items = fleet::scale(objects / RESTORED_A_CLUSTER, SEED);
        eprintln!("{name}: a backup of {} objects …", items.len());
        let config = Config::new("eu-2", "passive", &self.scratch.path().join("key"))?
            .with_s3(&self.s3, &format!("{name}/"));
        let file = self.scratch.path().join(format!("{name}.yaml"));
        let mut author = Author::begin(&Place::at(&config, &file)?).await?;
        author.back_up(&items).await?;
        Ok(Stored { name, author, items, config, file })
    }

    /// The daemon, and objects a second.
    async fn first_restore(&self, stored: &Stored, hub: &Hub) -> Result<(Daemon, f64)> {
        let mut passive = Daemon::start_on(hub, &stored.file).await?;
        let rate = restored_rate(stored, &mut passive).await?;
        Ok((passive, rate))
    }

    async fn slow_restore(&self, stored: &Stored) -> Result<f64> {
        let hub = bench::hub("slow").await?;
        let (faultd, kubeconfig) = hub.faultd().await?;
        let (fault, when) = (Fault::Slow(LATENCY), When::Always);
        faultd.add(Rule { fault, method: "", key: String::new(), when });
        let mut passive = Daemon::start(&stored.file, &kubeconfig, NAMESPACE)?;
        passive.wait_live().await?;
        restored_rate(stored, &mut passive).await
    }

    async fn nothing_changes(
        &self,
        figures: &mut Figures,
        hub: &Hub,
        passive: &mut Daemon,
    ) -> Result<()> {
        eprintln!("nothing changes …");
        let (api, lists) = (hub.api()?, lists(passive).await?);
        let before = settled(&api).await?;
        quiet_syncs(passive).await?;
        figures.set("nochange_writes", settled(&api).await? - before);
        figures.set("nochange_lists", self::lists(passive).await? - lists);
        Ok(())
    }

    async fn little_changes(
        &self,
        figures: &mut Figures,
        hub: &Hub,
        passive: &mut Daemon,
        stored: &mut Stored,
    ) -> Result<()> {
        eprintln!("{CHANGES} objects change …");
        let api = hub.api()?;
        let before = settled(&api).await?;
        let mut all = fleet::on_standby(&stored.items);
        all.retain(|item| item.key.resource() != "namespaces");
        let every = all.len() / CHANGES;
        let mut changed: Vec<Item> = all.into_iter().step_by(every).take(CHANGES).collect();
        for item in &mut changed {
            item.body["metadata"]["annotations"] = json!({"changed": "yes"});
        }
        let backup = stored.author.back_up(&changed).await?;
        let run = passive
            .until(DEADLINE, "the changes to be there", |seen| {
                (status::restored(seen) == Some(&*backup)).then_some(())?;
                status::last_run(seen, "sync", &["changed"])
            })
            .await?;
        if run.changed != changed.len() as u64 {
            return Err(
                format!("{} objects changed, {} were written", changed.len(), run.changed).into()
            );
        }
        figures.set("delta_writes", settled(&api).await? - before);
        figures.set("delta_seconds", run.seconds);
        Ok(())
    }

    /// A new process knows nothing of the hub: it compares the content of everything. The check after
    /// that one looks at resourceVersions. Gives the peak of its memory.
    async fn full_check(
        &self,
        figures: &mut Figures,
        hub: &Hub,
        stored: &mut Stored,
    ) -> Result<f64> {
        eprintln!("full check …");
        let listing = hub.api()?.measure_list(&kinds::all()).await?;
        stored.config.set("passive.fullCheck", json!("10s"));
        let file = stored.config.write(&self.scratch.path().join("again.yaml"))?;
        let before = settled(&hub.api()?).await?;
        let begun = monotonic();
        let mut passive = Daemon::start_on(hub, &file).await?;
        let first = checked(&mut passive, None).await?;
        figures.set("start_to_checked_seconds", begun.elapsed().as_secs_f64());
        let again = checked(&mut passive, Some(&first)).await?;
        let writes = settled(&hub.api()?).await? - before;
        if writes > 0.0 {
            return Err(format!("a full check wrote {writes} times").into());
        }
        figures.set("list_seconds", listing.seconds);
        figures.set("fullcheck_seconds", first.seconds);
        figures.set("fullcheck_over_list", first.seconds / listing.seconds);
        figures.set("fullcheck_again_over_list", again.seconds / listing.seconds);
        passive.rss_peak_mib()
    }
}

struct Check {
    at: String,
    seconds: f64,
}

/// The first full check, or one after this one.
async fn checked(passive: &mut Daemon, before: Option<&Check>) -> Result<Check> {
    passive
        .until(DEADLINE, "a full check", |seen| {
            let check = &seen["sync"]["fullCheck"];
            let at = check["at"].as_str().filter(|at| before.is_none_or(|before| before.at != *at));
            Some(Check { at: at?.to_owned(), seconds: check["seconds"].as_f64()? })
        })
        .await
}

async fn restored_rate(stored: &Stored, passive: &mut Daemon) -> Result<f64> {
    let run = passive
        .until(DEADLINE, "the first restore", |seen| {
            status::restored(seen)?;
            status::last_run(seen, "sync", &["changed", "partial"])
        })
        .await?;
    let (name, wanted) = (stored.name, fleet::on_standby(&stored.items).len() as u64);
    if run.changed != wanted {
        return Err(format!("{name}: {} of {wanted} objects were restored", run.changed).into());
    }
    let rate = per_second(usize::try_from(run.changed)?, run.seconds);
    eprintln!("{name}: restored {wanted} objects, {rate:.0}/s");
    Ok(rate)
}

/// Lists that the daemon has asked of its API server.
async fn lists(passive: &Daemon) -> Result<f64> {
    let (_, metrics) = passive.http_get("/metrics").await?;
    let lists = metrics.lines().filter(|line| {
        line.starts_with("understudy_kube_requests_total{") && line.contains("verb=\"list\"")
    });
    Ok(lists.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
