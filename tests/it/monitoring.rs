//! A real Prometheus watches both hubs through a failover: the alerts that should fire do, and end, and
//! every query of the dashboard finds something to draw.

use crate::harness::daemon::cli_on;
use crate::harness::prometheus::{Prometheus, Target};
use crate::harness::{Result, eventually};
use crate::scene::{DEADLINE, FIRST, SECOND, Scene, until_role};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Scrapes and evaluations are so far apart, and alerts wait so long, instead of minutes.
const EVERY: &str = "1s";
const FOR: &str = "2s";
/// In place of Grafana's: a few scrapes.
const RATE_INTERVAL: &str = "10s";

/// Of the dashboard: what reads metrics that no daemon shows yet.
const NOTHING_YET: [(&str, &str); 1] =
    [("Notifications", "understudy_notifications_total comes with notifications")];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shipped rules, with another time that an alert waits before it fires.
fn rules_that_wait(time: &str, folder: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(top().join("dashboards/alerts.yaml"))?;
    let shorter = text.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: {time}\n"),
        _ => format!("{line}\n"),
    });
    let file = folder.join("alerts.yaml");
    std::fs::write(&file, shorter.collect::<String>())?;
    Ok(file)
}

/// Waits until exactly these alerts fire, each with its hub.
async fn until_firing(prometheus: &Prometheus, wanted: &[(&str, &str)]) -> Result<()> {
    let wanted: BTreeSet<_> = wanted.iter().map(|(alert, hub)| format!("{alert} {hub}")).collect();
    let mut seen = BTreeSet::new();
    let outcome = eventually(DEADLINE, "the alerts", async || {
        let firing = prometheus.firing().await.ok()?;
        let text = |labels: &Value, label| labels[label].as_str().unwrap_or_default().to_owned();
        let named = firing.iter().map(|l| format!("{} {}", text(l, "alertname"), text(l, "hub")));
        seen = named.collect::<BTreeSet<_>>();
        (seen == wanted).then_some(())
    });
    outcome.await.map_err(|error| format!("{error} {wanted:?}, but {seen:?}").into())
}

/// The queries of the dashboard, as Grafana would send them, with the title of their panel.
fn queries() -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(top().join("dashboards/understudy.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut queries = vec![];
    for panel in dashboard["panels"].as_array().ok_or("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut expression = target["expr"].as_str().ok_or("no query")?.to_owned();
            for (variable, value) in [
                ("$__rate_interval", RATE_INTERVAL),
                ("$job", ".+"),
                ("$instance", ".+"),
                ("$pair", "test"),
                ("$hub", "eu-1|eu-2"),
            ] {
                expression = expression.replace(variable, value);
            }
            assert!(!expression.contains('$'), "a variable that is not known: {expression}");
            queries.push((panel["title"].as_str().unwrap_or_default().to_owned(), expression));
        }
    }
    assert!(queries.len() > 40, "only {} queries were found", queries.len());
    Ok(queries)
}

/// Queries that found nothing since `from`, but for those that cannot yet.
async fn drawing_nothing(prometheus: &Prometheus, from: i64) -> Result<BTreeSet<String>> {
    let mut empty = BTreeSet::new();
    for (title, query) in queries()? {
        let now = understudy::clock::now().as_second();
        if prometheus.series(&query, from, now, EVERY).await?.is_empty() {
            empty.insert(title);
        }
    }
    Ok(empty)
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_end_through_a_failover_and_every_panel_has_data() -> Result<()> {
    let mut scene = Scene::set(4).await?;
    for config in [&mut scene.first, &mut scene.second] {
        config.set("objectives", json!({"verifyEvery": "15s"}));
    }
    let target = |hub, address| Target { address, hub, pair: "test" };
    let targets = [target(FIRST, scene.first.listen()), target(SECOND, scene.second.listen())];
    let folder = scene.scratch.path();
    let rules = rules_that_wait(FOR, folder)?;
    let prometheus = Prometheus::start(folder, &targets, &rules, EVERY).await?;
    let from = understudy::clock::now().as_second();
    until_firing(
        &prometheus,
        &[("UnderstudyDown", FIRST), ("UnderstudyDown", SECOND), ("UnderstudyMetricsMissing", "")],
    )
    .await?;

    let (mut first, mut second) = scene.running().await?;
    until_firing(&prometheus, &[]).await?;
    let drill = cli_on(&scene.pair.passive, &scene.second_file()?, &["drill"])?;
    assert!(drill.status.success(), "{}", String::from_utf8_lossy(&drill.stderr));

    first.kill9();
    let alone = [
        ("UnderstudyDown", FIRST),
        ("UnderstudyNoPrimary", ""),
        ("UnderstudyPrimarySilent", SECOND),
    ];
    until_firing(&prometheus, &alone).await?;

    second.promote(DEADLINE).await?;
    until_role(&mut second, "primary").await?;
    // No cluster of this test is real.
    let incomplete = ("UnderstudyActivationIncomplete", SECOND);
    let promoted = [("UnderstudyDown", FIRST), ("UnderstudyNoReadyStandby", SECOND), incomplete];
    until_firing(&prometheus, &promoted).await?;

    first = scene.start_first().await?;
    until_role(&mut first, "fenced").await?;
    let fenced = [("UnderstudyFenced", FIRST), ("UnderstudyNoReadyStandby", SECOND), incomplete];
    until_firing(&prometheus, &fenced).await?;

    let expected: BTreeSet<_> = NOTHING_YET.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut empty = BTreeSet::new();
    let outcome = eventually(DEADLINE, "every panel to have data", async || {
        empty = drawing_nothing(&prometheus, from).await.ok()?;
        (empty == expected).then_some(())
    });
    outcome.await.map_err(|error| format!("{error}; without any: {empty:?}").into())
}
