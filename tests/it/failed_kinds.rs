//! A kind that cannot be listed (F37, F45) or that discovery does not show: the backup is partial and
//! names it, everything else is in it, and a standby neither loses nor prunes what it holds of it.

use crate::harness::bare::Api;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::{NAMESPACE, PLAIN_TOKEN, PLAIN_USER};
use crate::harness::kinds::is_established;
use crate::harness::{Result, eventually, fleet, kinds, status};
use crate::scene::until_metric;
use crate::stage::{CONNECTIONS, DEADLINE, Stage};
use serde_json::{Value, json};
use understudy::capture::discovery;
use understudy::object::Kind;

const CLUSTERS: usize = 2;
const DEMO: &str = "demo.open-cluster-management.io";
const APPS: &str = "apps.open-cluster-management.io";
const POLICY: &str = "policy.open-cluster-management.io";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/daemon";
/// No patience with what only the kind can mend. A minute of it would be more than twenty.
const ATTEMPTS: usize = 6;

struct World {
    stage: Stage,
    primary: Daemon,
    passive: Daemon,
    source: Api,
    target: Api,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_cannot_be_listed_is_carried_over() -> Result<()> {
    let mut world = World::set().await?;
    let widgets = format!("{DEFINITIONS}/widgets.{DEMO}");

    // Asked for as it is stored, it needs no conversion, though the webhook is away from the start.
    assert_eq!(world.newest().await?["partial"], json!([]));
    let (v1, v2) = (widget_kind("v1"), widget_kind("v2"));
    assert!(world.source.get(&v2.list_path()).await.is_err(), "there is a conversion after all");
    world.source.merge_patch(&widgets, &versions(false, true)).await?;
    world.until_unlisted(&v1).await?;
    world.carried("a broken conversion webhook", &[&format!("widgets.{DEMO}")], &v1).await?;
    let asked = world.stage.pair.primary.audit()?.into_iter().filter(|event| {
        event.user == PLAIN_USER
            && event.resource == "widgets"
            && event.verb == "list"
            && event.code == 500
    });
    let asked = asked.count();
    assert!((1..=2 * ATTEMPTS).contains(&asked), "it was asked for {asked} times");
    world.source.merge_patch(&widgets, &versions(false, false)).await?;
    world.until_unlisted(&v2).await?;
    world.carried("defined and not served", &[&format!("widgets.{DEMO}")], &v1).await?;
    world.source.merge_patch(&widgets, &versions(true, true)).await?;
    world.until_listed(&v1).await?;
    world.complete().await?;

    let channel = kinds::named("Channel");
    let spoiled = format!("/registry/{APPS}/channels/default/spoiled");
    let etcd = world.stage.pair.primary.etcd()?;
    etcd.put(&spoiled, "this is no object").await?;
    world.until_unlisted(&channel).await?;
    world
        .carried("an object that cannot be read", &[&format!("channels.{APPS}")], &channel)
        .await?;
    etcd.delete(&spoiled).await?;
    world.until_listed(&channel).await?;
    world.complete().await?;

    let policy = kinds::named("Policy");
    world.source.merge_patch(ROLE, &role(&world.source, Some(POLICY)).await?).await?;
    let partial = [&*format!("placementbindings.{POLICY}"), &*format!("policies.{POLICY}")];
    world.carried("forbidden", &partial, &policy).await?;
    world.source.merge_patch(ROLE, &role(&world.source, None).await?).await?;
    world.complete().await?;

    away(&world, true).await?;
    world.carried("an aggregated API that is away", &[&format!("*.{DEMO}")], &v1).await?;
    away(&world, false).await?;
    world.complete().await
}

impl World {
    async fn set() -> Result<Self> {
        let quick = |config: crate::harness::config::Config| {
            config
                .with("passive.syncInterval", json!("1s"))
                .with("passive.maxShrink", json!("100%"))
        };
        let stage = Stage::set("failed-kinds", quick).await?;
        let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
        fleet::populate(&source, &fleet::demo(CLUSTERS, 3), CONNECTIONS).await?;
        define_widgets(&source, true).await?;
        define_widgets(&target, false).await?;
        apply_widgets(&source).await?;
        // A user who may do everything, and can be told no.
        let mut daemon = role(&source, None).await?;
        daemon["metadata"] = json!({"name": "daemon"});
        source.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &daemon).await?;
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": "daemon"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "daemon"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": PLAIN_USER}],
        });
        source.post(&format!("/apis/{group}/v1/clusterrolebindings"), &binding).await?;
        let kubeconfig = stage.repository.folder().join("plain.kubeconfig");
        stage.pair.primary.write_kubeconfig(&kubeconfig, PLAIN_TOKEN)?;
        let mut primary = Daemon::start(&stage.primary_config, &kubeconfig, NAMESPACE)?;
        primary.wait_live().await?;
        let first = |seen: &Value| status::newest(seen).map(|_| ());
        primary.until(DEADLINE, "the first backup", first).await?;
        let passive = stage.start_passive().await?;
        Ok(Self { stage, primary, passive, source, target })
    }

    /// The newest backup as the status tells of it.
    async fn newest(&self) -> Result<Value> {
        Ok(self.primary.status().await?["newest"].clone())
    }

    async fn until_listed(&self, kind: &Kind) -> Result<()> {
        let path = kind.list_path();
        let what = format!("{path} to be listed");
        eventually(DEADLINE, &what, async || self.source.get(&path).await.ok()).await?;
        Ok(())
    }

    async fn until_unlisted(&self, kind: &Kind) -> Result<()> {
        let path = kind.list_path();
        let what = format!("{path} not to be listed");
        eventually(DEADLINE, &what, async || self.source.get(&path).await.err()).await?;
        Ok(())
    }

    /// A backup with something new in it, held by the standby; the kinds that it names as failed.
    async fn back_up(&mut self, change: &str) -> Result<Vec<String>> {
        let maps = "/api/v1/namespaces/default/configmaps";
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"change": change},
            "metadata": {"name": "change", "labels": {"cluster.open-cluster-management.io/backup": ""}},
        });
        self.source.apply(&format!("{maps}/change"), map.to_string()).await?;
        let hub = &self.stage.pair.primary;
        let output = cli_on(hub, &self.stage.primary_config, &["backup", "run"])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{change}: {told}");
        let newest = self.newest().await?;
        let id = newest["id"].as_str().ok_or("there is no backup")?;
        self.stage.synced(&mut self.passive, id).await?;
        let restored = self.target.get_json(&format!("{maps}/change")).await?;
        assert_eq!(restored["data"]["change"], change, "what else is in the backup");
        let partial = newest["partial"].as_array().cloned().unwrap_or_default();
        let partial: Vec<_> =
            partial.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let failed = f64::from(u32::try_from(partial.len())?);
        until_metric(&self.primary, "understudy_discovery_failed_groups", failed).await?;
        let code = if partial.is_empty() { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{change}: {told}");
        Ok(partial)
    }

    async fn carried(&mut self, what: &str, partial: &[&str], kind: &Kind) -> Result<()> {
        let before = self.target.list(kind).await?;
        assert!(!before.is_empty(), "{what}: the standby holds nothing of it");
        assert_eq!(self.back_up(what).await?, partial, "{what}");
        assert_eq!(self.target.list(kind).await?, before, "{what}: on the standby");
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        assert_eq!(self.back_up("mended").await?, [""; 0]);
        Ok(())
    }
}

