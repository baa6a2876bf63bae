//! What a backup costs against the bare listing of the same kinds, in one run: full and without
//! changes, over a fleet, and over many small objects.
//! `cargo bench --bench capture -- [--objects N] [--small N] [--json FILE]`.

#[path = "../harness/mod.rs"]
mod harness;

use bytes::Bytes;
use clap::Parser;
use harness::bare::{Api, Post};
use harness::bench;
use harness::config::Config;
use harness::daemon::new_key;
use harness::figures::{Figures, Goal};
use harness::fleet;
use harness::holder::{Holder, Place};
use harness::hub::Hub;
use harness::process::peak_rss_mib;
use harness::s3::S3;
use harness::scratch::Scratch;
use harness::{Result, tools};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use understudy::capture::discovery;
use understudy::clock::monotonic;
use understudy::object::Kind;

const SEED: u64 = 7;
const OBJECTS_A_CLUSTER: usize = 27;
const CONNECTIONS: usize = 32;
/// Of listing and backup in turns; the median counts.
const ROUNDS: usize = 3;
const NAMESPACES: usize = 100;
const GOALS: [Goal; 6] = [
    ("backup_over_list", '≤', 1.8),
    ("nochange_over_list", '≤', 1.15),
    ("nochange_packs", '≤', 0.0),
    ("peak_rss_mib_100k", '≤', 256.0),
    ("small_backup_over_list", '≤', 1.8),
    ("peak_rss_mib_300k", '≤', 320.0),
];

/// Backups against the bare API server.
#[derive(Parser)]
struct Arguments {
    /// Objects of the fleet; the names of the figures say what their goals are for.
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    /// Small objects, on a hub of their own.
    #[arg(long, default_value_t = 300_000)]
    small: usize,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Takes the backups: in a process of its own, whose memory is that of a daemon.
    #[arg(long, hide = true, num_args = 2, value_names = ["CONFIG", "KUBECONFIG"])]
    back_up: Option<Vec<PathBuf>>,
    /// Passed by `cargo bench`, and by it alone.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = arguments.bench || arguments.back_up.is_some();
    let work = Box::pin(async {
        match arguments.back_up.as_deref() {
            Some([config, kubeconfig]) => back_up(config, kubeconfig).await,
            _ => Box::pin(run(&arguments)).await,
        }
    });
    bench::measure("capture", wanted, work).await
}

async fn run(arguments: &Arguments) -> Result<()> {
    tools::cluster().await?;
    tools::minio().await?;
    let mut figures = Figures::default();
    let bench = Bench { s3: S3::start().await?, scratch: Scratch::new()? };
    new_key(&bench.key())?;

    let hub = bench::hub("primary").await?;
    let items = fleet::scale(arguments.objects / OBJECTS_A_CLUSTER, SEED);
    eprintln!("creating {} objects …", items.len());
    fleet::populate(&hub.api()?, &items, CONNECTIONS).await?;
    drop(items);
    let fleet = bench.measure(&hub, "fleet").await?;
    drop(hub);
    figures.count("objects", fleet.objects);
    figures.set("list_seconds", fleet.list);
    figures.set("backup_seconds", fleet.full);
    figures.set("backup_over_list", fleet.full_over_list);
    figures.set("nochange_over_list", fleet.nochange_over_list);
    figures.count("nochange_packs", fleet.nochange_packs);
    figures.set("peak_rss_mib_100k", fleet.rss_mib);

    let hub = bench::hub("primary").await?;
    let api = hub.api()?;
    // A third first: time must grow with the objects, not faster.
    create_small(&api, 0..arguments.small / 3).await?;
    let third = bench.measure(&hub, "third").await?;
    create_small(&api, arguments.small / 3..arguments.small).await?;
    let small = bench.measure(&hub, "small").await?;
    figures.count("small_objects", small.objects);
    figures.set("small_list_seconds", small.list);
    figures.set("small_backup_over_list", small.full_over_list);
    figures.set("small_nochange_over_list", small.nochange_over_list);
    figures.set("small_full_over_3_thirds", small.full / third.full / 3.0);
    figures.set("peak_rss_mib_300k", small.rss_mib);

    let title = format!("{} objects, {} small ones", arguments.objects, arguments.small);
    figures.tell(&title, &GOALS, arguments.json.as_deref())
}

struct Bench {
    s3: S3,
    scratch: Scratch,
}

