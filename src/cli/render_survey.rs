//! Pure: what a backup would hold, counted by set, kind and rule, or object by object.

use super::render::{Align, Column, Output, envelope, plain, table};
use crate::capture::select::{Candidate, Verdict};
use crate::capture::survey::Outcome;
use crate::http::API_VERSION;
use crate::object::{GroupResource, Kind, Set};
use crate::status::words::{count, plural};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Objects by set (None: left out), kind and rule.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(Place, GroupResource, String), u64>);

/// Most held back first, as the rules are asked; what is left out at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Activation,
    Credentials,
    Resources,
    Out,
}

/// A kind that a backup does not list, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Unlisted {
    pub(super) kind: GroupResource,
    pub(super) rule: String,
}

impl Place {
    fn set(self) -> Option<Set> {
        match self {
            Self::Activation => Some(Set::Activation),
            Self::Credentials => Some(Set::Credentials),
            Self::Resources => Some(Set::Resources),
            Self::Out => None,
        }
    }

    fn name(self) -> &'static str {
        self.set().map_or("left out", Set::name)
    }
}

fn place(verdict: &Verdict) -> (Place, &str) {
    match verdict {
        Verdict::In { set: Set::Activation, rule } => (Place::Activation, rule),
        Verdict::In { set: Set::Credentials, rule } => (Place::Credentials, rule),
        Verdict::In { set: Set::Resources, rule } => (Place::Resources, rule),
        Verdict::Out { rule } => (Place::Out, rule),
    }
}

impl Tally {
    pub(super) fn add(&mut self, kind: &Kind, verdict: &Verdict) {
        let (place, rule) = place(verdict);
        *self.0.entry((place, kind.group_resource(), rule.to_owned())).or_default() += 1;
    }

    /// Half of a kind is no count.
    pub(super) fn without(&mut self, failed: &BTreeSet<GroupResource>) {
        self.0.retain(|(_, kind, _), _| !failed.contains(kind));
    }

    fn objects(&self, wanted: Place) -> u64 {
        self.0.iter().filter(|((place, ..), _)| *place == wanted).map(|(_, objects)| objects).sum()
    }
}

/// One object: a line of a table whose width nobody knows yet, or of JSON.
pub(super) fn line(candidate: &Candidate<'_>, verdict: &Verdict, output: Output) -> String {
    let (place, rule) = place(verdict);
    let Candidate { kind, namespace, name, .. } = candidate;
    match output {
        Output::Table => {
            let slash = if namespace.is_empty() { "" } else { "/" };
            let object = format!("{} {namespace}{slash}{name}", kind.group_resource());
            format!("{:<11}  {:<70}  {}\n", place.name(), plain(&object), plain(rule))
        }
        Output::Json => {
            let line = json!({
                "apiVersion": API_VERSION, "kind": "Selected",
                "object": {
                    "group": kind.group, "kind": kind.kind, "resource": kind.resource,
                    "namespace": namespace, "name": name,
                },
                "set": place.set(), "rule": rule,
            });
            format!("{line}\n")
        }
    }
}

pub(super) fn summary(
    tally: &Tally,
    unlisted: &[Unlisted],
    outcome: &Outcome,
    failed_groups: &BTreeSet<String>,
    output: Output,
) -> Result<String, serde_json::Error> {
    match output {
        Output::Table => Ok(as_table(tally, unlisted, &outcome.revision)),
        Output::Json => envelope("DryRun", document(tally, unlisted, outcome, failed_groups)),
    }
}

const COLUMNS: [Column; 4] =
    [("SET", Align::Left), ("KIND", Align::Left), ("OBJECTS", Align::Right), ("RULE", Align::Left)];

fn as_table(tally: &Tally, unlisted: &[Unlisted], revision: &str) -> String {
    let counted = tally.0.iter().map(|((place, kind, rule), objects)| {
        vec![place.name().to_owned(), kind.to_string(), count(*objects), rule.clone()]
    });
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for Unlisted { rule, .. } in unlisted {
        *kinds.entry(rule).or_default() += 1;
    }
    let unread = kinds.into_iter().map(|(rule, kinds)| {
        vec!["left out".to_owned(), plural(kinds, "kind", "kinds"), "-".to_owned(), rule.to_owned()]
    });
    let captured = [Place::Activation, Place::Credentials, Place::Resources]
        .map(|place| (place.name(), tally.objects(place)));
    let sum: u64 = captured.iter().map(|(_, objects)| objects).sum();
    let sets = captured.map(|(name, objects)| format!("{name} {}", count(objects))).join(", ");
    format!(
        "{}\nAt revision {revision} a backup would hold {} objects: {sets}. {} would be left out.\n",
        table(&COLUMNS, counted.chain(unread)),
        count(sum),
        count(tally.objects(Place::Out)),
    )
}

