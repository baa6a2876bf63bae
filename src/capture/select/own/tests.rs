//! Tables over rules of one's own that do nothing on a hub.

use super::super::tests::{kind, rules, with};
use super::*;

const KINDS: [&str; 7] = [
    "Secret",
    "Pod",
    "Namespace",
    "policy.x.io/Policy",
    "policy.x.io/PolicySet",
    "work.x.io/Work",
    "apps/Deployment",
];

/// What is told of the rules on a hub that holds these objects: `key: what; hint`.
#[track_caller]
fn check(yaml: &str, objects: &[&str], expected: &[&str]) {
    let preset = "{name: p, sets: {activation: {include: [{kind: Work}]}}}";
    let preset = serde_saphyr::from_str(preset).unwrap();
    let selection = Selection::new(rules(yaml), [preset]);
    let kinds = KINDS.map(kind);
    let mut own = OwnRules::of(&selection, &kinds);
    for object in objects {
        with(object, |candidate| {
            if own.want(candidate.kind) {
                own.see(candidate, &selection.decide(candidate));
            }
        });
    }
    let told = own.warnings(
        &kinds,
        &BTreeSet::from(["away.io".to_owned()]),
        &BTreeSet::from([kind("apps/Deployment").group_resource()]),
    );
    let told: Vec<String> =
        told.iter().map(|Warning { key, what, hint }| format!("{key}: {what}; {hint}")).collect();
    assert_eq!(told, expected, "{yaml}");
}

#[test]
fn a_rule_that_does_something_is_not_told() {
    let objects = ["policy.x.io/Policy n/a", "Secret n/a", "Secret n/b"];
    check(
        "resources: {include: [{group: policy.x.io}, {group: '', kind: Secret}], exclude: [{group: '', name: b}]}",
        &objects,
        &[],
    );
    // The presets' rules are not the operator's.
    check("resources: {include: [{group: '*.x.io', kind: Policy}]}", &objects, &[]);
}

#[test]
fn words_that_the_hub_does_not_know_bring_the_nearest() {
    check(
        "resources: {include: [{group: polcy.x.io}, {group: policy.x.io, kind: [Polcy, Policy]}, {group: policy.x.io, kind: Work}, {group: '', kind: Zebra}]}",
        &["policy.x.io/Policy n/a"],
        &[
            "sets.resources.include[0]: this hub serves no API group polcy.x.io; did you mean policy.x.io?",
            "sets.resources.include[1]: this hub serves no kind Polcy; did you mean Policy?",
            "sets.resources.include[2]: there is no kind Work in the group policy.x.io; Work is of the group \"work.x.io\"",
            "sets.resources.include[3]: this hub serves no kind Zebra; ",
        ],
    );
    // Of a group that could not be read nothing is known.
    check("resources: {include: [{group: away.io}]}", &[], &[]);
}

#[test]
fn a_rule_that_can_match_nothing_is_told() {
    let lacking = "can match no object; its kinds lack what it asks for, such as a namespace or a Secret's type, or its own `except` takes out all of them";
    check(
        "resources: {include: [{group: policy.x.io, secretType: a}, {group: policy.x.io, except: [{group: policy.x.io}]}, {group: '', kind: Pod}]}",
        &["Pod n/a", "policy.x.io/Policy n/a"],
        &[
            &format!("sets.resources.include[0]: {lacking}"),
            &format!("sets.resources.include[1]: {lacking}"),
            "sets.resources.include[2]: names only kinds that are never captured; built-in: pods run on one cluster's nodes",
        ],
    );
}

#[test]
fn a_rule_that_other_rules_overrule_is_told() {
    check(
        "exclude: [{group: '', namespace: team}]
credentials: {include: [{group: '', kind: Secret, namespace: team}, {group: '', kind: Secret, name: z}]}
resources: {include: [{group: work.x.io}], exclude: [{group: policy.x.io}]}
",
        &["Secret team/a", "Secret team/b", "work.x.io/Work n/w", "policy.x.io/Policy n/a"],
        &[
            "sets.credentials.include[0]: changes nothing: all 2 objects that it matches are decided by other rules; such as sets.exclude[0] (group \"\", namespace team)",
            "sets.credentials.include[1]: matches no object of this hub; ",
            "sets.resources.include[0]: changes nothing: the one object that it matches is decided by other rules; such as preset p: activation.include[0] (kind Work)",
            "sets.resources.exclude[0]: changes nothing: the one object that it matches is decided by other rules; no rule includes what it keeps out",
        ],
    );
    // Not all objects of the kind were seen.
    check("resources: {include: [{group: apps, kind: Deployment}]}", &[], &[]);
}

#[test]
fn kinds_that_are_allowed_and_not_served_are_told() {
    let named = |key: &str, group: &str, resource: &str| {
        (key.to_owned(), GroupResource { group: group.to_owned(), resource: resource.to_owned() })
    };
    let told = unserved(
        vec![
            named("a", "apps", "deployments"),
            named("b", "apps", "deployment"),
            named("c", "away.io", "things"),
        ],
        &KINDS.map(kind),
        &BTreeSet::from(["away.io".to_owned()]),
    );
    let [Warning { key, what, hint }] = &*told else { panic!("{told:?}") };
    assert_eq!(
        (&**key, &**what, &**hint),
        ("b", "this hub serves no kind deployment.apps", "did you mean deployments.apps?")
    );
}
