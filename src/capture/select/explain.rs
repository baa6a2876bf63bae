//! Pure: why an object is where it is, and what the other rules that match it would have done. For
//! people who ask; a backup asks for the verdict alone.

use super::{
    Candidate, KindRules, LayerRules, NAMESPACES_COME_ALONG, NamedRule, Verdict, first,
    helm_release_not_asked_for,
};
use crate::object::Set;

/// A verdict with all that speaks for it and against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub verdict: Verdict,
    /// Why the rule of the verdict is the one that counts.
    pub reason: String,
    /// Every other rule that matches, in the order in which they are asked.
    pub others: Vec<Other>,
}

/// A rule that matches and does not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub rule: String,
    pub effect: Effect,
    pub why: String,
}

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Includes(Set),
    Excludes(Set),
    /// From all sets.
    ExcludesAll,
}

/// A rule that matches.
struct Hit<'r> {
    named: &'r NamedRule,
    effect: Effect,
    /// Of an include: what keeps the object out that it would let in.
    beaten: Option<&'r str>,
}

/// How far the rules were asked.
#[derive(Clone, Copy)]
enum Decided {
    ForAllSets,
    /// By the rules of this set.
    By(Set),
    ByNone,
}

impl KindRules {
    /// What [`Self::decide`] says, with the reasons.
    pub fn explain(&self, candidate: &Candidate<'_>) -> Explanation {
        let verdict = self.decide(candidate);
        let hits = self.hits(candidate);
        let decided = self.decided(&verdict, &hits);
        let (Verdict::In { rule, .. } | Verdict::Out { rule }) = &verdict;
        let others = hits.iter().filter(|hit| hit.named.name != *rule).map(|hit| Other {
            rule: hit.named.name.clone(),
            effect: hit.effect,
            why: self.why_not(hit, &verdict, decided),
        });
        Explanation { others: others.collect(), reason: reason(&verdict, decided), verdict }
    }

    /// Why no object of the kind can be selected, so that it is not listed. None: it is listed.
    pub fn not_listed(&self) -> Option<&str> {
        if self.may_select() {
            return None;
        }
        let excluded = || self.exclude.iter().find(|named| named.rule.is_unconditional());
        let excluded = self.never.or_else(|| excluded().map(|named| named.name.as_str()));
        Some(excluded.unwrap_or(super::NO_RULE))
    }

    fn hits(&self, candidate: &Candidate<'_>) -> Vec<Hit<'_>> {
        let matching = |rules: &'_ [NamedRule]| -> Vec<usize> {
            (0..rules.len()).filter(|at| rules[*at].rule.matches(candidate)).collect()
        };
        let mut hits = vec![];
        for rules in [&self.hub_itself, &self.exclude] {
            let all = matching(rules).into_iter().map(|at| &rules[at]);
            hits.extend(all.map(|named| Hit { named, effect: Effect::ExcludesAll, beaten: None }));
        }
        for (set, layers) in &self.sets {
            for layer in layers {
                let include = matching(&layer.include).into_iter().map(|at| &layer.include[at]);
                hits.extend(include.map(|named| Hit {
                    named,
                    effect: Effect::Includes(*set),
                    beaten: beaten(named, layer, layers, candidate),
                }));
                let exclude = matching(&layer.exclude).into_iter().map(|at| &layer.exclude[at]);
                let effect = Effect::Excludes(*set);
                hits.extend(exclude.map(|named| Hit { named, effect, beaten: None }));
            }
        }
        hits
    }

