//! Before a hub whose own term has ended follows another one: its own objects become restored ones. Which
//! backup that is about stands in the journal; that it is done, in the `Hub` status. Lost, it is done again.

use crate::daemon::Shared;
use crate::repository::Repository;
use crate::repository::chain::Backup;
use crate::repository::record::{Body, HubId};
use crate::restore::Report;
use crate::retry;
use crate::status::handover::Claimed;
use crate::sync::{Standby, SyncError, Synced};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// No prune goes by itself until one found nothing to delete, or was released: what the other hub did not
/// accept is missing from its backups, too.
pub(super) async fn claim(
    shared: &Shared,
    repository: &Repository,
    standby: &mut Standby,
    me: &HubId,
    cancel: &CancellationToken,
) {
    let slot = repository.journal.lock().await.view().former(me).and_then(|former| former.backup);
    let claimed = shared.board.read().handover.claimed.filter(|claimed| Some(claimed.slot) == slot);
    standby.hold_prunes(slot.is_some() && claimed.is_none_or(|claimed| !claimed.settled));
    let Some(slot) = slot.filter(|_| claimed.is_none()) else { return };
    let done = match own_backup(repository, slot).await {
        Ok(Some(own)) => standby.claim(&own, cancel).await,
        Ok(None) => {
            tracing::warn!(slot, "the own last backup is retired, its objects stay foreign ones");
            Ok(true)
        }
        Err(why) => return tracing::warn!(why, slot, "the own last backup cannot be read"),
    };
    match done {
        Ok(true) => {
            shared.board.update(|s| s.handover.claimed = Some(Claimed { slot, settled: false }));
        }
        Ok(false) => tracing::warn!(slot, "not all own objects could be labelled, trying again"),
        Err(error) => {
            tracing::warn!(error = retry::chain(&error), "own objects could not be labelled");
        }
    }
}

/// `None`: retention has taken it.
async fn own_backup(repository: &Repository, slot: u64) -> Result<Option<Arc<Backup>>, String> {
    let journal = repository.journal.lock().await;
    let found = journal.backup(slot).await.map_err(|error| retry::chain(&error))?;
    Ok(found.and_then(|(record, mark)| {
        let Body::Commit(commit) = &record.body else { return None };
        Some(Arc::new(Backup::of(&record, commit, mark)))
    }))
}

/// A sync that left nothing to delete behind ends the hold.
pub(super) fn settle(shared: &Shared, result: &Result<Synced, SyncError>) {
    let nothing_held = |report: &Report| report.is_complete() && report.held_plan.is_none();
    if matches!(result, Ok(Synced::Restored(report)) if nothing_held(report)) {
        shared.board.update(|s| {
            if let Some(claimed) = &mut s.handover.claimed {
                claimed.settled = true;
            }
        });
    }
}
