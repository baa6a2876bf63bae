//! How close a backup comes to a bare LIST and a restore to bare POSTs, on real servers and all
//! from one run: `cargo bench --bench scale -- --clusters N [--json FILE]`.
//!
//! The bare figures are the best of several tries, ours are the first: the limit is taken as hard
//! as it can be. Everything shares the cores of one machine, at both sides of every ratio.

#[path = "../harness/mod.rs"]
mod harness;

use clap::Parser;
use harness::bare::Listing;
use harness::bench::{self, per_second};
use harness::config::Config;
use harness::daemon::{Daemon, cli_on, new_key};
use harness::figures::{Figures, Goal};
use harness::fleet::{self, Item};
use harness::hub::Hub;
use harness::quiet::{quiet_syncs, settled};
use harness::s3::{S3, bytes_below};
use harness::scratch::Scratch;
use harness::{Result, kinds, status, tools};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use understudy::clock::monotonic;

const DEADLINE: Duration = Duration::from_mins(20);
const SEED: u64 = 7;
const POPULATE_CONNECTIONS: usize = 32;
const LIST_TRIES: usize = 3;
/// Understudy against the bare API server.
#[derive(Parser)]
struct Arguments {
    /// How many managed clusters, of 27 objects each.
    #[arg(long, default_value_t = 720)]
    clusters: usize,
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
    bench::measure("scale", arguments.bench, Box::pin(run(&arguments))).await
}

async fn run(arguments: &Arguments) -> Result<()> {
    tools::cluster().await?;
    tools::minio().await?;
    let mut figures = Figures::default();
    let items = fleet::scale(arguments.clusters, SEED);
    let mut bench = Bench::start(&items).await?;

    let listing = bench.bare_list().await?;
    let mut primary = bench.backup(&mut figures, listing).await?;
    let posts = bench::post_rate(&[], &fleet::on_standby(&items)).await?;
    let mut passive = bench.restore(&mut figures, posts).await?;
    bench.no_change(&mut figures, &mut primary, &mut passive).await?;
    figures.set("peak_rss_primary_mib", primary.rss_peak_mib()?);
    promote(&mut figures, &mut bench, primary, &mut passive).await?;
    figures.set("peak_rss_passive_mib", passive.rss_peak_mib()?);

    figures.tell(
        &format!("{} managed clusters", arguments.clusters),
        &GOALS,
        arguments.json.as_deref(),
    )
}

struct Bench {
    primary: Hub,
    s3: S3,
    primary_config: (Config, PathBuf),
    passive_config: (Config, PathBuf),
    passive: Option<Hub>,
    _scratch: Scratch,
}

impl Bench {
    async fn start(items: &[Item]) -> Result<Self> {
        let (primary, s3) = tokio::try_join!(bench::hub("primary"), S3::start())?;
        eprintln!("creating {} objects …", items.len());
        fleet::populate(&primary.api()?, items, POPULATE_CONNECTIONS).await?;

        let scratch = Scratch::new()?;
        let key_file = scratch.path().join("key");
        new_key(&key_file)?;
        let config = |role: &str| -> Result<_> {
            let config = Config::new(role, role, &key_file)?.with_s3(&s3, "scale/");
            let file = config.write(&scratch.path().join(format!("{role}.yaml")))?;
            Ok((config, file))
        };
        Ok(Self {
            primary_config: config("primary")?,
            passive_config: config("passive")?,
            primary,
            s3,
            passive: None,
            _scratch: scratch,
        })
    }

    async fn bare_list(&self) -> Result<Listing> {
        eprintln!("listing, {LIST_TRIES} times …");
        let (api, kinds) = (self.primary.api()?, kinds::all());
        let mut best = Listing { seconds: f64::INFINITY, ..Listing::default() };
        for _ in 0..LIST_TRIES {
            let listing = api.measure_list(&kinds).await?;
            if listing.seconds < best.seconds {
                best = listing;
            }
        }
        Ok(best)
    }

