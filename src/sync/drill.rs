//! A promotion as it would go now, up to the point where something would be written: the newest backup
//! is fetched from the storage and opened, planned as under an own term, and everything of that plan is
//! sent to this hub with `dryRun=All`. The steps are timed.
//!
//! It builds on what the last sync left, as a promotion does, and changes neither that nor the hub.
//! Whoever drops it loses nothing but what it found until then.

use super::rehearsal::{Attempt, Trial};
use super::{Standby, SyncError};
use crate::clock;
use crate::repository::chain::Backup;
use crate::repository::drill::Drill;
use crate::repository::packs::PacksError;
use crate::repository::verify::packs_by_set;
use crate::restore::rehearsal::{Extent, Tried};
use crate::retry;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Nothing is followed meanwhile. Ten times what 100,000 objects need.
const AT_MOST: Duration = Duration::from_mins(15);

/// Packs that are read at once: each is in memory as a whole.
const READERS: usize = 4;

#[derive(Debug, thiserror::Error)]
enum DrillError {
    #[error("the backup is not opened here: a sync comes first (understudy sync now)")]
    NotOpened,
    #[error("failed to read the backup from the storage")]
    Storage(#[source] PacksError),
    #[error(transparent)]
    Sync(#[from] SyncError),
}

impl Standby {
    /// What it found, and the first objects that this hub would refuse, each with the reason. Dropped as
    /// soon as `cancel` says so.
    pub async fn drill(
        &self,
        backup: &Backup,
        cancel: &CancellationToken,
    ) -> Option<(Drill, Vec<String>)> {
        let begun = clock::monotonic();
        let mut drill = Drill { backup: backup.id(), ..Drill::default() };
        let done = self.steps(backup, &mut drill, cancel);
        let named = match cancel.run_until_cancelled(done).await? {
            Ok(named) => named,
            Err(error) => {
                drill.error = Some(retry::chain(&error));
                Vec::new()
            }
        };
        drill.seconds = (clock::monotonic() - begun).as_secs_f64();
        drill.at = clock::now();
        Some((drill.bounded(), named))
    }

    async fn steps(
        &self,
        backup: &Backup,
        drill: &mut Drill,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, DrillError> {
        let begun = clock::monotonic();
        let opened = self.opened.as_ref().filter(|opened| opened.backup.mark == backup.mark);
        let (opened, restored) = opened.zip(self.restored.as_ref()).ok_or(DrillError::NotOpened)?;
        self.read_all(backup).await.map_err(DrillError::Storage)?;
        drill.opening = (clock::monotonic() - begun).as_secs_f64();

        let before = &Tried::default();
        let extent = Extent::Everything;
        let trial = Trial { opened, restored, extent, before, at_most: AT_MOST };
        let Attempt { rehearsal, stopped, planning, trying } =
            self.try_on_hub(trial, cancel).await?;
        (drill.planning, drill.trying) = (planning.as_secs_f64(), trying.as_secs_f64());
        drill.failed =
            rehearsal.failed.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
        drill.tried = rehearsal.tried.len() as u64 + drill.failed_objects();
        drill.untried = rehearsal.untried;
        drill.error = stopped;
        let named = rehearsal.named.iter().map(|item| format!("{}: {}", item.key, item.reason));
        Ok(named.collect())
    }

    /// Past the cache. A pack with the digest of the commit holds what was opened: it needs not be laid
    /// over the others once more.
    async fn read_all(&self, backup: &Backup) -> Result<(), PacksError> {
        let packs: Vec<_> = packs_by_set(&backup.commit).collect();
        self.tally().begin("reading", "packs", Some(packs.len()));
        let reads: Vec<_> = packs
            .into_iter()
            .map(async |(set, reference)| {
                self.packs.check(reference, set).await?;
                self.tally().add(1);
                Ok(())
            })
            .collect();
        stream::iter(reads).buffer_unordered(READERS).try_collect().await
    }
}
