//! Pure: which objects are tried on this hub with a dry run, what cannot be tried, and what became of
//! it.
//!
//! What a promotion would write is what the planner says under a term: the activation set, what was
//! inert and wakes, and whatever a last catch-up brings. A rehearsal leaves the catch-up to the syncs,
//! and tries only what was not tried before, by its content: on a standby that is nearly nothing. A
//! drill tries all of it.

use super::known::{Known, Mark, Restored, Standing};
use super::order::Class;
use super::plan::{Desired, Plan, Write, plan};
use super::policy::Scope;
use super::report::{ItemError, Report};
use crate::object::{GroupResource, ObjectKey, Set};
use crate::repository::contents::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Names kept of what failed; the counts are complete.
pub const MAX_NAMED: usize = 20;

/// Contents that this hub took in a dry run: of each the first 64 bits of its digest.
pub type Tried = HashSet<u64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The activation set and what wakes.
    WhatWaits,
    /// All that a promotion would write now.
    Everything,
}

#[derive(Debug, Default)]
pub struct Rehearsal {
    /// What is tried now.
    pub plan: Plan,
    /// What was tried before and is still so.
    pub tried: Tried,
    /// Its namespace or its kind comes with the promotion only.
    pub untried: u64,
    pub failed: BTreeMap<GroupResource, u64>,
    pub named: Vec<ItemError>,
}

/// `desired` has the scope of a promotion.
pub fn rehearsal(desired: &Desired<'_>, extent: Extent, before: &Tried) -> Rehearsal {
    debug_assert_ne!(desired.scope, Scope::Passive, "a passive run leaves the set out");
    let mut rehearsal = Rehearsal { plan: plan(desired), ..Rehearsal::default() };
    let plan = &mut rehearsal.plan;
    (plan.deletes, plan.unlabels) = (vec![], vec![]);
    (plan.held, plan.refused) = (None, vec![]);
    plan.summary.clear();
    let created = plan.writes.iter().filter(|write| {
        !write.update && write.key.resource() == "namespaces" && write.key.group().is_empty()
    });
    let namespaces: HashSet<_> = created.map(|write| write.key.name().to_owned()).collect();

    let mut written = HashSet::new();
    plan.writes.retain(|write| {
        let entry = &desired.contents.entries[&write.key];
        let waits = entry.set == Set::Activation || write.stage.class == Class::Wakes;
        if !waits && extent == Extent::WhatWaits {
            return false;
        }
        written.insert(write.key.clone());
        let place = write.key.namespace();
        if desired.kinds.of(&write.key).is_none() || namespaces.contains(place) {
            rehearsal.untried += 1;
            return false;
        }
        let content = content(entry);
        let known = before.contains(&content);
        if known {
            rehearsal.tried.insert(content);
        }
        !known
    });
    let entries = desired.contents.entries.iter();
    for (key, _) in entries.filter(|(key, entry)| {
        (entry.set == Set::Activation || extent == Extent::Everything)
            && !written.contains(*key)
            && desired.kinds.of(key).is_none()
            && desired.policy.refuses(key).is_none()
    }) {
        rehearsal.fail(key, "this hub does not serve the kind, and the backup does not define it");
    }
    rehearsal
}

impl Rehearsal {
    /// What the dry run told. `after` is what it believed to stand on the hub in the end.
    pub fn learn(&mut self, plan: &Plan, desired: &Desired<'_>, after: &Restored, report: &Report) {
        let (failed, refused) = (reasons(&report.failed), reasons(&report.refused));
        for Write { key, .. } in &plan.writes {
            let entry = &desired.contents.entries[key];
            if let Some(reason) = failed.get(key) {
                self.fail(key, reason);
            } else if after.get(key).is_some_and(|known| took(entry, known)) {
                self.tried.insert(content(entry));
            } else if let Some(reason) = refused.get(key) {
                self.fail(key, reason);
            } else if report.stopped.is_none() {
                self.fail(key, "the report has no room for the reason");
            }
        }
    }

    fn fail(&mut self, key: &ObjectKey, reason: &str) {
        *self.failed.entry(key.group_resource()).or_default() += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(ItemError { key: key.clone(), reason: reason.to_owned() });
        }
    }
}