    async fn backup(&self, figures: &mut Figures, listing: Listing) -> Result<Daemon> {
        eprintln!("first backup …");
        let mut primary = Daemon::start_on(&self.primary, &self.primary_config.1).await?;
        let (run, objects) = primary
            .until(DEADLINE, "the first backup", |seen| {
                status::newest(seen)?;
                let run = status::last_run(seen, "backup", &["success", "partial"])?;
                Some((run, status::objects(seen, &status::ALL_SETS)))
            })
            .await?;
        figures.count("objects", objects);
        figures.set("list_seconds", listing.seconds);
        figures.set("backup_seconds", run.seconds);
        figures.set("backup_over_list", run.seconds / listing.seconds);
        Ok(primary)
    }

    /// Creates of what a standby restores, on a fresh hub for each number of connections.
    async fn restore(&mut self, figures: &mut Figures, posts: f64) -> Result<Daemon> {
        eprintln!("first restore …");
        let hub = bench::hub("passive").await?;
        let mut passive = Daemon::start_on(&hub, &self.passive_config.1).await?;
        let run = passive
            .until(DEADLINE, "the first restore", |seen| {
                status::restored(seen)?;
                status::last_run(seen, "sync", &["changed", "partial"])
            })
            .await?;
        self.passive = Some(hub);
        let rate = per_second(usize::try_from(run.changed)?, run.seconds);
        figures.set("post_per_second", posts);
        figures.set("restore_per_second", rate);
        figures.set("restore_over_post", rate / posts);
        Ok(passive)
    }

    async fn no_change(
        &self,
        figures: &mut Figures,
        primary: &mut Daemon,
        passive: &mut Daemon,
    ) -> Result<()> {
        eprintln!("nothing changes …");
        let api = self.passive.as_ref().ok_or("there is no passive hub")?.api()?;
        let before = settled(&api).await?;

        let (seen, stored) = (primary.status().await?, bytes_below(&self.s3.data())?);
        let (id, ended) = (status::newest(&seen), &seen["backup"]["lastSuccessAt"]);
        let output = cli_on(&self.primary, &self.primary_config.1, &["backup", "run"])?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`backup run` ended with {}: {error}", output.status).into());
        }
        let (run, packs) = primary
            .until(DEADLINE, "the second backup", |seen| {
                let same = status::newest(seen) == id;
                let packs = if same { 0 } else { seen["newest"]["packsWritten"].as_u64()? };
                let run = status::last_run(seen, "backup", &[])?;
                (&seen["backup"]["lastSuccessAt"] != ended).then_some((run, packs))
            })
            .await?;
        let stored = bytes_below(&self.s3.data())?.saturating_sub(stored);
        figures.set("nochange_backup_seconds", run.seconds);
        figures.count("nochange_backup_packs", packs);
        figures.count("nochange_backup_bytes", stored);

        let seconds = quiet_syncs(passive).await?;
        let after = settled(&api).await?;
        figures.set("nochange_sync_seconds", seconds);
        figures.set("nochange_sync_writes", after - before);
        Ok(())
    }
}

async fn promote(
    figures: &mut Figures,
    bench: &mut Bench,
    mut primary: Daemon,
    passive: &mut Daemon,
) -> Result<()> {
    eprintln!("promotion …");
    primary.kill9();
    bench.primary.kill();
    passive
        .until(DEADLINE, "the primary to fall silent", |seen| {
            status::primary_is_silent(seen).then_some(())
        })
        .await?;
    figures.set("signal_to_term_seconds", passive.promote(DEADLINE).await?);
    let start = monotonic();
    passive
        .until(DEADLINE, "the activation", |seen| (status::role(seen) == "primary").then_some(()))
        .await?;
    figures.set("term_to_primary_seconds", start.elapsed().as_secs_f64());
    Ok(())
}

const GOALS: [Goal; 7] = [
    ("backup_over_list", '≤', 3.0),
    ("restore_over_post", '≥', 0.5),
    ("nochange_backup_packs", '≤', 0.0),
    ("nochange_sync_writes", '≤', 0.0),
    ("peak_rss_primary_mib", '≤', 200.0),
    ("peak_rss_passive_mib", '≤', 200.0),
    ("signal_to_term_seconds", '≤', 2.0),
];
