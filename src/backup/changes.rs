//! Pure: what changed on the hub against the backup before, told object by object.
//!
//! The [`Catalogue`] is what the last backup holds, in memory: identity, digest and the revision at
//! which it was seen. [`Changes`] takes observations (from a LIST today, it would not mind a watch)
//! and stages what the next backup must say. Only [`Changes::committed`] moves the catalogue, so a run
//! that fails leaves it as it was.

use crate::object::{Digest, GroupResource, ObjectKey, Set};
use crate::repository::contents::Contents;
use crate::repository::pack::Gone;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The objects of the last committed backup.
#[derive(Debug, Default)]
pub struct Catalogue {
    objects: HashMap<ObjectKey, Known>,
    /// What a line of a set tells to be deselected. A standby that was away must find it however long
    /// it was away, or it would take the object for deleted.
    deselected: HashMap<ObjectKey, Set>,
    /// Digest of the selection and cleaning rules that it was made under.
    rules: Option<Digest>,
    /// Number of the run that is under way.
    run: u32,
}

#[derive(Debug)]
struct Known {
    set: Set,
    content: Content,
    /// The last run that observed it.
    seen: u32,
}

/// What tells two states of one object apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub version: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub digest: Digest,
}

/// One run's observations.
#[derive(Debug)]
pub struct Changes {
    catalogue: Catalogue,
    rules: Digest,
    /// Sets that are written anew: there every object is a change.
    full: BTreeSet<Set>,
    staged: HashMap<ObjectKey, (Set, Content)>,
    gone: BTreeMap<ObjectKey, Gone>,
    /// Of what was deselected before, what still exists and is still not selected.
    standing: HashSet<ObjectKey>,
    /// What the next backup tells to be deselected, told before or now.
    deselected: HashMap<ObjectKey, Set>,
    tally: BTreeMap<Set, Tally>,
}

/// Kinds that a run did not list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// They could not be listed: their objects are carried over.
    pub failed: BTreeSet<GroupResource>,
    /// No rule selects any object of them.
    pub excluded: BTreeSet<GroupResource>,
}

/// What a commit says of a set beside its packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub objects: u64,
    pub changed: u64,
    pub kinds: BTreeMap<String, u64>,
}

/// A line that the backup must hold although its object was not written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tombstone {
    pub set: Set,
    pub key: ObjectKey,
    pub gone: Gone,
}

impl Catalogue {
    /// From an opened backup: after a restart, or when this hub became primary.
    pub fn of(contents: Contents, rules: Digest) -> Self {
        let deselected = deselected(&contents);
        let objects = contents
            .entries
            .into_iter()
            .map(|(key, entry)| {
                let content = Content {
                    version: entry.version,
                    uid: entry.uid,
                    resource_version: entry.resource_version,
                    digest: entry.digest,
                };
                (key, Known { set: entry.set, content, seen: 0 })
            })
            .collect();
        Self { objects, deselected, rules: Some(rules), run: 0 }
    }

    /// From the last backup of another term. Its objects were another hub's, or this hub's before
    /// others changed it, so nothing counts as unchanged; but its standbys are the same.
    pub fn of_another_term(contents: &Contents) -> Self {
        Self { deselected: deselected(contents), ..Self::default() }
    }

    /// Every kind of which it says something: of objects, or of what was deselected.
    pub fn kinds(&self) -> BTreeSet<GroupResource> {
        let keys = self.objects.keys().chain(self.deselected.keys());
        let kinds: HashSet<_> = keys.map(|key| (key.group(), key.resource())).collect();
        let named = |(group, resource): (&str, &str)| GroupResource {
            group: group.to_owned(),
            resource: resource.to_owned(),
        };
        kinds.into_iter().map(named).collect()
    }

    /// Begins a run. `rules` are the digest of the rules in force now.
    pub fn observe(mut self, rules: Digest, full: BTreeSet<Set>) -> Changes {
        self.run += 1;
        Changes {
            catalogue: self,
            rules,
            full,
            staged: HashMap::new(),
            gone: BTreeMap::new(),
            standing: HashSet::new(),
            deselected: HashMap::new(),
            tally: BTreeMap::new(),
        }
    }
}

