//! Pure: when a set is written anew, and when a delta on top of its levels will do.

use crate::object::{GroupResource, Set};
use crate::repository::chain::Backup;
use crate::repository::record::{Level, SetContents};
use std::collections::BTreeSet;

/// A set of so many levels is written anew, so that opening a backup stays cheap.
const MAX_LEVELS: usize = 16;

/// Which sets need a new base. Not one of which objects are carried over: their lines stand in the
/// old levels.
pub(super) fn sets_to_write_anew(
    before: Option<&Backup>,
    carried: &BTreeSet<GroupResource>,
) -> BTreeSet<Set> {
    let Some(before) = before else { return Set::ALL.into() };
    let bytes =
        |levels: &[Level]| levels.iter().flat_map(|l| &l.packs).map(|p| p.length).sum::<u64>();
    let is_due = |set: &Set| match before.commit.sets.get(set) {
        None => true,
        Some(contents) if carried.iter().any(|kind| holds(contents, kind)) => false,
        Some(contents) => match &contents.levels[..] {
            [] => true,
            [base, deltas @ ..] => {
                deltas.len() + 1 >= MAX_LEVELS || bytes(deltas) > bytes(std::slice::from_ref(base))
            }
        },
    };
    Set::ALL.into_iter().filter(is_due).collect()
}

/// Whether the set held objects of the kind, or of any kind of the group.
pub(super) fn holds(contents: &SetContents, kind: &GroupResource) -> bool {
    contents.kinds.keys().any(|name| {
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        kind.covers(&GroupResource { group: group.to_owned(), resource: resource.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Digest;
    use crate::repository::layout::Mark;
    use crate::repository::layout::PackName;
    use crate::repository::record::HubId;
    use crate::repository::record::{Commit, Cut, PackRef};

    /// Levels of a set by their bytes.
    fn check(name: &str, levels: Option<&[u64]>, carried: &str, expected: bool) {
        let pack = |length| PackRef {
            name: PackName::new(1, 1, ulid::Ulid::nil()),
            length,
            sha256: Digest([0; 32]),
            lines: 1,
        };
        let carried = (!carried.is_empty()).then(|| GroupResource::whole_group(carried));
        let carried: BTreeSet<_> = carried.into_iter().collect();
        let contents = |levels: &[u64]| SetContents {
            kinds: [("things.held.io".to_owned(), 1)].into(),
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
        assert_eq!(sets_to_write_anew(before.as_ref(), &carried), expected, "{name}");
    }

    #[test]
    fn a_set_is_written_anew_when_its_deltas_cost_more_than_they_save() {
        check("the first backup of a term", None, "", true);
        check("an empty set before", Some(&[]), "", true);
        check("a base alone", Some(&[100]), "", false);
        check("small deltas", Some(&[100, 10, 10]), "", false);
        check("deltas larger than the base", Some(&[100, 60, 60]), "", true);
        check("many levels", Some(&[100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), "", true);
        check(
            "deltas larger than the base, but a kind is carried over",
            Some(&[100, 60, 60]),
            "held.io",
            false,
        );
        check(
            "deltas larger than the base, another group is away",
            Some(&[100, 60, 60]),
            "other.io",
            true,
        );
    }
}
