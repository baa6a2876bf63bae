//! The kinds of a hub of Open Cluster Management, and small CRDs that serve them.
//!
//! Groups, names and scopes are the real ones; the schemas keep every field, since what is tested
//! here carries objects and does not interpret them.

use super::bare::Api;
use super::{Result, eventually};
use serde_json::{Value, json};
use std::time::Duration;
use understudy::object::Kind;

const CLUSTER: &str = "cluster.open-cluster-management.io";
const ADDON: &str = "addon.open-cluster-management.io";
const WORK: &str = "work.open-cluster-management.io";
const POLICY: &str = "policy.open-cluster-management.io";
const APPS: &str = "apps.open-cluster-management.io";
const AUTHENTICATION: &str = "authentication.open-cluster-management.io";

const ESTABLISHED_DEADLINE: Duration = Duration::from_secs(30);
/// The API server holds the POST of a custom resource that comes within 2 s of its CRD.
const HELD_AFTER_ESTABLISHED: Duration = Duration::from_millis(2_100);

/// (group, version, kind, resource, namespaced)
type Row = (&'static str, &'static str, &'static str, &'static str, bool);

const CORE: [Row; 3] = [
    ("", "v1", "Namespace", "namespaces", false),
    ("", "v1", "Secret", "secrets", true),
    ("", "v1", "ConfigMap", "configmaps", true),
];

const CUSTOM: [Row; 15] = [
    (CLUSTER, "v1", "ManagedCluster", "managedclusters", false),
    (CLUSTER, "v1beta2", "ManagedClusterSet", "managedclustersets", false),
    (CLUSTER, "v1beta2", "ManagedClusterSetBinding", "managedclustersetbindings", true),
    (CLUSTER, "v1beta1", "Placement", "placements", true),
    (CLUSTER, "v1beta1", "PlacementDecision", "placementdecisions", true),
    (ADDON, "v1alpha1", "AddOnDeploymentConfig", "addondeploymentconfigs", true),
    (ADDON, "v1alpha1", "ClusterManagementAddOn", "clustermanagementaddons", false),
    (ADDON, "v1alpha1", "ManagedClusterAddOn", "managedclusteraddons", true),
    (WORK, "v1", "ManifestWork", "manifestworks", true),
    (WORK, "v1alpha1", "ManifestWorkReplicaSet", "manifestworkreplicasets", true),
    (POLICY, "v1", "Policy", "policies", true),
    (POLICY, "v1", "PlacementBinding", "placementbindings", true),
    (APPS, "v1", "Channel", "channels", true),
    (APPS, "v1", "Subscription", "subscriptions", true),
    (AUTHENTICATION, "v1beta1", "ManagedServiceAccount", "managedserviceaccounts", true),
];

/// All kinds of which a fleet has objects, Namespaces first.
pub fn all() -> Vec<Kind> {
    CORE.iter().chain(&CUSTOM).map(to_kind).collect()
}

/// By its name in the table above.
pub fn named(name: &str) -> Kind {
    let row = CORE.iter().chain(&CUSTOM).find(|row| row.2 == name);
    to_kind(row.unwrap_or_else(|| panic!("the fleet has no kind {name}")))
}

fn to_kind(&(group, version, kind, resource, namespaced): &Row) -> Kind {
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        resource: resource.to_owned(),
        namespaced,
        categories: Vec::new(),
    }
}

/// Makes the custom kinds of a fleet known to a hub.
pub async fn install(api: &Api) -> Result<()> {
    define(api, &CUSTOM.iter().map(to_kind).collect::<Vec<_>>()).await
}

/// Makes kinds known to a hub and waits until it takes objects of them without delay.
pub async fn define(api: &Api, kinds: &[Kind]) -> Result<()> {
    let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for kind in kinds {
        api.post(collection, &definition(kind)).await?;
    }
    for kind in kinds {
        let path = format!("{collection}/{}", kind.group_resource());
        let what = format!("the CRD {} to be established", kind.group_resource());
        eventually(ESTABLISHED_DEADLINE, &what, async || {
            is_established(&api.get_json(&path).await.ok()?).then_some(())
        })
        .await?;
    }
    tokio::time::sleep(HELD_AFTER_ESTABLISHED).await;
    for kind in kinds {
        // The first LIST of a kind fills its cache, and is answered with 429 until that is done.
        let what = format!("the API server to list {}", kind.group_resource());
        let path = kind.list_path();
        eventually(ESTABLISHED_DEADLINE, &what, async || api.get(&path).await.ok()).await?;
    }
    Ok(())
}

pub fn is_established(definition: &Value) -> bool {
    definition["status"]["conditions"].as_array().is_some_and(|conditions| {
        conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
    })
}

fn definition(kind: &Kind) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut schema = open.clone();
    schema["properties"] = json!({"spec": open, "status": open});
    // Without a word on it no group below k8s.io is served.
    let approved = json!({"api-approved.kubernetes.io": "unapproved, for tests"});
    let annotations = if kind.group.ends_with(".k8s.io") { approved } else { json!({}) };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.group_resource().to_string(), "annotations": annotations},
        "spec": {
            "group": kind.group,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind.kind, "listKind": format!("{}List", kind.kind),
                "plural": kind.resource, "singular": kind.kind.to_lowercase(),
                "categories": kind.categories,
            },
            "versions": [{
                "name": kind.version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
            }],
        },
    })
}
