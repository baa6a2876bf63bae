//! What a hub shows over HTTP, on a primary and on a passive hub: probes, metrics, status, page.

use crate::harness::daemon::Daemon;
use crate::harness::{Result, kinds, status};
use crate::scene::{FIRST, SECOND, Scene, metric, until_metric};
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use understudy::object::Set;

const PAGE_LIMIT: usize = 50_000;

#[tokio::test(flavor = "multi_thread")]
async fn both_roles_show_what_they_are() -> Result<()> {
    let scene = Scene::set(3).await?;
    let (first, second) = scene.running().await?;
    for daemon in [&first, &second] {
        every_endpoint_answers(daemon).await?;
        metrics_are_well_formed(daemon).await?;
        nothing_is_shown_that_needs_a_login(&scene, daemon).await?;
    }
    primary_values(&scene, &first).await?;
    passive_values(&scene, &second).await?;
    Ok(())
}

async fn every_endpoint_answers(daemon: &Daemon) -> Result<()> {
    for (path, kind) in [
        ("/livez", "text/plain"),
        ("/readyz", "text/plain"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/api/v1/status", "application/json"),
        ("/api/v1/backups", "application/json"),
        ("/", "text/html; charset=utf-8"),
    ] {
        let response = reqwest::get(format!("{}{path}", daemon.url())).await?;
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers().clone();
        let found = headers[CONTENT_TYPE].to_str()?;
        assert!(found.starts_with(kind), "{path}: {found}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        let text = response.text().await?;
        match path {
            "/livez" | "/readyz" => assert_eq!(text, "ok\n"),
            "/" => {
                assert!(text.starts_with("<!DOCTYPE html>"), "{path}: {}", &text[..60]);
                assert!(text.len() <= PAGE_LIMIT, "the page has {} bytes", text.len());
                assert!(!text.contains("<script"), "it works without one");
            }
            "/metrics" => assert!(text.ends_with('\n')),
            _ => {
                let document: Value = serde_json::from_str(&text)?;
                assert_eq!(document["apiVersion"], "understudy.dev/v1", "{path}");
                let kind = if path.ends_with("status") { "Status" } else { "BackupList" };
                assert_eq!(document["kind"], kind, "{path}");
            }
        }
    }
    let (code, _) = daemon.http_get("/api/v1/nothing").await?;
    assert_eq!(code, 404);
    let post = reqwest::Client::new().post(format!("{}/api/v1/status", daemon.url()));
    assert_eq!(post.send().await?.status(), 405, "there is nothing to write");
    Ok(())
}

/// As a scraper reads them: one HELP and one TYPE for each family, before its samples; no series
/// twice; every value a number.
async fn metrics_are_well_formed(daemon: &Daemon) -> Result<()> {
    let (_, text) = daemon.http_get("/metrics").await?;
    let (mut help, mut types) = (BTreeSet::new(), BTreeMap::new());
    let mut series = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, told) = rest.split_once(' ').ok_or("HELP without a text")?;
            assert!(told.len() > 10, "{line}");
            assert!(help.insert(name.to_owned()), "documented twice: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a kind")?;
            types.insert(name.to_owned(), kind.to_owned());
        } else {
            let (name, value) = line.rsplit_once(' ').ok_or("a sample without a value")?;
            assert!(value.parse::<f64>()?.is_finite(), "{line}");
            assert!(series.insert(name.to_owned()), "twice: {line}");
            let bare = name.split('{').next().unwrap_or(name);
            let suffixes = ["_bucket", "_sum", "_count"].iter();
            let family = suffixes
                .filter_map(|suffix| bare.strip_suffix(suffix))
                .find(|family| types.get(*family).is_some_and(|kind| kind == "histogram"))
                .unwrap_or(bare);
            assert!(help.contains(family) && types.contains_key(family), "no HELP: {line}");
            let ours = family.starts_with("understudy_") || family.starts_with("process_");
            assert!(ours, "{line}");
            let total = family.ends_with("_total");
            assert_eq!(total, types[family] == "counter", "the suffix tells the type: {line}");
        }
    }
    assert!(series.len() > 100, "only {} series", series.len());
    Ok(())
}

/// Counts, times and states: names of objects and secrets are for those who may read them.
async fn nothing_is_shown_that_needs_a_login(scene: &Scene, daemon: &Daemon) -> Result<()> {
    let key = std::fs::read_to_string(&scene.key)?;
    let key = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY")).ok_or("no key")?;
    for path in ["/metrics", "/api/v1/status", "/api/v1/backups", "/"] {
        let (_, text) = daemon.http_get(path).await?;
        for secret in [key, "cluster-0001", "bootstrap-hub-kubeconfig"] {
            assert!(!text.contains(secret), "{path} shows {secret}");
        }
    }
    assert!(!daemon.log_text()?.contains(key), "the log shows the key");
    Ok(())
}

