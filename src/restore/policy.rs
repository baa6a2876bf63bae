//! Pure: what this hub accepts from a backup, whatever the backup holds.
//!
//! The storage is not trusted and the primary's administrators are not this hub's: a backup may
//! name anything. The rules here come from the restoring hub's own configuration and from what
//! can never be right, and they hold for writing as well as for deleting.

use super::conflict::{Conflict, ConflictRule};
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
    /// A passive hub: everything but the activation set.
    Passive,
    /// Under an own term, all three sets (I12).
    Activation { epoch: u64 },
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
}
