//! Every class of failure before the API server, in a first restore, in deltas and in the prune: in the
//! end each backup is there exactly, each object written as often as it changed. And while an object of
//! a kind fails, nothing of that kind is deleted.

use crate::harness::daemon::Daemon;
use crate::harness::faultd::Faultd;
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::fleet::Item;
use crate::harness::{Result, eventually};
use crate::stage::DEADLINE;
use crate::world::World;
use serde_json::{Value, json};
use understudy::object::ObjectKey;

const SEED: u64 = 5;
const CLUSTERS: usize = 12;
const DELTAS: usize = 4;
/// Of the writes, for each of the faults.
const PERCENT: u64 = 2;

/// As an API server writes it, or whatever stands before one.
fn refusal(status: u16, reason: &str) -> Fault {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": "injected", "code": status,
    });
    Fault::Status { status, headers: vec![], body: body.to_string() }
}

fn faults() -> Vec<Fault> {
    let patience = vec![("retry-after", "1".to_owned())];
    vec![
        Fault::FailBefore,
        Fault::ApplyThenDrop,
        Fault::Status { status: 429, headers: patience, body: String::new() },
        refusal(429, "TooManyRequests"),
        refusal(500, "InternalError"),
        Fault::Status { status: 502, headers: vec![], body: "<html>bad gateway</html>".to_owned() },
        refusal(503, "ServiceUnavailable"),
        refusal(504, "Timeout"),
        Fault::ApplyThen { status: 504, body: "gateway timeout".to_owned() },
        refusal(409, "Conflict"),
        refusal(409, "AlreadyExists"),
        refusal(422, "Invalid"),
        refusal(403, "Forbidden"),
        // The client gives up after its own time.
        Fault::Stall,
        Fault::ApplyThenStall,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_comes_through_every_class_of_failure() -> Result<()> {
    let mut world =
        World::set(SEED, CLUSTERS, |config| config.with("kubernetes.requestTimeout", json!("2s")))
            .await?;
    // What the API server adds by itself to what we create counts as ours: after an answer was lost the
    // comparison may end with a PUT that changes nothing.
    world.uncounted = &["update"];
    let (faultd, kubeconfig) = world.hub.faultd().await?;
    for (seed, fault) in (1..).zip(faults()) {
        let when = When::Chance { percent: PERCENT, seed };
        faultd.add(Rule { fault, method: "WRITE", key: String::new(), when });
    }
    let mut backup = world.back_up().await?;
    let mut daemon = world.start(&kubeconfig)?;
    daemon.wait_live().await?;
    for _ in 0..=DELTAS {
        world.holds(&mut daemon, &backup).await?;
        world.is_exact().await?;
        backup = world.back_up().await?;
    }
    world.holds(&mut daemon, &backup).await?;
    let history = faultd.history("");
    let met = |fault: &Fault| history.iter().any(|one| one.fault.as_ref() == Some(fault));
    let missed: Vec<Fault> = faults().into_iter().filter(|fault| !met(fault)).collect();
    assert_eq!(missed, [], "{} requests", history.len());
    for method in ["POST", "PATCH", "DELETE"] {
        let met = history.iter().any(|one| one.fault.is_some() && one.method == method);
        assert!(met, "no {method} failed");
    }
    let limits = limits(&daemon.log_text()?);
    let grew = limits.windows(2).any(|two| two[0] < two[1]);
    assert!(limits.contains(&1) && grew, "each time it was halved: {limits:?}");
    faultd.heal("");
    what_fails_keeps_its_kind(&mut world, &faultd, &mut daemon).await
}

/// How many writes at once there were after each time that the server complained.
fn limits(log: &str) -> Vec<u64> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.filter(|line| line["message"].to_string().contains("fewer writes at once"));
    told.filter_map(|line| line["limit"].as_u64()).collect()
}

/// One Secret is refused as long as the rule stands. Others of its kind stay, other kinds go on.
async fn what_fails_keeps_its_kind(
    world: &mut World,
    faultd: &Faultd,
    daemon: &mut Daemon,
) -> Result<()> {
    world.is_exact().await?;
    let key = |kind, cluster, name| ObjectKey::new("", kind, cluster, name);
    let refused = key("secrets", "new", "refused")?;
    let [secret, map] = [key("secrets", "new", "goes")?, key("configmaps", "new", "goes")?];
    let mut items = vec![like(world, "namespaces", &key("namespaces", "", "new")?)?];
    for key in [&refused, &secret, &map] {
        items.push(like(world, key.resource(), key)?);
    }
    let backup = world.back_up_with(items, &[]).await?;
    world.holds(daemon, &backup).await?;

    let (fault, when) = (refusal(403, "Forbidden"), When::Always);
    let path = "v1/namespaces/new/secrets/refused".to_owned();
    faultd.add(Rule { fault, method: "PATCH", key: path, when });
    let mut changed = world.item(&refused)?.clone();
    changed.body["metadata"]["annotations"] = json!({"changed": "yes"});
    let backup = world.back_up_with(vec![changed], &[secret.clone(), map.clone()]).await?;
    let failed = |seen: &Value| (seen["sync"]["failed"] == json!({"secrets": 1})).then_some(());
    daemon.until(DEADLINE, "the Secret to fail", failed).await?;
    let api = world.hub.api()?;
    let gone = async || api.find(&map.url_path("v1")).await.ok()?.is_none().then_some(());
    eventually(DEADLINE, "the config map to go", gone).await?;
    assert!(api.find(&secret.url_path("v1")).await?.is_some(), "its kind is not pruned");
    let log = daemon.log_text()?;
    assert!(log.contains("secrets new/refused") && log.contains("403 Forbidden"), "{log}");

    faultd.heal("");
    world.holds(daemon, &backup).await?;
    assert!(api.find(&secret.url_path("v1")).await?.is_none(), "it goes as soon as it may");
    world.is_exact().await
}

/// Another object of a kind that the backup holds.
fn like(world: &World, resource: &str, key: &ObjectKey) -> Result<Item> {
    let mut item = world.some(resource)?.clone();
    item.key = key.clone();
    item.owner = None;
    let metadata = &mut item.body["metadata"];
    *metadata = json!({"name": key.name(), "labels": metadata["labels"]});
    if !key.namespace().is_empty() {
        metadata["namespace"] = key.namespace().into();
    }
    Ok(item)
}
