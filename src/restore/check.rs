//! Pure: whether a plan keeps the promises, found without the planner's help.
//!
//! Written apart from `plan.rs` and `prune.rs` on purpose: it does not ask how a step came about
//! but only whether it may be done. A violation is a fault of ours; nothing of such a plan is
//! executed. Only what passed becomes a [`Checked`], and only that can be executed.

use super::known::Standing;
use super::order::{Class, MAX_DEPTH};
use super::plan::{Desired, Plan, Write};
use super::policy::{Form, Scope};
use super::prune::{ceiling, plan_id};
use crate::object::{ObjectKey, Set};
use std::collections::{HashMap, HashSet};

/// A plan that passed. There is no other way to make one.
#[derive(Debug)]
pub struct Checked(Plan);

impl Checked {
    pub fn plan(&self) -> &Plan {
        &self.0
    }
}

/// The first violations are enough to find the fault; a broken plan could have one an object.
const MAX_VIOLATIONS: usize = 20;

#[derive(Debug, thiserror::Error)]
#[error("the restore plan breaks {} promises, none of it was executed: {}", .0.len(), .0.join("; "))]
pub struct Violations(pub Vec<String>);

pub fn check(plan: Plan, desired: &Desired<'_>) -> Result<Checked, Violations> {
    let violations =
        writes(&plan, desired).chain(removals(&plan, desired)).chain(order(&plan, desired));
    let violations: Vec<String> = violations.take(MAX_VIOLATIONS).collect();
    if violations.is_empty() { Ok(Checked(plan)) } else { Err(Violations(violations)) }
}

/// Every write is of an object of the backup that this hub accepts, and of the activation set only
/// under an own term (I12).
fn writes(plan: &Plan, desired: &Desired<'_>) -> impl Iterator<Item = String> {
    plan.writes.iter().filter_map(|write| {
        let key = &write.key;
        let Some(entry) = desired.contents.entries.get(key) else {
            return Some(format!("{key} would be written and is not in the backup"));
        };
        if let Some(why) = untouchable(desired, key) {
            return Some(format!("{key} would be written although {why}"));
        }
        if entry.set == Set::Activation && !matches!(desired.scope, Scope::Activation { .. }) {
            return Some(format!("{key} is of the activation set and there is no own term"));
        }
        if let Some(why) = awake(write, desired) {
            return Some(format!("{key} {why}"));
        }
        let known = desired.restored.get(key).map(|known| known.standing);
        match (write.update, known) {
            (true, Some(Standing::Ours | Standing::Adopted)) | (false, None) => None,
            (true, None) => Some(format!("{key} would be updated and is not known here")),
            (false, Some(_)) => Some(format!("{key} would be created and exists")),
            (true, Some(Standing::Foreign)) => {
                Some(format!("{key} is not ours and would be overwritten"))
            }
        }
    })
}

