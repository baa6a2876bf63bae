//! A primary that was superseded returns: fenced, until an operator has it rejoin. Then its own objects
//! become restored ones, nothing is deleted that nobody looked at, and it can be promoted again.

use crate::harness::daemon::cli_on;
use crate::harness::hub::{AuditEvent, Hub};
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, FIRST, Scene, differences, in_sync, restore_writes, until_refused, until_role,
    until_silent,
};
use crate::switchover::{ends, until_ready};
use serde_json::{Value, json};
use std::path::Path;
use understudy::object::Set;

const CLUSTER: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters/cluster-0000";
const PLACEMENT: &str =
    "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/policies/placements/production";
const GONE: &str = "/api/v1/namespaces/cluster-0000/configmaps/site";
const MINE: &str = "/api/v1/namespaces/cluster-0000/configmaps";

async fn held_plan(hub: &Hub, config: &Path) -> Result<String> {
    eventually(DEADLINE, "a held prune", async || {
        let held = ends(hub, config, &["sync", "held", "-o", "json"], 0).ok()?;
        let held: Value = serde_json::from_str(&held).ok()?;
        held["held"]["plan"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_rejoins_and_nothing_of_it_is_lost() -> Result<()> {
    let scene = Scene::set(2).await?;
    let (mut first, mut second) = scene.running().await?;
    let (old, new) = (&scene.pair.primary, &scene.pair.passive);
    let (old_api, new_api) = (old.api()?, new.api()?);
    let (config, there) = (scene.first_file()?, scene.second_file()?);
    let annotated = |value: &str| json!({"metadata": {"annotations": {"change": value}}});
    // What the old primary's users do after its last backup, and what the new one's do later.
    first.kill9();
    let mine = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "mine", "labels": {"cluster.open-cluster-management.io/backup": ""}},
    });
    let mine = old_api.post(MINE, &mine).await?;
    old_api.merge_patch(PLACEMENT, &annotated("late")).await?;
    until_silent(&mut second).await?;
    second.promote(DEADLINE).await?;
    until_role(&mut second, "primary").await?;
    new_api.merge_patch(PLACEMENT, &annotated("new")).await?;
    new_api.merge_patch(CLUSTER, &annotated("new")).await?;
    new_api.delete(GONE).await?;
    let output = cli_on(new, &there, &["backup", "run"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut first = scene.start_first().await?;
    until_role(&mut first, "fenced").await?;
    first.signal("USR1")?;
    let refused = until_refused(&mut first, "Fenced").await?;
    assert_eq!(refused["hint"], "understudy rejoin --dry-run");
    let told = ends(old, &config, &["rejoin", "--dry-run"], 0)?;
    for part in ["eu-1 would follow eu-2 (epoch 2)", "label", "hold", "policies/production"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let json = ends(old, &config, &["rejoin", "--dry-run", "-o", "json"], 0)?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!(json["objects"]["held"].as_array().map(Vec::len), Some(1), "{json}");
    ends(old, &config, &["rejoin"], 7)?;
    ends(new, &there, &["rejoin", "--yes"], 5)?;
    assert_eq!(restore_writes(old)?, 0, "a plan changes nothing");
    first.kill9();
    let mut first = scene.start_first().await?;
    until_role(&mut first, "fenced").await?;

    let told = ends(old, &config, &["rejoin", "--yes", "--reason", "test"], 0)?;
    assert!(told.contains("eu-1 follows eu-2 (epoch 2) as passive"), "{told}");
    first.until(DEADLINE, "the old primary to follow", in_sync).await?;
    let deletes = |event: &AuditEvent| event.is_restore_write() && event.verb == "delete";
    assert!(old.audit_writes(deletes)?.is_empty());
    assert!(old_api.find(GONE).await?.is_some(), "nobody has looked at that yet");
    assert_eq!(old_api.get_json(&format!("{MINE}/mine")).await?, mine, "it is in no backup");
    let change = |object: Value| object["metadata"]["annotations"]["change"].clone();
    assert_eq!(change(old_api.get_json(PLACEMENT).await?), "new");
    assert_eq!(change(old_api.get_json(CLUSTER).await?), Value::Null, "activation waits");

    // The prune is held, over a restart too, until somebody releases it.
    first.kill9();
    let mut first = scene.start_first().await?;
    until_role(&mut first, "passive").await?;
    let plan = held_plan(old, &config).await?;
    ends(old, &config, &["sync", "ack", &plan], 0)?;
    assert_eq!(old_api.find(GONE).await?, None);

    // It is a standby like any other, and the way home is a planned one.
    until_ready(&mut second, FIRST).await?;
    ends(new, &there, &["demote", "--to", FIRST, "--yes"], 0)?;
    let handed = |seen: &Value| seen["handover"]["handed"].as_object().map(|_| ());
    first.until(DEADLINE, "the hand-over", handed).await?;
    first.signal("USR1")?;
    let seen = until_role(&mut first, "primary").await?;
    assert_eq!(status::epoch(&seen), 3);
    assert_eq!(change(old_api.get_json(CLUSTER).await?), "new");
    let other = differences(&scene, &Set::ALL).await?;
    let other: Vec<_> = other.iter().filter(|line| !line.contains("mine")).collect();
    assert!(other.is_empty(), "{other:?}");
    Ok(())
}
