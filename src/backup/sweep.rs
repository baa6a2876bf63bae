//! Pure: what one sweep does: which backups are retired, which packs are condemned with them, and
//! which condemned packs are old enough to be deleted.
//!
//! Two phases. A `Retire` record ends the offer of backups and condemns packs: those that nothing needs
//! any more, and *orphans*, which runs left behind: those that did not come to their commit, and those
//! that merged what they had just uploaded. A condemned pack
//! is deleted in a sweep that finds the record to be old enough, by the storage's clock alone. So
//! nothing is ever deleted that the journal has not named first, and a delete that comes late, twice or
//! from a hub that was superseded meanwhile does no harm: no valid commit names that pack again.
//!
//! Only what the listing shows is deleted, so a pack is deleted about once. A later `Retire` says how
//! far all of it is gone (`swept`), which lets readers forget the names; none is written for that
//! alone. Until then a sweep looks at the `Retire` records of no more than the last delay again.
//! What a stale listing hid was forgotten too early: it is an orphan once its incarnation is closed.

use crate::repository::chain::View;
use crate::repository::layout::PackName;
use crate::repository::record::Retire;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Backups, and packs, that one record names. With the longest names it has 47 KiB of 64.
const NAMED_IN_RECORD: usize = 500;

/// A pack as the storage lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPack {
    pub name: PackName,
    /// In bytes.
    pub size: u64,
    pub modified: Timestamp,
}

/// What the storage shows, by its own clock.
#[derive(Clone, Debug)]
pub struct Seen {
    pub packs: Vec<StoredPack>,
    pub now: Timestamp,
    /// When the newest backup was committed.
    pub committed: Timestamp,
    /// When the `Retire` in each of these slots was written.
    pub condemned_at: BTreeMap<u64, Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Slots of backups that are no longer offered.
    pub retire: BTreeSet<u64>,
    /// Packs that nothing needs then.
    pub superfluous: Vec<PackName>,
    /// Packs that no commit names, and none will.
    pub orphans: Vec<PackName>,
    /// Condemned long enough, each with the slot of its `Retire`.
    pub delete: Vec<(StoredPack, u64)>,
    /// Nothing is left of what was condemned up to this slot.
    pub swept: u64,
    /// Bytes of `superfluous` and `orphans`.
    pub frees_later: u64,
}

/// `after` is how long a pack stays condemned, and how old an orphan must be.
pub fn plan(view: &View, retire: BTreeSet<u64>, seen: &Seen, after: Duration) -> Plan {
    let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
    let is_old = |at: Timestamp| seen.now.duration_since(at) >= after;
    let (ledger, current) = (&view.ledger, (view.epoch, view.incarnation));
    // Runs of one incarnation follow each other: what was uploaded before its newest commit and is not
    // named there is never named. The incarnations before it commit nothing any more.
    let committed = view.newest.as_ref().is_some_and(|newest| newest.mark.slot > view.incarnation);
    let is_left = |name: &PackName, modified: Timestamp| {
        let writer = name.writer();
        writer < current || (writer == current && committed && modified < seen.committed)
    };
    let is_due = |slot: &u64| seen.condemned_at.get(slot).is_some_and(|at| is_old(*at));

    let superfluous: Vec<_> = ledger.superfluous(&retire).cloned().collect();
    let mut plan = Plan { retire, superfluous, ..Plan::default() };
    let goes: BTreeSet<PackName> = plan.superfluous.iter().cloned().collect();
    // Slots of which a condemned pack is still stored.
    let mut unswept = BTreeSet::new();
    for pack in &seen.packs {
        let StoredPack { name, size, modified } = pack;
        match ledger.condemned.get(name) {
            Some(since) => {
                unswept.insert(*since);
                if is_due(since) {
                    plan.delete.push((pack.clone(), *since));
                }
            }
            None if goes.contains(name) => plan.frees_later += size,
            None if !ledger.knows(name) && is_left(name, *modified) && is_old(*modified) => {
                plan.orphans.push(name.clone());
                plan.frees_later += size;
            }
            None => {}
        }
    }
    let condemned: BTreeSet<u64> = ledger.condemned.values().copied().collect();
    let gone = |slot: &&u64| !unswept.contains(*slot) && is_due(slot);
    plan.swept = condemned.iter().take_while(gone).last().copied().unwrap_or_default();
    plan
}

