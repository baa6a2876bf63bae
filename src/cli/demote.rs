//! `understudy demote`: the primary takes a last backup and gives its term up, so that the other hub can
//! be promoted without waiting for silence, and without losing anything.

use super::confirm::confirm_by_name;
use super::exit::Failure;
use super::{Global, ask, run};
use crate::kube_status::ask::Verb;
use clap::Args;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Demote {
    /// The hub that shall take over; without it any passive hub of the pair may
    #[arg(long, value_name = "HUB")]
    to: Option<String>,
    /// Only tell what would be done, and whether it would be refused
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask for a confirmation
    #[arg(long)]
    yes: bool,
    /// Why: stands in the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait for the last backup
    #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn demote(global: &Global, demote: Demote) -> Result<(), Failure> {
    let Demote { to, dry_run, yes, reason, timeout } = demote;
    if !dry_run {
        let hub = run::settings(global)?.hub.name;
        let flag = to.as_ref().map_or(String::new(), |to| format!(" --to {to}"));
        confirm_by_name(yes, &hub, "hand over", &format!("understudy demote{flag} --yes"))?;
    }
    ask::ask_because(global, Verb::Demote { to, dry_run }, reason, Some(timeout)).await
}
