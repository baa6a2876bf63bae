//! A storage whose create-if-absent is not atomic cannot refuse a superseded primary: a hub does not
//! become primary on it, unless the operator says that it must, and then everybody can see that.

use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli_on, new_key};
use crate::harness::pair::Pair;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, eventually};
use crate::scene::{DEADLINE, SOON, metric, until_condition, until_metric, until_role};
use crate::storage::{Mode, Server, write_credentials};
use serde_json::{Value, json};

const ATOMIC: &str = "understudy_storage_atomic_create";

fn s3(server: &Server) -> Value {
    json!({
        "endpoint": server.endpoint, "region": "us-east-1", "bucket": "hub-dr", "prefix": "pair/",
        "pathStyle": true,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_primary_on_it_unless_that_is_allowed() -> Result<()> {
    let hub = &Pair::shared().await?.primary;
    let (scratch, server) = (Scratch::new()?, Server::start(Mode::Plain));
    let (key, credentials) = (scratch.path().join("key"), scratch.path().join("credentials"));
    new_key(&key)?;
    write_credentials(&credentials, "key", "secret");
    let mut config = Config::new("unfenced", "primary", &key)?
        .with("storage.s3", s3(&server))
        .with("storage.credentialsFile", json!(credentials));
    let file = scratch.path().join("hub.yaml");

    let mut daemon = Daemon::start_on(hub, &config.write(&file)?).await?;
    let condition = "StorageAvailable";
    let why = until_condition(hub, "unfenced", condition, "False", "StorageNotAtomic").await?;
    assert!(why.contains("won"), "the message says what was seen: {why}");
    let refuted = |seen: &Value| {
        (seen["frozen"]["reason"] == "StorageNotAtomic").then(|| seen["frozen"].clone())
    };
    let frozen = daemon.until(DEADLINE, "the reason why it is not primary", refuted).await?;
    let hint = frozen["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("storage.allowUnfenced: true"), "{frozen}");
    assert_eq!(daemon.http_get("/readyz").await?.0, 200);
    assert!(daemon.log_text()?.contains("cannot fence"), "the log says so");
    assert!(daemon.status().await?["newest"].is_null(), "no backup is taken");
    let puts = server.requests.lock().map_err(|error| error.to_string())?.clone();
    let terms = puts.iter().filter(|(method, path, _)| method == "PUT" && path.contains("journal"));
    assert_eq!(terms.count(), 0, "it has not even tried to take a term");
    daemon.kill9();

    config.set("storage.allowUnfenced", json!(true));
    let mut daemon = Daemon::start_on(hub, &config.write(&file)?).await?;
    let seen = until_role(&mut daemon, "primary").await?;
    assert_eq!((&seen["storage"]["allowUnfenced"], &seen["frozen"]), (&true.into(), &Value::Null));
    let newest = |seen: &Value| crate::harness::status::newest(seen).map(|_| ());
    daemon.until(DEADLINE, "a first backup", newest).await?;
    let page = daemon.http_get("/").await?.1;
    assert!(page.contains("Unfenced"), "the page says so");
    assert!(daemon.log_text()?.contains("allowUnfenced"), "the log says so");
    until_metric(&daemon, "understudy_storage_up", 1.0).await?;
    assert_eq!(metric(&daemon, ATOMIC).await?, Some(0.0));
    assert_eq!(metric(&daemon, "understudy_storage_allow_unfenced").await?, Some(1.0));
    // It reads the `Hub`, which follows the daemon.
    eventually(SOON, "the status of the hub to say so", async || {
        let printed = cli_on(hub, &file, &["status"]).ok()?.stdout;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        printed.contains("NO FENCE (storage.allowUnfenced)").then_some(())
    })
    .await?;
    assert_eq!(metric(&daemon, r#"understudy_role{role="primary"}"#).await?, Some(1.0));
    let output = cli_on(hub, &file, &["backup", "prune", "--yes"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{error}");
    assert!(error.contains("nothing is deleted"), "{error}");
    Ok(())
}

/// Somebody switches versioning on, or a gateway is replaced: what was proven once need not hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_stops_when_its_storage_does_not_fence_any_more() -> Result<()> {
    let hub = &Pair::shared().await?.primary;
    let (scratch, server) = (Scratch::new()?, Server::start(Mode::OneAtATime));
    let (key, credentials) = (scratch.path().join("key"), scratch.path().join("credentials"));
    new_key(&key)?;
    write_credentials(&credentials, "key", "secret");
    let config = Config::new("raced", "primary", &key)?
        .with("storage.s3", s3(&server))
        .with("storage.raceInterval", json!("1s"))
        .with("storage.credentialsFile", json!(credentials));
    let file = config.write(&scratch.path().join("hub.yaml"))?;
    let mut daemon = Daemon::start_on(hub, &file).await?;
    let newest = |seen: &Value| crate::harness::status::newest(seen).map(str::to_owned);
    let before = daemon.until(DEADLINE, "a first backup", newest).await?;
    let raced = daemon.status().await?["storage"]["racedAt"].clone();
    let again = |seen: &Value| (seen["storage"]["racedAt"] != raced).then_some(());
    daemon.until(DEADLINE, "another race", again).await?;
    assert_eq!(metric(&daemon, ATOMIC).await?, Some(1.0));

    server.switch_to(Mode::Plain);
    until_condition(hub, "raced", "StorageAvailable", "False", "StorageNotAtomic").await?;
    until_metric(&daemon, ATOMIC, 0.0).await?;
    let output = cli_on(hub, &file, &["backup", "run"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{error}");
    assert!(error.contains("cannot fence"), "{error}");
    let seen = daemon.status().await?;
    assert_eq!(newest(&seen).as_ref(), Some(&before), "no backup is taken without a fence");
    assert_eq!(
        (&seen["role"], &seen["frozen"]["reason"]),
        (&"primary".into(), &"StorageNotAtomic".into())
    );

    // Whoever mended the storage starts the daemon again: enough races would be won by luck.
    server.switch_to(Mode::OneAtATime);
    daemon.kill9();
    let mut daemon = Daemon::start_on(hub, &file).await?;
    let later = |seen: &Value| newest(seen).filter(|id| *id != before);
    daemon.until(DEADLINE, "the next backup", later).await?;
    Ok(())
}
