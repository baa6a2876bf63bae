//! The shape of the `Hub` resource, and how its status follows from a snapshot. Nothing is decided or
//! read here; the derive gives the types that the API client needs.
//!
//! Words (role, phase, outcome) are plain strings in the schema: a newer daemon must be able to write
//! its status under the CRD of an older release.

use super::ask::Answer;
use crate::object::Set;
use crate::status::conditions::{State, conditions};
use crate::status::handover::HandoverFacts;
use crate::status::pause::Pause;
use crate::status::problem::Reason;
use crate::status::{Guards, Role, Run, Snapshot, Watermark};
use jiff::Timestamp;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Of [`HubStatus::runs`]; the rest stands on the page.
pub const MAX_RUNS: usize = 5;

/// A hub of a pair, as its daemon sees it. There is nothing to configure here.
// The columns repeat `type_ = "string"`, which the lint takes for a slip.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "Hub",
    plural = "hubs",
    namespaced,
    no_spec,
    status = "HubStatus",
    derive = "PartialEq",
    category = "understudy",
    doc = "A hub of an Understudy pair, as its daemon sees it. Its role stands in the repository.",
    printcolumn(name = "Role", type_ = "string", json_path = ".status.role"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Last Backup", type_ = "date", json_path = ".status.lastBackupTime"),
    printcolumn(name = "Data", type_ = "date", json_path = ".status.restoredBackupTime"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Peer", type_ = "string", json_path = ".status.peer.name", priority = 1),
    printcolumn(
        name = "Storage",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='StorageAvailable')].reason",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
pub struct HubFields {}

/// What the daemon reports, and what a promotion and the watermark need over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HubStatus {
    /// primary, passive, promoting or fenced.
    pub role: Option<String>,
    /// Number of the term that this hub believes in.
    #[schemars(with = "i64")]
    pub epoch: u64,
    /// When this hub took its role.
    #[schemars(with = "Option<String>")]
    pub since: Option<Timestamp>,
    /// hub.initialRole of the configuration: counts only while the repository has no term.
    pub configured_role: Option<String>,
    /// The primary, seen from a standby; the first standby, seen from the primary.
    pub peer: Option<PeerStatus>,
    pub sets: Vec<SetStatus>,
    /// Creation time of the newest backup in the repository.
    #[schemars(with = "Option<String>")]
    pub last_backup_time: Option<Timestamp>,
    /// Creation time of the data that this standby holds.
    #[schemars(with = "Option<String>")]
    pub restored_backup_time: Option<Timestamp>,
    /// Durable: the promotion goes on from here after a restart.
    pub promotion: Option<PromotionStatus>,
    /// A term that was given up. Durable: under which term this hub rejoined.
    pub handover: HandoverFacts,
    /// Durable: what an operator paused, until when and why. Absent: nothing is paused.
    pub pause: Option<Pause>,
    /// What the daemon did about the last requests of the command line, newest first.
    pub answers: Vec<Answer>,
    /// Durable: how far the journal was verified. Never falls back.
    pub watermark: Option<Watermark>,
    /// Newest first.
    pub runs: Vec<RunStatus>,
    pub conditions: Vec<ConditionStatus>,
    pub observed_generation: Option<i64>,
    /// When the daemon last wrote this. It is older than a few minutes: nobody reports any more.
    #[schemars(with = "Option<String>")]
    pub reported_at: Option<Timestamp>,
    /// Everything the daemon knew, for `understudy status`. Not an interface.
    #[schemars(schema_with = "anything")]
    pub facts: Option<serde_json::Value>,
}

