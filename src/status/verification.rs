//! Pure: what the scheduled verification of the stored backups found, when the next one is due, and
//! what is wrong with it.

use super::problem::{Problem, Reason, critical, warning};
use super::words::{clock, moment, plural};
use super::{Role, Snapshot};
use crate::repository::layout::JOURNAL;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is damaged is read again so soon, and so is what could not be read: whoever mended it wants
/// to see that.
const AGAIN_AFTER: Duration = Duration::from_hours(1);

/// A daemon that was never here before has a backup or a restore to do first.
const FIRST_AFTER: Duration = Duration::from_mins(5);

/// Intervals after which the last success is too old: one may fail.
const INTERVALS: u32 = 2;

/// Of [`VerifyFacts::damaged`]. Others take the place of those that were mended.
const MAX_DAMAGED: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VerifyFacts {
    pub running_since: Option<Timestamp>,
    pub last_attempt_at: Option<Timestamp>,
    /// When all that was read was sound.
    pub last_success_at: Option<Timestamp>,
    pub next_run_at: Option<Timestamp>,
    /// When the next success is due at the latest.
    pub deadline_at: Option<Timestamp>,
    /// Why the last attempt did not come to its end.
    pub last_error: Option<String>,
    /// Verifications that came to their end. They take turns with the older packs.
    pub rounds: u64,
    /// Read by the last one.
    pub packs: u64,
    pub bytes: u64,
    pub damaged_objects: u64,
    /// Those that the newest backup needs first, at most [`MAX_DAMAGED`]. Read again every time, until
    /// they are sound or nobody needs them.
    pub damaged: Vec<Damaged>,
}

/// A stored object of which a verification found that it is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Damaged {
    /// `packs/…` or `journal/…`
    pub object: String,
    pub why: String,
    /// It may be sound, but no key of this hub opens it.
    pub missing_key: bool,
    /// The newest backup cannot be read without it.
    pub in_newest: bool,
    /// How many backups need it, and the ids of the first and the last of them.
    pub backups: u64,
    pub oldest: String,
    pub newest: String,
}

impl VerifyFacts {
    /// The daemon starts, with what an earlier one has left in the `Hub` resource.
    pub fn starting(&mut self, every: Duration, now: Timestamp) {
        self.running_since = None;
        let next = match (self.next_run_at, self.last_attempt_at) {
            // The interval may have become shorter meanwhile.
            (Some(next), Some(last)) => next.min(after(last, every)),
            (_, _) => after(now, every.min(FIRST_AFTER)),
        };
        self.next_run_at = Some(next);
        // A daemon that starts again and again must not postpone it.
        self.deadline_at = match self.last_success_at {
            Some(last) => Some(after(last, every.saturating_mul(INTERVALS))),
            None => self.deadline_at.or(Some(after(now, every.saturating_mul(INTERVALS)))),
        };
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next_run_at.is_some_and(|next| next <= now)
    }

    /// It came to its end.
    pub fn read(&mut self, damaged: Vec<Damaged>, every: Duration, now: Timestamp) {
        self.running_since = None;
        self.last_error = None;
        self.rounds += 1;
        self.next_run_at = Some(after(now, every));
        if damaged.is_empty() {
            self.last_success_at = Some(now);
            self.deadline_at = Some(after(now, every.saturating_mul(INTERVALS)));
        } else {
            self.next_run_at = Some(after(now, every.min(AGAIN_AFTER)));
        }
        self.damaged_objects = damaged.len() as u64;
        self.damaged = damaged;
        self.damaged.sort_by(|a, b| (b.in_newest, &b.newest).cmp(&(a.in_newest, &a.newest)));
        self.damaged.truncate(MAX_DAMAGED);
    }

    /// It did not: what was found before still stands.
    pub fn failed(&mut self, why: String, every: Duration, now: Timestamp) {
        self.running_since = None;
        self.last_error = Some(why);
        self.next_run_at = Some(after(now, every.min(AGAIN_AFTER)));
    }
}

fn after(at: Timestamp, time: Duration) -> Timestamp {
    at.checked_add(time).unwrap_or(Timestamp::MAX)
}

