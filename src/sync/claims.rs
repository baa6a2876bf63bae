//! Once the own term of this hub has ended, what it held as its own becomes what a standby holds: the
//! objects of its own last backup get the label of restored ones, before the first sync.

use super::{Standby, SyncError};
use crate::capture::discovery;
use crate::repository::chain::Backup;
use crate::repository::packs::Opened;
use crate::restore::claim::{Claim, claims};
use crate::restore::{self, Kinds};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// So many objects that could not be labelled are named in the log.
const MAX_NAMED: usize = 20;

impl Standby {
    /// Labels them. `Ok(false)`: not all could be; the others stay as they are, and it is to be tried
    /// again.
    pub async fn claim(
        &mut self,
        own: &Arc<Backup>,
        cancel: &CancellationToken,
    ) -> Result<bool, SyncError> {
        let (claims, all_read) = self.look_for_claims(own, cancel).await?;
        let max_in_flight = self.settings.kubernetes.max_in_flight;
        let done =
            restore::label::label(&self.client, cancel, &self.policy, max_in_flight, &claims).await;
        // What was foreign a moment ago is ours.
        self.trusted = false;
        self.clean = None;
        let changed = claims.iter().filter(|claim| claim.changed).count();
        let (labelled, failed, backup) = (done.labelled, done.failed.len(), own.id());
        tracing::info!(
            backup,
            labelled,
            changed,
            failed,
            "own objects are restored ones from now on"
        );
        for item in done.failed.iter().take(MAX_NAMED) {
            tracing::warn!(object = %item.key, reason = item.reason, "could not be labelled");
        }
        Ok(all_read && failed == 0)
    }

    /// And whether every kind could be read.
    async fn look_for_claims(
        &self,
        own: &Arc<Backup>,
        cancel: &CancellationToken,
    ) -> Result<(Vec<Claim>, bool), SyncError> {
        let opened = self.packs.open(own.clone(), None).await;
        let Opened { contents, .. } =
            opened.map_err(|source| SyncError::Open { backup: own.id(), source })?;
        let found = discovery::discover(&self.client).await.map_err(SyncError::Discovery)?;
        let kinds = Kinds::new(found.kinds).lacking(found.failed);
        let live = restore::live::read(&self.client, cancel, &self.policy, &kinds, &contents).await;
        for (kind, why) in &live.unread {
            tracing::warn!(%kind, why, "a kind cannot be read, nothing of it is labelled");
        }
        Ok((claims(&contents, &live.restored, &self.policy), live.unread.is_empty()))
    }
}
