//! `understudy promote`: a passive hub becomes the primary. The command line only asks, by the
//! annotation by which everybody asks; the daemon judges, and this follows it to the end.
//!
//! It can be ended at any time: the promotion goes on, and the same command follows it again.

use super::ask::{LOOK, place};
use super::exit::{Code, Failure};
use super::render::Output;
use super::render_promote::{self, Demands, Preview, Refusal};
use super::report::{is_new, keep};
use super::status::Seen;
use super::stored::show;
use super::{Global, confirm, run};
use crate::kube_status::ask::Answer;
use crate::kube_status::request::{Named, Order, PROMOTE};
use crate::kube_status::{self, Hub};
use crate::status::{Guards, Role, Snapshot};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Promote {
    /// Must be the name of the hub that is promoted
    #[arg(value_name = "HUB")]
    hub: Option<String>,
    /// Only show what must hold, what would be lost and what would happen; nothing is asked
    #[arg(long, conflicts_with_all = ["yes", "no_wait", "report"])]
    dry_run: bool,
    /// Do not ask for the hub's name
    #[arg(long)]
    yes: bool,
    /// Accept a newest backup up to this age, in place of promotion.maxDataAge
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_data_age: Option<Duration>,
    /// Start from this backup or not at all
    #[arg(long, value_name = "ID")]
    expect_backup: Option<String>,
    #[command(flatten)]
    force: Force,
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

#[derive(Debug, Args)]
struct Force {
    /// The primary is dead, whatever signs of life it shows
    #[arg(long, requires = "reason")]
    primary_is_dead: bool,
    /// How it is known that the primary is dead: recorded and shown
    #[arg(long, value_name = "TEXT", requires = "primary_is_dead")]
    reason: Option<String>,
}

/// What is followed, and where.
struct Followed<'a> {
    global: &'a Global,
    client: kube::Client,
    hub: String,
    request: String,
}

pub(super) async fn promote(global: &Global, how: Promote) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let hub = settings.hub.name;
    if let Some(named) = how.hub.as_ref().filter(|named| **named != hub) {
        let message = format!("this is {hub}, not {named}: nothing was asked");
        return Err(Failure::new(Code::Refused, message)
            .with_hint("use the configuration and the context of the hub that shall be promoted"));
    }
    is_new(how.report.as_ref())?;
    let Seen { snapshot, reported_at, .. } = run::seen(global).await?;
    let client = run::client(global).await?;
    let running = snapshot.promotion.request.clone().filter(|_| snapshot.promotion.running);
    let request = match running {
        Some(request) if !how.dry_run => {
            say(global, "a promotion is under way already, following it");
            request
        }
        _ => {
            let Some(order) = consent(global, &how, &snapshot, reported_at)? else { return Ok(()) };
            let text = serde_json::to_string(&order).expect("an order is plain data");
            place(&client, &global.home(), &hub, PROMOTE, &text).await?;
            order.request.id
        }
    };
    if how.no_wait {
        println!("asked {hub} as {request}");
        return Ok(());
    }
    let followed = Followed { global, client, hub, request };
    let Ok(ended) = tokio::time::timeout(how.timeout, followed.to_the_end()).await else {
        let patience = humantime::format_duration(how.timeout);
        let message =
            format!("the promotion has not come to its end within {patience}; it goes on");
        return Err(Failure::new(Code::TimedOut, message).with_hint("understudy promote"));
    };
    let (snapshot, answer) = ended?;
    let promoted = render_promote::promoted(&snapshot);
    if let Some(path) = &how.report {
        keep(path, promoted.render(Output::Json))?;
    }
    show(promoted.render(global.output))?;
    match &*answer.outcome {
        "partial" => Err(Failure::new(Code::Partial, answer.message)),
        _ => Ok(()),
    }
}

