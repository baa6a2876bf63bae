//! Pure: the gauges of what a standby tries before it is needed: the rehearsal after each sync, and
//! the drill.

use super::{Gauge, number, one, time};
use crate::status::{DrillFacts, RehearsalFacts, Role, Snapshot};

pub(super) fn rehearsal(facts: &RehearsalFacts) -> Vec<Gauge> {
    if facts.last_attempt_at.is_none() {
        return Vec::new();
    }
    vec![
        one(
            "understudy_rehearsal_last_success_timestamp_seconds",
            "When the activation set was last tried on this hub and nothing was refused.",
            time(facts.last_success_at),
        ),
        one(
            "understudy_rehearsal_failed_objects",
            "Objects of the activation set that this hub refused in the last rehearsal.",
            number(facts.failed_objects()),
        ),
    ]
}

/// Only a standby has a deadline. Nothing is shown before it is known what earlier processes did.
pub(super) fn drill(snapshot: &Snapshot) -> Vec<Gauge> {
    let facts: &DrillFacts = &snapshot.drill;
    if !facts.known {
        return Vec::new();
    }
    let mut all = vec![one(
        "understudy_drill_last_success_timestamp_seconds",
        "When a drill of this hub last found nothing wrong.",
        time(facts.success.as_ref().map(|success| success.at)),
    )];
    if let Some(last) = &facts.last {
        all.push(one(
            "understudy_drill_last_duration_seconds",
            "How long the last drill of this hub took.",
            last.seconds,
        ));
    }
    if let Some(deadline) = facts.deadline_at.filter(|_| snapshot.role == Some(Role::Passive)) {
        all.push(one(
            "understudy_drill_deadline_timestamp_seconds",
            "When a drill is to succeed again at the latest.",
            time(Some(deadline)),
        ));
    }
    all
}
