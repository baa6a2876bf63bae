//! Pure: whether a backup lost so much that no standby may follow it before somebody has looked.
//!
//! It is compared with the newest usable backup, kind by kind, and with the fullest ones of the day
//! before that, so that what leaks away slowly is noticed too. Both stay what they are while backups
//! are suspect: the next one is suspect as well, until what is missing is back or `backup ack`
//! says that it shall be. Times are those of the records, compared with each other.

use crate::object::Set;
use crate::repository::chain::{Backup, View};
use crate::repository::record::Commit;
use crate::status::BackupSummary;
use crate::status::words::{count, plural};
use jiff::SignedDuration;
use std::collections::BTreeMap;

/// What leaks away within it is noticed.
pub(super) const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Of fewer objects any loss is a large share, and somebody's everyday work.
const FEW: u64 = 10;

/// Kinds that a sentence names.
const NAMED: usize = 3;

/// Objects by kind, over all sets.
type Kinds<'a> = BTreeMap<&'a str, u64>;

/// What is too much.
struct Limits {
    /// A fraction, which a loss may not exceed.
    share: f64,
    /// Losses of fewer objects are none.
    few: u64,
    /// Kinds are judged by their share, too, and not only when nothing is left of them.
    kinds: bool,
}

/// Why standbys must not apply the backup without an acknowledgement. `view` is the journal before
/// it, `max_shrink` a fraction.
pub(super) fn suspect(commit: &Commit, view: &View, max_shrink: f64) -> Option<String> {
    let usable = view.usable.as_ref()?;
    // What fell must come back to within the share, however little that is: a handful of objects
    // that a reinstalled hub makes by itself are no recovery.
    let follows = view
        .newest
        .as_ref()
        .is_some_and(|newest| newest.commit.suspect.is_some() && newest.epoch == view.epoch);
    let limits = Limits { share: max_shrink, few: if follows { 1 } else { FEW }, kinds: follows };

    let mut told = vec![];
    let (clauses, judged) = against(commit, &usable.commit, &limits);
    if !clauses.is_empty() {
        told.push(format!("against backup {}: {}", usable.id(), clauses.join(", ")));
    }
    for set in Set::ALL.into_iter().filter(|set| !judged.contains(set)) {
        told.extend(against_fullest(commit, set, view, usable, &limits));
    }
    if told.is_empty() {
        return None;
    }
    if usable.epoch != view.epoch {
        let holder = view.holder.as_ref().map_or("this hub", |holder| &holder.name);
        told.push(format!("{holder} took over since: see what it could not restore"));
    } else if usable.commit.rules != commit.rules {
        told.push("the selection rules changed since: that may be why".to_owned());
    }
    Some(told.join("; "))
}

/// What fell too far, in words, and the sets among it.
fn against(now: &Commit, then: &Commit, limits: &Limits) -> (Vec<String>, Vec<Set>) {
    let (had, has) = (kinds(then), kinds(now));
    let left = |kind: &str| has.get(kind).copied().unwrap_or(0);
    let mut clauses = vec![];
    let mut sets = vec![];
    let mut named: Vec<&str> = vec![];
    for (set, before) in &then.sets {
        let here = now.sets.get(set);
        let objects = here.map_or(0, |set| set.objects);
        // An object that is in another set now is not lost.
        let lost = before.kinds.iter().map(|(kind, before)| {
            let here = here.and_then(|set| set.kinds.get(kind)).copied().unwrap_or(0);
            let everywhere = had[&**kind].saturating_sub(left(kind));
            (&**kind, before.saturating_sub(here).min(everywhere))
        });
        let mut lost: Vec<(&str, u64)> = lost.filter(|(_, lost)| *lost > 0).collect();
        let sum = lost.iter().map(|(_, lost)| lost).sum();
        let empty = objects == 0 && sum > 0;
        if !empty && !limits.exceeded(sum, before.objects) {
            continue;
        }
        lost.sort_by_key(|(_, lost)| std::cmp::Reverse(*lost));
        let most: Vec<_> = lost
            .iter()
            .take(NAMED)
            .map(|(kind, lost)| format!("{} {kind}", count(*lost)))
            .collect();
        named.extend(lost.iter().take(NAMED).map(|(kind, _)| kind));
        clauses.push(format!(
            "{} (most: {})",
            fell(*set, before.objects, objects),
            most.join(", ")
        ));
        sets.push(*set);
    }
    let gone: Vec<_> = had
        .iter()
        .filter(|(kind, had)| {
            let left = left(kind);
            let short = limits.kinds && limits.exceeded(had.saturating_sub(left), **had);
            **had >= FEW && (left == 0 || short)
        })
        .collect();
    let unnamed: Vec<_> = gone.into_iter().filter(|(kind, _)| !named.contains(kind)).collect();
    for (kind, had) in unnamed.iter().take(NAMED) {
        clauses.push(format!("{} of {} {kind} left", count(left(kind)), count(**had)));
    }
    if let more @ 1.. = unnamed.len().saturating_sub(NAMED) {
        clauses.push(format!("and {} like that", plural(more, "kind", "kinds")));
    }
    (clauses, sets)
}

