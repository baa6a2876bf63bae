//! What somebody changes on a passive hub is found by the next full check: written again, or only told.

use crate::harness::bare::Api;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::{DAEMON_USER, Hub};
use crate::harness::{Result, eventually};
use crate::scene::{until_role, until_silent};
use crate::stage::{DEADLINE, Stage};
use serde_json::{Value, json};

const CONFIG: &str = "/api/v1/namespaces/team/configmaps/site";

#[tokio::test]
async fn a_change_on_the_passive_hub_is_written_again_or_told() -> Result<()> {
    let mut stage =
        Stage::set("drift", |config| config.with("passive.fullCheck", json!("1s"))).await?;
    create(&stage.pair.primary.api()?).await?;
    let _primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    let target = stage.pair.passive.api()?;

    // More than once, so that it counts as contested.
    for number in 0.. {
        change(&target, &number.to_string()).await?;
        eventually(DEADLINE, "the change to be corrected", async || {
            (value(&target).await.ok()? == "original").then_some(())
        })
        .await?;
        let seen = passive.status().await?;
        if seen["sync"]["drift"]["contested"] == json!(["configmaps team/site (data.value)"]) {
            break;
        }
        assert!(number < 20, "{}", seen["sync"]["drift"]);
    }
    passive
        .until(DEADLINE, "no drift any more", |seen| {
            (seen["sync"]["drift"]["objects"] == 0).then_some(())
        })
        .await?;

    passive.kill9();
    // A new process has to find it without a memory.
    change(&target, "while it was away").await?;
    stage.reconfigure_passive("passive.drift", json!("report"))?;
    let mut passive = Daemon::start_on(&stage.pair.passive, &stage.passive_config).await?;
    let told = |seen: &Value| (seen["sync"]["drift"]["objects"] == 1).then_some(());
    passive.until(DEADLINE, "the drift to be told", told).await?;
    stage.full_check().await?;
    assert_eq!(passive.status().await?["sync"]["drift"]["objects"], 1, "and it stays told");
    assert_eq!(value(&target).await?, "while it was away", "it is left as it is");
    Ok(())
}

/// What somebody changed is not looked for while a promotion waits, even if a full check is due.
#[tokio::test]
async fn a_promotion_compares_nothing() -> Result<()> {
    let stage = Stage::set("hurry", |config| {
        config.with("passive.fullCheck", json!("1s")).with("passive.drift", json!("report"))
    })
    .await?;
    create(&stage.pair.primary.api()?).await?;
    let mut primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    change(&stage.pair.passive.api()?, "changed").await?;
    // What is told is looked at by every comparison.
    let told = |seen: &Value| (seen["sync"]["drift"]["objects"] == 1).then_some(());
    passive.until(DEADLINE, "the drift to be told", told).await?;

    let hub = &stage.pair.passive;
    let pause = ["sync", "pause", "--indefinitely", "--reason", "a promotion"];
    assert!(cli_on(hub, &stage.passive_config, &pause)?.status.success());
    let still = |seen: &Value| seen["sync"]["runningSince"].is_null().then_some(());
    passive.until(DEADLINE, "the last sync to end", still).await?;
    let (looks, lists) = (asked(hub, "get", "configmaps")?, asked(hub, "list", UNSAVED)?);
    assert!(looks > 0, "it was compared before");

    primary.kill9();
    until_silent(&mut passive).await?;
    passive.promote(DEADLINE).await?;
    until_role(&mut passive, "primary").await?;
    assert!(asked(hub, "list", UNSAVED)? > lists, "the full check was due");
    assert_eq!(asked(hub, "get", "configmaps")?, looks);
    Ok(())
}

/// A kind that no backup lists, but every full check.
const UNSAVED: &str = "limitranges";

fn asked(hub: &Hub, verb: &str, resource: &str) -> Result<usize> {
    let ours = hub.audit()?.into_iter().filter(|event| event.user == DAEMON_USER);
    Ok(ours.filter(|event| event.verb == verb && event.resource == resource).count())
}

async fn create(api: &Api) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    api.post("/api/v1/namespaces", &namespace).await?;
    let labels = json!({"cluster.open-cluster-management.io/backup": ""});
    let site = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site", "labels": labels},
        "data": {"value": "original", "other": "same"},
    });
    api.post("/api/v1/namespaces/team/configmaps", &site).await?;
    Ok(())
}

async fn change(api: &Api, value: &str) -> Result<()> {
    api.merge_patch(CONFIG, &json!({"data": {"value": value}})).await?;
    Ok(())
}

async fn value(api: &Api) -> Result<String> {
    Ok(api.get_json(CONFIG).await?["data"]["value"].as_str().unwrap_or_default().to_owned())
}
