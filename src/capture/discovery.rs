//! Which kinds a hub serves: read again on every run, because CRDs come and go.
//!
//! A group version whose document is stale (its aggregated API server is away) is named, never
//! silently left out.

use crate::object::Kind;
use kube::core::discovery::v2::{APIGroupDiscovery, APIVersionDiscovery};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Every kind that can be listed and created, at its preferred version; sorted.
    pub kinds: Vec<Kind>,
    /// Groups of which a version could not be read.
    pub failed: BTreeSet<String>,
}

/// Two requests: the aggregated discovery documents (Kubernetes 1.30 and later).
pub async fn discover(client: &kube::Client) -> Result<Discovered, kube::Error> {
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    Ok(kinds(core.items.iter().chain(&groups.items)))
}

/// The first version of a group that serves a resource is its preferred one; resources that only an
/// older version serves are taken at that one.
fn kinds<'a>(groups: impl Iterator<Item = &'a APIGroupDiscovery>) -> Discovered {
    let mut discovered = Discovered::default();
    for group in groups {
        let name = group.metadata.as_ref().and_then(|m| m.name.as_deref()).unwrap_or_default();
        let mut taken = BTreeSet::new();
        for version in &group.versions {
            let version_name = version.version.as_deref().unwrap_or_default();
            if version.freshness.as_deref() == Some("Stale") {
                discovered.failed.insert(name.to_owned());
            }
            for kind in kinds_of_version(name, version_name, version) {
                if taken.insert(kind.resource.clone()) {
                    discovered.kinds.push(kind);
                }
            }
        }
    }
    discovered.kinds.sort();
    discovered
}

fn kinds_of_version<'a>(
    group: &'a str,
    version: &'a str,
    document: &'a APIVersionDiscovery,
) -> impl Iterator<Item = Kind> + 'a {
    document.resources.iter().filter_map(move |resource| {
        let can = |verb: &str| resource.verbs.iter().any(|v| v == verb);
        if !can("list") || !can("create") {
            return None;
        }
        Some(Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: resource.response_kind.as_ref()?.kind.clone()?,
            resource: resource.resource.clone()?,
            namespaced: resource.scope.as_deref() == Some("Namespaced"),
            categories: resource.categories.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_version_of_each_resource_is_taken_and_stale_groups_are_named() {
        let resource = |name: &str, kind: &str, verbs: &str| {
            serde_json::json!({"resource": name, "responseKind": {"kind": kind}, "scope": "Namespaced",
                "verbs": verbs.split(',').collect::<Vec<_>>()})
        };
        let groups: Vec<APIGroupDiscovery> = serde_json::from_value(serde_json::json!([
            {"metadata": {"name": "g"}, "versions": [
                {"version": "v2", "freshness": "Current", "resources": [resource("as", "A", "list,create"), resource("reviews", "R", "create")]},
                {"version": "v1", "freshness": "Current", "resources": [resource("as", "A", "list,create"), resource("bs", "B", "list,create")]},
            ]},
            {"metadata": {"name": "away"}, "versions": [{"version": "v1", "freshness": "Stale", "resources": []}]},
        ]))
        .unwrap();
        let Discovered { kinds, failed } = kinds(groups.iter());
        let names: Vec<_> =
            kinds.iter().map(|k| format!("{} {}", k.resource, k.api_version())).collect();
        assert_eq!(names, ["bs g/v1", "as g/v2"]);
        assert_eq!(failed, ["away".to_owned()].into());
    }
}
