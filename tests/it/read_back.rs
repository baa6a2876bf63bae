//! How a standby looks at its own hub: in pages that the API server can answer, no more often than it has
//! to, and with a word about what the hub does not serve.

use crate::harness::bare::Api;
use crate::harness::daemon::Daemon;
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::hub::{DAEMON_USER, Hub, NAMESPACE};
use crate::harness::{Result, eventually, kinds};
use crate::scene::in_sync;
use crate::stage::{DEADLINE, Stage};
use serde_json::{Value, json};

/// A kind that no restore looks at, but every look at the whole hub.
const UNUSED: &str = "limitranges";
const MAPS: &str = "/api/v1/namespaces/full/configmaps";
const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_not_answered_become_smaller() -> Result<()> {
    let stage =
        Stage::set("pages", |config| config.with("kubernetes.requestTimeout", json!("3s"))).await?;
    create(&stage.pair.primary.api()?).await?;
    let _primary = stage.start_primary().await?;
    let (faultd, kubeconfig) = stage.pair.passive.faultd().await?;
    // More than the attempts at one page.
    let when = When::First(5);
    faultd.add(Rule { fault: Fault::Stall, method: "GET", key: "v1/configmaps".to_owned(), when });
    let mut passive = Daemon::start(&stage.passive_config, &kubeconfig, NAMESPACE)?;
    passive.wait_live().await?;
    passive.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    let met = faultd.history("v1/configmaps").iter().filter(|one| one.fault.is_some()).count();
    assert_eq!(met, 5);
    let log = passive.log_text()?;
    let unread = log.lines().filter(|line| line.contains("cannot be read back"));
    assert_eq!(unread.filter(|line| line.contains("configmaps")).count(), 0, "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_without_a_look_at_everything() -> Result<()> {
    let stage = Stage::set("failing", |config| config).await?;
    create(&stage.pair.primary.api()?).await?;
    let target = stage.pair.passive.api()?;
    target.post("/api/v1/namespaces", &json!({"metadata": {"name": "full"}})).await?;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/configmaps": "0"}}});
    target.post("/api/v1/namespaces/full/resourcequotas", &quota).await?;
    let clusters = format!("{DEFINITIONS}/managedclusters.cluster.open-cluster-management.io");
    target.delete(&clusters).await?;
    eventually(DEADLINE, "the CRD to be gone", async || {
        target.find(&clusters).await.ok()?.is_none().then_some(())
    })
    .await?;

    let _primary = stage.start_primary().await?;
    let mut passive = Daemon::start_on(&stage.pair.passive, &stage.passive_config).await?;
    let failed = |seen: &Value| (seen["sync"]["failed"] == json!({"configmaps": 1})).then_some(());
    passive.until(DEADLINE, "the refusal to be told", failed).await?;
    let hub = &stage.pair.passive;
    let (lists, tries) = (asked(hub, "list", UNUSED)?, asked(hub, "create", "configmaps")?);
    assert!(lists > 0, "the hub was looked at once");
    eventually(DEADLINE, "it to be tried by other syncs", async || {
        // Up to three times by each.
        (asked(hub, "create", "configmaps").ok()? > tries + 6).then_some(())
    })
    .await?;
    assert_eq!(asked(hub, "list", UNUSED)?, lists);

    // The activation set is not restored here, but that its kind is missing is told before.
    let served = |seen: &Value| {
        let mut checks = seen["promotion"]["checklist"].as_array()?.iter();
        checks.find(|check| check["name"] == "required kinds served").cloned()
    };
    let check = passive.until(DEADLINE, "the checklist", served).await?;
    let told = "this hub does not serve managedclusters.cluster.open-cluster-management.io (1)";
    assert_eq!((&check["ok"], &check["why"]), (&json!(false), &json!(told)));
    kinds::define(&target, &[kinds::named("ManagedCluster")]).await?;
    let again = |seen: &Value| served(seen).filter(|check| check["ok"] == true).map(|_| ());
    passive.until(DEADLINE, "the kind to be seen", again).await
}

fn asked(hub: &Hub, verb: &str, resource: &str) -> Result<usize> {
    let ours = hub.audit()?.into_iter().filter(|event| event.user == DAEMON_USER);
    Ok(ours.filter(|event| event.verb == verb && event.resource == resource).count())
}

async fn create(api: &Api) -> Result<()> {
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "full"}})).await?;
    let labels = json!({"cluster.open-cluster-management.io/backup": ""});
    api.post(MAPS, &json!({"metadata": {"name": "one", "labels": labels}})).await?;
    let cluster = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": "c1"}, "spec": {"hubAcceptsClient": true},
    });
    api.post(CLUSTERS, &cluster).await?;
    Ok(())
}
