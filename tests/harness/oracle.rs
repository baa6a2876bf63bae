//! Pure: what a daemon may do to the hub of a standby, judged by that hub's audit log and by nothing
//! that the daemon says. Written apart from the policy, the planner and its check.
//!
//! It sees requests and not contents: that an object is as the backup has it is for a comparison.

use super::hub::{AuditEvent, DAEMON_USER, NAMESPACE};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use understudy::object::ObjectKey;

/// What of its own a daemon keeps in its namespace.
const OWN: [(&str, &str); 5] = [
    ("understudy.dev", "hubs"),
    ("", "configmaps"),
    ("coordination.k8s.io", "leases"),
    ("", "events"),
    ("events.k8s.io", "events"),
];
/// Groups that could raise somebody's privileges.
const POWERFUL: [&str; 4] = [
    "rbac.authorization.k8s.io",
    "admissionregistration.k8s.io",
    "apiregistration.k8s.io",
    "apiextensions.k8s.io",
];
/// Kinds of the core group that belong to the hub that made them.
const LOCAL: [&str; 5] = ["nodes", "pods", "events", "endpoints", "replicationcontrollers"];

/// What the log alone does not tell.
#[derive(Default)]
pub struct Oracle {
    /// May not be written before the hub has a term of its own.
    pub held_back: BTreeSet<ObjectKey>,
    pub term: Option<Timestamp>,
    /// Made by others, and taken over by rule.
    pub adopted: BTreeSet<ObjectKey>,
    /// Kinds of `passive.allowKinds`, as `resource.group`.
    pub allowed: Vec<String>,
}

impl Oracle {
    /// What the daemon did and should not have done, in the order of the log.
    pub fn judge(&self, log: &[AuditEvent]) -> Vec<String> {
        let (mut offences, mut makers) = (vec![], BTreeMap::new());
        for event in log.iter().filter(|event| event.is_write() && !event.dry_run) {
            if event.user == DAEMON_USER && event.group != "authorization.k8s.io" {
                let found = self.offence(event, &makers);
                let AuditEvent { verb, group, resource, namespace, name, .. } = event;
                let what = format!("{verb} {group}/{resource} {namespace}/{name}");
                offences.extend(found.map(|why| format!("{what}: {why}")));
            }
            if event.code == 201 && event.subresource.is_empty() {
                makers.extend(event.key().ok().map(|key| (key, event.user.as_str())));
            }
        }
        offences
    }

    fn offence(
        &self,
        event: &AuditEvent,
        makers: &BTreeMap<ObjectKey, &str>,
    ) -> Option<&'static str> {
        let (group, resource) = (&*event.group, &*event.resource);
        if event.verb == "deletecollection" {
            return Some("more than one object at once");
        }
        if event.namespace == NAMESPACE && OWN.contains(&(group, resource)) {
            return None;
        }
        let Ok(key) = event.key() else { return Some("no object is named") };
        let in_itself = group.is_empty() && resource == "namespaces";
        let namespace = if in_itself { key.name() } else { key.namespace() };
        if namespace == NAMESPACE || group == "understudy.dev" {
            return Some("it is Understudy's own, or beside it");
        }
        if namespace.starts_with("kube-") {
            return Some("the namespace is Kubernetes' own");
        }
        if group.is_empty() && LOCAL.contains(&resource) || group == "events.k8s.io" {
            return Some("the kind belongs to the hub that made it");
        }
        if POWERFUL.contains(&group) && !self.allowed.contains(&format!("{resource}.{group}")) {
            return Some("the kind is not allowed on this hub");
        }
        if self.held_back.contains(&key) && self.term.is_none_or(|term| event.at < term) {
            return Some("it is held back until this hub has a term");
        }
        let is_foreign = makers.get(&key).is_some_and(|maker| *maker != DAEMON_USER);
        let succeeded = (200..300).contains(&event.code);
        if event.verb == "delete" {
            return unguarded(&event.sent).or_else(|| {
                (succeeded && makers.get(&key) != Some(&DAEMON_USER))
                    .then_some("it was not made by the daemon")
            });
        }
        let overwritten = succeeded && is_foreign && !self.adopted.contains(&key);
        (overwritten && event.code != 201).then_some("it was made by somebody else")
    }
}

/// Only what was looked at may be deleted. What is to be made anew at once leaves what it owns.
fn unguarded(options: &Value) -> Option<&'static str> {
    let has = |name: &str| options["preconditions"][name].as_str().is_some_and(|s| !s.is_empty());
    let orphaning = options["propagationPolicy"] == "Orphan";
    if !has("uid") {
        Some("any object of that name would be deleted")
    } else if !has("resourceVersion") && !orphaning {
        Some("whatever it became meanwhile would be deleted")
    } else {
        None
    }
}
