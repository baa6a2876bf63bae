//! `understudy promote`: what would be refused is shown and changes nothing, and what is asked for is
//! followed to its end, with a report.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, hub_path, in_sync, journal, metric, until_event,
    until_refused,
};
use serde_json::{Value, json};

const PROMOTE: &str = "understudy.dev/promote";

/// What an operator of the passive hub runs: how it ended, what it printed, and what it said.
fn run(scene: &Scene, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let args: Vec<&str> = ["promote"].iter().chain(args).copied().collect();
    let output = cli_on(&scene.pair.passive, &scene.second_file()?, &args)?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// The same, and it ends with `code`.
fn command(scene: &Scene, args: &[&str], code: i32) -> Result<(String, String)> {
    let (ended, printed, said) = run(scene, args)?;
    assert_eq!(ended, Some(code), "{args:?}: {printed}{said}");
    Ok((printed, said))
}

fn terms(scene: &Scene) -> Result<usize> {
    Ok(journal(&scene.repository)?.iter().filter(|record| record.kind == "Term").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_asks_follows_and_reports() -> Result<()> {
    let scene = Scene::set(2).await?;
    let (_first, mut second) = scene.running().await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    let alive = |seen: &Value| {
        let list = seen["promotion"]["checklist"].as_array()?;
        list.iter()
            .any(|check| check["reason"] == "PrimaryAlive" && check["ok"] == false)
            .then_some(())
    };
    second.until(DEADLINE, "the primary to be seen alive", alive).await?;
    let hub = &scene.pair.passive;
    // The `Hub` is written a little later than the page knows it.
    let (shown, _) = eventually(SOON, "the preview to know the primary alive", async || {
        let (code, shown, said) = run(&scene, &["--dry-run"]).ok()?;
        (code == Some(5) && said.contains("--primary-is-dead")).then_some((shown, said))
    })
    .await?;
    assert!(shown.contains("✔ storage fences") && shown.contains("✗ primary silent"), "{shown}");
    let newest = second.status().await?["newest"]["id"].as_str().unwrap_or_default().to_owned();
    assert!(shown.contains(&newest) && shown.contains("term 2"), "{shown}");
    let dead = ["--primary-is-dead", "--reason", "the rack is on fire"];
    command(&scene, &[&dead[..], &["--dry-run"]].concat(), 0)?;

    let (_, said) = command(&scene, &dead, 7)?;
    assert!(said.contains("--yes"), "nobody is there to type the name: {said}");
    let (_, said) = command(&scene, &[FIRST, "--yes"], 5)?;
    assert!(said.contains("not eu-1"), "{said}");
    command(&scene, &["--primary-is-dead", "--yes"], 2)?;
    let untouched = hub.api()?.get_json(&hub_path(SECOND)).await?;
    assert_eq!(untouched["metadata"]["annotations"][PROMOTE], Value::Null);
    assert_eq!(terms(&scene)?, 1);

    // What the daemon refuses is as visible as a success.
    let (_, said) = command(&scene, &["--yes"], 5)?;
    assert!(said.contains("sign of life") && said.contains("primary-is-dead"), "{said}");
    until_refused(&mut second, "PrimaryAlive").await?;
    assert!(until_event(hub, "PromotionRefused").await?.contains("sign of life"));
    let wrong = [&dead[..], &["--yes", "--expect-backup", "20200101-000000-1"]].concat();
    let (_, said) = command(&scene, &wrong, 5)?;
    assert!(said.contains("20200101-000000-1") && said.contains(&newest), "{said}");
    let (_, said) = command(&scene, &[&dead[..], &["--yes", "--max-data-age", "0s"]].concat(), 5)?;
    assert!(said.contains("--max-data-age"), "{said}");
    assert_eq!(terms(&scene)?, 1);

    let report = scene.repository.with_file_name("report.json");
    let file = report.to_str().ok_or("the path is no text")?;
    let newest = ["--expect-backup", &newest, "--max-data-age", "1h", "--report", file];
    let (printed, said) = command(&scene, &[&dead[..], &["--yes", SECOND], &newest].concat(), 0)?;
    assert!(printed.contains("eu-2 is PRIMARY in the term 2"), "{printed}");
    assert!(said.contains("cannot publish"), "{said}");
    let written: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    assert_eq!((&written["kind"], &written["epoch"]), (&json!("Promotion"), &json!(2)));
    assert_eq!(written["reason"], "the rack is on fire");
    assert_eq!(written["backup"], newest[1]);
    let seen = second.status().await?;
    assert_eq!((status::role(&seen), status::epoch(&seen)), ("primary", 2));
    let own = seen["newest"]["id"].as_str().unwrap_or_default();
    assert!(printed.contains(own), "the first own backup {own}: {printed}");
    let records = journal(&scene.repository)?;
    let term = records.iter().find(|record| record.epoch == 2).ok_or("no term")?;
    assert_eq!(term.body["request"], written["request"], "the term carries the id of its request");
    let series = r#"understudy_promotions_total{outcome="success",trigger="cli"}"#;
    assert_eq!(metric(&second, series).await?, Some(1.0));

    replayed(&scene, &mut second, &written["request"]).await
}

/// What promoted comes back, as from Git: once as the order that it was, once as its words.
async fn replayed(scene: &Scene, second: &mut Daemon, request: &Value) -> Result<()> {
    let order = json!({
        "hub": SECOND, "request": {"id": request, "expectedEpoch": 1},
        "primaryIsDead": "the rack is on fire",
    });
    annotate(scene, json!({PROMOTE: order.to_string()})).await?;
    until_refused(second, "PromotionRequestStale").await?;
    annotate(scene, json!({PROMOTE: SECOND})).await?;
    until_refused(second, "NotPassive").await?;
    let forced = json!({
        PROMOTE: "eu-2!primary-is-dead", "understudy.dev/promote-reason": "the rack is on fire",
    });
    annotate(scene, forced).await?;
    until_refused(second, "PromotionRequestStale").await?;
    let (_, said) = command(scene, &["--yes"], 5)?;
    assert!(said.contains("holds the term"), "{said}");
    assert_eq!(terms(scene)?, 2);
    Ok(())
}

async fn annotate(scene: &Scene, annotations: Value) -> Result<()> {
    let change = json!({"metadata": {"annotations": annotations}});
    scene.pair.passive.api()?.merge_patch(&hub_path(SECOND), &change).await?;
    Ok(())
}

/// The daemon may be killed at any time, and the command ended and begun anew: it follows the same
/// promotion.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_followed_through_a_restart_of_the_daemon() -> Result<()> {
    let scene = Scene::set(2).await?;
    let (_first, mut second) = scene.running().await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    let dead = ["--primary-is-dead", "--reason", "fire", "--yes"];
    let (printed, _) = command(&scene, &[&dead[..], &["--no-wait"]].concat(), 0)?;
    assert!(printed.starts_with("asked eu-2 as "), "{printed}");
    let id = printed.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    let term = |seen: &Value| (status::epoch(seen) == 2).then_some(());
    second.until(DEADLINE, "the term", term).await?;
    second.kill9();
    let mut second = scene.start_second().await?;
    let (code, printed, said) = run(&scene, &["-o", "json", "--yes"])?;
    let seen = second
        .until(DEADLINE, "primary", |seen| (status::role(seen) == "primary").then(|| seen.clone()));
    let seen = seen.await?;
    assert_eq!(seen["promotion"]["request"], json!(id));
    assert_eq!(terms(&scene)?, 2);
    // It may have been over before the command looked.
    if code == Some(5) {
        assert!(said.contains("holds the term"), "{said}");
    } else {
        assert_eq!(code, Some(0), "{said}");
        let report: Value = serde_json::from_str(&printed)?;
        assert_eq!((&report["request"], &report["epoch"]), (&json!(id), &json!(2)));
    }
    Ok(())
}
