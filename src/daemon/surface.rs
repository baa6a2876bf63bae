//! Between the loops and what is seen: facts onto the board, the board into the `Hub` status, Events
//! and HTTP.

mod held;
mod progress;
mod promotion;

pub(super) use progress::follow;
pub(super) use promotion::{
    remembered_request, settle_promotion, show_activated, show_phase, show_refusal, show_request,
    show_term,
};

use super::Shared;
use super::jobs::{Timing, action_of};
use crate::config::settings::{Objectives, Settings};
use crate::http::AppState;
use crate::kube_status::ask::Answer;
use crate::kube_status::publisher::Outcome as Published;
use crate::kube_status::{Hub, HubStatus};
use crate::metrics::{Metrics, Restoring};
use crate::object::Digest;
use crate::repository::chain::{Backup, View};
use crate::repository::layout::Mark;
use crate::repository::record::HubId;
use crate::restore::{Done, Report};
use crate::retry;
use crate::status::handover::HandedOver;
use crate::status::notice::notices;
use crate::status::{Board, MAX_BACKUPS, Outcome, Role, Run, Watermark};
use crate::sync::{SyncError, Synced};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const OTHER_WRITER: &str = "another process writes the status of this hub";

/// Objects that a run names in the log.
const MAX_NAMED: usize = 50;

/// Figures change all the time; a look at the board once a second is enough for all who show it.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn router(settings: &Settings, board: &Board, metrics: &Arc<Metrics>) -> axum::Router {
    let state = AppState { board: board.clone(), metrics: metrics.clone() };
    crate::http::router(state, &settings.http.base_path)
}

/// What the `Hub` resource remembers from before this start.
pub(super) fn remember(
    board: &Board,
    metrics: &Metrics,
    hub: &Hub,
    hub_uid: &str,
    objectives: &Objectives,
) {
    let before = hub.status.clone().unwrap_or_default();
    let known = before.snapshot().map(|known| {
        (known.backup, known.sync, known.verify, known.drill, known.clusters, known.promotion)
    });
    let (backup, sync, verify, drill, mut clusters, ended) = known.unwrap_or_default();
    if backup.running_since.is_some() {
        metrics.backup_run(Outcome::Failed);
    }
    let HubStatus { epoch, watermark, promotion, handover, pause, answers, .. } = before;
    let promotion = promotion.unwrap_or_default();
    // The figures may be older than the promotion.
    clusters.until = promotion.clusters_until;
    clusters.term = promotion.expected_epoch.map_or(0, |before| before + 1);
    board.update(|s| {
        hub_uid.clone_into(&mut s.hub_id);
        s.epoch = epoch;
        s.pause = pause;
        s.answers = answers;
        s.watermark = watermark;
        *s.handover = handover;
        s.backup.last_attempt_at = backup.last_attempt_at;
        s.backup.last_outcome = backup.last_outcome;
        s.backup.last_error = backup.last_error;
        s.sync.last_success_at = sync.last_success_at;
        s.verify = verify;
        s.verify.starting(objectives.verify_every, s.started_at);
        s.clusters = clusters;
        s.drill = drill;
        s.drill.starting(objectives.drill_every, s.started_at);
        s.promotion.request = promotion.request;
        s.promotion.expected_epoch = promotion.expected_epoch;
        s.promotion.trigger = promotion.trigger;
        s.promotion.forced = promotion.forced;
        s.promotion.guards = promotion.guards;
        s.promotion.phase = promotion.phase;
        s.promotion.started_at = promotion.started_at;
        s.promotion.finished_at = promotion.finished_at;
        s.promotion.outcome = ended.outcome;
        s.promotion.base = promotion.backup;
        s.promotion.data_loss_seconds = promotion.data_loss_seconds;
        s.promotion.running = s.promotion.request.is_some() && s.promotion.finished_at.is_none();
    });
}

