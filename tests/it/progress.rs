//! What takes its time tells how far it is: a restore of the daemon on every surface, and a command on
//! standard error.

use crate::harness::bare::{Api, Post};
use crate::harness::daemon::{Daemon, cli};
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::hub::NAMESPACE;
use crate::harness::{Result, eventually, status};
use crate::scene::{metric, until_metric};
use crate::stage::{CONNECTIONS, DEADLINE, Stage};
use serde_json::{Value, json};
use std::path::Path;

const MAPS: usize = 40;
const DONE: &str = "understudy_restore_running_done_objects";
const PLANNED: &str = "understudy_restore_running_planned_objects";

/// The API server does not answer to the creation of what stands in the namespace `held`.
fn stall() -> Rule {
    let key = "v1/namespaces/held/configmaps".to_owned();
    Rule { fault: Fault::Stall, method: "POST", key, when: When::Always }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_tells_how_far_it_is() -> Result<()> {
    let stage =
        Stage::set("progress", |config| config.with("kubernetes.requestTimeout", json!("5s")))
            .await?;
    create(&stage.pair.primary.api()?).await?;
    let _primary = stage.start_primary().await?;
    let (faultd, kubeconfig) = stage.pair.passive.faultd().await?;
    faultd.add(stall());
    let mut passive = Daemon::start(&stage.passive_config, &kubeconfig, NAMESPACE)?;
    passive.wait_live().await?;
    let all_but_one = |seen: &Value| {
        let progress = &seen["sync"]["progress"];
        let (done, total) = (progress["done"].as_u64()?, progress["total"].as_u64()?);
        (progress["doing"] == "restoring" && done + 1 == total).then_some(total)
    };
    let total = passive.until(DEADLINE, "all but one to be restored", all_but_one).await?;
    assert!(total > MAPS as u64, "{total}");
    #[allow(clippy::cast_precision_loss)]
    let total = total as f64;
    until_metric(&passive, PLANNED, total).await?;
    until_metric(&passive, DONE, total - 1.0).await?;
    let told = format!("Now restoring {} of {total} objects", total - 1.0);
    eventually(DEADLINE, "the page to tell it", async || {
        passive.http_get("/").await.ok()?.1.contains(&told).then_some(())
    })
    .await?;
    eventually(DEADLINE, "the status to tell it", async || {
        let shown = cli(&["status", "--url", passive.url()]).ok()?;
        // A later run has only that one to restore.
        String::from_utf8_lossy(&shown.stdout).contains("Now restoring").then_some(())
    })
    .await?;

    faultd.heal("");
    let over = |seen: &Value| {
        let restored = status::restored(seen).is_some() && seen["sync"]["failed"] == json!({});
        (restored && seen["sync"]["progress"].is_null()).then_some(())
    };
    passive.until(DEADLINE, "the restore to be over", over).await?;
    assert_eq!(metric(&passive, PLANNED).await?, Some(0.0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_tells_how_far_it_is_to_people_and_to_programs() -> Result<()> {
    let stage =
        Stage::set("telling", |config| config.with("kubernetes.requestTimeout", json!("5s")))
            .await?;
    let api = stage.pair.primary.api()?;
    create(&api).await?;
    let _primary = stage.start_primary().await?;
    api.delete("/api/v1/namespaces/held/configmaps/one").await?;
    let (faultd, kubeconfig) = stage.pair.primary.faultd().await?;
    let restore = |mode: &str| -> Result<(String, String)> {
        let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("the path is not UTF-8");
        let (config, kubeconfig) = (path(&stage.primary_config)?, path(&kubeconfig)?);
        let what = ["restore", "run", "--include", "ConfigMap", "-n", "held", "--yes"];
        let how = ["--progress", mode, "-c", &config, "--kubeconfig", &kubeconfig];
        let output = cli(&[&what[..], &how].concat())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&output.stdout), text(&output.stderr)))
    };

    faultd.add(stall());
    let (result, told) = restore("plain")?;
    assert!(told.contains("\nrestoring 0 of 1 objects\n"), "{told}");
    assert!(!result.contains("restoring"), "{result}");
    let (_, told) = restore("none")?;
    assert!(!told.contains("restoring 0 of 1"), "{told}");

    faultd.heal("");
    let (result, told) = restore("json")?;
    let lines = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines.filter(|line| line["kind"] == "Progress").collect();
    let known = |line: &&Value| line["what"] == "packs" && line["total"].is_u64();
    assert!(lines.iter().any(|line| known(&line)), "{told}");
    assert!(!result.contains("Progress"), "{result}");
    Ok(())
}

async fn create(api: &Api) -> Result<()> {
    for namespace in ["maps", "held"] {
        api.post("/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await?;
    }
    let labels = json!({"cluster.open-cluster-management.io/backup": ""});
    let map = |name: String| json!({"metadata": {"name": name, "labels": labels}, "data": {}});
    let posts = (0..MAPS).map(|n| {
        let body = serde_json::to_vec(&map(format!("map-{n}")))?.into();
        Ok(Post { path: "/api/v1/namespaces/maps/configmaps".to_owned(), body })
    });
    api.post_all(&posts.collect::<Result<Vec<_>>>()?, CONNECTIONS).await?;
    api.post("/api/v1/namespaces/held/configmaps", &map("one".to_owned())).await?;
    Ok(())
}
