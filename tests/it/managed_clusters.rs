//! A promoted hub accepts the clusters of the backup and has those imported that do not come by themselves,
//! before it calls itself primary and never again after; it waits for none of them.

use crate::harness::bare::Api;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::hub::NAMESPACE;
use crate::harness::{Result, eventually};
use crate::scene::{
    DEADLINE, SECOND, SOON, Scene, in_sync, journal, restore_writes, until_condition, until_event,
    until_metric, until_role, until_silent,
};
use serde_json::{Value, json};

const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
const IMMEDIATE: &str = "import.open-cluster-management.io/immediate-import";

fn cluster(number: usize) -> String {
    format!("{CLUSTERS}/cluster-{number:04}")
}

fn secrets(number: usize) -> String {
    format!("/api/v1/namespaces/cluster-{number:04}/secrets")
}

fn import_secret(number: usize) -> String {
    format!("{}/auto-import-secret", secrets(number))
}

fn token_of(number: usize) -> String {
    format!("{}/auto-import-account", secrets(number))
}

/// What a klusterlet would have the hub say.
async fn comes(api: &Api, number: usize) -> Result<()> {
    let status = json!({"status": {"conditions": [
        {"type": "HubAcceptedManagedCluster", "status": "True", "reason": "x"},
        {"type": "ManagedClusterConditionAvailable", "status": "True", "reason": "x"},
    ]}});
    api.merge_patch(&format!("{}/status", cluster(number)), &status).await?;
    Ok(())
}

async fn expires(api: &Api, number: usize, at: &str) -> Result<()> {
    let annotations = json!({"metadata": {"annotations": {"expirationTimestamp": at}}});
    api.merge_patch(&token_of(number), &annotations).await?;
    Ok(())
}

fn managed(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name, "labels": labels}, "spec": {"hubAcceptsClient": false},
    })
}

async fn until_state(daemon: &mut Daemon, state: &str, number: u64) -> Result<()> {
    let what = format!("{number} clusters to be {state}");
    // Once the wait is over, clusters are looked at once a minute.
    daemon.until(DEADLINE, &what, |seen| (seen["clusters"][state] == number).then_some(())).await
}

