//! Pure: a prune that is held because it would delete too much: what it is, how it is told, and what
//! becomes of a release.

use super::problem::{Problem, Reason, warning};
use super::words::{count, plural};
use super::{Outcome, Snapshot, SyncFacts};
use serde::{Deserialize, Serialize};

/// Kinds that a sentence names.
const KINDS_TOLD: usize = 4;

/// The deletions that wait for an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeldPrune {
    /// What `understudy sync ack` wants; another one as soon as other objects would be deleted.
    pub plan: String,
    pub why: String,
    pub deletions: usize,
    /// Most deletions first; the log names all of it.
    pub kinds: Vec<HeldKind>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeldKind {
    pub kind: String,
    pub deletions: usize,
    /// `namespace/name` of the first ones. Not behind `/api/v1/status`, which asks nobody who he is.
    pub first: Vec<String>,
}

/// What the last run did of a plan that an operator has released.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleasedPrune {
    pub plan: String,
    pub deletions: usize,
    pub deleted: usize,
}

impl HeldPrune {
    pub fn command(&self) -> String {
        format!("understudy sync ack {}", self.plan)
    }

    /// `612 deletions (600 secrets, 12 configmaps)`
    pub fn size(&self) -> String {
        let kind = |kind: &HeldKind| format!("{} {}", count(kind.deletions as u64), kind.kind);
        let mut kinds: Vec<_> = self.kinds.iter().take(KINDS_TOLD).map(kind).collect();
        if self.kinds.len() > KINDS_TOLD {
            kinds.push("…".to_owned());
        }
        let deletions = plural(self.deletions, "deletion", "deletions");
        format!("{deletions} ({})", kinds.join(", "))
    }
}

pub(super) fn problem(sync: &SyncFacts) -> Option<Problem> {
    let why = sync.prune_held.as_ref()?;
    let Some(held) = &sync.held else {
        let hint = "it is not deleted; a later sync does that once nothing stands in its way";
        return Some(warning(Reason::PruneHeld, why.clone(), Some(hint.to_owned())));
    };
    let (plan, size, command) = (&held.plan, held.size(), held.command());
    let message = format!("plan {plan} of {size} waits for `{command}`: {why}");
    let hint = format!(
        "nothing of it is deleted; look at it: understudy sync held; if it may go: {command}"
    );
    Some(warning(Reason::PruneHeld, message, Some(hint)))
}

/// Why this plan cannot be released. None: it is held, or no sync has told yet what is.
pub fn refuses(snapshot: &Snapshot, plan: &str) -> Option<String> {
    let hub = &snapshot.hub;
    match &snapshot.sync.held {
        Some(held) if held.plan == plan => None,
        Some(held) => {
            let (now, size, command) = (&held.plan, held.size(), held.command());
            Some(format!(
                "{hub} does not hold the plan {plan}; now it is {now} of {size}: look at it with \
                 `understudy sync held`; if it may go: {command}"
            ))
        }
        None if snapshot.sync.restored.is_none() => None,
        None => Some(format!("{hub} does not hold the plan {plan}, nor any other one")),
    }
}