/// Of the hubs that verify: primary and passive.
pub(super) fn problems(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    if !matches!(snapshot.role, Some(Role::Primary | Role::Passive)) {
        return Vec::new();
    }
    let facts = &snapshot.verify;
    let (sealed, damaged): (Vec<_>, Vec<_>) = facts.damaged.iter().partition(|d| d.missing_key);
    let mut found = Vec::new();
    if let Some(worst) = damaged.first() {
        let hint = remedy(snapshot.role, worst);
        found.push(problem(Reason::VerifyDamaged, worst, damaged.len(), hint));
    }
    if let Some(worst) = sealed.first() {
        let hint = "add the key file that it was sealed with to encryption.keyFiles";
        found.push(problem(Reason::KeyMissing, worst, sealed.len(), hint));
    }
    if facts.damaged.is_empty()
        && let Some(deadline) = facts.deadline_at.filter(|deadline| *deadline < now)
    {
        let last = facts.last_success_at.map_or("never".to_owned(), |at| moment(at, now));
        let error =
            facts.last_error.as_ref().map_or(String::new(), |error| format!("; last try: {error}"));
        let message = format!(
            "the stored backups were to be found sound again by {}, and were last: {last}{error}",
            clock(deadline, now)
        );
        let hint = "understudy backup verify --all".to_owned();
        found.push(warning(Reason::VerifyStale, message, Some(hint)));
    }
    found
}

fn remedy(role: Option<Role>, worst: &Damaged) -> &'static str {
    match (worst.in_newest, role) {
        (true, _) if worst.object.starts_with(JOURNAL) => {
            "restore the object from the storage's own versions: no hub that starts now gets past it"
        }
        (true, Some(Role::Primary)) => {
            "understudy backup run: the set is written anew; for the older backups restore the object \
             from the storage's own versions"
        }
        (true, _) => {
            "restore the object from the storage's own versions; or restart the daemon of the primary: \
             its next backup is a full one then"
        }
        (false, _) => {
            "restore the object from the storage's own versions; the newest backup does not need it"
        }
    }
}