/// What a rule makes inert is written inert as long as there is no own term, and comes to life last.
fn awake(write: &Write, desired: &Desired<'_>) -> Option<&'static str> {
    let kind = desired.kinds.of(&write.key);
    match (desired.policy.passive_form(&write.key, kind), desired.scope) {
        (Form::Inert(patch), Scope::Passive) => (write.inert != Some(patch.tag()))
            .then_some("would be written awake and there is no own term"),
        (Form::Unknown, Scope::Passive) => {
            Some("may have to be inert, and its kind is not known here")
        }
        (Form::Inert(_), Scope::Activation { .. }) => {
            (write.stage.class != Class::Wakes).then_some("would wake before others are there")
        }
        (_, Scope::Activation { .. }) => {
            write.inert.is_some().then_some("would be made inert under an own term")
        }
        (Form::AsInBackup, Scope::Passive) | (_, Scope::CatchUp { .. }) => None,
    }
}

/// Every removal is of an object that carries our label, with its guards, and not too many (I11).
fn removals(plan: &Plan, desired: &Desired<'_>) -> impl Iterator<Item = String> {
    let owners = if plan.deletes.is_empty() { HashSet::new() } else { referred_to(desired) };
    let deletes = plan.deletes.iter().map(move |delete| {
        let kind = delete.key.group_resource();
        let namespace = kind.group.is_empty() && kind.resource == "namespaces";
        let fault = if !desired.pruning.enabled {
            Some("pruning is off")
        } else if matches!(desired.scope, Scope::Activation { .. }) {
            Some("an activation deletes nothing")
        } else if !desired.pruning.complete.contains(&kind) {
            Some("its kind is not complete in the backup")
        } else if kind.resource == "customresourcedefinitions" {
            Some("definitions of kinds stay")
        } else if namespace != delete.only_if_empty {
            Some("a namespace goes only when it is empty")
        } else if owners.contains(&delete.key) {
            Some("it owns what stays, which the garbage collector would take along")
        } else {
            None
        };
        (&delete.key, &delete.uid, &delete.resource_version, fault)
    });
    let unlabels = plan.unlabels.iter();
    let unlabels = unlabels.map(|u| (&u.key, &u.uid, &u.resource_version, None));

    let faults = deletes.chain(unlabels).filter_map(|(key, uid, version, fault)| {
        let fault = fault.or_else(|| untouchable(desired, key)).or_else(|| {
            let known = desired.restored.get(key)?;
            let activation = known.mark.is_none_or(|mark| mark.activation);
            let guarded = *uid == known.uid && *version == known.resource_version;
            let ours = known.standing == Standing::Ours && !activation;
            (!ours || !guarded || uid.is_empty() || version.is_empty())
                .then_some("it is not ours or its guards are missing")
        });
        let absent = desired.restored.get(key).is_none().then_some("it is not known here");
        let entry = desired.contents.entries.get(key);
        let activation = matches!(desired.scope, Scope::Activation { .. });
        let held_back = |set| set == Set::Activation && !activation;
        let stays = entry.is_some_and(|entry| !held_back(entry.set));
        let present = stays.then_some("it is in the backup");
        let fault = fault.or(absent).or(present)?;
        Some(format!("{key} would be taken away although {fault}"))
    });
    let ours = desired.restored.objects.values().filter(|k| k.standing == Standing::Ours).count();
    // What an operator has released is not too much, but it is that and nothing else.
    let released = || desired.pruning.released.contains(&plan_id(&plan.deletes, desired.restored));
    let too_many = ceiling(&desired.pruning, plan.deletes.len(), ours).filter(|_| !released());
    faults.chain(too_many)
}

/// By the owner references of what stands here after the plan, as this hub understands them.
fn referred_to(desired: &Desired<'_>) -> HashSet<ObjectKey> {
    let mut found = HashSet::new();
    for (key, entry) in &desired.contents.entries {
        if entry.set == Set::Activation && desired.scope.holds_back_activation() {
            continue;
        }
        for owner in &entry.owners {
            let (group, _) = owner.api_version.rsplit_once('/').unwrap_or_default();
            if let Some(kind) = desired.kinds.kind(group, &owner.kind) {
                let namespace = if kind.namespaced { key.namespace() } else { "" };
                let (group, resource) = (&kind.group, &kind.resource);
                found.extend(ObjectKey::new(group, resource, namespace, &owner.name));
            }
        }
    }
    found
}

/// No object twice, and every owner that is written is written in an earlier stage, unless it wakes.
fn order<'a>(plan: &'a Plan, desired: &'a Desired<'_>) -> impl Iterator<Item = String> + 'a {
    let mut stages = HashMap::with_capacity(plan.writes.len());
    let mut faults = Vec::new();
    for write in &plan.writes {
        if stages.insert(&write.key, write.stage).is_some() {
            faults.push(format!("{} would be written twice", write.key));
        }
    }
    if !plan.writes.is_sorted_by_key(|write| write.stage) {
        faults.push("the stages are not in order".to_owned());
    }
    let by_uid: HashMap<&str, &ObjectKey> = plan
        .writes
        .iter()
        .filter_map(|w| Some((&*desired.contents.entries.get(&w.key)?.uid, &w.key)))
        .collect();
    let late = plan.writes.iter().flat_map(move |write| {
        let owners = desired.contents.entries.get(&write.key).map_or(&[][..], |e| &e.owners);
        let owners = owners.iter().filter_map(|owner| Some((owner, *by_uid.get(&*owner.uid)?)));
        // A reference may tell of itself, or of a group or name under which nothing has that UID.
        let meant = owners.filter(|(reference, owner)| {
            let (group, _) = reference.api_version.rsplit_once('/').unwrap_or_default();
            *owner != &write.key && group == owner.group() && *reference.name == *owner.name()
        });
        let late = meant.map(|(_, owner)| owner).filter(|owner| {
            let scope_fits =
                owner.namespace().is_empty() || owner.namespace() == write.key.namespace();
            let owner_wakes = stages[*owner].class == Class::Wakes;
            let late = stages[*owner] >= write.stage && write.stage.depth < MAX_DEPTH;
            scope_fits && late && (!owner_wakes || write.stage.class == Class::Wakes)
        });
        let late =
            late.map(|owner| format!("{} would be written before its owner {owner}", write.key));
        late.collect::<Vec<_>>()
    });
    faults.into_iter().chain(late)
}

