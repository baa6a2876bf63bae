//! The last step of an activation, for hubs that manage clusters: they are accepted and imported before
//! `Activated` stands in the journal. Waiting for them goes on beside everything else.

use crate::clusters;
use crate::daemon::{Shared, surface};
use crate::restore::Guard;
use crate::retry;
use crate::status::clusters::{ClusterFacts, Line, Reach};
use crate::sync::Standby;

/// Stopped, it begins anew. Clusters that cannot be looked at keep no hub from its first backup: what is
/// to be done then is told.
pub(super) async fn activate(
    shared: &Shared,
    standby: &Standby,
    term: u64,
    guard: Guard<'_>,
) -> Result<(), String> {
    let settings = &shared.settings;
    if !settings.promotion.imports_clusters {
        return Ok(());
    }
    let now = crate::clock::now();
    let done = match clusters::look(&shared.client, &settings.selection).await {
        Ok(mut seen) => {
            seen.retain(|key| standby.holds(key));
            let activation = clusters::Activation {
                client: &shared.client,
                max_in_flight: settings.kubernetes.max_in_flight,
                stale: shared.board.read().handover.claimed.is_some(),
                guard,
            };
            Ok(clusters::activate(&activation, &seen, now).await?)
        }
        Err(error) => Err(retry::chain(&error)),
    };
    let until = now.checked_add(settings.promotion.wait_for_clusters).unwrap_or(now);
    let mut facts = ClusterFacts { term, until: Some(until), ..ClusterFacts::default() };
    match done {
        Ok(lines) => {
            facts.seen(&lines, crate::clock::now());
            tell(&lines);
        }
        Err(error) => {
            tracing::error!(error, "the clusters could not be looked at, none is imported");
            facts.looked(Some(error), crate::clock::now());
        }
    }
    shared.board.update(|s| {
        (facts.ends, facts.soon) = (std::mem::take(&mut s.clusters.ends), s.clusters.soon);
        *s.clusters = facts;
    });
    // Whoever goes on after a crash must not forget that clusters are waited for.
    surface::publish_now(shared).await;
    Ok(())
}

fn tell(lines: &[Line]) {
    for Line { cluster, state, why, next } in lines {
        if *state != Reach::Available {
            tracing::info!(cluster, state = state.name(), why, next, "cluster");
        }
    }
    let available = lines.iter().filter(|line| line.state == Reach::Available).count();
    tracing::info!(clusters = lines.len(), available, "clusters accepted, waiting for them");
}
