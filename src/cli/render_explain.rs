//! Pure: what is printed of one object: its set, the rule, the reasons, and what a standby does.

use super::render::{Output, envelope, plain};
use crate::capture::select::Verdict;
use crate::capture::select::explain::{Effect, Explanation, Other};
use crate::object::{Kind, ObjectKey, Set};
use crate::restore::policy::{Form, Policy};
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(super) struct Explained<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) kind: &'a Kind,
    pub(super) explanation: &'a Explanation,
    pub(super) keeps_status: bool,
    pub(super) standby: Standby,
}

/// What a standby with the same configuration does with the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standby {
    /// It is in no backup.
    NeverSees,
    Restores,
    RestoresInert,
    HoldsBack,
    Refuses(&'static str),
}

impl Standby {
    pub(super) fn of(verdict: &Verdict, key: &ObjectKey, kind: &Kind, policy: &Policy) -> Self {
        match verdict {
            Verdict::Out { .. } => Self::NeverSees,
            Verdict::In { set, .. } => match (policy.refuses(key), set) {
                (Some(reason), _) => Self::Refuses(reason),
                (None, Set::Activation) => Self::HoldsBack,
                (None, Set::Credentials | Set::Resources) => {
                    match policy.passive_form(key, Some(kind)) {
                        Form::Inert(_) => Self::RestoresInert,
                        Form::AsInBackup | Form::Unknown => Self::Restores,
                    }
                }
            },
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::NeverSees => "never-sees",
            Self::Restores => "restores",
            Self::RestoresInert => "restores-inert",
            Self::HoldsBack => "holds-back",
            Self::Refuses(_) => "refuses",
        }
    }

    fn sentence(self) -> String {
        match self {
            Self::NeverSees => "never sees it".to_owned(),
            Self::Restores => "restores it".to_owned(),
            Self::RestoresInert => "holds it inert until it is promoted".to_owned(),
            Self::HoldsBack => "holds it back until it is promoted".to_owned(),
            Self::Refuses(reason) => {
                format!("refuses it, if configured like this hub: {reason}")
            }
        }
    }
}

pub(super) fn explained(
    explained: &Explained<'_>,
    output: Output,
) -> Result<String, serde_json::Error> {
    match output {
        Output::Table => Ok(lines(explained)),
        Output::Json => envelope("Explanation", document(explained)),
    }
}

fn lines(explained: &Explained<'_>) -> String {
    let Explained { key, kind: _, explanation, keeps_status, standby } = explained;
    let Explanation { verdict, reason, others } = explanation;
    let (set, rule) = match verdict {
        Verdict::In { set, rule } => (set.name(), rule),
        Verdict::Out { rule } => ("not captured", rule),
    };
    let status = if *keeps_status { "captured with it" } else { "not captured" };
    let standby = standby.sentence();
    let mut rows = vec![("set", set), ("rule", rule), ("reason", reason)];
    if matches!(verdict, Verdict::In { .. }) {
        rows.push(("status", status));
    }
    rows.push(("standby", &standby));
    let mut text = format!("{}\n\n", plain(&key.to_string()));
    for (word, value) in rows {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{word:<8} {}", plain(value));
    }
    if !others.is_empty() {
        text.push_str("\nOther rules that match it:\n");
    }
    for Other { rule, effect, why } in others {
        let does = match effect {
            Effect::Includes(set) => format!("includes it in {set}"),
            Effect::Excludes(set) => format!("excludes it from {set}"),
            Effect::ExcludesAll => "excludes it from all sets".to_owned(),
        };
        let _ = writeln!(text, "  {}\n    {does}, but {why}", plain(rule));
    }
    text
}

fn document(explained: &Explained<'_>) -> Value {
    let Explained { key, kind, explanation, keeps_status, standby } = explained;
    let Explanation { verdict, reason, others } = explanation;
    let (set, rule) = match verdict {
        Verdict::In { set, rule } => (Some(set), rule),
        Verdict::Out { rule } => (None, rule),
    };
    let refusal = if let Standby::Refuses(reason) = standby { Some(reason) } else { None };
    let others: Vec<Value> = others.iter().map(other).collect();
    json!({
        "object": {
            "group": key.group(), "kind": kind.kind, "resource": key.resource(),
            "namespace": key.namespace(), "name": key.name(),
        },
        "set": set,
        "rule": rule,
        "reason": reason,
        "statusCaptured": keeps_status,
        "standby": {"does": standby.word(), "reason": refusal},
        "others": others,
    })
}

