//! Pure: what the storage holds and whether it is fit, as tables and as JSON.

use super::render::{Align, Column, Output, envelope, plain, table};
use crate::object::Set;
use crate::repository::layout::{BEATS, JOURNAL, PACKS, REPO};
use crate::repository::storage::Entry;
use crate::status::words::{age_of, bytes, count, full};
use crate::status::{BackupSummary, Check};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

pub fn keys(entries: &[Entry], output: Output) -> Result<String, serde_json::Error> {
    const COLUMNS: [Column; 3] =
        [("SIZE", Align::Right), ("MODIFIED", Align::Left), ("KEY", Align::Left)];
    match output {
        Output::Table => {
            let row = |e: &Entry| vec![count(e.size), full(e.modified), e.key.clone()];
            Ok(table(&COLUMNS, entries.iter().map(row)))
        }
        Output::Json => {
            let item = |e: &Entry| json!({"key": e.key, "bytes": e.size, "modified": e.modified});
            let items: Vec<_> = entries.iter().map(item).collect();
            envelope("StorageList", json!({ "items": items }))
        }
    }
}

/// So many objects of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Room {
    pub count: u64,
    pub bytes: u64,
}

impl Room {
    fn add(&mut self, entry: &Entry) {
        self.count += 1;
        self.bytes += entry.size;
    }
}

/// The backups that are known.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub backups: usize,
    pub newest: Option<BackupSummary>,
    pub oldest: Option<BackupSummary>,
    /// There are no older ones.
    #[serde(rename = "allKnown")]
    pub all: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub repo: Room,
    pub journal: Room,
    /// Packs that a backup names, each once.
    pub packs: BTreeMap<Set, Room>,
    /// Packs that none of the known backups names.
    pub packs_unreferenced: Room,
    /// Packs that a backup names and the listing does not show.
    pub packs_missing: usize,
    pub beats: Room,
    /// Probes that were not removed, and what is not ours.
    pub other: Room,
    pub total: Room,
    #[serde(flatten)]
    pub kept: Kept,
}

impl Usage {
    /// `named`: the keys of all packs that backups name.
    pub fn of(entries: &[Entry], named: &HashMap<String, Set>, kept: Kept) -> Self {
        let mut usage = Self {
            repo: Room::default(),
            journal: Room::default(),
            packs: Set::ALL.map(|set| (set, Room::default())).into(),
            packs_unreferenced: Room::default(),
            packs_missing: named.len(),
            beats: Room::default(),
            other: Room::default(),
            total: Room::default(),
            kept,
        };
        for entry in entries {
            usage.total.add(entry);
            let room = if let Some(set) = named.get(&entry.key) {
                usage.packs_missing -= 1;
                usage.packs.entry(*set).or_default()
            } else if entry.key.starts_with(PACKS) {
                &mut usage.packs_unreferenced
            } else if entry.key.starts_with(JOURNAL) {
                &mut usage.journal
            } else if entry.key.starts_with(BEATS) {
                &mut usage.beats
            } else if entry.key == REPO {
                &mut usage.repo
            } else {
                &mut usage.other
            };
            room.add(entry);
        }
        usage
    }
}

pub fn usage(
    location: &str,
    usage: &Usage,
    output: Output,
    now: Timestamp,
) -> Result<String, serde_json::Error> {
    match output {
        Output::Table => Ok(usage_text(location, usage, now)),
        Output::Json => {
            let mut body = serde_json::to_value(usage)?;
            body["location"] = location.into();
            envelope("StorageUsage", body)
        }
    }
}

fn usage_text(location: &str, usage: &Usage, now: Timestamp) -> String {
    const COLUMNS: [Column; 3] =
        [("WHAT", Align::Left), ("OBJECTS", Align::Right), ("SIZE", Align::Right)];
    let Usage {
        repo,
        journal,
        packs,
        packs_unreferenced,
        packs_missing,
        beats,
        other,
        total,
        kept,
    } = usage;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10}{}", plain(value));
    };
    line("storage", location);
    let shown = |backup: &Option<BackupSummary>| {
        backup.as_ref().map_or_else(
            || "none".to_owned(),
            |backup| format!("{} ({} ago)", backup.id, age_of(backup.at, now)),
        )
    };
    line("newest", &shown(&kept.newest));
    line("oldest", &shown(&kept.oldest));
    let older = if kept.all { "" } else { ", and older ones" };
    line("backups", &format!("{}{older}", count(kept.backups as u64)));
    if *packs_missing > 0 {
        let missing = count(*packs_missing as u64);
        line(
            "MISSING",
            &format!("{missing} packs that backups name: run understudy backup verify --all"),
        );
    }
    let row = |what: &str, room: &Room| vec![what.to_owned(), count(room.count), bytes(room.bytes)];
    let unnamed = if older.is_empty() {
        "packs that no backup names"
    } else {
        "packs that none of these backups names"
    };
    let mut rows = vec![row("repo", repo), row("journal", journal)];
    rows.extend(packs.iter().map(|(set, room)| row(&format!("packs of {set}"), room)));
    rows.push(row(unnamed, packs_unreferenced));
    rows.push(row("heartbeats", beats));
    rows.push(row("other", other));
    rows.push(row("total", total));
    format!("{text}\n{}", table(&COLUMNS, rows))
}

