//! Pure: what a restore will do, object by object, each with its reason. Nothing is decided later
//! except what only the API server can tell (an object exists that is not ours, a namespace is not
//! empty).
//!
//! The plan lists what will be written, deleted, unlabelled or refused. What stays as it is or is
//! held back is counted only: on a standby that is nearly everything.

use super::kinds::Kinds;
use super::known::{Known, Restored, Standing};
use super::order::{self, Class, Stage};
use super::owners::{self, OwnerIndex};
use super::policy::{Form, Policy, Scope};
use super::prune::{self, Delete, Held, Pruning, Removals, Unlabel};
use crate::object::{GroupResource, ObjectKey, Set};
use crate::repository::contents::{Contents, Entry};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// Why an object is left out that is written as soon as its kind comes.
pub const NOT_SERVED: &str = "this hub does not serve the kind";
/// The same, where the kind decides in which form the object is written.
pub const NOT_SERVED_YET: &str = "it may have to be inert, which its kind tells when it is served";

/// All that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    pub contents: &'a Contents,
    pub restored: &'a Restored,
    pub policy: &'a Policy,
    /// What this hub serves.
    pub kinds: &'a Kinds,
    pub scope: Scope,
    pub pruning: Pruning<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Create,
    Update,
    Delete,
    Unlabel,
    Hold,
    Refuse,
    Skip,
    Leave,
    Unchanged,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::Unlabel => "unlabel",
            Verb::Hold => "hold",
            Verb::Refuse => "refuse",
            Verb::Skip => "skip",
            Verb::Leave => "leave",
            Verb::Unchanged => "unchanged",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: ObjectKey,
    pub stage: Stage,
    /// False: create.
    pub update: bool,
    /// The tag of the patch that makes it inert. None: it is written as in the backup.
    pub inert: Option<u32>,
    pub why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub verb: Verb,
    pub kind: GroupResource,
    /// None: the object is not in the backup.
    pub set: Option<Set>,
    pub why: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their stages.
    pub writes: Vec<Write>,
    /// What was owned before its owners, namespaces last.
    pub deletes: Vec<Delete>,
    pub unlabels: Vec<Unlabel>,
    pub refused: Vec<(ObjectKey, &'static str)>,
    /// More deletions than allowed: none of them is done.
    pub held: Option<Held>,
    /// The id of `deletes`, if an operator has released it.
    pub released: Option<String>,
    /// Every object of the backup and every object known on the hub, once.
    pub summary: BTreeMap<Line, usize>,
}

impl Plan {
    /// Nothing to send to the API server.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.deletes.is_empty() && self.unlabels.is_empty()
    }

    pub fn count(&self, verb: Verb) -> usize {
        self.summary.iter().filter(|(line, _)| line.verb == verb).map(|(_, count)| count).sum()
    }

    fn add(&mut self, verb: Verb, key: &ObjectKey, set: Option<Set>, why: &'static str) {
        let line = Line { verb, kind: key.group_resource(), set, why };
        *self.summary.entry(line).or_default() += 1;
    }
}

pub fn plan(desired: &Desired<'_>) -> Plan {
    let Desired { contents, restored, .. } = *desired;
    let index = OwnerIndex::new(contents);
    let stages = order::stages(contents, &index);
    let mut plan = Plan::default();

    let owners = owners_of_what_stays(desired, &index);
    let moved = moved_away(desired, &owners);
    for (key, entry) in &contents.entries {
        if moved.contains_key(key) {
            continue;
        }
        let (verb, why) = decide(desired, &index, key, entry);
        plan.add(verb, key, Some(entry.set), why);
        if matches!(verb, Verb::Create | Verb::Update) {
            let (inert, update) = (inert(desired, key), verb == Verb::Update);
            let stage = stages.of(key);
            let wakes = wakes(desired, key);
            let stage = if wakes { Stage { class: Class::Wakes, ..stage } } else { stage };
            plan.writes.push(Write { key: key.clone(), stage, update, inert, why });
        } else if verb == Verb::Refuse {
            plan.refused.push((key.clone(), why));
        }
    }
    plan.writes.sort_unstable_by(|a, b| (a.stage, &a.key).cmp(&(b.stage, &b.key)));
    plan.refused.sort_unstable();

    let absent = restored.objects.iter().filter(|(key, _)| !contents.entries.contains_key(key));
    let removals = prune::removals(desired, &owners, absent.chain(moved));
    for (key, why) in &removals.left {
        plan.add(Verb::Leave, key, None, why);
    }
    for delete in &removals.deletes {
        plan.add(Verb::Delete, &delete.key, None, delete.why);
    }
    for unlabel in &removals.unlabels {
        plan.add(Verb::Unlabel, &unlabel.key, None, unlabel.why);
    }
    for delete in removals.held.iter().flat_map(|held| &held.deletes) {
        plan.add(Verb::Hold, &delete.key, None, "more deletions than allowed in one run");
    }
    let Removals { deletes, unlabels, left: _, held, released } = removals;
    Plan { deletes, unlabels, held, released, ..plan }
}

