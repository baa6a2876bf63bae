//! A request that hangs ends the backup with `schedule.timeout`, as a failed one of which nothing is
//! seen. The next one is whole.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::faultd::Faultd;
use crate::harness::faultd::fault::{Fault, Rule, When};
use crate::harness::hub::NAMESPACE;
use crate::harness::s3::S3;
use crate::harness::{Result, status};
use crate::scene::{DEADLINE, Scene, metric, until_role};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FAILED: &str = r#"understudy_backup_runs_total{outcome="failed"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_hangs_fails_the_backup_in_time() -> Result<()> {
    let (mut scene, s3) = tokio::try_join!(Scene::set(1), S3::start())?;
    let storage = s3.faultd().await?;
    let (kubernetes, kubeconfig) = scene.pair.primary.faultd().await?;
    scene.first = scene.first.with_s3(&s3, "pair/").with("schedule.timeout", json!("6s"));
    scene.first.set("storage.s3.endpoint", json!(storage.endpoint));
    scene.first.remove("storage.directory");
    let mut first = Daemon::start(&scene.first_file()?, &kubeconfig, NAMESPACE)?;
    first.wait_live().await?;
    until_role(&mut first, "primary").await?;
    first.until(DEADLINE, "a first backup", |seen| status::newest(seen).map(|_| ())).await?;

    let secrets = ("GET", "v1/secrets");
    let packs = ("PUT", "pair/packs/");
    for (faultd, (method, key), failed) in [(&kubernetes, secrets, 1.0), (&storage, packs, 2.0)] {
        change(&scene, failed).await?;
        let before =
            (status::newest(&first.status().await?).map(str::to_owned), records(&s3).await?);
        hang(faultd, method, key);
        first.signal("USR2")?;
        let timed_out = |seen: &Value| {
            let error = seen["backup"]["lastError"].as_str()?;
            error.contains("not finished within 6 s (schedule.timeout)").then(|| seen.clone())
        };
        let seen = first.until(DEADLINE, "the backup to end with its time-out", timed_out).await?;
        assert_eq!(seen["backup"]["lastOutcome"], "failed");
        assert!(metric(&first, FAILED).await? >= Some(failed));
        let after = (status::newest(&seen).map(str::to_owned), records(&s3).await?);
        assert_eq!(after, before, "nothing of it is a backup");
        faultd.heal("");

        let newer = |seen: &Value| {
            let newest = status::newest(seen).filter(|id| Some(*id) != before.0.as_deref())?;
            (seen["backup"]["lastOutcome"] == "success").then(|| newest.to_owned())
        };
        let id = first.until(DEADLINE, "the next backup, by itself", newer).await?;
        let output = cli_on(&scene.pair.primary, &scene.first_file()?, &["backup", "verify", &id])?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let changed = status::last_run(&first.status().await?, "backup", &["success"]);
        assert!(changed.is_some_and(|run| run.changed > 0), "it holds what changed");
    }
    Ok(())
}

fn hang(faultd: &Faultd, method: &'static str, key: &str) {
    faultd.add(Rule { fault: Fault::Stall, method, key: key.to_owned(), when: When::Always });
}

async fn records(s3: &S3) -> Result<BTreeMap<String, Bytes>> {
    s3.stored("pair/journal/").await
}

/// Something in every run that there is to upload.
async fn change(scene: &Scene, value: f64) -> Result<()> {
    let api = scene.pair.primary.api()?;
    for item in scene.items.iter().filter(|item| item.set.is_some()) {
        let path = item.key.collection_path(&item.kind.version);
        let change = json!({"metadata": {"annotations": {"changed": value.to_string()}}});
        api.merge_patch(&format!("{path}/{}", item.key.name()), &change).await?;
    }
    Ok(())
}