pub fn checks(
    location: &str,
    checks: &[Check],
    output: Output,
) -> Result<String, serde_json::Error> {
    match output {
        Output::Table => {
            let mut text = format!("storage {}\n\n", plain(location));
            for Check { name, reason: _, ok, why, hint } in checks {
                let mark = if *ok { '✔' } else { '✗' };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{mark} {name:<15}{}", plain(why));
                if let Some(hint) = hint {
                    let _ = writeln!(text, "  -> {}", plain(hint));
                }
            }
            Ok(text)
        }
        Output::Json => {
            let healthy = checks.iter().all(|check| check.ok);
            let body = json!({"location": location, "healthy": healthy, "checks": checks});
            envelope("StorageCheck", body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::chain::SUMMARIES;
    use crate::status::samples::{ago, backup, now};

    fn entries() -> Vec<Entry> {
        let entry = |key: &str, size| Entry { key: key.to_owned(), size, modified: ago(60) };
        vec![
            entry("beats/eu-1", 300),
            entry("journal/00000000000000000001", 500),
            entry("journal/00000000000000000002", 1500),
            entry("packs/1-2-a", 4096),
            entry("packs/1-2-b", 1024),
            entry("probes/x/1", 10),
            entry("repo", 200),
        ]
    }

    fn measured(backups: usize) -> Usage {
        let named = [
            ("packs/1-2-a".to_owned(), Set::Resources),
            ("packs/1-2-c".to_owned(), Set::Resources),
        ];
        let kept = Kept {
            backups,
            newest: Some(backup("20261120-173000-42", "eu-1", 7, 432)),
            oldest: Some(backup("20261101-000000-3", "eu-1", 7, 20 * 86_400)),
            all: backups < SUMMARIES,
        };
        Usage::of(&entries(), &named.into(), kept)
    }

    #[test]
    fn every_byte_is_counted_once_and_in_its_place() {
        assert_eq!(
            usage("s3://hub-dr/eu/", &measured(2), Output::Table, now()).unwrap(),
            "\
storage   s3://hub-dr/eu/
newest    20261120-173000-42 (7m ago)
oldest    20261101-000000-3 (20 days ago)
backups   2
MISSING   1 packs that backups name: run understudy backup verify --all

WHAT                        OBJECTS     SIZE
repo                              1    200 B
journal                           2  2.0 KiB
packs of credentials              0      0 B
packs of resources                1  4.0 KiB
packs of activation               0      0 B
packs that no backup names        1  1.0 KiB
heartbeats                        1    300 B
other                             1     10 B
total                             7  7.5 KiB
"
        );
        let json = usage("l", &measured(2), Output::Json, now()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["kind"], &value["location"]), (&"StorageUsage".into(), &"l".into()));
        assert_eq!(value["packs"]["resources"]["bytes"], 4096);
        assert_eq!(value["packsUnreferenced"], json!({"count": 1, "bytes": 1024}));
        assert_eq!((&value["packsMissing"], &value["backups"]), (&1.into(), &2.into()));
        assert_eq!(value["newest"]["id"], "20261120-173000-42");
        assert_eq!(value["total"]["bytes"], 7630);
    }

    #[test]
    fn with_older_backups_than_are_known_no_pack_is_called_unneeded() {
        let text = usage("l", &measured(SUMMARIES), Output::Table, now()).unwrap();
        assert!(text.contains("backups   1,000, and older ones"), "{text}");
        assert!(text.contains("packs that none of these backups names"), "{text}");
        assert!(!text.contains("packs that no backup names"), "{text}");
    }

    #[test]
    fn keys_are_listed_with_their_sizes() {
        let list = [
            Entry { key: "journal/00000000000000000001".to_owned(), size: 1500, modified: ago(60) },
            Entry { key: "repo".to_owned(), size: 200, modified: ago(60) },
        ];
        assert_eq!(
            keys(&list, Output::Table).unwrap(),
            "\x20SIZE  MODIFIED              KEY
1,500  2026-11-20 17:36:12Z  journal/00000000000000000001
  200  2026-11-20 17:36:12Z  repo
"
        );
        let value: serde_json::Value =
            serde_json::from_str(&keys(&list, Output::Json).unwrap()).unwrap();
        assert_eq!(
            (&value["kind"], &value["items"][0]["bytes"]),
            (&"StorageList".into(), &1500.into())
        );
    }

    #[test]
    fn each_check_has_its_mark_and_a_failed_one_its_remedy() {
        let check = |name: &str, ok, why: &str, hint: Option<&str>| Check {
            name: name.to_owned(),
            reason: String::new(),
            ok,
            why: why.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let list = [
            check("reachable", true, "answers within 38ms", None),
            check("atomic create", false, "16 of 16 won\u{1b}[31m", Some("use another storage")),
        ];
        assert_eq!(
            checks("s3://hub-dr/eu/", &list, Output::Table).unwrap(),
            "\
storage s3://hub-dr/eu/

✔ reachable      answers within 38ms
✗ atomic create  16 of 16 won [31m
  -> use another storage
"
        );
        let value: serde_json::Value =
            serde_json::from_str(&checks("l", &list, Output::Json).unwrap()).unwrap();
        assert_eq!((&value["kind"], &value["healthy"]), (&"StorageCheck".into(), &false.into()));
        assert_eq!(value["checks"][1]["hint"], "use another storage");
    }
}
