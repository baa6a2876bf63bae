//! Looks at the clusters of a promotion until they have come, and at the tokens of each new backup. It
//! reads, and writes nothing.

use super::Shared;
use crate::clusters;
use crate::retry::chain;
use crate::status::clusters::{ClusterFacts, MAX_ENDS, of_this_term};
use crate::status::{Role, Snapshot};
use tokio_util::sync::CancellationToken;

pub(super) async fn run(shared: Shared, stop: CancellationToken) {
    if !shared.settings.promotion.imports_clusters {
        return;
    }
    let follow = async {
        let mut known = None;
        loop {
            let held = held(&shared.board.read());
            if held.is_some() && held != known && look_at_tokens(&shared).await {
                known = held;
            }
            let (snapshot, now) = (shared.board.read(), crate::clock::now());
            let soon = snapshot.clusters.ending(now);
            if soon != snapshot.clusters.soon {
                shared.board.update(|s| s.clusters.soon = soon);
            }
            let primary = snapshot.role == Some(Role::Primary);
            if primary && snapshot.clusters.look_is_due(snapshot.epoch, now) {
                look(&shared).await;
            }
            tokio::time::sleep(shared.settings.storage.poll_interval).await;
        }
    };
    stop.run_until_cancelled(follow).await;
}

/// The backup whose tokens stand on this hub.
fn held(snapshot: &Snapshot) -> Option<(Role, String)> {
    let (role, backup) = match snapshot.role? {
        Role::Primary => (Role::Primary, snapshot.newest.as_ref()),
        Role::Passive => (Role::Passive, snapshot.sync.restored.as_ref()),
        Role::Promoting | Role::Fenced => return None,
    };
    Some((role, backup?.id.clone()))
}

/// `false`: it is to be tried again.
async fn look_at_tokens(shared: &Shared) -> bool {
    let passive = shared.board.read().role == Some(Role::Passive);
    // On a standby others may stand that the backup does not hold.
    let pair = if passive { &*shared.settings.hub.pair } else { "" };
    match clusters::tokens(&shared.client, pair).await {
        Ok(tokens) => {
            let mut ends = clusters::token::ends(&tokens);
            ends.truncate(MAX_ENDS);
            shared.board.update(|s| s.clusters.ends = ends);
            true
        }
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "import tokens cannot be looked at, trying again"
            );
            false
        }
    }
}

async fn look(shared: &Shared) {
    let seen = clusters::look(&shared.client, &shared.settings.selection).await;
    let now = crate::clock::now();
    let lines = seen.map(|seen| seen.lines(now)).map_err(|error| chain(&error));
    let told = shared.board.update(|s| {
        let before = s.clusters.clone();
        match &lines {
            Ok(lines) => s.clusters.seen(lines, now),
            Err(error) => s.clusters.looked(Some(error.clone()), now),
        }
        (before.sentence() != s.clusters.sentence())
            .then(|| of_this_term(s).map(ClusterFacts::sentence))
    });
    if let Some(Some(clusters)) = told {
        tracing::info!(clusters, "clusters");
    }
}
