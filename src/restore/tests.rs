//! Pure: small worlds and the plans for them. Those that somebody wrote down stand in
//! `tests/plans/NAME.txt`, as text, with the plan that they lead to; of random ones it is shown what
//! every plan keeps.

use super::known::{Mark, Restored, Standing};
use super::owners::{OwnerIndex, key_on_hub};
use super::plan::{Desired, Plan, plan};
use super::policy::Scope;
use super::prune::{Gone, Pruning};
use super::testing::{Case, contents, key, restored};
use super::{Known, check};
use crate::object::{ObjectKey, Set};
use crate::repository::contents::Contents;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const GOLDEN: [(&str, &str); 5] = [
    ("first", include_str!("../../tests/plans/first.txt")),
    ("delta", include_str!("../../tests/plans/delta.txt")),
    ("prune", include_str!("../../tests/plans/prune.txt")),
    ("too-many", include_str!("../../tests/plans/too-many.txt")),
    ("activation", include_str!("../../tests/plans/activation.txt")),
];

/// The world above the line, the plan below it.
#[test]
fn plans_are_as_they_were_written_down() {
    for (name, text) in GOLDEN {
        let (world, expected) = text.split_once("---\n").expect("a line parts world and plan");
        let (case, scope) = read(world);
        let desired = case.desired(scope);
        let plan = plan(&desired);
        assert_eq!(plan.to_string(), expected, "tests/plans/{name}.txt");
        assert!(check(plan, &desired).is_ok(), "tests/plans/{name}.txt");
    }
}

/// `backup KEY [OWNER …]`, `hub ours|adopted|foreign KEY same|old [STRIPPED]`, `gone KEY WHY`,
/// `scope passive|activation`; `#` begins a comment.
fn read(world: &str) -> (Case, Scope) {
    let (mut objects, mut live, mut gone, mut scope) = (vec![], vec![], vec![], Scope::Passive);
    for line in world.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["backup", name, ref owners @ ..] => objects.push((name, owners.to_vec())),
            ["hub", standing, name, content, ref stripped @ ..] => {
                let standing = match standing {
                    "ours" => Standing::Ours,
                    "adopted" => Standing::Adopted,
                    "foreign" => Standing::Foreign,
                    other => panic!("{other}"),
                };
                let stripped = stripped.first().map_or(0, |number| number.parse().unwrap());
                live.push((name, standing, if content == "same" { name } else { "" }, stripped));
            }
            ["gone", name, why] => {
                let all = [Gone::Deleted, Gone::Deselected, Gone::Moved];
                let why = all.into_iter().find(|gone| format!("{gone:?}").to_lowercase() == why);
                gone.push((key(name), why.expect("a reason")));
            }
            ["scope", "activation"] => scope = Scope::Activation { epoch: 2 },
            ["scope", "passive"] => scope = Scope::Passive,
            _ => panic!("{line}"),
        }
    }
    let objects: Vec<_> = objects.iter().map(|(name, owners)| (*name, &owners[..])).collect();
    let (contents, restored) = (contents(&objects), restored(&live));
    let mut case = Case { contents, restored, gone: gone.into_iter().collect(), ..Case::default() };
    name_owners(&mut case);
    (case, scope)
}

/// References as a hub writes them: `contents` gives every owner the same kind.
fn name_owners(case: &mut Case) {
    for owner in case.contents.entries.values_mut().flat_map(|entry| &mut entry.owners) {
        let kind = case.kinds.of(&key(&owner.uid)).map(|kind| &*kind.kind);
        owner.kind = kind.unwrap_or("Unknown").into();
    }
}

const NAMES: [&str; 18] = [
    "/namespaces//ns",
    "/namespaces//understudy-system",
    "/secrets/ns/a",
    "/secrets/ns/b",
    "/secrets/kube-system/a",
    "/configmaps/ns/a",
    "/configmaps/other/a",
    "/nodes//a",
    "x.io/things//a",
    "x.io/things//b",
    "x.io/parts/ns/a",
    "x.io/parts/ns/b",
    "act.io/clusters//a",
    "act.io/clusters//b",
    "partial.io/things//a",
    "unknown.io/things//a",
    "apiextensions.k8s.io/customresourcedefinitions//news.new.io",
    "new.io/news/ns/a",
];

