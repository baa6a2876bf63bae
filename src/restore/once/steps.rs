//! Pure: a one-off restore, object by object: what the plan of `plan.rs` comes to when the hub holds
//! things that are nobody's business but its own.
//!
//! An object that exists is nobody's of ours. So it is shown to the planner as foreign, which it never
//! writes, or, when the person asked for that, as taken over, which it replaces where the content
//! differs.

use super::pick::Picked;
use crate::differ::Paths;
use crate::object::{Digest, GroupResource, ObjectKey, Set};
use crate::restore::known::{Known, Mark, Restored, Standing};
use crate::restore::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What is done about objects that exist and differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// They stay as they are
    #[default]
    Keep,
    /// They become what the backup holds
    Update,
}

/// What stands where the backup has an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Same,
    Differs { digest: Digest, paths: Paths },
    Deleting,
}

pub type Present = HashMap<ObjectKey, Found>;

/// The hub as the planner sees it.
pub fn restored(picked: &Picked, present: &Present, existing: Existing) -> Restored {
    let objects = present.iter().filter_map(|(key, found)| {
        let Found { uid, resource_version, state } = found;
        let entry = picked.contents.entries.get(key)?;
        let digest = match state {
            State::Same => Some(&entry.digest),
            State::Differs { digest, paths: _ } => Some(digest),
            State::Deleting => None,
        };
        let digest = digest.filter(|_| existing == Existing::Update);
        let standing = if digest.is_some() { Standing::Adopted } else { Standing::Foreign };
        let mark = digest.map(|digest| Mark::new(digest, entry.set, 0));
        let (uid, resource_version) = (uid.clone(), resource_version.clone());
        Some((key.clone(), Known { standing, mark, uid, resource_version }))
    });
    Restored { objects: objects.collect() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    Create,
    Update,
    /// Exists, and stays.
    Keep,
    Refuse,
    Skip,
    /// Exists and is the same.
    Unchanged,
}

impl Act {
    pub fn name(self) -> &'static str {
        match self {
            Act::Create => "create",
            Act::Update => "update",
            Act::Keep => "keep",
            Act::Refuse => "refuse",
            Act::Skip => "skip",
            Act::Unchanged => "unchanged",
        }
    }

    pub fn writes(self) -> bool {
        matches!(self, Act::Create | Act::Update)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub act: Act,
    /// On this hub.
    pub key: ObjectKey,
    /// In the backup.
    pub from: ObjectKey,
    pub set: Set,
    /// Of the content in the backup.
    pub digest: Digest,
    /// What stands on the hub; None: nothing.
    pub live: Option<(Box<str>, Box<str>)>,
    pub why: String,
}

/// In the order of the writes, then what is not written. `refused`: what was ruled out before the plan
/// was made, by key on this hub.
pub fn steps(
    picked: &Picked,
    present: &Present,
    plan: &Plan,
    refused: &BTreeMap<ObjectKey, &'static str>,
) -> Vec<Step> {
    let order: HashMap<&ObjectKey, usize> =
        plan.writes.iter().map(|write| &write.key).zip(0..).collect();
    let ruled_out: HashMap<&ObjectKey, &'static str> = plan
        .refused
        .iter()
        .map(|(key, why)| (key, *why))
        .chain(refused.iter().map(|(key, why)| (key, *why)))
        .collect();
    let mut steps: Vec<Step> = picked
        .targets
        .iter()
        .filter_map(|(from, key)| {
            let entry = picked.contents.entries.get(key)?;
            let found = present.get(key);
            let write = order.get(key).map(|index| &plan.writes[*index]);
            let (act, why) = match (write, ruled_out.get(key), found.map(|found| &found.state)) {
                (Some(write), _, Some(State::Differs { paths, .. })) if !paths.is_empty() => {
                    (Act::Update, format!("{}: {paths}", write.why))
                }
                (Some(write), _, _) => {
                    (if write.update { Act::Update } else { Act::Create }, write.why.to_owned())
                }
                (None, Some(why), _) => (Act::Refuse, (*why).to_owned()),
                (None, None, Some(State::Same)) => (Act::Unchanged, "as in the backup".to_owned()),
                (None, None, Some(State::Differs { paths, .. })) => {
                    (Act::Keep, format!("exists and differs: {paths}"))
                }
                (None, None, Some(State::Deleting)) => {
                    (Act::Keep, "it is being deleted; plan again when it is gone".to_owned())
                }
                (None, None, None) => (Act::Skip, "this hub does not serve the kind".to_owned()),
            };
            Some(Step {
                act,
                key: key.clone(),
                from: from.clone(),
                set: entry.set,
                digest: entry.digest,
                live: found.map(|found| (found.uid.clone(), found.resource_version.clone())),
                why,
            })
        })
        .collect();
    steps.sort_unstable_by(|a, b| {
        let place = |step: &Step| order.get(&step.key).copied().unwrap_or(usize::MAX);
        (place(a), a.act, &a.key).cmp(&(place(b), b.act, &b.key))
    });
    steps
}

/// What a rehearsal cannot ask the API server: it stands in a namespace, or is of a kind, that only
/// the restore itself makes.
pub fn only_after_others(plan: &Plan) -> HashSet<ObjectKey> {
    let created = |group: &str, resource: &str| -> HashSet<&str> {
        let is = |key: &ObjectKey| key.group() == group && key.resource() == resource;
        let writes = plan.writes.iter().filter(|write| !write.update && is(&write.key));
        writes.map(|write| write.key.name()).collect()
    };
    let namespaces = created("", "namespaces");
    let kinds = created("apiextensions.k8s.io", "customresourcedefinitions");
    let defined = |kind: &GroupResource| kinds.contains(&*kind.to_string());
    let needs =
        |key: &&ObjectKey| namespaces.contains(key.namespace()) || defined(&key.group_resource());
    plan.writes.iter().map(|write| &write.key).filter(needs).cloned().collect()
}

/// What of a plan is not so any more: each write must be the one that the plan would hold now.
pub fn drift(then: &[Step], now: &[Step]) -> Vec<String> {
    let now: HashMap<&ObjectKey, &Step> = now.iter().map(|step| (&step.key, step)).collect();
    let moved = |then: &Step| {
        let key = &then.key;
        let Some(now) = now.get(key) else { return Some(format!("{key}: not in the backup")) };
        let why = match (&then.live, &now.live) {
            _ if then.digest != now.digest => "the backup holds another content",
            (None, Some(_)) => "exists by now",
            (Some(_), None) => "is gone",
            (Some((then, _)), Some((now, _))) if then != now => "is another object by now",
            (Some((_, then)), Some((_, now))) if then != now => "was changed since",
            _ if then.act != now.act => &now.why,
            _ => return None,
        };
        Some(format!("{key}: {why}"))
    };
    then.iter().filter(|step| step.act.writes()).filter_map(moved).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pick::pick;
    use super::super::rehome::Namespaces;
    use super::*;
    use crate::restore::policy::Scope;
    use crate::restore::prune::Pruning;
    use crate::restore::testing::{Case, contents, key};
    use crate::restore::{check, plan};

    const OBJECTS: &[(&str, &[&str])] = &[
        ("/configmaps/ns/missing", &["x.io/things//same"]),
        ("/configmaps/ns/differs", &[]),
        ("/configmaps/ns/deleting", &[]),
        ("x.io/things//same", &[]),
        ("x.io/parts/ns/owned", &["x.io/things//missing"]),
        ("x.io/things//missing", &[]),
        ("/nodes//n", &[]),
        ("unknown.io/things//u", &[]),
    ];

    fn present() -> Present {
        let found = |name: &str, state| {
            let uid = format!("live:{name}").into();
            (key(name), Found { uid, resource_version: "5".into(), state })
        };
        let paths = Paths { named: vec!["data.k".to_owned()], more: 0 };
        let digest = Digest::of(b"other");
        Present::from([
            found("/configmaps/ns/differs", State::Differs { digest, paths }),
            found("/configmaps/ns/deleting", State::Deleting),
            found("x.io/things//same", State::Same),
            found("x.io/parts/ns/owned", State::Same),
        ])
    }

    fn of(existing: Existing) -> (Vec<Step>, Plan) {
        let contents = contents(OBJECTS);
        let picked = pick(&contents, contents.entries.keys(), &Namespaces::default()).unwrap();
        let present = present();
        let case = Case {
            restored: restored(&picked, &present, existing),
            contents: picked.contents.clone(),
            ..Case::default()
        };
        let mut desired = case.desired(Scope::Passive);
        desired.pruning = Pruning { enabled: false, ..desired.pruning };
        let plan = check(plan(&desired), &desired).unwrap();
        let steps = steps(&picked, &present, plan.plan(), &BTreeMap::new());
        (steps, plan.plan().clone())
    }

    fn text(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|s| format!("{} {}: {}", s.act.name(), s.key, s.why)).collect()
    }

    #[test]
    fn what_exists_is_kept_unless_asked_for() {
        assert_eq!(
            text(&of(Existing::Keep).0),
            [
                "create things.x.io missing: not on this hub yet",
                "create configmaps ns/missing: not on this hub yet",
                "keep configmaps ns/deleting: it is being deleted; plan again when it is gone",
                "keep configmaps ns/differs: exists and differs: data.k",
                "refuse nodes n: objects of this kind belong to the hub that made them",
                "skip things.unknown.io u: this hub does not serve the kind",
                "unchanged parts.x.io ns/owned: as in the backup",
                "unchanged things.x.io same: as in the backup",
            ]
        );
        let updating = text(&of(Existing::Update).0);
        assert_eq!(
            updating[..4],
            [
                "update configmaps ns/differs: its content is another in the backup: data.k",
                "create things.x.io missing: not on this hub yet",
                "create configmaps ns/missing: not on this hub yet",
                "update parts.x.io ns/owned: its owner is created anew",
            ],
            "{updating:#?}"
        );
    }

    #[test]
    fn a_hub_that_moved_is_found_out_object_by_object() {
        let (then, _) = of(Existing::Update);
        assert_eq!(drift(&then, &then), [""; 0]);
        let check = |change: &dyn Fn(&mut Step), expected: &str| {
            let mut now = then.clone();
            now.iter_mut().filter(|step| step.key.name() == "differs").for_each(change);
            assert_eq!(drift(&then, &now), [format!("configmaps ns/differs: {expected}")]);
        };
        let live = |uid: &str, version: &str| Some((uid.into(), version.into()));
        check(&|step| step.live = live("live:/configmaps/ns/differs", "6"), "was changed since");
        check(&|step| step.live = live("new", "5"), "is another object by now");
        check(&|step| step.live = None, "is gone");
        check(&|step| step.digest = Digest([0; 32]), "the backup holds another content");
        check(&|step| step.key = key("x.io/things//y"), "not in the backup");
        let refuse = |step: &mut Step| (step.act, step.why) = (Act::Refuse, "no".to_owned());
        check(&refuse, "no");
        let mut now = then.clone();
        let missing = now.iter_mut().find(|step| step.key == key("/configmaps/ns/missing"));
        missing.unwrap().live = live("u", "1");
        assert_eq!(drift(&then, &now), ["configmaps ns/missing: exists by now"]);
        // What is not written may move.
        let mut now = then.clone();
        now.retain(|step| step.act.writes());
        assert_eq!(drift(&then, &now), [""; 0]);
    }

    #[test]
    fn a_rehearsal_leaves_out_what_needs_what_is_not_there() {
        let objects: &[(&str, &[&str])] = &[
            ("/namespaces//ns", &[]),
            ("/configmaps/ns/c", &[]),
            ("/configmaps/other/c", &[]),
            ("apiextensions.k8s.io/customresourcedefinitions//news.new.io", &[]),
            ("new.io/news//n", &[]),
        ];
        let case = Case { contents: contents(objects), ..Case::default() };
        let plan = plan(&case.desired(Scope::Passive));
        let expected = ["/configmaps/ns/c", "new.io/news//n"].map(key);
        assert_eq!(only_after_others(&plan), HashSet::from(expected));
    }
}