pub(super) fn watermark(board: &Board) -> Option<Mark> {
    let Watermark { slot, digest } = board.read().watermark?;
    Some(Mark { slot, sha256: digest.parse::<Digest>().ok()? })
}

/// `false`: it is not durable yet.
pub(super) async fn publish_now(shared: &Shared) -> bool {
    let snapshot = Box::new(shared.board.read());
    match shared.publisher.publish(&snapshot, crate::clock::now()).await {
        Ok(Published::Written | Published::Kept) => {
            shared.board.update(|s| {
                s.kubernetes_error = None;
                s.writer_conflict.take_if(|why| why == OTHER_WRITER);
            });
            true
        }
        Ok(Published::OtherWriter) => {
            shared.board.update(|s| s.writer_conflict = Some(OTHER_WRITER.to_owned()));
            false
        }
        Err(error) => {
            let error = retry::chain(&error);
            tracing::warn!(error, "the status of the hub could not be written");
            shared.board.update(|s| s.kubernetes_error = Some(error));
            false
        }
    }
}

/// What the journal says, as everybody may see it.
pub(super) fn show_view(board: &Board, view: &View, me: &HubId) {
    board.update(|s| {
        s.epoch = s.epoch.max(view.epoch);
        s.term_since = view.term.as_ref().map(|term| term.at);
        s.holder = view.holder.as_ref().map(|hub| hub.name.clone());
        let second = view.holder.as_ref().filter(|holder| holder.name == me.name && *holder != me);
        if second.is_some() {
            s.writer_conflict =
                Some("another cluster holds the term under this hub's name".to_owned());
        }
        if let (Some(last), None) = (view.last, &view.frozen)
            && s.watermark.as_ref().is_none_or(|before| before.slot <= last.slot)
        {
            s.watermark = Some(Watermark { slot: last.slot, digest: last.sha256.to_string() });
        }
        s.handover.handed = view.handed.as_ref().map(|handed| HandedOver {
            to: handed.to.clone(),
            at: handed.at,
            backup: view.usable.as_ref().map(|last| last.id()),
        });
        s.newest = view.backups.last().cloned();
        s.in_force = view
            .usable
            .as_ref()
            .filter(|usable| view.newest.as_ref().is_some_and(|n| n.mark != usable.mark))
            .map(|usable| usable.summary(&[]));
        s.backups = view.backups.iter().rev().take(MAX_BACKUPS).cloned().collect();
        let offered = &view.ledger.offered;
        s.backups_in_storage = offered.len();
        s.oldest_backup_at = offered.first_key_value().map(|(_, oldest)| oldest.at);
        let own = view.backups.iter().rev().find(|backup| backup.hub == me.name);
        if view.is_holder(me)
            && let Some(own) = own
        {
            // One of the future is of a clock that was set back: it must not make the next one late.
            let known = s.backup.last_success_at;
            if known.is_none() || own.at <= crate::clock::now() {
                s.backup.last_success_at = known.max(Some(own.at));
            }
            // What was remembered over a restart may be of an attempt before it.
            if s.backup.last_attempt_at.is_none_or(|attempt| attempt <= own.at) {
                let whole = own.partial.is_empty();
                let outcome = if whole { Outcome::Success } else { Outcome::Partial };
                s.backup.last_outcome = Some(outcome);
                s.backup.failed_groups.clone_from(&own.partial);
                s.backup.last_attempt_at.get_or_insert(own.at);
            }
        }
    });
}

/// Names stand in the log, which has readers that were let in; what is served over HTTP has counts.
fn name_failed(report: &Report) {
    for item in report.failed.iter().take(MAX_NAMED) {
        tracing::warn!(object = %item.key, reason = item.reason, "could not be restored");
    }
    if report.failed.len() > MAX_NAMED {
        tracing::warn!(
            more = report.failed.len() - MAX_NAMED,
            "further objects could not be restored"
        );
    }
}

