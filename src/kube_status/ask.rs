//! What the command line asks of a running daemon: an annotation on its `Hub`, answered in the status.
//!
//! The command line never writes the journal. A request is handled once: recorded, removed under the
//! condition that it is still the same, and answered under its id.

use super::{FIELD_MANAGER, Hub, HubError, api};
use kube::api::{Patch, PatchParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;

pub const REQUEST: &str = "understudy.dev/request";

/// An annotation may hold 256 KiB; a request has some hundred bytes.
const MAX_REQUEST: usize = 4096;

/// A reason stands on the page, in a condition, in an Event and in the log.
const MAX_REASON: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Chosen by who asks, to find the answer.
    pub id: String,
    pub verb: Verb,
    /// Why, in the words of who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    BackupRun,
    /// No backups by the schedule any more.
    BackupPause {
        /// None: until they are resumed.
        seconds: Option<u64>,
    },
    BackupResume,
    /// Carry out the retention rules now.
    BackupPrune,
    BackupDelete {
        /// Slots of their commits.
        backups: BTreeSet<u64>,
    },
    /// The suspect backup whose commit stands in this slot is in order.
    BackupAck {
        slot: u64,
    },
    /// The journal changes to the first key of the hub that is asked.
    KeyRotate {
        /// Also if a hub that is alive does not hold it.
        force: bool,
    },
    /// The primary gives its term up, with a last backup.
    Demote {
        /// Name of the hub that it is for. None: any of the pair.
        to: Option<String>,
        /// Only tell what would be done.
        dry_run: bool,
    },
    /// A passive hub rehearses its promotion.
    Drill,
    /// A fenced hub follows the hub that superseded it.
    Rejoin,
    /// A passive hub follows the primary once, now.
    SyncNow,
    /// It does not follow any more.
    SyncPause {
        /// None: until it is resumed.
        seconds: Option<u64>,
    },
    SyncResume,
    /// The deletions that are held under this id may go.
    SyncAck {
        plan: String,
    },
}

impl Verb {
    /// Of the primary. The others are of a passive hub, and `Rejoin` is of a fenced one.
    pub fn is_for_primary(&self) -> bool {
        match self {
            Self::BackupRun
            | Self::BackupPause { .. }
            | Self::BackupResume
            | Self::BackupPrune
            | Self::BackupDelete { .. }
            | Self::BackupAck { .. }
            | Self::KeyRotate { .. }
            | Self::Demote { .. } => true,
            Self::Drill
            | Self::Rejoin
            | Self::SyncNow
            | Self::SyncPause { .. }
            | Self::SyncResume
            | Self::SyncAck { .. } => false,
        }
    }
}

/// Backups that one request may name, so that it fits.
pub const MOST_DELETED: usize = 100;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    pub id: String,
    /// success, partial, failed or refused.
    pub outcome: String,
    pub message: String,
    /// What would help, a command where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// None: nobody asks. `Err`: what is written there is no request.
pub fn asked(hub: &Hub) -> Option<Result<Ask, String>> {
    let text = hub.metadata.annotations.as_ref()?.get(REQUEST)?;
    if text.len() > MAX_REQUEST {
        return Some(Err(format!("the annotation {REQUEST} is longer than {MAX_REQUEST} bytes")));
    }
    let read = serde_json::from_str(text).map(|ask: Ask| {
        let reason = ask.reason.as_deref().map(plain).filter(|reason| !reason.is_empty());
        Ask { reason, ..ask }
    });
    Some(read.map_err(|error| format!("the annotation {REQUEST} is no request: {error}")))
}

/// One line, and not a long one.
fn plain(reason: &str) -> String {
    let letter = |letter: char| if letter.is_control() { ' ' } else { letter };
    reason.trim().chars().map(letter).take(MAX_REASON).collect()
}

/// The version of the `Hub` upon which a request may be written as `annotation`: no other one waits
/// there.
pub fn free<'h>(hub: &'h Hub, annotation: &str) -> Option<&'h str> {
    let taken = hub.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(annotation));
    hub.metadata.resource_version.as_deref().filter(|_| !taken)
}

