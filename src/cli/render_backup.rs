//! Pure: what a commit says about its backup, and what became of verifying some.

use super::render::{Align, Column, Output, envelope, plain, table};
use crate::object::{GroupResource, Set};
use crate::repository::chain::Backup;
use crate::repository::layout::{journal_key, pack_key};
use crate::repository::record::{Body, Commit, Record, SetContents};
use crate::repository::verify::Fault;
use crate::status::words::{age_of, bytes, count, full, plural};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write as _;

const NOT_APPLIED: &str = "standbys apply it after: understudy backup ack";

/// `record` is the one of `backup`, which is not suspect any more once it is acknowledged.
pub fn description(
    record: &Record,
    backup: &Backup,
    output: Output,
    now: Timestamp,
) -> Result<String, serde_json::Error> {
    match output {
        Output::Table => Ok(description_text(record, backup, now)),
        Output::Json => envelope("Backup", description_json(record, backup)),
    }
}

fn description_json(record: &Record, backup: &Backup) -> Value {
    let commit = &backup.commit;
    let set = |contents: &SetContents| {
        let mut value = json!(contents);
        value["bytes"] = sealed(contents).into();
        value
    };
    let sets: serde_json::Map<String, Value> =
        commit.sets.iter().map(|(name, contents)| (name.to_string(), set(contents))).collect();
    json!({
        "id": backup.id(), "slot": backup.mark.slot, "digest": backup.mark.sha256, "at": backup.at,
        "hub": backup.hub, "epoch": backup.epoch, "incarnation": record.incarnation,
        "writer": record.writer, "key": record.key, "repository": record.repository,
        "cut": commit.cut, "rules": commit.rules, "sets": sets,
        "suspect": commit.suspect, "acknowledged": acknowledged(record, backup),
        "partial": commit.partial.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn description_text(record: &Record, backup: &Backup, now: Timestamp) -> String {
    let commit = &backup.commit;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12}{}", plain(value));
    };
    line("backup", &backup.id());
    line("taken", &format!("{} ({} ago)", full(backup.at), age_of(backup.at, now)));
    let hub = &backup.hub;
    line("written by", &format!("hub {} ({}), understudy {}", hub.name, hub.uid, record.writer));
    line("term", &format!("epoch {}, incarnation {}", backup.epoch, record.incarnation));
    line("record", &format!("{}, sha256 {}", journal_key(backup.mark.slot), backup.mark.sha256));
    line("key", &record.key);
    let kinds = |kinds: &[GroupResource]| {
        kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let cut = &commit.cut;
    let apart = match &*cut.apart {
        [] => "all kinds at one revision".to_owned(),
        apart => format!("apart from it, as they have a store of their own: {}", kinds(apart)),
    };
    line("cut", &format!("revision {}, {apart}", cut.revision));
    match (&commit.suspect, acknowledged(record, backup)) {
        (Some(why), _) => line("suspect", &format!("{why}; {NOT_APPLIED} {}", backup.id())),
        (None, Some(why)) => line("suspect", &format!("no more, it was acknowledged: {why}")),
        (None, None) => line("suspect", "no"),
    }
    match &*commit.partial {
        [] => line("partial", "no"),
        partial => line(
            "partial",
            &format!("carried over from their last complete listing: {}", kinds(partial)),
        ),
    }
    let objects = commit.sets.values().map(|set| set.objects).sum();
    let size = commit.sets.values().map(sealed).sum();
    let all = plural(commit.packs().count(), "pack", "packs");
    line("holds", &format!("{} objects, {} in {all}", count(objects), bytes(size)));
    format!("{text}\n{}\n{}\n{}", sets_table(backup), kinds_table(backup), packs_table(backup))
}

/// Why the backup was suspect, if it is not any more.
fn acknowledged<'a>(record: &'a Record, backup: &Backup) -> Option<&'a str> {
    let Body::Commit(Commit { suspect, .. }) = &record.body else { return None };
    suspect.as_deref().filter(|_| backup.commit.suspect.is_none())
}