fn problem(reason: Reason, worst: &Damaged, all: usize, hint: &str) -> Problem {
    let Damaged { object, why, backups, oldest, newest, .. } = worst;
    let needed = match backups {
        1 => format!("backup {newest} needs it"),
        _ => format!("{backups} backups need it, {oldest} to {newest}"),
    };
    let more = match all {
        1 => String::new(),
        all => format!("; and {}", plural(all - 1, "other object", "other objects")),
    };
    let message = format!("{object}: {why}; {needed}{more}");
    if worst.in_newest {
        critical(reason, message, Some(hint.to_owned()))
    } else {
        warning(reason, message, Some(hint.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Severity;
    use super::super::samples::{self, ago, now};
    use super::super::verdict::verdict;
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn damaged(object: &str, in_newest: bool) -> Damaged {
        Damaged {
            object: object.to_owned(),
            why: "its SHA-256 is another one".to_owned(),
            in_newest,
            backups: 3,
            oldest: "20261119-173000-40".to_owned(),
            newest: "20261120-173000-42".to_owned(),
            ..Damaged::default()
        }
    }

    #[test]
    fn a_restart_keeps_what_is_due_and_postpones_nothing() {
        let started = |facts: VerifyFacts, every| {
            let mut facts = facts;
            facts.starting(every, now());
            (facts.next_run_at.unwrap(), facts.deadline_at.unwrap())
        };
        let hour = Duration::from_hours(1);
        let new = VerifyFacts::default();
        assert_eq!(started(new.clone(), DAY), (ago(-300), ago(-172_800)));
        assert_eq!(started(new, Duration::from_secs(2)), (ago(-2), ago(-4)));
        let late = VerifyFacts { deadline_at: Some(ago(60)), ..VerifyFacts::default() };
        assert_eq!(started(late, DAY).1, ago(60), "it never succeeded and is overdue");
        let mut well = VerifyFacts { last_attempt_at: Some(ago(7200)), ..VerifyFacts::default() };
        well.read(vec![], DAY, ago(7200));
        assert_eq!(started(well.clone(), DAY), (ago(7200 - 86_400), ago(7200 - 172_800)));
        assert_eq!(started(well, hour), (ago(3600), ago(0)), "verifyEvery was made shorter");
        let mut failed = VerifyFacts { last_attempt_at: Some(ago(60)), ..VerifyFacts::default() };
        failed.failed("no answer".to_owned(), DAY, ago(60));
        assert_eq!(started(failed, DAY).0, ago(60 - 3600), "it is tried again earlier");
    }

    #[test]
    fn damage_stands_until_a_verification_finds_none() {
        let mut facts = VerifyFacts::default();
        let old = Damaged { newest: "20261121-000000-50".to_owned(), ..damaged("packs/1", false) };
        facts.read(vec![old, damaged("packs/2", true)], DAY, ago(60));
        assert_eq!(facts.damaged[0].object, "packs/2", "the newest backup's first");
        assert_eq!((facts.last_success_at, facts.rounds), (None, 1));
        assert!(!facts.is_due(now()) && facts.is_due(ago(60 - 3600)));
        facts.failed("no answer".to_owned(), DAY, now());
        assert_eq!(facts.damaged.len(), 2);
        facts.read(vec![], DAY, now());
        assert_eq!((facts.damaged.len(), facts.last_success_at), (0, Some(now())));
        assert!(facts.is_due(ago(-86_400)) && !facts.is_due(ago(-86_399)));
    }

    /// Each problem as one line.
    fn check(snapshot: &Snapshot, expected: &[(Severity, &str)]) {
        let found = problems(snapshot, now());
        let lines = found.iter().map(|p| (p.severity, format!("{}: {}", p.reason, p.message)));
        let expected: Vec<_> = expected.iter().map(|(s, text)| (*s, (*text).to_owned())).collect();
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn damage_is_told_with_the_object_the_backups_and_what_to_do() {
        let mut snapshot = samples::primary();
        check(&snapshot, &[]);
        snapshot.verify.damaged = vec![damaged("packs/1-3-A", true), damaged("packs/1-3-B", false)];
        let told = "VerifyDamaged: packs/1-3-A: its SHA-256 is another one; 3 backups need it, \
                    20261119-173000-40 to 20261120-173000-42; and 1 other object";
        check(&snapshot, &[(Severity::Critical, told)]);
        let hint = |snapshot: &Snapshot| problems(snapshot, now())[0].hint.clone().unwrap();
        assert!(hint(&snapshot).starts_with("understudy backup run"));
        assert_eq!(verdict(&snapshot, now()).headline, "NOT PROTECTED: VerifyDamaged.");
        snapshot.role = Some(Role::Passive);
        assert!(hint(&snapshot).contains("restart the daemon of the primary"));
        snapshot.verify.damaged = vec![Damaged { backups: 1, ..damaged("journal/7", false) }];
        let told = "VerifyDamaged: journal/7: its SHA-256 is another one; backup 20261120-173000-42 \
                    needs it";
        check(&snapshot, &[(Severity::Warning, told)]);
        snapshot.role = Some(Role::Fenced);
        check(&snapshot, &[]);
    }

    #[test]
    fn a_missing_key_is_no_damage() {
        let mut snapshot = samples::primary();
        let why = "no key fits".to_owned();
        snapshot.verify.damaged = vec![Damaged { missing_key: true, why, ..damaged("p", false) }];
        let told = "KeyMissing: p: no key fits; 3 backups need it, 20261119-173000-40 to \
                    20261120-173000-42";
        check(&snapshot, &[(Severity::Warning, told)]);
    }

    #[test]
    fn a_verification_that_is_overdue_is_told_once() {
        let mut snapshot = samples::passive();
        snapshot.verify.deadline_at = Some(ago(60));
        snapshot.verify.last_error = Some("no answer".to_owned());
        let told = "VerifyStale: the stored backups were to be found sound again by 17:36Z, and were \
                    last: 11:37Z (6h ago); last try: no answer";
        check(&snapshot, &[(Severity::Warning, told)]);
        snapshot.verify.damaged = vec![damaged("packs/1", false)];
        assert_eq!(problems(&snapshot, now()).len(), 1, "that says enough");
    }
}
