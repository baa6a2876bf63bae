//! The demo: two real hubs, a real repository, a disaster, and the standby taking over, told as
//! it happens. It ends non-zero if anything on the two hubs differs that should not.
//!
//! It drives the real program only from outside: configuration files, signals, the command line,
//! `/api/v1/status` and the Kubernetes API.

mod stage;
mod story;

#[path = "../harness/mod.rs"]
mod harness;

use clap::{Parser, ValueEnum};
use harness::compare::{Difference, compare, snapshot};
use harness::daemon::{Daemon, build_beside_example, cli_on};
use harness::{Result, kinds, status, tools};
use serde_json::Value;
use stage::{PASSIVE, PRIMARY, Stage};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use story::Story;

/// No step takes longer on any machine that could run a hub.
const DEADLINE: Duration = Duration::from_mins(3);
/// Differences that are printed; all of them are counted.
const SHOWN: usize = 20;

/// Two hubs, a disaster, a promotion.
#[derive(Parser)]
struct Arguments {
    /// How many managed clusters the primary hub has.
    #[arg(long, default_value_t = 50)]
    clusters: usize,
    /// Where the repository stands.
    #[arg(long, value_enum, default_value_t = Storage::Directory)]
    storage: Storage,
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Storage {
    S3,
    Directory,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is as it should be.
async fn run(arguments: Arguments) -> Result<bool> {
    eprintln!("Building what is needed …");
    build_beside_example()?;
    tools::cluster().await?;
    if arguments.storage == Storage::S3 {
        tools::minio().await?;
    }

    let mut story = Story::begin();
    let mut stage = Stage::set(&arguments, &mut story).await?;
    let mut primary = first_backup(&stage, &mut story).await?;
    let mut passive = standby(&stage, &mut story).await?;
    change(&mut stage, &mut primary, &mut passive, &mut story).await?;

    Story::heading("The primary hub is lost");
    primary.kill9();
    stage.primary.kill();
    story.say(format!("{PRIMARY}: daemon and control plane killed, without a goodbye"));
    promotion(&mut passive, &mut story).await?;
    let primary = old_primary(&mut stage, &mut story).await?;
    let differences = differences(&stage, &mut story).await?;

    let well = differences.is_empty() && story.is("promoted") && story.is("fenced");
    story.end(well);
    if let Some(file) = &arguments.json {
        story.write(file)?;
    }
    if arguments.keep {
        stage.keep(&primary, &passive).await?;
    }
    Ok(well)
}

async fn first_backup(stage: &Stage, story: &mut Story) -> Result<Daemon> {
    Story::heading("A daemon on the primary hub");
    let lap = story.elapsed();
    let mut primary = Daemon::start_on(&stage.primary, &stage.primary_config).await?;
    story.say(format!("{PRIMARY}: understudy runs, {}", primary.url()));
    let seen = primary
        .until(DEADLINE, "the first backup", |seen| status::newest(seen).map(|_| seen.clone()))
        .await?;
    story.figure("seconds_to_first_backup", story.elapsed() - lap);
    let objects = status::objects(&seen, &status::ALL_SETS);
    story.figure("objects", objects);
    let id = status::newest(&seen).unwrap_or_default();
    story.say(format!("{PRIMARY}: first backup {id}, {objects} objects of one instant"));
    Ok(primary)
}

async fn standby(stage: &Stage, story: &mut Story) -> Result<Daemon> {
    Story::heading("A daemon on the passive hub");
    let lap = story.elapsed();
    let mut passive = Daemon::start_on(&stage.passive, &stage.passive_config).await?;
    story.say(format!("{PASSIVE}: understudy runs, {}", passive.url()));
    let seen = passive.until(DEADLINE, "the standby to be ready", in_sync).await?;
    story.figure("seconds_to_standby_ready", story.elapsed() - lap);
    let held = status::objects(&seen, &["credentials", "resources"]);
    let back = status::objects(&seen, &["activation"]);
    let age = seen["newest"]["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let age = age.map_or(0, |at| understudy::clock::now().as_second() - at.as_second());
    story.say(format!(
        "{PASSIVE}: standby ready, data {age} s old; holds {held} objects, {back} are held back"
    ));
    Ok(passive)
}

async fn change(
    stage: &mut Stage,
    primary: &mut Daemon,
    passive: &mut Daemon,
    story: &mut Story,
) -> Result<()> {
    Story::heading("Somebody changes something");
    let before = primary.status().await?;
    stage.change(story).await?;
    let output = cli_on(&stage.primary, &stage.primary_config, &["backup", "run"])?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`understudy backup run` ended with {}: {error}", output.status).into());
    }
    let id = primary
        .until(DEADLINE, "the second backup", |seen| {
            let id = status::newest(seen)?;
            (Some(id) != status::newest(&before)).then(|| id.to_owned())
        })
        .await?;
    story.say(format!("{PRIMARY}: backup {id}"));
    passive
        .until(DEADLINE, "the change to arrive", |seen| {
            (status::restored(seen) == Some(&id)).then_some(())
        })
        .await?;
    story.say(format!("{PASSIVE}: the change has arrived"));
    Ok(())
}

async fn promotion(passive: &mut Daemon, story: &mut Story) -> Result<()> {
    passive
        .until(DEADLINE, "the primary to fall silent", |seen| {
            status::primary_is_silent(seen).then_some(())
        })
        .await?;
    story.say(format!("{PASSIVE}: the primary is silent"));
    Story::heading("An operator promotes the standby");
    let lap = story.elapsed();
    story.say(format!("{PASSIVE}: SIGUSR1"));
    let seconds = passive.promote(DEADLINE).await?;
    story.figure("signal_to_term_seconds", seconds);
    story
        .say(format!("{PASSIVE}: took the term after {seconds:.2} s; {PRIMARY} can write no more"));
    let seen = passive
        .until(DEADLINE, "the activation", |seen| {
            (status::role(seen) == "primary").then(|| seen.clone())
        })
        .await?;
    let activated = &seen["promotion"]["activated"];
    let lost = seen["promotion"]["dataLossSeconds"].as_u64().unwrap_or_default();
    story.say(format!("{PASSIVE}: primary; {activated} objects activated, data {lost} s old"));
    let id = passive
        .until(DEADLINE, "the first own backup", |seen| {
            let own = seen["newest"]["hub"] == PASSIVE;
            own.then(|| status::newest(seen).unwrap_or_default().to_owned())
        })
        .await?;
    story.figure("promotion_seconds", story.elapsed() - lap);
    story.figure("promoted", true);
    story.say(format!("{PASSIVE}: first own backup {id}"));
    Ok(())
}

async fn old_primary(stage: &mut Stage, story: &mut Story) -> Result<Daemon> {
    Story::heading("The old primary comes back");
    stage.primary.restart().await?;
    let mut primary = Daemon::start_on(&stage.primary, &stage.primary_config).await?;
    story.say(format!("{PRIMARY}: control plane and daemon run again, same files as before"));
    let seen = primary
        .until(DEADLINE, "the old primary to be fenced", |seen| {
            (status::role(seen) == "fenced").then(|| seen.clone())
        })
        .await?;
    story.figure("fenced", true);
    let (epoch, holder) = (status::epoch(&seen), seen["holder"].as_str().unwrap_or("another hub"));
    story.say(format!("{PRIMARY}: fenced, {holder} holds epoch {epoch}; it writes nothing"));
    Ok(primary)
}

async fn differences(stage: &Stage, story: &mut Story) -> Result<Vec<Difference>> {
    Story::heading("Both hubs, object by object");
    let kinds = kinds::all();
    let (first, second) = (stage.primary.api()?, stage.passive.api()?);
    let (first, second) = tokio::try_join!(snapshot(&first, &kinds), snapshot(&second, &kinds))?;
    let differences = compare(&first, &second, |key| stage.place(key));
    for difference in differences.iter().take(SHOWN) {
        story.say(format!("  {difference}"));
    }
    story.figure("differences", differences.len());
    story.say(format!(
        "{} objects should be on both hubs, {} stay where they are: {} differences",
        stage.on_both(),
        stage.on_first_only(),
        differences.len()
    ));
    Ok(differences)
}

/// The standby holds the newest backup, and says so.
fn in_sync(seen: &Value) -> Option<Value> {
    let newest = status::newest(seen)?;
    (status::restored(seen) == Some(newest)).then(|| seen.clone())
}