impl Plan {
    /// The records that say so, each of which is valid once those before it stand: packs go with the
    /// last backups that need them. None where nothing is retired or condemned.
    pub fn records(&self) -> Vec<Retire> {
        let backups: Vec<u64> = self.retire.iter().copied().collect();
        let packs: Vec<_> = self.superfluous.iter().chain(&self.orphans).cloned().collect();
        let record = |backups: &[u64], packs: &[PackName]| Retire {
            backups: backups.to_vec(),
            packs: packs.to_vec(),
            swept: self.swept,
        };
        let mut records: Vec<_> =
            backups.chunks(NAMED_IN_RECORD).map(|backups| record(backups, &[])).collect();
        let mut packs = packs.chunks(NAMED_IN_RECORD);
        if let Some(last) = records.last_mut()
            && let Some(first) = packs.next()
        {
            last.packs = first.to_vec();
        }
        records.extend(packs.map(|packs| record(&[], packs)));
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::layout::RECORD_LIMIT;
    use crate::repository::record::tests::commit_of;

    const HOUR: Duration = Duration::from_hours(1);
    const CURRENT: (u64, u64) = (2, 30);

    fn pack(number: u128) -> PackName {
        named(CURRENT, number)
    }

    fn named((epoch, incarnation): (u64, u64), number: u128) -> PackName {
        PackName::new(epoch, incarnation, ulid::Ulid(number))
    }

    fn ago(minutes: i64) -> Timestamp {
        let now: Timestamp = "2026-11-20T17:30:00Z".parse().unwrap();
        now - SignedDuration::from_mins(minutes)
    }

    fn view(commits: &[(u64, &[u128])]) -> View {
        let (epoch, incarnation) = CURRENT;
        let mut view = View { epoch, incarnation, ..View::default() };
        for (slot, packs) in commits {
            let packs: Vec<_> = packs.iter().map(|number| pack(*number)).collect();
            view.ledger.commit(*slot, Timestamp::UNIX_EPOCH, &commit_of(&packs));
        }
        view
    }

    /// Packs with the minutes since they were written, and `Retire` slots with theirs.
    fn seen(packs: &[(PackName, i64)], condemned_at: &[(u64, i64)]) -> Seen {
        let stored = |(name, age): &(PackName, i64)| StoredPack {
            name: name.clone(),
            size: 10,
            modified: ago(*age),
        };
        Seen {
            packs: packs.iter().map(stored).collect(),
            now: ago(0),
            committed: ago(100),
            condemned_at: condemned_at.iter().map(|(slot, age)| (*slot, ago(*age))).collect(),
        }
    }

    #[test]
    fn packs_go_with_the_last_backup_that_needs_them() {
        let view = view(&[(40, &[1]), (41, &[1, 2]), (42, &[1, 3])]);
        let seen = seen(&[(pack(1), 900), (pack(2), 900), (pack(3), 900)], &[]);
        let plan = plan(&view, [40, 41].into(), &seen, HOUR);
        assert_eq!((&plan.superfluous, &plan.orphans), (&vec![pack(2)], &vec![]));
        assert_eq!((&plan.delete, plan.frees_later), (&vec![], 10));
        let expected = Retire { backups: vec![40, 41], packs: vec![pack(2)], swept: 0 };
        assert_eq!(plan.records(), [expected]);
    }

    #[test]
    fn an_orphan_is_old_and_unknown_and_no_commit_can_name_it_any_more() {
        let mut view = view(&[(40, &[1])]);
        let newest = |slot, view: &View| {
            let keys = crate::repository::keys::tests::new_keys();
            let (epoch, incarnation) = (view.epoch, view.incarnation);
            let commit = commit_of(&[]);
            let body = crate::repository::record::Body::Commit(commit.clone());
            let record = crate::repository::record::tests::record(
                &keys,
                slot,
                epoch,
                incarnation,
                "a",
                body,
            );
            let mark = crate::repository::layout::Mark { slot, sha256: commit.rules };
            Some(std::sync::Arc::new(crate::repository::chain::Backup::of(&record, &commit, mark)))
        };
        view.newest = newest(29, &view);
        let own = seen(&[(named(CURRENT, 7), 900)], &[]);
        assert_eq!(plan(&view, [].into(), &own, HOUR).orphans, [], "before its first commit");
        view.newest = newest(40, &view);
        view.ledger.retire(41, &Retire { packs: vec![named((1, 3), 9)], ..Retire::default() });
        for (name, age, expected, case) in [
            (named((2, 29), 7), 60, true, "of an earlier incarnation"),
            (named((1, 99), 7), 60, true, "of an earlier term"),
            (named((2, 29), 7), 59, false, "too young"),
            (named((2, 30), 7), 101, true, "from before the newest commit of the current one"),
            (named((2, 30), 7), 100, false, "of the current one, perhaps of a run that goes on"),
            (named((2, 31), 7), 900, false, "of an incarnation that is not known yet"),
            (named((3, 4), 7), 900, false, "of a term that is not known yet"),
            (pack(1), 900, false, "named by a backup"),
            (named((1, 3), 9), 900, false, "condemned already"),
        ] {
            let plan = plan(&view, [].into(), &seen(&[(name.clone(), age)], &[]), HOUR);
            assert_eq!(plan.orphans.contains(&name), expected, "{case}");
            assert_eq!(plan.records().len(), usize::from(expected), "{case}");
            assert_eq!(plan.delete, [], "{case}");
        }
    }

    #[test]
    fn a_condemned_pack_is_deleted_once_its_record_is_old_enough() {
        let mut view = view(&[(40, &[1]), (41, &[2]), (42, &[3]), (43, &[4])]);
        for slot in [44, 45, 46] {
            let retire = Retire {
                backups: vec![slot - 4],
                packs: vec![pack(u128::from(slot) - 43)],
                swept: 0,
            };
            view.ledger.retire(slot, &retire);
        }
        let (a, b, c) = (pack(1), pack(2), pack(3));
        let check = |stored: &[&PackName], condemned_at, delete: &[(&PackName, u64)], swept| {
            // However old a pack is, the age of the record counts.
            let stored: Vec<_> = stored.iter().map(|name| ((*name).clone(), 9000)).collect();
            let plan = plan(&view, [].into(), &seen(&stored, condemned_at), HOUR);
            let deleted: Vec<_> =
                plan.delete.iter().map(|(pack, slot)| (&pack.name, *slot)).collect();
            assert_eq!((&*deleted, plan.swept), (delete, swept), "{stored:?}");
            plan
        };
        let ages: &[_] = &[(44, 90), (45, 60), (46, 59)];
        check(&[&a, &b, &c], ages, &[(&a, 44), (&b, 45)], 0);
        check(&[&b, &c], ages, &[(&b, 45)], 44);
        check(&[&a, &c], ages, &[(&a, 44)], 0);
        check(&[&c], ages, &[], 45);
        check(&[], ages, &[], 45);
        check(&[&a], &[], &[], 0);
        check(&[&a], &[(45, 90)], &[], 0);
        let all = check(&[], &[(44, 90), (45, 90), (46, 90)], &[], 46);
        assert_eq!(all.records().len(), 0, "there is nothing to say but that");
    }

    #[test]
    fn every_record_fits_into_a_slot_and_counts_where_those_before_it_stand() {
        let numbers: Vec<Vec<u128>> = (0..1_700).map(|n| vec![n]).collect();
        let commits: Vec<_> = (100..).zip(&numbers).map(|(s, packs)| (s, &packs[..])).collect();
        let mut view = view(&commits);
        let orphans: Vec<_> = (0..10).map(|n| (named((1, 3), n), 900)).collect();
        let retire: BTreeSet<u64> = (100..1_300).collect();
        let records = plan(&view, retire, &seen(&orphans, &[]), HOUR).records();
        for (slot, record) in (5_000..).zip(&records) {
            assert_eq!(view.ledger.refuses(record, &[1_799]), None, "record {slot}");
            view.ledger.retire(slot, record);
        }
        assert_eq!(view.ledger.offered.len(), 500);
        assert_eq!(view.ledger.condemned.len(), 1_210);

        let longest = named((u64::MAX, u64::MAX), u128::MAX);
        let backups = vec![u64::MAX; NAMED_IN_RECORD];
        let full = Retire { backups, packs: vec![longest; NAMED_IN_RECORD], swept: u64::MAX };
        let bytes = serde_json::to_vec(&full).unwrap().len() as u64;
        // What stands around it: two digests, names of up to 63 bytes, ids, the MAC.
        assert!(bytes + 4_096 < RECORD_LIMIT, "{bytes} bytes");
    }
}