/// Shows what the promotion would meet and asks for the name of the hub. None: only a dry run.
fn consent(
    global: &Global,
    how: &Promote,
    snapshot: &Snapshot,
    reported_at: jiff::Timestamp,
) -> Result<Option<Order>, Failure> {
    let now = crate::clock::now();
    let demands = Demands {
        primary_is_dead: how.force.reason.clone().filter(|_| how.force.primary_is_dead),
        guards: Guards {
            max_data_age_seconds: how.max_data_age.map(|age| age.as_secs()),
            expect_backup: how.expect_backup.clone(),
        },
    };
    if now.duration_since(reported_at) > super::status::SILENT_AFTER {
        say(global, "the daemon of this hub has not reported for some minutes: is it running?");
    }
    let preview = render_promote::preview(snapshot, &demands, now);
    if how.dry_run {
        show(preview.render(snapshot, global.output, now))?;
        return preview.refusal().map_or(Ok(None), |refusal| Err(refused(refusal)));
    }
    if !how.yes {
        ask_for_name(snapshot, &preview, now)?;
    }
    let id = format!("{:032x}", crate::clock::random());
    Ok(Some(Order {
        hub: snapshot.hub.clone(),
        request: Named { id, expected_epoch: snapshot.epoch },
        primary_is_dead: demands.primary_is_dead,
        guards: demands.guards,
    }))
}

fn refused(Refusal { reason, message, hint }: &Refusal) -> Failure {
    let failure = Failure::new(Code::Refused, format!("{reason}: {message}"));
    Failure { hint: hint.clone(), ..failure }
}

/// On a terminal nobody is asked to type a name for what would be refused anyway.
fn ask_for_name(
    snapshot: &Snapshot,
    preview: &Preview<'_>,
    now: jiff::Timestamp,
) -> Result<(), Failure> {
    let command = "understudy promote --yes";
    confirm::terminal(command)?;
    let text = preview.render(snapshot, Output::Table, now);
    eprint!("{}", text.map_err(|error| Failure::new(Code::Failed, error.to_string()))?);
    if let Some(refusal) = preview.refusal() {
        return Err(refused(refusal));
    }
    if confirm::typed("\nType the hub name to promote:", command)? == snapshot.hub {
        return Ok(());
    }
    Err(confirm::refused("not confirmed, nothing was asked", command))
}

fn say(global: &Global, line: &str) {
    if global.output == Output::Table {
        eprintln!("{line}");
    }
}

impl Followed<'_> {
    /// Until the request was refused, or the hub is primary and has a backup of its own.
    async fn to_the_end(&self) -> Result<(Snapshot, Answer), Failure> {
        let mut shown = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let loaded = kube_status::load(&self.client, &self.global.home(), &self.hub).await;
            let Some(Hub { status: Some(status), .. }) = loaded? else { continue };
            let answer = status.answers.iter().find(|answer| answer.id == self.request).cloned();
            let Some(snapshot) = status.snapshot() else { continue };
            let mine = snapshot.promotion.request.as_ref() == Some(&self.request);
            // Some may begin and end between two looks.
            let phases = if mine { render_promote::phases(&snapshot) } else { vec![] };
            phases.iter().skip(shown).for_each(|phase| say(self.global, phase));
            shown = shown.max(phases.len());
            let done = mine && !snapshot.promotion.running && snapshot.role == Some(Role::Primary);
            match answer {
                Some(answer) if matches!(&*answer.outcome, "refused" | "failed") => {
                    let failure = Failure::new(Code::Refused, answer.message);
                    return Err(Failure { hint: answer.hint, ..failure });
                }
                Some(answer) if render_promote::first_backup(&snapshot).is_some() => {
                    return Ok((snapshot, answer));
                }
                // Asked for by a signal or an annotation: nobody wrote an answer for us.
                None if done && render_promote::first_backup(&snapshot).is_some() => {
                    let outcome = snapshot.promotion.outcome.map_or("success", |o| o.name());
                    let (id, outcome) = (self.request.clone(), outcome.to_owned());
                    let message = "objects failed".to_owned();
                    return Ok((snapshot, Answer { id, outcome, message, hint: None }));
                }
                Some(_) | None => {}
            }
            if mine && snapshot.role == Some(Role::Fenced) {
                let holder = snapshot.holder.as_deref().unwrap_or("another hub");
                let message = format!("{holder} has taken the term {}", snapshot.epoch);
                return Err(Failure::new(Code::Fenced, message).with_hint("understudy status"));
            }
        }
    }
}
