//! The etcd of a standby is full. A restore stops at the first write that says so, with that reason, and
//! deletes nothing; it goes on as soon as there is room.

use crate::harness::faultd::fault::draw;
use crate::harness::hub::{AuditEvent, HubOptions};
use crate::harness::{Result, status};
use crate::stage::DEADLINE;
use crate::world::World;
use serde_json::{Value, json};

const QUOTA: u64 = 16 << 20;
const FILLERS: &str = "/api/v1/namespaces/default/configmaps";
/// Bytes of one, and so many that no quota holds them.
const FILLER: u64 = 512 << 10;
const MOST: u64 = 2 * QUOTA / FILLER;
/// As many as are in flight when the first says so, in each of a few runs.
const FEW: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_waits_for_room() -> Result<()> {
    let options = HubOptions { quota: QUOTA, ..HubOptions::default() };
    let mut world = World::on(options, 9, 6, |config| config).await?;
    let backup = world.back_up().await?;
    let mut daemon = world.start(&world.hub.kubeconfig)?;
    daemon.wait_live().await?;
    world.holds(&mut daemon, &backup).await?;
    world.is_exact().await?;

    let fillers = fill(&world).await?;
    let before = world.hub.audit_writes(AuditEvent::is_restore_write)?.len();
    let backup = world.back_up().await?;
    let told = |seen: &Value| {
        let runs = seen["runs"].as_array()?;
        let message = |run: &Value| run["message"].as_str().unwrap_or_default().to_owned();
        let full = runs.iter().find(|run| message(run).contains("its store is full"))?;
        (full["outcome"] == "failed").then_some(())
    };
    daemon.until(DEADLINE, "the reason", told).await?;
    assert_ne!(status::restored(&daemon.status().await?), Some(&*backup));
    let writes = world.hub.audit_writes(AuditEvent::is_restore_write)?.split_off(before);
    assert!(writes.iter().all(|write| write.code == 500), "a run that stops deletes nothing");
    assert!(writes.len() < FEW, "{} writes were tried", writes.len());

    let api = world.hub.api()?;
    for number in 0..fillers {
        api.delete(&format!("{FILLERS}/filler-{number}")).await?;
    }
    world.hub.etcd()?.make_room().await?;
    world.holds(&mut daemon, &backup).await?;
    world.is_exact().await
}

/// Until nothing goes in any more; how many went in.
async fn fill(world: &World) -> Result<u64> {
    let api = world.hub.api()?;
    for number in 0..MOST {
        let noise = (0..FILLER / 16).map(|at| format!("{:016x}", draw(number, at)));
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"noise": noise.collect::<String>()},
            "metadata": {"name": format!("filler-{number}")},
        });
        if let Err(error) = api.post(FILLERS, &body).await {
            assert!(error.to_string().contains("space exceeded"), "{error}");
            return Ok(number);
        }
    }
    Err("etcd takes more than its quota".into())
}
