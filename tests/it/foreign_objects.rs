//! A hub on which somebody has thousands of objects of the same kinds, in the same namespaces, some with
//! the very names of ours: each stays bit for bit, through the first restore, changes, prunes that were
//! held and released, and a promotion.

use crate::harness::Result;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::status;
use crate::scene::until_role;
use crate::stage::DEADLINE;
use crate::world::World;
use serde_json::{Value, json};
use understudy::object::ObjectKey;

const FOREIGN: usize = 5_000;
const CLUSTERS: usize = 6;
const DELTAS: usize = 3;
/// Every prune of the story is of more.
const MAX_DELETES: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_stays_bit_for_bit() -> Result<()> {
    let mut world = World::set(3, CLUSTERS, |config| {
        config
            .with("passive.maxDeletes", json!(MAX_DELETES))
            .with("passive.fullCheck", json!("5s"))
            .with("schedule.maxShrink", json!("100%"))
    })
    .await?;
    // Half of the namespaces are somebody else's, with namesakes of ours in them.
    let (mut namespaces, mut namesakes) = (vec![], vec![]);
    for cluster in 0..CLUSTERS / 2 {
        let name = format!("cluster-{cluster:04}");
        namespaces.push(object("namespaces", "", &name)?);
        namesakes.push(object("configmaps", &name, "site")?);
        namesakes.push(object("secrets", &name, "console-login")?);
    }
    world.put_foreign(&namespaces).await?;
    world.put_foreign(&namesakes).await?;
    world.put_foreign(&others(0..CLUSTERS / 2, FOREIGN / 2)?).await?;

    let backup = world.back_up().await?;
    let mut daemon = world.start(&world.hub.kubeconfig)?;
    daemon.wait_live().await?;
    world.holds(&mut daemon, &backup).await?;
    world.is_exact().await?;
    // The others are ours, and others put things there, too.
    world.put_foreign(&others(CLUSTERS / 2..CLUSTERS, FOREIGN / 2)?).await?;
    let mut released = 0;
    for _ in 0..DELTAS {
        let backup = world.back_up().await?;
        world.holds(&mut daemon, &backup).await?;
        released += usize::from(released_if_held(&world, &mut daemon).await?);
        world.is_exact().await?;
    }
    assert!(released > 0, "no prune was held");

    daemon.signal("USR1")?;
    until_role(&mut daemon, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == "eu-2").then_some(());
    daemon.until(DEADLINE, "the first own backup", own).await?;
    assert_eq!(status::epoch(&daemon.status().await?), 2);
    world.spares_foreign().await
}

fn object(resource: &str, namespace: &str, name: &str) -> Result<(ObjectKey, Value)> {
    let kind = match resource {
        "namespaces" => "Namespace",
        "secrets" => "Secret",
        _ => "ConfigMap",
    };
    let mut body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    if !namespace.is_empty() {
        // The label by which a primary would select them.
        body["metadata"]["labels"] = json!({"cluster.open-cluster-management.io/backup": ""});
        body["stringData"] = json!({"a": "mine"});
    }
    if kind == "ConfigMap" {
        body["data"] = body["stringData"].take();
    }
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    Ok((ObjectKey::new("", resource, namespace, name)?, body))
}

/// So many Secrets and config maps over the namespaces of these clusters.
fn others(clusters: std::ops::Range<usize>, count: usize) -> Result<Vec<(ObjectKey, Value)>> {
    let (first, many) = (clusters.start, clusters.len());
    let one = |number: usize| {
        let namespace = format!("cluster-{:04}", first + number % many);
        let resource = if number.is_multiple_of(2) { "configmaps" } else { "secrets" };
        object(resource, &namespace, &format!("mine-{number:05}"))
    };
    (0..count).map(one).collect()
}

/// What an operator does who has looked at it.
async fn released_if_held(world: &World, daemon: &mut Daemon) -> Result<bool> {
    if world.differences().await?.is_empty() {
        return Ok(false);
    }
    let held = |seen: &Value| seen["sync"]["held"]["plan"].as_str().map(str::to_owned);
    let plan = daemon.until(DEADLINE, "the held prune", held).await?;
    let output = cli_on(&world.hub, &world.file, &["sync", "ack", &plan])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    Ok(true)
}
