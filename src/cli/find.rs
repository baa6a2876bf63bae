//! Pure: which object of a backup is meant by a kind and a name as people type them, and what they
//! may have meant when there is none.

use crate::object::{GroupResource, ObjectKey};
use std::collections::BTreeSet;
use std::fmt;

/// Suggestions that a person still reads.
const NEAR: usize = 5;

/// Two names that agree less than this are not one name mistyped.
const ALIKE: f64 = 0.85;

/// As typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `policies`, `Policy` or `policies.policy.open-cluster-management.io`
    pub kind: String,
    /// `None`: any, or none for cluster-scoped objects.
    pub namespace: Option<String>,
    pub name: String,
}

impl Wanted {
    /// `name`: `[NS/]NAME`.
    pub fn new(kind: String, name: &str) -> Self {
        match name.split_once('/') {
            Some((namespace, name)) => {
                Self { kind, namespace: Some(namespace.to_owned()), name: name.to_owned() }
            }
            None => Self { kind, namespace: None, name: name.to_owned() },
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    One(ObjectKey),
    /// The words are not enough.
    Several(Vec<ObjectKey>),
    /// The likeliest first: objects, or else kinds.
    Nothing {
        near: Vec<String>,
    },
}

/// `policies`, or `policies.policy.open-cluster-management.io`.
pub fn is_plural(word: &str, kind: &GroupResource) -> bool {
    word.eq_ignore_ascii_case(&kind.resource) || word.eq_ignore_ascii_case(&kind.to_string())
}

/// `Policy` or `policy`, or the same with the group behind a dot.
pub fn is_kind(word: &str, kind: &GroupResource, name: &str) -> bool {
    word.eq_ignore_ascii_case(name) || word.eq_ignore_ascii_case(&format!("{name}.{}", kind.group))
}

/// `kinds`: those that the word for the kind can mean.
pub fn find<'a>(
    keys: impl Iterator<Item = &'a ObjectKey> + Clone,
    kinds: &BTreeSet<GroupResource>,
    wanted: &Wanted,
) -> Found {
    let in_place = |key: &ObjectKey| {
        key.name() == wanted.name
            && wanted.namespace.as_deref().is_none_or(|n| n == key.namespace())
    };
    let is_meant = |key: &&ObjectKey| in_place(key) && kinds.contains(&key.group_resource());
    let mut found: Vec<ObjectKey> = keys.clone().filter(is_meant).cloned().collect();
    found.sort();
    match found.len() {
        0 => Found::Nothing { near: near(keys, kinds, wanted) },
        1 => Found::One(found.remove(0)),
        _ => {
            found.truncate(NEAR);
            Found::Several(found)
        }
    }
}

fn near<'a>(
    keys: impl Iterator<Item = &'a ObjectKey> + Clone,
    kinds: &BTreeSet<GroupResource>,
    wanted: &Wanted,
) -> Vec<String> {
    let objects = keys.clone().filter_map(|key| {
        let here = wanted.namespace.as_deref().is_none_or(|n| n == key.namespace());
        let alike = if key.name() == wanted.name {
            1.0
        } else {
            strsim::jaro_winkler(key.name(), &wanted.name)
        };
        let score = match (kinds.contains(&key.group_resource()), here) {
            // In its place a name may be further from what was typed than elsewhere.
            (true, true) if alike >= ALIKE => 2.0 + alike,
            (true, false) if key.name() == wanted.name => 2.5,
            (false, true) if key.name() == wanted.name && wanted.namespace.is_some() => 1.0,
            _ => return None,
        };
        Some((score, key.to_string()))
    });
    let objects = best(objects.collect());
    if !objects.is_empty() || !kinds.is_empty() {
        return objects;
    }
    let held: BTreeSet<GroupResource> = keys.map(ObjectKey::group_resource).collect();
    let word = wanted.kind.to_lowercase();
    let alike = |kind: &GroupResource| {
        let (short, long) = (&kind.resource, kind.to_string());
        strsim::jaro_winkler(&word, short).max(strsim::jaro_winkler(&word, &long))
    };
    let scored = held.iter().map(|kind| (alike(kind), kind.to_string()));
    best(scored.filter(|(score, _)| *score >= ALIKE).collect())
}