fn sets_table(backup: &Backup) -> String {
    const SETS: [Column; 6] = [
        ("SET", Align::Left),
        ("OBJECTS", Align::Right),
        ("CHANGED", Align::Right),
        ("LEVELS", Align::Right),
        ("PACKS", Align::Right),
        ("SIZE", Align::Right),
    ];
    let row = |(set, contents): (&Set, &SetContents)| {
        vec![
            set.to_string(),
            count(contents.objects),
            count(contents.changed),
            count(contents.levels.len() as u64),
            count(contents.levels.iter().map(|level| level.packs.len() as u64).sum()),
            bytes(sealed(contents)),
        ]
    };
    table(&SETS, backup.commit.sets.iter().map(row))
}

fn kinds_table(backup: &Backup) -> String {
    const KINDS: [Column; 3] =
        [("SET", Align::Left), ("KIND", Align::Left), ("OBJECTS", Align::Right)];
    let rows = backup.commit.sets.iter().flat_map(|(set, contents)| {
        contents
            .kinds
            .iter()
            .map(|(kind, objects)| vec![set.to_string(), kind.clone(), count(*objects)])
    });
    table(&KINDS, rows)
}

fn packs_table(backup: &Backup) -> String {
    const PACKS: [Column; 5] = [
        ("SET", Align::Left),
        ("LEVEL", Align::Right),
        ("PACK", Align::Left),
        ("LINES", Align::Right),
        ("SIZE", Align::Right),
    ];
    let rows = backup.commit.sets.iter().flat_map(|(set, contents)| {
        contents.levels.iter().enumerate().flat_map(move |(level, packs)| {
            packs.packs.iter().map(move |pack| {
                let (key, lines) = (pack_key(&pack.name), count(pack.lines));
                vec![set.to_string(), level.to_string(), key, lines, bytes(pack.length)]
            })
        })
    });
    table(&PACKS, rows)
}

fn sealed(contents: &SetContents) -> u64 {
    contents.levels.iter().flat_map(|level| &level.packs).map(|pack| pack.length).sum()
}

/// One backup that was read as a whole.
#[derive(Clone, Debug)]
pub struct Verified {
    pub id: String,
    pub slot: u64,
    pub objects: u64,
    pub packs: usize,
    /// Those of its packs that were read.
    pub read: usize,
    pub bytes: u64,
    pub faults: Vec<Fault>,
}

impl Verified {
    pub fn of(backup: &Backup, read: usize, faults: Vec<Fault>) -> Self {
        let sets = || backup.commit.sets.values();
        Self {
            id: backup.id(),
            slot: backup.mark.slot,
            objects: sets().map(|set| set.objects).sum(),
            packs: backup.commit.packs().count(),
            read,
            bytes: sets().map(sealed).sum(),
            faults,
        }
    }
}

/// Newest first, as given.
pub fn verified(items: &[Verified], output: Output) -> Result<String, serde_json::Error> {
    match output {
        Output::Table if items.is_empty() => Ok("No backups.\n".to_owned()),
        Output::Table => Ok(verified_text(items)),
        Output::Json => {
            let fault = |fault: &Fault| json!({"object": fault.object, "why": fault.why, "missingKey": fault.missing_key});
            let item = |one: &Verified| {
                json!({
                    "backup": one.id, "slot": one.slot, "objects": one.objects, "packs": one.packs,
                    "packsRead": one.read, "bytes": one.bytes, "sound": one.faults.is_empty(),
                    "faults": one.faults.iter().map(fault).collect::<Vec<_>>(),
                })
            };
            let sound = items.iter().all(|one| one.faults.is_empty());
            let items: Vec<_> = items.iter().map(item).collect();
            envelope("VerifyReport", json!({"sound": sound, "items": items}))
        }
    }
}

