//! Pure: what the drills of this hub found, when the next one is due, and what is wrong with it.
//!
//! They outlive the process twice: in the `Hub` resource, and in this hub's heartbeat in the storage.

use super::problem::{Problem, Reason, warning};
use super::words::{age_of, clock, count, moment, plural, span, span_of};
use super::{Role, Snapshot};
use crate::repository::drill::{Drill, Drills};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A hub that was never here before has to follow first.
const FIRST_AFTER: Duration = Duration::from_hours(1);

/// What failed is tried again so soon, by itself: whoever mended it may ask.
const AGAIN_AFTER: Duration = Duration::from_hours(24);

/// The share of the interval by which a success may be late: some attempts may fail.
const GRACE: u32 = 10;

/// Of the page and of a sentence.
const MAX_KINDS: usize = 5;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DrillFacts {
    /// The heartbeat that an earlier process has left was read, or the `Hub` resource told of a drill:
    /// until then nobody knows when the last one was.
    pub known: bool,
    pub running_since: Option<Timestamp>,
    pub last_attempt_at: Option<Timestamp>,
    /// The last one that was not broken off.
    pub last: Option<Drill>,
    /// The last one that found nothing wrong.
    pub success: Option<Drill>,
    /// Objects that the last one would have failed to write, the first of them, each with the reason.
    /// Never holds what may be secret.
    pub named: Vec<String>,
    /// Why the last attempt says nothing.
    pub broken_off: Option<String>,
    pub next_run_at: Option<Timestamp>,
    /// When the next success is due at the latest.
    pub deadline_at: Option<Timestamp>,
}

impl DrillFacts {
    /// The daemon starts, with what an earlier one has left in the `Hub` resource.
    pub fn starting(&mut self, every: Duration, now: Timestamp) {
        self.running_since = None;
        self.known = self.last.is_some();
        self.schedule(every, now);
    }

    /// What this hub's own heartbeat told at the start.
    pub fn recovered(&mut self, stored: Option<Drills>, every: Duration, now: Timestamp) {
        self.known = true;
        let Drills { last, success } = stored.unwrap_or_default();
        let newer = |new: &Option<Drill>, old: &Option<Drill>| {
            new.as_ref().map(|drill| drill.at) > old.as_ref().map(|drill| drill.at)
        };
        if newer(&last, &self.last) {
            self.last = last;
            self.named = Vec::new();
        }
        if newer(&success, &self.success) {
            self.success = success;
        }
        self.schedule(every, now);
    }

    pub fn begins(&mut self, now: Timestamp) {
        self.running_since = Some(now);
        self.last_attempt_at = Some(now);
        self.broken_off = None;
    }

    /// It came to an end of its own.
    pub fn ended(&mut self, drill: Drill, named: Vec<String>, every: Duration, now: Timestamp) {
        self.running_since = None;
        self.named = named;
        if drill.succeeded() {
            self.success = Some(drill.clone());
        }
        self.last = Some(drill);
        self.schedule(every, now);
    }

    /// It did not, and nothing is known from it.
    pub fn broke_off(&mut self, why: String) {
        self.running_since = None;
        self.broken_off = Some(why);
    }

    /// By the schedule.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.known && self.next_run_at.is_some_and(|next| next <= now)
    }

    /// What the heartbeat carries. None: there was none yet.
    pub fn stored(&self) -> Option<Drills> {
        self.last.as_ref()?;
        Some(Drills { last: self.last.clone(), success: self.success.clone() })
    }

    /// A daemon that starts again and again postpones nothing.
    fn schedule(&mut self, every: Duration, now: Timestamp) {
        let late = every + every / GRACE;
        let (first, at) = (every.min(FIRST_AFTER), |drill: &Drill| drill.at);
        self.next_run_at = match (&self.last, &self.success) {
            (Some(last), _) if !last.succeeded() => Some(after(last.at, every.min(AGAIN_AFTER))),
            (_, Some(success)) => Some(after(success.at, every)),
            (_, None) => self.next_run_at.or(Some(after(now, first))),
        };
        self.deadline_at = match self.success.as_ref().map(at) {
            Some(success) => Some(after(success, late)),
            None => self.deadline_at.or(Some(after(now, late))),
        };
    }

    /// `Last drill 4m12s, 12 days ago (RTO 15m).`
    pub fn sentence(&self, rto_seconds: u64, now: Timestamp) -> Option<String> {
        let last = self.last.as_ref()?;
        let ago = age_of(last.at, now);
        if last.succeeded() {
            let rto = match rto_seconds {
                0 => String::new(),
                #[allow(clippy::cast_precision_loss)] // hours
                rto if last.seconds > rto as f64 => format!(" (RTO {}: NOT met)", span(rto)),
                rto => format!(" (RTO {})", span(rto)),
            };
            return Some(format!("Last drill {}, {ago} ago{rto}.", span_of(last.seconds)));
        }
        let before = self.success.as_ref().map_or_else(
            || "none succeeded yet".to_owned(),
            |success| format!("the last that succeeded {} ago", age_of(success.at, now)),
        );
        Some(format!("Last drill FAILED {ago} ago, {before}."))
    }
}