/// On the first hub: 1 has a good token, 2 an old one, 4 no address.
async fn prepare_first(api: &Api) -> Result<()> {
    expires(api, 1, "2099-01-01T00:00:00Z").await?;
    expires(api, 2, "2020-01-01T00:00:00Z").await?;
    let nowhere = json!({"spec": {"managedClusterClientConfigs": null}});
    api.merge_patch(&cluster(4), &nowhere).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cluster_is_accepted_and_imported_as_it_needs_it() -> Result<()> {
    let mut scene = Scene::set(5).await?;
    let adopted = json!([{"kind": "ManagedCluster", "name": "cluster-0000", "policy": "adopt"}]);
    scene.second = scene.second.with("passive.conflict", adopted);
    scene.second = scene.second.with("promotion.waitForClusters", json!("1s"));
    let (old, new) = (scene.pair.primary.api()?, scene.pair.passive.api()?);
    prepare_first(&old).await?;
    // 0 is there already; the others are the hub itself and what somebody else made.
    new.post(CLUSTERS, &managed("cluster-0000", &json!({}))).await?;
    comes(&new, 0).await?;
    let itself = managed("hub-2", &json!({"local-cluster": "true"}));
    let untouched = [
        new.post(CLUSTERS, &itself).await?,
        new.post(CLUSTERS, &managed("edge", &json!({}))).await?,
    ];
    let (mut first, mut second) = scene.running().await?;
    let own = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "auto-import-secret"},
        "stringData": {"token": "mine"},
    });
    let own = new.post(&secrets(3), &own).await?;

    first.kill9();
    until_silent(&mut second).await?;
    second.signal("USR1")?;
    until_role(&mut second, "primary").await?;
    let backup = |seen: &Value| (seen["newest"]["hub"] == SECOND).then_some(());
    second.until(DEADLINE, "the first own backup, whatever the clusters do", backup).await?;

    let made = new.get_json(&import_secret(1)).await?;
    let data = &made["data"];
    assert_eq!(data["token"], old.get_json(&token_of(1)).await?["data"]["token"]);
    assert_eq!(data["autoImportRetry"], "NQ==");
    // https://api.cluster-0001.example.com:6443
    let server = "aHR0cHM6Ly9hcGkuY2x1c3Rlci0wMDAxLmV4YW1wbGUuY29tOjY0NDM=";
    assert_eq!(data["server"], server);
    let labels = json!({"cluster.open-cluster-management.io/restore-auto-import-secret": "true"});
    assert_eq!(made["metadata"]["labels"], labels);
    let keeping =
        "managedcluster-import-controller.open-cluster-management.io/keeping-auto-import-secret";
    assert_eq!(made["metadata"]["annotations"], json!({keeping: ""}));
    for (number, ordered) in [(0, false), (1, true), (2, true), (3, false), (4, false)] {
        let now = new.get_json(&cluster(number)).await?;
        assert_eq!(now["metadata"]["annotations"][IMMEDIATE] == "", ordered, "{number}: {now}");
        assert_eq!(now["spec"]["hubAcceptsClient"], true, "{number}: {now}");
        let secret = new.find(&import_secret(number)).await?;
        assert_eq!(secret.is_some(), ordered || number == 3, "cluster {number}");
    }
    assert_eq!(new.get_json(&import_secret(3)).await?, own, "a user's own is left alone");
    let still = [
        new.get_json(&format!("{CLUSTERS}/hub-2")).await?,
        new.get_json(&format!("{CLUSTERS}/edge")).await?,
    ];
    assert_eq!(still, untouched);
    told(&scene, &second).await?;

    // A cluster comes; the daemon is killed and still knows for whom it looks.
    let written = restore_writes(&scene.pair.passive)?;
    second.kill9();
    let mut second = scene.start_second().await?;
    until_role(&mut second, "primary").await?;
    comes(&new, 1).await?;
    until_state(&mut second, "available", 2).await?;
    until_state(&mut second, "pending", 1).await?;
    assert_eq!(restore_writes(&scene.pair.passive)?, written, "a primary only looks");
    scene.canary_is_seen_nowhere(&[&second]).await
}