/// Highest first, and among equals by name, so that the answer is the same every time.
fn best(mut scored: Vec<(f64, String)>) -> Vec<String> {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(NEAR).map(|(_, text)| text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "policy.open-cluster-management.io";

    fn keys() -> Vec<ObjectKey> {
        [
            ("", "configmaps", "apps", "site"),
            ("", "configmaps", "default", "site"),
            ("", "secrets", "apps", "login"),
            ("", "namespaces", "", "apps"),
            (POLICY, "policies", "policies", "limit-ranges"),
            (POLICY, "policies", "policies", "limit-roles"),
            ("kyverno.io", "policies", "policies", "limit-ranges"),
        ]
        .map(|(group, resource, namespace, name)| {
            ObjectKey::new(group, resource, namespace, name).unwrap()
        })
        .into()
    }

    fn check(kind: &str, name: &str) -> Found {
        let (keys, wanted) = (keys(), Wanted::new(kind.to_owned(), name));
        let singular = |kind: &GroupResource| match &*kind.resource {
            "policies" => "Policy".to_owned(),
            plural => plural.trim_end_matches('s').to_owned(),
        };
        let kinds = keys.iter().map(ObjectKey::group_resource);
        let kinds = kinds.filter(|k| is_plural(kind, k) || is_kind(kind, k, &singular(k)));
        find(keys.iter(), &kinds.collect(), &wanted)
    }

    #[track_caller]
    fn one(kind: &str, name: &str, expected: &str) {
        let found = check(kind, name);
        let Found::One(key) = &found else { panic!("{kind} {name}: {found:?}") };
        assert_eq!(key.to_string(), expected);
    }

    #[track_caller]
    fn nothing(kind: &str, name: &str, expected: &[&str]) {
        let found = check(kind, name);
        let Found::Nothing { near } = &found else { panic!("{kind} {name}: {found:?}") };
        assert_eq!(near, expected, "{kind} {name}");
    }

    #[test]
    fn an_object_is_found_by_every_name_of_its_kind() {
        for kind in ["configmaps", "ConfigMap", "configmap", "CONFIGMAPS"] {
            one(kind, "apps/site", "configmaps apps/site");
        }
        for kind in [format!("policies.{POLICY}"), format!("Policy.{POLICY}")] {
            one(
                &kind,
                "policies/limit-ranges",
                &format!("policies.{POLICY} policies/limit-ranges"),
            );
        }
        one("namespace", "apps", "namespaces apps");
        one("secret", "login", "secrets apps/login");
    }

    #[test]
    fn words_that_mean_several_objects_choose_none() {
        let several = |kind, name| {
            let found = check(kind, name);
            let Found::Several(keys) = &found else { panic!("{found:?}") };
            keys.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            several("configmap", "site"),
            ["configmaps apps/site", "configmaps default/site"]
        );
        assert_eq!(several("policies", "policies/limit-ranges").len(), 2);
    }

    #[test]
    fn what_is_not_there_brings_what_may_have_been_meant() {
        nothing("configmap", "aps/site", &["configmaps apps/site", "configmaps default/site"]);
        nothing("secret", "apps/logn", &["secrets apps/login"]);
        let ranges = format!("policies.{POLICY} policies/limit-ranges");
        let roles = format!("policies.{POLICY} policies/limit-roles");
        let kind = format!("policies.{POLICY}");
        nothing(&kind, "policies/limit-range", &[&ranges, &roles]);
        nothing("deployment", "apps/login", &["secrets apps/login"]);
        nothing("polices", "x/y", &["policies.kyverno.io", &kind]);
        nothing("widgets", "x/y", &[]);
        nothing("secrets", "apps/entirely-different", &[]);
    }
}