fn widget_kind(version: &str) -> Kind {
    Kind {
        group: DEMO.to_owned(),
        version: version.to_owned(),
        kind: "Widget".to_owned(),
        resource: "widgets".to_owned(),
        categories: vec![],
        namespaced: false,
    }
}

/// Stored at v1; which of the two is served.
fn versions(v1: bool, v2: bool) -> Value {
    let schema = json!({"openAPIV3Schema":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"spec": {"versions": [
        {"name": "v1", "served": v1, "storage": true, "schema": schema},
        {"name": "v2", "served": v2, "storage": false, "schema": schema},
    ]}})
}

async fn define_widgets(api: &Api, broken: bool) -> Result<()> {
    let mut definition = versions(true, true);
    definition["metadata"] = json!({"name": format!("widgets.{DEMO}")});
    let spec = &mut definition["spec"];
    spec["group"] = DEMO.into();
    spec["scope"] = "Cluster".into();
    spec["names"] = json!({"kind": "Widget", "listKind": "WidgetList", "plural": "widgets",
        "singular": "widget"});
    if broken {
        spec["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "clientConfig": {"url": "https://127.0.0.1:9/convert"},
            "conversionReviewVersions": ["v1"],
        }});
    }
    api.post(DEFINITIONS, &definition).await?;
    let path = format!("{DEFINITIONS}/widgets.{DEMO}");
    eventually(DEADLINE, "the CRD to be established", async || {
        is_established(&api.get_json(&path).await.ok()?).then_some(())
    })
    .await?;
    let path = widget_kind("v1").list_path();
    eventually(DEADLINE, "widgets to be listed", async || api.get(&path).await.ok()).await?;
    Ok(())
}

/// Everything in all groups that there are, but one.
async fn role(api: &Api, but: Option<&str>) -> Result<Value> {
    let groups = api.get_json("/apis").await?;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let groups = groups.iter().filter_map(|group| group["name"].as_str());
    let groups: Vec<&str> = groups.chain([""]).filter(|group| Some(*group) != but).collect();
    Ok(json!({"rules": [{"apiGroups": groups, "resources": ["*"], "verbs": ["*"]}]}))
}

/// The group of the widgets is left to a service that does not exist, or to a CRD again.
async fn away(world: &World, away: bool) -> Result<()> {
    let (api, services) = (&world.source, "/apis/apiregistration.k8s.io/v1/apiservices");
    let service = format!("{services}/v1.{DEMO}");
    if away {
        api.delete(&format!("{DEFINITIONS}/widgets.{DEMO}")).await?;
        eventually(DEADLINE, "the group to be nobody's", async || {
            api.find(&service).await.ok()?.is_none().then_some(())
        })
        .await?;
        let nowhere = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("v1.{DEMO}")},
            "spec": {
                "group": DEMO, "version": "v1", "insecureSkipTLSVerify": true,
                "groupPriorityMinimum": 1000, "versionPriority": 10,
                "service": {"namespace": "default", "name": "nowhere"},
            },
        });
        api.post(services, &nowhere).await?;
    } else {
        api.delete(&service).await?;
        define_widgets(api, false).await?;
        apply_widgets(api).await?;
    }
    let client = world.stage.pair.primary.client().await?;
    eventually(DEADLINE, "discovery to follow", async || {
        let discovered = discovery::discover(&client).await.ok()?;
        (discovered.failed.contains(DEMO) == away).then_some(())
    })
    .await
}

async fn apply_widgets(api: &Api) -> Result<()> {
    for name in ["one", "two"] {
        let widget = json!({
            "apiVersion": format!("{DEMO}/v1"), "kind": "Widget",
            "metadata": {"name": name}, "spec": {"number": 1},
        });
        let path = format!("{}/{name}", widget_kind("v1").list_path());
        api.apply(&path, widget.to_string()).await?;
    }
    Ok(())
}
