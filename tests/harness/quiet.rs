//! Hubs on which nothing changes: what is still written there, and what a sync then takes.

use super::bare::Api;
use super::daemon::Daemon;
use super::{Result, eventually, status};
use std::collections::BTreeMap;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_mins(20);
/// Syncs without a change that are watched for writes.
const QUIET_SYNCS: usize = 3;
/// What the servers write on their own, and what the daemon says about itself.
const NOT_RESTORED: [&str; 8] = [
    "understudy.dev/hubs",
    "/events",
    "events.k8s.io/events",
    "coordination.k8s.io/leases",
    "authentication.k8s.io/tokenreviews",
    "authorization.k8s.io/selfsubjectaccessreviews",
    "authorization.k8s.io/selfsubjectrulesreviews",
    "authorization.k8s.io/subjectaccessreviews",
];

/// Waits for some more syncs and gives the time of the last.
pub async fn quiet_syncs(passive: &mut Daemon) -> Result<f64> {
    let mut seconds = 0.0;
    for _ in 0..QUIET_SYNCS {
        let last = passive.status().await?["sync"]["lastSuccessAt"].clone();
        seconds = passive
            .until(DEADLINE, "another sync", |seen| {
                let run = status::last_run(seen, "sync", &[]);
                let seconds = run.map_or(0.0, |run| run.seconds);
                (seen["sync"]["lastSuccessAt"] != last).then_some(seconds)
            })
            .await?;
    }
    Ok(seconds)
}

/// The writes that the API server has counted, once they rise no more: after a restore the
/// controllers still have work in the new namespaces.
pub async fn settled(api: &Api) -> Result<f64> {
    let mut last = f64::NAN;
    eventually(DEADLINE, "the API server to be quiet", async || {
        let writes = restored_writes(&api.write_counts().await.ok()?);
        let quiet = writes.total_cmp(&last).is_eq();
        last = writes;
        if !quiet {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        quiet.then_some(writes)
    })
    .await
}

fn restored_writes(counts: &BTreeMap<String, f64>) -> f64 {
    counts.iter().filter(|(name, _)| !NOT_RESTORED.contains(&name.as_str())).map(|(_, n)| n).sum()
}
