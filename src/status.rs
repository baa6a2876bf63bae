//! The one `Status` value behind the command line, the page, the `Hub` resource, the metrics and the API.
//!
//! Loops write facts into the [`Board`]; everything shown is derived from one snapshot of it, by the
//! pure files below this one: [`problem`] (what is wrong, worst first), [`verdict`] (the sentences),
//! [`conditions`] (the `Hub` resource) and [`notice`] (what changed, for Events and notifications).
//!
//! A snapshot travels: the `Hub` resource and `/api/v1/status` carry it, and a command line of
//! another version reads it. Therefore fields may be added, never renamed, and every field that was
//! added has a default.

mod board;
pub mod clusters;
pub mod conditions;
pub mod drill;
pub mod handover;
pub mod held;
mod newest;
pub mod notice;
pub mod pause;
mod peer;
pub mod problem;
mod reason;
pub mod rehearsal;
#[cfg(test)]
pub(crate) mod samples;
pub mod verdict;
pub mod verification;
pub mod words;

pub use board::Board;
pub use drill::DrillFacts;
pub use rehearsal::RehearsalFacts;
pub use verification::VerifyFacts;

use crate::object::Set;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use peer::{Peer, Standby};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Primary,
    Passive,
    Promoting,
    Fenced,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Primary, Role::Passive, Role::Promoting, Role::Fenced];

    pub fn name(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Passive => "passive",
            Role::Promoting => "promoting",
            Role::Fenced => "fenced",
        }
    }
}

/// Everything this hub knows about itself and its pair. Facts only; verdicts are derived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub hub: String,
    pub pair: String,
    /// Where the `Hub` resource stands; commands that are shown name it.
    #[serde(default)]
    pub namespace: String,
    /// Of the daemon.
    #[serde(default)]
    pub version: String,
    /// UID of the namespace `kube-system`; empty until the API server answered once.
    pub hub_id: String,
    pub configured_role: crate::config::settings::InitialRole,
    pub started_at: Timestamp,
    /// None until the journal (or, while the storage is away, the `Hub` resource) has told it.
    pub role: Option<Role>,
    /// The highest term known; 0: none yet.
    pub epoch: u64,
    /// When that term began, by the clock of its holder.
    #[serde(default)]
    pub term_since: Option<Timestamp>,
    pub role_since: Option<Timestamp>,
    /// Why this hub does not act on the repository although it could be read.
    pub frozen: Option<Frozen>,
    /// Who superseded this hub (role `fenced`), or holds the term.
    pub holder: Option<String>,
    /// Another process that writes under this hub's name, or a second primary.
    #[serde(default)]
    pub writer_conflict: Option<String>,
    #[serde(default)]
    pub objectives: Objectives,
    #[serde(default)]
    pub config: ConfigFacts,
    #[serde(default)]
    pub keys: KeyFacts,
    /// How far this hub has verified the journal. Never falls back (I17).
    #[serde(default)]
    pub watermark: Option<Watermark>,
    pub storage: StorageFacts,
    pub kubernetes_error: Option<String>,
    pub backup: BackupFacts,
    /// Newest backup in the storage, whoever wrote it.
    pub newest: Option<BackupSummary>,
    /// Newest backup that a standby may use, while the newest of all is suspect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<BackupSummary>,
    /// Newest first, at most [`MAX_BACKUPS`]. Behind `/api/v1/backups` only: it would make the
    /// `Hub` resource large.
    #[serde(skip)]
    pub backups: Arc<[BackupSummary]>,
    pub backups_in_storage: usize,
    pub oldest_backup_at: Option<Timestamp>,
    /// What retention did; on a primary.
    #[serde(default)]
    pub sweep: SweepFacts,
    pub sync: SyncFacts,
    #[serde(default)]
    pub verify: VerifyFacts,
    #[serde(default)]
    pub drill: Box<DrillFacts>,
    pub peers: Vec<Peer>,
    pub promotion: PromotionFacts,
    #[serde(default)]
    pub handover: Box<handover::HandoverFacts>,
    #[serde(default)]
    pub clusters: Box<clusters::ClusterFacts>,
    /// An operator stopped what this hub does by itself.
    #[serde(default)]
    pub pause: Option<pause::Pause>,
    /// What became of the last requests of the command line: newest first, at most [`MAX_ANSWERS`].
    #[serde(default)]
    pub answers: Vec<crate::kube_status::ask::Answer>,
    /// Last tick of each loop by name (`backup`, `sync`, `promotion`, `probe`).
    pub loops: BTreeMap<String, Timestamp>,
    /// Newest first, at most [`MAX_RUNS`].
    pub runs: Vec<Run>,
}