fn reasons(items: &[ItemError]) -> HashMap<&ObjectKey, &str> {
    items.iter().map(|item| (&item.key, &*item.reason)).collect()
}

fn content(entry: &Entry) -> u64 {
    Mark::new(&entry.digest, entry.set, 0).short
}

/// What is somebody else's stays as it is, in a promotion too.
fn took(entry: &Entry, known: &Known) -> bool {
    known.standing == Standing::Foreign
        || known.mark.is_some_and(|mark| mark.same_content(&entry.digest) && mark.inert.is_none())
}

#[cfg(test)]
mod tests {
    use super::super::policy::Policy;
    use super::super::testing::{Case, contents, key, restored};
    use super::*;
    use crate::config::settings::RestorePolicy;

    const OBJECTS: &[(&str, &[&str])] = &[
        ("/namespaces//there", &[]),
        ("/secrets/there/s", &["act.io/clusters//a"]),
        ("act.io/clusters//a", &[]),
        ("act.io/clusters//b", &["act.io/clusters//a"]),
        ("act.io/clusters//foreign", &[]),
        ("act.io/orphans//o", &[]),
        ("act.io/coming//c", &[]),
        ("apiextensions.k8s.io/customresourcedefinitions//coming.act.io", &[]),
        ("act.io/clusters/kube-system/never", &[]),
    ];

    fn case() -> Case {
        let live = [
            ("/namespaces//there", Standing::Ours, "/namespaces//there", 0),
            ("/secrets/there/s", Standing::Ours, "/secrets/there/s", 1),
            ("act.io/clusters//foreign", Standing::Foreign, "", 0),
        ];
        Case { contents: contents(OBJECTS), restored: restored(&live), ..Case::default() }
    }

    const SCOPE: Scope = Scope::Activation { epoch: 2 };

    fn names(plan: &Plan) -> Vec<String> {
        plan.writes.iter().map(|write| write.key.to_string()).collect()
    }

    fn of(name: &str) -> u64 {
        content(&contents(&[(name, &[])]).entries[&key(name)])
    }

    #[test]
    fn what_a_promotion_would_write_of_the_activation_set_is_tried_once() {
        let case = case();
        let desired = case.desired(SCOPE);
        for (before, tried) in [
            (vec![], vec!["clusters.act.io a", "clusters.act.io b"]),
            (vec!["act.io/clusters//a"], vec!["clusters.act.io b"]),
            // What left the backup is forgotten.
            (vec!["act.io/clusters//a", "act.io/clusters//b", "act.io/clusters//gone"], vec![]),
        ] {
            let known: Tried = before.iter().map(|name| of(name)).collect();
            let found = rehearsal(&desired, Extent::WhatWaits, &known);
            assert_eq!(names(&found.plan), tried, "{before:?}");
            assert_eq!(found.tried.len(), 2 - tried.len());
            assert_eq!(found.untried, 1, "its kind comes along");
            assert_eq!(found.named.len(), 1);
            assert_eq!(found.named[0].key, key("act.io/orphans//o"), "nobody serves its kind");
            assert!(super::super::check(found.plan, &desired).is_ok());
        }
    }

    #[test]
    fn what_is_in_a_namespace_that_the_promotion_makes_cannot_be_tried() {
        let mut case = case();
        let objects: &[(&str, &[&str])] = &[("/namespaces//new", &[]), ("/secrets/new/s", &[])];
        case.contents = contents(objects);
        for entry in case.contents.entries.values_mut() {
            entry.set = Set::Activation;
        }
        let found = rehearsal(&case.desired(SCOPE), Extent::WhatWaits, &Tried::default());
        assert_eq!((names(&found.plan), found.untried), (vec!["namespaces new".to_owned()], 1));
    }

