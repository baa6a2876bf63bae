//! The shipped flow schema takes the daemon's requests, and nobody else's, to its own priority level.

use crate::harness::bare::Api;
use crate::harness::hub::NAMESPACE;
use crate::harness::pair::Pair;
use crate::harness::{Result, eventually};
use crate::stage::DEADLINE;
use reqwest::Method;
use serde_json::{Value, json};

const MANIFESTS: &str = include_str!("../../deploy/flowcontrol.yaml");
const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[tokio::test]
async fn the_daemon_has_a_priority_level_of_its_own() -> Result<()> {
    let hub = &Pair::shared().await?.primary;
    let api = hub.api()?;
    for (manifest, kind) in
        MANIFESTS.split("\n---\n").zip(["prioritylevelconfigurations", "flowschemas"])
    {
        let manifest: Value = serde_saphyr::from_str(manifest)?;
        let path = format!("{GROUP}/{kind}?fieldValidation=Strict");
        api.post(&path, &manifest).await?;
    }
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "understudy"},
    });
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    api.post(&accounts, &account).await?;
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"});
    let token = api.post(&format!("{accounts}/understudy/token"), &token).await?;
    let daemon = hub.api_as(token["status"]["token"].as_str().ok_or("there is no token")?)?;

    eventually(DEADLINE, "the flow schema to be in force", async || {
        let before = dispatched(&api).await.ok()?;
        api.get("/api/v1/namespaces").await.ok()?;
        let others = dispatched(&api).await.ok()?;
        // It may not list them; the request is sorted all the same.
        daemon.send(Method::GET, "/api/v1/namespaces", "", vec![].into()).await.ok()?;
        let after = dispatched(&api).await.ok()?;
        (before == others && after > others).then_some(())
    })
    .await
}

/// Requests that the schema has taken.
async fn dispatched(api: &Api) -> Result<u64> {
    let metrics = api.get("/metrics").await?;
    let ours = std::str::from_utf8(&metrics)?.lines().filter(|line| {
        line.starts_with("apiserver_flowcontrol_dispatched_requests_total")
            && line.contains("flow_schema=\"understudy\"")
    });
    let count = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
    Ok(ours.filter_map(count).sum())
}
