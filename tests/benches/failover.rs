//! What a failover costs: how fast a signal becomes a promotion, the activation against bare POSTs of
//! the same objects, a whole disaster from its first second to the new primary's backup, how soon the
//! old primary is fenced, and a planned change of roles.
//! `cargo bench --bench failover -- [--objects N] [--clusters N] [--rounds N] [--silence N] [--json FILE]`.
//!
//! Of what is done several times the worst counts; the median stands beside it.

#[path = "../harness/mod.rs"]
mod harness;

use clap::Parser;
use harness::author::Author;
use harness::bare::Api;
use harness::bench::{self, per_second};
use harness::compare::{compare, snapshot};
use harness::config::Config;
use harness::daemon::{Daemon, cli_on, new_key};
use harness::faultd::Faultd;
use harness::faultd::fault::{Fault, Rule, When};
use harness::figures::{Figures, Goal};
use harness::fleet::{self, Item};
use harness::holder::Place;
use harness::hub::{Hub, NAMESPACE};
use harness::s3::S3;
use harness::scratch::Scratch;
use harness::{Result, eventually, kinds, pair, status, tools};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use understudy::clock::monotonic;
use understudy::object::Set;

const DEADLINE: Duration = Duration::from_mins(20);
const SEED: u64 = 7;
const CONNECTIONS: usize = 32;
/// Of the 27 objects of a managed cluster those that only a primary holds.
const ACTIVATED_A_CLUSTER: usize = 15;
/// Managed clusters where only the steps are measured, and as many more before the planned change.
const FEW: usize = 4;
/// As it is shipped; the daemons of tests look more often.
const POLL: &str = "10s";
const GOALS: [Goal; 6] = [
    ("signal_to_request_seconds", '≤', 1.0),
    ("signal_to_term_seconds", '≤', 2.0),
    ("activation_over_post", '≥', 0.8),
    ("fence_seconds", '≤', 15.0),
    ("commits_after_fence", '≤', 0.0),
    ("switchover_lost_objects", '≤', 0.0),
];

/// Failovers, planned and not.
#[derive(Parser)]
struct Arguments {
    /// Objects that are activated against bare POSTs.
    #[arg(long, default_value_t = 15_000)]
    objects: usize,
    /// Managed clusters, of 27 objects each, of the hub that is lost.
    #[arg(long, default_value_t = 720)]
    clusters: usize,
    /// How often roles change between two hubs, each time by a failover.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// promotion.primarySilence of the disaster, in seconds. Its heartbeats are as shipped, if three of
    /// them fit into it.
    #[arg(long, default_value_t = 60)]
    silence: u64,
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
    bench::measure("failover", arguments.bench, Box::pin(run(&arguments))).await
}

async fn run(arguments: &Arguments) -> Result<()> {
    tools::cluster().await?;
    tools::minio().await?;
    let Arguments { objects, clusters, rounds, silence, .. } = arguments;
    let mut figures = Figures::default();
    let bench = Bench { s3: S3::start().await?, scratch: Scratch::new()? };
    new_key(&bench.scratch.path().join("key"))?;

    Box::pin(bench.changes_of_roles(&mut figures, *rounds)).await?;
    Box::pin(bench.activation(&mut figures, *objects)).await?;
    let beat = 10.min(silence / 3).max(1);
    let times = [("hub.heartbeat", beat), ("promotion.primarySilence", *silence)];
    Box::pin(bench.disaster(&mut figures, *clusters, times)).await?;

    let title = format!(
        "{rounds} failovers and a switchover of {} objects, an activation of {objects}, the loss of a hub \
         with {clusters} clusters\n(heartbeat {beat}s, primarySilence {silence}s, pollInterval {POLL}, \
         signal once the primary is silent)",
        fleet::scale(2 * FEW, SEED).len()
    );
    figures.tell(&title, &GOALS, arguments.json.as_deref())
}

struct Bench {
    s3: S3,
    scratch: Scratch,
}

/// One of two hubs that change roles.
struct Side {
    name: &'static str,
    hub: Hub,
    /// Keeps its port.
    _config: Config,
    file: PathBuf,
    /// Between its daemon and the storage.
    faultd: Faultd,
    daemon: Daemon,
}

impl Bench {
    fn config(&self, name: &str, role: &str, prefix: &str) -> Result<Config> {
        let config = Config::new(name, role, &self.scratch.path().join("key"))?;
        Ok(config.with_s3(&self.s3, prefix).with("storage.pollInterval", POLL.into()))
    }

