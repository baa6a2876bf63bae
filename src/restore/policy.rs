//! Pure: what this hub accepts from a backup, whatever the backup holds.
//!
//! The storage is not trusted and the primary's administrators are not this hub's: a backup may
//! name anything. The rules here come from the restoring hub's own configuration and from what
//! can never be right, and they hold for writing as well as for deleting.

use super::conflict::{Conflict, ConflictRule};
use super::transform::{Patch, TransformRule};
use crate::config::settings::RestorePolicy;
use crate::object::{GroupResource, Kind, ObjectKey};
use std::collections::HashSet;

/// (group, resource): read from a hub's own life, never right on another hub. An empty resource
/// stands for the whole group.
const NEVER: &[(&str, &str)] = &[
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "endpoints"),
    ("", "events"),
    ("", "nodes"),
    ("", "pods"),
    ("apps", "controllerrevisions"),
    ("apps", "replicasets"),
    ("authentication.k8s.io", ""),
    ("authorization.k8s.io", ""),
    ("coordination.k8s.io", ""),
    ("discovery.k8s.io", ""),
    ("events.k8s.io", ""),
    ("metrics.k8s.io", ""),
    ("understudy.dev", ""),
];

/// Groups whose objects can raise privileges or change how every request is handled: only kinds
/// that the configuration names.
const ONLY_IF_ALLOWED: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authorization.openshift.io",
    "certificates.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "oauth.openshift.io",
    "rbac.authorization.k8s.io",
    "security.openshift.io",
    "user.openshift.io",
];

/// (resource, name): made by every hub for every namespace.
const MADE_BY_THE_HUB: &[(&str, &str)] = &[
    ("configmaps", "kube-root-ca.crt"),
    ("configmaps", "openshift-service-ca.crt"),
    ("serviceaccounts", "default"),
];

/// Which sets may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A passive hub: everything but the activation set, inert where a rule makes it so.
    Passive,
    /// The same under an own term: what is awake already stays awake.
    CatchUp { epoch: u64 },
    /// Under an own term, all three sets (I12), and nothing inert.
    Activation { epoch: u64 },
}

impl Scope {
    pub fn holds_back_activation(self) -> bool {
        matches!(self, Scope::Passive | Scope::CatchUp { .. })
    }

    /// Whether a run in this scope would leave as it is what `before` left.
    pub fn is_covered_by(self, before: Self) -> bool {
        self == before || matches!((before, self), (Scope::Passive, Scope::CatchUp { .. }))
    }
}

/// In which form an object stands on a passive hub.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    AsInBackup,
    Inert(&'a Patch),
    /// Its kind is not known here, and could be one of a rule.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Policy {
    /// The value of the label on everything that is ours.
    pub pair: String,
    /// Where Understudy itself lives.
    pub own_namespace: String,
    /// group, resource
    allowed: HashSet<(String, String)>,
    /// group, resource, name
    adopted: HashSet<(String, String, String)>,
    conflicts: Vec<ConflictRule>,
    recreated: HashSet<GroupResource>,
    statuses: HashSet<GroupResource>,
    transforms: Vec<TransformRule>,
    other_transforms: Vec<TransformRule>,
}

impl Policy {
    pub fn new(pair: &str, own_namespace: &str, settings: &RestorePolicy) -> Self {
        let allowed = settings.allow_kinds.iter();
        let adopted = settings.adopt.iter();
        Self {
            pair: pair.to_owned(),
            own_namespace: own_namespace.to_owned(),
            allowed: allowed.map(|kind| (kind.group.clone(), kind.resource.clone())).collect(),
            adopted: adopted
                .map(|(kind, name)| (kind.group.clone(), kind.resource.clone(), name.clone()))
                .collect(),
            conflicts: settings.conflict.clone(),
            recreated: settings.recreate.iter().cloned().collect(),
            statuses: settings.status.iter().cloned().collect(),
            transforms: settings.transforms.clone(),
            other_transforms: settings.other_transforms.clone(),
        }
    }

    /// Why an object may be neither written nor deleted here. None: it may.
    pub fn refuses(&self, key: &ObjectKey) -> Option<&'static str> {
        let (group, resource, name) = (key.group(), key.resource(), key.name());
        let is_namespace = group.is_empty() && resource == "namespaces";
        let namespace = if is_namespace { name } else { key.namespace() };

