//! Pure: what differs between two backups, or a backup and a hub, as a table and as JSON.
//!
//! No value is ever shown. Of a Secret not even the fields that differ are named unless asked for,
//! only its digests.

use super::render::{Align, Column, Output, envelope, table};
use crate::differ::{Change, Difference};
use crate::object::{Digest, ObjectKey};
use crate::status::words::count;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) struct Compared {
    pub(super) before: String,
    pub(super) after: String,
    /// By key.
    pub(super) differences: Vec<Difference>,
}

impl Compared {
    pub(super) fn without_paths_of_secrets(mut self) -> Self {
        let secrets = self.differences.iter_mut().filter(|found| is_secret(&found.key));
        secrets.for_each(|found| found.paths = crate::differ::Paths::default());
        self
    }

    fn counts(&self) -> BTreeMap<String, [usize; 3]> {
        let mut counts = BTreeMap::<String, [usize; 3]>::new();
        for found in &self.differences {
            let row = counts.entry(found.key.group_resource().to_string()).or_default();
            row[found.change as usize] += 1;
        }
        counts
    }
}

fn is_secret(key: &ObjectKey) -> bool {
    key.group().is_empty() && key.resource() == "secrets"
}

const COLUMNS: [Column; 6] = [
    ("CHANGE", Align::Left),
    ("SET", Align::Left),
    ("KIND", Align::Left),
    ("NAMESPACE", Align::Left),
    ("NAME", Align::Left),
    ("WHAT", Align::Left),
];

const SUMMARY: [Column; 4] = [
    ("KIND", Align::Left),
    ("ADDED", Align::Right),
    ("REMOVED", Align::Right),
    ("CHANGED", Align::Right),
];

pub(super) fn diff(
    compared: &Compared,
    summary: bool,
    output: Output,
) -> Result<String, serde_json::Error> {
    let Compared { before, after, differences } = compared;
    if output == Output::Json {
        let items: Vec<Value> =
            if summary { vec![] } else { differences.iter().map(item).collect() };
        let kinds: BTreeMap<_, _> = compared
            .counts()
            .into_iter()
            .map(|(kind, [added, removed, changed])| {
                (kind, json!({ "added": added, "removed": removed, "changed": changed }))
            })
            .collect();
        let mut body =
            json!({ "before": before, "after": after, "total": differences.len(), "kinds": kinds });
        if !summary {
            body["items"] = items.into();
        }
        return envelope("BackupDiff", body);
    }
    if differences.is_empty() {
        return Ok(format!("No differences between {before} and {after}.\n"));
    }
    let rows = differences.iter().map(row);
    let counts = compared.counts();
    let sums = counts.iter().map(|(kind, counts)| {
        std::iter::once(kind.clone()).chain(counts.map(|n| count(n as u64))).collect()
    });
    let table = if summary { table(&SUMMARY, sums) } else { table(&COLUMNS, rows) };
    Ok(format!("From {before} to {after}:\n{table}"))
}

fn row(found: &Difference) -> Vec<String> {
    vec![
        found.change.name().to_owned(),
        found.set.to_string(),
        found.key.group_resource().to_string(),
        found.key.namespace().to_owned(),
        found.key.name().to_owned(),
        what(found),
    ]
}

fn what(found: &Difference) -> String {
    let moved = found.moved_from.map(|set| format!("was in the set {set}"));
    let content = match (found.change, found.before, found.after) {
        (Change::Changed, Some(before), Some(after)) if before != after => {
            if found.paths.is_empty() {
                Some(format!("{} → {}", before.short(), after.short()))
            } else {
                Some(found.paths.to_string())
            }
        }
        _ => None,
    };
    moved.into_iter().chain(content).collect::<Vec<_>>().join("; ")
}