/// What an opened backup tells to be deselected, and is not in it in another set.
fn deselected(contents: &Contents) -> HashMap<ObjectKey, Set> {
    let lines = contents.gone.iter().flat_map(|(set, gone)| gone.iter().map(move |g| (*set, g)));
    lines
        .filter(|(_, (key, gone))| {
            **gone == Gone::Deselected && !contents.entries.contains_key(*key)
        })
        .map(|(set, (key, _))| (key.clone(), set))
        .collect()
}

impl Changes {
    /// The object exists and belongs to `set`. `true`: it is as it was, nobody needs to look inside.
    /// `false`: [`Changes::content`] must follow.
    pub fn unchanged(
        &mut self,
        key: &ObjectKey,
        set: Set,
        version: &str,
        uid: &str,
        resource_version: &str,
    ) -> bool {
        let same_rules = self.catalogue.rules == Some(self.rules);
        let run = self.catalogue.run;
        let Some(known) = self.catalogue.objects.get_mut(key) else { return false };
        known.seen = run;
        let same = same_rules
            && known.set == set
            && !self.full.contains(&set)
            && !uid.is_empty()
            && *known.content.version == *version
            && *known.content.uid == *uid
            && *known.content.resource_version == *resource_version;
        if same {
            self.count(key, set, false);
        }
        same
    }

    /// The object's cleaned content. `true`: the backup must hold a line with it.
    pub fn content(&mut self, key: &ObjectKey, set: Set, content: Content) -> bool {
        let known = self.catalogue.objects.get(key);
        let same = known.is_some_and(|known| {
            known.set == set
                && known.content.digest == content.digest
                && known.content.version == content.version
        });
        if let Some(known) = known
            && known.set != set
        {
            self.gone.insert(key.clone(), Gone::Moved);
        }
        let changed = !same;
        self.count(key, set, changed);
        self.staged.insert(key.clone(), (set, content));
        changed || self.full.contains(&set)
    }

    /// The object exists, but no rule selects it.
    pub fn deselected(&mut self, key: &ObjectKey) {
        if let Some(known) = self.catalogue.objects.get_mut(key) {
            known.seen = self.catalogue.run;
            self.gone.insert(key.clone(), Gone::Deselected);
        } else if self.catalogue.deselected.contains_key(key) {
            self.standing.insert(key.clone());
        }
    }

    fn count(&mut self, key: &ObjectKey, set: Set, changed: bool) {
        let tally = self.tally.entry(set).or_default();
        tally.objects += 1;
        tally.changed += u64::from(changed);
        *tally.kinds.entry(key.group_resource().to_string()).or_default() += 1;
    }

    /// Everything was observed but the kinds in `unlisted`: what was not seen is gone, what belongs to
    /// a failed kind stays as the backup before had it. Returns the lines to add, in order.
    pub fn finish(&mut self, unlisted: &Unlisted) -> Vec<Tombstone> {
        let Unlisted { failed, excluded } = unlisted;
        let run = self.catalogue.run;
        let mut carried = vec![];
        for (key, known) in &self.catalogue.objects {
            if known.seen == run {
                continue;
            }
            if failed.iter().any(|kind| kind.covers(&key.group_resource())) {
                carried.push((key.clone(), known.set));
            } else if excluded.contains(&key.group_resource()) {
                self.gone.insert(key.clone(), Gone::Deselected);
            } else {
                self.gone.insert(key.clone(), Gone::Deleted);
            }
        }
        for (key, set) in carried {
            self.count(&key, set, false);
        }
        let mut tombstones = vec![];
        for (key, gone) in &self.gone {
            let Some(known) = self.catalogue.objects.get(key) else { continue };
            self.tally.entry(known.set).or_default().changed += 1;
            // A set that is written anew simply does not hold what was deleted. What was deselected
            // it must name, or a standby would take it for deleted.
            if !self.full.contains(&known.set) || *gone == Gone::Deselected {
                tombstones.push(Tombstone { set: known.set, key: key.clone(), gone: *gone });
            }
        }
        tombstones.extend(self.finish_deselected(unlisted));
        tombstones.sort();
        tombstones
    }

