//! The storage or the API server is away, at the start or later: daemons keep running, say what is
//! missing, lose nothing, and go on by themselves when it is back.

use crate::canary;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::{Hub, NAMESPACE};
use crate::harness::s3::S3;
use crate::harness::{Result, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, differences, in_sync, metric, restore_writes,
    until_condition, until_metric, until_role,
};
use serde_json::{Value, json};
use std::path::Path;
use understudy::object::Set;

const UP: &str = "understudy_storage_up";

#[tokio::test(flavor = "multi_thread")]
async fn the_storage_goes_away_and_comes_back() -> Result<()> {
    let (mut scene, mut s3) = tokio::try_join!(Scene::set(20), S3::start())?;
    scene.first = scene.first.with_s3(&s3, "pair/").with("schedule.timeout", json!("6s"));
    scene.second = scene.second.with_s3(&s3, "pair/");
    for config in [&mut scene.first, &mut scene.second] {
        config.remove("storage.directory");
    }
    s3.kill();

    let (mut first, mut second) = tokio::try_join!(scene.start_first(), scene.start_second())?;
    for (daemon, hub, name) in
        [(&first, &scene.pair.primary, FIRST), (&second, &scene.pair.passive, SECOND)]
    {
        until_condition(hub, name, "StorageAvailable", "False", "StorageUnavailable").await?;
        until_metric(daemon, UP, 0.0).await?;
        ready(daemon).await?;
    }
    assert_eq!(status::role(&first.status().await?), "", "the journal alone tells the role");
    assert_eq!(metric(&first, r#"understudy_role{role="primary"}"#).await?, None, "not 0: unknown");

    s3.restart().await?;
    until_role(&mut first, "primary").await?;
    second.until(DEADLINE, "the standby to hold the first backup", in_sync).await?;
    for (daemon, hub, name) in
        [(&first, &scene.pair.primary, FIRST), (&second, &scene.pair.passive, SECOND)]
    {
        until_metric(daemon, UP, 1.0).await?;
        until_condition(hub, name, "StorageAvailable", "True", "StorageAvailable").await?;
    }
    let passive = [Set::Credentials, Set::Resources];
    assert_eq!(differences(&scene, &passive).await?, Vec::<String>::new());

    during_a_backup(&scene, &mut s3, &mut first, &mut second).await?;
    for daemon in [&first, &second] {
        let log = daemon.log_text()?;
        assert!(!log.contains("access_key"), "credentials are nobody's business: {log}");
    }
    assert_eq!(differences(&scene, &passive).await?, Vec::<String>::new());
    let (one, other) = (scene.first_file()?, scene.second_file()?);
    let hubs: [(&Hub, &Path); 2] = [(&scene.pair.primary, &one), (&scene.pair.passive, &other)];
    let stored = s3.stored("pair/").await?;
    canary::is_seen_nowhere(stored, scene.scratch.path(), &hubs, &[&first, &second]).await
}

/// The backup fails as a whole: no part of it is ever seen. The next one holds everything.
async fn during_a_backup(
    scene: &Scene,
    s3: &mut S3,
    first: &mut Daemon,
    second: &mut Daemon,
) -> Result<()> {
    let api = scene.pair.primary.api()?;
    for item in scene.items.iter().filter(|item| item.set == Some(Set::Resources)) {
        let path = item.key.collection_path(&item.kind.version);
        let change = json!({"metadata": {"annotations": {"changed": "before the outage"}}});
        api.merge_patch(&format!("{path}/{}", item.key.name()), &change).await?;
    }
    let before = status::newest(&first.status().await?).map(str::to_owned);
    let writes = restore_writes(&scene.pair.passive)?;
    // It hangs: what was sent last may have arrived, and no answer ever comes.
    s3.pause()?;
    first.signal("USR2")?;
    let failed = |seen: &Value| {
        let run = status::last_run(seen, "backup", &["failed"])?;
        seen["backup"]["lastError"].is_string().then_some(run)
    };
    first.until(DEADLINE, "the backup to fail", failed).await?;
    until_metric(first, r#"understudy_backup_runs_total{outcome="failed"}"#, 1.0).await?;
    s3.kill();
    until_metric(first, UP, 0.0).await?;
    ready(first).await?;
    let seen = first.status().await?;
    assert_eq!(status::newest(&seen), before.as_deref(), "nothing of it is a backup");
    assert_eq!(status::role(&seen), "primary", "an outage changes no role");
    assert_eq!(status::role(&second.status().await?), "passive");
    let opens = &second.status().await?["keys"]["newestOpens"];
    assert_eq!(opens, true, "that the storage is away says nothing about the key");
    assert_eq!(restore_writes(&scene.pair.passive)?, writes);
    let output = cli_on(&scene.pair.primary, &scene.first_file()?, &["backup", "list"])?;
    assert_eq!(output.status.code(), Some(10));

    s3.restart().await?;
    let newer = |seen: &Value| {
        let newest = status::newest(seen)?;
        (Some(newest) != before.as_deref()).then(|| newest.to_owned())
    };
    let id = first.until(DEADLINE, "the next backup, by itself", newer).await?;
    let holds = |seen: &Value| (status::restored(seen) == Some(&id)).then_some(());
    second.until(DEADLINE, "the standby to hold it", holds).await
}

async fn ready(daemon: &Daemon) -> Result<()> {
    for path in ["/readyz", "/livez"] {
        let (code, text) = daemon.http_get(path).await?;
        assert_eq!((code.as_u16(), text.as_str()), (200, "ok\n"), "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_goes_away_and_comes_back() -> Result<()> {
    let mut scene = Scene::set(2).await?;
    scene.first.set("kubernetes.requestTimeout", json!("2s"));
    scene.second.set("kubernetes.requestTimeout", json!("2s"));
    // Else a page is asked for again for a minute before the backup fails.
    scene.first.set("schedule.timeout", json!("15s"));
    scene.pair.primary.kill();
    scene.pair.passive.kill();
    let start = |config: std::path::PathBuf, kubeconfig: &std::path::Path| {
        Daemon::start(&config, kubeconfig, NAMESPACE)
    };
    let mut first = start(scene.first_file()?, &scene.pair.primary.kubeconfig)?;
    let mut second = start(scene.second_file()?, &scene.pair.passive.kubeconfig)?;
    for daemon in [&mut first, &mut second] {
        daemon.wait_live().await?;
        let unreachable = |seen: &Value| seen["kubernetesError"].is_string().then_some(());
        daemon.until(SOON, "the API server's absence to be told", unreachable).await?;
        ready(daemon).await?;
        let reason = first_problem(daemon).await?;
        assert_eq!(reason, "KubernetesUnavailable");
    }

    scene.pair.primary.restart().await?;
    scene.pair.passive.restart().await?;
    until_role(&mut first, "primary").await?;
    second.until(DEADLINE, "the standby to hold the first backup", in_sync).await?;
    let passive = [Set::Credentials, Set::Resources];
    assert_eq!(differences(&scene, &passive).await?, Vec::<String>::new());

    // Later: a backup fails as a whole, the role stays, and the next one goes through by itself.
    let before = status::newest(&first.status().await?).map(str::to_owned);
    scene.pair.primary.pause()?;
    first.signal("USR2")?;
    let failed = |seen: &Value| status::last_run(seen, "backup", &["failed"]);
    first.until(DEADLINE, "the backup to fail", failed).await?;
    let seen = first.status().await?;
    assert_eq!(status::newest(&seen), before.as_deref(), "nothing of it is a backup");
    assert_eq!(status::role(&seen), "primary");
    ready(&first).await?;
    scene.pair.primary.resume()?;
    let newer = |seen: &Value| {
        let newest = status::newest(seen)?;
        (Some(newest) != before.as_deref()).then_some(())
    };
    first.until(DEADLINE, "the next backup, by itself", newer).await?;
    second.until(DEADLINE, "the standby to hold it", in_sync).await?;
    until_condition(&scene.pair.primary, FIRST, "Ready", "True", "BackupCurrent").await?;
    Ok(())
}

/// The reason of the condition `Ready`, which is that of the worst problem.
async fn first_problem(daemon: &Daemon) -> Result<String> {
    let seen = daemon.status().await?;
    let conditions = seen["conditions"].as_array().ok_or("no conditions")?.iter();
    let ready = conditions.into_iter().find(|one| one["type"] == "Ready").ok_or("no Ready")?;
    Ok(ready["reason"].as_str().unwrap_or_default().to_owned())
}
