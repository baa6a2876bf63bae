//! A storage whose create-if-absent is not atomic cannot refuse a superseded primary: a hub does not
//! become primary on it, unless the operator says that it must, and then everybody can see that.

use crate::harness::Result;
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, new_key};
use crate::harness::pair::Pair;
use crate::harness::scratch::Scratch;
use crate::scene::{DEADLINE, metric, until_condition, until_metric, until_role};
use crate::storage::{Mode, Server, write_credentials};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_primary_on_it_unless_that_is_allowed() -> Result<()> {
    let hub = &Pair::shared().await?.primary;
    let (scratch, server) = (Scratch::new()?, Server::start(Mode::Plain));
    let (key, credentials) = (scratch.path().join("key"), scratch.path().join("credentials"));
    new_key(&key)?;
    write_credentials(&credentials, "key", "secret");
    let s3 = json!({
        "endpoint": server.endpoint, "region": "us-east-1", "bucket": "hub-dr", "prefix": "pair/",
        "pathStyle": true,
    });
    let mut config = Config::new("unfenced", "primary", &key)?
        .with("storage.s3", s3)
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
    assert_eq!(metric(&daemon, r#"understudy_role{role="primary"}"#).await?, Some(1.0));
    Ok(())
}
