//! A repository of format version 1 is read for ever: `tests/fixtures/format-1/` is never written
//! again once a release has written such repositories.
//!
//! Until then `cargo test --test format -- --ignored make_format_1` makes it anew, which a change of
//! `make.rs` calls for.

use crate::Result;
use crate::make;
use crate::reader::Reader;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use understudy::repository::journal::Journal;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

#[tokio::test]
async fn a_repository_of_version_1_is_read() -> Result<()> {
    let keys = make::load_keys(&folder().join("pair.key"))?;
    let expected: Value = serde_json::from_slice(&fs::read(folder().join("expected.json"))?)?;
    let (repository, cache) = (folder().join("repository"), tempfile::tempdir()?);
    let reader = Reader::new(&repository, cache.path(), keys.clone()).await?;
    let read = reader.read(None, &[]).await?;
    assert_eq!(read.complaint, None);
    let mut backups = Map::new();
    for (slot, held) in read.backups {
        backups.insert(slot.to_string(), held?.objects);
    }
    let journal = Journal::open(make::storage(&repository).await?, keys, None).await?;
    let mut journal = journal.ok_or("there is no repository")?;
    let view = journal.refresh().await?;
    let slot = |backup: &Option<std::sync::Arc<understudy::repository::chain::Backup>>| {
        backup.as_ref().map(|backup| backup.mark.slot)
    };
    let found = json!({
        "head": view.head,
        "epoch": view.epoch,
        "holder": view.holder.as_ref().map(|hub| &hub.name),
        "incarnation": view.incarnation,
        "newest": slot(&view.newest),
        "usable": slot(&view.usable),
        "base": slot(&view.base),
        "beats": read.beats.len(),
        "backups": backups,
    });
    assert_eq!(found, expected);
    Ok(())
}

#[tokio::test]
#[ignore = "overwrites the fixture"]
async fn make_format_1() -> Result<()> {
    let (folder, repository) = (folder(), folder().join("repository"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&repository)?;
    let file = folder.join("pair.key");
    let keys = make::new_keys(&file)?;
    let text = fs::read_to_string(&file)?;
    fs::write(&file, format!("# A key for tests. It protects nothing.\n{text}"))?;
    let mut maker = make::make(&repository, keys).await?;
    maker.retire_oldest().await?;
    fs::remove_dir_all(repository.join(".tmp"))?;
    // As told in `make.rs`, and not as read.
    let backups = maker.backups.iter().map(|(slot, objects)| (slot.to_string(), objects.clone()));
    let expected = json!({
        "head": 15,
        "epoch": 2,
        "holder": "eu-2",
        "incarnation": 8,
        "newest": 13,
        "usable": 13,
        "base": 5,
        "beats": 2,
        "backups": Value::Object(backups.collect()),
    });
    Ok(fs::write(folder.join("expected.json"), format!("{expected:#}\n"))?)
}
