//! Pure: a term that its holder gave up, as everybody may see it, and what a hub whose own term ended
//! did since.

use super::problem::{Problem, Reason, annotate_hub, critical, promote_command, warning};
use super::words::{clock, full};
use super::{Role, Snapshot};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HandoverFacts {
    /// The hub that holds the term gave it up.
    pub handed: Option<HandedOver>,
    /// Durable: the highest term under which an operator had this hub rejoin; 0: none.
    #[schemars(with = "i64")]
    pub rejoined: u64,
    /// Durable: this hub was primary, and its own objects have become restored ones.
    pub claimed: Option<Claimed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claimed {
    /// Of the own last backup, which names them.
    #[schemars(with = "i64")]
    pub slot: u64,
    /// There was a prune since then that an operator has released, or nothing to prune.
    pub settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandedOver {
    /// Empty: any hub of the pair may take over.
    pub to: String,
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Id of the last backup of the term.
    pub backup: Option<String>,
}

impl HandedOver {
    /// `eu-2`, or who else.
    pub fn to(&self) -> &str {
        if self.to.is_empty() { "any passive hub" } else { &self.to }
    }

    pub fn is_for(&self, hub: &str) -> bool {
        self.to.is_empty() || self.to == hub
    }
}

/// This hub holds the term and gave it up.
pub fn by_this_hub(snapshot: &Snapshot) -> Option<&HandedOver> {
    let handed = snapshot.handover.handed.as_ref()?;
    (snapshot.holder.as_ref() == Some(&snapshot.hub)).then_some(handed)
}

/// Until the next term nobody takes backups.
pub(super) fn problem(snapshot: &Snapshot, now: Timestamp) -> Option<Problem> {
    let handed =
        snapshot.handover.handed.as_ref().filter(|_| snapshot.role == Some(Role::Passive))?;
    let holder = snapshot.holder.as_deref().unwrap_or("the primary");
    let (to, at) = (handed.to(), clock(handed.at, now));
    let message = format!("{holder} handed over to {to} at {at}: no hub takes backups until then");
    Some(if by_this_hub(snapshot).is_some() {
        critical(Reason::HandedOver, message, Some(next(snapshot, handed)))
    } else {
        let own = handed.is_for(&snapshot.hub).then(|| promote_command(snapshot, false));
        warning(Reason::HandedOver, message, own)
    })
}

/// What the hub that handed over says of itself.
pub(super) fn verdict(
    snapshot: &Snapshot,
    handed: &HandedOver,
    now: Timestamp,
) -> (String, Vec<String>) {
    let (hub, to, at) = (&snapshot.hub, handed.to(), clock(handed.at, now));
    let backup = handed.backup.as_deref().map_or(String::new(), |id| format!(", backup {id}"));
    let headline = format!("{hub} HANDED OVER to {to} at {at}{backup}.");
    let waits = "Nothing is backed up or restored here until a hub is promoted.";
    (headline, vec![waits.to_owned(), next(snapshot, handed)])
}

/// The two ways on.
fn next(snapshot: &Snapshot, handed: &HandedOver) -> String {
    let (there, back) = (promote(snapshot, handed.hub()), promote(snapshot, &snapshot.hub));
    format!("go on: {there}  or take it back: {back}")
}

impl HandedOver {
    fn hub(&self) -> &str {
        if self.to.is_empty() { "HUB" } else { &self.to }
    }
}

/// The command that promotes one of the pair.
fn promote(snapshot: &Snapshot, hub: &str) -> String {
    format!("{} understudy.dev/promote={hub}", annotate_hub(snapshot, hub))
}

/// The answer to whoever asked this hub to hand over.
pub fn told(snapshot: &Snapshot, handed: &HandedOver) -> String {
    let HandedOver { to: _, at, backup } = handed;
    let (hub, to, at) = (&snapshot.hub, handed.to(), full(*at));
    let backup = backup.as_deref().unwrap_or("none");
    let (there, back) = (promote(snapshot, handed.hub()), promote(snapshot, hub));
    format!(
        "{hub} handed over to {to} at {at} with backup {backup}, the last of epoch {}\n\
         promote there:     {there}\n\
         or take it back:   {back}\n\
         written here since that backup, and in none: understudy backup diff {backup}",
        snapshot.epoch
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, ago, now};
    use super::*;

    fn handed(mut snapshot: Snapshot, to: &str) -> Snapshot {
        let backup = snapshot.newest.as_ref().map(|newest| newest.id.clone());
        snapshot.handover.handed = Some(HandedOver { to: to.to_owned(), at: ago(60), backup });
        snapshot
    }

    #[test]
    fn who_handed_over_is_not_ready_and_who_may_take_over_knows_how() {
        let mut gave = handed(samples::primary(), "eu-2");
        gave.role = Some(Role::Passive);
        let found = super::super::problem::problems(&gave, now());
        assert_eq!(found.iter().map(|p| p.reason).collect::<Vec<_>>(), [Reason::HandedOver]);
        assert_eq!(found[0].severity, super::super::problem::Severity::Critical);
        let verdict = super::super::verdict::verdict(&gave, now());
        assert_eq!(
            verdict.headline,
            "eu-1 HANDED OVER to eu-2 at 17:36Z, backup 20261120-173000-42."
        );
        assert!(verdict.sentences[1].contains("understudy.dev/promote=eu-2"), "{verdict:?}");
        assert!(verdict.sentences[1].contains("understudy.dev/promote=eu-1"), "{verdict:?}");
        assert!(!super::super::verdict::standby_ready(&gave, now()));

        for (to, takes) in [("eu-2", true), ("", true), ("eu-3", false)] {
            let found = problem(&handed(samples::passive(), to), now()).unwrap();
            assert_eq!(found.severity, super::super::problem::Severity::Warning);
            assert_eq!(found.hint.is_some(), takes, "{to:?}");
        }
        assert_eq!(problem(&handed(samples::primary(), "eu-2"), now()), None);
    }
}
