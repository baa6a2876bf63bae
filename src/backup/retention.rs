//! Pure: which backups stay and which may go, each with its reason.
//!
//! Rules only ever keep: a backup may go when no rule keeps it. Whatever the rules say, or whoever
//! asks, the last three stay, the newest that a standby may use, what the current term started from
//! until it has a backup of its own, the backup that a suspect one is compared with, and, while the
//! newest is suspect, the day before that one.

use super::guard;
use crate::config::settings::Retention;
use crate::repository::layout::backup_id;
use crate::repository::ledger::Offered;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

/// Kept whatever the configuration says: a mistyped rule must not cost the last good ones.
const ALWAYS: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Of the commit.
    pub slot: u64,
    pub at: Timestamp,
    pub keep: bool,
    pub why: String,
}

impl Verdict {
    pub fn id(&self) -> String {
        backup_id(self.at, self.slot)
    }
}

/// One verdict a backup, newest first. `protected` is what the journal itself lets nobody retire.
/// Days and weeks are those of `zone`.
pub fn plan(
    offered: &BTreeMap<u64, Offered>,
    protected: &[u64],
    rules: &Retention,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Verdict> {
    let mut calendar = Calendar::default();
    let young = |at| {
        rules.keep_for.is_some_and(|keep| {
            let keep = jiff::SignedDuration::try_from(keep).unwrap_or(jiff::SignedDuration::MAX);
            now.duration_since(at) < keep
        })
    };
    judge(offered, protected, |index, _, at| {
        // The calendar counts every backup, also those that another rule keeps.
        let newest_of = calendar.keeps(at.to_zoned(zone.clone()).date(), rules);
        if index < rules.keep_last as usize {
            Some(format!("keepLast {}", rules.keep_last))
        } else if young(at) {
            Some("younger than keepFor".to_owned())
        } else {
            newest_of
        }
    })
}

/// The same for backups that somebody wants to go: of those, the verdict is *keep* where that is
/// refused.
pub fn plan_deletion(
    offered: &BTreeMap<u64, Offered>,
    protected: &[u64],
    named: &BTreeSet<u64>,
) -> Vec<Verdict> {
    judge(offered, protected, |_, slot, _| {
        (!named.contains(&slot)).then(|| "it is not named".to_owned())
    })
}

/// `rule` is asked about every backup, newest first: its place, slot and time.
fn judge(
    offered: &BTreeMap<u64, Offered>,
    protected: &[u64],
    mut rule: impl FnMut(usize, u64, Timestamp) -> Option<String>,
) -> Vec<Verdict> {
    let newest_usable = offered.iter().rfind(|(_, backup)| !backup.suspect);
    let usable = newest_usable.map(|(slot, _)| *slot);
    // What else the next backup is compared with.
    let compared = newest_usable
        .filter(|_| offered.last_key_value().is_some_and(|(_, newest)| newest.suspect))
        .map(|(_, usable)| usable.at);
    // The newest suspect one that stays and of which the reference was not met yet.
    let mut suspect = None;
    let verdict = |(index, (slot, backup)): (usize, (&u64, &Offered))| {
        let (slot, at) = (*slot, backup.at);
        let always = if index < ALWAYS {
            Some(format!("the last {ALWAYS} always stay"))
        } else if Some(slot) == usable {
            Some("the newest that a standby may use".to_owned())
        } else if protected.contains(&slot) {
            Some("the current term started from it".to_owned())
        } else {
            None
        };
        let ruled = rule(index, slot, at);
        let reference = suspect
            .as_ref()
            .filter(|_| !backup.suspect)
            .map(|id| format!("the suspect backup {id} is compared with it"));
        let day = compared
            .filter(|usable| !backup.suspect && usable.duration_since(at) <= guard::WINDOW)
            .map(|_| "the newest is suspect, and the day before that stays".to_owned());
        let why = always.or(ruled).or(reference).or(day);
        if !backup.suspect {
            suspect = None;
        } else if why.is_some() {
            suspect.get_or_insert_with(|| backup_id(at, slot));
        }
        let keep = why.is_some();
        Verdict { slot, at, keep, why: why.unwrap_or_else(|| "no rule keeps it".to_owned()) }
    };
    offered.iter().rev().enumerate().map(verdict).collect()
}

/// Days, weeks and months of which the newest backup was already met.
#[derive(Default)]
struct Calendar {
    days: BTreeSet<Date>,
    weeks: BTreeSet<(i16, i8)>,
    months: BTreeSet<(i16, i8)>,
}

impl Calendar {
    /// The reason if this is the newest backup of one of the days, weeks or months to keep.
    fn keeps(&mut self, date: Date, rules: &Retention) -> Option<String> {
        let week = date.iso_week_date();
        let day = first(&mut self.days, date, rules.keep_daily);
        let week = first(&mut self.weeks, (week.year(), week.week()), rules.keep_weekly);
        let month = first(&mut self.months, (date.year(), date.month()), rules.keep_monthly);
        let named = [(day, "keepDaily"), (week, "keepWeekly"), (month, "keepMonthly")];
        named
            .into_iter()
            .find(|(keeps, _)| *keeps)
            .map(|(_, name)| format!("{name}: the newest of its kind"))
    }
}

/// Whether `period` is met for the first time and is one of the newest `limit` periods.
fn first<T: Ord>(met: &mut BTreeSet<T>, period: T, limit: u32) -> bool {
    met.len() < limit as usize && met.insert(period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Backups = BTreeMap<u64, Offered>;

    /// Backups every twelve hours: slots 1 … 20; slot 20 at noon of the 20th.
    fn history(suspect: &[u64]) -> Backups {
        let hour = |slot: u64| if slot.is_multiple_of(2) { 12 } else { 0 };
        (1..=20)
            .map(|slot: u64| {
                let at = format!("2026-11-{:02}T{:02}:00:00Z", slot.div_ceil(2) + 10, hour(slot));
                (slot, Offered { at: at.parse().unwrap(), suspect: suspect.contains(&slot) })
            })
            .collect()
    }

    fn kept(name: &str, backups: &Backups, rules: &Retention, protected: &[u64], expected: &[u64]) {
        let now = "2026-11-20T13:00:00Z".parse().unwrap();
        let verdicts = plan(backups, protected, rules, &TimeZone::UTC, now);
        assert_eq!(verdicts.len(), backups.len(), "{name}");
        assert!(verdicts.iter().all(|verdict| !verdict.why.is_empty()), "{name}");
        let kept: Vec<_> = verdicts.iter().filter(|v| v.keep).map(|v| v.slot).collect();
        assert_eq!(kept, expected, "{name}");
    }

    #[test]
    fn each_rule_keeps_what_it_says_and_the_last_three_always_stay() {
        let all = history(&[]);
        let rules = Retention::default();
        kept("no rule at all", &all, &rules, &[], &[20, 19, 18]);
        kept("keepLast", &all, &Retention { keep_last: 5, ..rules }, &[], &[20, 19, 18, 17, 16]);
        let days = Duration::from_hours(50);
        kept(
            "keepFor",
            &all,
            &Retention { keep_for: Some(days), ..rules },
            &[],
            &[20, 19, 18, 17, 16],
        );
        kept("keepDaily", &all, &Retention { keep_daily: 4, ..rules }, &[], &[20, 19, 18, 16, 14]);
        kept("keepWeekly", &all, &Retention { keep_weekly: 2, ..rules }, &[], &[20, 19, 18, 10]);
        kept("keepMonthly", &all, &Retention { keep_monthly: 9, ..rules }, &[], &[20, 19, 18]);
        kept("what the journal protects", &all, &rules, &[20, 20, 7], &[20, 19, 18, 7]);
    }

    #[test]
    fn the_newest_usable_one_stays_behind_any_number_of_suspect_ones() {
        let all = history(&[20, 19, 18, 17, 16, 15]);
        let day = [20, 19, 18, 14, 13, 12];
        kept("six suspect ones, and a day before", &all, &Retention::default(), &[], &day);
    }

    #[test]
    fn what_a_suspect_one_is_compared_with_stays_as_long_as_that_one() {
        let rules = Retention { keep_weekly: 2, ..Retention::default() };
        kept("it is kept by the week", &history(&[10, 9]), &rules, &[], &[20, 19, 18, 10, 8]);
        kept("it goes", &history(&[8, 7]), &rules, &[], &[20, 19, 18, 10]);
    }

    #[test]
    fn what_always_stays_is_refused_to_whoever_asks_and_says_why() {
        let named = [20, 18, 15, 14, 12, 7, 6].into();
        let verdicts = plan_deletion(&history(&[20, 19, 18, 17, 16, 8]), &[6], &named);
        let of = |slot| verdicts.iter().find(|verdict| verdict.slot == slot).unwrap();
        let last = "the last 3 always stay";
        for (slot, expected) in [
            (20, Some(last)),
            (18, Some(last)),
            (15, Some("the newest that a standby may use")),
            (14, Some("the newest is suspect, and the day before that stays")),
            (12, None),
            (7, Some("the suspect backup 20261114-120000-8 is compared with it")),
            (6, Some("the current term started from it")),
        ] {
            let why = of(slot).keep.then_some(&*of(slot).why);
            assert_eq!(why, expected, "slot {slot}");
        }
        assert!(verdicts.iter().filter(|v| !named.contains(&v.slot)).all(|v| v.keep));
    }
}
