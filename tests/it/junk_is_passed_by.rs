//! Somebody who can write to the storage and has no key fills the next slot of the journal (F25). Both
//! hubs stop there, loudly; an operator's forced promotion names the slot and goes past it.

use crate::harness::hub::Hub;
use crate::harness::{Result, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, hub_path, journal, until_condition, until_event,
    until_refused, until_role,
};
use serde_json::{Value, json};
use std::fs;
use understudy::object::Digest;

async fn promote(hub: &Hub, name: &str, forced: bool) -> Result<()> {
    let (suffix, reason) = if forced { ("!primary-is-dead", Some("junk")) } else { ("", None) };
    let annotations = json!({
        "understudy.dev/promote": format!("{name}{suffix}"),
        "understudy.dev/promote-reason": reason,
    });
    let change = json!({"metadata": {"annotations": annotations}});
    hub.api()?.merge_patch(&hub_path(name), &change).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_promotion_passes_junk_by_name_and_nothing_else_does() -> Result<()> {
    let scene = Scene::set(1).await?;
    let (mut first, mut second) = scene.running().await?;
    let folder = scene.repository.join("journal");
    let head = journal(&scene.repository)?.last().ok_or("no record")?.slot;
    // An old commit, in a slot that it was not written for.
    let bytes = fs::read(folder.join(format!("{head:020}")))?;
    let junk = head + 1;
    fs::write(folder.join(format!("{junk:020}")), &bytes)?;
    for (hub, name) in [(&scene.pair.primary, FIRST), (&scene.pair.passive, SECOND)] {
        let message = until_condition(hub, name, "Ready", "False", "JunkRecord").await?;
        assert!(message.contains(&format!("slot {junk} ")), "{message}");
    }

    promote(&scene.pair.passive, SECOND, false).await?;
    let refused = until_refused(&mut second, "JunkRecord").await?;
    assert!(refused["hint"].as_str().unwrap_or_default().contains("forced promotion"), "{refused}");
    until_event(&scene.pair.passive, "PromotionRefused").await?;
    promote(&scene.pair.primary, FIRST, true).await?;
    until_refused(&mut first, "JunkRecord").await?;
    assert_eq!(journal(&scene.repository)?.len() as u64, junk, "nothing is written beyond it");

    promote(&scene.pair.passive, SECOND, true).await?;
    second.until(DEADLINE, "the term", |seen| (status::epoch(seen) == 2).then_some(())).await?;
    until_role(&mut first, "fenced").await?;
    until_role(&mut second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then_some(());
    second.until(DEADLINE, "the first own backup", own).await?;
    let records = journal(&scene.repository)?;
    let term = records.iter().find(|record| record.epoch == 2).ok_or("no term")?;
    let skips = json!([{"slot": junk, "sha256": Digest::of(&bytes).to_string()}]);
    assert_eq!((term.slot, &term.body["skips"]), (junk + 1, &skips));
    assert!(records.iter().filter(|r| r.slot > term.slot).all(|r| r.hub == SECOND));
    until_condition(&scene.pair.passive, SECOND, "Ready", "True", "BackupCurrent").await?;

    // A restart reads past it as well.
    second.kill9();
    let mut second = scene.start_second().await?;
    until_role(&mut second, "primary").await?;
    let frozen = |seen: &Value| seen["frozen"].is_null().then_some(());
    second.until(SOON, "a journal that is not frozen", frozen).await
}