/// Of [`Snapshot::runs`]: what fits on one page.
pub const MAX_RUNS: usize = 20;
/// Of [`Snapshot::answers`], and of requests that wait for the same run.
pub const MAX_ANSWERS: usize = 16;
/// Of [`Snapshot::backups`]: two days at one an hour.
pub const MAX_BACKUPS: usize = 50;
/// A loop that has not turned for so long is stalled: `/livez` fails and the pod is restarted.
pub const STALLED_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// Who a daemon is, before it has seen anything.
#[derive(Clone, Debug)]
pub struct Identity {
    pub hub: String,
    pub pair: String,
    pub namespace: String,
    pub configured_role: crate::config::settings::InitialRole,
    pub objectives: Objectives,
    pub storage_location: String,
}

impl Snapshot {
    /// What is known before the first look: nothing but the configuration.
    pub fn starting(identity: Identity, now: Timestamp) -> Self {
        let Identity { hub, pair, namespace, configured_role, objectives, storage_location } =
            identity;
        Self {
            hub,
            pair,
            namespace,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hub_id: String::new(),
            configured_role,
            started_at: now,
            role: None,
            epoch: 0,
            term_since: None,
            role_since: None,
            frozen: None,
            holder: None,
            writer_conflict: None,
            objectives,
            config: ConfigFacts { loaded_at: Some(now), ..ConfigFacts::default() },
            keys: KeyFacts::default(),
            watermark: None,
            storage: StorageFacts { location: storage_location, ..StorageFacts::default() },
            kubernetes_error: None,
            backup: BackupFacts::default(),
            newest: None,
            in_force: None,
            backups: Arc::default(),
            backups_in_storage: 0,
            oldest_backup_at: None,
            sweep: SweepFacts::default(),
            sync: SyncFacts::default(),
            verify: VerifyFacts::default(),
            drill: Box::default(),
            peers: Vec::new(),
            promotion: PromotionFacts::default(),
            handover: Box::default(),
            clusters: Box::default(),
            pause: None,
            answers: Vec::new(),
            loops: BTreeMap::new(),
            runs: Vec::new(),
        }
    }

    /// What a standby holds or is to hold, and what a promotion starts from.
    pub fn usable(&self) -> Option<&BackupSummary> {
        let newest = self.newest.as_ref().filter(|newest| newest.suspect.is_none());
        self.in_force.as_ref().or(newest)
    }

    /// The hub that holds the term as far as its heartbeat tells, unless it is this one.
    pub fn primary_peer(&self) -> Option<&Peer> {
        let named = |peer: &&Peer| Some(&peer.hub) == self.holder.as_ref();
        self.peers
            .iter()
            .find(named)
            .or_else(|| self.peers.iter().find(|peer| peer.role == Some(Role::Primary)))
    }

    /// Puts a run in front and drops what no longer fits.
    pub fn add_run(&mut self, run: Run) {
        self.runs.insert(0, run);
        self.runs.truncate(MAX_RUNS);
    }

    /// Puts an answer in front and drops what no longer fits.
    pub fn add_answer(&mut self, answer: crate::kube_status::ask::Answer) {
        self.answers.insert(0, answer);
        self.answers.truncate(MAX_ANSWERS);
    }

