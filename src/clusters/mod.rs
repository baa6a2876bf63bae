//! The clusters that a hub of Open Cluster Management manages, when it is promoted: each is accepted and,
//! unless it is there already, imported by the token that came with the backup.
//!
//! Everything is written before `Activated` stands in the journal, and may be written again by whoever goes
//! on after a crash; behind it clusters are only looked at. What an administrator of the new primary does
//! then is theirs. Nothing but custom resources of Open Cluster Management is needed here; what carries an
//! import out is the import controller, or a klusterlet that knows both hubs and comes by itself.
//!
//! Clusters that are not in the backup, the hub's own and those that somebody else made here, are neither
//! written nor counted. What goes wrong with one of them is its line in the report and stops nothing.

pub mod decide;
pub mod token;

use crate::capture::candidates::{NamespaceLabels, candidate};
use crate::capture::clean;
use crate::capture::cut::{self, CutError};
use crate::capture::select::Selection;
use crate::kube_client::{self, KubeError};
use crate::kube_status::FIELD_MANAGER;
use crate::object::{Kind, ObjectKey};
use crate::restore::Guard;
use crate::restore::known::{ADOPTED_LABEL, PAIR_LABEL};
use crate::restore::transform::MARKER;
use crate::retry;
use crate::status::clusters::{Line, Reach};
use decide::{Availability, Cluster, Import, Step, decide};
use futures::StreamExt as _;
use http::{Method, Request};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use token::Token;
use tokio_util::sync::CancellationToken;

/// Clusters between two questions to the journal.
const CHUNK: usize = 200;
/// Objects of one page of a list.
const PAGE: &str = "500";
const TOKENS: &str = "authentication.open-cluster-management.io/is-managed-serviceaccount=true";
const IMPORT_SECRET: &str = "auto-import-secret";
/// On an import Secret that a restore made.
const IMPORT_LABEL: &str = "cluster.open-cluster-management.io/restore-auto-import-secret";
const KEEP_ANNOTATION: &str =
    "managedcluster-import-controller.open-cluster-management.io/keeping-auto-import-secret";
const IMMEDIATE_ANNOTATION: &str = "import.open-cluster-management.io/immediate-import";
/// How often the import controller tries.
const RETRIES: &str = "5";