pub(super) fn show_schedule(
    board: &Board,
    timing: &mut Timing,
    now: Timestamp,
    monotonic: Instant,
) {
    board.update(|s| {
        s.backup.next_run_at = timing.next_backup(now, monotonic);
        // A success of an earlier term does not count in this one.
        let in_term = s.newest.as_ref().is_some_and(|newest| newest.epoch == s.epoch);
        let success = s.backup.last_success_at.filter(|_| in_term).or(s.term_since);
        s.backup.deadline_at = timing.backup_deadline(success.unwrap_or(s.started_at), now);
    });
}

pub(super) fn show_pause(shared: &Shared, timing: &Timing, now: Timestamp) {
    let interval = shared.settings.passive.sync_interval;
    shared.board.update(|s| {
        let before = std::mem::replace(&mut s.pause, timing.paused().cloned());
        if s.role != Some(Role::Passive) {
            return;
        }
        match (before, &s.pause) {
            (_, Some(pause)) => {
                s.sync.next_run_at = pause.until;
                s.sync.deadline_at = None;
            }
            (Some(_), None) => {
                s.sync.next_run_at = Some(now);
                s.sync.deadline_at = now.checked_add(interval * 3).ok();
            }
            (None, None) => {}
        }
    });
}

pub(super) fn show_sync(
    shared: &Shared,
    backup: &Backup,
    result: &Result<Synced, SyncError>,
    at: Timestamp,
    seconds: f64,
) {
    let (outcome, message, changed, failed) = match result {
        Ok(Synced::Nothing) => (Outcome::Unchanged, String::new(), 0, 0),
        Ok(Synced::Restored(report)) => told(report),
        Err(error) => (Outcome::Failed, retry::chain(error), 0, 0),
    };
    log_sync(backup, outcome, &message, changed, failed, seconds);
    shared.metrics.sync_run(outcome);
    if let Ok(Synced::Restored(report)) = result {
        shared.metrics.restore_took(Restoring::Sync, seconds);
        count_restored(shared, report);
        name_failed(report);
        held::log(shared.board.read().sync.held.as_ref(), report);
    }
    let interval = shared.settings.passive.sync_interval;
    let now = crate::clock::now();
    shared.board.update(|s| {
        s.sync.running_since = None;
        s.sync.released = None;
        s.sync.last_outcome = Some(outcome);
        s.sync.last_error = (outcome == Outcome::Failed).then(|| message.clone());
        s.sync.next_run_at = now.checked_add(interval).ok();
        match result {
            Err(SyncError::Open { source, .. }) if source.is_damage() => {
                s.keys.newest_opens = Some(false);
            }
            // It could not be fetched, which says nothing about the keys.
            Err(SyncError::Open { .. }) => {}
            Ok(_) | Err(_) => s.keys.newest_opens = Some(true),
        }
        s.sync.damaged = match result {
            Err(SyncError::Open { source, .. }) if source.is_damage() => Some(message.clone()),
            _ => None,
        };
        if let Ok(Synced::Restored(report)) = result {
            s.sync.failed = crate::sync::failed_by_kind(report);
            let waiting = report.waiting.iter();
            s.sync.waiting = waiting.map(|(kind, n)| (kind.to_string(), *n as u64)).collect();
            held::show(&mut s.sync, report);
        }
        if matches!(outcome, Outcome::Changed | Outcome::Unchanged) {
            s.sync.last_success_at = Some(now);
        }
        // A few objects that fail do not make the data of all others old.
        if matches!(outcome, Outcome::Changed | Outcome::Unchanged | Outcome::Partial) {
            s.sync.restored = Some(backup.summary(&[]));
        }
        let last = s.sync.last_success_at.unwrap_or(s.started_at);
        s.sync.deadline_at = last.checked_add(interval * 3).ok();
        if outcome != Outcome::Unchanged {
            let backup = Some(backup.id());
            s.add_run(Run {
                what: "sync".to_owned(),
                at,
                seconds,
                outcome,
                backup,
                changed,
                failed,
                message,
            });
        }
    });
}

