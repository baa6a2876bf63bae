//! What a sync left undeleted, and what it deleted because an operator had released it: onto the
//! board, and once a plan into the log.

use crate::object::{GroupResource, ObjectKey};
use crate::restore::{Done, Held, Report};
use crate::status::SyncFacts;
use crate::status::held::{HeldKind, HeldPrune, ReleasedPrune};
use std::cmp::Reverse;

/// Kinds on the board, and names of each.
const MAX_KINDS: usize = 20;
const MAX_FIRST: usize = 5;
/// Names of a kind in the log.
const MAX_LOGGED: usize = 1000;

pub(super) fn show(sync: &mut SyncFacts, report: &Report) {
    let plan = report.held_plan.as_ref();
    let why = plan.map(|plan| &plan.why).into_iter().chain(&report.held);
    let why: Vec<_> = why.map(String::as_str).collect();
    sync.prune_held = (!why.is_empty()).then(|| why.join("; "));
    sync.held = plan.map(|plan| held(plan));
    sync.released = report.released.as_ref().map(|released| ReleasedPrune {
        plan: released.plan.clone(),
        deletions: released.deletions,
        deleted: report.count(Done::Deleted),
    });
}

/// `before`: what was held until now.
pub(super) fn log(before: Option<&HeldPrune>, report: &Report) {
    if let Some(released) = &report.released {
        let (plan, deleted) = (&released.plan, report.count(Done::Deleted));
        tracing::warn!(plan, deleted, of = released.deletions, "a released prune was carried out");
    }
    for key in report.going.iter().take(super::MAX_NAMED) {
        tracing::info!(object = %key, "deleted, and still there: finalizers keep it");
    }
    let Some(held) = &report.held_plan else { return };
    if before.is_some_and(|before| before.plan == held.id) {
        return;
    }
    let (plan, why) = (&held.id, &held.why);
    tracing::warn!(plan, why, "nothing is deleted before an operator releases it");
    for (kind, keys) in held.by_kind() {
        let names: Vec<_> = keys.iter().take(MAX_LOGGED).map(|key| name(key)).collect();
        let names = names.join(" ");
        tracing::warn!(plan, %kind, deletions = keys.len(), names, "would be deleted");
    }
}

fn held(held: &Held) -> HeldPrune {
    let kind = |(kind, keys): (GroupResource, Vec<&ObjectKey>)| HeldKind {
        kind: kind.to_string(),
        deletions: keys.len(),
        first: keys.into_iter().take(MAX_FIRST).map(name).collect(),
    };
    let mut kinds: Vec<_> = held.by_kind().into_iter().map(kind).collect();
    kinds.sort_by_key(|kind| Reverse(kind.deletions));
    kinds.truncate(MAX_KINDS);
    HeldPrune { plan: held.id.clone(), why: held.why.clone(), deletions: held.deletes.len(), kinds }
}

fn name(key: &ObjectKey) -> String {
    match key.namespace() {
        "" => key.name().to_owned(),
        namespace => format!("{namespace}/{}", key.name()),
    }
}