/// One name of a random world.
#[derive(Clone, Debug)]
struct Fate {
    in_backup: bool,
    owners: BTreeSet<usize>,
    /// The references name another group, as those of a kind that moved.
    odd: bool,
    live: Option<Live>,
    gone: Option<Gone>,
}

#[derive(Clone, Debug)]
struct Live {
    standing: Standing,
    same: bool,
    readable: bool,
    stripped: usize,
    moved: bool,
}

fn fate() -> impl Strategy<Value = Fate> {
    let standing = prop_oneof![
        4 => Just(Standing::Ours),
        1 => Just(Standing::Adopted),
        1 => Just(Standing::Foreign)
    ];
    let live = (standing, any::<bool>(), 0..8_u8, 0..3_usize, 0..5_u8).prop_map(
        |(standing, same, readable, stripped, moved)| Live {
            standing,
            same,
            readable: readable > 0,
            stripped,
            moved: moved == 0,
        },
    );
    let gone = prop_oneof![Just(Gone::Deleted), Just(Gone::Deselected), Just(Gone::Moved)];
    let owners = proptest::collection::btree_set(0..NAMES.len(), 0..3);
    let owners = (owners, 0..5_u8);
    let parts = (any::<bool>(), owners, proptest::option::of(live), proptest::option::of(gone));
    parts.prop_map(|(in_backup, (owners, odd), live, gone)| Fate {
        in_backup,
        owners,
        odd: odd == 0,
        live,
        gone,
    })
}

fn world(fates: &[Fate]) -> Case {
    let fates = || NAMES.iter().copied().zip(fates);
    let owners: Vec<(&str, Vec<&str>)> = fates()
        .filter(|(_, fate)| fate.in_backup)
        .map(|(name, fate)| (name, fate.owners.iter().map(|at| NAMES[*at]).collect()))
        .collect();
    let objects: Vec<_> = owners.iter().map(|(name, owners)| (*name, &owners[..])).collect();
    let live = || fates().filter_map(|(name, fate)| Some((name, fate.live.as_ref()?)));
    let known: Vec<_> = live()
        .map(|(name, live)| (name, live.standing, if live.same { name } else { "" }, live.stripped))
        .collect();
    let mut restored = restored(&known);
    for (name, live) in live() {
        let known = restored.objects.get_mut(&key(name)).expect("it was just made");
        known.mark = known.mark.filter(|_| live.readable);
        if let (Some(mark), true) = (&mut known.mark, live.moved) {
            mark.activation = !mark.activation;
        }
    }
    let gone = fates().filter_map(|(name, fate)| Some((key(name), fate.gone?))).collect();
    let mut case = Case { contents: contents(&objects), restored, gone, ..Case::default() };
    name_owners(&mut case);
    for (name, _) in fates().filter(|(_, fate)| fate.in_backup && fate.odd) {
        let entry = case.contents.entries.get_mut(&key(name)).expect("it is in the backup");
        entry.owners.iter_mut().for_each(|owner| owner.api_version = "moved.io/v1".into());
    }
    case
}

fn desired(case: &Case, activation: bool, enabled: bool) -> Desired<'_> {
    let scope = if activation { Scope::Activation { epoch: 2 } } else { Scope::Passive };
    let desired = case.desired(scope);
    Desired { pruning: Pruning { enabled, ..desired.pruning }, ..desired }
}

