//! Pure: when a delta goes on top of the levels of a set, when it becomes one with its neighbours, and
//! when a set is written anew.
//!
//! Each level costs every reader a request and every commit a few bytes, so there are at most
//! [`MAX_LEVELS`]. Levels are merged only when there are many, and then from the oldest one on that is
//! not larger than all that is newer. What is written again so stands in a level at least twice as
//! large afterwards, but for its first time: had an older level been outweighed before, it would have
//! been merged then. So each byte is written again a number of times that grows with the logarithm of
//! the set's size. All levels become a new base when the deltas outweigh the base.

use crate::object::{GroupResource, Set};
use crate::repository::chain::Backup;
use crate::repository::layout::pack_key;
use crate::repository::record::{Level, PackRef, SetContents};
use crate::repository::verify::packs_by_set;
use std::collections::BTreeSet;

/// A set never needs more. It has more only while it can neither be merged nor be written anew.
const MAX_LEVELS: usize = 32;

/// So many levels are merged. The distance to [`MAX_LEVELS`] is for runs in which merging failed.
const MERGE_ABOVE: usize = 16;

/// Packs of a set above which those of its deltas become part of a new base: three sets of so many
/// packs fit into a commit.
const MAX_PACKS: usize = 96;

/// Below this fraction of the base's packs a new base would not have fewer.
const WORTH_A_BASE: usize = 4;

/// What a level weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Sealed.
    pub(super) bytes: u64,
    pub(super) packs: usize,
}

impl Size {
    pub(super) fn of(packs: &[PackRef]) -> Self {
        Self { bytes: packs.iter().map(|pack| pack.length).sum(), packs: packs.len() }
    }
}

/// Which levels (oldest first) become one with the new delta: those from this index on, 0 being the
/// base. `None`: the delta goes on top.
pub(super) fn merge(levels: &[Size], delta: Size) -> Option<usize> {
    let [base, deltas @ ..] = levels else { return None };
    let above = |what: fn(&Size) -> u64| deltas.iter().chain([&delta]).map(what).sum::<u64>();
    if above(|size| size.bytes) > base.bytes {
        return Some(0);
    }
    let packs_above = deltas.iter().chain([&delta]).map(|size| size.packs).sum::<usize>();
    if base.packs + packs_above > MAX_PACKS && packs_above > base.packs / WORTH_A_BASE {
        return Some(0);
    }
    if levels.len() < MERGE_ABOVE {
        return None;
    }
    // Without a level that is small enough the newest one is taken: it is the smallest.
    let (mut newer, mut from) = (delta.bytes, levels.len() - 1);
    for (index, level) in levels.iter().enumerate().skip(1).rev() {
        if level.bytes <= newer {
            from = index;
        }
        newer += level.bytes;
    }
    Some(from)
}

/// Which sets need a new base from what the hub holds. `to_renew` are those whose levels must not be
/// built on: damaged, or sealed under an older key. Not a set of which objects are carried over: their lines stand
/// in the old levels.
pub(super) fn sets_to_write_anew(
    before: Option<&Backup>,
    to_renew: &BTreeSet<Set>,
    carried: &BTreeSet<GroupResource>,
) -> BTreeSet<Set> {
    let Some(before) = before else { return Set::ALL.into() };
    let must = |set: &Set| match before.commit.sets.get(set) {
        None => true,
        Some(contents) if carried.iter().any(|kind| holds(contents, kind)) => false,
        Some(SetContents { levels, .. }) => {
            levels.is_empty() || levels.len() >= MAX_LEVELS || to_renew.contains(set)
        }
    };
    Set::ALL.into_iter().filter(must).collect()
}

/// The sets of which a pack is one of these objects (`packs/…`).
pub(super) fn sets_that_need(objects: &BTreeSet<String>, before: Option<&Backup>) -> BTreeSet<Set> {
    let packs = before.into_iter().flat_map(|before| packs_by_set(&before.commit));
    packs.filter(|(_, pack)| objects.contains(&pack_key(&pack.name))).map(|(set, _)| set).collect()
}

/// Whether the set held objects of the kind, or of any kind of the group.
fn holds(contents: &SetContents, kind: &GroupResource) -> bool {
    contents.kinds.keys().any(|name| {
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        kind.covers(&GroupResource { group: group.to_owned(), resource: resource.to_owned() })
    })
}