#[derive(Debug, thiserror::Error)]
pub enum ClustersError {
    #[error(transparent)]
    Clusters(#[from] CutError),
    #[error("failed to list Secrets")]
    Secrets(#[source] KubeError),
    #[error("the list of Secrets is not a list")]
    NotAList,
}

/// The kind by which a hub knows a cluster.
pub fn kind() -> Kind {
    Kind {
        group: "cluster.open-cluster-management.io".to_owned(),
        version: "v1".to_owned(),
        kind: "ManagedCluster".to_owned(),
        resource: "managedclusters".to_owned(),
        namespaced: false,
        categories: Vec::new(),
    }
}

fn key(cluster: &str) -> Option<ObjectKey> {
    let Kind { group, resource, .. } = kind();
    ObjectKey::new(&group, &resource, "", cluster).ok()
}

/// What stands on a hub: no cluster that stands for the hub itself, and none that is being deleted.
pub struct Seen {
    clusters: Vec<Cluster>,
    tokens: BTreeMap<String, Vec<Token>>,
    imports: HashMap<String, Import>,
}

impl Seen {
    /// Only these.
    pub fn retain(&mut self, wanted: impl Fn(&ObjectKey) -> bool) {
        self.clusters.retain(|cluster| key(&cluster.name).is_some_and(|key| wanted(&key)));
    }

    fn step<'a>(&'a self, cluster: &'a Cluster, stale: bool, now: Timestamp) -> Step<'a> {
        let tokens = self.tokens.get(&cluster.name).map_or(&[][..], Vec::as_slice);
        let import = self.imports.get(&cluster.name).copied().unwrap_or(Import::None);
        decide(cluster, tokens, import, stale, now)
    }

    /// Of the clusters that an activation restored here.
    pub fn lines(&self, now: Timestamp) -> Vec<Line> {
        let restored = self.clusters.iter();
        let restored = restored.filter(|cluster| cluster.ours && cluster.closed.is_none());
        restored.map(|cluster| self.step(cluster, false, now).line).collect()
    }
}

pub async fn look(client: &kube::Client, selection: &Selection) -> Result<Seen, ClustersError> {
    let clusters = managed_clusters(client, selection).await?;
    let mut imports = HashMap::new();
    each_secret(client, ("fieldSelector", &format!("metadata.name={IMPORT_SECRET}")), |secret| {
        let ours = secret.metadata.labels.get(IMPORT_LABEL).is_some_and(|value| value == "true");
        let import = if ours { Import::Ours } else { Import::Users };
        imports.insert(secret.metadata.namespace, import);
    })
    .await?;
    Ok(Seen { clusters, tokens: tokens(client, "").await?, imports })
}

/// The tokens on this hub by cluster. `pair`: only of Secrets that were restored for it.
pub async fn tokens(
    client: &kube::Client,
    pair: &str,
) -> Result<BTreeMap<String, Vec<Token>>, ClustersError> {
    let selector =
        if pair.is_empty() { TOKENS.to_owned() } else { format!("{TOKENS},{PAIR_LABEL}={pair}") };
    let mut tokens = BTreeMap::<String, Vec<Token>>::new();
    each_secret(client, ("labelSelector", &selector), |secret| {
        let Secret { metadata, mut data } = secret;
        let Some(data) = data.remove("token").filter(|_| metadata.name.starts_with(token::PREFIX))
        else {
            return;
        };
        let text = serde_json::from_value::<ByteString>(data.clone().into());
        let text = text.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        let Ok(text) = text.map(|text| text.trim().to_owned()) else { return };
        if text.is_empty() {
            return;
        }
        let expires =
            token::expires(&text, metadata.annotations.get(token::EXPIRATION).map(|a| &**a));
        let (secret, made) = (metadata.name, metadata.creation_timestamp);
        tokens.entry(metadata.namespace).or_default().push(Token { secret, made, expires, data });
    })
    .await?;
    Ok(tokens)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: String,
    name: String,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
    creation_timestamp: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Secret {
    metadata: Metadata,
    #[serde(default)]
    data: HashMap<String, String>,
}

async fn each_secret(
    client: &kube::Client,
    selector: (&str, &str),
    mut take: impl FnMut(Secret),
) -> Result<(), ClustersError> {
    #[derive(Deserialize)]
    struct List {
        metadata: Head,
        items: Vec<Secret>,
    }
    #[derive(Deserialize)]
    struct Head {
        #[serde(default, rename = "continue")]
        next: String,
    }
    let mut next = String::new();
    loop {
        let parameters = [selector, ("limit", PAGE), ("continue", &*next)];
        let parameters = &parameters[..if next.is_empty() { 2 } else { 3 }];
        let page = || kube_client::list_page(client, "/api/v1/secrets", parameters);
        let never = CancellationToken::new();
        let page = retry::retry(&cut::PATIENCE, "secrets", &never, KubeError::next, page).await;
        let page = page.map_err(ClustersError::Secrets)?;
        // The cause might quote what it could not read.
        let list: List = serde_json::from_slice(&page).map_err(|_| ClustersError::NotAList)?;
        list.items.into_iter().for_each(&mut take);
        next = list.metadata.next;
        if next.is_empty() {
            return Ok(());
        }
    }
}

async fn managed_clusters(
    client: &kube::Client,
    selection: &Selection,
) -> Result<Vec<Cluster>, CutError> {
    let kind = kind();
    let (rules, no_namespaces) = (selection.for_kind(&kind), NamespaceLabels::new());
    let pages = match cut::pages(client, &kind, None).await {
        // The kind is not served here: there is none.
        Err(CutError::List { source, .. }) if source.is_not_found() => vec![],
        pages => pages?,
    };
    let mut clusters = Vec::new();
    for page in pages {
        for item in cut::items(&page, &kind)? {
            let unreadable = |source| CutError::Object { kind: kind.group_resource(), source };
            let head = clean::head(item).map_err(unreadable)?;
            let itself = rules.is_hub_itself(&candidate(&kind, &head, &no_namespaces));
            if !itself && !head.being_deleted {
                clusters.push(cluster(item.get()).map_err(unreadable)?);
            }
        }
    }
    Ok(clusters)
}

fn cluster(object: &str) -> Result<Cluster, serde_json::Error> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        hub_accepts_client: bool,
        managed_cluster_client_configs: Option<Vec<ClientConfig>>,
    }
    #[derive(Deserialize)]
    struct ClientConfig {
        #[serde(default)]
        url: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        conditions: Option<Vec<Condition>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Condition {
        r#type: String,
        status: String,
        reason: String,
    }
    let Object { metadata, spec, status } = serde_json::from_str(object)?;
    let mut conditions = status.conditions.unwrap_or_default().into_iter();
    let available = conditions.find(|one| one.r#type == "ManagedClusterConditionAvailable");
    let configs = spec.managed_cluster_client_configs.unwrap_or_default().into_iter();
    Ok(Cluster {
        accepted: spec.hub_accepts_client,
        closed: metadata.annotations.get(MARKER).cloned(),
        ours: [PAIR_LABEL, ADOPTED_LABEL].iter().any(|label| metadata.labels.contains_key(*label)),
        availability: match available {
            None => Availability::NeverSeen,
            Some(condition) if condition.status == "True" => Availability::True,
            Some(condition) => Availability::No(condition.reason),
        },
        url: configs.map(|config| config.url).find(|url| !url.is_empty()),
        name: metadata.name,
    })
}

/// How an activation acts on clusters.
pub struct Activation<'a> {
    pub client: &'a kube::Client,
    pub max_in_flight: usize,
    /// This hub was primary before.
    pub stale: bool,
    pub guard: Guard<'a>,
}

/// Acts, and tells how each cluster stands then. `Err`: why it stopped.
pub async fn activate(
    activation: &Activation<'_>,
    seen: &Seen,
    now: Timestamp,
) -> Result<Vec<Line>, String> {
    let Activation { client, max_in_flight, stale, guard } = activation;
    let steps: Vec<Step<'_>> =
        seen.clusters.iter().map(|cluster| seen.step(cluster, *stale, now)).collect();
    let mut lines = Vec::with_capacity(steps.len());
    let mut steps = steps.into_iter();
    loop {
        let some: Vec<_> = steps.by_ref().take(CHUNK).collect();
        if some.is_empty() {
            return Ok(lines);
        }
        if let ControlFlow::Break(why) = guard().await {
            return Err(why);
        }
        let mut requests = Vec::with_capacity(some.len());
        for step in some {
            requests.push(carry_out(client, step));
        }
        let mut some = futures::stream::iter(requests).buffer_unordered(*max_in_flight);
        while let Some(line) = some.next().await {
            lines.push(line);
        }
    }
}

async fn carry_out(client: &kube::Client, step: Step<'_>) -> Line {
    let Step { open, import, mut line } = step;
    let name = line.cluster.clone();
    let done = async {
        if let Some(marker) = open {
            accept(client, &name, marker).await.map_err(|error| ("accepted", error))?;
        }
        if let Some((url, token)) = import {
            import_with(client, &name, url, token).await.map_err(|error| ("imported", error))?;
        }
        Ok(())
    };
    let failed: Result<(), (&str, KubeError)> = done.await;
    if let Err((what, error)) = failed {
        // The message of the server may quote the Secret.
        let code = error.code().map_or("no answer".to_owned(), |code| code.to_string());
        line.why = format!("it could not be {what}: {code} {}", error.reason());
        line.state = Reach::Unreachable;
    }
    line
}

/// Gives it back what this hub took when it was fenced, which the marker keeps.
async fn accept(client: &kube::Client, name: &str, marker: &str) -> Result<(), KubeError> {
    let mut patch: Value = serde_json::from_str(marker).unwrap_or_default();
    if !patch.is_object() {
        patch = json!({"spec": {"hubAcceptsClient": true}});
    }
    patch["metadata"] = json!({"annotations": {MARKER: null}});
    write(client, Method::PATCH, &format!("{}/{name}", kind().list_path()), &patch).await
}

/// First the Secret: the annotation says "now".
async fn import_with(
    client: &kube::Client,
    name: &str,
    url: &str,
    token: &Token,
) -> Result<(), KubeError> {
    let namespace = format!("/api/v1/namespaces/{name}/secrets");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": IMPORT_SECRET,
            "labels": {IMPORT_LABEL: "true"},
            "annotations": {KEEP_ANNOTATION: ""},
        },
        "data": {
            "autoImportRetry": ByteString(RETRIES.into()),
            "server": ByteString(url.into()),
            "token": token.data,
        },
    });
    match write(client, Method::POST, &namespace, &secret).await {
        // An earlier attempt made it, or an earlier promotion, whose token is old. Whose it is was looked at,
        // and is tested again.
        Err(error) if error.code() == Some(409) => {
            let label = IMPORT_LABEL.replace('/', "~1");
            let patch = json!([
                {"op": "test", "path": format!("/metadata/labels/{label}"), "value": "true"},
                {"op": "replace", "path": "/data", "value": secret["data"]},
            ]);
            write(client, Method::PATCH, &format!("{namespace}/{IMPORT_SECRET}"), &patch).await?;
        }
        made => made?,
    }
    let patch = json!({"metadata": {"annotations": {IMMEDIATE_ANNOTATION: ""}}});
    write(client, Method::PATCH, &format!("{}/{name}", kind().list_path()), &patch).await
}

/// An array is a JSON Patch, an object of another method than POST a merge patch. Tried again while the server
/// is busy: the same request twice does what it does once.
async fn write(
    client: &kube::Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<(), KubeError> {
    let content_type = match (&method, body) {
        (&Method::POST, _) => "application/json",
        (_, Value::Array(_)) => "application/json-patch+json",
        (_, _) => "application/merge-patch+json",
    };
    let url = kube_client::with_parameters(path, &[("fieldManager", FIELD_MANAGER)]);
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(body.to_string().into_bytes());
    let request = request.map_err(|source| KubeError::Transport {
        verb: "address",
        path: path.to_owned(),
        source: source.into(),
    })?;
    let send = || kube_client::raw(client, request.clone());
    let (never, quiet) = (CancellationToken::new(), |_: &KubeError, _| {});
    retry::retry_telling(&WRITE_PATIENCE, &never, KubeError::next, quiet, send).await.map(|_| ())
}

/// One cluster whose webhook hangs must not keep a hub from its promotion.
const WRITE_PATIENCE: retry::Policy = retry::Policy {
    first: std::time::Duration::from_millis(200),
    cap: std::time::Duration::from_secs(2),
    give_up_after: Some(std::time::Duration::from_secs(10)),
};