fn document(
    tally: &Tally,
    unlisted: &[Unlisted],
    outcome: &Outcome,
    failed_groups: &BTreeSet<String>,
) -> Value {
    let items: Vec<Value> = tally
        .0
        .iter()
        .map(|((place, kind, rule), objects)| {
            json!({"set": place.set(), "kind": kind, "rule": rule, "objects": objects})
        })
        .collect();
    let failed: Vec<&GroupResource> = outcome.failed.keys().collect();
    json!({
        "revision": outcome.revision,
        "items": items,
        "unlisted": unlisted,
        "apart": outcome.apart,
        "failed": failed,
        "failedGroups": failed_groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, kind: &str) -> Kind {
        Kind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            resource: format!("{}s", kind.to_lowercase()),
            categories: vec![],
            namespaced: true,
        }
    }

    fn within(set: Set, rule: &str) -> Verdict {
        Verdict::In { set, rule: rule.to_owned() }
    }

    #[test]
    fn a_hub_is_counted_by_set_kind_and_rule() {
        let (secret, work) = (kind("", "Secret"), kind("work.x.io", "Work"));
        let mut tally = Tally::default();
        for _ in 0..1200 {
            tally.add(&work, &within(Set::Activation, "preset ocm: activation.include[3]"));
        }
        tally.add(&secret, &within(Set::Credentials, "sets.credentials.include[0]"));
        tally.add(&secret, &Verdict::Out { rule: "no rule includes it".to_owned() });
        tally.add(&kind("", "Half"), &within(Set::Resources, "sets.resources.include[0]"));
        let half = GroupResource { group: String::new(), resource: "halfs".to_owned() };
        tally.without(&BTreeSet::from([half]));
        let unlisted = |resource: &str, rule: &str| Unlisted {
            kind: GroupResource { group: String::new(), resource: resource.to_owned() },
            rule: rule.to_owned(),
        };
        let unlisted = [
            unlisted("as", "no rule includes it"),
            unlisted("pods", "built-in: pods"),
            unlisted("bs", "no rule includes it"),
        ];
        let outcome = Outcome { revision: "4711".to_owned(), ..Outcome::default() };
        let groups = BTreeSet::from(["away.io".to_owned()]);
        let shown = |output| summary(&tally, &unlisted, &outcome, &groups, output).unwrap();
        assert_eq!(
            shown(Output::Table),
            "\
SET          KIND             OBJECTS  RULE
activation   works.work.x.io    1,200  preset ocm: activation.include[3]
credentials  secrets                1  sets.credentials.include[0]
left out     secrets                1  no rule includes it
left out     1 kind                 -  built-in: pods
left out     2 kinds                -  no rule includes it

At revision 4711 a backup would hold 1,201 objects: activation 1,200, credentials 1, resources 0. 1 would be left out.
"
        );
        let json: Value = serde_json::from_str(&shown(Output::Json)).unwrap();
        assert_eq!(json["kind"], "DryRun");
        assert_eq!(json["revision"], "4711");
        assert_eq!(json["items"][0]["objects"], 1200);
        assert_eq!(json["items"][2]["set"], Value::Null);
        assert_eq!(json["unlisted"][1]["kind"]["resource"], "pods");
        assert_eq!(json["failedGroups"][0], "away.io");
    }

    #[test]
    fn an_object_is_one_line() {
        let (kind, verdict) = (kind("", "Secret"), within(Set::Credentials, "a rule"));
        let candidate = Candidate {
            kind: &kind,
            namespace: "apps",
            name: "log\u{1b}in",
            labels: &[],
            annotations: &[],
            namespace_labels: &[],
            secret_type: None,
            controller_kind: None,
        };
        let text = line(&candidate, &verdict, Output::Table);
        assert_eq!(text, format!("credentials  {:<70}  a rule\n", "secrets apps/log in"));
        let text = line(&candidate, &verdict, Output::Json);
        assert_eq!(text.lines().count(), 1);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["kind"], &json["set"]), (&json!("Selected"), &json!("credentials")));
        assert_eq!(json["object"]["name"], "log\u{1b}in");
    }
}
