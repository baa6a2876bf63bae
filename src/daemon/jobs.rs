//! The jobs of the control loop. One runs at a time.
//!
//! A job takes what it needs, works to its end (or to the next object when it is cancelled) and tells
//! the board what happened. What it decides for the roles, it decides in the journal.

mod claim;
mod clusters;
mod drill;
mod due;
mod sweep;
mod timing;

pub(super) use drill::drill;
pub(super) use sweep::sweep;
pub(super) use timing::Timing;

use super::{Shared, surface, verification};
use crate::backup::{BackupDone, Primary};
use crate::metrics::{Action, Phase};
use crate::repository::Repository;
use crate::repository::chain::{Backup, View};
use crate::repository::journal::Writer;
use crate::repository::probe;
use crate::repository::record::{Body, HubId};
use crate::restore::{Done, Guard, Report, Scope};
use crate::retry;
use crate::status::{Outcome, Run};
use crate::sync::{Purpose, Standby, SyncError, Synced};
use futures::future::BoxFuture;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Names of failed objects that `Activated` keeps; the record must fit into a slot.
const NAMED_IN_RECORD: usize = 200;

/// Objects that are being deleted, on the board.
const MAX_GOING: usize = 20;

/// A name with its reason, shortened to this in a record.
const NAME_LENGTH: usize = 250;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Backup,
    Sync,
    Activation,
    Probe,
    Drill,
}

