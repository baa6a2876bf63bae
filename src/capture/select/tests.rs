//! Tables over the selection: the built-in exclusions, the grammar, the presets.

use super::*;
use crate::capture::rules::SetRules;
use crate::object::ObjectKey;

pub(super) fn kind(name: &str) -> Kind {
    let (group, kind) = name.rsplit_once('/').unwrap_or(("", name));
    let cluster_scoped = [
        "Namespace",
        "Node",
        "ManagedCluster",
        "ManagedClusterSet",
        "ClusterRole",
        "CustomResourceDefinition",
    ];
    Kind {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        resource: format!("{}s", kind.to_lowercase()),
        namespaced: !cluster_scoped.contains(&kind),
        categories: Vec::new(),
    }
}

/// An object as `group/Kind namespace/name key=value …`; `type=`, `controller=` and `category=` are no
/// labels, keys that begin with `ns:` are labels of the namespace.
pub(super) fn with<T>(object: &str, ask: impl FnOnce(&Candidate<'_>) -> T) -> T {
    let mut words = object.split_whitespace();
    let mut kind = kind(words.next().unwrap());
    let place = words.next().unwrap();
    kind.namespaced = place.contains('/');
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    let (mut labels, mut namespace_labels) = (Vec::new(), Vec::new());
    let (mut secret_type, mut controller_kind) = (None, None);
    for (key, value) in words.map(|word| word.split_once('=').unwrap()) {
        match (key, key.strip_prefix("ns:")) {
            ("type", _) => secret_type = Some(value),
            ("controller", _) => controller_kind = Some(value),
            ("category", _) => kind.categories.push(value.to_owned()),
            (_, Some(key)) => namespace_labels.push((key.to_owned(), value.to_owned())),
            _ => labels.push((Cow::Borrowed(key), Cow::Borrowed(value))),
        }
    }
    ask(&Candidate {
        kind: &kind,
        namespace,
        name,
        labels: &labels,
        annotations: &[],
        namespace_labels: &namespace_labels,
        secret_type,
        controller_kind,
    })
}

fn decide(selection: &Selection, object: &str) -> Verdict {
    with(object, |candidate| {
        let verdict = selection.decide(candidate);
        // What the kind alone decides must agree with what its objects get.
        if matches!(verdict, Verdict::In { .. }) {
            let listed = selection.may_select(candidate.kind);
            assert!(listed, "{object} is selected and its kind not listed");
        }
        verdict
    })
}

/// The set, or the beginning of the rule that keeps it out.
#[track_caller]
fn check(selection: &Selection, table: &[(&str, &str)]) {
    for (object, expected) in table {
        match decide(selection, object) {
            Verdict::In { set, rule } => assert_eq!(set.name(), *expected, "{object}: {rule}"),
            Verdict::Out { rule } => {
                assert!(rule.starts_with(expected), "{object}: out by {rule}, not {expected}");
            }
        }
    }
}

pub(super) fn rules(yaml: &str) -> RuleSets {
    serde_saphyr::from_str(yaml).unwrap()
}

pub(super) fn user(yaml: &str) -> Selection {
    Selection::new(rules(yaml), [])
}

fn everything() -> Selection {
    user("resources: {include: [{group: \"*\"}]}").with_own_namespace("understudy")
}

fn ocm() -> Selection {
    let preset = crate::config::preset::load("ocm").unwrap();
    Selection::new(RuleSets::default(), [preset]).with_own_namespace("understudy")
}

#[test]
fn what_belongs_to_one_cluster_is_never_captured() {
    check(
        &everything(),
        &[
            ("ConfigMap a/x", "resources"),
            ("ConfigMap understudy/x", "built-in: Understudy's own namespace"),
            ("Namespace understudy", "built-in: Understudy's own namespace"),
            ("understudy.dev/Hub a/eu-1", "built-in: Understudy's own objects"),
            ("Event a/x", "built-in: events"),
            ("events.k8s.io/Event a/x", "built-in: events"),
            ("example.com/Event a/x", "resources"),
            ("coordination.k8s.io/Lease a/x", "built-in: leases"),
            ("Endpoints a/x", "built-in: endpoints"),
            ("discovery.k8s.io/EndpointSlice a/x", "built-in: endpoints"),
            ("Node x", "built-in: nodes"),
            ("Pod a/x", "built-in: pods"),
            ("apps/ReplicaSet a/x", "built-in: derived"),
            ("apps/ControllerRevision a/x", "built-in: derived"),
            ("apps/Deployment a/x", "resources"),
            ("batch/Job a/x controller=CronJob", "built-in: a CronJob"),
            ("batch/Job a/x controller=Workflow", "resources"),
            ("batch/Job a/x", "resources"),
            ("ConfigMap kube-system/x", "built-in: kube-*"),
            ("Namespace kube-public", "built-in: kube-*"),
            ("Namespace kubernetes", "resources"),
            ("Namespace default", "built-in: the namespace default"),
            ("ConfigMap default/x", "resources"),
            ("Secret a/t type=kubernetes.io/service-account-token", "built-in: a service account"),
            ("Secret a/t type=Opaque", "resources"),
            ("ServiceAccount a/default", "built-in: every namespace"),
            ("ServiceAccount a/robot", "resources"),
            ("ConfigMap a/kube-root-ca.crt", "built-in: the cluster's own"),
            ("ConfigMap a/openshift-service-ca.crt", "built-in: the cluster's own"),
            ("Secret a/sh.helm.release.v1.x type=helm.sh/release.v1", "built-in: Helm"),
            ("ConfigMap a/x velero.io/exclude-from-backup=true", "built-in: labelled velero"),
            ("ConfigMap a/x velero.io/exclude-from-backup=false", "resources"),
            ("ConfigMap a/x understudy.dev/exclude=true", "built-in: labelled understudy"),
            ("ConfigMap a/x ns:understudy.dev/exclude=true", "built-in: labelled understudy"),
        ],
    );
}

#[test]
fn helm_releases_are_captured_where_a_rule_asks_for_them() {
    let asked = user("resources: {include: [{kind: Secret, secretType: helm.sh/*}]}");
    check(
        &asked,
        &[("Secret a/x type=helm.sh/release.v1", "resources"), ("Secret a/x", "no rule")],
    );
}

#[test]
fn rules_match_by_everything_that_they_name() {
    let selection = user(
        "resources:
  include:
    - {group: '*.example.com', kind: [A, B], namespace: 'team-*', name: '*-x', labels: 'l in (1,2),!m'}
    - {kind: C, namespaceLabels: env=prod}
    - {kind: D, except: [{namespace: b}, {labels: skip}]}
    - {category: 'm*'}
",
    );
    check(
        &selection,
        &[
            ("g.example.com/A team-1/a-x l=1", "resources"),
            ("g.example.com/B team-1/a-x l=2", "resources"),
            ("example.com/A team-1/a-x l=1", "no rule"),
            ("g.example.com/E team-1/a-x l=1", "no rule"),
            ("g.example.com/A other/a-x l=1", "no rule"),
            ("g.example.com/A team-1/a-y l=1", "no rule"),
            ("g.example.com/A team-1/a-x l=3", "no rule"),
            ("g.example.com/A team-1/a-x l=1 m=1", "no rule"),
            ("x/C a/x ns:env=prod", "resources"),
            ("x/C a/x env=prod", "no rule"),
            ("x/D a/x", "resources"),
            ("x/D b/x", "no rule"),
            ("x/D a/x skip=", "no rule"),
            ("x/E a/x category=all category=managed", "resources"),
            ("x/E a/x category=all", "no rule"),
            ("x/E a/x", "no rule"),
        ],
    );
    assert!(!selection.may_select(&kind("x/Other")));
    // A namespace can not be asked of what has none.
    let namespaced = user("resources: {include: [{namespace: '*'}]}");
    assert!(!namespaced.may_select(&kind("rbac.authorization.k8s.io/ClusterRole")));
    assert!(namespaced.may_select(&kind("ConfigMap")));
}

#[test]
fn the_set_that_holds_back_wins_and_exclusions_end_the_matter() {
    let selection = user(
        "exclude: [{namespace: secret}]
activation: {include: [{labels: s=a}, {kind: Work}], exclude: [{name: out}]}
credentials: {include: [{labels: s}], exclude: [{kind: Tmp}]}
resources: {include: [{group: '*'}], exclude: [{kind: Work}, {namespace: cold}]}
",
    );
    check(
        &selection,
        &[
            ("ConfigMap a/x s=a", "activation"),
            ("ConfigMap a/x s=b", "credentials"),
            ("ConfigMap a/x", "resources"),
            ("ConfigMap secret/x s=a", "sets.exclude[0] (namespace secret)"),
            ("Namespace secret", "sets.exclude[0]"),
            // It does not fall to the set below.
            ("ConfigMap a/out s=a", "sets.activation.exclude[0] (name out)"),
            ("Tmp a/x s=b", "sets.credentials.exclude[0]"),
            // Excluded from another set than its own.
            ("Work a/x", "activation"),
            ("ConfigMap cold/x", "sets.resources.exclude[1]"),
            ("ConfigMap cold/x s=b", "credentials"),
        ],
    );
}

pub(super) fn preset(yaml: &str) -> Preset {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn the_user_stands_above_the_presets_and_presets_beside_each_other() {
    let one = "{name: one, sets: {exclude: [{name: never}], credentials: {include: [{group: c}], exclude: [{name: x}]}, resources: {include: [{group: a}], exclude: [{name: x}]}}}";
    let two = "{name: two, sets: {activation: {include: [{group: c, kind: Held}]}, resources: {include: [{group: a, kind: K}, {group: b}, {group: c}]}}}";
    let own = rules(
        "{resources: {include: [{group: a, name: x, namespace: mine}], exclude: [{group: b, name: w}]}}",
    );
    let selection = Selection::new(own, [preset(one), preset(two)]);
    check(
        &selection,
        &[
            ("a/L n/z", "resources"),
            ("a/L n/x", "preset one: resources.exclude[0] (name x)"),
            // A preset narrows its own rules only.
            ("a/K n/x", "resources"),
            // Kept out of a stronger set, it does not come into a weaker one of another preset.
            ("c/K n/x", "preset one: credentials.exclude[0] (name x)"),
            ("c/K n/y", "credentials"),
            ("c/Held n/x", "activation"),
            // What one preset never captures, no other does.
            ("b/L n/never", "preset one: exclude[0] (name never)"),
            ("a/L mine/x", "resources"),
            ("b/L n/z", "resources"),
            ("b/L n/w", "sets.resources.exclude[0] (group b, name w)"),
        ],
    );
    let Verdict::In { rule, .. } = decide(&selection, "b/L n/z") else { panic!("it is in") };
    assert_eq!(rule, "preset two: resources.include[1] (group b)");
}

#[test]
fn no_object_is_selected_without_its_namespace() {
    let selection = user("activation: {include: [{kind: A}]}");
    let verdict = decide(&selection, "Namespace somewhere");
    let rule = NAMESPACES_COME_ALONG.to_owned();
    assert_eq!(verdict, Verdict::In { set: Set::Resources, rule });
    assert!(selection.may_select(&kind("Namespace")));
    // Not even held back: what is not held back may stand in it.
    let label = "cluster.open-cluster-management.io/backup=cluster-activation";
    check(&ocm(), &[(format!("Namespace a {label}").as_str(), "resources")]);
    let excluded = user("resources: {include: [{kind: A}], exclude: [{kind: Namespace, name: b}]}");
    check(&excluded, &[("Namespace a", "resources"), ("Namespace b", "sets.resources.exclude[0]")]);
}

/// `tests/presets/NAME.txt`: the objects of a product's hub, and what is expected of each.
fn table(preset: &str) -> Vec<(String, String)> {
    let file = format!("{}/tests/presets/{preset}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let (object, expected) = line.split_once(" | ").unwrap_or_else(|| panic!("{file}: {line}"));
        (object.to_owned(), expected.trim_end_matches(INERT).to_owned())
    };
    rows.map(row).collect()
}

/// Behind the set of what a passive hub holds inert.
const INERT: &str = " inert";

#[test]
fn a_preset_makes_inert_what_its_table_says() {
    for name in crate::config::preset::names() {
        let preset = crate::config::preset::load(name).unwrap();
        let file = format!("{}/tests/presets/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).unwrap();
        for row in text.lines().filter(|line| line.contains(" | ") && !line.starts_with('#')) {
            with(row.split(" | ").next().unwrap(), |candidate| {
                let Candidate { kind, namespace, name, .. } = *candidate;
                let key = ObjectKey::new(&kind.group, &kind.resource, namespace, name).unwrap();
                let inert = preset.transforms.iter().any(|rule| rule.matches(kind, &key));
                assert_eq!(inert, row.ends_with(INERT), "{file}: {row}");
            });
        }
        for rule in &preset.transforms {
            assert!(!rule.names_nothing() && !rule.reaches_secrets(), "{name}: {rule:?}");
        }
    }
}

/// As a hub that holds the objects of the table sees it: with its own namespaces known.
fn selection_on<'a>(presets: &[&str], objects: impl Iterator<Item = &'a str>) -> Selection {
    let presets = presets.iter().map(|name| crate::config::preset::load(name).unwrap());
    let selection = Selection::new(RuleSets::default(), presets).with_own_namespace("understudy");
    let itself = objects.filter_map(|object| {
        with(object, |candidate| {
            let rules = selection.for_kind(candidate.kind);
            let found = rules.is_hub_itself(candidate);
            assert!(!found || selection.may_be_hub_itself(candidate.kind), "{object}");
            found.then(|| candidate.name.to_owned())
        })
    });
    let itself = itself.collect();
    selection.with_hub_itself(itself)
}

/// The rules of a preset are named without its name in the tables.
#[track_caller]
fn check_preset(name: &str, presets: &[&str], table: &[(String, String)]) {
    let selection = selection_on(presets, table.iter().map(|(object, _)| object.as_str()));
    for (object, expected) in table {
        let verdict = decide(&selection, object);
        let agrees = match &verdict {
            Verdict::In { set, .. } => set.name() == expected,
            _ if Set::ALL.iter().any(|set| set.name() == expected) => false,
            Verdict::Out { rule } => {
                rule.starts_with(expected)
                    || rule.starts_with(&format!("preset {name}: {expected}"))
            }
        };
        assert!(agrees, "{name}: {object}: {verdict:?}, not {expected}");
    }
}

#[test]
fn every_preset_sorts_the_objects_of_its_table() {
    for name in crate::config::preset::names() {
        let table = table(name);
        for set in Set::ALL {
            let some = table.iter().any(|(_, expected)| expected == set.name());
            assert!(some, "the table of {name} has nothing in {set}");
        }
        check_preset(name, &[name], &table);
    }
}

#[test]
fn every_rule_of_a_preset_decides_a_row_of_its_table() {
    for name in crate::config::preset::names() {
        let mut rows = table(name);
        if name == "acm" {
            rows.extend(table("ocm"));
        }
        let selection = selection_on(&[name], rows.iter().map(|(object, _)| object.as_str()));
        let decided: Vec<String> = rows
            .iter()
            .map(|(object, _)| match decide(&selection, object) {
                Verdict::In { rule, .. } | Verdict::Out { rule } => rule,
            })
            .collect();
        let preset = crate::config::preset::load(name).unwrap();
        let mut lists = vec![("exclude".to_owned(), preset.sets.exclude.len())];
        for set in Set::ALL {
            let SetRules { include, exclude } = preset.sets.of(set);
            lists.push((format!("{set}.include"), include.len()));
            lists.push((format!("{set}.exclude"), exclude.len()));
        }
        for (list, rules) in lists {
            for index in 0..rules {
                let rule = format!("preset {name}: {list}[{index}] ");
                let tried = decided.iter().any(|found| found.starts_with(&rule));
                assert!(tried, "{rule}decides no row of tests/presets/{name}.txt");
            }
        }
    }
}

#[test]
fn the_preset_acm_holds_what_the_preset_ocm_holds() {
    let own = table("acm");
    let mut both = table("ocm");
    both.retain(|(object, _)| !own.iter().any(|(again, _)| again == object));
    assert!(both.len() + 2 > table("ocm").len(), "nearly all of it");
    check_preset("acm", &["acm"], &both);
}

#[test]
fn presets_that_stand_together_sort_as_each_alone() {
    // What the two presets of one hub disagree about is told in docs/presets/.
    for together in [
        &["ocm", "argocd", "capi"][..],
        &["crossplane", "karmada", "ocm"],
        &["acm", "argocd", "crossplane"],
        &["rancher", "argocd"],
    ] {
        for name in together {
            let mut table = table(name);
            // Excluded by one and included by another: it is in.
            table.retain(|(_, expected)| expected != "no rule");
            check_preset(name, together, &table);
        }
    }
}

#[test]
fn the_hub_as_its_own_managed_cluster_stays_out_with_its_namespace() {
    let cluster = kind("cluster.open-cluster-management.io/ManagedCluster");
    assert!(ocm().may_be_hub_itself(&cluster));
    assert!(!ocm().may_be_hub_itself(&kind("ConfigMap")));
    let selection = ocm().with_hub_itself(BTreeSet::from(["me".to_owned()]));
    check(
        &selection,
        &[
            ("Namespace me", "built-in: the namespace of the hub itself"),
            (
                "work.open-cluster-management.io/ManifestWork me/w",
                "built-in: the namespace of the hub itself",
            ),
            ("work.open-cluster-management.io/ManifestWork you/w", "activation"),
        ],
    );
}

#[test]
fn the_digest_changes_with_the_rules() {
    let before = ocm().digest();
    assert_eq!(before, ocm().digest());
    assert_ne!(before, ocm().with_own_namespace("other").digest());
    assert_ne!(before, ocm().with_hub_itself(BTreeSet::from(["me".to_owned()])).digest());
    assert_ne!(before, everything().digest());
}

#[test]
fn of_a_group_that_cannot_be_read_it_is_told_whether_anything_could_be_selected() {
    let named = "resources: {include: [{group: \"*.x.io\", kind: A}]}";
    let all = "resources: {include: [{group: \"*\"}]}";
    let but = "exclude: [{group: away.x.io}]\nresources: {include: [{group: \"*\"}]}";
    let partly = "exclude: [{group: away.x.io, kind: A}]\nresources: {include: [{group: \"*\"}]}";
    let by_label = "credentials: {include: [{labels: a=b}]}";
    for (rules, group, may) in [
        (named, "away.x.io", true),
        (named, "away.y.io", false),
        (by_label, "away.y.io", true),
        (all, "away.x.io", true),
        (but, "away.x.io", false),
        (partly, "away.x.io", true),
        (all, "metrics.k8s.io", false),
    ] {
        assert_eq!(user(rules).may_select_of(group), may, "{rules} {group}");
    }
    assert!(ocm().hub_itself_may_be_of("cluster.open-cluster-management.io"));
    assert!(!ocm().hub_itself_may_be_of("policy.open-cluster-management.io"));
}
