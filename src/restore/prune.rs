//! Pure: what is taken away from a hub because it left the backup.
//!
//! Deleting is the most dangerous thing that Understudy does, so every doubt means "leave it":
//! only objects with our label, whose mark can be read, of a kind that the backup holds completely
//! and that this hub accepts, and only as many as the configuration allows in one run. CRDs are
//! never deleted (their objects would go with them), nor is what was adopted, nor anything of the
//! activation set (it manages clusters). Deletions carry UID and resourceVersion as preconditions.
//!
//! Too many deletions are held as a whole, under an id that says what they are. An operator who has
//! looked at them releases that id; what would be deleted is another set by then has another id.

use super::known::{Known, Restored, Standing};
use super::order::Class;
use super::plan::Desired;
use crate::object::{Digest, GroupResource, ObjectKey};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// `maxShrink` is a fraction; of a handful of objects any deletion is a large one.
pub const SHRINK_COUNTS_ABOVE: usize = 5;

pub use crate::repository::pack::Gone;

#[derive(Clone, Copy, Debug)]
pub struct Pruning<'a> {
    pub enabled: bool,
    pub max_deletes: usize,
    /// Fraction of the objects that are ours.
    pub max_shrink: f64,
    /// Kinds that the backup holds completely; of all others nothing is deleted.
    pub complete: &'a HashSet<GroupResource>,
    /// What is known about objects that left the backup; what is not named was deleted.
    pub gone: &'a HashMap<ObjectKey, Gone>,
    /// Ids of the plans that an operator lets go, whatever their number.
    pub released: &'a [String],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    pub key: ObjectKey,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub why: &'static str,
    /// A namespace: deleting it deletes everything in it.
    pub only_if_empty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlabel {
    pub key: ObjectKey,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// As [`plan_id`] tells it.
    pub id: String,
    pub why: String,
    pub deletes: Vec<Delete>,
}

