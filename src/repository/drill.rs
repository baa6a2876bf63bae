//! Pure: what a hub writes down of its drills, in its heartbeat: a passive hub may write that and
//! nothing else that is overwritten. Counts and kinds, no names of objects.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of [`Drill::failed`]; a heartbeat has little room.
pub const MAX_KINDS: usize = 20;

/// Of [`Drill::error`], in characters.
const MAX_ERROR: usize = 300;

/// A promotion that was rehearsed, every name one word.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drill {
    /// When it ended, by the hub's own clock.
    pub at: Timestamp,
    /// Id of the backup.
    pub backup: String,
    /// Of all its steps.
    pub seconds: f64,
    /// All packs fetched from the storage, verified, decrypted and counted.
    pub opening: f64,
    /// What this hub serves was asked, and the plan made and checked.
    pub planning: f64,
    /// Everything that a promotion would write was tried.
    pub trying: f64,
    /// Objects that were sent to this hub's API server, in a dry run.
    pub tried: u64,
    /// Objects whose namespace or kind only the promotion brings along.
    pub untried: u64,
    /// Objects that this hub would not take, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// Why it did not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The last one, and the last one that found nothing wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drills {
    pub last: Option<Drill>,
    pub success: Option<Drill>,
}

impl Drill {
    /// Of any length before.
    #[must_use]
    pub fn bounded(self) -> Self {
        let mut failed = self.failed;
        let others: u64 = failed.values().skip(MAX_KINDS).sum();
        if others > 0 {
            failed = failed.into_iter().take(MAX_KINDS).collect();
            failed.insert("other kinds".to_owned(), others);
        }
        let error = self.error.map(|error| error.chars().take(MAX_ERROR).collect());
        Self { failed, error, ..self }
    }

    /// It came to its end, and nothing would have been refused.
    pub fn succeeded(&self) -> bool {
        self.error.is_none() && self.failed.is_empty()
    }

    pub fn failed_objects(&self) -> u64 {
        self.failed.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_has_a_bound_and_loses_no_count() {
        let failed: BTreeMap<_, _> = (0..50).map(|n| (format!("kind-{n:02}"), 2)).collect();
        let drill = Drill { failed, error: Some("é".repeat(1000)), ..Drill::default() };
        let found = drill.clone().bounded();
        assert_eq!((found.failed.len(), found.failed_objects()), (MAX_KINDS + 1, 100));
        assert_eq!(found.error.as_ref().map(|error| error.chars().count()), Some(MAX_ERROR));
        assert_eq!(found.clone().bounded().failed_objects(), 100);
        assert!(serde_json::to_vec(&found).unwrap().len() < 4096);
    }

    #[test]
    fn only_what_came_to_its_end_unrefused_succeeded() {
        let failed: BTreeMap<_, _> = [("x".to_owned(), 1)].into();
        let error = || Some("away".to_owned());
        for (failed, error, expected) in [
            (BTreeMap::new(), None, true),
            (failed.clone(), None, false),
            (BTreeMap::new(), error(), false),
            (failed, error(), false),
        ] {
            assert_eq!(Drill { failed, error, ..Drill::default() }.succeeded(), expected);
        }
    }
}