    // Roles ---------------------------------------------------------------------------------------

    /// Failovers there and back: the primary loses the storage, the standby is promoted, the storage comes
    /// back, the old primary rejoins. Then a switchover.
    async fn changes_of_roles(&self, figures: &mut Figures, rounds: usize) -> Result<()> {
        let prefix = "roles/";
        let mut primary = self.side("eu-1", "primary", prefix).await?;
        let mut standby = self.side("eu-2", "passive", prefix).await?;
        let items = fleet::scale(FEW, SEED);
        fleet::populate(&primary.hub.api()?, &items, CONNECTIONS).await?;
        primary.daemon.signal("USR2")?;
        let (mut requests, mut terms, mut fences) = (vec![], vec![], vec![]);
        for round in 1..=rounds {
            eprintln!("failover {round} of {rounds}, to {} …", standby.name);
            follows(&mut primary, &mut standby).await?;
            let (request, term, fence) = fail_over(&mut primary, &mut standby).await?;
            requests.push(request);
            terms.push(term);
            fences.push(fence);
            rejoin(&mut primary)?;
            std::mem::swap(&mut primary, &mut standby);
        }
        worst(figures, ["signal_to_request_seconds", "signal_to_request_median"], requests);
        worst(figures, ["signal_to_term_seconds", "signal_to_term_median"], terms);
        worst(figures, ["fence_seconds", "fence_median"], fences);
        figures.count("commits_after_fence", self.late_commits(prefix).await?);

        follows(&mut primary, &mut standby).await?;
        self.switch_over(figures, &mut primary, &mut standby).await
    }

    async fn side(&self, name: &'static str, role: &str, prefix: &str) -> Result<Side> {
        let hub = bench::hub(name).await?;
        let faultd = self.s3.faultd().await?;
        let config = self.config(name, role, prefix)?;
        let config = config.with("storage.s3.endpoint", json!(faultd.endpoint));
        let file = config.write(&self.scratch.path().join(format!("{name}.yaml")))?;
        let daemon = Daemon::start_on(&hub, &file).await?;
        Ok(Side { name, hub, _config: config, file, faultd, daemon })
    }

    /// Backups that a hub wrote above the term that superseded it.
    async fn late_commits(&self, prefix: &str) -> Result<u64> {
        let (mut highest, mut late) = (0, 0);
        for record in self.s3.records(prefix).await? {
            let epoch = record["epoch"].as_u64().unwrap_or_default();
            if record["body"]["kind"] == "Commit" && epoch < highest {
                late += 1;
            }
            highest = highest.max(epoch);
        }
        Ok(late)
    }