/// The hub after an execution to which nothing happened.
fn applied(case: &Case, plan: &Plan) -> Restored {
    let (index, mut hub) = (OwnerIndex::new(&case.contents), case.restored.clone());
    // The second pass links what stood in a circle.
    for write in plan.writes.iter().chain(&plan.writes) {
        let entry = &case.contents.entries[&write.key];
        let owners = entry.owners.iter().filter_map(|owner| index.find(&write.key, owner));
        let linked = owners.filter(|owner| hub.get(owner).is_some()).count();
        let mark = Mark::new(&entry.digest, entry.set, entry.owners.len() - linked);
        let known = hub.get(&write.key);
        let standing = known.map_or(Standing::Ours, |known| known.standing);
        let uid = known.map_or_else(|| format!("new:{}", write.key).into(), |k| k.uid.clone());
        let known = Known { standing, mark: Some(mark), uid, resource_version: "6".into() };
        hub.objects.insert(write.key.clone(), known);
    }
    for key in plan.deletes.iter().map(|d| &d.key).chain(plan.unlabels.iter().map(|u| &u.key)) {
        hub.objects.remove(key);
    }
    hub
}

/// What goes, said without the planner: ours, of the passive sets, and in no backup any more; its kind
/// told completely, and nothing that stays needs it.
fn goes(case: &Case) -> BTreeSet<ObjectKey> {
    let stays = |set: Set| set != Set::Activation;
    let entries = || case.contents.entries.iter().filter(|(_, entry)| stays(entry.set));
    let needed: BTreeSet<ObjectKey> = entries()
        .flat_map(|(key, entry)| entry.owners.iter().map(move |owner| (key, owner)))
        .filter_map(|(key, owner)| key_on_hub(key, owner, &case.kinds))
        .collect();
    let goes = |(key, known): &(&ObjectKey, &Known)| {
        let entry = case.contents.entries.get(*key);
        let deselected = case.gone.get(*key) == Some(&Gone::Deselected) && entry.is_none();
        known.standing == Standing::Ours
            && known.mark.is_some_and(|mark| !mark.activation)
            && entry.is_none_or(|entry| !stays(entry.set))
            && !deselected
            && case.complete.contains(&key.group_resource())
            && key.resource() != "customresourcedefinitions"
            && case.policy.refuses(key).is_none()
            && !needed.contains(*key)
    };
    case.restored.objects.iter().filter(goes).map(|(key, _)| key.clone()).collect()
}

/// The same world, put together the other way round.
fn reversed(case: &Case) -> Case {
    fn turn<V: Clone>(map: &HashMap<ObjectKey, V>) -> HashMap<ObjectKey, V> {
        let mut all: Vec<_> = map.iter().collect();
        all.sort_by(|a, b| b.0.cmp(a.0));
        all.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
    Case {
        contents: Contents { entries: turn(&case.contents.entries), ..Contents::default() },
        restored: Restored { objects: turn(&case.restored.objects) },
        gone: turn(&case.gone),
        ..Case::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(
        fates in proptest::collection::vec(fate(), NAMES.len()), activation: bool, enabled: bool,
    ) {
        let mut case = world(&fates);
        let first = plan(&desired(&case, activation, enabled));
        let hub = applied(&case, &first);
        case.restored = hub;
        let again = plan(&desired(&case, activation, enabled));
        prop_assert!(again.is_empty(), "first\n{first}\nagain\n{again}");
    }

    #[test]
    fn every_plan_passes_its_check_and_does_not_depend_on_an_order(
        fates in proptest::collection::vec(fate(), NAMES.len()), activation: bool, enabled: bool,
    ) {
        let case = world(&fates);
        let plan = plan(&desired(&case, activation, enabled));
        let other = reversed(&case);
        prop_assert_eq!(&super::plan(&desired(&other, activation, enabled)), &plan);
        let checked = check(plan, &desired(&case, activation, enabled));
        prop_assert!(checked.is_ok(), "{}", checked.err().unwrap());
    }

    #[test]
    fn exactly_what_is_ours_and_gone_is_deleted(
        fates in proptest::collection::vec(fate(), NAMES.len()), activation: bool, enabled: bool,
    ) {
        let case = world(&fates);
        let plan = plan(&desired(&case, activation, enabled));
        let held = plan.held.iter().flat_map(|held| &held.deletes);
        let found: BTreeSet<_> = plan.deletes.iter().chain(held).map(|d| d.key.clone()).collect();
        let expected = if activation || !enabled { BTreeSet::new() } else { goes(&case) };
        prop_assert_eq!(found, expected, "{}", plan);
    }
}