/// The same for one set against the fullest of the last day. Of that backup the view knows no kinds:
/// what other sets have gained is taken for what this one has lost.
fn against_fullest(
    now: &Commit,
    set: Set,
    view: &View,
    usable: &Backup,
    limits: &Limits,
) -> Option<String> {
    // What was acknowledged is in order, and a promoted hub began with its base.
    let since = view.acknowledged.max(view.base.as_ref().map_or(0, |base| base.mark.slot));
    let objects = |backup: &BackupSummary| backup.sets.get(&set).map_or(0, |set| set.objects);
    let fullest = view
        .backups
        .iter()
        .filter(|backup| backup.suspect.is_none() && backup.slot >= since)
        .filter(|backup| usable.at.duration_since(backup.at) <= WINDOW)
        .max_by_key(|backup| objects(backup))
        .filter(|fullest| fullest.slot != usable.mark.slot)?;
    let here = now.sets.get(&set).map_or(0, |set| set.objects);
    let all: u64 = now.sets.values().map(|set| set.objects).sum();
    let all_then: u64 = fullest.sets.values().map(|set| set.objects).sum();
    let lost = objects(fullest).saturating_sub(here).min(all_then.saturating_sub(all));
    limits
        .exceeded(lost, objects(fullest))
        .then(|| format!("against backup {}: {}", fullest.id, fell(set, objects(fullest), here)))
}

impl Limits {
    fn exceeded(&self, lost: u64, had: u64) -> bool {
        // Both are far below 2^52, where a float is exact.
        #[allow(clippy::cast_precision_loss)]
        let share = lost as f64 > self.share * had as f64;
        lost >= self.few && share
    }
}

fn fell(set: Set, from: u64, to: u64) -> String {
    format!("{set} fell from {} to {} objects", count(from), count(to))
}