async fn told(scene: &Scene, second: &Daemon) -> Result<()> {
    for (state, number) in [("available", 1.0), ("pending", 2.0), ("unreachable", 2.0)] {
        let series = format!(r#"understudy_activation_clusters{{state="{state}"}}"#);
        until_metric(second, &series, number).await?;
    }
    let note = until_event(&scene.pair.passive, "ActivationIncomplete").await?;
    assert!(note.contains("5 clusters: 1 available, 2 pending, 2 unreachable"), "{note}");
    let file = scene.second_file()?;
    let wanted = [
        "clusters  5 clusters: 1 available, 2 pending, 2 unreachable",
        "cluster-0001 pending: it is imported with the token auto-import-account, good until 2099",
        "cluster-0002 unreachable: it is imported with the token auto-import-account, which expired at 2020",
        "cluster-0003 pending: a user's own auto-import-secret",
        "cluster-0004 unreachable: spec.managedClusterClientConfigs names no API server",
        "-> kubectl -n cluster-0004 get secret cluster-0004-import",
    ];
    eventually(SOON, "status to name the clusters", async || {
        let output = cli_on(&scene.pair.passive, &file, &["status"]).ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        wanted.iter().all(|line| text.contains(line)).then_some(())
    })
    .await?;
    let (_, open) = second.http_get("/api/v1/status").await?;
    assert!(!open.contains("cluster-0004"), "no names for everybody: {open}");
    let (_, page) = second.http_get("/").await?;
    assert!(page.contains("2 unreachable") && !page.contains("cluster-0004"), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_on_after_a_crash_imports_the_rest() -> Result<()> {
    let scene = Scene::set(4).await?;
    let (faultd, kubeconfig) = scene.pair.passive.faultd().await?;
    let new = scene.pair.passive.api()?;
    let mut first = scene.start_first().await?;
    let mut second = Daemon::start(&scene.second_file()?, &kubeconfig, NAMESPACE)?;
    second.wait_live().await?;
    until_role(&mut first, "primary").await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    let key = "v1/namespaces/cluster-0002/secrets".to_owned();
    faultd.add(Rule { fault: Fault::ApplyThenStall, method: "POST", key, when: When::Always });
    first.kill9();
    until_silent(&mut second).await?;
    second.signal("USR1")?;
    eventually(DEADLINE, "the import that hangs", async || {
        new.find(&import_secret(2)).await.ok()?.map(|_| ())
    })
    .await?;
    second.kill9();
    let activated = || -> Result<usize> {
        let records = journal(&scene.repository)?;
        Ok(records.iter().filter(|r| r.epoch == 2 && r.kind == "Activated").count())
    };
    assert_eq!(activated()?, 0, "killed too late");
    assert_eq!(new.get_json(&cluster(2)).await?["metadata"]["annotations"][IMMEDIATE], Value::Null);

    let mut second = scene.start_second().await?;
    until_role(&mut second, "primary").await?;
    for number in 0..4 {
        let now = new.get_json(&cluster(number)).await?;
        assert_eq!(now["metadata"]["annotations"][IMMEDIATE], "", "{number}: {now}");
        assert!(new.find(&import_secret(number)).await?.is_some(), "cluster {number}");
    }
    until_state(&mut second, "pending", 4).await?;

    // An administrator of the new primary has the last word.
    let closed = json!({"spec": {"hubAcceptsClient": false}});
    new.merge_patch(&cluster(3), &closed).await?;
    new.delete(&import_secret(3)).await?;
    let written = restore_writes(&scene.pair.passive)?;
    second.kill9();
    let mut second = scene.start_second().await?;
    until_state(&mut second, "unreachable", 1).await?;
    assert_eq!(restore_writes(&scene.pair.passive)?, written);
    assert_eq!(activated()?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_soon_are_told_on_both_hubs() -> Result<()> {
    let scene = Scene::set(2).await?;
    let api = scene.pair.primary.api()?;
    expires(&api, 0, "2020-01-01T00:00:00Z").await?;
    expires(&api, 1, "2099-01-01T00:00:00Z").await?;
    // Made on the standby, and in no backup.
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"token": "x"},
        "metadata": {
            "name": "auto-import-account-2",
            "labels": {"authentication.open-cluster-management.io/is-managed-serviceaccount": "true"},
            "annotations": {"expirationTimestamp": "2019-01-01T00:00:00Z"},
        },
    });
    scene.pair.passive.api()?.post("/api/v1/namespaces/default/secrets", &foreign).await?;
    let (mut first, second) = scene.running().await?;
    let series = "understudy_import_credential_earliest_expiry_timestamp_seconds";
    for (daemon, hub) in [(&first, &scene.pair.primary), (&second, &scene.pair.passive)] {
        until_metric(daemon, series, 1_577_836_800.0).await?;
        let note = until_event(hub, "ImportCredentialExpiring").await?;
        assert!(note.contains("1 cluster in the newest backup"), "{note}");
    }
    // Renewed, it is no problem any more.
    expires(&api, 0, "2098-01-01T00:00:00Z").await?;
    scene.backup(&mut first).await?;
    for daemon in [&first, &second] {
        until_metric(daemon, series, 4_039_372_800.0).await?;
    }
    until_condition(&scene.pair.passive, SECOND, "Ready", "True", "InSync").await?;
    Ok(())
}