fn decide(
    desired: &Desired<'_>,
    index: &OwnerIndex<'_>,
    key: &ObjectKey,
    entry: &Entry,
) -> (Verb, &'static str) {
    if let Some(why) = unwanted(desired, key, entry) {
        return why;
    }
    match desired.restored.get(key) {
        None => (Verb::Create, "not on this hub yet"),
        Some(Known { standing: Standing::Foreign, .. }) => {
            (Verb::Skip, "exists on this hub and is not ours")
        }
        Some(known) => compare(desired, index, key, entry, known),
    }
}

/// As they stand on this hub, also those that the backup lacks: a primary's garbage collector may not
/// have come to what they owned yet.
fn owners_of_what_stays(desired: &Desired<'_>, index: &OwnerIndex<'_>) -> BTreeSet<ObjectKey> {
    let entries = desired.contents.entries.iter();
    let stays =
        |entry: &Entry| entry.set != Set::Activation || !desired.scope.holds_back_activation();
    let references = entries
        .filter(|(_, entry)| stays(entry))
        .flat_map(|(key, entry)| entry.owners.iter().map(move |owner| (key, owner)));
    let on_hub = |(key, owner)| {
        let in_backup = index.find(key, owner).cloned();
        in_backup.or_else(|| owners::key_on_hub(key, owner, desired.kinds))
    };
    references.filter_map(on_hub).collect()
}

/// Passive data of this hub that the primary moved to the activation set: by the rules of its new
/// set it goes. Not while it owns what stays: the garbage collector would take that along.
fn moved_away<'a>(
    desired: &Desired<'a>,
    owners: &BTreeSet<ObjectKey>,
) -> HashMap<&'a ObjectKey, &'a Known> {
    let entries = desired.contents.entries.iter();
    entries
        .filter(|(_, entry)| entry.set == Set::Activation && desired.scope.holds_back_activation())
        .filter_map(|(key, _)| Some((key, desired.restored.get(key)?)))
        .filter(|(_, known)| known.standing == Standing::Ours)
        .filter(|(_, known)| known.mark.is_some_and(|mark| !mark.activation))
        .filter(|(key, _)| !owners.contains(*key))
        .collect()
}

/// Why an object is not written, whatever stands on the hub.
fn unwanted(desired: &Desired<'_>, key: &ObjectKey, entry: &Entry) -> Option<(Verb, &'static str)> {
    if let Some(why) = desired.policy.refuses(key) {
        return Some((Verb::Refuse, why));
    }
    let held = entry.set == Set::Activation && desired.scope.holds_back_activation();
    match desired.kinds.of(key) {
        // Told before a promotion needs it.
        None if !defined_by_backup(desired, key) => Some((Verb::Skip, NOT_SERVED)),
        Some(_) | None if held => Some((Verb::Skip, "held back until this hub holds the term")),
        Some(kind) if kind.namespaced == key.namespace().is_empty() => {
            Some((Verb::Refuse, "it is not in the scope that its kind has on this hub"))
        }
        None if desired.scope.holds_back_activation()
            && matches!(desired.policy.passive_form(key, None), Form::Unknown) =>
        {
            Some((Verb::Skip, NOT_SERVED_YET))
        }
        Some(_) | None => None,
    }
}

