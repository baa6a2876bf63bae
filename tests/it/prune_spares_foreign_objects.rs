//! Nothing is overwritten or deleted on a hub that Understudy did not put there: not an object of
//! the same name, not what stands in a namespace that goes. And what it did put there it does not
//! delete in large numbers without somebody looking at it.

use crate::harness::bare::Api;
use crate::harness::daemon::Daemon;
use crate::harness::{Result, eventually, fleet, kinds};
use crate::stage::{CONNECTIONS, DEADLINE, Stage};
use serde_json::{Value, json};

const CLUSTERS: usize = 8;
const MAX_DELETES: usize = 5;
const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";

/// On both hubs, made by somebody on each: (collection, object).
fn same_named() -> Vec<(String, Value)> {
    let placements = "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/policies";
    let placement = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1beta1", "kind": "Placement",
        "metadata": {"name": "production"}, "spec": {"clusterSets": ["mine"]},
    });
    let mut objects = vec![
        ("/api/v1/namespaces".to_owned(), namespace("policies")),
        ("/api/v1/namespaces".to_owned(), namespace("cluster-0001")),
        (format!("{placements}/placements"), placement),
    ];
    for name in ["site", "contacts"] {
        let labels = json!({BACKUP_LABEL: ""});
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": labels}, "data": {"site": "mine"},
        });
        objects.push(("/api/v1/namespaces/cluster-0001/configmaps".to_owned(), map));
    }
    objects
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Each object as it stands on the hub, to be compared byte by byte: its resourceVersion tells
/// every write.
async fn look_at(api: &Api, objects: &[(String, Value)]) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for (collection, object) in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        found.push(api.get_json(&format!("{collection}/{name}")).await?);
    }
    Ok(found)
}

#[tokio::test]
async fn prune_spares_foreign_objects() -> Result<()> {
    let limits = |config: crate::harness::config::Config| {
        config
            .with("passive.maxDeletes", json!(MAX_DELETES))
            .with("passive.maxShrink", json!("100%"))
            .with("schedule.maxShrink", json!("100%"))
            .with("passive.syncInterval", json!("1s"))
            .with("passive.fullCheck", json!("1s"))
    };
    let mut stage = Stage::set("prune", limits).await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let items = fleet::demo(CLUSTERS, 11);
    fleet::populate(&source, &items, CONNECTIONS).await?;
    let foreign = same_named();
    for (collection, object) in &foreign {
        target.post(collection, object).await?;
    }
    let before = look_at(&target, &foreign).await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    assert_eq!(look_at(&target, &foreign).await?, before, "the first restore");
    let login = "/api/v1/namespaces/cluster-0001/secrets/console-login";
    assert!(target.find(login).await?.is_some(), "what is missing comes, also beside the foreign");

    // The objects of the same name disappear on the primary.
    let placements = "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/policies";
    source.delete(&format!("{placements}/placements/production")).await?;
    source.delete("/api/v1/namespaces/cluster-0001/configmaps/site").await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await?;
    assert_eq!(look_at(&target, &foreign).await?, before, "their namesakes were deleted");

    above_the_ceiling(&stage, &primary, &mut passive).await?;
    assert_eq!(look_at(&target, &foreign).await?, before, "a run that was held");

    // An operator looked and allows more.
    let (held, writes) = (sites(&target).await?, stage.restore_writes(0)?.len());
    passive.kill9();
    stage.reconfigure_passive("passive.maxDeletes", json!(100))?;
    let mut passive = stage.start_passive().await?;
    assert_eq!(sites(&target).await?, [""; 0], "what was held goes once it is allowed");
    let deletes: Vec<_> =
        held.iter().map(|namespace| format!("delete configmaps {namespace}/site")).collect();
    assert_eq!(stage.restore_writes(writes)?, deletes, "and nothing else is done");
    namespaces(&stage, &primary, &mut passive).await?;
    assert_eq!(look_at(&target, &foreign).await?, before, "the end");
    stage.passive_did_what_it_may(&items)
}

/// More deletions than allowed: none of them is done, everything else goes on.
async fn above_the_ceiling(stage: &Stage, primary: &Daemon, passive: &mut Daemon) -> Result<()> {
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let doomed = sites(&source).await?;
    assert!(doomed.len() > MAX_DELETES, "{doomed:?}");
    for namespace in &doomed {
        source.delete(&format!("/api/v1/namespaces/{namespace}/configmaps/site")).await?;
    }
    let policy =
        "/apis/policy.open-cluster-management.io/v1/namespaces/policies/policies/limit-ranges";
    source.merge_patch(policy, &json!({"spec": {"remediationAction": "enforce"}})).await?;
    let backup = stage.backup(primary).await?;
    stage.synced(passive, &backup).await?;
    assert_eq!(sites(&target).await?, doomed, "nothing is deleted");
    let changed = target.get_json(policy).await?;
    assert_eq!(changed["spec"]["remediationAction"], "enforce", "the change arrives");

    let seen = passive.status().await?;
    let held = seen["sync"]["pruneHeld"].as_str().unwrap_or_default();
    assert!(held.contains("maxDeletes"), "{seen}");
    assert!(held.contains(&doomed.len().to_string()), "{held}");
    // The next full check comes to the same end.
    let writes = stage.restore_writes(0)?.len();
    stage.full_check().await?;
    assert_eq!(sites(&target).await?, doomed);
    assert_eq!(stage.restore_writes(0)?.len(), writes);
    Ok(())
}

/// Namespaces with a `ConfigMap` `site` that is ours or the fleet's, not the one of this test.
async fn sites(api: &Api) -> Result<Vec<String>> {
    let maps = api.list(&kinds::named("ConfigMap")).await?;
    let sites = maps
        .iter()
        .map(|map| &map["metadata"])
        .filter(|metadata| metadata["name"] == "site" && metadata["namespace"] != "cluster-0001");
    let namespace = |metadata: &Value| metadata["namespace"].as_str().map(str::to_owned);
    let mut namespaces: Vec<String> = sites.filter_map(namespace).collect();
    namespaces.sort_unstable();
    Ok(namespaces)
}

/// Two namespaces go on the primary. In one of them somebody keeps something on the passive.
async fn namespaces(stage: &Stage, primary: &Daemon, passive: &mut Daemon) -> Result<()> {
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let [used, unused] =
        ["cluster-0002", "cluster-0003"].map(|n| format!("/api/v1/namespaces/{n}"));
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"a": "b"},
    });
    let mine = target.post(&format!("{used}/configmaps"), &map).await?;
    for namespace in [&used, &unused] {
        source.delete(namespace).await?;
        let gone = async || source.find(namespace).await.ok()?.is_none().then_some(());
        eventually(DEADLINE, "the namespace to be gone on the primary", gone).await?;
    }
    let backup = stage.backup(primary).await?;
    stage.synced(passive, &backup).await?;

    let gone = async || target.find(&unused).await.ok()?.is_none().then_some(());
    eventually(DEADLINE, "the empty namespace to go", gone).await?;
    assert!(target.find(&format!("{used}/secrets/console-login")).await?.is_none());
    assert_eq!(target.get_json(&format!("{used}/configmaps/mine")).await?, mine);
    let namespace = target.get_json(&used).await?;
    assert!(namespace["metadata"]["deletionTimestamp"].is_null(), "{namespace}");
    let seen = passive.status().await?;
    let held = seen["sync"]["pruneHeld"].as_str().unwrap_or_default();
    assert!(held.contains("cluster-0002"), "{seen}");
    Ok(())
}
