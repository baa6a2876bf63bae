//! What is stored is read again on a schedule, by primary and passive: damage that nothing else would
//! touch is told with the object, the backups and what to do, and is gone once it is mended.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::Hub;
use crate::harness::{Result, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, Scene, journal, metric, until_condition, until_event, until_metric,
    until_role,
};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const DAMAGED: &str = "understudy_verify_damaged_objects";

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_is_told_by_both_hubs_until_it_is_mended() -> Result<()> {
    let mut scene = Scene::set(1).await?;
    for config in [&mut scene.first, &mut scene.second] {
        config.set("objectives.verifyEvery", json!("1s"));
    }
    let (mut first, mut second) = scene.running().await?;
    let Scene { pair, .. } = &scene;
    for (daemon, hub, name) in [(&first, &pair.primary, FIRST), (&second, &pair.passive, SECOND)] {
        until_condition(hub, name, "Verified", "True", "Verified").await?;
        assert_eq!(metric(daemon, DAMAGED).await?, Some(0.0));
        let deadline = metric(daemon, "understudy_verify_deadline_timestamp_seconds").await?;
        let last = metric(daemon, "understudy_verify_last_success_timestamp_seconds").await?;
        assert!(last > Some(0.0) && deadline > last, "{last:?} {deadline:?}");
    }

    let id = status::newest(&first.status().await?).unwrap_or_default().to_owned();
    let pack = newest_pack(&scene.repository)?;
    let file = scene.repository.join(&pack);
    let sound = fs::read(&file)?;
    let mut bytes = sound.clone();
    bytes[sound.len() / 2] ^= 1;
    fs::write(&file, bytes)?;
    told(&first, &pair.primary, FIRST, &scene.first_file()?, &pack, &id).await?;
    told(&second, &pair.passive, SECOND, &scene.second_file()?, &pack, &id).await?;

    // A daemon that starts anew does not have to find it again.
    second.signal("TERM")?;
    assert!(second.wait_exit(DEADLINE).await?.success());
    scene.second.set("objectives.verifyEvery", json!("1d"));
    let mut second = scene.start_second().await?;
    let known = |seen: &Value| (seen["verify"]["damaged"][0]["object"] == pack).then_some(());
    second.until(DEADLINE, "the damage that was found before", known).await?;
    until_role(&mut second, "passive").await?;
    assert_eq!(metric(&second, DAMAGED).await?, Some(1.0));

    // The hub itself is there: its next backup does without the damaged pack.
    let healed = scene.backup(&mut first).await?;
    assert_ne!(newest_pack(&scene.repository)?, pack, "{healed} needs the damaged pack");
    let aside = |seen: &Value| {
        let damaged = &seen["verify"]["damaged"][0];
        (damaged["object"] == pack && damaged["inNewest"] == false).then_some(())
    };
    first.until(DEADLINE, "damage of older backups only", aside).await?;

    fs::write(&file, sound)?;
    until_metric(&first, DAMAGED, 0.0).await?;
    until_condition(&scene.pair.primary, FIRST, "Verified", "True", "Verified").await?;
    assert_eq!(metric(&second, DAMAGED).await?, Some(1.0), "it has not looked again yet");
    Ok(())
}

/// In the condition, as an Event, as a metric, on the page and by the command.
async fn told(
    daemon: &Daemon,
    hub: &Hub,
    name: &str,
    file: &Path,
    pack: &str,
    id: &str,
) -> Result<()> {
    let message = until_condition(hub, name, "Verified", "False", "VerifyDamaged").await?;
    assert!(message.contains(pack) && message.contains(id), "{message}");
    until_metric(daemon, DAMAGED, 1.0).await?;
    assert!(until_event(hub, "BackupDamaged").await?.contains(pack));
    let output = cli_on(hub, file, &["status"])?;
    for text in [daemon.http_get("/").await?.1, String::from_utf8(output.stdout)?] {
        for part in ["VerifyDamaged", pack, id, "storage's own versions"] {
            assert!(text.replace("&#39;", "'").contains(part), "{name}: no {part} in: {text}");
        }
    }
    assert!(daemon.log_text()?.contains("a stored object is damaged"), "{name}");
    Ok(())
}

/// The first pack of the resources of the newest backup.
fn newest_pack(repository: &Path) -> Result<String> {
    let records = journal(repository)?;
    let commit = records.iter().rev().find(|record| record.kind == "Commit").ok_or("no commit")?;
    let pack = &commit.body["sets"]["resources"]["levels"][0]["packs"][0]["name"];
    Ok(format!("packs/{}", pack.as_str().ok_or("no pack")?))
}