/// The tag of the patch that makes the object inert in this run. What has woken under an own term stays
/// awake.
fn inert(desired: &Desired<'_>, key: &ObjectKey) -> Option<u32> {
    let is_awake = || desired.restored.get(key).is_some() && !is_inert(desired, key);
    match desired.scope {
        Scope::Activation { .. } => return None,
        Scope::CatchUp { .. } if is_awake() => return None,
        Scope::CatchUp { .. } | Scope::Passive => {}
    }
    match desired.policy.passive_form(key, desired.kinds.of(key)) {
        Form::Inert(patch) => Some(patch.tag()),
        Form::AsInBackup | Form::Unknown => None,
    }
}

/// Whether it comes to life in this run, or could have been inert before.
fn wakes(desired: &Desired<'_>, key: &ObjectKey) -> bool {
    let form = || desired.policy.passive_form(key, desired.kinds.of(key));
    matches!(desired.scope, Scope::Activation { .. })
        && (is_inert(desired, key) || matches!(form(), Form::Inert(_)))
}

fn is_inert(desired: &Desired<'_>, key: &ObjectKey) -> bool {
    let known = desired.restored.get(key);
    known.and_then(|known| known.mark).is_some_and(|mark| mark.inert.is_some())
}

/// Whether the CRD of an object's kind is restored along with it.
fn defined_by_backup(desired: &Desired<'_>, key: &ObjectKey) -> bool {
    let name = format!("{}.{}", key.resource(), key.group());
    ObjectKey::new("apiextensions.k8s.io", "customresourcedefinitions", "", &name).is_ok_and(
        |definition| {
            desired.contents.entries.contains_key(&definition)
                && desired.policy.refuses(&definition).is_none()
        },
    )
}

fn compare(
    desired: &Desired<'_>,
    index: &OwnerIndex<'_>,
    key: &ObjectKey,
    entry: &Entry,
    known: &Known,
) -> (Verb, &'static str) {
    let Some(mark) = known.mark else {
        return (Verb::Update, "it does not say what was written");
    };
    if mark == mark.unfinished() {
        return (Verb::Update, "it does not hold what was written");
    }
    if !mark.same_content(&entry.digest) {
        return (Verb::Update, "its content is another in the backup");
    }
    if mark.activation != (entry.set == Set::Activation) {
        return (Verb::Update, "it moved to another set");
    }
    match (mark.inert, inert(desired, key)) {
        (Some(_), None) => return (Verb::Update, "it is inert and is to be awake"),
        (None, Some(_)) => return (Verb::Update, "it is awake and is to be inert"),
        (before, now) if before != now => {
            return (Verb::Update, "it is inert by another rule than today's");
        }
        (Some(_) | None, _) => {}
    }

    let (mut missing, mut renewed) = (0, false);
    for owner in &entry.owners {
        let found = index.find(key, owner);
        let known = found.is_some_and(|owner| desired.restored.get(owner).is_some());
        let written = found.is_some_and(|owner| {
            let entry = desired.contents.entries.get(owner);
            entry.is_some_and(|entry| unwanted(desired, owner, entry).is_none())
        });
        missing += usize::from(!known && !written);
        renewed |= !known && written;
    }
    if usize::from(mark.stripped) > missing {
        return (Verb::Update, "an owner that was missing can be linked");
    }
    if renewed {
        return (Verb::Update, "its owner is created anew");
    }
    (Verb::Unchanged, "as in the backup")
}

