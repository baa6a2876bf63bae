//! Pure: which backups stay and which may go, each with its reason.
//!
//! Rules only ever keep: a backup may go when no rule keeps it. Whatever the rules say, the newest,
//! the newest that a standby may use, the base of the current term and the last three stay.

use crate::config::settings::Retention;
use crate::status::BackupSummary;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// Kept whatever the configuration says: a mistyped rule must not cost the last good ones.
const ALWAYS: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub backup: BackupSummary,
    pub keep: bool,
    pub why: String,
}

/// One verdict a backup, newest first. `backups` are newest first; `base` is the slot of the backup
/// that the current term started from. Days and weeks are those of `zone`.
pub fn plan(
    backups: &[BackupSummary],
    rules: &Retention,
    base: Option<u64>,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Verdict> {
    let usable = backups.iter().position(|backup| backup.suspect.is_none());
    let mut calendar = Calendar::default();
    let verdict = |(index, backup): (usize, &BackupSummary)| {
        let why = if index < ALWAYS {
            Some(format!("the last {ALWAYS} always stay"))
        } else if Some(index) == usable {
            Some("the newest that a standby may use".to_owned())
        } else if Some(backup.slot) == base {
            Some("the current term started from it".to_owned())
        } else if index < rules.keep_last as usize {
            Some(format!("keepLast {}", rules.keep_last))
        } else if rules.keep_for.is_some_and(|keep| {
            now.duration_since(backup.at)
                < jiff::SignedDuration::try_from(keep).unwrap_or(jiff::SignedDuration::MAX)
        }) {
            Some("younger than keepFor".to_owned())
        } else {
            None
        };
        // The calendar counts every backup, also those that another rule keeps.
        let why = calendar.keeps(backup.at.to_zoned(zone.clone()).date(), rules).or(why);
        Verdict {
            backup: backup.clone(),
            keep: why.is_some(),
            why: why.unwrap_or_else(|| "no rule keeps it".to_owned()),
        }
    };
    backups.iter().enumerate().map(verdict).collect()
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
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn backup(slot: u64, at: &str, suspect: bool) -> BackupSummary {
        BackupSummary {
            id: slot.to_string(),
            slot,
            epoch: 1,
            hub: "eu-1".to_owned(),
            at: at.parse().unwrap(),
            sets: BTreeMap::new(),
            suspect: suspect.then(|| "it shrank".to_owned()),
            partial: vec![],
            packs_written: 0,
        }
    }

    /// Backups every twelve hours, newest first: slots 20 … 1; slot 20 at noon of the 20th.
    fn history() -> Vec<BackupSummary> {
        let hour = |slot: u64| if slot.is_multiple_of(2) { 12 } else { 0 };
        (1..=20)
            .rev()
            .map(|slot| {
                backup(
                    slot,
                    &format!("2026-11-{:02}T{:02}:00:00Z", slot.div_ceil(2) + 10, hour(slot)),
                    false,
                )
            })
            .collect()
    }

    fn kept(
        name: &str,
        backups: &[BackupSummary],
        rules: &Retention,
        base: Option<u64>,
        expected: &[u64],
    ) {
        let now = "2026-11-20T13:00:00Z".parse().unwrap();
        let verdicts = plan(backups, rules, base, &TimeZone::UTC, now);
        assert_eq!(verdicts.len(), backups.len(), "{name}");
        assert!(verdicts.iter().all(|verdict| !verdict.why.is_empty()), "{name}");
        let kept: Vec<_> = verdicts.iter().filter(|v| v.keep).map(|v| v.backup.slot).collect();
        assert_eq!(kept, expected, "{name}");
    }

    #[test]
    fn each_rule_keeps_what_it_says_and_the_last_three_always_stay() {
        let all = history();
        let rules = Retention::default();
        kept("no rule at all", &all, &rules, None, &[20, 19, 18]);
        kept("keepLast", &all, &Retention { keep_last: 5, ..rules }, None, &[20, 19, 18, 17, 16]);
        let day = Duration::from_hours(50);
        kept(
            "keepFor",
            &all,
            &Retention { keep_for: Some(day), ..rules },
            None,
            &[20, 19, 18, 17, 16],
        );
        kept("keepDaily", &all, &Retention { keep_daily: 4, ..rules }, None, &[20, 19, 18, 16, 14]);
        kept("keepWeekly", &all, &Retention { keep_weekly: 2, ..rules }, None, &[20, 19, 18, 10]);
        kept("keepMonthly", &all, &Retention { keep_monthly: 9, ..rules }, None, &[20, 19, 18]);
        kept("the base of the term", &all, &rules, Some(7), &[20, 19, 18, 7]);
    }

    #[test]
    fn the_newest_usable_one_stays_behind_any_number_of_suspect_ones() {
        let mut all = history();
        for suspect in &mut all[..6] {
            suspect.suspect = Some("it shrank".to_owned());
        }
        kept("six suspect ones", &all, &Retention::default(), None, &[20, 19, 18, 14]);
    }
}