/// Writes the request onto the `Hub`, if that still stands at `version`; with none, over whatever
/// stands there. Whether it was written.
pub async fn ask(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    (annotation, text): (&str, &str),
    version: Option<&str>,
) -> Result<bool, HubError> {
    let mut patch = json!({"metadata": {"annotations": {annotation: text}}});
    if let Some(version) = version {
        patch["metadata"]["resourceVersion"] = version.into();
    }
    let params =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patched = api(client, namespace).patch(name, &params, &Patch::Merge(&patch)).await;
    match patched {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(false),
        Err(source) => {
            Err(HubError::Ask { namespace: namespace.to_owned(), name: name.to_owned(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_status::HubFields;

    #[test]
    fn a_reason_is_one_short_line() {
        for (reason, expected) in [
            (" new\nnodes\u{1b}[2J ".to_owned(), Some("new nodes [2J".to_owned())),
            ("é".repeat(300), Some("é".repeat(MAX_REASON))),
            ("  ".to_owned(), None),
        ] {
            let ask = Ask { id: "x".to_owned(), verb: Verb::BackupRun, reason: Some(reason) };
            let mut hub = Hub::new("eu-1", HubFields {});
            let text = serde_json::to_string(&ask).unwrap();
            hub.metadata.annotations = Some([(REQUEST.to_owned(), text)].into());
            assert_eq!(asked(&hub).unwrap().unwrap().reason, expected);
        }
    }

    #[test]
    fn only_a_request_is_a_request() {
        let check = |value: Option<&str>| {
            let mut hub = Hub::new("eu-1", HubFields {});
            hub.metadata.annotations =
                value.map(|value| [(REQUEST.to_owned(), value.to_owned())].into());
            asked(&hub).map(|asked| asked.is_ok())
        };
        assert_eq!(check(None), None);
        assert_eq!(check(Some(r#"{"id":"x","verb":"backup-run"}"#)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":"backup-prune"}"#)), Some(true));
        let delete = r#"{"id":"x","verb":{"backup-delete":{"backups":[4,5]}}}"#;
        assert_eq!(check(Some(delete)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":"backup-delete"}"#)), Some(false));
        assert_eq!(check(Some(r#"{"id":"x","verb":{"backup-ack":{"slot":7}}}"#)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":{"key-rotate":{"force":true}}}"#)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":"key-rotate"}"#)), Some(false));
        let pause = r#"{"id":"x","verb":{"backup-pause":{"seconds":60}},"reason":"r"}"#;
        assert_eq!(check(Some(pause)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":{"sync-pause":{}}}"#)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":{"sync-ack":{"plan":"p"}}}"#)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":"sync-ack"}"#)), Some(false));
        assert_eq!(check(Some(r#"{"id":"x","verb":"backup-pause"}"#)), Some(false));
        assert_eq!(
            check(Some(r#"{"id":"x","verb":{"demote":{"to":"eu-2","dry_run":false}}}"#)),
            Some(true)
        );
        assert_eq!(check(Some(r#"{"id":"x","verb":"demote"}"#)), Some(false));
        assert_eq!(check(Some(r#"{"id":"x","verb":"rejoin"}"#)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":"drill"}"#)), Some(true));
        assert_eq!(check(Some(r#"{"id":"x","verb":"format-disk"}"#)), Some(false));
        assert_eq!(check(Some(r#"{"id":"x","verb":"backup-run","more":1}"#)), Some(false));
        assert_eq!(check(Some("yes")), Some(false));
        assert_eq!(check(Some(&" ".repeat(5000))), Some(false));
        let backups = (0..MOST_DELETED as u64).map(|n| u64::MAX - n).collect();
        let most = Ask { id: "f".repeat(32), verb: Verb::BackupDelete { backups }, reason: None };
        assert_eq!(check(Some(&serde_json::to_string(&most).unwrap())), Some(true));
    }
}
