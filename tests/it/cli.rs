//! The command line: each way to end has its number, and each refusal names what would work.

use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli, cli_on, new_key};
use crate::harness::hub::{Hub, HubOptions, NAMESPACE};
use crate::harness::pair::Pair;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, status};
use crate::scene::{DEADLINE, until_role};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Ends with `code`, says all of `told` on standard error, and nothing on standard output.
fn refused(output: &Output, code: i32, told: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    for text in told {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.is_empty(), "on standard output: {printed}");
}

fn done(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn written(folder: &Path, config: &Config) -> Result<PathBuf> {
    config.write(&folder.join("hub.yaml"))
}

fn text(path: &Path) -> Result<&str> {
    Ok(path.to_str().ok_or("the path is not UTF-8")?)
}

#[test]
fn a_wrong_or_missing_configuration_ends_with_2() -> Result<()> {
    for args in [&["run"][..], &["backup", "list"], &["backup", "run"], &["config", "check"]] {
        refused(&cli(args)?, 2, &["-c FILE"]);
    }
    refused(&cli(&["backup", "lost"])?, 2, &["lost"]);
    refused(&cli(&["run", "-c", "/nowhere/hub.yaml"])?, 2, &["/nowhere/hub.yaml"]);

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("hub.yaml");
    let lines = [
        "apiVersion: understudy.dev/v1alpha1",
        "kind: HubConfig",
        "hub: {name: EU_1, pair: test, initialRole: first}",
        "storage: {directory: /tmp/x}",
        "schedule: {cron: \"61 * * * *\", timezone: Mars/Olympus}",
        "retentoin: {keepLast: 3}",
        "passive: {syncInterval: -1s}",
    ];
    std::fs::write(&file, lines.join("\n"))?;
    let name = text(&file)?;
    for verb in [&["config", "check"][..], &["run"], &["backup", "list"]] {
        let output = cli(&[verb, &["-c", name]].concat())?;
        let lines = [3, 5, 6, 7].map(|line| format!("{name}:{line}:"));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        refused(&output, 2, &lines);
        let keys = ["hub.name", "initialRole", "schedule.cron", "timezone", "encryption.keyFiles"];
        refused(&output, 2, &keys);
        refused(&output, 2, &["retentoin", "retention", "passive.syncInterval"]);
    }
    Ok(())
}

#[test]
fn the_schema_of_the_file_is_printed_for_editors() -> Result<()> {
    let schema: Value = serde_json::from_str(&done(&cli(&["config", "schema"])?))?;
    let include = &schema["properties"]["sets"]["properties"]["resources"]["properties"]["include"];
    assert!(include["items"]["properties"]["namespaceLabels"].is_object(), "{include}");
    Ok(())
}

#[test]
fn a_missing_key_ends_with_12_and_the_command_that_makes_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("pair.key");
    let config = Config::new("eu-1", "primary", &key)?.with_directory(folder.path());
    let file = written(folder.path(), &config)?;
    let command = format!("understudy key new --out {}", key.display());
    for verb in [&["run"][..], &["backup", "list"]] {
        refused(&cli(&[verb, &["-c", text(&file)?]].concat())?, 12, &[&command]);
    }

    let public = done(&cli(&["key", "new", "--out", text(&key)?])?);
    assert!(public.starts_with("age1"), "{public}");
    let made = std::fs::read_to_string(&key)?;
    assert_eq!(std::fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    let again = cli(&["key", "new", "--out", text(&key)?])?;
    assert!(!again.status.success(), "a key is never overwritten");
    assert!(String::from_utf8_lossy(&again.stderr).contains(text(&key)?));
    assert_eq!(std::fs::read_to_string(&key)?, made);
    done(&cli(&["config", "check", "-c", text(&file)?])?);
    done(&cli(&["backup", "list", "-c", text(&file)?])?);
    Ok(())
}

#[test]
fn a_storage_that_does_not_answer_ends_with_10() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("pair.key");
    new_key(&key)?;
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n")?;
    let s3 = json!({
        "endpoint": "http://127.0.0.1:1", "region": "r", "bucket": "hub-dr", "pathStyle": true,
    });
    let config = Config::new("eu-1", "primary", &key)?
        .with("storage.s3", s3)
        .with("storage.credentialsFile", json!(credentials));
    let file = written(folder.path(), &config)?;
    refused(&cli(&["backup", "list", "-c", text(&file)?])?, 10, &["s3://hub-dr/", "refused"]);

    let output = cli(&["backup", "list", "-o", "json", "-c", text(&file)?])?;
    refused(&output, 10, &[]);
    let error = String::from_utf8(output.stderr)?;
    assert_eq!(error.lines().count(), 1, "{error}");
    let error: Value = serde_json::from_str(&error)?;
    assert_eq!((&error["code"], &error["reason"]), (&10.into(), &"StorageUnreachable".into()));
    assert!(error["message"].is_string() && error["hint"].is_string(), "{error}");

    let nowhere = folder.path().join("nowhere");
    let config = Config::new("eu-1", "primary", &key)?.with_directory(&nowhere);
    let file = written(folder.path(), &config)?;
    refused(&cli(&["backup", "list", "-c", text(&file)?])?, 10, &[text(&nowhere)?]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_not_prepared_ends_with_14_and_the_command_that_helps() -> Result<()> {
    let hub = Hub::start("bare", HubOptions::default()).await?;
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("pair.key");
    new_key(&key)?;
    let config = Config::new("eu-1", "primary", &key)?.with_directory(folder.path());
    let file = written(folder.path(), &config)?;
    let install = "understudy crd | kubectl apply -f -";
    for verb in ["run", "status"] {
        let output = cli_on(&hub, &file, &[verb])?;
        assert_eq!(output.status.code(), Some(14), "{verb}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(install), "{verb}");
    }
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hubs.understudy.dev";
    hub.api()?.apply(crd, cli(&["crd"])?.stdout).await?;
    crate::harness::eventually(DEADLINE, "the CRD to be served", async || {
        let output = cli_on(&hub, &file, &["run"]).ok()?;
        String::from_utf8_lossy(&output.stderr).contains(NAMESPACE).then_some(output)
    })
    .await
    .map(|output| assert_eq!(output.status.code(), Some(14), "the namespace is missing"))?;

    let unknown = folder.path().join("kubeconfig");
    hub.write_kubeconfig(&unknown, "nobody")?;
    let args = ["status", "-c", text(&file)?, "--kubeconfig", text(&unknown)?];
    let output = cli(&args)?;
    refused(&output, 14, &[]);
    Ok(())
}

/// Three daemons on one hub, each with a `Hub` of its own: one holds the term, one was to be the
/// first as well, one follows.
#[tokio::test(flavor = "multi_thread")]
async fn status_and_backup_run_tell_the_roles_apart() -> Result<()> {
    let (hub, scratch) = (&Pair::shared().await?.primary, Scratch::new()?);
    let (key, repository) = (scratch.path().join("key"), scratch.path().join("repository"));
    new_key(&key)?;
    std::fs::create_dir(&repository)?;
    let config = |name: &str, role| -> Result<(Config, PathBuf)> {
        let config = Config::new(name, role, &key)?.with_directory(&repository);
        let file = config.write(&scratch.path().join(format!("{name}.yaml")))?;
        Ok((config, file))
    };
    let (_holder_port, holder) = config("cli-1", "primary")?;
    let (_fenced_port, fenced) = config("cli-2", "primary")?;
    let mut first = Daemon::start_on(hub, &holder).await?;
    until_role(&mut first, "primary").await?;
    let newest = |seen: &Value| status::newest(seen).map(str::to_owned);
    let id = first.until(DEADLINE, "a first backup", newest).await?;
    let mut second = Daemon::start_on(hub, &fenced).await?;
    until_role(&mut second, "fenced").await?;

    let shown = crate::harness::eventually(DEADLINE, "the role in the Hub", async || {
        let shown = done(&cli_on(hub, &holder, &["status"]).ok()?);
        (shown.contains("PRIMARY") && shown.contains(&id)).then_some(shown)
    })
    .await?;
    assert!(shown.starts_with("hub cli-1   PRIMARY  epoch 1"), "{shown}");
    let listed = done(&cli_on(hub, &holder, &["backup", "list"])?);
    assert!(listed.starts_with("BACKUP") && listed.contains(&id), "{listed}");
    let listed = done(&cli_on(hub, &holder, &["backup", "list", "-o", "json"])?);
    let listed: Value = serde_json::from_str(&listed)?;
    assert_eq!((&listed["kind"], &listed["items"][0]["id"]), (&"BackupList".into(), &json!(id)));
    let shown: Value =
        serde_json::from_str(&done(&cli_on(hub, &holder, &["status", "-o", "json"])?))?;
    assert_eq!((&shown["kind"], &shown["role"]), (&"Status".into(), &"primary".into()));

    crate::harness::eventually(DEADLINE, "the fenced hub to be not healthy", async || {
        let output = cli_on(hub, &fenced, &["status", "--exit-code"]).ok()?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code() == Some(4) && shown.contains("FENCED")).then_some(())
    })
    .await?;
    done(&cli_on(hub, &fenced, &["status"])?);

    let output = cli_on(hub, &fenced, &["backup", "run", "-o", "json"])?;
    assert!(!output.status.success() && output.stdout.is_empty());
    let error: Value = serde_json::from_slice(&output.stderr)?;
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("cli-2 is not the primary"), "{error}");
    // Three at once: none takes the place of another, and each is answered.
    let asked = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| cli_on(hub, &holder, &["backup", "run"]));
        [ask(), ask(), ask()].map(|asked| asked.join().expect("a command does not panic"))
    });
    for output in asked {
        let made = done(&output?);
        assert!(made.contains("backup 2"), "{made}");
    }

    second.kill9();
    let output = cli_on(hub, &fenced, &["backup", "run", "--timeout", "1s"])?;
    refused(&output, 6, &["understudy status"]);

    // Its page is taken: the second of two by accident does not start.
    let output = cli_on(hub, &holder, &["run"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("failed to listen"));
    Ok(())
}
