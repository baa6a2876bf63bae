//! Pure: the plan and the outcome of a one-off restore, as tables and as JSON.

use super::render::{Align, Column, Output, envelope, pretty, table};
use crate::object::ObjectKey;
use crate::restore::once::saved::Saved;
use crate::restore::once::steps::{Act, Step};
use crate::restore::{ItemError, Report};
use crate::status::words::count;
use serde_json::json;
use std::collections::BTreeMap;

const STEPS: [Column; 6] = [
    ("DO", Align::Left),
    ("SET", Align::Left),
    ("KIND", Align::Left),
    ("NAMESPACE", Align::Left),
    ("NAME", Align::Left),
    ("WHY", Align::Left),
];

const FAILED: [Column; 4] = [
    ("FAILED", Align::Left),
    ("NAMESPACE", Align::Left),
    ("NAME", Align::Left),
    ("REASON", Align::Left),
];

/// What is the same already is only counted.
pub(super) fn plan(
    saved: &Saved,
    steps: &[Step],
    output: Output,
) -> Result<String, serde_json::Error> {
    if output == Output::Json {
        return pretty(saved);
    }
    let told = steps.iter().filter(|step| step.act != Act::Unchanged);
    let mut counts = BTreeMap::<Act, u64>::new();
    for step in steps {
        *counts.entry(step.act).or_default() += 1;
    }
    let counts = counts.iter().map(|(act, n)| format!("{} {}", act.name(), count(*n)));
    let counts = counts.collect::<Vec<_>>().join(", ");
    let (backup, hub) = (&saved.backup.id, &saved.hub.name);
    let mut text = format!("From {backup} onto {hub}: {counts}\n");
    let rows: Vec<_> = told.map(row).collect();
    if !rows.is_empty() {
        text.push_str(&table(&STEPS, rows));
    }
    Ok(text)
}

fn row(step: &Step) -> Vec<String> {
    let Step { act, key, from, set, digest: _, live: _, why } = step;
    let why = if from == key { why.clone() } else { format!("{why} (from {from})") };
    vec![
        act.name().to_owned(),
        set.to_string(),
        key.group_resource().to_string(),
        key.namespace().to_owned(),
        key.name().to_owned(),
        why,
    ]
}

/// `failed`: by key, and so by kind. `untried`: what a rehearsal could not ask.
pub(super) struct Outcome<'a> {
    pub(super) report: &'a Report,
    pub(super) failed: Vec<&'a ItemError>,
    pub(super) untried: Vec<ObjectKey>,
    pub(super) rehearsal: bool,
}

