//! Which kinds a hub serves: read again on every run, because CRDs come and go.
//!
//! Two requests give the aggregated documents (Kubernetes 1.30 and later). A server that does not
//! know them answers 406 or with the documents of old, which read as an aggregated one would say that
//! there are no kinds at all: so the answer must say what it is, and else each group version is read
//! by itself.
//!
//! A group version whose document is stale or cannot be read (its aggregated API server is away) is
//! named, never silently left out.

use crate::kube_client::{self, KubeError};
use crate::object::{GroupResource, Kind};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use http::header::ACCEPT;
use kube::core::discovery::v2::{
    ACCEPT_AGGREGATED_DISCOVERY_V2, APIGroupDiscovery, APIResourceDiscovery, APIVersionDiscovery,
    GroupVersionKind,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Documents read at once from a server without the aggregated ones.
const DOCUMENTS_AT_ONCE: usize = 8;

const STALE: &str = "Stale";

#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Every kind that can be listed and created, at its preferred version; sorted.
    pub kinds: Vec<Kind>,
    /// Groups of which a version could not be read.
    pub failed: BTreeSet<String>,
    /// Of kinds that are served at several versions: all of them, the preferred one first.
    pub versions: BTreeMap<GroupResource, Vec<String>>,
}

pub async fn discover(client: &kube::Client) -> Result<Discovered, KubeError> {
    match aggregated(client).await? {
        Some(groups) => Ok(kinds(&groups)),
        None => Ok(kinds(&one_by_one(client).await?)),
    }
}

async fn get<T: DeserializeOwned>(
    client: &kube::Client,
    path: &str,
    accept: &str,
) -> Result<T, KubeError> {
    let request = Request::get(path).header(ACCEPT, accept).body(Vec::new());
    let failed = |source: http::Error| KubeError::Transport {
        verb: "get",
        path: path.to_owned(),
        source: source.into(),
    };
    let response = kube_client::raw(client, request.map_err(failed)?).await?;
    serde_json::from_slice(&response.body).map_err(|source| KubeError::Unreadable {
        verb: "get",
        path: path.to_owned(),
        source,
    })
}

/// None: the server does not know such documents.
async fn aggregated(client: &kube::Client) -> Result<Option<Vec<APIGroupDiscovery>>, KubeError> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        kind: String,
        #[serde(default)]
        items: Vec<APIGroupDiscovery>,
    }
    let mut groups = vec![];
    for path in ["/api", "/apis"] {
        let list: List = match get(client, path, ACCEPT_AGGREGATED_DISCOVERY_V2).await {
            Err(error) if error.code() == Some(406) => return Ok(None),
            list => list?,
        };
        if list.kind != "APIGroupDiscoveryList" {
            return Ok(None);
        }
        groups.extend(list.items);
    }
    Ok(Some(groups))
}

/// `/apis` as it always was.
#[derive(Deserialize)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    versions: Vec<GroupVersion>,
    preferred_version: GroupVersion,
}

#[derive(Clone, Deserialize, PartialEq)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct CoreVersions {
    versions: Vec<String>,
}

/// `/apis/GROUP/VERSION`
#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// The same as the aggregated documents say, with a request for each group version.
async fn one_by_one(client: &kube::Client) -> Result<Vec<APIGroupDiscovery>, KubeError> {
    const JSON: &str = "application/json";
    let core: CoreVersions = get(client, "/api", JSON).await?;
    let GroupList { groups } = get(client, "/apis", JSON).await?;
    let named = groups.into_iter().map(|Group { name, mut versions, preferred_version }| {
        versions.sort_by_key(|version| *version != preferred_version);
        (name, versions.into_iter().map(|version| version.version).collect())
    });
    let groups: Vec<(String, Vec<String>)> =
        std::iter::once((String::new(), core.versions)).chain(named).collect();
    let documents = groups.into_iter().map(async |(name, versions)| {
        let mut group = APIGroupDiscovery::default();
        group.metadata.get_or_insert_default().name = Some(name.clone());
        for version in versions {
            group.versions.push(document(client, &name, version).await?);
        }
        Ok(group)
    });
    let documents: Vec<_> = documents.collect();
    stream::iter(documents).buffered(DOCUMENTS_AT_ONCE).try_collect().await
}

/// What the server cannot say of one group version stands for that alone; no answer at all, or one
/// that asks for patience, is about the whole server.
async fn document(
    client: &kube::Client,
    group: &str,
    version: String,
) -> Result<APIVersionDiscovery, KubeError> {
    let path = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let list: Result<ResourceList, _> = get(client, &path, "application/json").await;
    let mut document = APIVersionDiscovery { version: Some(version), ..Default::default() };
    match list {
        Ok(list) => document.resources = list.resources.into_iter().filter_map(whole).collect(),
        Err(KubeError::Api(error)) if error.code != 429 => document.freshness = Some(STALE.into()),
        Err(error) => return Err(error),
    }
    Ok(document)
}

/// None for a subresource.
fn whole(resource: Resource) -> Option<APIResourceDiscovery> {
    let Resource { name, kind, namespaced, verbs } = resource;
    let scope = if namespaced { "Namespaced" } else { "Cluster" };
    (!name.contains('/')).then(|| APIResourceDiscovery {
        resource: Some(name),
        response_kind: Some(GroupVersionKind { kind: Some(kind), ..Default::default() }),
        scope: Some(scope.to_owned()),
        verbs,
        ..Default::default()
    })
}