fn log_sync(
    backup: &Backup,
    outcome: Outcome,
    message: &str,
    changed: u64,
    failed: u64,
    seconds: f64,
) {
    let named = tracing::field::display(backup.id());
    match outcome {
        Outcome::Failed => tracing::error!(backup = named, error = message, "sync failed"),
        Outcome::Unchanged => tracing::debug!(backup = named, "sync: nothing to do"),
        Outcome::Changed
        | Outcome::Partial
        | Outcome::Success
        | Outcome::Refused
        | Outcome::Skipped => tracing::info!(
            backup = named,
            outcome = outcome.name(),
            changed,
            failed,
            seconds,
            message,
            "sync"
        ),
    }
}

fn told(report: &Report) -> (Outcome, String, u64, u64) {
    let failed = report.count(Done::Failed) as u64;
    let changed = [Done::Created, Done::Updated, Done::Adopted, Done::Deleted, Done::Unlabelled];
    let changed = changed.iter().map(|done| report.count(*done)).sum::<usize>() as u64;
    let outcome = match (&report.stopped, failed, changed) {
        (Some(_), _, _) => Outcome::Failed,
        (None, 0, 0) => Outcome::Unchanged,
        (None, 0, _) => Outcome::Changed,
        (None, _, _) => Outcome::Partial,
    };
    let message = report.stopped.clone().unwrap_or_else(|| {
        let kinds = crate::sync::failed_by_kind(report);
        let kinds = kinds.iter().map(|(kind, count)| format!("; {count} {kind} failed"));
        let waiting = report.waiting.iter();
        let waiting = waiting.map(|(kind, n)| format!("; {n} {kind} wait for their kind"));
        let (kinds, waiting) = (kinds.collect::<String>(), waiting.collect::<String>());
        format!("{} requests{kinds}{waiting}", report.mutations)
    });
    (outcome, message, changed, failed)
}

fn count_restored(shared: &Shared, report: &Report) {
    for ((set, done), count) in &report.counts {
        if let Some(set) = set {
            shared.metrics.restored(*set, action_of(*done), *count as u64);
        }
    }
}

pub(super) fn job_ended(board: &Board) {
    board.update(|s| {
        s.backup.running_since = None;
        s.sync.running_since = None;
        s.drill.running_since = None;
    });
}

/// Follows the board and writes the `Hub` status when that is worth it.
pub(super) async fn publish(shared: Shared, stop: CancellationToken) {
    let mut changed = shared.board.watch();
    let follow = async {
        while changed.changed().await.is_ok() {
            publish_now(&shared).await;
            changed.mark_unchanged();
            tokio::time::sleep(LOOK).await;
        }
    };
    stop.run_until_cancelled(follow).await;
}

/// Follows the board and tells what happened as Events.
pub(super) async fn tell_events(shared: Shared, stop: CancellationToken) {
    let mut changed = shared.board.watch();
    let mut before = shared.board.read();
    let follow = async {
        while changed.changed().await.is_ok() {
            let snapshot = shared.board.read();
            for notice in notices(&before, &snapshot, crate::clock::now()) {
                shared.events.send(notice);
            }
            before = snapshot;
            tokio::time::sleep(LOOK).await;
        }
    };
    stop.run_until_cancelled(follow).await;
}

pub(super) async fn answer(shared: &Shared, id: String, outcome: Outcome, message: String) {
    let outcome = outcome.name().to_owned();
    shared.board.update(|s| s.add_answer(Answer { id, outcome, message, hint: None }));
    publish_now(shared).await;
}

/// The control loop turns, and with it the loop of its role; one that went with its role is not stalled.
pub(super) fn tick(board: &Board) {
    let now = crate::clock::now();
    board.tick("promotion", now);
    board.update(|s| {
        for (name, role) in [("backup", Role::Primary), ("sync", Role::Passive)] {
            if s.role == Some(role) {
                s.loops.insert(name.to_owned(), now);
            } else {
                s.loops.remove(name);
            }
        }
    });
}