        if !namespace.is_empty() && namespace == self.own_namespace {
            return Some("it belongs to Understudy's own namespace");
        }
        if namespace.starts_with("kube-") {
            return Some("it belongs to a namespace of Kubernetes itself");
        }
        if NEVER.iter().any(|(g, r)| *g == group && (r.is_empty() || *r == resource)) {
            return Some("objects of this kind belong to the hub that made them");
        }
        if group.is_empty() && MADE_BY_THE_HUB.contains(&(resource, name)) {
            return Some("every hub makes this object for itself");
        }
        if ONLY_IF_ALLOWED.contains(&group) && !self.allows(group, resource) {
            return Some("the kind is not in this hub's passive.allowKinds");
        }
        None
    }

    fn allows(&self, group: &str, resource: &str) -> bool {
        self.allowed.contains(&(group.to_owned(), resource.to_owned()))
    }

    /// Whether any object of the kind may be taken over.
    pub fn adopts_kind(&self, kind: &Kind) -> bool {
        let ruled = self.conflicts.iter().filter(|rule| rule.policy == Conflict::Adopt);
        ruled.into_iter().any(|rule| rule.matches_kind(&kind.group, &kind.kind))
            || self.adopted.iter().any(|(g, r, _)| *g == kind.group && *r == kind.resource)
    }

    /// What becomes of an object that exists already and is not ours. `kind` as in a manifest.
    pub fn conflict(&self, key: &ObjectKey, kind: &str) -> Conflict {
        let (group, namespace, name) = (key.group(), key.namespace(), key.name());
        if let Some(rule) = self.conflicts.iter().find(|r| r.matches(group, kind, namespace, name))
        {
            return rule.policy;
        }
        let adopted = !self.adopted.is_empty()
            && self.adopted.contains(&(
                group.to_owned(),
                key.resource().to_owned(),
                name.to_owned(),
            ));
        if adopted { Conflict::Adopt } else { Conflict::Keep }
    }

    /// Whether the `status` that a backup holds is restored.
    pub fn keeps_status(&self, key: &ObjectKey) -> bool {
        !self.statuses.is_empty() && self.statuses.contains(&key.group_resource())
    }

    /// How the object stands on a passive hub. `kind`: as this hub serves it. What it does not serve yet
    /// waits for no preset that this hub does not name.
    pub fn passive_form(&self, key: &ObjectKey, kind: Option<&Kind>) -> Form<'_> {
        let Some(kind) = kind else {
            let may_be = self.transforms.iter().any(|rule| rule.may_match(key));
            return if may_be { Form::Unknown } else { Form::AsInBackup };
        };
        let mut rules = self.transforms.iter().chain(&self.other_transforms);
        match rules.find(|rule| rule.matches(kind, key)) {
            Some(rule) if !rule.patch.is_empty() => Form::Inert(&rule.patch),
            Some(_) | None => Form::AsInBackup,
        }
    }

    /// What made an object inert that has this tag in its mark. None: no rule of today.
    pub fn patch(&self, tag: u32) -> Option<&Patch> {
        let rules = self.transforms.iter().chain(&self.other_transforms);
        let mut patches = rules.map(|rule| &rule.patch);
        patches.find(|patch| !patch.is_empty() && patch.tag() == tag)
    }

    /// Whether the object may be deleted and created again where a field cannot be changed.
    pub fn recreates(&self, key: &ObjectKey) -> bool {
        !self.recreated.is_empty() && self.recreated.contains(&key.group_resource())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::GroupResource;

    fn check(group: &str, resource: &str, namespace: &str, name: &str, refused: bool) {
        let kind = |group: &str, resource: &str| GroupResource {
            group: group.into(),
            resource: resource.into(),
        };
        let settings = RestorePolicy {
            allow_kinds: vec![
                kind("apiextensions.k8s.io", "customresourcedefinitions"),
                kind("", "pods"),
            ],
            ..RestorePolicy::default()
        };
        let policy = Policy::new("eu", "understudy-system", &settings);
        let key = ObjectKey::new(group, resource, namespace, name).unwrap();
        assert_eq!(policy.refuses(&key).is_some(), refused, "{key}: {:?}", policy.refuses(&key));
    }

    #[test]
    fn a_hostile_backup_reaches_only_what_the_hub_allows() {
        for (group, resource, namespace, name, refused) in [
            ("", "configmaps", "team", "x", false),
            ("", "configmaps", "kubernetes", "x", false),
            ("", "configmaps", "kube-system", "x", true),
            ("", "namespaces", "", "kube-public", true),
            ("", "namespaces", "", "team", false),
            ("", "secrets", "understudy-system", "key", true),
            ("", "namespaces", "", "understudy-system", true),
            ("", "configmaps", "team", "kube-root-ca.crt", true),
            ("", "serviceaccounts", "team", "default", true),
            ("", "configmaps", "team", "default", false),
            ("x.io", "serviceaccounts", "team", "default", false),
            ("", "nodes", "", "n1", true),
            ("", "pods", "team", "p", true),
            ("apps", "replicasets", "team", "r", true),
            ("apps", "deployments", "team", "d", false),
            ("understudy.dev", "hubs", "", "eu-1", true),
            ("rbac.authorization.k8s.io", "clusterroles", "", "admin", true),
            ("admissionregistration.k8s.io", "validatingadmissionpolicies", "", "p", true),
            ("apiregistration.k8s.io", "apiservices", "", "v1.x.io", true),
            ("apiextensions.k8s.io", "customresourcedefinitions", "", "x.y.io", false),
        ] {
            check(group, resource, namespace, name, refused);
        }
    }

    #[test]
    fn the_first_rule_counts_then_adoption_by_kind_and_name() {
        let kind = GroupResource { group: "x.io".into(), resource: "sets".into() };
        let rules = r#"[
            {"group": "x.io", "kind": "Set", "name": "mine-*", "policy": "keep"},
            {"kind": ["Set", "Bag"], "name": "*-2", "policy": "adopt"},
            {"namespace": "team-*", "policy": "refuse"}
        ]"#;
        let settings = RestorePolicy {
            adopt: vec![(kind, "default".into())],
            conflict: serde_json::from_str(rules).unwrap(),
            ..RestorePolicy::default()
        };
        let policy = Policy::new("eu", "understudy-system", &settings);
        for (group, kind, namespace, name, expected) in [
            ("x.io", "Set", "", "default", Conflict::Adopt),
            ("y.io", "Set", "", "default", Conflict::Keep),
            ("x.io", "Set", "", "mine-2", Conflict::Keep),
            ("y.io", "Set", "", "mine-2", Conflict::Adopt),
            ("", "ConfigMap", "team-a", "x", Conflict::Refuse),
            ("", "Bag", "team-a", "x-2", Conflict::Adopt),
            ("", "ConfigMap", "other", "x", Conflict::Keep),
        ] {
            let resource = format!("{}s", kind.to_lowercase());
            let key = ObjectKey::new(group, &resource, namespace, name).unwrap();
            assert_eq!(policy.conflict(&key, kind), expected, "{key}");
        }
    }

    #[test]
    fn what_acts_is_inert_also_by_a_preset_that_this_hub_does_not_name() {
        let rules = |text: &str| serde_json::from_str(text).unwrap();
        let settings = RestorePolicy {
            transforms: rules(
                r#"[{"group": "x.io", "name": "mine", "patch": {}},
                    {"group": "y.io", "kind": "Engine", "patch": {"spec": {"a": 1}}}]"#,
            ),
            other_transforms: rules(
                r#"[{"group": ["x.io", "y.io"], "patch": {"spec": {"b": 1}}},
                    {"category": "acting", "patch": {"spec": {"b": 1}}}]"#,
            ),
            ..RestorePolicy::default()
        };
        let policy = Policy::new("eu", "understudy-system", &settings);
        let form = |group: &str, name: &str, kind: Option<(&str, &[&str])>| {
            let key = ObjectKey::new(group, "engines", "ns", name).unwrap();
            let kind = kind.map(|(kind, categories)| Kind {
                categories: categories.iter().map(|&category| category.to_owned()).collect(),
                ..crate::restore::testing::kind(group, kind, "engines", true)
            });
            match policy.passive_form(&key, kind.as_ref()) {
                Form::AsInBackup => "as in the backup",
                Form::Unknown => "unknown",
                Form::Inert(patch) => {
                    assert!(policy.patch(patch.tag()).is_some());
                    if patch.tag() == settings.transforms[1].patch.tag() { "a" } else { "b" }
                }
            }
        };
        for (group, name, kind, expected) in [
            ("y.io", "e", Some(("Engine", &[][..])), "a"),
            ("y.io", "e", Some(("Other", &[])), "b"),
            ("x.io", "e", Some(("Engine", &[])), "b"),
            ("x.io", "mine", Some(("Engine", &["acting"])), "as in the backup"),
            ("z.io", "e", Some(("Engine", &["acting"])), "b"),
            ("z.io", "e", Some(("Engine", &["other"])), "as in the backup"),
            ("y.io", "e", None, "unknown"),
            ("x.io", "mine", None, "unknown"),
            ("x.io", "e", None, "as in the backup"),
        ] {
            assert_eq!(form(group, name, kind), expected, "{group} {name} {kind:?}");
        }
    }
}
