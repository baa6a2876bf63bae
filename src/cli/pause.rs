//! `understudy backup|sync pause|resume`, `sync now` and `sync ack`: what a hub does by itself, stopped
//! for a while by an operator, done at once, or let go after somebody has looked.

use super::exit::Failure;
use super::{Global, ask, held};
use crate::kube_status::ask::Verb;
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Pause {
    /// How long, such as 2h; it ends by itself
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(required_unless_present = "indefinitely", conflicts_with = "indefinitely")]
    time: Option<Duration>,
    /// Until somebody resumes it
    #[arg(long)]
    indefinitely: bool,
    /// Why: shown wherever the pause is
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
pub(super) struct Patience {
    /// How long to wait for the daemon
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(super) enum Sync {
    /// Follow the primary once, now
    Now {
        /// Return as soon as the daemon was asked
        #[arg(long)]
        no_wait: bool,
        /// How long to wait for the sync
        #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Do not follow the primary for a while
    Pause(Pause),
    /// Follow the primary again
    Resume(Patience),
    /// The prune that is held because it is too large, with the plan's id
    Held,
    /// A held prune is in order: delete what it names
    Ack {
        /// Id of the plan, as `sync held` and `status` show it
        plan: String,
        /// Why: stands in the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// How long to wait for the sync
        #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
}

pub(super) async fn sync(global: &Global, verb: Sync) -> Result<(), Failure> {
    match verb {
        Sync::Now { no_wait, timeout } => {
            ask::ask(global, Verb::SyncNow, (!no_wait).then_some(timeout)).await
        }
        Sync::Pause(how) => pause(global, |seconds| Verb::SyncPause { seconds }, how).await,
        Sync::Resume(patience) => resume(global, Verb::SyncResume, patience).await,
        Sync::Held => held::held(global).await,
        Sync::Ack { plan, reason, timeout } => {
            ask::ask_because(global, Verb::SyncAck { plan }, reason, Some(timeout)).await
        }
    }
}

pub(super) async fn backup(global: &Global, how: Pause) -> Result<(), Failure> {
    pause(global, |seconds| Verb::BackupPause { seconds }, how).await
}

pub(super) async fn backup_again(global: &Global, patience: Patience) -> Result<(), Failure> {
    resume(global, Verb::BackupResume, patience).await
}

async fn pause(
    global: &Global,
    verb: impl Fn(Option<u64>) -> Verb,
    Pause { time, indefinitely: _, reason, patience }: Pause,
) -> Result<(), Failure> {
    let verb = verb(time.map(|time| time.as_secs()));
    ask::ask_because(global, verb, Some(reason), Some(patience.timeout)).await
}

async fn resume(global: &Global, verb: Verb, patience: Patience) -> Result<(), Failure> {
    ask::ask(global, verb, Some(patience.timeout)).await
}