    /// What was created just before stands on the other hub, like everything else.
    async fn switch_over(
        &self,
        figures: &mut Figures,
        primary: &mut Side,
        standby: &mut Side,
    ) -> Result<()> {
        eprintln!("switchover to {} …", standby.name);
        let ready = |seen: &Value| {
            let mut peers = seen["peers"].as_array()?.iter();
            peers.any(|peer| peer["hub"] == standby.name && peer["ready"] == true).then_some(())
        };
        primary.daemon.until(DEADLINE, "the standby to be ready", ready).await?;
        let kubeconfig = self.scratch.path().join("operator");
        pair::operator([(&primary.hub, primary.name), (&standby.hub, standby.name)], &kubeconfig)?;
        let items = fleet::scale(2 * FEW, SEED);
        let more = &items[fleet::scale(FEW, SEED).len()..];
        fleet::populate(&primary.hub.api()?, more, CONNECTIONS).await?;
        let begun = monotonic();
        let (file, names) = (&primary.file, (primary.name, standby.name));
        let output = pair::switchover(&kubeconfig, file, names.0, names.1, &["--yes"])?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("the switchover ended with {}: {error}", output.status).into());
        }
        figures.set("switchover_seconds", begun.elapsed().as_secs_f64());
        let (kinds, places) = (kinds::all(), fleet::places(&items));
        let (first, second) = (primary.hub.api()?, standby.hub.api()?);
        let (first, second) =
            tokio::try_join!(snapshot(&first, &kinds), snapshot(&second, &kinds))?;
        let lost = compare(&first, &second, |key| {
            places.get(key).copied().unwrap_or(harness::compare::Place::Anywhere)
        });
        for lost in &lost {
            eprintln!("lost: {lost}");
        }
        figures.count("switchover_lost_objects", lost.len() as u64);
        Ok(())
    }

    // Activation ----------------------------------------------------------------------------------

    async fn activation(&self, figures: &mut Figures, objects: usize) -> Result<()> {
        let items = fleet::scale(objects / ACTIVATED_A_CLUSTER, SEED);
        let passive = fleet::on_standby(&items);
        let held: Vec<Item> =
            items.iter().filter(|item| item.set == Some(Set::Activation)).cloned().collect();
        let posts = bench::post_rate(&passive, &held).await?;
        drop(passive);

        eprintln!("activation of {} objects …", held.len());
        let config = self.config("eu-2", "passive", "activation/")?;
        let file = self.scratch.path().join("activation.yaml");
        let mut author = Author::begin(&Place::at(&config, &file)?).await?;
        let backup = author.back_up(&items).await?;
        let hub = bench::hub("passive").await?;
        let mut standby = Daemon::start_on(&hub, &file).await?;
        let there = |seen: &Value| (status::restored(seen) == Some(&*backup)).then_some(());
        standby.until(DEADLINE, "the first restore", there).await?;
        // No primary was ever heard: that, too, takes its time to be certain.
        let silent = |seen: &Value| {
            let mut checks = seen["promotion"]["checklist"].as_array()?.iter();
            checks.all(|check| check["ok"] == true).then_some(())
        };
        standby.until(DEADLINE, "the checklist", silent).await?;
        standby.promote(DEADLINE).await?;
        let done = |seen: &Value| status::last_run(seen, "promotion", &[]);
        let run = standby.until(DEADLINE, "the activation", done).await?;
        if run.outcome != "success" || run.changed != held.len() as u64 {
            return Err(format!("{} objects were to be activated: {run:?}", held.len()).into());
        }
        // From the term to its end: with the last catch-up, which finds nothing to do.
        let rate = per_second(held.len(), run.seconds);
        figures.set("post_per_second", posts);
        figures.set("activated_per_second", rate);
        figures.set("activation_over_post", rate / posts);
        Ok(())
    }

    // Disaster ------------------------------------------------------------------------------------

    /// The hub and its daemon are gone at once. An operator sends the signal as soon as it counts.
    async fn disaster(
        &self,
        figures: &mut Figures,
        clusters: usize,
        times: [(&str, u64); 2],
    ) -> Result<()> {
        let mut primary = bench::hub("primary").await?;
        let items = fleet::scale(clusters, SEED);
        eprintln!("a hub of {} objects is to be lost …", items.len());
        fleet::populate(&primary.api()?, &items, CONNECTIONS).await?;
        let passive = bench::hub("passive").await?;
        let start = async |hub: &Hub, name, role| -> Result<(Config, Daemon)> {
            let mut config = self.config(name, role, "disaster/")?;
            for (key, time) in times {
                config.set(key, format!("{time}s").into());
            }
            let file = config.write(&self.scratch.path().join(format!("disaster-{role}.yaml")))?;
            Ok((config, Daemon::start_on(hub, &file).await?))
        };
        let (_config, mut first) = start(&primary, "eu-1", "primary").await?;
        let newest = |seen: &Value| status::newest(seen).map(str::to_owned);
        first.until(DEADLINE, "the first backup", newest).await?;
        let (_config, mut second) = start(&passive, "eu-2", "passive").await?;
        second.until(DEADLINE, "the standby to hold it", |seen| in_sync(seen, 1)).await?;
        let alive = |seen: &Value| {
            let mut peers = seen["peers"].as_array()?.iter();
            peers.any(|peer| peer["role"] == "primary" && peer["silent"] == false).then_some(())
        };
        second.until(DEADLINE, "the primary to be alive", alive).await?;

        let killed = monotonic();
        first.kill9();
        primary.kill();
        let silent = |seen: &Value| status::primary_is_silent(seen).then_some(());
        second.until(DEADLINE, "the primary to be silent", silent).await?;
        let silent = killed.elapsed().as_secs_f64();
        second.promote(DEADLINE).await?;
        let term = killed.elapsed().as_secs_f64();
        let done = |seen: &Value| status::last_run(seen, "promotion", &["success"]).map(|_| ());
        second.until(DEADLINE, "the activation", done).await?;
        let activated = killed.elapsed().as_secs_f64();
        let own = |seen: &Value| (seen["newest"]["epoch"] == 2).then_some(());
        second.until(DEADLINE, "the first own backup", own).await?;
        let all = killed.elapsed().as_secs_f64();
        figures.set("kill_to_first_own_backup_seconds", all);
        figures.set("kill_to_silence_seconds", silent);
        figures.set("silence_to_term_seconds", term - silent);
        figures.set("term_to_activated_seconds", activated - term);
        figures.set("activated_to_backup_seconds", all - activated);
        Ok(())
    }
}