    fn decided(&self, verdict: &Verdict, hits: &[Hit<'_>]) -> Decided {
        let (Verdict::In { rule, .. } | Verdict::Out { rule }) = verdict;
        let for_all = |hit: &Hit<'_>| hit.effect == Effect::ExcludesAll && hit.named.name == *rule;
        let includes = hits.iter().find_map(|hit| match hit.effect {
            Effect::Includes(set) if !self.is_namespace || set == Set::Resources => Some(set),
            Effect::Includes(_) | Effect::Excludes(_) | Effect::ExcludesAll => None,
        });
        let is_helm = hits.iter().any(|hit| hit.beaten == Some(rule));
        let is_built_in = rule.starts_with("built-in:") && rule != NAMESPACES_COME_ALONG;
        match includes {
            _ if hits.iter().any(for_all) || (is_built_in && !is_helm) => Decided::ForAllSets,
            Some(set) => Decided::By(set),
            None if self.is_namespace => Decided::By(Set::Resources),
            None => Decided::ByNone,
        }
    }

    fn why_not(&self, hit: &Hit<'_>, verdict: &Verdict, decided: Decided) -> String {
        let is_in = matches!(verdict, Verdict::In { .. });
        match (decided, hit.effect) {
            (Decided::ForAllSets, Effect::Includes(_)) => {
                "what is excluded from all sets is not included again".to_owned()
            }
            (_, Effect::Includes(set)) if self.is_namespace && set != Set::Resources => {
                "a Namespace is always of the set resources".to_owned()
            }
            (Decided::By(decided), Effect::Includes(set)) if set == decided => match hit.beaten {
                Some(rule) => format!("it is kept out by {rule}"),
                None => "another rule of the set is asked before it".to_owned(),
            },
            (Decided::By(decided), Effect::Includes(set)) if is_in => {
                format!("{decided} wins over {set}")
            }
            (Decided::By(decided), Effect::Includes(set)) => {
                format!("what {decided} excludes does not fall into {set}")
            }
            (Decided::By(decided), Effect::Excludes(set)) if set != decided => {
                format!("it acts on what would come into {set}")
            }
            (Decided::By(_), Effect::Excludes(_)) if is_in => {
                "a preset narrows its own rules only".to_owned()
            }
            (_, Effect::Includes(_) | Effect::Excludes(_) | Effect::ExcludesAll) => {
                "it is left out already".to_owned()
            }
        }
    }
}

fn beaten<'r>(
    include: &NamedRule,
    layer: &'r LayerRules,
    layers: &'r [LayerRules],
    candidate: &Candidate<'_>,
) -> Option<&'r str> {
    let user = layers.first().map(|user| &*user.exclude).unwrap_or_default();
    helm_release_not_asked_for(&include.rule, candidate).or_else(|| {
        let exclude = first(&layer.exclude, candidate).or_else(|| first(user, candidate));
        exclude.map(|named| named.name.as_str())
    })
}

