//! Sample fleets of managed clusters, the same for the same seed.
//!
//! Every object carries the set it belongs to by the rules of the preset `ocm`, or none: what must
//! stay on its hub. So a test can say what a standby has to hold without asking the selection.

use super::Result;
use super::bare::{Api, Post};
use super::compare::Place;
use super::kinds;
use bytes::Bytes;
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use understudy::object::{Kind, ObjectKey, Set};

const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const SET_LABEL: &str = "cluster.open-cluster-management.io/clusterset";
const POLICIES: &str = "policies";
const APPS: &str = "apps";
/// The namespace in which the hub's own add-on settings live.
const HUB: &str = "open-cluster-management-hub";

/// Together with the object around it 2.6 kB, as a Secret of a real hub.
const DATA_BYTES: usize = 1_640;

#[derive(Clone, Debug)]
pub struct Item {
    pub key: ObjectKey,
    pub kind: Kind,
    pub body: Value,
    /// None: stays on its hub.
    pub set: Option<Set>,
    /// Of the same fleet. Its UID is filled in when the object is created.
    pub owner: Option<ObjectKey>,
}

/// A fleet as a person would meet it: sets, placements, policies, applications, add-ons with their
/// works, credentials, and things that are none of a backup's business.
pub fn demo(clusters: usize, seed: u64) -> Vec<Item> {
    let mut fleet = Fleet::new(seed);
    fleet.hub_namespaces();
    fleet.cluster_sets();
    fleet.policies();
    fleet.applications();
    fleet.add_ons(&ADD_ONS[..3]);
    fleet.own_cluster();
    for index in 0..clusters {
        fleet.demo_cluster(index);
    }
    fleet.decisions(clusters);
    fleet.items
}

/// For each cluster 8 Secrets and `ConfigMap`s, 4 resources and 15 objects to activate.
pub fn scale(clusters: usize, seed: u64) -> Vec<Item> {
    let mut fleet = Fleet::new(seed);
    fleet.cluster_sets();
    fleet.add_ons(&ADD_ONS);
    for index in 0..clusters {
        fleet.scale_cluster(index);
    }
    fleet.items
}

/// Where each object belongs once the standby has taken over everything.
pub fn places(items: &[Item]) -> BTreeMap<ObjectKey, Place> {
    let place = |item: &Item| if item.set.is_some() { Place::Both } else { Place::FirstOnly };
    items.iter().map(|item| (item.key.clone(), place(item))).collect()
}

/// Where each object belongs while the standby follows: what activates stays behind.
pub fn places_of_standby(items: &[Item]) -> BTreeMap<ObjectKey, Place> {
    let place = |item: &Item| if item.is_on_standby() { Place::Both } else { Place::FirstOnly };
    items.iter().map(|item| (item.key.clone(), place(item))).collect()
}

/// Those that a standby holds while it follows.
pub fn on_standby(items: &[Item]) -> Vec<Item> {
    items.iter().filter(|item| item.is_on_standby()).cloned().collect()
}

/// Creates all of them with so many connections at once, owners before what they own. Owners that are not
/// among them stand there already.
pub async fn populate(api: &Api, items: &[Item], connections: usize) -> Result<()> {
    let owners: BTreeSet<&ObjectKey> =
        items.iter().filter_map(|item| item.owner.as_ref()).collect();
    let made: BTreeSet<&ObjectKey> = items.iter().map(|item| &item.key).collect();
    let mut uids = BTreeMap::new();
    for owner in owners.difference(&made) {
        let path = owner.collection_path(&kind_of(owner).version);
        let stands = api.get_json(&format!("{path}/{}", owner.name())).await?;
        let uid = stands["metadata"]["uid"].as_str().unwrap_or_default();
        uids.insert((*owner).clone(), uid.to_owned());
    }
    for wave in waves(items) {
        let posts = wave.iter().map(|item| item.post(&uids)).collect::<Result<Vec<_>>>()?;
        for (index, answer) in api.post_all(&posts, connections).await? {
            // Reading the others would only slow down what is measured with this.
            if owners.contains(&wave[index].key) {
                let answer: Value = serde_json::from_slice(&answer)?;
                let uid = answer["metadata"]["uid"].as_str().unwrap_or_default();
                uids.insert(wave[index].key.clone(), uid.to_owned());
            }
        }
    }
    Ok(())
}