#[derive(Debug, Default)]
pub struct Removals {
    pub deletes: Vec<Delete>,
    pub unlabels: Vec<Unlabel>,
    pub left: Vec<(ObjectKey, &'static str)>,
    pub held: Option<Held>,
    /// The id of `deletes`, if that was released.
    pub released: Option<String>,
}

impl Held {
    pub fn by_kind(&self) -> BTreeMap<GroupResource, Vec<&ObjectKey>> {
        let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Delete { key, .. } in &self.deletes {
            kinds.entry(key.group_resource()).or_default().push(key);
        }
        kinds
    }
}

enum Verdict {
    Delete(&'static str),
    Unlabel(&'static str),
    Leave(&'static str),
}

/// Of the objects known on the hub that are not in the backup, or not in a set that stands here.
/// `owners`: of what stays.
pub fn removals<'a>(
    desired: &Desired<'_>,
    owners: &BTreeSet<ObjectKey>,
    absent: impl Iterator<Item = (&'a ObjectKey, &'a Known)>,
) -> Removals {
    let mut removals = Removals::default();
    for (key, known) in absent {
        let (uid, resource_version) = (known.uid.clone(), known.resource_version.clone());
        match decide(desired, key, known) {
            // The garbage collector would take along what it owns.
            Verdict::Delete(_) if owners.contains(key) => {
                removals.left.push((key.clone(), "it owns what stays"));
            }
            Verdict::Delete(why) => {
                let only_if_empty = Class::of(key) == Class::Namespaces;
                let key = key.clone();
                removals.deletes.push(Delete { key, uid, resource_version, why, only_if_empty });
            }
            Verdict::Unlabel(why) => {
                removals.unlabels.push(Unlabel { key: key.clone(), uid, resource_version, why });
            }
            Verdict::Leave(why) => removals.left.push((key.clone(), why)),
        }
    }
    removals.deletes.sort_unstable_by(|a, b| {
        (Reverse(Class::of(&a.key)), &a.key).cmp(&(Reverse(Class::of(&b.key)), &b.key))
    });
    removals.unlabels.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    removals.left.sort_unstable();

    let ours = desired.restored.ours().count();
    let too_many = ceiling(&desired.pruning, removals.deletes.len(), ours);
    let id = plan_id(&removals.deletes, desired.restored);
    if !removals.deletes.is_empty() && desired.pruning.released.contains(&id) {
        removals.released = Some(id);
    } else if let Some(why) = too_many {
        removals.held = Some(Held { id, why, deletes: std::mem::take(&mut removals.deletes) });
    }
    removals
}

/// Names a set of deletions: which objects, which life of each, and what was written to it. Not the
/// backup that they are absent from, since the next one is as good if they are absent from it, too;
/// and not their resourceVersions, which controllers move on all the time.
pub fn plan_id(deletes: &[Delete], restored: &Restored) -> String {
    let line = |delete: &Delete| {
        let mark = restored.get(&delete.key).and_then(|known| known.mark);
        let mark = mark.map(|mark| mark.to_string()).unwrap_or_default();
        format!("{}\0{}\0{mark}\n", delete.key, delete.uid)
    };
    let mut lines: Vec<String> = deletes.iter().map(line).collect();
    lines.sort_unstable();
    Digest::of(lines.concat().as_bytes()).short()
}

fn decide(desired: &Desired<'_>, key: &ObjectKey, known: &Known) -> Verdict {
    let Pruning { enabled, complete, gone, max_deletes: _, max_shrink: _, released: _ } =
        desired.pruning;
    match known.standing {
        Standing::Adopted => return Verdict::Leave("it was adopted, not made by a restore"),
        Standing::Foreign => return Verdict::Leave("it is not ours"),
        Standing::Ours => {}
    }
    if let Some(why) = desired.policy.refuses(key) {
        return Verdict::Leave(why);
    }
    if !desired.scope.holds_back_activation() {
        return Verdict::Leave("nothing is deleted during an activation");
    }
    match known.mark {
        None => return Verdict::Leave("its digest annotation cannot be read"),
        Some(mark) if mark.activation => {
            return Verdict::Leave("objects of the activation set are never deleted");
        }
        Some(_) => {}
    }
    if Class::of(key) == Class::CustomResourceDefinitions {
        return Verdict::Leave("definitions of kinds are never deleted");
    }
    if !enabled {
        return Verdict::Leave("passive.prune is off");
    }
    let moved = desired.contents.entries.contains_key(key);
    match gone.get(key) {
        Some(Gone::Deselected) if !moved => {
            Verdict::Unlabel("no rule of the primary selects it any more")
        }
        _ if !complete.contains(&key.group_resource()) => {
            Verdict::Leave("the backup does not hold its kind completely")
        }
        _ if moved => Verdict::Delete("it moved to the activation set"),
        Some(_) | None => Verdict::Delete("it left the backup"),
    }
}

/// Why so many deletions are not done without somebody looking at them.
pub fn ceiling(pruning: &Pruning<'_>, deletes: usize, ours: usize) -> Option<String> {
    if deletes > pruning.max_deletes {
        let max = pruning.max_deletes;
        if max == 0 {
            return Some(format!(
                "{deletes} deletions, and none goes without a look: passive.maxDeletes is 0, or it is \
                 the first prune since this hub was primary"
            ));
        }
        return Some(format!("{deletes} deletions are more than passive.maxDeletes ({max})"));
    }
    // Both are far below 2^52, where a float is exact.
    #[allow(clippy::cast_precision_loss)]
    let too_many = deletes as f64 > pruning.max_shrink * ours as f64;
    (deletes > SHRINK_COUNTS_ABOVE && too_many).then(|| {
        let max = pruning.max_shrink * 100.0;
        format!("{deletes} deletions of {ours} objects are more than passive.maxShrink ({max:.0}%)")
    })
}

#[cfg(test)]
mod tests {
    use super::super::policy::Scope;
    use super::super::testing::{Case, contents, key, restored};
    use super::*;

    fn check(name: &str, standing: Standing, gone: Option<Gone>, scope: Scope, expected: &str) {
        let mut case = Case { restored: restored(&[(name, standing, "x", 0)]), ..Case::default() };
        case.gone.extend(gone.map(|gone| (key(name), gone)));
        let desired = case.desired(scope);
        let removals = removals(&desired, &BTreeSet::new(), case.restored.objects.iter());
        let found = match (&removals.deletes[..], &removals.unlabels[..], &removals.left[..]) {
            ([delete], [], []) => {
                assert_eq!(*delete.uid, *format!("live:{name}"));
                assert_eq!(&*delete.resource_version, "5");
                if delete.only_if_empty { "delete if empty" } else { "delete" }
            }
            ([], [_], []) => "unlabel",
            ([], [], [_]) => "leave",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn every_doubt_means_leave() {
        use Standing::{Adopted, Foreign, Ours};
        for (name, standing, gone, scope, expected) in [
            ("/secrets/ns/a", Ours, None, Scope::Passive, "delete"),
            ("/secrets/ns/a", Ours, Some(Gone::Moved), Scope::Passive, "delete"),
            ("/secrets/ns/a", Ours, Some(Gone::Deselected), Scope::Passive, "unlabel"),
            ("/namespaces//a", Ours, None, Scope::Passive, "delete if empty"),
            ("/secrets/ns/a", Adopted, None, Scope::Passive, "leave"),
            ("/secrets/ns/a", Foreign, None, Scope::Passive, "leave"),
            ("/secrets/kube-system/a", Ours, None, Scope::Passive, "leave"),
            ("/secrets/understudy-system/a", Ours, Some(Gone::Deselected), Scope::Passive, "leave"),
            ("/secrets/ns/a", Ours, None, Scope::Activation { epoch: 2 }, "leave"),
            ("act.io/clusters//a", Ours, None, Scope::Passive, "leave"),
            ("partial.io/things//a", Ours, None, Scope::Passive, "leave"),
            (
                "apiextensions.k8s.io/customresourcedefinitions//a",
                Ours,
                None,
                Scope::Passive,
                "leave",
            ),
        ] {
            check(name, standing, gone, scope, expected);
        }
    }

    #[test]
    fn a_mark_that_cannot_be_read_protects() {
        let mut case = Case {
            restored: restored(&[("/secrets/ns/a", Standing::Ours, "x", 0)]),
            ..Case::default()
        };
        case.restored.objects.values_mut().for_each(|known| known.mark = None);
        let removals =
            removals(&case.desired(Scope::Passive), &BTreeSet::new(), case.restored.objects.iter());
        assert!(removals.deletes.is_empty() && removals.left.len() == 1);
    }

    #[test]
    fn the_ceiling_is_a_number_and_a_fraction() {
        let (complete, gone) = (HashSet::new(), HashMap::new());
        let pruning = Pruning {
            enabled: true,
            max_deletes: 100,
            max_shrink: 0.3,
            complete: &complete,
            gone: &gone,
            released: &[],
        };
        for (deletes, ours, held) in [
            (0, 0, false),
            (5, 5, false),
            (6, 6, true),
            (6, 20, false),
            (7, 20, true),
            (100, 1000, false),
            (101, 1000, true),
        ] {
            assert_eq!(ceiling(&pruning, deletes, ours).is_some(), held, "{deletes} of {ours}");
        }
    }

    #[test]
    fn above_the_ceiling_nothing_at_all_is_deleted() {
        let names: Vec<String> = (0..8).map(|n| format!("/secrets/ns/s{n}")).collect();
        let live: Vec<_> = names.iter().map(|name| (&**name, Standing::Ours, "x", 0)).collect();
        let case = Case { restored: restored(&live), contents: contents(&[]), ..Case::default() };
        let removals =
            removals(&case.desired(Scope::Passive), &BTreeSet::new(), case.restored.objects.iter());
        assert!(removals.deletes.is_empty());
        assert_eq!(removals.held.map(|held| held.deletes.len()), Some(8));
    }

    fn eight() -> Case {
        let names: Vec<String> = (0..8).map(|n| format!("/secrets/ns/s{n}")).collect();
        let live: Vec<_> = names.iter().map(|name| (&**name, Standing::Ours, "x", 0)).collect();
        Case { restored: restored(&live), ..Case::default() }
    }

    fn held(case: &Case) -> Held {
        let removals =
            removals(&case.desired(Scope::Passive), &BTreeSet::new(), case.restored.objects.iter());
        assert!(removals.deletes.is_empty() && removals.released.is_none());
        removals.held.unwrap()
    }

    #[test]
    fn what_was_released_goes_and_nothing_else() {
        let mut case = eight();
        let id = held(&case).id;
        case.released = vec!["another".to_owned()];
        assert_eq!(held(&case).id, id, "another plan was released");
        case.released.push(id.clone());
        let released =
            removals(&case.desired(Scope::Passive), &BTreeSet::new(), case.restored.objects.iter());
        assert_eq!((released.deletes.len(), released.released), (8, Some(id.clone())));
        assert_eq!(released.held, None);

        case.restored
            .objects
            .extend(restored(&[("/secrets/ns/t", Standing::Ours, "x", 0)]).objects);
        let more = held(&case);
        assert!(more.id != id && more.deletes.len() == 9, "one more came after it was released");

        let few = restored(&[("/secrets/ns/a", Standing::Ours, "x", 0)]);
        let mut case = Case { restored: few, ..Case::default() };
        let few =
            removals(&case.desired(Scope::Passive), &BTreeSet::new(), case.restored.objects.iter());
        case.released = vec![plan_id(&few.deletes, &case.restored), plan_id(&[], &case.restored)];
        let few =
            removals(&case.desired(Scope::Passive), &BTreeSet::new(), case.restored.objects.iter());
        assert_eq!(
            few.released.as_ref(),
            case.released.first(),
            "the ceiling was raised meanwhile"
        );
        let none = removals(&case.desired(Scope::Passive), &BTreeSet::new(), std::iter::empty());
        assert_eq!(none.released, None, "nothing is no plan");
    }

    #[test]
    fn the_id_of_a_plan_is_that_of_the_lives_that_it_ends() {
        let case = eight();
        let Held { id, mut deletes, .. } = held(&case);
        let same = |deletes: &[Delete], restored: &Restored| plan_id(deletes, restored) == id;
        deletes.reverse();
        assert!(same(&deletes, &case.restored), "another order");
        deletes[3].resource_version = "6".into();
        assert!(same(&deletes, &case.restored), "a controller wrote a status");
        assert!(!same(&deletes[1..], &case.restored), "one less");

        let mut other = deletes.clone();
        other[0].uid = "live:again".into();
        assert!(!same(&other, &case.restored), "it was made again");
        let mut other = deletes.clone();
        other[0].key = key("/configmaps/ns/s7");
        assert!(!same(&other, &case.restored), "it is another object");
        let rewritten = restored(&[("/secrets/ns/s0", Standing::Ours, "y", 0)]);
        let mut known = eight().restored;
        known.objects.extend(rewritten.objects);
        assert!(!same(&deletes, &known), "it came back with another content, and went again");
    }

    #[test]
    fn the_owned_goes_before_the_owner_and_namespaces_go_last() {
        let names = ["/namespaces//ns", "/secrets/ns/s", "x.io/things//t", "x.io/parts/ns/p"];
        let live = names.map(|name| (name, Standing::Ours, "x", 0));
        let case = Case { restored: restored(&live), ..Case::default() };
        let removals =
            removals(&case.desired(Scope::Passive), &BTreeSet::new(), case.restored.objects.iter());
        let order: Vec<_> = removals.deletes.iter().map(|delete| delete.key.resource()).collect();
        assert_eq!(order, ["parts", "things", "secrets", "namespaces"]);
    }
}