    /// What was deselected before: the lines that must be said again or taken back. Forgets what was
    /// deleted since: then it is right that a standby deletes it too.
    fn finish_deselected(&mut self, unlisted: &Unlisted) -> Vec<Tombstone> {
        let Unlisted { failed, excluded } = unlisted;
        let mut lines = vec![];
        for (key, set) in &self.catalogue.deselected {
            let kind = key.group_resource();
            let stands = self.standing.contains(key)
                || excluded.contains(&kind)
                || failed.iter().any(|failed| failed.covers(&kind));
            match self.staged.get(key) {
                // The line in the old set must not outlive what becomes of the object in the new one.
                Some((now, _)) if now != set && !self.full.contains(set) => {
                    lines.push(Tombstone { set: *set, key: key.clone(), gone: Gone::Moved });
                }
                None if stands && self.full.contains(set) => {
                    lines.push(Tombstone { set: *set, key: key.clone(), gone: Gone::Deselected });
                }
                Some(_) | None => {}
            }
            if stands && !self.staged.contains_key(key) {
                self.deselected.insert(key.clone(), *set);
            }
        }
        for (key, gone) in &self.gone {
            if let (Gone::Deselected, Some(known)) = (gone, self.catalogue.objects.get(key)) {
                self.deselected.insert(key.clone(), known.set);
            }
        }
        lines
    }

    /// After [`Changes::finish`]: what the backup must go on to tell to be deselected.
    pub fn deselected_keys(&self) -> HashSet<ObjectKey> {
        self.deselected.keys().cloned().collect()
    }

    pub fn tally(&self, set: Set) -> Tally {
        self.tally.get(&set).cloned().unwrap_or_default()
    }

    /// The run's backup is committed: the catalogue is what it holds.
    pub fn committed(self) -> Catalogue {
        let Self { mut catalogue, rules, staged, gone, deselected, full: _, standing: _, tally: _ } =
            self;
        catalogue.deselected = deselected;
        for key in gone.keys() {
            catalogue.objects.remove(key);
        }
        for (key, (set, content)) in staged {
            let seen = catalogue.run;
            catalogue.objects.insert(key, Known { set, content, seen });
        }
        catalogue.rules = Some(rules);
        catalogue
    }

    /// The run's backup was not committed: the catalogue is what it was.
    pub fn abandoned(self) -> Catalogue {
        self.catalogue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("", "configmaps", "ns", name).unwrap()
    }

    fn content(resource_version: &str, body: &str) -> Content {
        Content {
            version: "v1".into(),
            uid: "u".into(),
            resource_version: resource_version.into(),
            digest: Digest::of(body.as_bytes()),
        }
    }

    fn failed(kind: GroupResource) -> Unlisted {
        Unlisted { failed: [kind].into(), ..Unlisted::default() }
    }

    const RULES: Digest = Digest([1; 32]);

    /// A catalogue that holds `a` and `b` as resources at revision 1.
    fn before() -> Catalogue {
        let mut changes = Catalogue::default().observe(RULES, Set::ALL.into());
        for name in ["a", "b"] {
            assert!(!changes.unchanged(&key(name), Set::Resources, "v1", "u", "1"));
            assert!(changes.content(&key(name), Set::Resources, content("1", name)));
        }
        assert_eq!(changes.finish(&Unlisted::default()), []);
        changes.committed()
    }

    fn observe(changes: &mut Changes, name: &str, set: Set, content: Content) -> bool {
        !changes.unchanged(
            &key(name),
            set,
            &content.version,
            &content.uid,
            &content.resource_version,
        ) && changes.content(&key(name), set, content)
    }

    #[test]
    fn only_what_differs_is_written() {
        for (name, rules, revision, body, written) in [
            ("the same revision", RULES, "1", "other", false),
            ("another revision, the same content", RULES, "2", "a", false),
            ("another content", RULES, "2", "other", true),
            ("other rules, the same content", Digest([2; 32]), "1", "a", false),
            ("other rules, another content", Digest([2; 32]), "1", "other", true),
        ] {
            let mut changes = before().observe(rules, BTreeSet::new());
            assert_eq!(
                observe(&mut changes, "a", Set::Resources, content(revision, body)),
                written,
                "{name}"
            );
        }
    }