impl Outcome<'_> {
    /// `2 configmaps, 1 secrets`
    pub(super) fn failed_by_kind(&self) -> String {
        let mut kinds = BTreeMap::<String, usize>::new();
        for item in &self.failed {
            *kinds.entry(item.key.group_resource().to_string()).or_default() += 1;
        }
        let kinds = kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
        kinds.collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn outcome(outcome: &Outcome<'_>, output: Output) -> Result<String, serde_json::Error> {
    let Outcome { report, failed, untried, rehearsal } = outcome;
    if output == Output::Json {
        let mut counts = BTreeMap::<&str, usize>::new();
        for ((_, done), count) in &report.counts {
            *counts.entry(done.name()).or_default() += count;
        }
        let item = |key: &ObjectKey| {
            json!({
                "group": key.group(), "resource": key.resource(),
                "namespace": key.namespace(), "name": key.name(),
            })
        };
        let failed = failed.iter().map(|error| {
            let mut item = item(&error.key);
            item["reason"] = json!(error.reason);
            item
        });
        let untried: Vec<_> = untried.iter().map(item).collect();
        return envelope(
            "RestoreReport",
            json!({
                "dryRun": rehearsal, "counts": counts, "failed": failed.collect::<Vec<_>>(),
                "untried": untried, "stopped": report.stopped,
            }),
        );
    }
    let mut text = format!("{}{report}\n", if *rehearsal { "dry run: " } else { "" });
    if !failed.is_empty() {
        let rows = failed.iter().map(|ItemError { key, reason }| {
            let kind = key.group_resource().to_string();
            vec![kind, key.namespace().to_owned(), key.name().to_owned(), reason.clone()]
        });
        text.push_str(&table(&FAILED, rows));
    }
    for key in untried {
        let line = format!("not tried: {key}, its namespace or kind is only made by the restore\n");
        text.push_str(&line);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Digest, Set};
    use crate::repository::layout::Mark;
    use crate::restore::Done;
    use crate::restore::once::saved::{Backup, Hub};
    use crate::restore::once::steps::Existing;

    const POLICY: &str = "policy.open-cluster-management.io";

    fn key(group: &str, resource: &str, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(group, resource, namespace, name).unwrap()
    }

    fn steps() -> Vec<Step> {
        let step = |act, key: ObjectKey, from: Option<ObjectKey>, why: &str| Step {
            act,
            from: from.unwrap_or_else(|| key.clone()),
            key,
            set: Set::Resources,
            digest: Digest::of(b"x"),
            live: None,
            why: why.to_owned(),
        };
        let policy = |namespace, name| key(POLICY, "policies", namespace, name);
        vec![
            step(
                Act::Create,
                policy("b", "limits"),
                Some(policy("a", "limits")),
                "not on this hub yet",
            ),
            step(
                Act::Keep,
                key("", "configmaps", "b", "site"),
                None,
                "exists and differs: data.colour",
            ),
            step(
                Act::Refuse,
                key("", "nodes", "", "n1"),
                None,
                "objects of this kind belong to the hub that made them",
            ),
            step(Act::Unchanged, key("", "configmaps", "b", "same"), None, "as in the backup"),
        ]
    }

    fn saved(steps: &[Step]) -> Saved {
        let mark = Mark { slot: 42, sha256: Digest::of(b"record") };
        let backup = Backup { id: "20261120-173000-42".to_owned(), mark };
        let hub = Hub { name: "eu-1".to_owned(), uid: "uid-1".to_owned() };
        Saved::new(backup, hub, Existing::Keep, false, steps)
    }

    #[test]
    fn a_plan_tells_each_object_with_its_reason() {
        let steps = steps();
        assert_eq!(
            plan(&saved(&steps), &steps, Output::Table).unwrap(),
            "\
From 20261120-173000-42 onto eu-1: create 1, keep 1, refuse 1, unchanged 1
DO      SET        KIND                                        NAMESPACE  NAME    WHY
create  resources  policies.policy.open-cluster-management.io  b          limits  not on this hub yet (from policies.policy.open-cluster-management.io a/limits)
keep    resources  configmaps                                  b          site    exists and differs: data.colour
refuse  resources  nodes                                                  n1      objects of this kind belong to the hub that made them
"
        );
        let same = &steps[3..];
        assert_eq!(
            plan(&saved(same), same, Output::Table).unwrap(),
            "From 20261120-173000-42 onto eu-1: unchanged 1\n"
        );
    }

    #[test]
    fn the_outcome_names_what_failed_by_kind() {
        let mut report = Report::default();
        report.counts.insert((Some(Set::Resources), Done::Created), 3);
        report.counts.insert((Some(Set::Resources), Done::Failed), 2);
        let error = |resource: &str, name: &str| ItemError {
            key: key("", resource, "ns", name),
            reason: "forbidden".to_owned(),
        };
        let failed = [error("configmaps", "a"), error("secrets", "b")];
        let mut done = Outcome {
            report: &report,
            failed: failed.iter().collect(),
            untried: vec![],
            rehearsal: false,
        };
        assert_eq!(
            outcome(&done, Output::Table).unwrap(),
            "\
created 3, failed 2
FAILED      NAMESPACE  NAME  REASON
configmaps  ns         a     forbidden
secrets     ns         b     forbidden
"
        );
        assert_eq!(done.failed_by_kind(), "1 configmaps, 1 secrets");
        (done.failed, done.rehearsal) = (vec![], true);
        done.untried.push(key("", "secrets", "new", "c"));
        assert_eq!(
            outcome(&done, Output::Table).unwrap(),
            "dry run: created 3, failed 2\nnot tried: secrets new/c, its namespace or kind is only made by the restore\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&outcome(&done, Output::Json).unwrap()).unwrap();
        assert_eq!(
            (&json["kind"], &json["counts"]["created"]),
            (&"RestoreReport".into(), &3.into())
        );
        assert_eq!((&json["dryRun"], &json["untried"][0]["name"]), (&true.into(), &"c".into()));
    }
}
