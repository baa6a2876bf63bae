//! Mutations beyond bytes: what someone with the bucket alone could put there, what stood in another
//! repository, and what a holder of the key could have written instead.

use super::{Made, May, Objects, kind, objects as objects_of, write_all};
use crate::{Result, make};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use understudy::repository::journal::{Journal, Writer};
use understudy::repository::keys::Keys;
use understudy::repository::layout::journal_key;
use understudy::repository::record::Body;

/// Names that nobody wrote, and bytes that only an attacker with the bucket alone could make.
pub(super) fn by_hand(objects: &Objects, old_beats: &[Vec<u8>], head: u64) -> Vec<Made> {
    let mut made = vec![];
    let mut add = |what, may, key: String, bytes: &[u8]| {
        made.push(Made { what, may, writes: vec![(key, Some(bytes.to_vec()))] });
    };
    let any_pack = "2-9-01KAJ00000000000000000000A".to_owned();
    for (key, bytes) in objects {
        let kind = kind(key);
        if kind == "record" {
            add("head + 1: an older record", May::Notice, journal_key(head + 1), bytes);
            let above = journal_key(head + 2);
            add("head + 2: an older record", May::IgnoreIfKnown, above, bytes);
            for (what, forged) in forgeries(bytes, objects) {
                add(what, May::Notice, key.clone(), &forged);
                add(what, May::Notice, journal_key(head + 1), &forged);
            }
        } else if kind == "pack" {
            let key = format!("packs/{any_pack}");
            add("pack: copied to a new name", May::Ignore, key, bytes);
        }
        let may = if kind == "beat" { May::Beat } else { May::Notice };
        for tail in [&b"\n"[..], b"\0", &vec![b'x'; 70_000]] {
            add("any: lengthened", may, key.clone(), &[bytes, tail].concat());
        }
    }
    for (key, beat) in ["beats/eu-1", "beats/eu-2"].iter().zip(old_beats) {
        add("beat: replaced by its own older one", May::Beat, (*key).to_owned(), beat);
    }
    for junk in [&b""[..], b"\n", b"\n\n", b"{}\n{}\n", b"{\"key\":\"\"}\n\n", &vec![0; 100_000]] {
        add("head + 1: junk", May::Notice, journal_key(head + 1), junk);
    }
    for odd in ["journal/x", "journal/1", "packs/x", "beats/x", "stranger"] {
        add("any: a stranger's name", May::Ignore, odd.to_owned(), b"x");
    }
    for newest in 2..=head {
        let gone = (head + 1 - newest..=head).map(|slot| (journal_key(slot), None));
        made.push(Made {
            what: "record: the newest removed",
            may: May::FallBack,
            writes: gone.collect(),
        });
    }
    made
}

/// What can be made of a record without the key.
fn forgeries(record: &[u8], objects: &Objects) -> Vec<(&'static str, Vec<u8>)> {
    let text = String::from_utf8_lossy(record);
    let (line, mac) = text.trim_end().split_once('\n').unwrap_or_default();
    let mut forged = vec![];
    let mut changed: Value = serde_json::from_str(line).unwrap_or_default();
    changed["epoch"] = 99.into();
    forged.push(("record: forged under its old MAC", format!("{changed}\n{mac}\n")));
    forged.push(("record: another MAC", format!("{line}\n{}\n", "0".repeat(64))));
    forged.push(("record: without a MAC", format!("{line}\n\n")));
    forged.push(("record: with a space more", format!("{line} \n{mac}\n")));
    forged.push(("record: its MAC in capitals", format!("{line}\n{}\n", mac.to_uppercase())));
    for other in objects.values() {
        let other = String::from_utf8_lossy(other);
        let Some((_, other)) = other.trim_end().split_once('\n') else { continue };
        if other.len() == 64 && other != mac {
            forged.push(("record: the MAC of another object", format!("{line}\n{other}\n")));
        }
    }
    forged.into_iter().map(|(what, text)| (what, text.into_bytes())).collect()
}

/// Another repository under the same key, and one under a key that the reader lacks: each object of
/// theirs in the place of ours, and all at once.
pub(super) async fn of_others(
    scratch: &Path,
    keys: &Arc<Keys>,
    objects: &Objects,
) -> Result<Vec<Made>> {
    let unknown = make::new_keys(&scratch.join("other-key"))?;
    let mut made = vec![];
    for (what, folder, keys) in [
        ("any: of another repository", "other", keys),
        ("any: under an unknown key", "unknown", &unknown),
    ] {
        let folder = scratch.join(folder);
        fs::create_dir(&folder)?;
        make::make(&folder, keys.clone()).await?;
        let others = objects_of(&folder)?;
        for (key, bytes) in &others {
            let ours = objects.keys().filter(|ours| kind(ours) == kind(key));
            made.extend(ours.map(|ours| Made {
                what,
                may: if kind(key) == "beat" { May::Beat } else { May::Notice },
                writes: vec![(ours.clone(), Some(bytes.clone()))],
            }));
        }
    }
    Ok(made)
}

/// With the pair key: each record but the newest replaced by another that is valid at its place (F27).
pub(super) async fn forks(
    scratch: &Path,
    keys: &Arc<Keys>,
    objects: &Objects,
    head: u64,
) -> Result<Vec<Made>> {
    let mut made = vec![];
    for slot in 1..head {
        let folder = scratch.join(format!("fork-{slot}"));
        let forked = fork(&folder, keys, objects, slot).await?;
        let what = "record: another that is valid there";
        let writes = vec![(journal_key(slot), Some(forked))];
        made.push(Made { what, may: May::Notice, writes });
    }
    Ok(made)
}

/// What a third hub writes into the slot when the journal ends before it.
pub(super) async fn fork(
    folder: &Path,
    keys: &Arc<Keys>,
    objects: &Objects,
    slot: u64,
) -> Result<Vec<u8>> {
    write_all(folder, objects)?;
    let newest = (slot..).map(|slot| folder.join(journal_key(slot)));
    newest.take_while(|path| path.exists()).try_for_each(fs::remove_file)?;
    let storage = make::storage(folder).await?;
    let opened = Journal::open(storage, keys.clone(), None).await?;
    let mut journal = opened.ok_or("there is no repository")?;
    let epoch = journal.refresh().await?.epoch + 1;
    let term = Body::Term { request: "fork".to_owned(), skips: vec![] };
    let (epoch, body) = if slot == 1 { (0, Body::Init) } else { (epoch, term) };
    let writer = Writer { hub: make::hub("eu-3"), epoch, incarnation: 0 };
    assert_eq!(journal.append(&writer, body, |_| Ok(())).await?, slot);
    Ok(fs::read(folder.join(journal_key(slot)))?)
}
