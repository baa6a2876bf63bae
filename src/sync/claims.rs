//! Once the own term of this hub has ended, what it held as its own becomes what a standby holds: the
//! objects of its own last backup get the label of restored ones, before the first sync.

use super::{Standby, SyncError, complete};
use crate::capture::discovery;
use crate::repository::chain::Backup;
use crate::repository::packs::Opened;
use crate::restore::claim::{Claim, claims};
use crate::restore::live::Depth;
use crate::restore::{self, Desired, Kinds, Known, Plan, Pruning, Scope, Standing};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What following a backup would do to this hub.
pub struct Rejoining {
    pub claims: Vec<Claim>,
    pub plan: Plan,
}

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
        let kinds = self.kinds().await?;
        let (claims, all_read) = self.look_for_claims(own, &kinds, cancel).await?;
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

    async fn kinds(&self) -> Result<Kinds, SyncError> {
        let found = discovery::discover(&self.client).await.map_err(SyncError::Discovery)?;
        Ok(Kinds::new(found.kinds).lacking(found.failed))
    }

    /// And whether every kind could be read.
    async fn look_for_claims(
        &self,
        own: &Arc<Backup>,
        kinds: &Kinds,
        cancel: &CancellationToken,
    ) -> Result<(Vec<Claim>, bool), SyncError> {
        let opened = self.packs.open(own.clone(), None).await;
        let Opened { contents, .. } =
            opened.map_err(|source| SyncError::Open { backup: own.id(), source })?;
        let (client, depth) = (&self.client, Depth::Metadata);
        let live = restore::live::read(client, cancel, &self.policy, kinds, &contents, depth).await;
        for (kind, why) in &live.unread {
            tracing::warn!(%kind, why, "a kind cannot be read, nothing of it is labelled");
        }
        Ok((claims(&contents, &live.restored, &self.policy), live.unread.is_empty()))
    }

    /// The labels, and then the first sync. Nothing is written.
    pub async fn rejoining(
        &self,
        own: Option<&Arc<Backup>>,
        newest: &Arc<Backup>,
        cancel: &CancellationToken,
    ) -> Result<Rejoining, SyncError> {
        let kinds = self.kinds().await?;
        let (claims, _) = match own {
            Some(own) => self.look_for_claims(own, &kinds, cancel).await?,
            None => (Vec::new(), true),
        };
        let opened = self.packs.open(newest.clone(), None).await;
        let opened = opened.map_err(|source| SyncError::Open { backup: newest.id(), source })?;
        let contents = &opened.contents;
        let (client, depth) = (&self.client, Depth::Metadata);
        let live = restore::live::read(client, cancel, &self.policy, &kinds, contents, depth).await;
        let unread = live.unread.into_iter().map(|(kind, _)| kind).collect();
        let mut restored = live.restored;
        for Claim { key, uid, resource_version, mark, .. } in &claims {
            let (uid, resource_version) = (uid.clone(), resource_version.clone());
            let (standing, mark) = (Standing::Ours, Some(*mark));
            let known = Known { standing, mark, uid, resource_version };
            restored.objects.insert(key.clone(), known);
        }
        let (complete, gone) = (complete(&opened, &kinds, &unread), contents.why_gone());
        let desired = Desired {
            contents,
            restored: &restored,
            policy: &self.policy,
            kinds: &kinds,
            scope: Scope::Passive,
            pruning: Pruning {
                enabled: self.settings.passive.prune,
                // The first prune waits for a look.
                max_deletes: 0,
                max_shrink: self.settings.passive.max_shrink,
                complete: &complete,
                gone: &gone,
                released: &[],
            },
        };
        Ok(Rejoining { plan: restore::plan(&desired), claims })
    }
}