/// What no plan may touch, stated once more and shorter than in `policy.rs`.
fn untouchable(desired: &Desired<'_>, key: &ObjectKey) -> Option<&'static str> {
    let in_namespace = |namespace: &str| {
        key.namespace() == namespace || (key.resource() == "namespaces" && key.name() == namespace)
    };
    if in_namespace("kube-system") || in_namespace("kube-public") || in_namespace("kube-node-lease")
    {
        return Some("it is Kubernetes' own");
    }
    if !desired.policy.own_namespace.is_empty() && in_namespace(&desired.policy.own_namespace) {
        return Some("it is Understudy's own");
    }
    if matches!((key.group(), key.resource()), ("", "nodes" | "pods" | "events")) {
        return Some("its kind belongs to one hub");
    }
    desired.policy.refuses(key)
}

#[cfg(test)]
mod tests {
    use super::super::order::{Class, Stage};
    use super::super::plan::{Write, plan};
    use super::super::policy::Policy;
    use super::super::prune::Delete;
    use super::super::testing::{Case, contents, key, restored};
    use super::*;

    /// A good plan, made bad by `spoil`, must be found out.
    fn check_found(scope: Scope, expected: &str, spoil: impl Fn(&mut Plan)) {
        let mut case = Case {
            contents: contents(&[
                ("x.io/things//t", &[]),
                ("x.io/parts/ns/p", &["x.io/things//t"]),
                ("/secrets/ns/known", &[]),
                ("/secrets/ns/foreign", &[]),
                ("/secrets/kube-system/s", &[]),
                ("act.io/clusters//c", &[]),
            ]),
            restored: restored(&[
                ("/secrets/ns/known", Standing::Ours, "/secrets/ns/known", 0),
                ("/secrets/ns/foreign", Standing::Foreign, "", 0),
                ("/secrets/ns/old", Standing::Ours, "x", 0),
                ("/secrets/ns/adopted", Standing::Adopted, "x", 0),
                ("act.io/clusters//old", Standing::Ours, "x", 0),
                ("partial.io/things//old", Standing::Ours, "x", 0),
            ]),
            ..Case::default()
        };
        let owners = case.contents.entries.values_mut().flat_map(|entry| &mut entry.owners);
        owners.for_each(|owner| owner.kind = "Thing".into());
        let desired = case.desired(scope);
        let mut bad = plan(&desired);
        assert!(check(bad.clone(), &desired).is_ok(), "the plan is good before it is spoiled");
        spoil(&mut bad);
        let error = check(bad, &desired).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    fn write(name: &str, update: bool) -> Write {
        let key = key(name);
        let stage = Stage { class: Class::Gates, depth: 0 };
        Write { key, stage, update, inert: None, why: "" }
    }

    fn delete(name: &str) -> Delete {
        let only_if_empty = name.starts_with("/namespaces");
        let (uid, resource_version) = (format!("live:{name}").into(), "5".into());
        Delete { key: key(name), uid, resource_version, why: "", only_if_empty }
    }

    #[test]
    fn every_bad_write_is_found() {
        for (name, update, expected) in [
            ("/secrets/ns/unheard", false, "is not in the backup"),
            ("/secrets/kube-system/s", false, "Kubernetes' own"),
            ("act.io/clusters//c", false, "no own term"),
            ("/secrets/ns/known", false, "exists"),
            ("/secrets/ns/foreign", true, "overwritten"),
            ("x.io/things//t", true, "not known here"),
            ("x.io/things//t", false, "twice"),
        ] {
            check_found(Scope::Passive, expected, |plan| plan.writes.push(write(name, update)));
        }
    }

    #[test]
    fn every_bad_delete_is_found() {
        for (name, expected) in [
            ("/secrets/ns/known", "is in the backup"),
            ("x.io/things//t", "owns what stays"),
            ("/secrets/ns/adopted", "not ours"),
            ("/secrets/ns/unheard", "not known here"),
            ("act.io/clusters//old", "not ours"),
            ("partial.io/things//old", "not complete"),
            ("/secrets/understudy-system/s", "Understudy's own"),
        ] {
            check_found(Scope::Passive, expected, |plan| plan.deletes.push(delete(name)));
        }
        check_found(Scope::Activation { epoch: 1 }, "deletes nothing", |plan| {
            plan.deletes.push(delete("/secrets/ns/old"));
        });
        check_found(Scope::Passive, "guards", |plan| plan.deletes[0].uid = "".into());
        check_found(Scope::Passive, "guards", |plan| plan.deletes[0].resource_version = "6".into());
        check_found(Scope::Passive, "maxDeletes", |plan| {
            plan.deletes = vec![plan.deletes[0].clone(); 1000];
        });
    }

    #[test]
    fn an_owner_that_comes_too_late_is_found() {
        check_found(Scope::Passive, "before its owner", |plan| {
            plan.writes.retain(|write| write.key.resource() != "things");
            plan.writes.push(write("x.io/things//t", false));
        });
        check_found(Scope::Passive, "not in order", |plan| plan.writes.reverse());
    }

    #[test]
    fn what_must_be_inert_is_not_written_awake_without_an_own_term() {
        let rules = r#"[
            {"group": "x.io", "kind": "Part", "patch": {"spec": {"paused": true}}},
            {"group": "new.io", "kind": "New", "patch": {"spec": {"paused": true}}}
        ]"#;
        let settings = crate::config::settings::RestorePolicy {
            transforms: serde_json::from_str(rules).unwrap(),
            ..Default::default()
        };
        let case = Case {
            contents: contents(&[("x.io/parts/ns/p", &[]), ("new.io/news/ns/n", &[])]),
            policy: Policy::new("eu", "understudy-system", &settings),
            ..Case::default()
        };
        let found = |scope, spoil: &dyn Fn(&mut Plan)| {
            let desired = case.desired(scope);
            let mut bad = plan(&desired);
            bad.writes.retain(|write| write.key.group() == "x.io");
            assert!(check(bad.clone(), &desired).is_ok(), "the plan is good before it is spoiled");
            spoil(&mut bad);
            check(bad, &desired).map_or_else(|error| error.to_string(), |_| "nothing".to_owned())
        };
        let awake = |plan: &mut Plan| plan.writes[0].inert = None;
        let otherwise = |plan: &mut Plan| plan.writes[0].inert = Some(1);
        let early = |plan: &mut Plan| plan.writes[0].stage.class = Class::Namespaced;
        let unknown = |plan: &mut Plan| plan.writes.push(write("new.io/news/ns/n", false));
        let (catch_up, activation) = (Scope::CatchUp { epoch: 2 }, Scope::Activation { epoch: 2 });
        for (scope, spoil, expected) in [
            (Scope::Passive, &awake as &dyn Fn(&mut Plan), "awake and there is no own term"),
            (Scope::Passive, &otherwise, "awake and there is no own term"),
            (Scope::Passive, &unknown, "its kind is not known here"),
            (catch_up, &awake, "nothing"),
            (activation, &awake, "nothing"),
            (activation, &early, "would wake before others"),
        ] {
            let found = found(scope, spoil);
            assert!(found.contains(expected), "{found}");
        }
    }
}