    /// A secret that changed, one that is new, and one that a rule makes inert.
    fn with_passive_data() -> Case {
        const RULES: &str = r#"[{"kind": "Secret", "name": "wakes", "patch": {"type": "asleep"}}]"#;
        let transforms = serde_json::from_str(RULES).unwrap();
        let settings = RestorePolicy { transforms, ..RestorePolicy::default() };
        let tag = settings.transforms[0].patch.tag();
        let objects: &[(&str, &[&str])] = &[
            ("/namespaces//there", &[]),
            ("/secrets/there/changed", &[]),
            ("/secrets/there/new", &[]),
            ("/secrets/there/same", &[]),
            ("/secrets/there/wakes", &[]),
            ("act.io/clusters//a", &[]),
            ("none.io/things//n", &[]),
        ];
        let ours = |name, content| (name, Standing::Ours, content, 0);
        let mut restored = restored(&[
            ours("/namespaces//there", "/namespaces//there"),
            ours("/secrets/there/changed", "other"),
            ours("/secrets/there/same", "/secrets/there/same"),
            ours("/secrets/there/wakes", "/secrets/there/wakes"),
        ]);
        let mark = &mut restored.objects.get_mut(&key("/secrets/there/wakes")).unwrap().mark;
        *mark = mark.map(|mark| mark.made_inert(Some(tag)));
        let policy = Policy::new("eu", "understudy-system", &settings);
        Case { contents: contents(objects), restored, policy, ..Case::default() }
    }

    #[test]
    fn what_wakes_is_tried_in_every_rehearsal_and_all_that_would_be_written_in_a_drill() {
        let case = with_passive_data();
        let desired = case.desired(SCOPE);
        for (extent, tried, failed) in [
            (Extent::WhatWaits, vec!["clusters.act.io a", "secrets there/wakes"], 0),
            (
                Extent::Everything,
                vec![
                    "secrets there/changed",
                    "secrets there/new",
                    "clusters.act.io a",
                    "secrets there/wakes",
                ],
                1,
            ),
        ] {
            let found = rehearsal(&desired, extent, &Tried::default());
            assert_eq!(names(&found.plan), tried, "{extent:?}");
            assert_eq!(found.untried, 0);
            assert_eq!(found.failed.values().sum::<u64>(), failed, "nobody serves things.none.io");
            assert!(super::super::check(found.plan, &desired).is_ok());
        }
    }

    #[test]
    fn what_did_not_wake_in_the_dry_run_was_not_taken() {
        let case = with_passive_data();
        let desired = case.desired(SCOPE);
        let stopped = Report { stopped: Some("late".to_owned()), ..Report::default() };
        let mut found = rehearsal(&desired, Extent::WhatWaits, &Tried::default());
        let plan = std::mem::take(&mut found.plan);
        found.learn(&plan, &desired, &case.restored, &stopped);
        assert_eq!(found.tried, Tried::default(), "it still stands there as it did");
    }

    #[test]
    fn only_what_the_hub_took_counts_as_tried() {
        let case = case();
        let desired = case.desired(SCOPE);
        let (a, b) = (key("act.io/clusters//a"), key("act.io/clusters//b"));
        let took = |key: &str| (key.to_owned(), Standing::Ours, key.to_owned());
        let error = |key: &ObjectKey| ItemError { key: key.clone(), reason: "denied".to_owned() };
        let failed = |key| Report { failed: vec![error(key)], ..Report::default() };
        let refused = |key| Report { refused: vec![error(key)], ..Report::default() };
        let stopped = Report { stopped: Some("late".to_owned()), ..Report::default() };
        let both = vec![took("act.io/clusters//a"), took("act.io/clusters//b")];
        let first = both[..1].to_vec();
        let foreign = ("act.io/clusters//b".to_owned(), Standing::Foreign, String::new());
        let kept = vec![both[0].clone(), foreign];
        for (after, report, tried, failures) in [
            (both.clone(), Report::default(), 2, 0),
            (first.clone(), failed(&b), 1, 1),
            (both, failed(&a), 1, 1),
            (first.clone(), refused(&b), 1, 1),
            (kept, refused(&b), 2, 0),
            (first.clone(), Report::default(), 1, 1),
            (first, stopped, 1, 0),
        ] {
            let after: Vec<_> = after
                .iter()
                .map(|(name, standing, content)| (&**name, *standing, &**content, 0))
                .collect();
            let mut found = rehearsal(&desired, Extent::WhatWaits, &Tried::default());
            let plan = std::mem::take(&mut found.plan);
            found.learn(&plan, &desired, &restored(&after), &report);
            // One of a kind that nobody serves fails without being sent.
            let counted: u64 = found.failed.values().sum();
            assert_eq!((found.tried.len(), counted), (tried, failures + 1), "{report:?}");
        }
    }
}
