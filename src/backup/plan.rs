//! What one attempt of a run works on: which kinds, at which versions, at which revision.
//!
//! Everything is read again for each attempt but what costs requests and seldom changes: which kinds
//! share the store, and in which version they are stored. What may go wrong: discovery does not show a
//! kind that is there (a server that has just started, a group whose server is away); then the kind
//! must count as unreadable and never as deleted.

use super::BackupError;
use super::changes::{Catalogue, Unlisted};
use super::sealer::{RunHeader, Wanted};
use crate::capture::candidates::hub_itself_among;
use crate::capture::cut;
use crate::capture::discovery::{self, Discovered};
use crate::capture::select::Selection;
use crate::capture::versions::{self, Versions};
use crate::kube_client::{self, KubeError};
use crate::object::{Digest, GroupResource, Kind, Set};
use crate::repository::journal::Writer;
use crate::retry::{self, Next, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs after which it is proven again that kinds share the store: the proof is one by probability.
const PROVEN_FOR: u32 = 50;

/// So long discovery may show a kind that is gone: it follows a CRD within a second.
const DISCOVERY_FOLLOWS: Policy = Policy {
    first: Duration::from_millis(200),
    cap: Duration::from_secs(1),
    give_up_after: Some(Duration::from_secs(5)),
};

/// What one attempt works on.
pub(super) struct Plan {
    pub(super) header: RunHeader,
    pub(super) kinds: Arc<Vec<Wanted>>,
    /// Kinds of another store: each at a revision of its own.
    pub(super) apart: BTreeSet<Kind>,
    /// Failed are kinds that an attempt before this one could not list, and what discovery could not
    /// read.
    pub(super) unlisted: Unlisted,
    pub(super) rules: Digest,
    pub(super) full: BTreeSet<Set>,
}

pub(super) struct Planner {
    client: kube::Client,
    selection: Selection,
    /// Kinds whose store was compared, and whether they share the main one.
    proven: BTreeMap<Kind, bool>,
    runs_since_proof: u32,
    versions: Versions,
    /// By kind, the names of the objects that stand for this hub.
    hub_itself: BTreeMap<GroupResource, BTreeSet<String>>,
}

impl Planner {
    pub(super) fn new(client: kube::Client, selection: Selection) -> Self {
        Self {
            client,
            selection,
            proven: BTreeMap::new(),
            runs_since_proof: 0,
            versions: Versions::default(),
            hub_itself: BTreeMap::new(),
        }
    }

    /// Once a run. That a kind does not share the store is certain, that it does is not.
    pub(super) fn begin_run(&mut self) {
        self.runs_since_proof += 1;
        if self.runs_since_proof > PROVEN_FOR {
            self.runs_since_proof = 0;
            self.proven.retain(|_, shares| !*shares);
        }
    }

    /// Whether the kind shares the store is proven again by the next plan.
    pub(super) fn doubt(&mut self, kind: &GroupResource) {
        self.proven.retain(|proven, _| proven.group_resource() != *kind);
    }

    /// It could not be listed; perhaps it is stored in another version by now.
    pub(super) fn forget_version(&mut self, kind: &GroupResource) {
        self.versions.forget(kind);
    }

    /// `known` is what the backup before holds; `failed` could not be listed by an earlier attempt.
    /// Which sets are written anew is left to the caller.
    pub(super) async fn plan(
        &mut self,
        repository: &str,
        writer: &Writer,
        known: &Catalogue,
        mut failed: BTreeSet<GroupResource>,
    ) -> Result<Plan, BackupError> {
        let never = CancellationToken::new();
        let discover = || discovery::discover(&self.client);
        let discovered =
            retry::retry(&cut::PATIENCE, "discovery", &never, KubeError::next, discover);
        let discovered = discovered.await.map_err(BackupError::Discovery)?;
        failed.extend(self.unreadable(&discovered, known).await?);
        let Discovered { mut kinds, failed: _, versions } = discovered;
        for kind in kinds.iter_mut().filter(|kind| self.selection.may_select(kind)) {
            if let Some(offered) = versions.get(&kind.group_resource()) {
                let chosen = self.versions.choose(&self.client, &cut::PATIENCE, kind, offered);
                chosen.await.map_err(BackupError::Discovery)?;
            }
        }
        let selection = self.without_the_hub_itself(&kinds, &failed).await?;
        let kinds = kinds.into_iter().filter(|kind| !failed.contains(&kind.group_resource()));
        let wanted = kinds.map(|kind| Wanted {
            rules: selection.for_kind(&kind),
            keeps_status: selection.keeps_status(&kind),
            kind,
        });
        let (kinds, excluded): (Vec<_>, Vec<_>) =
            wanted.partition(|wanted| wanted.rules.may_select());
        let excluded = excluded.iter().map(|wanted| wanted.kind.group_resource()).collect();
        let apart = self.apart(&kinds).await?;
        Ok(Plan {
            header: RunHeader {
                repository: repository.to_owned(),
                epoch: writer.epoch,
                incarnation: writer.incarnation,
                revision: cut::newest_revision(&self.client).await?,
            },
            kinds: Arc::new(kinds),
            apart,
            unlisted: Unlisted { failed, excluded },
            rules: selection.digest(),
            full: BTreeSet::new(),
        })
    }

    /// What discovery could not read: groups, unless nothing of them is or could be captured
    /// (`metrics.k8s.io` is away on many hubs); and kinds of which objects are known and which
    /// discovery does not show although they are defined. A kind without a definition is gone.
    async fn unreadable(
        &self,
        discovered: &Discovered,
        known: &Catalogue,
    ) -> Result<BTreeSet<GroupResource>, BackupError> {
        let known = known.kinds();
        let matters = |group: &GroupResource| {
            known.iter().any(|kind| group.covers(kind))
                || self.selection.may_select_of(&group.group)
        };
        let groups = discovered.failed.iter().map(|group| GroupResource::whole_group(group));
        let mut failed: BTreeSet<_> = groups.filter(matters).collect();
        let shown: BTreeSet<_> = discovered.kinds.iter().map(Kind::group_resource).collect();
        for kind in known {
            if shown.contains(&kind) || failed.iter().any(|failed| failed.covers(&kind)) {
                continue;
            }
            let definition = versions::definition(&self.client, &cut::PATIENCE, &kind);
            let definition = definition.await.map_err(BackupError::Discovery)?;
            match definition {
                Some(definition) if !definition.deleting => {
                    tracing::warn!(%kind, "it is defined and not served, going on without it");
                    failed.insert(kind);
                }
                Some(_) | None => {
                    tracing::warn!(%kind, "it is not served any more, its objects count as deleted");
                }
            }
        }
        Ok(failed)
    }

    /// The objects that stand for this hub among those it manages belong to it alone, with their
    /// namespaces: which those are, only the hub can tell. Of a kind that cannot be read, what it told
    /// before.
    async fn without_the_hub_itself(
        &mut self,
        kinds: &[Kind],
        failed: &BTreeSet<GroupResource>,
    ) -> Result<Selection, BackupError> {
        let served = |kind: &GroupResource| kinds.iter().any(|k| k.group_resource() == *kind);
        self.hub_itself.retain(|kind, _| served(kind) || failed.iter().any(|f| f.covers(kind)));
        for kind in kinds.iter().filter(|kind| self.selection.may_be_hub_itself(kind)) {
            let name = kind.group_resource();
            if !failed.contains(&name) {
                let found = hub_itself_among(&self.client, &self.selection, kind).await?;
                self.hub_itself.insert(name, found);
            } else if !self.hub_itself.contains_key(&name) {
                return Err(BackupError::HubItselfUnknown { kind: name });
            }
        }
        // Of what was not shown, not even the kind is known.
        for unread in failed {
            let told = self.hub_itself.keys().any(|kind| kind.group == unread.group);
            if !told && self.selection.hub_itself_may_be_of(&unread.group) {
                return Err(BackupError::HubItselfUnknown { kind: unread.clone() });
            }
        }
        let names = self.hub_itself.values().flatten().cloned().collect();
        Ok(self.selection.clone().with_hub_itself(names))
    }

    /// Kinds of another store, by the proof for kinds of which it is not known. A kind of which
    /// nothing could be read is listed apart too, and proven the next time.
    async fn apart(&mut self, kinds: &[Wanted]) -> Result<BTreeSet<Kind>, BackupError> {
        let kinds = kinds.iter().map(|wanted| &wanted.kind);
        let unknown = kinds.clone().filter(|kind| !self.proven.contains_key(*kind));
        let unknown: Vec<Kind> = unknown.cloned().collect();
        if !unknown.is_empty() {
            let proven = cut::prove(&self.client, &unknown).await?;
            for (kind, _) in proven.iter().filter(|(_, shares)| !shares) {
                let kind = kind.group_resource();
                tracing::warn!(%kind, "it has a store of its own and is listed at its own revision");
            }
            self.proven.extend(proven);
        }
        Ok(kinds.filter(|kind| self.proven.get(*kind) != Some(&true)).cloned().collect())
    }

    /// After a LIST at `path` was answered with 404: waits until discovery does not show the kind
    /// there any more, or until it can be listed again.
    pub(super) async fn until_discovery_follows(&self, path: &str) {
        #[derive(Debug, thiserror::Error)]
        #[error("discovery shows what is not there")]
        struct Shown;

        let look = || async {
            let listed = kube_client::list_page(&self.client, path, &[("limit", "1")]).await;
            if !listed.is_err_and(|error| error.is_not_found()) {
                return Ok(());
            }
            match discovery::discover(&self.client).await {
                Ok(discovered) if discovered.kinds.iter().any(|kind| kind.list_path() == path) => {
                    Err(Shown)
                }
                // An error meets the next plan, too.
                Ok(_) | Err(_) => Ok(()),
            }
        };
        let never = CancellationToken::new();
        let judge = |_: &Shown| Next::Again;
        // If it goes on, the next attempt meets it, and counts.
        let _ = retry::retry(&DISCOVERY_FOLLOWS, path, &never, judge, look).await;
    }
}
