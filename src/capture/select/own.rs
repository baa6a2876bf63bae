//! Pure: the rules that a hub's own configuration adds, and what becomes of each on that hub: a rule
//! that does nothing is most often a name mistyped.

use super::super::rules::{Globs, Rule};
use super::{Candidate, NO_RULE, Selection, Verdict, kind_is_never_captured};
use crate::config::errors::nearest;
use crate::object::{GroupResource, Kind, Set};
use crate::status::words::count;
use std::collections::{BTreeMap, BTreeSet};

/// Something that is allowed and most likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// `sets.resources.include[0]`
    pub key: String,
    pub what: String,
    /// What would be right. May be empty.
    pub hint: String,
}

/// The own rules, and what was seen of them.
pub struct OwnRules {
    rules: Vec<Own>,
    /// Which of them can match, by kind, with what is left to ask.
    by_kind: BTreeMap<Kind, Vec<(usize, Rule)>>,
}

struct Own {
    key: String,
    /// As verdicts call it.
    name: String,
    rule: Rule,
    /// Objects that match, and of them those that this rule decides.
    matched: u64,
    decided: u64,
    /// Another rule that decides one of them.
    beaten_by: Option<String>,
}

impl OwnRules {
    pub fn of(selection: &Selection, kinds: &[Kind]) -> Self {
        let own = selection.layers.iter().filter(|layer| layer.preset.is_none());
        let lists = own.flat_map(|layer| {
            let sets = Set::ALL.into_iter().flat_map(|set| {
                let rules = layer.sets.of(set);
                [("include", &rules.include), ("exclude", &rules.exclude)]
                    .map(|(list, rules)| (format!("{set}.{list}"), rules))
            });
            let lists = std::iter::once(("exclude".to_owned(), &layer.sets.exclude)).chain(sets);
            lists.flat_map(move |(list, rules)| {
                rules.iter().enumerate().map(move |(index, rule)| Own {
                    key: format!("sets.{list}[{index}]"),
                    name: layer.rule_name(&list, index, rule),
                    rule: rule.clone(),
                    matched: 0,
                    decided: 0,
                    beaten_by: None,
                })
            })
        });
        let rules: Vec<Own> = lists.collect();
        let can_match = |kind: &Kind| {
            let rules = rules.iter().enumerate();
            let left = rules.filter_map(|(at, own)| Some((at, own.rule.for_kind(kind)?)));
            (kind.clone(), left.collect::<Vec<_>>())
        };
        let by_kind = kinds.iter().map(can_match).filter(|(_, rules)| !rules.is_empty());
        Self { by_kind: by_kind.collect(), rules }
    }

    /// Whether objects of the kind have to be seen.
    pub fn want(&self, kind: &Kind) -> bool {
        self.by_kind.contains_key(kind) && kind_is_never_captured(kind).is_none()
    }

    pub fn see(&mut self, candidate: &Candidate<'_>, verdict: &Verdict) {
        let (Verdict::In { rule: decided, .. } | Verdict::Out { rule: decided }) = verdict;
        for (at, rule) in self.by_kind.get(candidate.kind).into_iter().flatten() {
            if !rule.matches(candidate) {
                continue;
            }
            let own = &mut self.rules[*at];
            own.matched += 1;
            if own.name == *decided {
                own.decided += 1;
            } else if own.beaten_by.is_none() {
                own.beaten_by = Some(decided.clone());
            }
        }
    }

    /// `unread`: groups that discovery could not read, of which nothing is known; `unlisted`: kinds
    /// of which not all objects were seen.
    pub fn warnings(
        &self,
        kinds: &[Kind],
        unread: &BTreeSet<String>,
        unlisted: &BTreeSet<GroupResource>,
    ) -> Vec<Warning> {
        let warn = |(at, own): (usize, &Own)| {
            let may_be = |group: &String| own.rule.group.as_ref().is_none_or(|g| g.matches(group));
            if unread.iter().any(may_be) {
                return vec![];
            }
            let said = |(what, hint)| Warning { key: own.key.clone(), what, hint };
            let words = unknown_words(&own.rule, kinds);
            if !words.is_empty() {
                return words.into_iter().map(said).collect();
            }
            self.idle(at, unlisted).map(said).into_iter().collect()
        };
        self.rules.iter().enumerate().flat_map(warn).collect()
    }

