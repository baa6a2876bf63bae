//! A promotion on the board, from its request to its report.

use super::super::Shared;
use super::{count_restored, name_failed, publish_now};
use crate::kube_status::ask::Answer;
use crate::metrics::Restoring;
use crate::promotion::machine::{Request, Trigger};
use crate::repository::chain::{Backup, View};
use crate::restore::{Done, Report};
use crate::status::notice::EventReason;
use crate::status::{Board, Frozen, Outcome, Role, Run, Snapshot};
use jiff::Timestamp;
use std::sync::Arc;

/// The request that was accepted before this start and not carried out.
pub(in crate::daemon) fn remembered_request(board: &Board) -> Option<Request> {
    let promotion = board.read().promotion;
    let waiting = promotion.running && promotion.phase.as_deref() == Some("Requested");
    let (id, expected_epoch) =
        promotion.request.filter(|_| waiting).zip(promotion.expected_epoch)?;
    let trigger = Trigger::from_name(promotion.trigger.as_deref().unwrap_or_default());
    let (forced, guards) = (promotion.forced, promotion.guards);
    Some(Request { id, expected_epoch, trigger, forced, guards })
}

pub(in crate::daemon) fn show_request(board: &Board, request: &Request, now: Timestamp) {
    board.update(|s| {
        if holds_term(s.role) {
            return;
        }
        s.promotion = crate::status::PromotionFacts {
            running: true,
            trigger: Some(request.trigger.name().to_owned()),
            request: Some(request.id.clone()),
            expected_epoch: Some(request.expected_epoch),
            forced: request.forced.clone(),
            guards: request.guards.clone(),
            phase: Some("Requested".to_owned()),
            started_at: Some(now),
            checklist: std::mem::take(&mut s.promotion.checklist),
            ..Default::default()
        };
    });
}

/// The term is ours: from here on a promotion only goes forward.
pub(in crate::daemon) fn show_term(board: &Board, view: &View, now: Timestamp) {
    board.update(|s| {
        if s.promotion.request.is_none() {
            return;
        }
        s.promotion.phase = Some("TermHeld".to_owned());
        s.promotion.base = view.base.as_ref().map(|base| base.id());
        let handed = view.term.as_ref().is_some_and(|term| term.after.is_some());
        let age = |base: &Arc<Backup>| now.duration_since(base.at).as_secs();
        let loss = view.base.as_ref().map(|base| if handed { 0 } else { age(base) });
        s.promotion.data_loss_seconds =
            loss.map(|seconds| u64::try_from(seconds).unwrap_or_default());
    });
}

pub(in crate::daemon) async fn show_phase(shared: &Shared, phase: &str, base: Option<String>) {
    tracing::info!(phase, base, "promotion");
    shared.board.update(|s| {
        s.promotion.running = true;
        s.promotion.phase = Some(phase.to_owned());
        if base.is_some() {
            s.promotion.base = base;
        }
    });
    publish_now(shared).await;
}

pub(in crate::daemon) fn show_activated(
    shared: &Shared,
    report: &Report,
    at: Timestamp,
    seconds: f64,
) {
    shared.metrics.restore_took(Restoring::Promotion, seconds);
    count_restored(shared, report);
    name_failed(report);
    let failed = report.count(Done::Failed) as u64;
    let activated = (report.count(Done::Created) + report.count(Done::Updated)) as u64;
    let outcome = if failed == 0 { Outcome::Success } else { Outcome::Partial };
    tracing::info!(outcome = outcome.name(), activated, failed, seconds, "promotion finished");
    let trigger = shared.board.update(|s| {
        s.promotion.running = false;
        s.promotion.phase = Some("Activated".to_owned());
        s.promotion.outcome = Some(outcome);
        s.promotion.finished_at = Some(crate::clock::now());
        s.promotion.activated = activated;
        let kinds = crate::sync::failed_by_kind(report).into_iter();
        s.promotion.failed = kinds.map(|(kind, count)| format!("{count} {kind}")).collect();
        s.add_run(Run {
            what: "promotion".to_owned(),
            at: s.promotion.started_at.unwrap_or(at),
            seconds,
            outcome,
            backup: s.promotion.base.clone(),
            changed: activated,
            failed,
            message: format!("{activated} activated"),
        });
        answer_promoted(s);
        s.promotion.trigger.clone()
    });
    let trigger = Trigger::from_name(trigger.as_deref().unwrap_or_default());
    shared.metrics.promotion(trigger, outcome);
}

/// The journal says that the activation is done, but the process that did it ended before it could
/// tell; what it counted went with it.
pub(in crate::daemon) fn settle_promotion(board: &Board, now: Timestamp) {
    let forgotten = |s: &Snapshot| s.promotion.running && s.promotion.request.is_some();
    if !forgotten(&board.read()) {
        return;
    }
    board.update(|s| {
        s.promotion.running = false;
        s.promotion.phase = Some("Activated".to_owned());
        s.promotion.outcome = Some(Outcome::Success);
        s.promotion.finished_at = Some(now);
        answer_promoted(s);
    });
}

fn answer_promoted(s: &mut Snapshot) {
    let cli = s.promotion.trigger.as_deref() == Some(Trigger::Cli.name());
    let (Some(id), true) = (s.promotion.request.clone(), cli) else { return };
    let outcome = s.promotion.outcome.unwrap_or(Outcome::Success).name().to_owned();
    let failed = match &*s.promotion.failed {
        [] => String::new(),
        kinds => format!(", could not restore {}", kinds.join(", ")),
    };
    let message = format!("{} holds the term {}{failed}", s.hub, s.epoch);
    s.add_answer(Answer { id, outcome, message, hint: None });
}

/// `asked`: by the command line, which waits for an answer under this id.
pub(in crate::daemon) fn show_refusal(shared: &Shared, refusal: Frozen, asked: Option<String>) {
    let reason = if refusal.reason == "PromotionRequestStale" {
        EventReason::PromotionRequestStale
    } else {
        EventReason::PromotionRefused
    };
    shared.events.tell(reason, format!("{}; {}", refusal.message, refusal.hint));
    let answer = asked.map(|id| Answer {
        id,
        outcome: Outcome::Refused.name().to_owned(),
        message: refusal.message.clone(),
        hint: Some(refusal.hint.clone()).filter(|hint| !hint.is_empty()),
    });
    shared.board.update(|s| {
        if let Some(answer) = answer {
            s.add_answer(answer);
        }
        s.promotion.refused = Some(refusal);
        if holds_term(s.role) {
            return;
        }
        s.promotion.running = false;
        s.promotion.phase = None;
        s.promotion.outcome = Some(Outcome::Refused);
        s.promotion.finished_at = Some(crate::clock::now());
    });
}

/// A request that comes late, to a hub that was promoted already, must not wipe out the record of
/// that promotion.
fn holds_term(role: Option<Role>) -> bool {
    matches!(role, Some(Role::Primary | Role::Promoting))
}