fn kinds(commit: &Commit) -> Kinds<'_> {
    let mut kinds = Kinds::new();
    for (kind, objects) in commit.sets.values().flat_map(|set| &set.kinds) {
        *kinds.entry(kind).or_default() += objects;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Digest;
    use crate::repository::layout::Mark;
    use crate::repository::record::tests::commit_of;
    use crate::repository::record::{HubId, SetContents};
    use Set::{Activation, Credentials, Resources};
    use proptest::prelude::*;
    use std::sync::Arc;

    type Held = (Set, &'static str, u64);

    fn commit(held: &[Held]) -> Commit {
        let mut sets = BTreeMap::from(Set::ALL.map(|set| (set, SetContents::default())));
        for (set, kind, objects) in held.iter().filter(|(_, _, objects)| *objects > 0) {
            let contents = sets.get_mut(set).unwrap();
            contents.objects += objects;
            *contents.kinds.entry((*kind).to_owned()).or_default() += objects;
        }
        Commit { sets, ..commit_of(&[]) }
    }

    /// A journal whose backups follow each other by eight hours; each is judged as it is taken.
    #[derive(Default)]
    struct Story {
        view: View,
        share: Option<f64>,
    }

    impl Story {
        fn of(backups: &[&[Held]]) -> Self {
            let mut story = Self::default();
            for held in backups {
                story.take(held);
            }
            story
        }

        fn verdict(&self, held: &[Held]) -> Option<String> {
            suspect(&commit(held), &self.view, self.share.unwrap_or(0.3))
        }

        fn take(&mut self, held: &[Held]) -> bool {
            let suspect = self.verdict(held);
            let (is_suspect, slot) = (suspect.is_some(), self.view.head + 1);
            let hours = i64::try_from(slot).unwrap() * 8;
            let backup = Arc::new(Backup {
                mark: Mark { slot, sha256: Digest([0; 32]) },
                epoch: self.view.epoch,
                hub: HubId { name: "eu-1".to_owned(), uid: String::new() },
                at: jiff::Timestamp::from_second(hours * 3600).unwrap(),
                commit: Commit { suspect, ..commit(held) },
            });
            self.view.head = slot;
            self.view.backups.push(backup.summary(&[]));
            if !is_suspect {
                self.view.usable = Some(backup.clone());
            }
            self.view.newest = Some(backup);
            is_suspect
        }

        fn acknowledge(&mut self) {
            let mut newest = (**self.view.newest.as_ref().unwrap()).clone();
            newest.commit.suspect = None;
            self.view.backups.last_mut().unwrap().suspect = None;
            self.view.acknowledged = newest.mark.slot;
            self.view.newest = Some(Arc::new(newest));
            self.view.usable.clone_from(&self.view.newest);
        }

        /// Another hub takes over what a standby may use.
        fn promote(&mut self, hub: &str) {
            self.view.epoch += 1;
            self.view.holder = Some(HubId { name: hub.to_owned(), uid: String::new() });
            self.view.base.clone_from(&self.view.usable);
        }
    }

    #[track_caller]
    fn check(then: &[Held], now: &[Held], expected: Option<&str>) {
        let expected = expected.map(|told| format!("against backup 19700101-080000-1: {told}"));
        assert_eq!(Story::of(&[then]).verdict(now), expected, "{then:?} {now:?}");
    }

    #[test]
    fn a_set_may_lose_a_share_but_not_all() {
        let then = [(Resources, "a", 70), (Resources, "b", 30)];
        check(&then, &then, None);
        check(&then, &[(Resources, "a", 170)], Some("0 of 30 b left"));
        check(&then, &[(Resources, "a", 65), (Resources, "b", 5)], None);
        let most = "resources fell from 100 to 69 objects (most: 26 b, 5 a)";
        check(&then, &[(Resources, "a", 65), (Resources, "b", 4)], Some(most));
        let all = "resources fell from 100 to 0 objects (most: 70 a, 30 b)";
        check(&then, &[(Credentials, "c", 500)], Some(all));

        let handful = [(Activation, "a", 12), (Resources, "b", 3)];
        check(&handful, &[(Activation, "a", 3), (Resources, "b", 1)], None);
        let lost = "activation fell from 12 to 2 objects (most: 10 a)";
        check(&handful, &[(Activation, "a", 2), (Resources, "b", 3)], Some(lost));
        let none = "resources fell from 3 to 0 objects (most: 3 b)";
        check(&handful, &[(Activation, "a", 12)], Some(none));
        check(&[], &[], None);
        check(&[], &handful, None);
    }

    #[test]
    fn a_kind_of_which_nothing_is_left_is_told_however_large_its_set() {
        let then = [(Resources, "a", 9_000), (Resources, "b", 10), (Resources, "c", 9)];
        check(&then, &[(Resources, "a", 9_000)], Some("0 of 10 b left"));
        check(&then, &[(Resources, "a", 9_000), (Resources, "b", 1)], None);
        let many = ["b", "c", "d", "e", "f"].map(|kind| (Resources, kind, 10));
        let then = [&many[..], &[(Resources, "a", 1_000)]].concat();
        let told = "0 of 10 b left, 0 of 10 c left, 0 of 10 d left, and 2 kinds like that";
        check(&then, &[(Resources, "a", 1_000)], Some(told));
    }

    #[test]
    fn what_is_in_another_set_now_is_not_lost() {
        let then = [(Credentials, "a", 50), (Resources, "b", 100)];
        check(&then, &[(Resources, "a", 50), (Resources, "b", 100)], None);
        check(&then, &[(Resources, "a", 40), (Resources, "b", 100)].map(|held| held), {
            Some("credentials fell from 50 to 0 objects (most: 10 a)")
        });
        check(&then, &[(Credentials, "a", 5), (Resources, "a", 36), (Resources, "b", 100)], None);
    }

    #[test]
    fn nothing_is_the_share_of_a_hundred_percent_but_all() {
        let mut story = Story::of(&[&[(Resources, "a", 100)]]);
        story.share = Some(1.0);
        assert_eq!(story.verdict(&[(Resources, "a", 1)]), None);
        assert!(story.verdict(&[]).is_some());
        story.share = Some(0.0);
        assert_eq!(story.verdict(&[(Resources, "a", 91)]), None);
        assert!(story.verdict(&[(Resources, "a", 90)]).is_some());
    }

    #[test]
    fn the_first_backup_of_a_repository_is_in_order() {
        assert_eq!(Story::default().verdict(&[]), None);
    }

    #[test]
    fn backups_are_suspect_until_what_was_lost_is_back() {
        let mut story = Story::of(&[&[(Resources, "a", 20), (Activation, "b", 3)]]);
        assert!(story.take(&[]));
        // What a hub that was installed anew makes by itself.
        assert!(story.take(&[(Resources, "a", 1), (Activation, "b", 1)]));
        assert!(story.take(&[(Resources, "a", 12), (Activation, "b", 3)]));
        assert!(!story.take(&[(Resources, "a", 14), (Activation, "b", 3)]));
        assert!(!story.take(&[(Resources, "a", 10), (Activation, "b", 3)]), "as any other day");

        let mut story = Story::of(&[&[(Resources, "a", 20), (Resources, "b", 500)]]);
        assert!(story.take(&[(Resources, "b", 500)]));
        assert!(story.take(&[(Resources, "a", 3), (Resources, "b", 500)]));
        assert!(!story.take(&[(Resources, "a", 15), (Resources, "b", 500)]));
    }

    #[test]
    fn an_acknowledged_one_is_the_measure_from_then_on() {
        let mut story = Story::of(&[&[(Resources, "a", 100)], &[(Resources, "a", 50)]]);
        assert!(story.view.newest.as_ref().unwrap().commit.suspect.is_some());
        story.acknowledge();
        assert!(!story.take(&[(Resources, "a", 50)]), "nor are the fuller ones before it");
        assert!(!story.take(&[(Resources, "a", 41)]));
        assert!(story.take(&[(Resources, "a", 34)]), "but what leaks away since then");
    }

    #[test]
    fn what_leaks_away_slowly_is_noticed_within_a_day_and_stays_noticed() {
        let held = |objects| [(Resources, "a", objects), (Activation, "b", 10)];
        let mut story = Story::of(&[&held(100), &held(90), &held(80)]);
        let told = "against backup 19700101-080000-1: resources fell from 100 to 69 objects";
        assert_eq!(story.verdict(&held(69)).as_deref(), Some(told));
        for _ in 0..9 {
            assert!(story.take(&held(69)), "the days go by and nobody looks");
        }
        assert!(!story.take(&held(70)));
        // The first one is not of the last day any more.
        let mut story = Story::of(&[&held(100), &held(90), &held(90), &held(80), &held(80)]);
        assert!(!story.take(&held(69)));
        // What moved to another set is not lost.
        let moved = |a, b| [(Resources, "a", a), (Activation, "a", b)];
        let story = Story::of(&[&moved(100, 0), &moved(60, 40)]);
        assert_eq!(story.verdict(&moved(59, 40)), None);
    }

    #[test]
    fn a_promoted_hub_is_measured_by_what_it_began_with() {
        let held = |objects| [(Resources, "a", objects)];
        let mut story = Story::of(&[&held(100), &held(75)]);
        story.promote("eu-2");
        assert_eq!(story.verdict(&held(68)), None, "what its base had lost is not its loss");
        let told = "against backup 19700101-160000-2: resources fell from 75 to 40 objects (most: 35 \
                    a); eu-2 took over since: see what it could not restore";
        assert_eq!(story.verdict(&held(40)).as_deref(), Some(told));
        // That the old primary lost all is no reason to be strict with the new one.
        let mut story = Story::of(&[&held(20), &[]]);
        story.promote("eu-2");
        assert!(!story.take(&held(11)));
    }

    #[test]
    fn other_rules_are_named() {
        let story = Story::of(&[&[(Resources, "a", 20)]]);
        let now = Commit { rules: Digest([9; 32]), ..commit(&[]) };
        let told = suspect(&now, &story.view, 0.3).unwrap();
        assert!(told.ends_with("; the selection rules changed since: that may be why"), "{told}");
    }

    const KINDS: [&str; 4] = ["a", "b", "c", "d"];

    /// Objects of each kind in each set.
    fn hub() -> impl Strategy<Value = Vec<Held>> {
        let each = Set::ALL.iter().flat_map(|set| KINDS.map(|kind| (*set, kind)));
        each.map(|(set, kind)| (0_u64..40).prop_map(move |objects| (set, kind, objects)))
            .collect::<Vec<_>>()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_hub_that_lost_nothing_is_never_suspect(
            then in hub(), more in hub(), share in 0.0..=1.0, from in 0_usize..12, to in 0_usize..12,
        ) {
            let mut now: Vec<Held> =
                then.iter().zip(&more).map(|(then, more)| (then.0, then.1, then.2 + more.2)).collect();
            // Some of them moved.
            let (set, to) = (now[from].0, now[to].0);
            now[from].0 = to;
            let mut story = Story::of(&[&then]);
            story.share = Some(share);
            prop_assert_eq!(story.verdict(&now), None, "from {} to {}", set, to);
        }

        #[test]
        fn losing_more_never_makes_it_less_suspect(
            history in proptest::collection::vec(hub(), 1..5), now in hub(), less in hub(),
            share in 0.0..=1.0,
        ) {
            let mut story = Story { share: Some(share), ..Story::default() };
            for held in &history {
                story.take(held);
            }
            let fewer: Vec<Held> = now
                .iter()
                .zip(&less)
                .map(|(now, less)| (now.0, now.1, now.2.saturating_sub(less.2)))
                .collect();
            if story.verdict(&now).is_some() {
                prop_assert!(story.verdict(&fewer).is_some(), "{fewer:?}");
            }
        }

        #[test]
        fn a_hub_that_lost_all_is_suspect_whatever_the_share(then in hub(), share in 0.0..=1.0) {
            let mut story = Story::of(&[&then]);
            story.share = Some(share);
            let held = then.iter().any(|(_, _, objects)| *objects > 0);
            prop_assert_eq!(story.verdict(&[]).is_some(), held);
        }
    }
}