/// What one process tells of its two backups.
#[derive(Serialize, Deserialize)]
struct Told {
    objects: u64,
    full: f64,
    nochange: f64,
    nochange_packs: u64,
    rss_mib: f64,
}

struct Measured {
    objects: u64,
    /// Seconds, the median.
    list: f64,
    full: f64,
    full_over_list: f64,
    nochange_over_list: f64,
    /// The most.
    nochange_packs: u64,
    rss_mib: f64,
}

impl Bench {
    fn key(&self) -> PathBuf {
        self.scratch.path().join("key")
    }

    /// Listing and backup in turns, each backup the first of its repository.
    async fn measure(&self, hub: &Hub, name: &str) -> Result<Measured> {
        let api = hub.api()?;
        let mut lists = vec![];
        let mut told: Vec<Told> = vec![];
        for round in 0..ROUNDS {
            let config = Config::new("eu-1", "primary", &self.key())?
                .with_s3(&self.s3, &format!("{name}-{round}/"));
            let place =
                Place::at(&config, &self.scratch.path().join(format!("{name}-{round}.yaml")))?;
            let listing = api.measure_list(&listed_kinds(&place, hub).await?).await?;
            let backup = in_own_process(&place.file, &hub.kubeconfig)?;
            eprintln!(
                "{} objects: list {:.1} s, backup {:.1} s, again {:.1} s, {:.0} MiB",
                backup.objects, listing.seconds, backup.full, backup.nochange, backup.rss_mib
            );
            lists.push(listing.seconds);
            told.push(backup);
        }
        let over_list = |of: fn(&Told) -> f64| {
            median(lists.iter().zip(&told).map(|(list, told)| of(told) / list).collect())
        };
        Ok(Measured {
            objects: told.iter().map(|told| told.objects).max().unwrap_or_default(),
            full_over_list: over_list(|told| told.full),
            nochange_over_list: over_list(|told| told.nochange),
            full: median(told.iter().map(|told| told.full).collect()),
            nochange_packs: told.iter().map(|told| told.nochange_packs).max().unwrap_or_default(),
            rss_mib: told.iter().map(|told| told.rss_mib).fold(0.0, f64::max),
            list: median(lists),
        })
    }
}

/// The kinds that the backup lists too.
async fn listed_kinds(place: &Place, hub: &Hub) -> Result<Vec<Kind>> {
    let client = place.client(&hub.kubeconfig).await?;
    let (discovered, selection) = (discovery::discover(&client).await?, place.selection());
    Ok(discovered.kinds.into_iter().filter(|kind| selection.may_select(kind)).collect())
}

fn in_own_process(config: &Path, kubeconfig: &Path) -> Result<Told> {
    let child = std::process::Command::new(std::env::current_exe()?)
        .arg("--back-up")
        .args([config, kubeconfig])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    Ok(serde_json::from_slice(&child.stdout)?)
}

/// The first backup of a repository, and another one without changes.
async fn back_up(config: &Path, kubeconfig: &Path) -> Result<()> {
    harness::install_tls_provider();
    let mut holder = Holder::take(&Place::of(config)?, kubeconfig).await?;
    let begun = monotonic();
    let (first, _) = holder.back_up(0).await?;
    let full = begun.elapsed().as_secs_f64();
    let begun = monotonic();
    let (second, _) = holder.back_up(first.slot).await?;
    let nochange = begun.elapsed().as_secs_f64();
    let told = Told {
        objects: first.changed,
        full,
        nochange,
        nochange_packs: second.packs as u64,
        rss_mib: peak_rss_mib("self")?,
    };
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn create_small(api: &Api, numbers: std::ops::Range<usize>) -> Result<()> {
    eprintln!("creating {} small objects …", numbers.len());
    if numbers.start == 0 {
        for namespace in 0..NAMESPACES {
            let name = json!({"name": format!("small-{namespace}")});
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": name});
            api.post("/api/v1/namespaces", &namespace).await?;
        }
    }
    let posts: Vec<Post> = numbers
        .map(|number| {
            let body = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": format!("small-{number:06}"),
                    "labels": {"cluster.open-cluster-management.io/backup": ""},
                },
                "data": {"number": number.to_string()},
            });
            let path = format!("/api/v1/namespaces/small-{}/configmaps", number % NAMESPACES);
            Post { path, body: Bytes::from(body.to_string()) }
        })
        .collect();
    api.post_all(&posts, CONNECTIONS).await?;
    Ok(())
}