/// Namespaces, then what has no owner, then what is owned by that, and so on.
pub fn waves(items: &[Item]) -> Vec<Vec<&Item>> {
    let mut depths: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
    let mut waves: Vec<Vec<&Item>> = Vec::new();
    // The generators put owners first, so one pass finds every depth.
    for item in items {
        let depth = match (&item.owner, item.key.resource()) {
            (_, "namespaces") => 0,
            (None, _) => 1,
            (Some(owner), _) => depths.get(owner).map_or(1, |depth| depth + 1),
        };
        depths.insert(&item.key, depth);
        waves.resize_with(waves.len().max(depth + 1), Vec::new);
        waves[depth].push(item);
    }
    waves
}

impl Item {
    fn is_on_standby(&self) -> bool {
        matches!(self.set, Some(Set::Credentials | Set::Resources))
    }

    /// With the owner's live UID: the garbage collector deletes what points to a dead one.
    pub fn post(&self, uids: &BTreeMap<ObjectKey, String>) -> Result<Post> {
        let path = self.key.collection_path(&self.kind.version);
        let Some(owner) = &self.owner else {
            return Ok(Post { path, body: serde_json::to_vec(&self.body)?.into() });
        };
        let uid = uids.get(owner).ok_or_else(|| format!("{owner} was not created before"))?;
        let mut body = self.body.clone();
        body["metadata"]["ownerReferences"][0]["uid"] = uid.clone().into();
        Ok(Post { path, body: Bytes::from(serde_json::to_vec(&body)?) })
    }
}

/// (name, namespace on the managed cluster)
const ADD_ONS: [(&str, &str); 5] = [
    ("config-policy-controller", "agent-addon"),
    ("governance-policy-framework", "agent-addon"),
    ("application-manager", "agent-addon"),
    ("cluster-proxy", "cluster-proxy"),
    ("managed-serviceaccount", "managed-serviceaccount"),
];
const ACCOUNT: &str = "auto-import-account";
const CLUSTER_SETS: [&str; 3] = ["production", "staging", "edge"];
const CLOUDS: [(&str, &str); 3] =
    [("Amazon", "eu-central-1"), ("Azure", "westeurope"), ("BareMetal", "factory-7")];
const POLICY_NAMES: [&str; 6] = [
    "require-network-policies",
    "limit-ranges",
    "no-privileged-pods",
    "certificate-expiry",
    "etcd-encryption",
    "image-sources",
];

