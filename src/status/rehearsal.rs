//! Pure: what the last rehearsal found: whether this hub would take the activation set, were it
//! promoted now.

use super::problem::{Problem, Reason, warning};
use super::words::{count, plural};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RehearsalFacts {
    pub last_attempt_at: Option<Timestamp>,
    /// When it came to its end and nothing was refused.
    pub last_success_at: Option<Timestamp>,
    /// Why the last one did not come to its end.
    pub last_error: Option<String>,
    /// The backup whose activation set was tried.
    pub backup: Option<String>,
    /// Objects that a promotion would write and that were tried as they are in that backup.
    pub tried: u64,
    /// Objects that this hub does not take, by kind. They are tried again after every sync.
    pub failed: BTreeMap<String, u64>,
    /// The first of them, each with the reason. Never holds what may be secret.
    pub named: Vec<String>,
    /// Objects whose namespace or kind only the promotion brings along.
    pub untried: u64,
}

impl RehearsalFacts {
    pub fn failed_objects(&self) -> u64 {
        self.failed.values().sum()
    }

    /// `false`: not tried at all, not to the end, or something was refused.
    pub fn is_clean(&self) -> bool {
        self.last_attempt_at.is_some() && self.last_error.is_none() && self.failed.is_empty()
    }

    pub fn sentence(&self) -> String {
        if self.last_attempt_at.is_none() {
            return "the activation set was not tried here yet".to_owned();
        }
        let tried = objects(self.tried);
        let failed = match self.failed_objects() {
            0 => ", none was refused".to_owned(),
            failed => format!(", {} refused ({})", count(failed), self.kinds()),
        };
        let untried = match self.untried {
            0 => String::new(),
            untried => {
                let untried = count(untried);
                format!(", {untried} cannot be tried before their namespace or kind is there")
            }
        };
        let error = self.last_error.as_ref();
        let error = error.map_or(String::new(), |why| format!("; not to the end: {why}"));
        format!("{tried} tried{failed}{untried}{error}")
    }

    fn kinds(&self) -> String {
        const MAX_KINDS: usize = 5;
        let kinds = self.failed.iter().take(MAX_KINDS);
        let kinds: Vec<_> = kinds.map(|(kind, failed)| format!("{failed} {kind}")).collect();
        let more = if self.failed.len() > MAX_KINDS { ", …" } else { "" };
        format!("{}{more}", kinds.join(", "))
    }
}

fn objects(number: u64) -> String {
    plural(usize::try_from(number).unwrap_or(usize::MAX), "object", "objects")
}

/// A warning: whoever promotes in a disaster takes what can be had.
pub(super) fn problem(facts: &RehearsalFacts) -> Option<Problem> {
    let first = facts.named.first()?;
    let refused = objects(facts.failed_objects());
    let message =
        format!("{refused} would be refused by this hub ({}), such as {first}", facts.kinds());
    let hint = "mend the webhook, definition or right on this hub: what failed is tried again after \
                the next sync";
    Some(warning(Reason::RehearsalFailed, message, Some(hint.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_is_told_in_one_sentence() {
        let at = Some(Timestamp::UNIX_EPOCH);
        let tried = RehearsalFacts { last_attempt_at: at, tried: 1200, ..Default::default() };
        let failed: BTreeMap<_, _> = [("managedclusters.x.io".to_owned(), 2)].into();
        let named = vec!["managedclusters.x.io c1: denied".to_owned()];
        for (facts, clean, expected) in [
            (RehearsalFacts::default(), false, "the activation set was not tried here yet"),
            (tried.clone(), true, "1,200 objects tried, none was refused"),
            (
                RehearsalFacts { untried: 3, ..tried.clone() },
                true,
                "1,200 objects tried, none was refused, 3 cannot be tried before their namespace or \
                 kind is there",
            ),
            (
                RehearsalFacts { last_error: Some("stopped".to_owned()), ..tried.clone() },
                false,
                "1,200 objects tried, none was refused; not to the end: stopped",
            ),
            (
                RehearsalFacts { failed, named, ..tried },
                false,
                "1,200 objects tried, 2 refused (2 managedclusters.x.io)",
            ),
        ] {
            assert_eq!((facts.is_clean(), &*facts.sentence()), (clean, expected));
            assert_eq!(problem(&facts).is_some(), !facts.failed.is_empty());
        }
    }
}