    /// The loops that have not turned for [`STALLED_AFTER`], with the time of their last tick.
    pub fn stalled_loops(&self, now: Timestamp) -> Vec<(&str, Timestamp)> {
        self.loops
            .iter()
            .filter(|(_, last)| now.duration_since(**last) > STALLED_AFTER)
            .map(|(name, last)| (name.as_str(), *last))
            .collect()
    }
}

/// What the operator wants, so that neither rules nor sentences need constants. 0: none set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Objectives {
    pub rpo_seconds: u64,
    pub rto_seconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFacts {
    /// Short digest of the effective settings.
    pub hash: String,
    /// When the running settings were read.
    pub loaded_at: Option<Timestamp>,
    /// Why a later reload was rejected; the older settings go on.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyFacts {
    pub known: usize,
    /// Whether the newest backup could be opened with them. None: not tried yet.
    pub newest_opens: Option<bool>,
    /// Which key is missing or wrong, never the key.
    pub error: Option<String>,
    /// Hubs that are alive under a key that this hub does not hold, with its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<String, String>,
}

/// How far the journal was verified: the slot and the digest of the record in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Watermark {
    #[schemars(with = "i64")]
    pub slot: u64,
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// A word of the closed list of reasons, e.g. `JunkRecord`, `JournalHole`, `HubReplaced`.
    pub reason: String,
    pub message: String,
    /// What the operator can do, a command where there is one.
    pub hint: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageFacts {
    /// `s3://bucket/prefix/` or a path.
    pub location: String,
    /// None: not tried yet.
    pub up: Option<bool>,
    pub error: Option<String>,
    pub last_probe_at: Option<Timestamp>,
    pub latency_seconds: Option<f64>,
    pub clock_skew_seconds: Option<f64>,
    /// Whether create-if-absent was proven atomic. None: not probed yet.
    pub atomic_create: Option<bool>,
    pub probe_verdict: Option<String>,
    /// When that was.
    pub raced_at: Option<Timestamp>,
    pub allow_unfenced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Success,
    Partial,
    Failed,
    Refused,
    Skipped,
    /// A sync that wrote something.
    Changed,
    /// A sync that found nothing new.
    Unchanged,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
            Outcome::Skipped => "skipped",
            Outcome::Changed => "changed",
            Outcome::Unchanged => "unchanged",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupFacts {
    pub running_since: Option<Timestamp>,
    pub timeout_seconds: u64,
    pub last_attempt_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    pub last_outcome: Option<Outcome>,
    pub last_error: Option<String>,
    pub next_run_at: Option<Timestamp>,
    /// When the next success is due at the latest.
    pub deadline_at: Option<Timestamp>,
    /// API groups whose discovery or list failed in the last run.
    pub failed_groups: Vec<String>,
}

/// A backup as everybody may see it: no names of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupSummary {
    /// `20261120-173007-42`
    pub id: String,
    pub slot: u64,
    pub epoch: u64,
    pub hub: String,
    /// Wall time of the writer.
    pub at: Timestamp,
    pub sets: BTreeMap<Set, SetSummary>,
    pub suspect: Option<String>,
    pub partial: Vec<String>,
    pub packs_written: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetSummary {
    pub objects: u64,
    /// Sealed bytes of all levels.
    pub bytes: u64,
    /// Added + changed + removed against the backup before.
    pub changed: u64,
}

/// The last sweep: what retention took away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SweepFacts {
    pub running_since: Option<Timestamp>,
    pub last_at: Option<Timestamp>,
    pub last_outcome: Option<Outcome>,
    /// What it did, or why it ended early.
    pub message: String,
    /// Backups that are no longer offered since then.
    pub retired: usize,
    /// Packs that were named to be deleted.
    pub condemned: usize,
    /// Packs that were deleted.
    pub deleted: usize,
    pub freed_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncFacts {
    pub running_since: Option<Timestamp>,
    pub last_attempt_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    pub last_outcome: Option<Outcome>,
    pub last_error: Option<String>,
    pub next_run_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    /// The backup whose passive data this hub holds.
    pub restored: Option<BackupSummary>,
    /// A backup that was damaged: which stored object, and why.
    pub damaged: Option<String>,
    /// The newest backup that was fetched, verified and opened in full: what a promotion can start from.
    #[serde(default)]
    pub opened: Option<String>,
    /// Why a prune is held back, if it is.
    pub prune_held: Option<String>,
    /// The deletions that are held because they are too many.
    pub held: Option<held::HeldPrune>,
    /// Objects that are deleted and still there, because finalizers keep them: the first ones.
    pub going: Vec<String>,
    /// Of the last run, if an operator had released what was held.
    pub released: Option<held::ReleasedPrune>,
    /// Objects that could not be restored in the last run, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Objects whose kind this hub does not serve, by kind.
    pub waiting: BTreeMap<String, u64>,
    #[serde(default)]
    pub drift: DriftFacts,
    pub full_check: Option<FullCheck>,
    #[serde(default)]
    pub rehearsal: RehearsalFacts,
    /// How far the running sync or promotion is, if it takes its time.
    pub progress: Option<crate::progress::pace::Progress>,
}

/// The whole of what was restored, compared with the backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FullCheck {
    pub at: Timestamp,
    /// From the backup being open to the end of the corrections.
    pub seconds: f64,
    pub objects: u64,
}