fn anything(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "Everything the daemon knew, for `understudy status`. Not an interface.",
        "type": "object",
        "nullable": true,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    pub name: String,
    pub role: Option<String>,
    #[schemars(with = "Option<String>")]
    pub last_heartbeat: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetStatus {
    pub name: String,
    /// Id of the newest backup in the repository.
    pub newest: Option<String>,
    /// Id of the backup that this hub holds.
    pub restored: Option<String>,
    #[schemars(with = "i64")]
    pub objects: u64,
    pub outcome: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PromotionStatus {
    pub request: Option<String>,
    #[schemars(with = "Option<i64>")]
    pub expected_epoch: Option<u64>,
    pub trigger: Option<String>,
    /// The operator's reason, when the request vouches for the primary's death.
    pub forced: Option<String>,
    pub guards: Guards,
    pub phase: Option<String>,
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    #[schemars(with = "Option<String>")]
    pub finished_at: Option<Timestamp>,
    pub backup: Option<String>,
    #[schemars(with = "Option<i64>")]
    pub data_loss_seconds: Option<u64>,
    /// How long the clusters are waited for.
    #[schemars(with = "Option<String>")]
    pub clusters_until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    pub what: String,
    #[schemars(with = "String")]
    pub at: Timestamp,
    pub seconds: f64,
    pub outcome: String,
    pub backup: Option<String>,
    #[schemars(with = "i64")]
    pub changed: u64,
    #[schemars(with = "i64")]
    pub failed: u64,
}

/// The shape of KEP-1623.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionStatus {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    #[schemars(with = "String")]
    pub last_transition_time: Timestamp,
    pub observed_generation: Option<i64>,
}

impl HubStatus {
    /// What a snapshot says, on top of what stood there before: a transition keeps its time, the
    /// watermark never falls back, and what a starting daemon does not know yet stays as it was.
    pub fn of(
        snapshot: &Snapshot,
        previous: Option<&HubStatus>,
        generation: Option<i64>,
        now: Timestamp,
    ) -> Self {
        let nothing = HubStatus::default();
        let previous = previous.unwrap_or(&nothing);
        let conditions = current_conditions(snapshot, previous, generation, now);
        let watermark = further(snapshot.watermark.as_ref(), previous.watermark.as_ref());
        let configured_role = configured(snapshot);
        let facts = facts(snapshot);
        let Some(role) = snapshot.role else {
            return HubStatus {
                configured_role,
                watermark,
                conditions,
                observed_generation: generation,
                reported_at: Some(now),
                facts: Some(facts),
                ..previous.clone()
            };
        };
        let passive = role == Role::Passive;
        HubStatus {
            role: Some(role.name().to_owned()),
            epoch: snapshot.epoch,
            since: snapshot.role_since,
            configured_role,
            peer: peer(snapshot),
            sets: Set::ALL.map(|set| set_status(snapshot, set)).into(),
            last_backup_time: snapshot.newest.as_ref().map(|newest| newest.at),
            restored_backup_time: snapshot
                .sync
                .restored
                .as_ref()
                .filter(|_| passive)
                .map(|held| held.at),
            promotion: promotion(snapshot),
            handover: (*snapshot.handover).clone(),
            pause: snapshot.pause.clone(),
            answers: snapshot.answers.clone(),
            watermark,
            runs: snapshot.runs.iter().take(MAX_RUNS).map(run).collect(),
            conditions,
            observed_generation: generation,
            reported_at: Some(now),
            facts: Some(facts),
        }
    }

    /// The snapshot that the daemon last wrote; None when it wrote none or one of another shape.
    pub fn snapshot(&self) -> Option<Snapshot> {
        serde_json::from_value(self.facts.clone()?).ok()
    }
}

/// The snapshot without what would make the resource large.
fn facts(snapshot: &Snapshot) -> serde_json::Value {
    const MAX_LISTED: usize = 20;
    let mut small = snapshot.clone();
    small.runs.truncate(MAX_RUNS);
    // They stand beside it.
    small.answers.clear();
    small.promotion.failed.truncate(MAX_LISTED);
    small.backup.failed_groups.truncate(MAX_LISTED);
    small.peers.truncate(MAX_LISTED);
    small.verify.damaged.truncate(MAX_LISTED);
    while small.sync.failed.len() > MAX_LISTED {
        small.sync.failed.pop_last();
    }
    serde_json::to_value(&small).unwrap_or_default()
}

fn configured(snapshot: &Snapshot) -> Option<String> {
    let value = serde_json::to_value(snapshot.configured_role).ok()?;
    value.as_str().map(str::to_owned)
}

fn further(new: Option<&Watermark>, old: Option<&Watermark>) -> Option<Watermark> {
    match (new, old) {
        (Some(new), Some(old)) if new.slot < old.slot => Some(old.clone()),
        (new, old) => new.or(old).cloned(),
    }
}

fn current_conditions(
    snapshot: &Snapshot,
    previous: &HubStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<ConditionStatus> {
    conditions(snapshot, now)
        .into_iter()
        .map(|condition| {
            let kind = condition.kind.word();
            let status = condition.status.word().to_owned();
            let before = previous.conditions.iter().find(|before| before.kind == kind);
            let since = before.filter(|before| before.status == status);
            ConditionStatus {
                kind,
                status,
                reason: condition.reason.word(),
                message: condition.message,
                last_transition_time: since.map_or(now, |before| before.last_transition_time),
                observed_generation: generation,
            }
        })
        .collect()
}

fn peer(snapshot: &Snapshot) -> Option<PeerStatus> {
    let standby = || snapshot.peers.iter().find(|peer| peer.role == Some(Role::Passive));
    let peer = if snapshot.role == Some(Role::Primary) {
        standby().or(snapshot.peers.first())
    } else {
        snapshot.primary_peer().or(snapshot.peers.first())
    }?;
    Some(PeerStatus {
        name: peer.hub.clone(),
        role: peer.role.map(|role| role.name().to_owned()),
        last_heartbeat: Some(peer.heartbeat_at),
    })
}

fn set_status(snapshot: &Snapshot, set: Set) -> SetStatus {
    // Activation is held back on a standby.
    let held = snapshot
        .sync
        .restored
        .as_ref()
        .filter(|_| snapshot.role == Some(Role::Passive) && set != Set::Activation);
    let newest = snapshot.newest.as_ref();
    let objects = held.or(newest).and_then(|backup| backup.sets.get(&set));
    let outcome = match snapshot.role {
        Some(Role::Primary) => snapshot.backup.last_outcome,
        Some(Role::Passive) if set != Set::Activation => snapshot.sync.last_outcome,
        Some(Role::Passive | Role::Promoting | Role::Fenced) | None => None,
    };
    SetStatus {
        name: set.name().to_owned(),
        newest: newest.map(|newest| newest.id.clone()),
        restored: held.map(|held| held.id.clone()),
        objects: objects.map_or(0, |summary| summary.objects),
        outcome: outcome.map(|outcome| outcome.name().to_owned()),
    }
}

fn promotion(snapshot: &Snapshot) -> Option<PromotionStatus> {
    let facts = &snapshot.promotion;
    facts.phase.as_ref()?;
    Some(PromotionStatus {
        request: facts.request.clone(),
        expected_epoch: facts.expected_epoch,
        trigger: facts.trigger.clone(),
        forced: facts.forced.clone(),
        guards: facts.guards.clone(),
        phase: facts.phase.clone(),
        started_at: facts.started_at,
        finished_at: facts.finished_at,
        backup: facts.base.clone(),
        data_loss_seconds: facts.data_loss_seconds,
        clusters_until: snapshot.clusters.until,
    })
}

fn run(run: &Run) -> RunStatus {
    RunStatus {
        what: run.what.clone(),
        at: run.at,
        seconds: run.seconds,
        outcome: run.outcome.name().to_owned(),
        backup: run.backup.clone(),
        changed: run.changed,
        failed: run.failed,
    }
}

/// The `CustomResourceDefinition` as YAML, for `understudy crd | kubectl apply -f -`.
///
/// # Errors
///
/// When the schema cannot be written as YAML, which the tests rule out.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(&Hub::crd())
}

/// For readers that only have the resource: the condition `Ready`.
pub fn ready(status: &HubStatus) -> (State, Reason) {
    let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
    ready.map_or((State::Unknown, Reason::Starting), |condition| {
        let state = match condition.status.as_str() {
            "True" => State::True,
            "False" => State::False,
            _ => State::Unknown,
        };
        (state, Reason::from_word(&condition.reason, Reason::Starting))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{self, ago, now};

    #[test]
    fn the_shipped_definition_is_the_one_of_this_program() {
        let shipped = include_str!("../../deploy/crd.yaml");
        assert_eq!(shipped, crd_yaml().unwrap(), "understudy crd > deploy/crd.yaml");
    }

    #[test]
    fn the_facts_of_the_resource_are_the_snapshot() {
        let snapshot = samples::passive();
        let status = HubStatus::of(&snapshot, None, Some(1), now());
        let json = serde_json::to_string(&status).unwrap();
        assert!(json.len() < 16_000, "{} bytes", json.len());
        let read: HubStatus = serde_json::from_str(&json).unwrap();
        assert_eq!(read, status);
        let expected = Snapshot { backups: std::sync::Arc::default(), ..snapshot };
        assert_eq!(read.snapshot(), Some(expected));
        assert_eq!(ready(&read), (State::True, Reason::InSync));
    }

    #[test]
    fn a_daemon_that_starts_keeps_what_stands_there() {
        let before = HubStatus::of(&samples::promoting(), None, Some(1), ago(100));
        let mut starting = samples::starting();
        starting.watermark = Some(Watermark { slot: 9, digest: "0".into() });
        let after = HubStatus::of(&starting, Some(&before), Some(1), now());
        assert_eq!(after.role.as_deref(), Some("promoting"));
        assert_eq!(after.epoch, 8);
        assert_eq!(after.promotion, before.promotion);
        assert_eq!(after.watermark.map(|mark| mark.slot), Some(42), "it never falls back");
        assert_eq!(ready(&HubStatus { conditions: after.conditions, ..before }).0, State::Unknown);
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let since = |status: &HubStatus, kind: &str| {
            let found = status.conditions.iter().find(|condition| condition.kind == kind).unwrap();
            found.last_transition_time
        };
        let first = HubStatus::of(&samples::passive(), None, None, ago(100));
        let mut away = samples::passive();
        away.storage.up = Some(false);
        let second = HubStatus::of(&away, Some(&first), None, now());
        assert_eq!(since(&second, "StorageAvailable"), now());
        assert_eq!(since(&second, "Synced"), ago(100));
        away.storage.error = Some("another message".to_owned());
        let third =
            HubStatus::of(&away, Some(&second), None, now() + jiff::SignedDuration::from_secs(9));
        assert_eq!(since(&third, "StorageAvailable"), now());
    }

    #[test]
    fn the_crd_has_the_documented_columns_and_a_status_of_its_own() {
        let yaml = crd_yaml().unwrap();
        let crd: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        let version = &crd["spec"]["versions"][0];
        let columns: Vec<&str> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            columns,
            [
                "Role",
                "Ready",
                "Reason",
                "Last Backup",
                "Data",
                "Epoch",
                "Age",
                "Peer",
                "Storage",
                "Message"
            ]
        );
        assert_eq!(crd["metadata"]["name"], "hubs.understudy.dev");
        assert_eq!(crd["spec"]["scope"], "Namespaced");
        assert_eq!(crd["spec"]["names"]["categories"][0], "understudy");
        assert!(version["subresources"]["status"].is_object());
        let facts =
            &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["facts"];
        assert_eq!(facts["x-kubernetes-preserve-unknown-fields"], true);
    }
}