/// The first version of a group that serves a resource is its preferred one; resources that only an
/// older version serves are taken at that one. A stale document is not believed: its server is away,
/// and asking it for each kind that it once had would cost the patience of each.
fn kinds(groups: &[APIGroupDiscovery]) -> Discovered {
    let mut discovered = Discovered::default();
    for group in groups {
        let name = group.metadata.as_ref().and_then(|m| m.name.as_deref()).unwrap_or_default();
        let mut versions: BTreeMap<GroupResource, Vec<String>> = BTreeMap::new();
        for version in &group.versions {
            let version_name = version.version.as_deref().unwrap_or_default();
            if version.freshness.as_deref() == Some(STALE) {
                discovered.failed.insert(name.to_owned());
                continue;
            }
            for kind in kinds_of_version(name, version_name, version) {
                let served = versions.entry(kind.group_resource()).or_default();
                served.push(kind.version.clone());
                if served.len() == 1 {
                    discovered.kinds.push(kind);
                }
            }
        }
        discovered.versions.extend(versions.into_iter().filter(|(_, served)| served.len() > 1));
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
        let Discovered { kinds, failed, versions } = kinds(&groups);
        let names: Vec<_> =
            kinds.iter().map(|k| format!("{} {}", k.resource, k.api_version())).collect();
        assert_eq!(names, ["bs g/v1", "as g/v2"]);
        assert_eq!(failed, ["away".to_owned()].into());
        let several = GroupResource { group: "g".to_owned(), resource: "as".to_owned() };
        assert_eq!(versions, [(several, vec!["v2".to_owned(), "v1".to_owned()])].into());
    }

    /// A server that knows these documents and nothing of the aggregated ones.
    fn client(
        documents: &'static [(&'static str, u16, &'static str)],
        refuses: bool,
    ) -> kube::Client {
        let service = tower::service_fn(move |request: Request<kube::client::Body>| async move {
            let asked = request.headers()[ACCEPT].to_str().unwrap();
            let found = documents.iter().find(|(path, _, _)| *path == request.uri().path());
            let (code, body) = match found {
                _ if refuses && asked.contains("apidiscovery") => (406, ""),
                Some((_, code, body)) => (*code, *body),
                None => (404, ""),
            };
            let answer = http::Response::builder().status(code);
            let body = kube::client::Body::from(body.as_bytes().to_vec());
            Ok::<_, std::convert::Infallible>(answer.body(body).unwrap())
        });
        kube::Client::new(service, "default")
    }

    const OLD: &[(&str, u16, &str)] = &[
        ("/api", 200, r#"{"kind":"APIVersions","versions":["v1"]}"#),
        (
            "/apis",
            200,
            r#"{"kind":"APIGroupList","groups":[
                {"name":"g","versions":[{"groupVersion":"g/v1","version":"v1"},
                    {"groupVersion":"g/v2","version":"v2"}],
                 "preferredVersion":{"groupVersion":"g/v2","version":"v2"}},
                {"name":"away","versions":[{"groupVersion":"away/v1","version":"v1"}],
                 "preferredVersion":{"groupVersion":"away/v1","version":"v1"}}]}"#,
        ),
        (
            "/api/v1",
            200,
            r#"{"resources":[
                {"name":"namespaces","kind":"Namespace","namespaced":false,"verbs":["list","create"]},
                {"name":"namespaces/status","kind":"Namespace","namespaced":false,"verbs":["get"]},
                {"name":"bindings","kind":"Binding","namespaced":true,"verbs":["create"]}]}"#,
        ),
        (
            "/apis/g/v1",
            200,
            r#"{"resources":[
                {"name":"as","kind":"A","namespaced":true,"verbs":["list","create"]},
                {"name":"bs","kind":"B","namespaced":true,"verbs":["list","create"]}]}"#,
        ),
        (
            "/apis/g/v2",
            200,
            r#"{"resources":[
                {"name":"as","kind":"A","namespaced":true,"verbs":["list","create"]}]}"#,
        ),
        ("/apis/away/v1", 503, ""),
    ];

    #[tokio::test]
    async fn a_server_without_aggregated_documents_is_read_one_by_one() {
        for refuses in [true, false] {
            let Discovered { kinds, failed, versions } =
                discover(&client(OLD, refuses)).await.unwrap();
            let names: Vec<_> = kinds
                .iter()
                .map(|k| format!("{} {} {}", k.kind, k.api_version(), k.namespaced))
                .collect();
            assert_eq!(names, ["Namespace v1 false", "B g/v1 true", "A g/v2 true"], "{refuses}");
            assert_eq!(failed, ["away".to_owned()].into(), "{refuses}");
            assert_eq!(versions.into_values().collect::<Vec<_>>(), [["v2", "v1"]], "{refuses}");
        }
    }

    #[tokio::test]
    async fn no_document_is_never_no_kinds() {
        for documents in [&OLD[..1], &[("/api", 200, "{}"), ("/apis", 200, "{}")], &[]] {
            assert!(discover(&client(documents, false)).await.is_err(), "{documents:?}");
        }
    }
}
