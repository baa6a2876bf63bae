//! `understudy drill`: a passive hub rehearses its promotion. The daemon does it; this asks, waits, and
//! shows what was found.

use super::exit::{Code, Failure};
use super::render::Output;
use super::report::{is_new, keep};
use super::stored::show;
use super::{Global, ask, render_drill, run};
use crate::kube_status::ask::Verb;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Drill {
    /// Write the report as JSON into this file, which must not exist
    #[arg(long, value_name = "FILE", conflicts_with = "no_wait")]
    report: Option<PathBuf>,
    /// Return as soon as the daemon was asked
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the end
    #[arg(long, default_value = "30m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn drill(global: &Global, how: Drill) -> Result<(), Failure> {
    let Drill { report, no_wait, timeout } = how;
    is_new(report.as_ref())?;
    let patience = (!no_wait).then_some(timeout);
    let Some(answer) = ask::answered(global, Verb::Drill, None, patience).await? else {
        return Ok(());
    };
    let ended = ask::ended(&answer);
    let failure = ended.map(|code| Failure::new(code, answer.message));
    if ended == Some(Code::Refused) {
        return failure.map_or(Ok(()), Err);
    }
    // The daemon writes what it found together with its answer.
    let seen = run::seen(global).await?.snapshot;
    if let Some(drilled) = render_drill::report(&seen) {
        if let Some(path) = &report {
            keep(path, drilled.render(Output::Json))?;
        }
        show(drilled.render(global.output))?;
    }
    failure.map_or(Ok(()), Err)
}
