//! What a newer version wrote is never half understood (F31): it freezes, with the reason, and what
//! was there before stays as it was.

use crate::Result;
use crate::make;
use crate::reader::Reader;
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use understudy::object::{Digest, Set};
use understudy::repository::keys::Keys;
use understudy::repository::layout::{PackName, journal_key};
use understudy::repository::pack::{self, Header, PackError};
use understudy::repository::record::PackRef;

/// As a newer program would write it: authentic, whatever it says.
fn signed(domain: &str, line: &Value, keys: &Keys) -> String {
    let line = line.to_string();
    let mac = keys.sign(format!("{domain}\n{line}").as_bytes());
    format!("{line}\n{mac}\n")
}

#[tokio::test]
async fn what_a_newer_version_wrote_freezes_and_changes_nothing() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let keys = make::new_keys(&scratch.path().join("key"))?;
    let (folder, cache) = (scratch.path().join("repository"), scratch.path().join("cache"));
    fs::create_dir(&folder)?;
    let maker = make::make(&folder, keys.clone()).await?;
    let reader = Reader::new(&folder, &cache, keys.clone()).await?;
    let before = reader.read(None, &[]).await?;
    let head = before.head.ok_or("there is no record")?;

    let next = folder.join(journal_key(head.slot + 1));
    let record = json!({
        "repository": maker.journal.repository(), "slot": head.slot + 1, "epoch": 2, "incarnation": 8,
        "hub": make::hub("eu-2"), "nonce": "n", "prev": head, "key": keys.id(), "writer": "9.0.0",
        "at": "2030-01-01T00:00:00Z", "body": {"kind": "Open"},
    });
    // (field, value, whether it may be followed)
    for (field, value, follows) in [
        ("requires", json!(["levels-in-a-tree"]), false),
        ("body", json!({"kind": "Truncate", "below": 3}), false),
        ("body", json!({"kind": "Commit", "trees": []}), false),
        ("slot", json!("fourteen"), false),
        ("more", json!({"to": "come"}), true),
    ] {
        let mut newer = record.clone();
        newer[field] = value;
        fs::write(&next, signed("record", &newer, &keys))?;
        let read = reader.read(None, &[]).await?;
        let complaint = read.complaint.unwrap_or_default();
        assert_eq!(complaint.is_empty(), follows, "{field}: {complaint}");
        assert!(follows || complaint.contains("was written by a newer version"), "{complaint}");
        assert_eq!(read.backups, before.backups, "{field}: what was there stays");
        assert!(follows || read.head == before.head, "{field}: nothing of it counts");
        fs::remove_file(&next)?;
    }

    let mut repo: Value = serde_json::from_str(
        fs::read_to_string(folder.join("repo"))?.lines().next().unwrap_or(""),
    )?;
    repo["format"] = json!(2);
    fs::write(folder.join("repo"), signed("repo", &repo, &keys))?;
    let complaint = reader.read(None, &[]).await?.complaint.unwrap_or_default();
    assert!(complaint.contains("the repository has format 2"), "{complaint}");
    Ok(())
}

#[test]
fn a_pack_of_another_format_is_not_read() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let keys = make::new_keys(&scratch.path().join("key"))?;
    for (format, is_read) in [(1, true), (2, false)] {
        let (repository, revision) = ("r".to_owned(), "1".to_owned());
        let header =
            Header { format, repository, epoch: 1, set: Set::Resources, index: 0, revision };
        let sealed = pack::Writer::new(&header, &keys)?.finish()?;
        let reference = PackRef {
            name: PackName::new(1, 1, ulid::Ulid::nil()),
            length: sealed.bytes.len() as u64,
            sha256: Digest::of(&sealed.bytes),
            lines: 0,
        };
        let each = |_: pack::Line<'_>| ControlFlow::Continue(());
        let read = pack::read(&sealed.bytes, &reference, "r", Set::Resources, &keys, each);
        assert_eq!(read.is_ok(), is_read, "format {format}");
        assert!(is_read || matches!(read, Err(PackError::Header)));
    }
    Ok(())
}