struct Fleet {
    items: Vec<Item>,
    random: Random,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        Self { items: Vec::new(), random: Random(seed) }
    }

    /// `content` are the fields beside `metadata`; `namespace` is empty for cluster-scoped kinds.
    fn add(
        &mut self,
        set: Option<Set>,
        kind: &str,
        (namespace, name): (&str, &str),
        labels: &[(&str, &str)],
        content: Value,
    ) -> &mut Item {
        let kind = kinds::named(kind);
        let key = key_of(&kind, namespace, name);
        let mut metadata = Map::new();
        metadata.insert("name".into(), name.into());
        if kind.namespaced {
            metadata.insert("namespace".into(), namespace.into());
        }
        if !labels.is_empty() {
            metadata.insert("labels".into(), labels.iter().copied().collect::<Value>());
        }
        let mut body = json!({
            "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata,
        });
        if let (Some(body), Value::Object(content)) = (body.as_object_mut(), content) {
            body.extend(content);
        }
        self.items.push(Item { key, kind, body, set, owner: None });
        self.items.last_mut().expect("one was pushed just now")
    }

    fn namespace(&mut self, name: &str) {
        let labels = [(BACKUP_LABEL, "")];
        self.add(Some(Set::Resources), "Namespace", ("", name), &labels, Value::Null);
    }

    fn hub_namespaces(&mut self) {
        for name in [POLICIES, APPS, HUB] {
            self.namespace(name);
        }
        let token = json!({"data": {"token": self.random.base64(64)}});
        let bootstrap = (HUB, "bootstrap-hub-kubeconfig");
        self.add(Some(Set::Credentials), "Secret", bootstrap, &[(BACKUP_LABEL, "")], token);
        // Not labelled, so none of ours: a restore must neither bring nor remove it.
        let password = json!({"data": {"password": self.random.base64(24)}});
        self.add(None, "Secret", (HUB, "console-session"), &[], password);
    }

    fn cluster_sets(&mut self) {
        for name in CLUSTER_SETS {
            let selector = json!({"selectorType": "ExclusiveClusterSetLabel"});
            let spec = json!({"spec": {"clusterSelector": selector}});
            self.add(Some(Set::Resources), "ManagedClusterSet", ("", name), &[], spec);
        }
    }

    fn policies(&mut self) {
        for set in CLUSTER_SETS {
            let spec = json!({"spec": {"clusterSet": set}});
            let binding = (POLICIES, set);
            self.add(Some(Set::Resources), "ManagedClusterSetBinding", binding, &[], spec);
            let spec = json!({"spec": {"clusterSets": [set], "tolerations": [{
                "key": "cluster.open-cluster-management.io/unreachable", "operator": "Exists",
            }]}});
            self.add(Some(Set::Resources), "Placement", (POLICIES, set), &[], spec);
        }
        for (index, name) in POLICY_NAMES.into_iter().enumerate() {
            let set = CLUSTER_SETS[index % CLUSTER_SETS.len()];
            let spec = policy_spec(name);
            self.add(Some(Set::Resources), "Policy", (POLICIES, name), &[], spec);
            let binding = json!({
                "placementRef": {
                    "apiGroup": "cluster.open-cluster-management.io",
                    "kind": "Placement", "name": set,
                },
                "subjects": [{
                    "apiGroup": "policy.open-cluster-management.io",
                    "kind": "Policy", "name": name,
                }],
            });
            self.add(Some(Set::Resources), "PlacementBinding", (POLICIES, name), &[], binding);
        }
    }

    fn applications(&mut self) {
        for name in ["shop", "telemetry"] {
            let token = json!({"data": {"accessToken": self.random.base64(40), "user": "Z2l0"}});
            let access = format!("{name}-git");
            let labels = [(BACKUP_LABEL, "")];
            self.add(Some(Set::Credentials), "Secret", (APPS, &access), &labels, token);
            let spec = json!({"spec": {
                "type": "Git", "pathname": format!("https://git.example.com/{name}.git"),
                "secretRef": {"name": access},
            }});
            self.add(Some(Set::Resources), "Channel", (APPS, name), &[], spec);
            let spec = json!({"spec": {"channel": format!("{APPS}/{name}"), "placement": {
                "placementRef": {"kind": "Placement", "name": "production"},
            }}});
            self.add(Some(Set::Resources), "Subscription", (APPS, name), &[], spec);
            let spec = json!({"spec": {
                "placementRefs": [{"name": "production"}],
                "manifestWorkTemplate": work_spec(name, 1),
            }});
            self.add(Some(Set::Activation), "ManifestWorkReplicaSet", (APPS, name), &[], spec);
        }
    }

    fn add_ons(&mut self, add_ons: &[(&str, &str)]) {
        for (name, _) in add_ons {
            let spec = json!({"spec": {
                "addOnMeta": {"displayName": name}, "installStrategy": {"type": "Manual"},
            }});
            self.add(Some(Set::Resources), "ClusterManagementAddOn", ("", name), &[], spec);
        }
    }

    /// The hub manages itself, too; that one is never carried to another hub.
    fn own_cluster(&mut self) {
        let labels = [("local-cluster", "true")];
        self.add(None, "Namespace", ("", "local-cluster"), &labels, Value::Null);
        let spec = json!({"spec": {"hubAcceptsClient": true, "leaseDurationSeconds": 60}});
        self.add(None, "ManagedCluster", ("", "local-cluster"), &labels, spec);
        let (name, install) = ADD_ONS[0];
        let spec = json!({"spec": {"installNamespace": install}});
        self.add(None, "ManagedClusterAddOn", ("local-cluster", name), &[], spec);
    }

    /// Namespace and `ManagedCluster`.
    fn managed_cluster(&mut self, name: &str, index: usize) {
        let labels = [
            (BACKUP_LABEL, ""),
            ("cluster.open-cluster-management.io/managedCluster", name),
            ("open-cluster-management.io/cluster-name", name),
        ];
        self.add(Some(Set::Resources), "Namespace", ("", name), &labels, Value::Null);
        let (cloud, region) = CLOUDS[index % CLOUDS.len()];
        let set = CLUSTER_SETS[index % CLUSTER_SETS.len()];
        let labels = [
            ("name", name),
            ("cloud", cloud),
            ("region", region),
            ("vendor", "Kubernetes"),
            (SET_LABEL, set),
        ];
        let spec = json!({"spec": {
            "hubAcceptsClient": true, "leaseDurationSeconds": 60,
            "managedClusterClientConfigs": [{
                "url": format!("https://api.{name}.example.com:6443"),
                "caBundle": self.random.base64(600),
            }],
        }});
        let item = self.add(Some(Set::Activation), "ManagedCluster", ("", name), &labels, spec);
        item.body["metadata"]["finalizers"] =
            json!(["cluster.open-cluster-management.io/api-resource-cleanup"]);
    }

    fn add_on(&mut self, cluster: &str, (name, install): (&str, &str)) {
        let owner = key_of(&kinds::named("ClusterManagementAddOn"), "", name);
        let spec = json!({"spec": {"installNamespace": install}});
        self.add(Some(Set::Activation), "ManagedClusterAddOn", (cluster, name), &[], spec)
            .owned_by(owner);
    }

    fn demo_cluster(&mut self, index: usize) {
        let name = format!("cluster-{index:04}");
        self.managed_cluster(&name, index);
        for add_on in &ADD_ONS[..3] {
            self.add_on(&name, *add_on);
            let owner = key_of(&kinds::named("ManagedClusterAddOn"), &name, add_on.0);
            let work = format!("addon-{}-deploy-0", add_on.0);
            let spec = json!({"spec": work_spec(add_on.0, 2)});
            self.add(Some(Set::Activation), "ManifestWork", (&name, &work), &[], spec)
                .owned_by(owner);
        }
        for suffix in ["klusterlet", "klusterlet-crds"] {
            let work = format!("{name}-{suffix}");
            let spec = json!({"spec": work_spec(suffix, 3)});
            self.add(Some(Set::Activation), "ManifestWork", (&name, &work), &[], spec);
        }
        self.service_account(&name);
        let account = (&*name, ACCOUNT);
        let token = json!({"data": {"token": self.random.base64(900), "ca.crt": "Y2E="}});
        let labels = [
            ("authentication.open-cluster-management.io/is-managed-serviceaccount", "true"),
            (BACKUP_LABEL, ""),
        ];
        self.add(Some(Set::Credentials), "Secret", account, &labels, token).owned_by(key_of(
            &kinds::named("ManagedServiceAccount"),
            &name,
            ACCOUNT,
        ));
        let login = json!({"data": {"username": "YWRtaW4=", "password": self.random.base64(18)}});
        let labels = [("cluster.open-cluster-management.io/type", "bmc")];
        self.add(Some(Set::Credentials), "Secret", (&name, "console-login"), &labels, login);
        let site = json!({"data": {"site": format!("rack {index}"), "contact": "ops@example.com"}});
        let labels = [(BACKUP_LABEL, "")];
        self.add(Some(Set::Credentials), "ConfigMap", (&name, "site"), &labels, site);

        // What controllers make again on every hub: neither captured nor pruned.
        let import = json!({"data": {"import.yaml": self.random.base64(300)}});
        self.add(None, "Secret", (&name, &format!("{name}-import")), &[], import);
        let root = POLICY_NAMES[index % POLICY_NAMES.len()];
        let replica = format!("{POLICIES}.{root}");
        let labels = [("policy.open-cluster-management.io/root-policy", &*replica)];
        self.add(None, "Policy", (&name, &replica), &labels, policy_spec(root));
    }

    fn service_account(&mut self, cluster: &str) {
        let spec = json!({"spec": {"rotation": {"enabled": true, "validity": "1440h"}}});
        self.add(Some(Set::Resources), "ManagedServiceAccount", (cluster, ACCOUNT), &[], spec);
    }

    /// Which clusters each placement has chosen. Every hub computes that for itself.
    fn decisions(&mut self, clusters: usize) {
        for (number, set) in CLUSTER_SETS.into_iter().enumerate() {
            let chosen: Vec<String> = (0..clusters)
                .filter(|index| index % CLUSTER_SETS.len() == number)
                .map(|index| format!("cluster-{index:04}"))
                .collect();
            let owner = key_of(&kinds::named("Placement"), POLICIES, set);
            let name = format!("{set}-decision-1");
            let labels = [("cluster.open-cluster-management.io/placement", set)];
            let spec = json!({"spec": {"chosen": chosen}});
            let decision = (POLICIES, &*name);
            self.add(None, "PlacementDecision", decision, &labels, spec).owned_by(owner);
        }
    }

    fn scale_cluster(&mut self, index: usize) {
        let name = format!("cluster-{index:05}");
        // One resource and one object to activate.
        self.managed_cluster(&name, index);
        // Three more resources.
        let spec = json!({"spec": {"numberOfClusters": 1, "clusterSets": [CLUSTER_SETS[0]]}});
        self.add(Some(Set::Resources), "Placement", (&name, "local"), &[], spec);
        let variables = json!([{"name": "PROXY", "value": format!("http://proxy.{name}:3128")}]);
        let spec = json!({"spec": {"customizedVariables": variables}});
        self.add(Some(Set::Resources), "AddOnDeploymentConfig", (&name, "proxy"), &[], spec);
        self.service_account(&name);
        for number in 0..4 {
            let labels = [(BACKUP_LABEL, "")];
            let data = json!({"data": {"value": self.random.base64(DATA_BYTES)}});
            let secret = format!("credential-{number}");
            let item = self.add(Some(Set::Credentials), "Secret", (&name, &secret), &labels, data);
            if number == 0 {
                item.owned_by(key_of(&kinds::named("ManagedServiceAccount"), &name, ACCOUNT));
            }
            let data = json!({"data": {"value": self.random.base64(DATA_BYTES)}});
            let config = format!("config-{number}");
            self.add(Some(Set::Credentials), "ConfigMap", (&name, &config), &labels, data);
        }
        // Fourteen more to activate.
        for add_on in ADD_ONS {
            self.add_on(&name, add_on);
        }
        for number in 0..9 {
            let work = format!("work-{number}");
            let spec = json!({"spec": work_spec(&work, 2)});
            self.add(Some(Set::Activation), "ManifestWork", (&name, &work), &[], spec);
        }
    }
}

