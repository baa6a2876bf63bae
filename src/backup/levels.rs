//! Pure: when a set is written anew, and when a delta on top of its levels will do.

use crate::object::Set;
use crate::repository::chain::Backup;
use crate::repository::record::Level;
use std::collections::BTreeSet;

/// A set of so many levels is written anew, so that opening a backup stays cheap.
const MAX_LEVELS: usize = 16;

/// Which sets need a new base. None while a kind is carried over: its lines stand in the old levels.
pub(super) fn sets_to_write_anew(before: Option<&Backup>, carries_over: bool) -> BTreeSet<Set> {
    let Some(before) = before else { return Set::ALL.into() };
    if carries_over {
        return BTreeSet::new();
    }
    let bytes =
        |levels: &[Level]| levels.iter().flat_map(|l| &l.packs).map(|p| p.length).sum::<u64>();
    Set::ALL
        .into_iter()
        .filter(|set| match before.commit.sets.get(set).map(|contents| &contents.levels[..]) {
            None | Some([]) => true,
            Some([base, deltas @ ..]) => {
                deltas.len() + 1 >= MAX_LEVELS || bytes(deltas) > bytes(std::slice::from_ref(base))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Digest;
    use crate::repository::layout::Mark;
    use crate::repository::layout::PackName;
    use crate::repository::record::HubId;
    use crate::repository::record::{Commit, Cut, PackRef, SetContents};

    /// Levels of a set by their bytes.
    fn check(name: &str, levels: Option<&[u64]>, carries_over: bool, expected: bool) {
        let pack = |length| PackRef {
            name: PackName::new(1, 1, ulid::Ulid::nil()),
            length,
            sha256: Digest([0; 32]),
            lines: 1,
        };
        let contents = |levels: &[u64]| SetContents {
            levels: levels.iter().map(|bytes| Level { packs: vec![pack(*bytes)] }).collect(),
            ..SetContents::default()
        };
        let before = levels.map(|levels| Backup {
            mark: Mark { slot: 4, sha256: Digest([0; 32]) },
            epoch: 1,
            hub: HubId { name: "a".to_owned(), uid: "u".to_owned() },
            at: jiff::Timestamp::UNIX_EPOCH,
            commit: Commit {
                sets: Set::ALL.into_iter().map(|set| (set, contents(levels))).collect(),
                cut: Cut { revision: "1".to_owned(), apart: vec![] },
                rules: Digest([0; 32]),
                suspect: None,
                partial: vec![],
            },
        });
        let expected: BTreeSet<_> = if expected { Set::ALL.into() } else { BTreeSet::new() };
        assert_eq!(sets_to_write_anew(before.as_ref(), carries_over), expected, "{name}");
    }

    #[test]
    fn a_set_is_written_anew_when_its_deltas_cost_more_than_they_save() {
        check("the first backup of a term", None, false, true);
        check("an empty set before", Some(&[]), false, true);
        check("a base alone", Some(&[100]), false, false);
        check("small deltas", Some(&[100, 10, 10]), false, false);
        check("deltas larger than the base", Some(&[100, 60, 60]), false, true);
        check(
            "many levels",
            Some(&[100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            false,
            true,
        );
        check(
            "deltas larger than the base, but a kind is carried over",
            Some(&[100, 60, 60]),
            true,
            false,
        );
    }
}