fn other(other: &Other) -> Value {
    let Other { rule, effect, why } = other;
    let (effect, set) = match effect {
        Effect::Includes(set) => ("include", Some(set)),
        Effect::Excludes(set) => ("exclude", Some(set)),
        Effect::ExcludesAll => ("exclude", None),
    };
    json!({"rule": rule, "effect": effect, "set": set, "why": why})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::RestorePolicy;
    use serde_json::json;

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

    #[test]
    fn an_object_is_explained_with_its_rule_and_what_a_standby_does() {
        let kind = kind("work.open-cluster-management.io", "ManifestWork");
        let key = ObjectKey::new(&kind.group, &kind.resource, "c1", "app").unwrap();
        let explanation = Explanation {
            verdict: Verdict::In {
                set: Set::Activation,
                rule: "preset ocm: activation.include[3] (kind ManifestWork)".to_owned(),
            },
            reason: "activation is the first to include it".to_owned(),
            others: vec![
                Other {
                    rule: "sets.resources.include[0] (group *)".to_owned(),
                    effect: Effect::Includes(Set::Resources),
                    why: "activation wins over resources".to_owned(),
                },
                Other {
                    rule: "sets.resources.exclude[0] (name \u{1b}[31m)".to_owned(),
                    effect: Effect::Excludes(Set::Resources),
                    why: "it acts on what would come into resources".to_owned(),
                },
            ],
        };
        let (explanation, standby) = (&explanation, Standby::HoldsBack);
        let of = Explained { key: &key, kind: &kind, explanation, keeps_status: false, standby };
        assert_eq!(
            explained(&of, Output::Table).unwrap(),
            "\
manifestworks.work.open-cluster-management.io c1/app

set      activation
rule     preset ocm: activation.include[3] (kind ManifestWork)
reason   activation is the first to include it
status   not captured
standby  holds it back until it is promoted

Other rules that match it:
  sets.resources.include[0] (group *)
    includes it in resources, but activation wins over resources
  sets.resources.exclude[0] (name  [31m)
    excludes it from resources, but it acts on what would come into resources
"
        );
        let json: Value = serde_json::from_str(&explained(&of, Output::Json).unwrap()).unwrap();
        assert_eq!(json["apiVersion"], "understudy.dev/v1");
        assert_eq!(json["kind"], "Explanation");
        assert_eq!(json["object"]["kind"], "ManifestWork");
        assert_eq!(json["set"], "activation");
        assert_eq!(json["standby"], json!({"does": "holds-back", "reason": null}));
        assert_eq!(json["others"][1]["effect"], "exclude");
        assert_eq!(json["others"][1]["set"], "resources");
    }

    #[test]
    fn an_object_that_is_left_out_says_so_first() {
        let kind = kind("", "Pod");
        let key = ObjectKey::new("", "pods", "a", "x").unwrap();
        let rule = "built-in: pods run on one cluster's nodes".to_owned();
        let reason = "built-in exclusions hold whatever the rules say".to_owned();
        let explanation = Explanation { verdict: Verdict::Out { rule }, reason, others: vec![] };
        let (explanation, standby) = (&explanation, Standby::NeverSees);
        let of = Explained { key: &key, kind: &kind, explanation, keeps_status: false, standby };
        assert_eq!(
            explained(&of, Output::Table).unwrap(),
            "\
pods a/x

set      not captured
rule     built-in: pods run on one cluster's nodes
reason   built-in exclusions hold whatever the rules say
standby  never sees it
"
        );
    }

    #[test]
    fn what_a_standby_does_follows_from_the_set_and_from_what_it_allows() {
        let rules = r#"[{"group": "acts.io", "patch": {"spec": {"paused": true}}}]"#;
        let transforms = serde_json::from_str(rules).unwrap();
        let settings = RestorePolicy { transforms, ..RestorePolicy::default() };
        let policy = Policy::new("eu", "understudy", &settings);
        let of = |set: Option<Set>, group: &str, resource: &str| {
            let rule = String::new();
            let verdict = match set {
                Some(set) => Verdict::In { set, rule },
                None => Verdict::Out { rule },
            };
            let key = ObjectKey::new(group, resource, "a", "x").unwrap();
            let kind = kind(group, resource);
            Standby::of(&verdict, &key, &kind, &policy)
        };
        assert_eq!(of(None, "", "pods"), Standby::NeverSees);
        assert_eq!(of(Some(Set::Resources), "", "configmaps"), Standby::Restores);
        assert_eq!(of(Some(Set::Credentials), "", "secrets"), Standby::Restores);
        assert_eq!(of(Some(Set::Resources), "acts.io", "things"), Standby::RestoresInert);
        assert_eq!(of(Some(Set::Activation), "acts.io", "things"), Standby::HoldsBack);
        assert_eq!(of(Some(Set::Activation), "", "secrets"), Standby::HoldsBack);
        let refused = of(Some(Set::Activation), "rbac.authorization.k8s.io", "roles");
        assert!(refused.sentence().contains("passive.allowKinds"), "{refused:?}");
    }
}