fn after(at: Timestamp, time: Duration) -> Timestamp {
    at.checked_add(time).unwrap_or(Timestamp::MAX)
}

/// What one of them found, without when.
pub fn told(drill: &Drill) -> String {
    let tried = plural(usize::try_from(drill.tried).unwrap_or(usize::MAX), "object", "objects");
    let failed = match drill.failed_objects() {
        0 => "none would be refused".to_owned(),
        failed => format!("{} would be refused ({})", count(failed), kinds(drill)),
    };
    let untried = match drill.untried {
        0 => String::new(),
        untried => format!(", {} cannot be tried", count(untried)),
    };
    let error = drill.error.as_ref();
    let error = error.map_or(String::new(), |why| format!("; not to the end: {why}"));
    format!("backup {}: {tried} tried, {failed}{untried}{error}", drill.backup)
}

fn kinds(drill: &Drill) -> String {
    let kinds = drill.failed.iter().take(MAX_KINDS);
    let kinds: Vec<_> = kinds.map(|(kind, failed)| format!("{failed} {kind}")).collect();
    let more = if drill.failed.len() > MAX_KINDS { ", …" } else { "" };
    format!("{}{more}", kinds.join(", "))
}

/// Of a hub that is to take over. They warn: none of it keeps anybody from promoting.
pub(super) fn problems(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let facts = &snapshot.drill;
    if snapshot.role != Some(Role::Passive) || !facts.known {
        return Vec::new();
    }
    let hint = || Some("understudy drill".to_owned());
    let mut found = Vec::new();
    if let Some(last) = facts.last.as_ref().filter(|last| !last.succeeded()) {
        let first = facts.named.first().map_or(String::new(), |named| format!(", such as {named}"));
        let message = format!("the drill of {}: {}{first}", clock(last.at, now), told(last));
        found.push(warning(Reason::DrillFailed, message, hint()));
    }
    if let Some(deadline) = facts.deadline_at.filter(|deadline| *deadline < now) {
        let last = facts.success.as_ref();
        let last = last.map_or("never".to_owned(), |success| moment(success.at, now));
        let message = format!(
            "a drill was to succeed by {}; the last that did: {last}",
            clock(deadline, now)
        );
        found.push(warning(Reason::DrillOverdue, message, hint()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, ago, now};
    use super::*;

    const DAY: i64 = 86_400;
    const EVERY: Duration = Duration::from_hours(90 * 24);

    fn drill(seconds_ago: i64, failed: u64) -> Drill {
        let failed = (failed > 0).then(|| ("managedclusters.x.io".to_owned(), failed));
        Drill {
            at: ago(seconds_ago),
            backup: "20261120-173000-42".to_owned(),
            seconds: 252.4,
            tried: 51_422,
            failed: failed.into_iter().collect(),
            ..Drill::default()
        }
    }

    fn after_drills(drills: &[Drill]) -> DrillFacts {
        let mut facts = DrillFacts::default();
        facts.starting(EVERY, ago(40 * DAY));
        facts.recovered(None, EVERY, ago(40 * DAY));
        for drill in drills {
            facts.begins(drill.at);
            facts.ended(drill.clone(), vec![], EVERY, drill.at);
        }
        facts
    }

    #[test]
    fn a_drill_is_due_after_its_interval_and_a_failed_one_a_day_later() {
        // Next and deadline, in days from now.
        for (drills, next, deadline) in [
            (vec![], -40, 59),
            (vec![drill(12 * DAY, 0)], 78, 87),
            (vec![drill(12 * DAY, 0), drill(2 * DAY, 3)], -1, 87),
            (vec![drill(2 * DAY, 3)], -1, 59),
            (vec![drill(12 * DAY, 3), drill(2 * DAY, 0)], 88, 97),
        ] {
            let facts = after_drills(&drills);
            let days = |at: Option<Timestamp>| at.unwrap().duration_since(now()).as_hours() / 24;
            let found = (days(facts.next_run_at), days(facts.deadline_at));
            assert!((found.0 - next).abs() <= 1 && found.1 == deadline, "{drills:?}: {found:?}");
            assert_eq!(facts.is_due(now()), next < 0, "{drills:?}");
        }
    }

    #[test]
    fn a_restart_keeps_what_is_due_and_postpones_nothing() {
        for drills in [vec![], vec![drill(12 * DAY, 0)], vec![drill(9, 0), drill(2, 3)]] {
            let before = after_drills(&drills);
            let mut after = before.clone();
            after.starting(EVERY, now());
            assert_eq!(after.known, !drills.is_empty(), "the heartbeat is to be read first");
            assert!(after.known || !after.is_due(now()));
            after.recovered(before.stored(), EVERY, now());
            assert_eq!(after, before);
            let shorter = Duration::from_hours(24);
            after.starting(shorter, now());
            assert!(after.next_run_at <= before.next_run_at);
        }
    }

    #[test]
    fn a_hub_resource_that_is_gone_loses_no_drill() {
        let before = after_drills(&[drill(12 * DAY, 0), drill(2 * DAY, 3)]);
        let mut after = DrillFacts::default();
        after.starting(EVERY, now());
        after.recovered(before.stored(), EVERY, now());
        assert_eq!((&after.last, &after.success), (&before.last, &before.success));
        assert_eq!(
            (after.next_run_at, after.deadline_at),
            (before.next_run_at, before.deadline_at)
        );
        // What the resource knows is newer than a heartbeat of before.
        let mut newer = after_drills(&[drill(9, 0)]);
        newer.recovered(before.stored(), EVERY, now());
        assert_eq!(newer.last.unwrap().at, ago(9));
    }

    #[test]
    fn a_drill_that_was_broken_off_says_nothing() {
        let mut facts = after_drills(&[drill(12 * DAY, 0)]);
        let before = facts.clone();
        facts.begins(now());
        facts.broke_off("promoted".to_owned());
        assert_eq!((&facts.last, facts.deadline_at), (&before.last, before.deadline_at));
        assert_eq!((facts.running_since, facts.next_run_at), (None, before.next_run_at));
    }

    #[test]
    fn the_last_drill_is_told_in_one_sentence() {
        let check = |drills: &[Drill], expected: Option<&str>| {
            assert_eq!(after_drills(drills).sentence(900, now()).as_deref(), expected);
        };
        check(&[], None);
        check(&[drill(12 * DAY, 0)], Some("Last drill 4m12s, 12 days ago (RTO 15m)."));
        let slow = Drill { seconds: 1800.0, ..drill(300, 0) };
        check(&[slow], Some("Last drill 30m, 5m ago (RTO 15m: NOT met)."));
        check(
            &[drill(12 * DAY, 0), drill(7200, 3)],
            Some("Last drill FAILED 2h ago, the last that succeeded 12 days ago."),
        );
        check(&[drill(60, 3)], Some("Last drill FAILED 1m ago, none succeeded yet."));
    }

    #[test]
    fn a_failed_and_an_overdue_drill_warn_a_standby() {
        let told = |snapshot: &Snapshot| -> Vec<String> {
            let found = problems(snapshot, now()).into_iter();
            found.map(|problem| format!("{}: {}", problem.reason, problem.message)).collect()
        };
        let mut snapshot = samples::passive();
        assert_eq!(told(&snapshot), Vec::<String>::new());
        *snapshot.drill = after_drills(&[drill(100 * DAY, 0), drill(60, 3)]);
        snapshot.drill.named = vec!["managedclusters.x.io c1: denied".to_owned()];
        let found = told(&snapshot);
        assert_eq!(
            found,
            [
                "DrillFailed: the drill of 17:36Z: backup 20261120-173000-42: 51,422 objects tried, 3 \
                 would be refused (3 managedclusters.x.io), such as managedclusters.x.io c1: denied",
                "DrillOverdue: a drill was to succeed by 2026-11-19 17:37Z; the last that did: \
                 2026-08-12 17:37Z (100 days ago)",
            ]
        );
        for role in [Role::Primary, Role::Promoting, Role::Fenced] {
            snapshot.role = Some(role);
            assert_eq!(told(&snapshot), Vec::<String>::new());
        }
    }
}
