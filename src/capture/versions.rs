//! At which version a kind is asked for: the one in which its objects are stored, where that is served.
//! Then no conversion stands in the way, least of all a webhook that is away.
//!
//! Discovery does not tell it, the CRD does. A process asks once for each kind that several versions
//! offer, and again when others are offered. What may go wrong: the stored version changes while the
//! offered ones stay; then objects are converted until the process starts anew, or until that fails.

use crate::kube_client::{self, KubeError};
use crate::object::{GroupResource, Kind, ObjectKey};
use crate::retry::{self, Policy};
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// What a `CustomResourceDefinition` says of its objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// It is being deleted, and its objects with it.
    pub deleting: bool,
    /// None: the version in which they are stored is not served.
    pub storage: Option<String>,
}

/// The definition of a kind. None: it has none, or this user may not read it.
pub async fn definition(
    client: &kube::Client,
    policy: &Policy,
    kind: &GroupResource,
) -> Result<Option<Definition>, KubeError> {
    let (group, resource) = ("apiextensions.k8s.io", "customresourcedefinitions");
    // What cannot be a name is none of a definition.
    let Ok(key) = ObjectKey::new(group, resource, "", &kind.to_string()) else { return Ok(None) };
    let (path, never) = (key.url_path("v1"), CancellationToken::new());
    let attempt = || kube_client::list_page(client, &path, &[]);
    match retry::retry(policy, &path, &never, KubeError::next, attempt).await {
        Ok(body) => read(&body).map(Some).map_err(|source| KubeError::Unreadable {
            verb: "get",
            path: path.clone(),
            source,
        }),
        Err(error) if matches!(error.code(), Some(403 | 404)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(body: &[u8]) -> Result<Definition, serde_json::Error> {
    #[derive(Deserialize)]
    struct Crd {
        metadata: Metadata,
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(rename = "deletionTimestamp")]
        deleted: Option<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Spec {
        versions: Vec<Version>,
    }
    #[derive(Deserialize)]
    struct Version {
        name: String,
        served: bool,
        storage: bool,
    }
    let Crd { metadata, spec } = serde_json::from_slice(body)?;
    let storage = spec.versions.into_iter().find(|version| version.storage && version.served);
    Ok(Definition {
        deleting: metadata.deleted.is_some(),
        storage: storage.map(|version| version.name),
    })
}

/// What this process knows: the versions that were offered when it asked, and the one to ask for.
#[derive(Debug, Default)]
pub struct Versions(BTreeMap<GroupResource, (Vec<String>, String)>);

impl Versions {
    /// Sets the version of a kind that `offered` offers, the preferred one first.
    pub async fn choose(
        &mut self,
        client: &kube::Client,
        policy: &Policy,
        kind: &mut Kind,
        offered: &[String],
    ) -> Result<(), KubeError> {
        let name = kind.group_resource();
        if self.0.get(&name).is_none_or(|(known, _)| known != offered) {
            let definition = definition(client, policy, &name).await?;
            let stored = definition.and_then(|definition| definition.storage);
            let stored = stored.filter(|version| offered.contains(version));
            let chosen = stored.unwrap_or_else(|| kind.version.clone());
            self.0.insert(name.clone(), (offered.to_vec(), chosen));
        }
        if let Some((_, chosen)) = self.0.get(&name) {
            kind.version.clone_from(chosen);
        }
        Ok(())
    }

    /// It could not be listed at the chosen version.
    pub fn forget(&mut self, kind: &GroupResource) {
        self.0.remove(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_to_ask_for_is_stored_and_served() {
        let version = |name: &str, served: bool, storage: bool| serde_json::json!({"name": name, "served": served, "storage": storage});
        for (name, versions, storage) in [
            ("one", vec![version("v1", true, true)], Some("v1")),
            (
                "an older one",
                vec![version("v2", true, false), version("v1", true, true)],
                Some("v1"),
            ),
            (
                "no longer served",
                vec![version("v2", true, false), version("v1", false, true)],
                None,
            ),
        ] {
            for (deleted, deleting) in [(serde_json::json!(null), false), ("2026".into(), true)] {
                let crd = serde_json::json!({
                    "metadata": {"name": "as.g", "deletionTimestamp": deleted},
                    "spec": {"versions": versions},
                });
                let expected = Definition { deleting, storage: storage.map(str::to_owned) };
                assert_eq!(read(crd.to_string().as_bytes()).unwrap(), expected, "{name}");
            }
        }
    }
}