    #[test]
    fn a_full_run_writes_everything_and_needs_no_tombstones() {
        let mut changes = before().observe(RULES, Set::ALL.into());
        assert!(observe(&mut changes, "a", Set::Resources, content("1", "a")));
        assert_eq!(changes.finish(&Unlisted::default()), []);
        assert_eq!(
            changes.tally(Set::Resources),
            Tally { objects: 1, changed: 1, kinds: [("configmaps".to_owned(), 1)].into() }
        );
    }

    #[test]
    fn it_knows_the_kinds_of_objects_and_of_what_was_deselected() {
        let kinds = |changes: Changes| -> Vec<String> {
            changes.committed().kinds().iter().map(ToString::to_string).collect()
        };
        assert_eq!(kinds(before().observe(RULES, BTreeSet::new())), ["configmaps"]);
        let mut changes = before().observe(RULES, BTreeSet::new());
        for name in ["a", "b"] {
            changes.deselected(&key(name));
        }
        changes.finish(&Unlisted::default());
        assert_eq!(changes.tally(Set::Resources).objects, 0);
        assert_eq!(kinds(changes), ["configmaps"], "a standby holds them still");
        assert_eq!(Catalogue::default().kinds(), [].into());
    }

    #[test]
    fn a_full_run_names_what_was_deselected() {
        let mut changes = before().observe(RULES, Set::ALL.into());
        changes.deselected(&key("a"));
        let tombstone = Tombstone { set: Set::Resources, key: key("a"), gone: Gone::Deselected };
        assert_eq!(changes.finish(&Unlisted::default()), [tombstone], "and not b, which is gone");
    }

    #[test]
    fn each_way_to_leave_a_set_has_its_tombstone() {
        let tombstone = |gone| Tombstone { set: Set::Resources, key: key("a"), gone };
        let run = |observe_a: &dyn Fn(&mut Changes)| {
            let mut changes = before().observe(RULES, BTreeSet::new());
            observe(&mut changes, "b", Set::Resources, content("1", "b"));
            observe_a(&mut changes);
            changes.finish(&Unlisted::default())
        };
        assert_eq!(run(&|_| {}), [tombstone(Gone::Deleted)]);
        assert_eq!(run(&|changes| changes.deselected(&key("a"))), [tombstone(Gone::Deselected)]);
        let moved = |changes: &mut Changes| {
            assert!(observe(changes, "a", Set::Activation, content("1", "a")));
        };
        assert_eq!(run(&moved), [tombstone(Gone::Moved)]);
    }

    #[test]
    fn the_objects_of_a_failed_kind_stay() {
        let mut changes = before().observe(RULES, BTreeSet::new());
        assert_eq!(changes.finish(&failed(key("a").group_resource())), []);
        assert_eq!(changes.tally(Set::Resources).objects, 2);
        let mut next = changes.committed().observe(RULES, BTreeSet::new());
        assert!(next.unchanged(&key("a"), Set::Resources, "v1", "u", "1"));
    }

    #[test]
    fn the_objects_of_a_group_that_cannot_be_read_stay() {
        let mut changes = before().observe(RULES, BTreeSet::new());
        assert_eq!(changes.finish(&failed(GroupResource::whole_group(""))), []);
        let mut changes = before().observe(RULES, BTreeSet::new());
        assert_eq!(changes.finish(&failed(GroupResource::whole_group("other.io"))).len(), 2);
    }

    #[test]
    fn a_run_that_was_not_committed_changes_nothing() {
        let mut changes = before().observe(RULES, BTreeSet::new());
        observe(&mut changes, "a", Set::Resources, content("2", "other"));
        changes.finish(&Unlisted::default());
        let mut next = changes.abandoned().observe(RULES, BTreeSet::new());
        assert!(next.unchanged(&key("a"), Set::Resources, "v1", "u", "1"));
        assert!(next.unchanged(&key("b"), Set::Resources, "v1", "u", "1"));
    }