impl Job {
    pub(super) fn name(self) -> &'static str {
        match self {
            Job::Backup => "backup",
            Job::Sync => "sync",
            Job::Activation => "activation",
            Job::Probe => "probe",
            Job::Drill => "drill",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobResult {
    Done,
    Failed,
}

/// Races for the proof that the storage fences. The verdict stands on the board; where there is no
/// answer, the one before still stands.
pub(super) async fn probe(shared: Shared) -> JobResult {
    let raced = probe::race(&shared.storage, &format!("{:032x}", crate::clock::random())).await;
    let probe::Verdict { atomic, why } = match raced {
        Ok(verdict) => verdict,
        Err(error) => {
            tracing::warn!(error = retry::chain(&error), "the storage could not be probed");
            return JobResult::Failed;
        }
    };
    match (atomic, shared.settings.storage.allow_unfenced) {
        (true, _) => tracing::debug!(why, "the storage fences"),
        (false, true) => {
            tracing::warn!(
                why,
                "the storage cannot fence; storage.allowUnfenced lets this hub go on"
            );
        }
        (false, false) => tracing::error!(why, "the storage cannot fence a superseded primary"),
    }
    shared.board.update(|s| {
        s.storage.atomic_create = Some(atomic);
        s.storage.probe_verdict = Some(why);
        s.storage.raced_at = Some(crate::clock::now());
    });
    JobResult::Done
}

pub(super) async fn backup(
    shared: Shared,
    repository: Arc<Repository>,
    primary: Arc<Mutex<Primary>>,
    writer: Writer,
    reason: Option<String>,
) -> JobResult {
    let (at, begun) = (crate::clock::now(), crate::clock::monotonic());
    shared.board.update(|s| {
        s.backup.running_since = Some(at);
        s.backup.last_attempt_at = Some(at);
    });
    let mut primary = primary.lock().await;
    let timeout = shared.settings.schedule.timeout;
    let damaged = verification::damaged(&shared.board);
    let result = primary.run(&repository.journal, &writer, timeout, &damaged).await;
    let view = repository.journal.lock().await.view().clone();
    surface::show_view(&shared.board, &view, &writer.hub);
    let run = Run {
        what: "backup".to_owned(),
        at,
        seconds: (crate::clock::monotonic() - begun).as_secs_f64(),
        outcome: Outcome::Failed,
        backup: None,
        changed: 0,
        failed: 0,
        message: String::new(),
    };
    let (run, failed_groups) = match &result {
        Ok(done) => (backup_run(run, done, view.newest.as_deref()), done.failed.clone()),
        Err(error) => {
            let message = retry::chain(error);
            tracing::error!(error = message, "backup failed");
            (Run { message, ..run }, vec![])
        }
    };
    let run = match reason {
        Some(reason) => {
            tracing::info!(reason, outcome = run.outcome.name(), "the backup was asked for");
            Run { message: format!("{}; asked for: {reason}", run.message), ..run }
        }
        None => run,
    };
    if let Ok(done) = &result {
        shared.metrics.backup_phase(Phase::List, done.phases.capture);
        shared.metrics.backup_phase(Phase::Publish, done.phases.publish);
    }
    shared.metrics.backup_run(run.outcome);
    shared.board.update(|s| {
        s.backup.running_since = None;
        s.backup.last_outcome = Some(run.outcome);
        s.backup.last_error = result.as_ref().err().map(|error| retry::chain(error));
        if result.is_ok() {
            s.backup.last_success_at = Some(crate::clock::now());
            s.backup.failed_groups = failed_groups;
        }
        s.add_run(run);
    });
    if result.is_ok() { JobResult::Done } else { JobResult::Failed }
}

fn backup_run(run: Run, done: &BackupDone, newest: Option<&Backup>) -> Run {
    let newest = newest.filter(|backup| backup.mark.slot == done.slot);
    let id = newest.map(Backup::id);
    let outcome = if done.failed.is_empty() { Outcome::Success } else { Outcome::Partial };
    let mut message = if done.failed.is_empty() {
        format!("{} changed, {} packs", done.changed, done.packs)
    } else {
        format!("could not be listed: {}", done.failed.join(", "))
    };
    let suspect = newest.and_then(|backup| backup.commit.suspect.as_ref());
    if let (Some(why), Some(id)) = (suspect, &id) {
        message =
            format!("{message}; SUSPECT, {why}; if it is in order: understudy backup ack {id}");
        tracing::warn!(backup = id, why, "the backup is suspect, standbys do not apply it");
    }
    tracing::info!(
        backup = id,
        outcome = outcome.name(),
        changed = done.changed,
        packs = done.packs,
        seconds = run.seconds,
        "backup"
    );
    Run {
        outcome,
        backup: id,
        changed: done.changed,
        failed: done.failed.len() as u64,
        message,
        ..run
    }
}

#[allow(clippy::too_many_arguments)] // one call site
pub(super) async fn sync(
    shared: Shared,
    repository: Arc<Repository>,
    standby: Arc<Mutex<Standby>>,
    mut backup: Arc<Backup>,
    me: HubId,
    released: Vec<String>,
    cancel: CancellationToken,
) -> JobResult {
    let (at, begun) = (crate::clock::now(), crate::clock::monotonic());
    shared.board.update(|s| {
        s.sync.running_since = Some(at);
        s.sync.last_attempt_at = Some(at);
    });
    let mut standby = standby.lock().await;
    claim::claim(&shared, &repository, &mut standby, &me, &cancel).await;
    let result = loop {
        let guard = &crate::sync::no_guard;
        let purpose = Purpose::Follow { released: &released };
        let tally = standby.tally().clone();
        let run = async {
            standby.open(&backup).await?;
            // From now on a promotion can start from it: that must not wait for the restore.
            shared.board.update(|s| {
                s.sync.opened = Some(backup.id());
                s.sync.damaged = None;
            });
            standby.run(&backup, Scope::Passive, purpose, guard, &cancel).await
        };
        match surface::follow(&shared, &tally, run).await {
            Err(error) if error.is_missing() => match in_place_of(&repository, &backup).await {
                Some(newer) => {
                    let (retired, newer_id) = (backup.id(), newer.id());
                    tracing::info!(
                        retired,
                        newer = newer_id,
                        "a backup was retired, beginning anew"
                    );
                    backup = newer;
                }
                None => break Err(error),
            },
            result => break result,
        }
    };
    let seconds = (crate::clock::monotonic() - begun).as_secs_f64();
    let opened = standby.opened().map(|backup| backup.id());
    let (drift, full_check) = (standby.drift(), standby.full_check());
    let going = standby.going().iter().take(MAX_GOING).map(ToString::to_string).collect();
    shared.board.update(|s| {
        s.sync.opened = opened;
        s.sync.going = going;
        s.sync.drift = drift;
        s.sync.full_check = full_check;
    });
    surface::show_sync(&shared, &backup, &result, at, seconds);
    claim::settle(&shared, &result);
    let through = match &result {
        Ok(Synced::Nothing) => true,
        Ok(Synced::Restored(report)) => report.stopped.is_none(),
        Err(_) => false,
    };
    if through {
        let tally = standby.tally().clone();
        let rehearsal = Box::pin(standby.rehearse(&cancel));
        if let Some(facts) = Box::pin(surface::follow(&shared, &tally, rehearsal)).await {
            shared.board.update(|s| s.sync.rehearsal = facts);
        }
    }
    match result {
        Ok(Synced::Nothing) => JobResult::Done,
        Ok(Synced::Restored(report)) if report.is_complete() => JobResult::Done,
        Ok(Synced::Restored(_)) | Err(_) => JobResult::Failed,
    }
}

/// What a standby reads instead of a backup that was retired while it was fetched: slow readers find
/// that its packs are gone. `None`: it is still offered, or nothing newer can be had.
async fn in_place_of(repository: &Repository, backup: &Backup) -> Option<Arc<Backup>> {
    let mut journal = repository.journal.lock().await;
    let view = journal.refresh().await.ok()?;
    let retired = !view.ledger.offered.contains_key(&backup.mark.slot);
    view.usable.clone().filter(|usable| retired && usable.mark.slot > backup.mark.slot)
}

/// From the term to `Activated`: the last catch-up, then the activation set.
pub(super) async fn activation(
    shared: Shared,
    repository: Arc<Repository>,
    standby: Arc<Mutex<Standby>>,
    writer: Writer,
    cancel: CancellationToken,
) -> JobResult {
    let (at, begun) = (crate::clock::now(), crate::clock::monotonic());
    let (base, again) = {
        let journal = repository.journal.lock().await;
        let view = journal.view();
        (view.base.clone(), view.term.as_ref().is_some_and(|term| term.again))
    };
    let report = match base.filter(|_| !again) {
        // Nor has one over a repository without a backup, and one that this hub had given up itself:
        // nobody else wrote meanwhile, and what its users did since stays.
        None => Report::default(),
        Some(base) => {
            match restore_base(&shared, &repository, &standby, &writer, &base, &cancel).await {
                Ok(report) => report,
                Err(why) => {
                    tracing::error!(why, "the activation did not come to its end, trying again");
                    return JobResult::Failed;
                }
            }
        }
    };
    let named = report.failed.iter().take(NAMED_IN_RECORD);
    let recorded = named
        .map(|item| format!("{}: {}", item.key, item.reason).chars().take(NAME_LENGTH).collect())
        .collect();
    let mut journal = repository.journal.lock().await;
    let activated = Body::Activated { failed: recorded };
    let appended = journal.append(&writer, activated, |view| writer.may_write(view));
    if let Err(error) = appended.await {
        tracing::error!(error = retry::chain(&error), "failed to record the activation");
        return JobResult::Failed;
    }
    drop(journal);
    let seconds = (crate::clock::monotonic() - begun).as_secs_f64();
    surface::show_activated(&shared, &report, at, seconds);
    JobResult::Done
}

async fn restore_base(
    shared: &Shared,
    repository: &Arc<Repository>,
    standby: &Mutex<Standby>,
    writer: &Writer,
    base: &Arc<Backup>,
    cancel: &CancellationToken,
) -> Result<Report, String> {
    let mut standby = standby.lock().await;
    surface::show_phase(shared, "TermHeld", Some(base.id())).await;
    let guard = || -> BoxFuture<'static, ControlFlow<String>> {
        Box::pin(still_holds(repository.clone(), writer.clone()))
    };
    let guard: Guard<'_> = &guard;
    let text = |error: SyncError| retry::chain(&error);
    let tally = standby.tally().clone();
    let (catch_up, activation) =
        (Scope::CatchUp { epoch: writer.epoch }, Scope::Activation { epoch: writer.epoch });
    let caught_up = standby.run(base, catch_up, Purpose::Promotion, guard, cancel);
    let caught_up = surface::follow(shared, &tally, caught_up).await.map_err(text)?;
    finished(&caught_up)?;
    surface::show_phase(shared, "CaughtUp", None).await;
    surface::show_phase(shared, "Activating", None).await;
    let activated = standby.run(base, activation, Purpose::Promotion, guard, cancel);
    let activated = surface::follow(shared, &tally, activated).await.map_err(text)?;
    finished(&activated)?;
    clusters::activate(shared, &standby, writer.epoch, guard).await?;
    match activated {
        Synced::Nothing => Ok(Report::default()),
        Synced::Restored(report) => Ok(report),
    }
}

/// An object that failed is recorded and does not stop a promotion; a run that was stopped does.
fn finished(synced: &Synced) -> Result<(), String> {
    match synced {
        Synced::Restored(Report { stopped: Some(why), .. }) => Err(why.clone()),
        Synced::Restored(_) | Synced::Nothing => Ok(()),
    }
}

/// Asked before the first activation write and again and again: the storage decides who writes.
async fn still_holds(repository: Arc<Repository>, writer: Writer) -> ControlFlow<String> {
    let mut journal = repository.journal.lock().await;
    match journal.refresh().await {
        Ok(View { frozen: Some(frozen), .. }) => ControlFlow::Break(frozen.message.clone()),
        Ok(view)
            if view.is_holder(&writer.hub)
                && view.epoch == writer.epoch
                && view.incarnation == writer.incarnation =>
        {
            ControlFlow::Continue(())
        }
        Ok(view) => {
            let holder = view.holder.as_ref().map_or_else(String::new, |hub| hub.name.clone());
            ControlFlow::Break(format!("{holder} holds the term {}", view.epoch))
        }
        Err(error) => {
            ControlFlow::Break(format!("the journal cannot be read: {}", retry::chain(&error)))
        }
    }
}

/// Counters of a report, as the metrics name them.
pub(super) fn action_of(done: Done) -> Action {
    match done {
        Done::Created => Action::Created,
        Done::Updated | Done::Adopted => Action::Updated,
        Done::Unchanged => Action::Unchanged,
        Done::Deleted => Action::Pruned,
        Done::Kept | Done::Skipped | Done::Refused | Done::Unlabelled | Done::Left => {
            Action::Skipped
        }
        Done::Failed => Action::Failed,
    }
}