fn verified_text(items: &[Verified]) -> String {
    const BACKUPS: [Column; 5] = [
        ("BACKUP", Align::Left),
        ("OBJECTS", Align::Right),
        ("PACKS", Align::Right),
        ("SIZE", Align::Right),
        ("RESULT", Align::Left),
    ];
    const FAULTS: [Column; 2] = [("FAULTY", Align::Left), ("WHY", Align::Left)];
    let row = |one: &Verified| {
        let result = match &*one.faults {
            [] if one.read == one.packs => "ok".to_owned(),
            [] => format!("ok as far as read: {} of {} packs", one.read, one.packs),
            faults => {
                let no_key = faults.iter().all(|fault| fault.missing_key);
                let word = if no_key { "NO KEY opens" } else { "DAMAGED:" };
                match faults {
                    [fault] => format!("{word} {}", fault.object),
                    faults => format!("{word} {} objects", faults.len()),
                }
            }
        };
        let (objects, packs) = (count(one.objects), count(one.packs as u64));
        vec![one.id.clone(), objects, packs, bytes(one.bytes), result]
    };
    let mut text = table(&BACKUPS, items.iter().map(row));
    let mut faults: Vec<_> = items.iter().flat_map(|one| &one.faults).collect();
    faults.sort_by(|a, b| a.object.cmp(&b.object));
    faults.dedup();
    if !faults.is_empty() {
        let row = |fault: &Fault| vec![fault.object.clone(), fault.why.clone()];
        text.push('\n');
        text.push_str(&table(&FAULTS, faults.into_iter().map(row)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Digest;
    use crate::repository::layout::{Mark, PackName};
    use crate::repository::record::{Body, Commit, Cut, HubId, Level, PackRef};
    use crate::status::samples::{ago, now};

    fn pack(number: u128, lines: u64) -> PackRef {
        let name = PackName::new(7, 12, ulid::Ulid::from(number));
        PackRef { name, length: lines * 1024, sha256: Digest([7; 32]), lines }
    }

    fn sample(suspect: Option<&str>, partial: &[&str]) -> (Record, Backup) {
        let kind =
            |resource: &str| GroupResource { group: "apps".into(), resource: resource.into() };
        let resources = SetContents {
            levels: vec![
                Level { packs: vec![pack(1, 2000), pack(2, 500)] },
                Level { packs: vec![pack(3, 3)] },
            ],
            objects: 2501,
            changed: 3,
            kinds: [("configmaps".to_owned(), 2000), ("deployments.apps".to_owned(), 501)].into(),
        };
        let commit = Commit {
            sets: [(Set::Credentials, SetContents::default()), (Set::Resources, resources)].into(),
            cut: Cut { revision: "123456".to_owned(), apart: vec![] },
            rules: Digest([1; 32]),
            suspect: suspect.map(str::to_owned),
            partial: partial.iter().map(|name| kind(name)).collect(),
        };
        let record = Record {
            repository: "r".to_owned(),
            slot: 42,
            epoch: 7,
            incarnation: 12,
            hub: HubId { name: "eu-1".to_owned(), uid: "uid-1".to_owned() },
            nonce: "n".to_owned(),
            prev: None,
            key: "28c7cfea947afbe5".to_owned(),
            writer: "0.1.0".to_owned(),
            at: ago(432),
            requires: vec![],
            body: Body::Commit(commit.clone()),
        };
        let backup = Backup::of(&record, &commit, Mark { slot: 42, sha256: Digest([0xab; 32]) });
        (record, backup)
    }

    #[test]
    fn a_backup_is_described_by_its_commit() {
        let (record, backup) = sample(None, &[]);
        let digest = "ab".repeat(32);
        assert_eq!(
            description(&record, &backup, Output::Table, now()).unwrap(),
            format!(
                "\
backup      20261120-173000-42
taken       2026-11-20 17:30:00Z (7m ago)
written by  hub eu-1 (uid-1), understudy 0.1.0
term        epoch 7, incarnation 12
record      journal/00000000000000000042, sha256 {digest}
key         28c7cfea947afbe5
cut         revision 123456, all kinds at one revision
suspect     no
partial     no
holds       2,501 objects, 2.4 MiB in 3 packs

SET          OBJECTS  CHANGED  LEVELS  PACKS     SIZE
credentials        0        0       0      0      0 B
resources      2,501        3       2      3  2.4 MiB

SET        KIND              OBJECTS
resources  configmaps          2,000
resources  deployments.apps      501

SET        LEVEL  PACK                                   LINES       SIZE
resources      0  packs/7-12-00000000000000000000000001  2,000    2.0 MiB
resources      0  packs/7-12-00000000000000000000000002    500  500.0 KiB
resources      1  packs/7-12-00000000000000000000000003      3    3.0 KiB
"
            )
        );
        let json = description(&record, &backup, Output::Json, now()).unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&value["kind"], &value["id"]),
            (&"Backup".into(), &"20261120-173000-42".into())
        );
        assert_eq!(value["sets"]["resources"]["kinds"]["deployments.apps"], 501);
        assert_eq!(value["sets"]["resources"]["bytes"], 2503 * 1024);
        assert_eq!(value["sets"]["resources"]["levels"][1]["packs"][0]["lines"], 3);
        assert_eq!((&value["cut"]["revision"], &value["epoch"]), (&"123456".into(), &7.into()));
        assert_eq!(value["hub"]["name"], "eu-1");
    }

    #[test]
    fn what_is_not_in_order_is_told_with_its_reason() {
        let (record, mut backup) = sample(Some("resources shrank by 40 %"), &["deployments", "*"]);
        backup.commit.cut.apart =
            vec![GroupResource { group: String::new(), resource: "events".into() }];
        let text = description(&record, &backup, Output::Table, now()).unwrap();
        for line in [
            "cut         revision 123456, apart from it, as they have a store of their own: events",
            "suspect     resources shrank by 40 %; standbys apply it after: understudy backup ack 20261120-173000-42",
            "partial     carried over from their last complete listing: deployments.apps, *.apps",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
        backup.commit.suspect = None;
        let text = description(&record, &backup, Output::Table, now()).unwrap();
        let line = "suspect     no more, it was acknowledged: resources shrank by 40 %";
        assert!(text.lines().any(|there| there == line), "{text}");
    }

    #[test]
    fn a_verdict_names_every_damaged_object_once() {
        let (_, backup) = sample(None, &[]);
        let fault = |object: &str, why: &str, missing_key| Fault {
            object: object.to_owned(),
            why: why.to_owned(),
            missing_key,
        };
        let gone = fault("packs/b", "it is not in the storage", false);
        let flipped = fault("packs/a", "its SHA-256 is not the one that the commit names", false);
        let items = [
            Verified::of(&backup, 3, vec![]),
            Verified::of(&backup, 3, vec![gone.clone(), flipped]),
            Verified::of(&backup, 3, vec![gone]),
            Verified::of(&backup, 3, vec![fault("packs/c", "no key", true)]),
            Verified::of(&backup, 1, vec![]),
        ];
        assert_eq!(
            verified(&items, Output::Table).unwrap(),
            "\
BACKUP              OBJECTS  PACKS     SIZE  RESULT
20261120-173000-42    2,501      3  2.4 MiB  ok
20261120-173000-42    2,501      3  2.4 MiB  DAMAGED: 2 objects
20261120-173000-42    2,501      3  2.4 MiB  DAMAGED: packs/b
20261120-173000-42    2,501      3  2.4 MiB  NO KEY opens packs/c
20261120-173000-42    2,501      3  2.4 MiB  ok as far as read: 1 of 3 packs

FAULTY   WHY
packs/a  its SHA-256 is not the one that the commit names
packs/b  it is not in the storage
packs/c  no key
"
        );
        let value = |items| -> Value {
            serde_json::from_str(&verified(items, Output::Json).unwrap()).unwrap()
        };
        let report = value(&items);
        assert_eq!((&report["kind"], &report["sound"]), (&"VerifyReport".into(), &false.into()));
        assert_eq!(report["items"][1]["faults"][1]["object"], "packs/a");
        assert_eq!(value(&items[..1])["sound"], true);
        assert_eq!(verified(&[], Output::Table).unwrap(), "No backups.\n");
    }
}