/// The summary, then every single step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (Line { verb, kind, set, why }, count) in &self.summary {
            let set = set.map_or(String::new(), |set| format!(" ({set})"));
            writeln!(f, "{} {count} {kind}{set}: {why}", verb.name())?;
        }
        if let Some(held) = &self.held {
            writeln!(f, "held: {}", held.why)?;
        }
        for write in &self.writes {
            let verb = if write.update { Verb::Update } else { Verb::Create };
            let inert = if write.inert.is_some() { ", inert" } else { "" };
            writeln!(f, "  {} {}{inert}: {}", verb.name(), write.key, write.why)?;
        }
        for unlabel in &self.unlabels {
            writeln!(f, "  unlabel {}: {}", unlabel.key, unlabel.why)?;
        }
        for delete in &self.deletes {
            writeln!(f, "  delete {}: {}", delete.key, delete.why)?;
        }
        self.refused.iter().try_for_each(|(key, why)| writeln!(f, "  refuse {key}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, contents, key, restored};
    use super::*;
    use Standing::{Adopted, Foreign, Ours};

    type Live<'a> = &'a [(&'a str, Standing, &'a str, usize)];

    fn check(objects: &[(&str, &[&str])], live: Live<'_>, scope: Scope, expected: &str) {
        let case =
            Case { contents: contents(objects), restored: restored(live), ..Case::default() };
        let plan = plan(&case.desired(scope));
        let text: Vec<String> =
            plan.to_string().lines().map(|line| line.trim().to_owned()).collect();
        let expected: Vec<&str> =
            expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn a_first_restore_creates_in_stages_and_holds_activation_back() {
        check(
            &[
                ("x.io/parts/ns/p", &["x.io/things//t"]),
                ("x.io/things//t", &[]),
                ("/secrets/ns/s", &[]),
                ("/namespaces//ns", &[]),
                ("act.io/clusters//c", &[]),
                ("/nodes//n", &[]),
                ("x.io/things/ns/odd", &[]),
                ("unknown.io/things//u", &[]),
            ],
            &[],
            Scope::Passive,
            "create 1 namespaces (resources): not on this hub yet
             create 1 secrets (resources): not on this hub yet
             create 1 parts.x.io (resources): not on this hub yet
             create 1 things.x.io (resources): not on this hub yet
             refuse 1 nodes (resources): objects of this kind belong to the hub that made them
             refuse 1 things.x.io (resources): it is not in the scope that its kind has on this hub
             skip 1 clusters.act.io (activation): held back until this hub holds the term
             skip 1 things.unknown.io (resources): this hub does not serve the kind
             create namespaces ns: not on this hub yet
             create secrets ns/s: not on this hub yet
             create things.x.io t: not on this hub yet
             create parts.x.io ns/p: not on this hub yet
             refuse nodes n: objects of this kind belong to the hub that made them
             refuse things.x.io ns/odd: it is not in the scope that its kind has on this hub",
        );
    }

    #[test]
    fn nothing_is_done_when_nothing_changed() {
        check(
            &[("/secrets/ns/s", &[]), ("/secrets/ns/a", &[]), ("/secrets/ns/f", &[])],
            &[
                ("/secrets/ns/s", Ours, "/secrets/ns/s", 0),
                ("/secrets/ns/a", Adopted, "/secrets/ns/a", 0),
                ("/secrets/ns/f", Foreign, "", 0),
            ],
            Scope::Passive,
            "skip 1 secrets (resources): exists on this hub and is not ours
             unchanged 2 secrets (resources): as in the backup",
        );
    }

    #[test]
    fn what_changed_is_updated_and_what_left_is_deleted() {
        check(
            &[("/secrets/ns/s", &[])],
            &[("/secrets/ns/s", Ours, "old", 0), ("/secrets/ns/gone", Ours, "x", 0)],
            Scope::Passive,
            "update 1 secrets (resources): its content is another in the backup
             delete 1 secrets: it left the backup
             update secrets ns/s: its content is another in the backup
             delete secrets ns/gone: it left the backup",
        );
    }

    #[test]
    fn what_moved_to_the_activation_set_goes_unless_it_owns_what_stays() {
        let objects: &[(&str, &[&str])] = &[
            ("act.io/clusters//c", &[]),
            ("act.io/clusters//owner", &[]),
            ("/secrets/ns/s", &["act.io/clusters//owner"]),
        ];
        let live = objects.iter().map(|(name, _)| (*name, Ours, *name, 0)).collect::<Vec<_>>();
        let mut case =
            Case { contents: contents(objects), restored: restored(&live), ..Case::default() };
        // Written while the primary still had them in another set.
        let marks = case.restored.objects.values_mut().filter_map(|known| known.mark.as_mut());
        marks.for_each(|mark| mark.activation = false);
        for (scope, expected) in [(Scope::Passive, 1), (Scope::Activation { epoch: 2 }, 0)] {
            let plan = plan(&case.desired(scope));
            let deleted: Vec<_> = plan.deletes.iter().map(|delete| delete.key.name()).collect();
            assert_eq!(deleted, &["c"][..expected], "{plan}");
            assert!(super::super::check(plan, &case.desired(scope)).is_ok());
        }
    }

    /// In `testing::contents` every owner is said to be of one kind that no hub serves.
    #[test]
    fn an_owner_of_what_stays_is_not_deleted_until_that_goes() {
        let live = restored(&[
            ("/secrets/ns/s", Ours, "/secrets/ns/s", 0),
            ("x.io/things//t", Ours, "", 0),
        ]);
        let owned = contents(&[("/secrets/ns/s", &["x.io/things//t"])]);
        for (contents, kind, deleted) in [
            (owned.clone(), "Thing", &[][..]),
            (owned, "Part", &["t"]),
            (Contents::default(), "Thing", &["t", "s"]),
        ] {
            let mut case = Case { contents, restored: live.clone(), ..Case::default() };
            let entries = case.contents.entries.values_mut();
            entries.flat_map(|entry| &mut entry.owners).for_each(|owner| owner.kind = kind.into());
            let desired = case.desired(Scope::Passive);
            let plan = plan(&desired);
            let found: Vec<_> = plan.deletes.iter().map(|delete| delete.key.name()).collect();
            assert_eq!(found, deleted, "{plan}");
            assert!(super::super::check(plan, &desired).is_ok());
        }
    }

    #[test]
    fn an_activation_writes_the_rest_links_it_and_deletes_nothing() {
        check(
            &[("/secrets/ns/s", &["act.io/clusters//c"]), ("act.io/clusters//c", &[])],
            &[("/secrets/ns/s", Ours, "/secrets/ns/s", 1), ("/secrets/ns/gone", Ours, "x", 0)],
            Scope::Activation { epoch: 2 },
            "create 1 clusters.act.io (activation): not on this hub yet
             update 1 secrets (resources): an owner that was missing can be linked
             leave 1 secrets: nothing is deleted during an activation
             create clusters.act.io c: not on this hub yet
             update secrets ns/s: an owner that was missing can be linked",
        );
    }

    #[test]
    fn a_reference_that_cannot_be_linked_yet_is_no_reason_to_write() {
        check(
            &[("/secrets/ns/s", &["act.io/clusters//c"]), ("act.io/clusters//c", &[])],
            &[("/secrets/ns/s", Ours, "/secrets/ns/s", 1)],
            Scope::Passive,
            "skip 1 clusters.act.io (activation): held back until this hub holds the term
             unchanged 1 secrets (resources): as in the backup",
        );
    }

    #[test]
    fn an_owner_that_has_to_be_created_again_is_linked_again() {
        check(
            &[("/secrets/ns/s", &["x.io/things//t"]), ("x.io/things//t", &[])],
            &[("/secrets/ns/s", Ours, "/secrets/ns/s", 0)],
            Scope::Passive,
            "create 1 things.x.io (resources): not on this hub yet
             update 1 secrets (resources): its owner is created anew
             create things.x.io t: not on this hub yet
             update secrets ns/s: its owner is created anew",
        );
    }

    #[test]
    fn a_kind_that_the_backup_itself_defines_is_restored() {
        check(
            &[
                ("apiextensions.k8s.io/customresourcedefinitions//news.new.io", &[]),
                ("new.io/news/ns/n", &[]),
            ],
            &[],
            Scope::Passive,
            "create 1 customresourcedefinitions.apiextensions.k8s.io (resources): not on this hub yet
             create 1 news.new.io (resources): not on this hub yet
             create customresourcedefinitions.apiextensions.k8s.io news.new.io: not on this hub yet
             create news.new.io ns/n: not on this hub yet",
        );
    }

    const RULES: &str = r#"[
        {"group": "x.io", "name": "left-*", "patch": {}},
        {"group": "x.io", "kind": "Part", "patch": {"spec": {"paused": true}}},
        {"group": "new.io", "category": "managed", "patch": {"spec": {"paused": true}}}
    ]"#;

    /// Parts are inert on a passive hub. What stands there: `true` inert by the rule, `false` awake.
    fn with_rules(objects: &[(&str, &[&str])], live: &[(&str, Option<bool>)]) -> Case {
        let settings = crate::config::settings::RestorePolicy {
            transforms: serde_json::from_str(RULES).unwrap(),
            allow_kinds: vec![
                key("apiextensions.k8s.io/customresourcedefinitions//x").group_resource(),
            ],
            ..Default::default()
        };
        let tag = settings.transforms[1].patch.tag();
        let stand: Vec<_> = live.iter().map(|(name, _)| (*name, Ours, *name, 0)).collect();
        let mut restored = restored(&stand);
        for (name, inert) in live {
            let mark = &mut restored.objects.get_mut(&key(name)).unwrap().mark;
            *mark = mark.map(|mark| match inert {
                Some(inert) => mark.made_inert(inert.then_some(tag)),
                None => mark.made_inert(Some(tag + 1)),
            });
        }
        let policy = Policy::new("eu", "understudy-system", &settings);
        Case { contents: contents(objects), restored, policy, ..Case::default() }
    }

    const INERT: &[(&str, &[&str])] = &[
        ("act.io/clusters//c", &[]),
        ("x.io/parts/ns/asleep", &["x.io/parts/ns/owner"]),
        ("x.io/parts/ns/awake", &[]),
        ("x.io/parts/ns/left-awake", &[]),
        ("x.io/parts/ns/new", &[]),
        ("x.io/parts/ns/other", &[]),
        ("x.io/parts/ns/owner", &[]),
    ];

    fn steps(scope: Scope) -> Vec<String> {
        let live = &[
            ("x.io/parts/ns/asleep", Some(true)),
            ("x.io/parts/ns/awake", Some(false)),
            ("x.io/parts/ns/left-awake", Some(false)),
            ("x.io/parts/ns/other", None),
            ("x.io/parts/ns/owner", Some(true)),
        ];
        let case = with_rules(INERT, live);
        let plan = plan(&case.desired(scope));
        assert!(super::super::check(plan.clone(), &case.desired(scope)).is_ok(), "{plan}");
        plan.to_string().lines().filter_map(|l| Some(l.strip_prefix("  ")?.to_owned())).collect()
    }

    #[test]
    fn what_a_rule_makes_inert_sleeps_until_there_is_an_own_term_and_wakes_last() {
        assert_eq!(
            steps(Scope::Passive),
            [
                "update parts.x.io ns/awake, inert: it is awake and is to be inert",
                "create parts.x.io ns/new, inert: not on this hub yet",
                "update parts.x.io ns/other, inert: it is inert by another rule than today's",
            ]
        );
        assert_eq!(
            steps(Scope::CatchUp { epoch: 2 }),
            [
                "create parts.x.io ns/new, inert: not on this hub yet",
                "update parts.x.io ns/other, inert: it is inert by another rule than today's",
            ],
            "what has woken stays awake"
        );
        assert_eq!(
            steps(Scope::Activation { epoch: 2 }),
            [
                "create clusters.act.io c: not on this hub yet",
                "create parts.x.io ns/new: not on this hub yet",
                "update parts.x.io ns/other: it is inert and is to be awake",
                "update parts.x.io ns/owner: it is inert and is to be awake",
                "update parts.x.io ns/asleep: it is inert and is to be awake",
            ],
            "owners before what they own"
        );
    }

    #[test]
    fn what_may_have_to_be_inert_waits_for_its_kind() {
        let objects: &[(&str, &[&str])] = &[
            ("apiextensions.k8s.io/customresourcedefinitions//news.new.io", &[]),
            ("new.io/news/ns/n", &[]),
        ];
        let case = with_rules(objects, &[]);
        for (scope, written) in [
            (Scope::Passive, 1),
            (Scope::CatchUp { epoch: 2 }, 1),
            (Scope::Activation { epoch: 2 }, 2),
        ] {
            let plan = plan(&case.desired(scope));
            assert_eq!(plan.writes.len(), written, "{plan}");
            assert_eq!(plan.to_string().contains(NOT_SERVED_YET), written == 1, "{plan}");
            assert!(super::super::check(plan, &case.desired(scope)).is_ok());
        }
    }

    #[test]
    fn what_does_not_hold_what_was_written_is_made_inert_again() {
        let mut case = with_rules(INERT, &[("x.io/parts/ns/asleep", Some(true))]);
        let known = case.restored.objects.values_mut().next().unwrap();
        known.mark = known.mark.map(super::super::Mark::unfinished);
        let write = |scope| {
            let plan = plan(&case.desired(scope));
            plan.writes.into_iter().find(|write| write.key.name() == "asleep").unwrap()
        };
        assert!(write(Scope::Passive).inert.is_some());
        assert!(write(Scope::CatchUp { epoch: 2 }).inert.is_some());
        let wakes = write(Scope::Activation { epoch: 2 });
        assert_eq!((wakes.inert, wakes.stage.class), (None, Class::Wakes));
    }
}