fn item(found: &Difference) -> Value {
    let Difference { key, change, set, moved_from, before, after, paths } = found;
    let short = |digest: &Option<Digest>| digest.as_ref().map(Digest::short);
    let mut item = json!({
        "change": change.name(),
        "set": set,
        "group": key.group(),
        "resource": key.resource(),
        "namespace": key.namespace(),
        "name": key.name(),
        "before": short(before),
        "after": short(after),
    });
    if let Some(set) = moved_from {
        item["movedFrom"] = json!(set);
    }
    if !paths.is_empty() {
        item["paths"] = json!(paths.named);
        item["morePaths"] = json!(paths.more);
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differ::Paths;
    use crate::object::Set;

    fn found(
        change: Change,
        group: &str,
        resource: &str,
        name: &str,
        paths: &[&str],
    ) -> Difference {
        let digest = |there: bool, text: &str| there.then(|| Digest::of(text.as_bytes()));
        Difference {
            key: ObjectKey::new(group, resource, "team-a", name).unwrap(),
            change,
            set: Set::Resources,
            moved_from: None,
            before: digest(change != Change::Added, "a"),
            after: digest(change != Change::Removed, "b"),
            paths: Paths { named: paths.iter().map(|path| (*path).to_owned()).collect(), more: 0 },
        }
    }

    fn compared() -> Compared {
        let policy = "policy.open-cluster-management.io";
        let mut moved = found(Change::Changed, "", "configmaps", "moved", &[]);
        (moved.before, moved.moved_from) = (moved.after, Some(Set::Credentials));
        let differences = vec![
            moved,
            found(Change::Changed, "", "secrets", "login", &["data.password"]),
            found(Change::Removed, policy, "policies", "gone", &[]),
            found(Change::Changed, policy, "policies", "limits", &["spec.disabled"]),
        ];
        Compared { before: "20261120-173000-42".into(), after: "this hub".into(), differences }
    }

    #[test]
    fn a_difference_is_a_row_and_a_secret_shows_digests_only() {
        let text = diff(&compared().without_paths_of_secrets(), false, Output::Table).unwrap();
        assert_eq!(
            text,
            "\
From 20261120-173000-42 to this hub:
CHANGE   SET        KIND                                        NAMESPACE  NAME    WHAT
changed  resources  configmaps                                  team-a     moved   was in the set credentials
changed  resources  secrets                                     team-a     login   ca978112ca1bbdca → 3e23e8160039594a
removed  resources  policies.policy.open-cluster-management.io  team-a     gone
changed  resources  policies.policy.open-cluster-management.io  team-a     limits  spec.disabled
"
        );
        let asked = diff(&compared(), false, Output::Table).unwrap();
        assert!(asked.contains("data.password"), "{asked}");
    }

    #[test]
    fn a_summary_counts_by_kind() {
        let text = diff(&compared(), true, Output::Table).unwrap();
        assert_eq!(
            text,
            "\
From 20261120-173000-42 to this hub:
KIND                                        ADDED  REMOVED  CHANGED
configmaps                                      0        0        1
policies.policy.open-cluster-management.io      0        1        1
secrets                                         0        0        1
"
        );
    }

    #[test]
    fn json_names_every_difference_and_counts_them() {
        let compared = compared().without_paths_of_secrets();
        let json = |summary| -> Value {
            serde_json::from_str(&diff(&compared, summary, Output::Json).unwrap()).unwrap()
        };
        let value = json(false);
        assert_eq!((&value["kind"], &value["total"]), (&"BackupDiff".into(), &4.into()));
        assert_eq!(value["items"][0]["movedFrom"], "credentials");
        assert_eq!(value["items"][1]["paths"], Value::Null);
        assert_eq!(value["items"][2]["after"], Value::Null);
        assert_eq!(value["items"][3]["paths"], json!(["spec.disabled"]));
        assert_eq!(value["kinds"]["secrets"], json!({"added": 0, "removed": 0, "changed": 1}));
        assert_eq!(json(true)["items"], Value::Null);
    }
}
