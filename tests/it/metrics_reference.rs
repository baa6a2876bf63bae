//! docs/reference/metrics.md is what a daemon shows, in both directions: on a primary, on a standby, and
//! on the standby after it was promoted.

use crate::harness::daemon::Daemon;
use crate::harness::{Result, eventually};
use crate::promtool::promtool;
use crate::scene::{DEADLINE, SECOND, Scene, metric, until_role, until_silent};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const EVERY_HUB: &str = "every hub";
const PROMOTED: &str = "after a promotion";

#[derive(Debug, PartialEq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    meaning: String,
}

type Metrics = BTreeMap<String, Metric>;

/// The table of docs/reference/metrics.md: each metric with the roles of a hub that shows it.
struct Reference(Vec<(String, Vec<String>, Metric)>);

impl Reference {
    fn read() -> Result<Self> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
        let text = std::fs::read_to_string(page)?;
        let list = |cell: &str| -> Vec<String> {
            let parts = cell.split(',').map(|part| part.split('=').next().unwrap_or_default());
            parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
        };
        let mut rows = vec![];
        for line in text.lines() {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [name, kind, labels, shown, meaning] = *cells
                && (name.starts_with("understudy_") || name.starts_with("process_"))
            {
                let (kind, meaning) = (kind.to_owned(), meaning.to_owned());
                let labels = list(labels).into_iter().collect();
                rows.push((name.to_owned(), list(shown), Metric { kind, labels, meaning }));
            }
        }
        Ok(Self(rows))
    }

    /// Of a hub that plays these roles.
    fn of(&self, roles: &[&str]) -> BTreeMap<&str, &Metric> {
        let shows = |shown: &[String]| shown.iter().any(|role| roles.contains(&role.as_str()));
        let rows = self.0.iter().filter(|(_, shown, _)| shows(shown));
        rows.map(|(name, _, metric)| (name.as_str(), metric)).collect()
    }
}

/// What a daemon shows, as a scraper reads it.
fn shown(text: &str) -> Result<Metrics> {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some((name, meaning)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
        {
            let (kind, labels) = (String::new(), BTreeSet::new());
            metrics.insert(name.to_owned(), Metric { kind, labels, meaning: meaning.to_owned() });
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            kind.clone_into(&mut metrics.get_mut(name).ok_or("TYPE before HELP")?.kind);
        } else if let Some((name, labels)) = line.split_once('{') {
            let family = ["_bucket", "_sum", "_count"].iter();
            let family = family.filter_map(|end| name.strip_suffix(end));
            let family = family.chain([name]).find(|family| metrics.contains_key(*family));
            let metric = metrics.get_mut(family.ok_or("a sample without HELP")?).ok_or("gone")?;
            let (labels, _) = labels.rsplit_once('}').ok_or("no end of the labels")?;
            let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0));
            metric.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    Ok(metrics)
}

/// Waits until exactly the metrics of these roles are shown, and lets promtool judge them.
async fn shows_what_is_documented(
    scene: &Scene,
    daemon: &Daemon,
    reference: &Reference,
    roles: &[&str],
) -> Result<()> {
    let wanted = reference.of(roles);
    let mut differing = String::new();
    let outcome = eventually(DEADLINE, "the metrics of the reference", async || {
        let text = daemon.http_get("/metrics").await.ok()?.1;
        let found = shown(&text).ok()?;
        let missing = wanted.iter().filter(|(name, _)| !found.contains_key(**name));
        let missing: Vec<_> = missing.map(|(name, _)| format!("{name} is not shown")).collect();
        let other = found.iter().filter(|(name, is)| wanted.get(name.as_str()) != Some(is));
        let other = other
            .map(|(name, is)| format!("{name} is {is:?}, not {:?}", wanted.get(name.as_str())));
        differing = missing.into_iter().chain(other).collect::<Vec<_>>().join("\n");
        differing.is_empty().then_some(text)
    });
    let text = outcome.await.map_err(|error| format!("{error}, {roles:?}:\n{differing}"))?;
    promtool(scene.scratch.path(), &["check", "metrics"], &text).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_shows_the_metrics_of_its_role_and_no_others() -> Result<()> {
    let reference = Reference::read()?;
    let scene = Scene::set(3).await?;
    let (mut first, mut second) = scene.running().await?;
    shows_what_is_documented(&scene, &first, &reference, &[EVERY_HUB, "primary"]).await?;
    shows_what_is_documented(&scene, &second, &reference, &[EVERY_HUB, "passive"]).await?;

    what_outlives_a_process_is_never_0(&scene, &mut second).await?;

    first.kill9();
    until_silent(&mut second).await?;
    second.promote(DEADLINE).await?;
    until_role(&mut second, "primary").await?;
    second
        .until(DEADLINE, "the first own backup", |s| (s["newest"]["hub"] == SECOND).then_some(()))
        .await?;
    let roles = [EVERY_HUB, "primary", PROMOTED];
    shows_what_is_documented(&scene, &second, &reference, &roles).await?;
    let sync = r#"understudy_loop_last_tick_timestamp_seconds{loop="sync"}"#;
    assert_eq!(metric(&second, sync).await?, None, "a loop that went with its role looks stalled");
    let peer = r#"understudy_peer_heartbeat_timestamp_seconds{peer="eu-1",peer_role="fenced"}"#;
    assert!(metric(&second, peer).await?.is_some(), "the dead one is no primary any more");
    Ok(())
}

/// From the first scrape after a restart on: absent or right.
async fn what_outlives_a_process_is_never_0(scene: &Scene, second: &mut Daemon) -> Result<()> {
    const DURABLE: [&str; 5] = [
        r#"understudy_restored_backup_timestamp_seconds{set="resources"}"#,
        "understudy_sync_last_success_timestamp_seconds",
        "understudy_storage_newest_backup_timestamp_seconds",
        "understudy_epoch",
        r#"understudy_role{role="passive"}"#,
    ];
    second.signal("TERM")?;
    second.wait_exit(DEADLINE).await?;
    *second = scene.start_second().await?;
    let mut seen = BTreeSet::new();
    eventually(DEADLINE, "all that outlives the process", async || {
        for series in DURABLE {
            let value = metric(second, series).await.ok()?;
            seen.extend(value.map(|value| (series, value > 0.0)));
        }
        (seen.len() >= DURABLE.len()).then_some(())
    })
    .await?;
    assert_eq!(seen, DURABLE.iter().map(|series| (*series, true)).collect());
    Ok(())
}