/// What the sync that has just ended did of the plan.
pub fn released(snapshot: &Snapshot, plan: &str) -> (Outcome, String) {
    let sync = &snapshot.sync;
    let failed = (sync.last_outcome == Some(Outcome::Failed)).then(|| {
        let error = sync.last_error.as_deref();
        (Outcome::Failed, error.unwrap_or("see the log of the daemon").to_owned())
    });
    match sync.released.as_ref().filter(|released| released.plan == plan) {
        Some(ReleasedPrune { plan: _, deletions, deleted }) => {
            let mut message =
                format!("deleted {deleted} of {deletions} objects of the plan {plan}");
            if let [first, ..] = &*sync.going {
                message = format!("{message}; still going, such as {first}: understudy sync held");
            }
            match failed {
                Some((outcome, error)) => (outcome, format!("{message}: {error}")),
                None if deleted == deletions => (Outcome::Success, message),
                None => {
                    let rest = sync.prune_held.as_deref().unwrap_or("the log names the others");
                    (Outcome::Partial, format!("{message}; {rest}"))
                }
            }
        }
        None => match (refuses(snapshot, plan), failed) {
            (Some(why), None) => (Outcome::Refused, why),
            (_, Some(failed)) => failed,
            (None, None) => (Outcome::Failed, format!("the plan {plan} is still held")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn holding(plan: &str) -> Snapshot {
        let mut snapshot = samples::passive();
        let kind =
            |kind: &str, deletions| HeldKind { kind: kind.to_owned(), deletions, first: vec![] };
        snapshot.sync.prune_held = Some("612 deletions are more than 500".to_owned());
        snapshot.sync.held = Some(HeldPrune {
            plan: plan.to_owned(),
            why: "612 deletions are more than 500".to_owned(),
            deletions: 612,
            kinds: vec![kind("secrets", 600), kind("configmaps", 12)],
        });
        snapshot
    }

    #[test]
    fn the_command_stands_wherever_the_plan_does() {
        let problem = problem(&holding("p1").sync).unwrap();
        let plan = "plan p1 of 612 deletions (600 secrets, 12 configmaps) waits for \
                    `understudy sync ack p1`: 612 deletions are more than 500";
        assert_eq!(problem.message, plan);
        assert!(problem.hint.unwrap().ends_with("if it may go: understudy sync ack p1"));
    }

    #[test]
    fn only_what_is_held_is_released() {
        let nothing = samples::passive();
        let mut starting = samples::passive();
        starting.sync.restored = None;
        for (name, snapshot, refused) in [
            ("it is held", holding("p1"), None),
            ("another one is", holding("p2"), Some("understudy sync ack p2")),
            ("none is", nothing, Some("nor any other one")),
            ("no sync has told yet", starting, None),
        ] {
            let why = refuses(&snapshot, "p1");
            assert_eq!(why.is_some(), refused.is_some(), "{name}: {why:?}");
            assert!(why.unwrap_or_default().contains(refused.unwrap_or_default()), "{name}");
        }
    }

    fn failing(mut snapshot: Snapshot, failed: bool) -> Snapshot {
        if failed {
            snapshot.sync.last_outcome = Some(Outcome::Failed);
            snapshot.sync.last_error = Some("the storage is away".to_owned());
        }
        snapshot
    }

    #[test]
    fn a_release_is_answered_with_what_became_of_it() {
        use Outcome::{Failed, Partial, Refused, Success};
        let released_of = |deleted, failed: bool| {
            let mut snapshot = samples::passive();
            let (plan, deletions) = ("p1".to_owned(), 6);
            snapshot.sync.released = Some(ReleasedPrune { plan, deletions, deleted });
            snapshot.sync.prune_held = (deleted < 6).then(|| "namespaces a: holds b".to_owned());
            failing(snapshot, failed)
        };
        let cases = vec![
            ("all went", released_of(6, false), Success, "deleted 6 of 6 objects"),
            (
                "some went",
                released_of(4, false),
                Partial,
                "deleted 4 of 6 objects of the plan p1; namespaces a",
            ),
            ("it broke off", released_of(4, true), Failed, "the plan p1: the storage is away"),
            ("it changed", holding("p2"), Refused, "understudy sync ack p2"),
            ("it is no more", samples::passive(), Refused, "nor any other"),
            ("it did not begin", failing(holding("p1"), true), Failed, "the storage is away"),
            ("nor was it known", failing(samples::passive(), true), Failed, "the storage is away"),
        ];
        for (name, snapshot, outcome, told) in cases {
            let (found, message) = released(&snapshot, "p1");
            assert_eq!(found, outcome, "{name}: {message}");
            assert!(message.contains(told), "{name}: {message}");
        }
    }
}