async fn primary_values(scene: &Scene, first: &Daemon) -> Result<()> {
    until_metric(first, r#"understudy_standbys{state="ready"}"#, 1.0).await?;
    for (series, wanted) in [
        (r#"understudy_role{role="primary"}"#, 1.0),
        (r#"understudy_role{role="passive"}"#, 0.0),
        (r#"understudy_role{role="promoting"}"#, 0.0),
        (r#"understudy_role{role="fenced"}"#, 0.0),
        ("understudy_epoch", 1.0),
        ("understudy_state_recovered", 1.0),
        ("understudy_storage_up", 1.0),
        ("understudy_storage_backups", 1.0),
        ("understudy_writer_conflict", 0.0),
        ("understudy_backup_running", 0.0),
        ("understudy_backup_timeout_seconds", 600.0),
        (r#"understudy_backup_runs_total{outcome="success"}"#, 1.0),
        (r#"understudy_backup_runs_total{outcome="failed"}"#, 0.0),
        (r#"understudy_backup_last_outcome{outcome="success"}"#, 1.0),
        ("understudy_discovery_failed_groups", 0.0),
    ] {
        assert_eq!(metric(first, series).await?, Some(wanted), "{series}");
    }
    for set in Set::ALL {
        let series = format!(r#"understudy_backup_last_objects{{set="{}"}}"#, set.name());
        // The definitions of the fleet's kinds go with its objects.
        let definitions = kinds::all().iter().filter(|kind| kind.group.contains('.')).count();
        let more = if set == Set::Resources { definitions } else { 0 };
        let wanted = u32::try_from(scene.keys_of(set).len() + more)?;
        assert_eq!(metric(first, &series).await?, Some(f64::from(wanted)), "{series}");
    }
    #[allow(clippy::cast_precision_loss)] // seconds since 1970
    let now = understudy::clock::now().as_second() as f64;
    for (series, low, high) in [
        ("understudy_backup_last_success_timestamp_seconds", now - 120.0, now),
        // The schedule fires on 1 January; the deadline is the second one from the last success.
        ("understudy_backup_next_run_timestamp_seconds", now, now + 367.0 * 86_400.0),
        ("understudy_backup_deadline_timestamp_seconds", now, now + 734.0 * 86_400.0),
        ("understudy_storage_newest_backup_timestamp_seconds", now - 120.0, now),
    ] {
        let value = metric(first, series).await?.ok_or(series)?;
        assert!(value >= low && value <= high + 1.0, "{series} {value}");
    }
    for loop_name in ["backup", "promotion", "probe"] {
        let series =
            format!(r#"understudy_loop_last_tick_timestamp_seconds{{loop="{loop_name}"}}"#);
        let value = metric(first, &series).await?.ok_or("no tick")?;
        assert!(value > now - 30.0, "{series} {value}");
    }
    let page = first.http_get("/").await?.1;
    assert!(page.contains(FIRST) && page.contains("PRIMARY"), "the page names hub and role");
    Ok(())
}

async fn passive_values(scene: &Scene, second: &Daemon) -> Result<()> {
    let restored: usize =
        [Set::Credentials, Set::Resources].iter().map(|set| scene.keys_of(*set).len()).sum();
    let created = async |set: &str| {
        let series = format!(r#"understudy_restore_objects_total{{action="created",set="{set}"}}"#);
        metric(second, &series).await
    };
    let all = created("credentials").await?.unwrap_or_default()
        + created("resources").await?.unwrap_or_default();
    assert_eq!(all.to_bits(), f64::from(u32::try_from(restored)?).to_bits());
    assert_eq!(created("activation").await?.unwrap_or_default().to_bits(), 0.0_f64.to_bits());
    for (series, wanted) in [
        (r#"understudy_role{role="passive"}"#, 1.0),
        (r#"understudy_role{role="primary"}"#, 0.0),
        ("understudy_epoch", 1.0),
        ("understudy_standby_ready", 1.0),
        (r#"understudy_sync_runs_total{outcome="changed"}"#, 1.0),
        ("understudy_promotion_running", 0.0),
    ] {
        assert_eq!(metric(second, series).await?, Some(wanted), "{series}");
    }
    assert_eq!(metric(second, r#"understudy_backup_last_outcome{outcome="success"}"#).await?, None);
    let seen = second.status().await?;
    assert_eq!(status::role(&seen), "passive");
    let backups: Value = serde_json::from_str(&second.http_get("/api/v1/backups").await?.1)?;
    assert_eq!(backups["items"][0]["id"], seen["newest"]["id"]);
    let page = second.http_get("/").await?.1;
    assert!(page.contains(SECOND) && page.contains("PASSIVE"), "the page names hub and role");
    assert!(page.contains("READY TO TAKE OVER"), "and the verdict");
    Ok(())
}