fn key_of(kind: &Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(&kind.group, &kind.resource, namespace, name)
        .expect("the generators make valid names")
}

fn kind_of(owner: &ObjectKey) -> Kind {
    let mut all = kinds::all().into_iter();
    all.find(|kind| kind.group_resource() == owner.group_resource())
        .expect("an owner is of a kind of the fleet")
}

impl Item {
    fn owned_by(&mut self, owner: ObjectKey) {
        let kind = kind_of(&owner);
        self.body["metadata"]["ownerReferences"] = json!([{
            "apiVersion": kind.api_version(), "kind": kind.kind, "name": owner.name(), "uid": "",
        }]);
        self.owner = Some(owner);
    }
}

fn policy_spec(name: &str) -> Value {
    json!({"spec": {"disabled": false, "remediationAction": "inform", "policy-templates": [{
        "objectDefinition": {
            "apiVersion": "policy.open-cluster-management.io/v1", "kind": "ConfigurationPolicy",
            "metadata": {"name": name},
            "spec": {"severity": "medium", "remediationAction": "inform", "object-templates": [{
                "complianceType": "musthave",
                "objectDefinition": {"apiVersion": "v1", "kind": "LimitRange",
                    "metadata": {"name": name}, "spec": {"limits": [{"type": "Container"}]}},
            }]},
        },
    }]}})
}

fn work_spec(name: &str, manifests: usize) -> Value {
    let manifests: Vec<Value> = (0..manifests)
        .map(|index| {
            let labels = json!({"app": name});
            let image = format!("registry.example.com/{name}@sha256:{index:064x}");
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": format!("{name}-{index}"), "namespace": "agent"},
                "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "agent", "image": image}]},
                }},
            })
        })
        .collect();
    json!({"workload": {"manifests": manifests}, "deleteOption": {"propagationPolicy": "Orphan"}})
}

/// `SplitMix64`: what is wanted is only that bytes are the same at every run and do not compress.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn base64(&mut self, bytes: usize) -> Value {
        let words = bytes.div_ceil(8);
        let mut data: Vec<u8> = (0..words).flat_map(|_| self.next().to_le_bytes()).collect();
        data.truncate(bytes);
        serde_json::to_value(ByteString(data)).expect("bytes always become a string")
    }
}