    /// Why the rule does nothing although all its words are known.
    fn idle(&self, at: usize, unlisted: &BTreeSet<GroupResource>) -> Option<(String, String)> {
        let own = &self.rules[at];
        let can_match =
            self.by_kind.iter().filter(|(_, rules)| rules.iter().any(|(rule, _)| *rule == at));
        let kinds: Vec<&Kind> = can_match.map(|(kind, _)| kind).collect();
        let never: Option<Vec<_>> = kinds.iter().map(|kind| kind_is_never_captured(kind)).collect();
        if kinds.is_empty() {
            let hint = "its kinds lack what it asks for, such as a namespace or a Secret's type, \
                        or its own `except` takes out all of them";
            return Some(("can match no object".to_owned(), hint.to_owned()));
        }
        if let Some([first, ..]) = never.as_deref() {
            let what = "names only kinds that are never captured".to_owned();
            return Some((what, (*first).to_owned()));
        }
        if own.decided > 0 || kinds.iter().any(|kind| unlisted.contains(&kind.group_resource())) {
            return None;
        }
        let Some(beaten_by) = &own.beaten_by else {
            return Some(("matches no object of this hub".to_owned(), String::new()));
        };
        let (objects, it) = match own.matched {
            1 => ("the one object".to_owned(), "is"),
            many => (format!("all {} objects", count(many)), "are"),
        };
        let what =
            format!("changes nothing: {objects} that it matches {it} decided by other rules");
        let hint = if beaten_by == NO_RULE {
            "no rule includes what it keeps out".to_owned()
        } else {
            format!("such as {beaten_by}")
        };
        Some((what, hint))
    }
}

/// Groups and kinds in a rule that this hub does not serve.
fn unknown_words(rule: &Rule, kinds: &[Kind]) -> Vec<(String, String)> {
    let all =
        |globs: &Option<Globs>| -> Vec<Globs> { globs.iter().flat_map(Globs::each).collect() };
    let mut unknown = vec![];
    for group in all(&rule.group) {
        if !kinds.iter().any(|kind| group.matches(&kind.group)) {
            let near = nearest(&group.to_string(), kinds.iter().map(|kind| &*kind.group));
            unknown.push((format!("this hub serves no API group {group}"), did_you_mean(near)));
        }
    }
    let in_group = |kind: &&Kind| rule.group.as_ref().is_none_or(|g| g.matches(&kind.group));
    let of_group: Vec<&Kind> = kinds.iter().filter(in_group).collect();
    if of_group.is_empty() {
        return unknown;
    }
    for name in all(&rule.kind) {
        if of_group.iter().any(|kind| name.matches(&kind.kind)) {
            continue;
        }
        let elsewhere = kinds.iter().find(|kind| name.matches(&kind.kind));
        unknown.push(if let (Some(kind), Some(group)) = (elsewhere, &rule.group) {
            let what = format!("there is no kind {name} in the group {group}");
            (what, format!("{} is of the group {:?}", kind.kind, kind.group))
        } else {
            let near = nearest(&name.to_string(), of_group.iter().map(|kind| &*kind.kind));
            (format!("this hub serves no kind {name}"), did_you_mean(near))
        });
    }
    unknown
}

/// Kinds named elsewhere in the configuration, each under its key, that this hub does not serve.
pub fn unserved(
    named: Vec<(String, GroupResource)>,
    kinds: &[Kind],
    unread: &BTreeSet<String>,
) -> Vec<Warning> {
    let served: Vec<String> = kinds.iter().map(|kind| kind.group_resource().to_string()).collect();
    let warning = |(key, kind): (String, GroupResource)| {
        let name = kind.to_string();
        if unread.contains(&kind.group) || served.contains(&name) {
            return None;
        }
        let hint = did_you_mean(nearest(&name, served.iter().map(String::as_str)));
        Some(Warning { key, what: format!("this hub serves no kind {name}"), hint })
    };
    named.into_iter().filter_map(warning).collect()
}

fn did_you_mean(near: Option<&str>) -> String {
    near.filter(|near| !near.is_empty())
        .map_or_else(String::new, |near| format!("did you mean {near}?"))
}

#[cfg(test)]
mod tests;