/// The standby holds a backup of the term in force, and hears the primary.
async fn follows(primary: &mut Side, standby: &mut Side) -> Result<()> {
    let own = |seen: &Value| (seen["newest"]["epoch"] == seen["epoch"]).then_some(());
    primary.daemon.until(DEADLINE, "a backup of this term", own).await?;
    let epoch = status::epoch(&primary.daemon.status().await?);
    let what = format!("{} to follow", standby.name);
    standby.daemon.until(DEADLINE, &what, |seen| in_sync(seen, epoch)).await
}

fn in_sync(seen: &Value, epoch: u64) -> Option<()> {
    let newest = status::newest(seen)?;
    let held = status::restored(seen) == Some(newest) && seen["newest"]["epoch"] == epoch;
    (held && !status::primary_is_silent(seen)).then_some(())
}

/// Seconds from the signal to the durable request and to the term, and from the return of the storage to
/// the fenced primary.
async fn fail_over(primary: &mut Side, standby: &mut Side) -> Result<(f64, f64, f64)> {
    let all = Rule { fault: Fault::FailBefore, method: "", key: String::new(), when: When::Always };
    primary.faultd.add(all);
    // A backup that cannot come through: it is under way, or tried again, when the storage is back.
    let change = json!({"metadata": {"annotations": {"changed": standby.name}}});
    let cluster = "/apis/cluster.open-cluster-management.io/v1/managedclusters/cluster-00000";
    primary.hub.api()?.merge_patch(cluster, &change).await?;
    primary.daemon.signal("USR2")?;
    let silent = |seen: &Value| status::primary_is_silent(seen).then_some(());
    standby.daemon.until(DEADLINE, "the primary to be silent", silent).await?;

    let (api, begun) = (standby.hub.api()?, monotonic());
    let before = requested(&api, standby.name).await;
    let request = durable(&api, standby.name, before.as_deref(), begun);
    let (request, term) = tokio::try_join!(request, standby.daemon.promote(DEADLINE))?;
    let own = |seen: &Value| {
        let own = seen["newest"]["epoch"] == seen["epoch"];
        (status::role(seen) == "primary" && own).then_some(())
    };
    standby.daemon.until(DEADLINE, "the first own backup", own).await?;

    primary.faultd.heal("");
    let healed = monotonic();
    let fenced = |seen: &Value| (status::role(seen) == "fenced").then_some(());
    primary.daemon.until(DEADLINE, "the old primary to be fenced", fenced).await?;
    let fence = healed.elapsed().as_secs_f64();
    primary.daemon.signal("USR2")?;
    let output = cli_on(&primary.hub, &primary.file, &["backup", "run"])?;
    if output.status.success() {
        return Err("a fenced hub made a backup".into());
    }
    Ok((request, term, fence))
}

/// Until the request stands in the `Hub` resource, where a restart finds it.
async fn durable(api: &Api, hub: &str, before: Option<&str>, begun: Instant) -> Result<f64> {
    eventually(DEADLINE, "the request in the status of the Hub", async || {
        let request = requested(api, hub).await?;
        (Some(&*request) != before).then(|| begun.elapsed().as_secs_f64())
    })
    .await
}

async fn requested(api: &Api, hub: &str) -> Option<String> {
    let path = format!("/apis/understudy.dev/v1alpha1/namespaces/{NAMESPACE}/hubs/{hub}");
    let hub = api.get_json(&path).await.ok()?;
    hub["status"]["promotion"]["request"].as_str().map(str::to_owned)
}

fn rejoin(fenced: &mut Side) -> Result<()> {
    let output = cli_on(&fenced.hub, &fenced.file, &["rejoin", "--yes"])?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{} did not rejoin: {}", fenced.name, String::from_utf8_lossy(&output.stderr))
        .into())
}

fn worst(figures: &mut Figures, names: [&'static str; 2], mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    if let Some(worst) = values.last() {
        figures.set(names[0], *worst);
        figures.set(names[1], values[(values.len() - 1) / 2]);
    }
}
