//! Pure: the settings of a daemon as the rest of the code reads them. Every invariant holds here;
//! nobody checks again.

use crate::capture::select::Selection;
use crate::object::GroupResource;
use crate::restore::conflict::ConflictRule;
use crate::restore::transform::TransformRule;
use crate::schedule::Cron;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Settings {
    pub hub: Hub,
    pub kubernetes: Kubernetes,
    pub storage: Storage,
    pub encryption: Encryption,
    pub selection: Selection,
    pub restore: RestorePolicy,
    pub schedule: Schedule,
    pub retention: Retention,
    pub passive: Passive,
    pub promotion: Promotion,
    pub objectives: Objectives,
    pub http: Http,
    pub log: Log,
}

#[derive(Clone, Debug)]
pub struct Hub {
    /// A DNS label: it names the `Hub` resource and the heartbeat object.
    pub name: String,
    /// A DNS label: the value of the label on restored objects.
    pub pair: String,
    /// Counts only while the journal has no term.
    pub initial_role: InitialRole,
    pub heartbeat: Duration,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum InitialRole {
    Primary,
    Passive,
}

#[derive(Clone, Debug)]
pub struct Kubernetes {
    pub request_timeout: Duration,
    pub max_in_flight: usize,
    pub gzip: bool,
}

#[derive(Clone, Debug)]
pub struct Storage {
    pub location: Location,
    /// How often every role reads slot head+1.
    pub poll_interval: Duration,
    /// Until the race probe is tried again that had no answer.
    pub probe_interval: Duration,
    /// Until it is run again that proved the fence.
    pub race_interval: Duration,
    /// Be primary although the storage cannot refuse a superseded hub. Visible everywhere.
    pub allow_unfenced: bool,
    /// Sealed packs and the verified prefix of the journal; a cache only. None: a temporary folder.
    pub cache_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    S3(S3),
    Directory(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// None: the endpoint of AWS for `region`.
    pub endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    /// Empty, or ends with a slash.
    pub prefix: String,
    pub path_style: bool,
    pub ca_file: Option<PathBuf>,
    pub server_side_encryption: Option<ServerSideEncryption>,
    /// AWS' shared credentials format (profile `default`). None: AWS' default chain.
    pub credentials_file: Option<PathBuf>,
}

/// What the storage shall encrypt with, in addition to our own encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSideEncryption {
    Aes256,
    /// None: the storage's own key.
    Kms {
        key_id: Option<String>,
    },
}

#[derive(Clone, Debug)]
pub struct Encryption {
    /// At least one. The first seals and authenticates, all open.
    pub key_files: Vec<PathBuf>,
    /// Further age recipients that can read packs but not write records.
    pub recipients: Vec<String>,
}

/// What a hub accepts from a backup. The restoring hub's own configuration decides, never the
/// content of the storage.
#[derive(Clone, Debug, Default)]
pub struct RestorePolicy {
    /// Kinds beyond the default ones that may be restored (CRDs, RBAC, webhooks, …).
    pub allow_kinds: Vec<GroupResource>,
    /// Objects that exist on every hub and may be taken over: (kind, name).
    pub adopt: Vec<(GroupResource, String)>,
    /// What becomes of other objects that are here already, before `adopt` is asked.
    pub conflict: Vec<ConflictRule>,
    /// Kinds whose objects may be deleted and created again where a field cannot be changed.
    pub recreate: Vec<GroupResource>,
    /// Kinds whose `status` is restored.
    pub status: Vec<GroupResource>,
    /// What makes objects inert on a passive hub: the user's rules, then those of the presets.
    pub transforms: Vec<TransformRule>,
    /// Those of the presets that this hub does not name: the primary may.
    pub other_transforms: Vec<TransformRule>,
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub cron: Cron,
    pub jitter: Duration,
    pub timeout: Duration,
    pub on_start: bool,
    /// Write a record also when nothing changed, so that the age of the data stays young.
    pub record_unchanged: bool,
    /// Fraction, 0.0 to 1.0, by which a set may shrink before the backup is suspect.
    pub max_shrink: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    pub keep_for: Option<Duration>,
    pub keep_last: u32,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
    /// From the record that condemns a pack to its deletion, by the storage's clock; also how old
    /// a pack must be that no backup names.
    pub sweep_after: Duration,
    pub sweep_interval: Duration,
}

#[derive(Clone, Debug)]
pub struct Passive {
    pub sync_interval: Duration,
    pub full_check: Duration,
    /// Delete what left the backup (only what Understudy restored).
    pub prune: bool,
    pub max_deletes: usize,
    /// Fraction, 0.0 to 1.0.
    pub max_shrink: f64,
    pub drift: Drift,
}

/// What becomes of restored objects that somebody else has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    #[default]
    Correct,
    Report,
}

#[derive(Clone, Debug)]
pub struct Promotion {
    pub signal: bool,
    pub annotation: bool,
    pub primary_silence: Duration,
    pub max_data_age: Duration,
    pub wait_for_clusters: Duration,
    /// A preset in force knows clusters that a promoted hub accepts and imports.
    pub imports_clusters: bool,
}

#[derive(Clone, Debug)]
pub struct Objectives {
    pub rpo: Duration,
    pub rto: Duration,
    /// How often the stored backups are read again.
    pub verify_every: Duration,
    /// How often a passive hub rehearses its promotion.
    pub drill_every: Duration,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub listen: SocketAddr,
    /// Starts and ends with a slash.
    pub base_path: String,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    /// An `EnvFilter` directive such as `info` or `info,understudy=debug`.
    pub level: String,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// JSON unless standard error is a terminal.
    Auto,
    Json,
    Text,
}