/// The sizes of the levels of a set, as [`merge`] takes them.
pub(super) fn sizes(levels: &[Level]) -> Vec<Size> {
    levels.iter().map(|level| Size::of(&level.packs)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Digest;
    use crate::repository::keys::tests::new_keys;
    use crate::repository::layout::{Mark, PackName, RECORD_LIMIT};
    use crate::repository::pack::plain_target;
    use crate::repository::record::tests::record;
    use crate::repository::record::{Body, Commit, Cut, HubId, encode};
    use proptest::prelude::*;

    fn check(name: &str, levels: &[u64], delta: u64, expected: Option<usize>) {
        let size = |bytes: &u64| Size { bytes: *bytes, packs: 1 };
        let levels: Vec<Size> = levels.iter().map(size).collect();
        assert_eq!(merge(&levels, size(&delta)), expected, "{name}");
    }

    /// A base and so many levels of one byte.
    fn ones(count: usize) -> Vec<u64> {
        [1000].into_iter().chain([1; MERGE_ABOVE].into_iter().take(count)).collect()
    }

    #[test]
    fn neighbours_become_one_when_there_are_many() {
        check("nothing below", &[], 10, None);
        check("a base alone", &[1000], 1, None);
        check("few levels", &[1000, 1, 1, 1], 1, None);
        check("one level below the limit", &ones(MERGE_ABOVE - 2), 1, None);
        check("many of one size", &ones(MERGE_ABOVE - 1), 1, Some(1));
        let with_older = |older: &[u64]| {
            let newer = ones(MERGE_ABOVE - 1 - older.len());
            [&newer[..1], older, &newer[1..]].concat()
        };
        check("a larger one stays", &with_older(&[100]), 1, Some(2));
        check("one that is outweighed does not", &with_older(&[10]), 1, Some(1));
        check("a large delta takes all with it", &with_older(&[100, 50]), 120, Some(1));
        let falling: Vec<u64> = (1..=MERGE_ABOVE).rev().map(|power| 1 << power).collect();
        check("none is small enough, the smallest is taken", &falling, 1, Some(MERGE_ABOVE - 1));
        check("deltas as large as the base", &[100, 60], 40, None);
        check("deltas larger than the base", &[100, 60], 41, Some(0));
        check("a delta larger than the base", &[100], 101, Some(0));
    }

    #[test]
    fn many_packs_become_a_base_only_if_that_saves_some() {
        let size = |packs| Size { bytes: 1_000_000 / (101 - packs as u64), packs };
        assert_eq!(merge(&[size(70), size(20)], size(1)), None);
        assert_eq!(merge(&[size(70), size(20)], size(7)), Some(0));
        assert_eq!(merge(&[size(100), size(5)], size(1)), None);
    }

    fn pack(length: u64) -> PackRef {
        let name = PackName::new(1234, 123_456_789, ulid::Ulid::nil());
        PackRef { name, length, sha256: Digest([0; 32]), lines: length / 16 }
    }

    fn commit(levels: &[Size], kinds: usize) -> Commit {
        let level = |size: &Size| Level {
            packs: vec![pack(size.bytes / size.packs.max(1) as u64); size.packs],
        };
        let kinds =
            (0..kinds).map(|n| (format!("somewhatlongresources{n}.group.example.com"), 100_000));
        let contents = SetContents {
            levels: levels.iter().map(level).collect(),
            objects: 1_000_000,
            changed: 1_000_000,
            kinds: kinds.collect(),
        };
        Commit {
            sets: Set::ALL.into_iter().map(|set| (set, contents.clone())).collect(),
            cut: Cut { revision: "123456789012".to_owned(), apart: vec![] },
            rules: Digest([0; 32]),
            suspect: None,
            partial: vec![GroupResource::whole_group("group.example.com"); 8],
        }
    }

    fn record_bytes(levels: &[Size], kinds: usize) -> u64 {
        let keys = new_keys();
        let body = Body::Commit(commit(levels, kinds));
        encode(&record(&keys, 123_456_789, 1234, 123_456_789, "a-hub", body), &keys).len() as u64
    }

    fn check_anew(
        levels: Option<&[u64]>,
        unreadable: &[Set],
        carries_over: bool,
        expected: &[Set],
    ) {
        let sizes = |levels: &[u64]| -> Vec<Size> {
            levels.iter().map(|bytes| Size { bytes: *bytes, packs: 1 }).collect()
        };
        let before = levels.map(|levels| Backup {
            mark: Mark { slot: 4, sha256: Digest([0; 32]) },
            epoch: 1,
            hub: HubId { name: "a".to_owned(), uid: "u".to_owned() },
            at: jiff::Timestamp::UNIX_EPOCH,
            commit: commit(&sizes(levels), 1),
        });
        let unreadable = unreadable.iter().copied().collect();
        // The one kind of the sets, or of another group.
        let group = if carries_over { "group.example.com" } else { "other.example.com" };
        let carried = [GroupResource::whole_group(group)].into();
        let found = sets_to_write_anew(before.as_ref(), &unreadable, &carried);
        assert_eq!(found, expected.iter().copied().collect(), "{levels:?}");
    }

    #[test]
    fn a_set_is_written_anew_where_levels_cannot_be_built_on() {
        let all = Set::ALL;
        check_anew(None, &[], false, &all);
        check_anew(None, &[], true, &all);
        check_anew(Some(&[]), &[], false, &all);
        check_anew(Some(&[100]), &[], false, &[]);
        check_anew(Some(&[100, 60, 60]), &[], false, &[]);
        check_anew(Some(&[1; MAX_LEVELS - 1]), &[], false, &[]);
        check_anew(Some(&[1; MAX_LEVELS]), &[], false, &all);
        check_anew(Some(&[1; MAX_LEVELS]), &[], true, &[]);
        check_anew(Some(&[100, 1]), &[Set::Resources], false, &[Set::Resources]);
        check_anew(Some(&[100, 1]), &[Set::Resources], true, &[]);
    }

    /// Sealed bytes of a line, and of a pack without one.
    const LINE: u64 = 250;
    const EMPTY: u64 = 400;
    /// Plain bytes that make one sealed byte.
    const RATIO: u64 = 4;

    fn size_of(bytes: u64) -> Size {
        let (mut packs, mut left) = (0, bytes * RATIO);
        while left > 0 {
            left = left.saturating_sub(plain_target(packs) as u64);
            packs += 1;
        }
        Size { bytes, packs: packs as usize }
    }

    /// A set over many commits, each level with the keys that it holds.
    #[derive(Default)]
    struct Simulation {
        levels: Vec<BTreeSet<u32>>,
        sizes: Vec<Size>,
        /// Bytes of deltas, and of all packs.
        given: u64,
        written: u64,
        most_levels: usize,
        /// The levels when they had the most packs.
        fullest: Vec<Size>,
    }

    impl Simulation {
        fn commit(&mut self, delta: BTreeSet<u32>, merging_works: bool) {
            let size = |keys: &BTreeSet<u32>| size_of(EMPTY + LINE * keys.len() as u64);
            let delta_size = size(&delta);
            self.given += delta_size.bytes;
            self.written += delta_size.bytes;
            let from = merge(&self.sizes, delta_size).filter(|_| merging_works);
            let from = if self.levels.len() >= MAX_LEVELS { Some(0) } else { from };
            let mut top = delta;
            if let Some(from) = from {
                top.extend(self.levels.drain(from..).flatten());
                self.sizes.truncate(from);
                self.written += size(&top).bytes;
            }
            self.sizes.push(size(&top));
            self.levels.push(top);
            self.most_levels = self.most_levels.max(self.levels.len());
            let packs = |sizes: &[Size]| sizes.iter().map(|size| size.packs).sum::<usize>();
            if packs(&self.sizes) > packs(&self.fullest) {
                self.fullest = self.sizes.clone();
            }
        }

        fn amplification(&self) -> u64 {
            self.written.div_ceil(self.given)
        }
    }

    /// A number that looks random.
    fn noise(seed: u32) -> u32 {
        let digest = Digest::of(&seed.to_le_bytes());
        u32::from_le_bytes([digest.0[0], digest.0[1], digest.0[2], digest.0[3]])
    }

    #[test]
    fn ten_thousand_commits_write_each_line_a_handful_of_times() {
        const COMMITS: u32 = 10_000;
        type Delta = fn(u32) -> BTreeSet<u32>;
        // log2 of the commits is 13.
        for (name, base, delta, most) in [
            ("new objects", 100_000, (|n| [n + 100_000].into()) as Delta, 5),
            ("one hot object", 100_000, |_| [7].into(), 5),
            ("a hundred hot objects in turn", 100_000, |n| [n % 100].into(), 5),
            ("any object", 20_000, |n| [noise(n) % 20_000].into(), 5),
            (
                "a few or many",
                20_000,
                |n| {
                    let many = 1 << (noise(n) % 8);
                    (0..many).map(|i| noise(n ^ (i << 16)) % 20_000).collect()
                },
                7,
            ),
            ("from almost nothing", 1, |n| [n].into(), 10),
            ("always all", 50, |_| (0..50).collect(), 2),
        ] {
            let mut simulation = Simulation::default();
            simulation.commit((0..base).collect(), true);
            (simulation.given, simulation.written) = (0, 0);
            (0..COMMITS).for_each(|n| simulation.commit(delta(n), true));
            let found = simulation.amplification();
            assert!(found <= most, "{name}: each byte is written {found} times");
            assert!(simulation.most_levels <= MERGE_ABOVE, "{name}");
            assert!(record_bytes(&simulation.fullest, 60) <= RECORD_LIMIT, "{name}");
        }
    }

    #[test]
    fn a_commit_stays_within_its_limit_however_large_the_sets_are() {
        // Levels of halving sizes are the most packs that merging leaves.
        for mib in [1, 100, 1000, 5000] {
            let base = mib * 1024 * 1024 / RATIO;
            let mut levels = vec![size_of(base)];
            let deltas = |n: u32| size_of((base >> (n + 1)).max(EMPTY));
            for n in 0..1000 {
                let delta = deltas(n % 16);
                if let Some(from) = merge(&levels, delta) {
                    let bytes = levels.drain(from..).map(|size| size.bytes).sum::<u64>();
                    // What is written again replaces what was there.
                    let bytes = (bytes + delta.bytes).min(base);
                    levels.push(size_of(bytes));
                } else {
                    levels.push(delta);
                }
                let packs: usize = levels.iter().map(|size| size.packs).sum();
                assert!(packs <= MAX_PACKS, "{mib} MiB: {packs} packs");
            }
        }
        let most = [Size { bytes: 1 << 32, packs: MAX_PACKS - MERGE_ABOVE + 1 }];
        let most = [&most[..], &[Size { bytes: 1 << 30, packs: 1 }; MERGE_ABOVE - 1]].concat();
        let bytes = record_bytes(&most, 60);
        assert!(bytes <= RECORD_LIMIT, "{bytes} bytes");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn levels_stay_few_whatever_comes_and_even_if_merging_fails(
            deltas in prop::collection::vec((0_u32..16, 1_u32..200, prop::bool::weighted(0.7)), 1..300),
            base in 1_u32..2000,
        ) {
            let (mut works, mut fails) = (Simulation::default(), Simulation::default());
            for simulation in [&mut works, &mut fails] {
                simulation.commit((0..base).collect(), true);
                (simulation.given, simulation.written) = (0, 0);
            }
            for (start, lines, merging_works) in &deltas {
                let delta: BTreeSet<u32> = (0..*lines).map(|n| (start << 8) + n).collect();
                works.commit(delta.clone(), true);
                fails.commit(delta, *merging_works);
            }
            prop_assert!(works.most_levels <= MERGE_ABOVE);
            prop_assert!(fails.most_levels <= MAX_LEVELS);
            // A base may be rewritten once for little; else it takes its own size in deltas.
            let allowed = works.given * 8 + 2 * (EMPTY + LINE * u64::from(base));
            prop_assert!(works.written <= allowed, "{} of {}", works.written, works.given);
            // The newest line of every key is where it was.
            let keys: BTreeSet<u32> = works.levels.iter().flatten().copied().collect();
            let other: BTreeSet<u32> = fails.levels.iter().flatten().copied().collect();
            prop_assert_eq!(keys, other);
        }
    }
}
