//! Pure: the configuration file as it is written. Unknown keys are refused; a word that needs no other
//! key to be judged (a duration, a share, a selector) is judged here.
//!
//! A key stands here only when this version honours it: a key that is read and ignored would let
//! people believe in a protection that they do not have.

use crate::capture::rules::{Adopt, ResourceName, RuleSets};
use crate::config::settings::{Drift, InitialRole, LogFormat};
use crate::restore::conflict::ConflictRule;
use crate::restore::transform::TransformRule;
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(rename = "HubConfig")]
pub(super) struct File {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub hub: Hub,
    pub kubernetes: Kubernetes,
    pub storage: Storage,
    pub encryption: Encryption,
    /// Shipped rules, by name.
    pub presets: Vec<String>,
    /// Additions to the presets.
    pub sets: RuleSets,
    /// Kinds whose `status` is captured on the primary and restored on a passive hub, such as
    /// `baremetalhosts.metal3.io`. Presets bring some.
    pub status: Vec<ResourceName>,
    pub schedule: Schedule,
    pub retention: Retention,
    pub passive: Passive,
    pub promotion: Promotion,
    pub objectives: Objectives,
    pub http: Http,
    pub log: Log,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Hub {
    /// A DNS label: it names the `Hub` resource.
    pub name: Option<String>,
    /// A DNS label, the same on all hubs of the pair.
    pub pair: Option<String>,
    /// Counts only while the repository has no owner.
    pub initial_role: Option<InitialRole>,
    pub heartbeat: Time,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Kubernetes {
    pub request_timeout: Time,
    pub max_in_flight: Option<usize>,
    pub gzip: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Storage {
    pub s3: Option<S3>,
    pub directory: Option<PathBuf>,
    /// AWS' shared credentials format; empty: AWS' default chain.
    pub credentials_file: Option<PathBuf>,
    pub poll_interval: Time,
    pub probe_interval: Time,
    /// How often a storage that is known to fence is raced again.
    pub race_interval: Time,
    pub allow_unfenced: Option<bool>,
    pub cache_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct S3 {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub bucket: Option<String>,
    pub prefix: Option<String>,
    pub path_style: Option<bool>,
    pub ca_file: Option<PathBuf>,
    /// By the storage, in addition to our own encryption.
    pub server_side_encryption: Option<ServerSide>,
    /// Id or ARN; without it, the storage's own key for `aws:kms`.
    pub kms_key_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum ServerSide {
    #[serde(rename = "AES256")]
    Aes256,
    #[serde(rename = "aws:kms")]
    Kms,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Encryption {
    /// The first seals, all open.
    pub key_files: Vec<PathBuf>,
    /// Further age recipients, who can read but not write.
    pub recipients: Vec<Recipient>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Schedule {
    /// Five fields as in crontab(5), or `@hourly` and its like.
    pub cron: Option<String>,
    pub timezone: Option<String>,
    pub jitter: Time,
    pub timeout: Time,
    pub on_start: Option<bool>,
    pub record_unchanged: Option<bool>,
    /// A set that shrinks by more makes the backup suspect.
    pub max_shrink: Option<Share>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Retention {
    pub keep_for: Time,
    pub keep_last: Option<u32>,
    pub keep_daily: Option<u32>,
    pub keep_weekly: Option<u32>,
    pub keep_monthly: Option<u32>,
    /// How long packs stay in the storage after nothing needs them any more.
    pub sweep_after: Time,
    /// At least so long between two sweeps.
    pub sweep_interval: Time,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Passive {
    pub sync_interval: Time,
    pub full_check: Time,
    pub prune: Option<Prune>,
    pub max_deletes: Option<usize>,
    pub max_shrink: Option<Share>,
    /// Restored objects that somebody else has changed: written again at the next full check, or only
    /// told.
    pub drift: Option<Drift>,
    /// Kinds beyond the default ones that may be restored here, such as
    /// `customresourcedefinitions.apiextensions.k8s.io`.
    pub allow_kinds: Vec<ResourceName>,
    /// Objects that exist here already and may be taken over.
    pub adopt: Vec<Adopt>,
    /// What becomes of objects that exist here already and are not ours: keep (the default), adopt or
    /// refuse. The first rule that agrees counts.
    pub conflict: Vec<ConflictRule>,
    /// Kinds whose objects are deleted and created again where a field that changed cannot be changed,
    /// such as `secrets`. What they own stays.
    pub recreate: Vec<ResourceName>,
    /// What makes an object inert while this hub is passive. The first rule that agrees counts, before
    /// those of the presets.
    pub transforms: Vec<TransformRule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Prune {
    None,
    Restored,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Promotion {
    pub signal: Option<bool>,
    pub annotation: Option<bool>,
    pub primary_silence: Time,
    pub max_data_age: Time,
    pub wait_for_clusters: Time,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Objectives {
    pub rpo: Time,
    pub rto: Time,
    /// How often the daemon reads the stored backups again.
    pub verify_every: Time,
    /// How often a passive hub rehearses its promotion.
    pub drill_every: Time,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Http {
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    pub base_path: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Log {
    pub format: Option<LogFormat>,
    pub level: Option<String>,
}

/// A duration that may be left to its default.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Time(
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub Option<Duration>,
);

/// `30%` as 0.3.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct Share(#[schemars(with = "String")] pub f64);

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match percent {
            Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent / 100.0)),
            _ => Err(format!("{text:?} is not a share; write it from 0% to 100%")),
        }
    }
}

/// `age1…`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct Recipient(pub String);

impl TryFrom<String> for Recipient {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<age::x25519::Recipient>() {
            Ok(_) => Ok(Self(text)),
            // The text is not repeated: somebody may have put the identity here.
            Err(_) => Err("not a recipient of age; it begins with age1".to_owned()),
        }
    }
}