fn reason(verdict: &Verdict, decided: Decided) -> String {
    match (verdict, decided) {
        (Verdict::In { rule, .. }, _) if rule == NAMESPACES_COME_ALONG => {
            "no object can be restored without its namespace".to_owned()
        }
        (Verdict::In { set, .. }, _) => format!(
            "of activation, credentials and resources, in this order, {set} is the first to include it"
        ),
        (Verdict::Out { rule }, Decided::ForAllSets) if rule.starts_with("built-in:") => {
            "built-in exclusions hold whatever the rules say".to_owned()
        }
        (Verdict::Out { .. }, Decided::ForAllSets) => "it is excluded from all sets".to_owned(),
        (Verdict::Out { .. }, Decided::By(set)) => {
            format!("it would come into {set}, and is kept out of the backup")
        }
        (Verdict::Out { .. }, Decided::ByNone) => {
            "only what a rule includes is captured".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Selection;
    use super::super::tests::{preset, rules, with};
    use super::*;
    use std::collections::BTreeSet;

    /// Two presets and rules of one's own in which much overlaps.
    fn selection() -> Selection {
        let one = "{name: one, hubItself: [{kind: Cluster, labels: self=true}], sets: {exclude: [{labels: never}], activation: {include: [{labels: s=a}, {kind: Work}], exclude: [{name: cold}]}, resources: {include: [{group: x}], exclude: [{name: tmp}]}}}";
        let two =
            "{name: two, sets: {resources: {include: [{group: x, kind: B}, {kind: Secret}]}}}";
        let own = rules(
            "{exclude: [{namespace: secret}], credentials: {include: [{labels: s}], exclude: [{name: tmp}]}, resources: {exclude: [{name: nope}, {kind: Namespace, name: gone}]}}",
        );
        Selection::new(own, [preset(one), preset(two)])
            .with_hub_itself(BTreeSet::from(["me".to_owned()]))
    }

    /// The verdict's rule without what it names, the reason, and of each other rule its place, effect
    /// and why it does not count.
    #[track_caller]
    fn check(object: &str, set: Option<Set>, rule: &str, reason: &str, others: &[&str]) {
        let explained = with(object, |c| selection().for_kind(c.kind).explain(c));
        let (found, by) = match &explained.verdict {
            Verdict::In { set, rule } => (Some(*set), rule),
            Verdict::Out { rule } => (None, rule),
        };
        let bare = |rule: &str| rule.split(" (").next().unwrap().to_owned();
        assert_eq!((found, bare(by)), (set, rule.to_owned()), "{object}");
        assert!(explained.reason.contains(reason), "{object}: {}", explained.reason);
        let told = explained.others.iter().map(|Other { rule, effect, why }| {
            let effect = match effect {
                Effect::Includes(set) => format!("+{set}"),
                Effect::Excludes(set) => format!("-{set}"),
                Effect::ExcludesAll => "-".to_owned(),
            };
            format!("{effect} {}: {}", bare(rule), bare(why))
        });
        assert_eq!(told.collect::<Vec<_>>(), others, "{object}");
    }

    #[test]
    fn every_rule_that_matches_is_told_with_the_reason_why_it_does_not_count() {
        use Set::{Activation, Resources};
        let preset_one = "preset one: resources.include[0]";
        check("x/A n/a", Some(Resources), preset_one, "resources is the first", &[]);
        check(
            "x/Work n/a s=a",
            Some(Activation),
            "preset one: activation.include[0]",
            "activation is the first",
            &[
                "+activation preset one: activation.include[1]: another rule of the set is asked before it",
                "+credentials sets.credentials.include[0]: activation wins over credentials",
                "+resources preset one: resources.include[0]: activation wins over resources",
            ],
        );
        check(
            "x/Work n/cold",
            None,
            "preset one: activation.exclude[0]",
            "it would come into activation",
            &[
                "+activation preset one: activation.include[1]: it is kept out by preset one: activation.exclude[0]",
                "+resources preset one: resources.include[0]: what activation excludes does not fall into resources",
            ],
        );
        check(
            "x/B n/tmp",
            Some(Resources),
            "preset two: resources.include[0]",
            "resources is the first",
            &[
                "-credentials sets.credentials.exclude[0]: it acts on what would come into credentials",
                "+resources preset one: resources.include[0]: it is kept out by preset one: resources.exclude[0]",
                "-resources preset one: resources.exclude[0]: a preset narrows its own rules only",
            ],
        );
        check(
            "x/A n/nope",
            None,
            "sets.resources.exclude[0]",
            "it would come into resources",
            &[
                "+resources preset one: resources.include[0]: it is kept out by sets.resources.exclude[0]",
            ],
        );
        let excluded = "what is excluded from all sets is not included again";
        check(
            "x/A secret/a never=",
            None,
            "sets.exclude[0]",
            "excluded from all sets",
            &[
                "- preset one: exclude[0]: it is left out already",
                &format!("+resources preset one: resources.include[0]: {excluded}"),
            ],
        );
        check("y/A n/a", None, "no rule includes it", "only what a rule includes", &[]);
        check(
            "y/A n/nope",
            None,
            "no rule includes it",
            "only what a rule includes",
            &["-resources sets.resources.exclude[0]: it is left out already"],
        );
        check(
            "x/Cluster n/me self=true",
            None,
            "preset one: hubItself[0]",
            "excluded from all sets",
            &[&format!("+resources preset one: resources.include[0]: {excluded}")],
        );
    }

    #[test]
    fn built_in_rules_are_told_apart_from_those_of_a_set() {
        let excluded = "what is excluded from all sets is not included again";
        let whatever = "whatever the rules say";
        check("Pod n/a s=a", None, "built-in: pods run on one cluster's nodes", whatever, &[]);
        check(
            "x/A me/a",
            None,
            "built-in: the namespace of the hub itself",
            whatever,
            &[&format!("+resources preset one: resources.include[0]: {excluded}")],
        );
        let helm = "built-in: Helm release Secrets only where a rule names their secretType";
        check(
            "Secret n/a type=helm.sh/release.v1",
            None,
            helm,
            "it would come into resources",
            &[&format!("+resources preset two: resources.include[1]: it is kept out by {helm}")],
        );
        let along = "built-in: namespaces come along with what stands in them";
        check("Namespace n", Some(Set::Resources), along, "without its namespace", &[]);
        let always = "a Namespace is always of the set resources";
        check(
            "Namespace n s=a",
            Some(Set::Resources),
            along,
            "without its namespace",
            &[
                &format!("+activation preset one: activation.include[0]: {always}"),
                &format!("+credentials sets.credentials.include[0]: {always}"),
            ],
        );
        check("Namespace gone", None, "sets.resources.exclude[1]", "come into resources", &[]);
    }

    #[test]
    fn a_kind_that_is_not_listed_has_a_reason() {
        let own = rules("{exclude: [{kind: Widget}], resources: {include: [{group: x}]}}");
        let selection = Selection::new(own, []);
        for (object, expected) in [
            ("Pod n/a", Some("built-in: pods run on one cluster's nodes")),
            ("x/Widget n/a", Some("sets.exclude[0] (kind Widget)")),
            ("y/A n/a", Some("no rule includes it")),
            ("x/A n/a", None),
        ] {
            let rules = with(object, |candidate| selection.for_kind(candidate.kind));
            assert_eq!(rules.not_listed(), expected, "{object}");
        }
    }
}