/// Restored objects that somebody else had changed, as the last full check found them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DriftFacts {
    pub objects: u64,
    /// They were written again; if not, only told.
    pub corrected: bool,
    /// Changed at several full checks in a row, with the place that differs.
    pub contested: Vec<String>,
}

/// What a request demands besides the rules of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Guards {
    /// In place of promotion.maxDataAge.
    #[schemars(with = "Option<i64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_data_age_seconds: Option<u64>,
    /// It starts from this backup or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_backup: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromotionFacts {
    pub running: bool,
    /// `signal`, `annotation`, `cli`
    pub trigger: Option<String>,
    pub request: Option<String>,
    /// The epoch that stood when the request was made: a request that finds another is stale.
    pub expected_epoch: Option<u64>,
    /// The operator's reason, when the request vouches for the primary's death.
    pub forced: Option<String>,
    pub guards: Guards,
    pub outcome: Option<Outcome>,
    /// `Requested`, `TermHeld`, `CaughtUp`, `Activating`, `Activated`, `Primary`
    pub phase: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Id of the backup it started from.
    pub base: Option<String>,
    /// Age of the base when the term was taken.
    pub data_loss_seconds: Option<u64>,
    pub activated: u64,
    pub failed: Vec<String>,
    /// Why the last request was refused, with the command that would work.
    pub refused: Option<Frozen>,
    /// The preconditions of a promotion now.
    pub checklist: Vec<Check>,
}

/// The check that the primary is silent (or has handed over) carries this name: it alone may fail
/// on a standby that is ready.
pub const PRIMARY_SILENT: &str = "primary silent";
/// The checks of these names warn and refuse nothing.
pub const REHEARSED: &str = "activation set tried on this hub";
pub const SERVED: &str = "required kinds served";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// [`PRIMARY_SILENT`], `storage reachable`, … in the words of the checklist.
    pub name: String,
    /// The word of the closed list of reasons with which a request is refused when it fails.
    #[serde(default)]
    pub reason: String,
    pub ok: bool,
    pub why: String,
    pub hint: Option<String>,
}

impl Check {
    /// A promotion is refused because of it.
    pub fn refuses(&self) -> bool {
        !self.ok && self.name != REHEARSED && self.name != SERVED
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// `backup`, `sync`, `verify`, `drill`, `promotion`
    pub what: String,
    pub at: Timestamp,
    pub seconds: f64,
    pub outcome: Outcome,
    pub backup: Option<String>,
    pub changed: u64,
    pub failed: u64,
    pub message: String,
}
