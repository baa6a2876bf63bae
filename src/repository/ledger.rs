//! Pure: which backups the journal offers, which packs they need, and which packs are condemned.
//!
//! A backup is offered until a `Retire` names it. A pack is needed while a backup is offered between
//! the first and the last commit that name it: a run builds upon the run before it, so that is
//! exact in nearly all cases, and in the others it keeps a pack that could go, never the reverse.
//!
//! A condemned pack is deleted later, and no valid commit names it again; so whoever deletes it, how
//! late ever, does no harm. It is remembered until a `Retire` says that it is swept.

use super::layout::PackName;
use super::record::{Commit, Retire};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// By the slot of their commit.
    pub offered: BTreeMap<u64, Offered>,
    /// What may be needed, by the slots of the first and the last commit that name it.
    packs: BTreeMap<PackName, (u64, u64)>,
    /// With the slot of the `Retire` that condemned it.
    pub condemned: BTreeMap<PackName, u64>,
}

/// What retention looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    pub at: Timestamp,
    /// And not acknowledged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
}

impl Ledger {
    pub fn commit(&mut self, slot: u64, at: Timestamp, commit: &Commit) {
        self.offered.insert(slot, Offered { at, suspect: commit.suspect.is_some() });
        for pack in commit.packs() {
            self.packs.entry(pack.name.clone()).or_insert((slot, slot)).1 = slot;
        }
    }

    pub fn names_condemned(&self, commit: &Commit) -> bool {
        commit.packs().any(|pack| self.condemned.contains_key(&pack.name))
    }

    /// Whether a commit has named it and no `Retire` has condemned it.
    pub fn knows(&self, pack: &PackName) -> bool {
        self.packs.contains_key(pack)
    }

    /// Slot of the commit that named it first.
    pub fn first_commit(&self, pack: &PackName) -> Option<u64> {
        self.packs.get(pack).map(|(first, _)| *first)
    }

    /// Of every pack that may be needed: the slots of the first and the last commit that name it.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64)> {
        self.packs.values().copied()
    }

    /// Packs that nothing needs once these backups are retired.
    pub fn superfluous(&self, retired: &BTreeSet<u64>) -> impl Iterator<Item = &PackName> {
        let goes = |(_, span): &(&PackName, &(u64, u64))| !self.needed(**span, retired);
        self.packs.iter().filter(goes).map(|(name, _)| name)
    }

    fn needed(&self, (first, last): (u64, u64), retired: &BTreeSet<u64>) -> bool {
        self.offered.range(first..=last).any(|(slot, _)| !retired.contains(slot))
    }

    /// Why the record must not count; `protected` are the backups that always stay.
    pub fn refuses(&self, retire: &Retire, protected: &[u64]) -> Option<&'static str> {
        let retired: BTreeSet<_> = retire.backups.iter().copied().collect();
        let needed =
            |pack: &PackName| self.packs.get(pack).is_some_and(|span| self.needed(*span, &retired));
        if !retired.iter().all(|slot| self.offered.contains_key(slot)) {
            Some("it retires what is no backup")
        } else if protected.iter().any(|slot| retired.contains(slot)) {
            Some("it retires a backup that must stay")
        } else if retire.packs.iter().any(needed) {
            Some("it condemns a pack that a backup needs")
        } else {
            None
        }
    }

    pub fn retire(&mut self, slot: u64, retire: &Retire) {
        for backup in &retire.backups {
            self.offered.remove(backup);
        }
        self.condemned.retain(|_, since| *since > retire.swept);
        for pack in &retire.packs {
            self.packs.remove(pack);
            self.condemned.insert(pack.clone(), slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::PackName;
    use super::super::record::tests::commit_of;
    use super::*;

    fn pack(number: u128) -> PackName {
        PackName::new(1, 3, ulid::Ulid(number))
    }

    fn ledger(commits: &[(u64, &[u128])]) -> Ledger {
        let mut ledger = Ledger::default();
        for (slot, packs) in commits {
            let packs: Vec<_> = packs.iter().map(|number| pack(*number)).collect();
            ledger.commit(*slot, Timestamp::UNIX_EPOCH, &commit_of(&packs));
        }
        ledger
    }

    fn retire(backups: &[u64], packs: &[u128], swept: u64) -> Retire {
        let packs = packs.iter().map(|number| pack(*number)).collect();
        Retire { backups: backups.to_vec(), packs, swept }
    }

    #[test]
    fn a_pack_goes_with_the_last_backup_that_needs_it() {
        let ledger = ledger(&[(4, &[1]), (5, &[1, 2]), (6, &[1, 2, 3]), (7, &[4])]);
        let superfluous = |retired: &[u64]| -> Vec<_> {
            let retired = retired.iter().copied().collect();
            ledger.superfluous(&retired).cloned().collect()
        };
        assert_eq!(superfluous(&[]), []);
        assert_eq!(superfluous(&[4]), []);
        assert_eq!(superfluous(&[6]), [pack(3)]);
        assert_eq!(superfluous(&[5, 6]), [pack(2), pack(3)]);
        assert_eq!(superfluous(&[4, 5, 6]), [pack(1), pack(2), pack(3)]);
    }

    #[test]
    fn a_pack_that_comes_back_is_kept_for_what_lies_between() {
        // A promotion builds upon an older backup than the newest.
        let ledger = ledger(&[(4, &[1]), (5, &[2]), (9, &[1])]);
        assert_eq!(ledger.superfluous(&[4, 9].into()).count(), 0);
        assert_eq!(
            ledger.refuses(&retire(&[4], &[1], 0), &[]),
            Some("it condemns a pack that a backup needs")
        );
    }

    #[test]
    fn a_retirement_that_would_lose_something_does_not_count() {
        let ledger = ledger(&[(4, &[1]), (5, &[1, 2]), (6, &[3])]);
        for (record, expected) in [
            (retire(&[4, 5], &[1, 2], 0), None),
            (retire(&[], &[77], 0), None),
            (retire(&[4], &[1], 0), Some("it condemns a pack that a backup needs")),
            (retire(&[], &[3], 0), Some("it condemns a pack that a backup needs")),
            (retire(&[6], &[], 0), Some("it retires a backup that must stay")),
            (retire(&[7], &[], 0), Some("it retires what is no backup")),
        ] {
            assert_eq!(ledger.refuses(&record, &[6]), expected, "{record:?}");
        }
    }

    #[test]
    fn a_condemned_pack_is_remembered_until_it_is_swept() {
        let mut ledger = ledger(&[(4, &[1]), (5, &[2]), (6, &[3])]);
        ledger.retire(7, &retire(&[4], &[1], 0));
        ledger.retire(8, &retire(&[5], &[2], 0));
        assert!(ledger.names_condemned(&commit_of(&[pack(1)])));
        assert_eq!(ledger.offered.keys().copied().collect::<Vec<_>>(), [6]);
        ledger.retire(9, &retire(&[], &[], 7));
        assert_eq!(ledger.condemned, [(pack(2), 8)].into());
    }
}