    #[test]
    fn what_moved_is_in_its_new_set_afterwards() {
        let mut changes = before().observe(RULES, BTreeSet::new());
        observe(&mut changes, "a", Set::Activation, content("1", "a"));
        observe(&mut changes, "b", Set::Resources, content("1", "b"));
        changes.finish(&Unlisted::default());
        let mut next = changes.committed().observe(RULES, BTreeSet::new());
        assert!(next.unchanged(&key("a"), Set::Activation, "v1", "u", "1"));
    }

    #[test]
    fn the_objects_of_a_kind_that_no_rule_selects_any_more_are_deselected_not_deleted() {
        let mut changes = before().observe(Digest([2; 32]), BTreeSet::new());
        let excluded = [key("a").group_resource()].into();
        let tombstones = changes.finish(&Unlisted { excluded, ..Unlisted::default() });
        let gone: Vec<_> = tombstones.into_iter().map(|tombstone| tombstone.gone).collect();
        assert_eq!(gone, [Gone::Deselected; 2]);
    }

    /// `a` was deselected in one backup; the lines that the next one has for it.
    fn after_deselection(
        full: BTreeSet<Set>,
        restarted: bool,
        unlisted: &Unlisted,
        observe_a: &dyn Fn(&mut Changes),
    ) -> (Vec<Tombstone>, bool) {
        let mut changes = before().observe(RULES, BTreeSet::new());
        observe(&mut changes, "b", Set::Resources, content("1", "b"));
        changes.deselected(&key("a"));
        changes.finish(&Unlisted::default());
        let mut catalogue = changes.committed();
        if restarted {
            let mut contents = Contents::default();
            let lines = contents.gone.entry(Set::Resources).or_default();
            lines.insert(key("a"), Gone::Deselected);
            catalogue = Catalogue::of_another_term(&contents);
        }
        let mut changes = catalogue.observe(RULES, full);
        observe(&mut changes, "b", Set::Resources, content("1", "b"));
        observe_a(&mut changes);
        let tombstones = changes.finish(unlisted);
        (tombstones, changes.deselected_keys().contains(&key("a")))
    }

    #[test]
    fn what_was_deselected_is_told_until_it_is_selected_again_or_deleted() {
        let line = |gone| Tombstone { set: Set::Resources, key: key("a"), gone };
        let stays: &dyn Fn(&mut Changes) = &|changes| changes.deselected(&key("a"));
        let none: &dyn Fn(&mut Changes) = &|_| {};
        let back: &dyn Fn(&mut Changes) = &|changes| {
            assert!(observe(changes, "a", Set::Resources, content("1", "a")));
        };
        let elsewhere: &dyn Fn(&mut Changes) = &|changes| {
            assert!(observe(changes, "a", Set::Activation, content("1", "a")));
        };
        let (listed, kind) = (Unlisted::default(), key("a").group_resource());
        let excluded = Unlisted { excluded: [kind.clone()].into(), ..Unlisted::default() };
        let full = || BTreeSet::from(Set::ALL);
        for restarted in [false, true] {
            for (name, full, unlisted, observe_a, lines, told) in [
                ("it stands", BTreeSet::new(), &listed, stays, &[][..], true),
                ("and is written anew", full(), &listed, stays, &[line(Gone::Deselected)], true),
                ("it is deleted", BTreeSet::new(), &listed, none, &[], false),
                ("and is written anew", full(), &listed, none, &[], false),
                ("its kind failed", BTreeSet::new(), &failed(kind.clone()), none, &[], true),
                (
                    "its kind is not listed",
                    full(),
                    &excluded,
                    none,
                    &[line(Gone::Deselected)],
                    true,
                ),
                ("it is selected again", BTreeSet::new(), &listed, back, &[], false),
                ("and is written anew", full(), &listed, back, &[], false),
                (
                    "it is selected into another set",
                    BTreeSet::new(),
                    &listed,
                    elsewhere,
                    &[line(Gone::Moved)],
                    false,
                ),
                ("and is written anew", full(), &listed, elsewhere, &[], false),
            ] {
                let found = after_deselection(full, restarted, unlisted, observe_a);
                assert_eq!(found, (lines.to_vec(), told), "{name}, restarted: {restarted}");
            }
        }
    }
}
