//! Pure: what the tests look for in the answer of `/api/v1/status`.

use serde_json::Value;

/// The end of one run of a loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub seconds: f64,
    pub outcome: String,
    pub changed: u64,
}

/// `primary`, `passive`, `promoting`, `fenced`; empty until the journal was read.
pub fn role(status: &Value) -> &str {
    status["role"].as_str().unwrap_or_default()
}

pub fn epoch(status: &Value) -> u64 {
    status["epoch"].as_u64().unwrap_or_default()
}

/// The newest backup in the storage.
pub fn newest(status: &Value) -> Option<&str> {
    status["newest"]["id"].as_str()
}

/// The backup whose passive data this hub holds.
pub fn restored(status: &Value) -> Option<&str> {
    status["sync"]["restored"]["id"].as_str()
}

/// Objects of the newest backup, over the sets that `wanted` names.
pub fn objects(status: &Value, wanted: &[&str]) -> u64 {
    wanted.iter().filter_map(|set| status["newest"]["sets"][set]["objects"].as_u64()).sum()
}

pub const ALL_SETS: [&str; 3] = ["credentials", "resources", "activation"];

/// Whether this hub has seen the primary and hears it no more.
pub fn primary_is_silent(status: &Value) -> bool {
    status["peers"].as_array().is_some_and(|peers| {
        peers.iter().any(|peer| peer["role"] == "primary" && peer["silent"] == true)
    })
}

/// The last run of a loop (`backup`, `sync`, `promotion`) with one of the outcomes; any if none
/// is named.
pub fn last_run(status: &Value, what: &str, outcomes: &[&str]) -> Option<Run> {
    status["runs"].as_array()?.iter().find_map(|run| {
        let outcome = run["outcome"].as_str()?;
        let wanted = outcomes.is_empty() || outcomes.contains(&outcome);
        (run["what"] == what && wanted).then(|| Run {
            seconds: run["seconds"].as_f64().unwrap_or_default(),
            outcome: outcome.to_owned(),
            changed: run["changed"].as_u64().unwrap_or_default(),
        })
    })
}
