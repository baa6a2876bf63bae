//! An operator promotes by an annotation on the `Hub` resource. Only the hub's own name works; what
//! is malformed or names another hub is refused, told as an Event, and removed.

use crate::harness::hub::Hub;
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, hub_path, journal, metric, restore_writes, until_event,
    until_refused, until_role, until_silent,
};
use serde_json::{Value, json};
use understudy::clock::monotonic;

const PROMOTE: &str = "understudy.dev/promote";
const REASON: &str = "understudy.dev/promote-reason";

#[tokio::test(flavor = "multi_thread")]
async fn the_forced_form_promotes_although_the_primary_lives() -> Result<()> {
    let scene = Scene::set(2).await?;
    let (mut first, mut second) = scene.running().await?;
    let hub = &scene.pair.passive;

    let forced = format!("{SECOND}!primary-is-dead");
    for (value, reason, told) in [
        (FIRST, None, r#"names "eu-1""#),
        ("", None, r#"names """#),
        ("EU-2", None, r#"names "EU-2""#),
        ("eu-2!now", Some("fire"), "unknown suffix"),
        (&forced, None, "needs the annotation"),
        (&forced, Some(" "), "needs the annotation"),
    ] {
        annotate(hub, value, reason).await?;
        until_gone(hub).await?;
        let refused = until_refused(&mut second, "PromotionRefused").await?;
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.contains(told), "{value:?} {reason:?}: {refused}");
        assert!(refused["hint"].as_str().unwrap_or_default().contains(PROMOTE), "{refused}");
    }
    assert!(until_event(hub, "PromotionRefused").await?.contains("names"), "the first of them");

    annotate(hub, SECOND, None).await?;
    until_gone(hub).await?;
    let refused = until_refused(&mut second, "PrimaryAlive").await?;
    assert!(refused["hint"].as_str().unwrap_or_default().contains(&forced), "{refused}");
    let seen = second.status().await?;
    assert_eq!((status::role(&seen), status::epoch(&seen)), ("passive", 1));
    assert_eq!(journal(&scene.repository)?.iter().filter(|r| r.kind == "Term").count(), 1);

    annotate(hub, &forced, Some("the rack is on fire")).await?;
    second.until(DEADLINE, "the term", |seen| (status::epoch(seen) == 2).then_some(())).await?;
    let term = monotonic();
    let seen = until_role(&mut first, "fenced").await?;
    let (seconds, poll) = (term.elapsed().as_secs_f64(), 1.0);
    assert!(seconds <= 2.0 * poll, "fenced within a poll, not after {seconds} s");
    assert_eq!(seen["holder"], SECOND);
    let seen = until_role(&mut second, "primary").await?;
    let promotion = &seen["promotion"];
    assert_eq!(promotion["trigger"], "annotation", "{promotion}");
    assert_eq!(promotion["forced"], "the rack is on fire", "{promotion}");
    until_gone(hub).await?;
    let series = r#"understudy_promotions_total{outcome="success",trigger="annotation"}"#;
    assert_eq!(metric(&second, series).await?, Some(1.0));
    assert_eq!(restore_writes(&scene.pair.primary)?, 0, "the old primary's hub is left alone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_name_promotes_when_the_primary_is_silent() -> Result<()> {
    let scene = Scene::set(1).await?;
    let (mut first, mut second) = scene.running().await?;
    first.kill9();
    until_silent(&mut second).await?;

    annotate(&scene.pair.passive, SECOND, None).await?;
    let seen = until_role(&mut second, "primary").await?;
    assert_eq!((status::epoch(&seen), &seen["promotion"]["trigger"]), (2, &"annotation".into()));
    assert_eq!(seen["promotion"]["forced"], Value::Null);
    until_gone(&scene.pair.passive).await?;
    let request = &seen["promotion"]["request"];
    let records = journal(&scene.repository)?;
    let term = records.iter().find(|record| record.epoch == 2).ok_or("no term")?;
    assert_eq!(&term.body["request"], request, "the term carries the id of its request");

    // It comes back, as from Git or from a backup: the hub is primary already.
    annotate(&scene.pair.passive, SECOND, None).await?;
    until_gone(&scene.pair.passive).await?;
    until_refused(&mut second, "NotPassive").await?;
    assert_eq!(journal(&scene.repository)?.iter().filter(|r| r.kind == "Term").count(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_is_refused_where_the_configuration_forbids_it() -> Result<()> {
    let mut scene = Scene::set(1).await?;
    scene.second.set("promotion.annotation", json!(false));
    let (mut first, mut second) = scene.running().await?;
    first.kill9();
    until_silent(&mut second).await?;
    annotate(&scene.pair.passive, SECOND, None).await?;
    until_gone(&scene.pair.passive).await?;
    let refused = until_refused(&mut second, "PromotionRefused").await?;
    assert!(refused["message"].as_str().unwrap_or_default().contains("annotation"), "{refused}");
    assert_eq!(status::role(&second.status().await?), "passive");
    Ok(())
}

async fn annotate(hub: &Hub, value: &str, reason: Option<&str>) -> Result<()> {
    let annotations = json!({PROMOTE: value, REASON: reason});
    let change = json!({"metadata": {"annotations": annotations}});
    hub.api()?.merge_patch(&hub_path(SECOND), &change).await?;
    Ok(())
}

/// The annotations were handled: none is left to be handled again.
async fn until_gone(hub: &Hub) -> Result<()> {
    let api = hub.api()?;
    eventually(SOON, "the annotations to be removed", async || {
        let found = api.get_json(&hub_path(SECOND)).await.ok()?;
        let annotations = &found["metadata"]["annotations"];
        (annotations[PROMOTE].is_null() && annotations[REASON].is_null()).then_some(())
    })
    .await
}
