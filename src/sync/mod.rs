//! The passive hub's job: the newest backup fetched, opened and restored, once per interval.
//!
//! Contract: every byte of a backup is fetched, verified, decrypted and counted before the first
//! write to the hub. The same backup again writes nothing and asks the API server nothing, until the
//! next full check. The activation set is fetched and opened too, but restored only under an own term.

pub mod claims;
mod drift;
pub mod drill;
mod rehearsal;

use crate::capture::discovery;
use crate::config::settings::Settings;
use crate::kube_client::KubeError;
use crate::object::{GroupResource, Kind, ObjectKey};
use crate::progress::Tally;
use crate::repository::chain::Backup;
use crate::repository::packs::{Opened, PackStore, PacksError};
use crate::restore::live::Depth;
use crate::restore::recheck::Vouched;
use crate::restore::{
    self, Applied, Guard, How, Kinds, Policy, Report, Restored, Run, Scope, Source,
};
use crate::retry;
use crate::status::{DriftFacts, FullCheck};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a standby holds in memory. All of it can be read again: packs from the storage, the state of
/// the hub from the labels of its objects.
pub struct Standby {
    client: kube::Client,
    packs: PackStore,
    policy: Policy,
    settings: Arc<Settings>,
    opened: Option<Arc<Opened>>,
    /// As the last run left it. `None` at start.
    restored: Option<Restored>,
    /// It may be built on. If not it is read back from the hub: at start, after errors, at every full
    /// check.
    trusted: bool,
    drift: drift::Watch,
    /// Deleted by us or others, and still there when last looked at.
    going: BTreeSet<ObjectKey>,
    rehearsal: rehearsal::Memory,
    /// The backup that the hub holds without an error, and under which scope.
    clean: Option<(u64, Scope)>,
    checked: Option<Instant>,
    full_check: Option<FullCheck>,
    /// Kinds that this hub did not serve at the last restore.
    waiting: BTreeSet<GroupResource>,
    /// Nothing is deleted that no operator has released.
    prunes_held: bool,
}

/// What a run is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// A standby follows. `released`: ids of held prunes that an operator lets go, by this run and no
    /// other.
    Follow { released: &'a [String] },
    /// A promotion waits for it: what somebody changed on the hub is looked for later.
    Promotion,
}

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("failed to open the backup {backup}")]
    Open { backup: String, source: PacksError },
    #[error("failed to discover the kinds of this hub")]
    Discovery(#[source] KubeError),
    #[error("the plan was refused by its check: {}", .0.join("; "))]
    Check(Vec<String>),
}

impl SyncError {
    /// A pack is not in the storage: it is damaged, or the backup was retired meanwhile.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Open { source: PacksError::Missing { .. }, .. })
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Synced {
    /// The hub holds this backup already.
    Nothing,
    Restored(Report),
}

impl Standby {
    pub fn new(
        client: kube::Client,
        packs: PackStore,
        own_namespace: &str,
        settings: Arc<Settings>,
    ) -> Self {
        let policy = Policy::new(&settings.hub.pair, own_namespace, &settings.restore);
        Self {
            client,
            packs: packs.telling(Tally::default()),
            policy,
            settings,
            opened: None,
            restored: None,
            trusted: false,
            drift: drift::Watch::default(),
            going: BTreeSet::new(),
            rehearsal: rehearsal::Memory::default(),
            clean: None,
            checked: None,
            full_check: None,
            waiting: BTreeSet::new(),
            prunes_held: false,
        }
    }

    /// Until further notice nothing is deleted that no operator has released.
    pub fn hold_prunes(&mut self, hold: bool) {
        self.prunes_held = hold;
    }

    fn full_check_is_due(&self, now: Instant) -> bool {
        self.checked
            .is_none_or(|checked| now.duration_since(checked) >= self.settings.passive.full_check)
    }

    /// Fetches, verifies and opens the backup; only what the one before did not have is read.
    pub async fn open(&mut self, backup: &Arc<Backup>) -> Result<(), SyncError> {
        if self.opened.as_ref().is_some_and(|opened| opened.backup.mark == backup.mark) {
            return Ok(());
        }
        let mut before = self.opened.take().and_then(Arc::into_inner);
        if let (Some(before), Some((slot, _))) = (&mut before, self.clean)
            && before.backup.mark.slot == slot
        {
            before.forget_older();
        }
        let opened = self.packs.open(backup.clone(), before).await;
        let opened = opened.map_err(|source| SyncError::Open { backup: backup.id(), source })?;
        self.opened = Some(Arc::new(opened));
        Ok(())
    }

    /// Makes the hub hold the backup, as far as `scope` goes.
    pub async fn run(
        &mut self,
        backup: &Arc<Backup>,
        scope: Scope,
        purpose: Purpose<'_>,
        guard: Guard<'_>,
        cancel: &CancellationToken,
    ) -> Result<Synced, SyncError> {
        let (released, hurries) = match purpose {
            Purpose::Follow { released } => (released, false),
            Purpose::Promotion => (&[][..], true),
        };
        self.open(backup).await?;
        let now = crate::clock::monotonic();
        let full_check = self.full_check_is_due(now);
        let is_clean = self
            .clean
            .is_some_and(|(slot, before)| slot == backup.mark.slot && scope.is_covered_by(before));
        let is_clean = is_clean && !full_check && released.is_empty();
        if is_clean && self.waiting.is_empty() {
            return Ok(Synced::Nothing);
        }
        let found = discovery::discover(&self.client).await.map_err(SyncError::Discovery)?;
        let comes = found.kinds.iter().any(|kind| self.waiting.contains(&kind.group_resource()));
        if is_clean && !comes {
            return Ok(Synced::Nothing);
        }
        self.clean = None;
        let opened = self.opened.clone().expect("it was just opened");
        let kinds = Kinds::new(found.kinds).lacking(found.failed);
        let trusted = std::mem::take(&mut self.trusted) && !full_check;
        let (mut restored, unread) = match self.restored.take() {
            Some(restored) if trusted => (restored, HashSet::new()),
            before => self.read_back(&kinds, &opened, before.as_ref(), hurries, cancel).await,
        };
        let report =
            self.restore(&opened, scope, released, &kinds, &unread, &mut restored, guard, cancel);
        let report = report.await?;
        self.going.extend(report.going.iter().cloned());
        self.waiting = report.waiting.keys().cloned().collect();
        if report.stopped.is_none() && unread.is_empty() {
            // What failed is tried again from here; nothing else has to be read for that.
            self.trusted = true;
            if full_check {
                self.checked = Some(now);
                let seconds = (crate::clock::monotonic() - now).as_secs_f64();
                let objects = restored.ours().count() as u64;
                tracing::debug!(seconds, objects, "the whole hub was compared with the backup");
                self.full_check = Some(FullCheck { at: crate::clock::now(), seconds, objects });
            }
            self.clean = report.is_complete().then_some((backup.mark.slot, scope));
        }
        self.restored = Some(restored);
        Ok(Synced::Restored(report))
    }

    /// What stands on the hub with our label, and the kinds of which that could not be told.
    async fn read_back(
        &mut self,
        kinds: &Kinds,
        opened: &Arc<Opened>,
        before: Option<&Restored>,
        hurries: bool,
        cancel: &CancellationToken,
    ) -> (Restored, HashSet<GroupResource>) {
        let contents = &opened.contents;
        let depth = if hurries || before.is_some() { Depth::Metadata } else { Depth::Content };
        let (client, policy) = (&self.client, &self.policy);
        let live = restore::live::read(client, cancel, policy, kinds, contents, depth).await;
        for (kind, why) in &live.unread {
            tracing::warn!(%kind, why, "a kind cannot be read back, nothing of it is pruned");
        }
        let mut restored = live.restored;
        self.going = live.going.into_iter().collect();
        let vouched = match (before, depth) {
            (Some(before), _) => Vouched::By(before),
            (None, Depth::Content) => Vouched::Same(&live.same),
            (None, Depth::Metadata) => Vouched::Not,
        };
        if hurries {
            self.drift.postpone(contents, vouched, &restored);
        } else {
            let what = (contents, &self.source(opened), kinds, &self.policy);
            let policy = self.settings.passive.drift;
            let client = &self.client;
            self.drift.look(policy, client, cancel, what, vouched, &mut restored).await;
        }
        (restored, live.unread.into_iter().map(|(kind, _)| kind).collect())
    }

    #[allow(clippy::too_many_arguments)] // one call site; a struct would only rename them
    async fn restore(
        &self,
        opened: &Arc<Opened>,
        scope: Scope,
        released: &[String],
        kinds: &Kinds,
        unread: &HashSet<GroupResource>,
        restored: &mut Restored,
        guard: Guard<'_>,
        cancel: &CancellationToken,
    ) -> Result<Report, SyncError> {
        let complete = complete(opened, kinds, unread);
        let gone = opened.contents.why_gone();
        let desired = restore::Desired {
            contents: &opened.contents,
            restored,
            policy: &self.policy,
            kinds,
            scope,
            pruning: restore::Pruning {
                enabled: self.settings.passive.prune,
                max_deletes: if self.prunes_held { 0 } else { self.settings.passive.max_deletes },
                max_shrink: self.settings.passive.max_shrink,
                complete: &complete,
                gone: &gone,
                released,
            },
        };
        let plan = restore::plan(&desired);
        if plan.is_empty() {
            tracing::debug!(backup = opened.backup.id(), %plan, "restore plan");
        } else {
            tracing::info!(backup = opened.backup.id(), %plan, "restore plan");
        }
        let checked =
            restore::check(plan, &desired).map_err(|violations| SyncError::Check(violations.0))?;
        let run = Run {
            how: How::Sync,
            client: &self.client,
            contents: &opened.contents,
            kinds,
            policy: &self.policy,
            max_in_flight: self.settings.kubernetes.max_in_flight,
            dry_run: false,
            cancel,
            guard,
            source: self.source(opened),
            tally: self.packs.tally(),
            applied: Some(self.applied(opened)),
        };
        Ok(restore::execute(&run, &checked, restored).await)
    }

    /// How far the run is.
    pub fn tally(&self) -> &Tally {
        self.packs.tally()
    }

    /// The objects of the opened backup, pack by pack.
    fn source(&self, opened: &Arc<Opened>) -> Source {
        let (packs, opened) = (self.packs.clone(), opened.clone());
        Arc::new(move |pack, sink| packs.objects(&opened, pack, sink).map_err(Into::into))
    }

    /// What was applied before it, as far as it can still be read.
    fn applied(&self, opened: &Arc<Opened>) -> Applied {
        let (packs, opened) = (self.packs.clone(), opened.clone());
        Arc::new(move |marks, sink| {
            let wanted = |key: &_, digest: &_| {
                marks.get(key).is_some_and(|mark: &restore::Mark| mark.same_content(digest))
            };
            if let Err(error) = packs.older_objects(&opened, wanted, sink) {
                let error = retry::chain(&error);
                tracing::info!(error, "what was applied before cannot be read any more");
            }
        })
    }

    /// What somebody else changed, as the last full check found it.
    pub fn drift(&self) -> DriftFacts {
        self.drift.facts(self.settings.passive.drift)
    }

    /// The last one.
    pub fn full_check(&self) -> Option<FullCheck> {
        self.full_check.clone()
    }

    /// What was being deleted and still there, as the last full check found it and the runs since.
    pub fn going(&self) -> &BTreeSet<ObjectKey> {
        &self.going
    }

    /// Whether the backup that was opened last holds the object.
    pub fn holds(&self, key: &ObjectKey) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.contents.entries.contains_key(key))
    }

    /// The backup that was opened last, and so could be promoted from with the storage gone.
    pub fn opened(&self) -> Option<&Arc<Backup>> {
        self.opened.as_ref().map(|opened| &opened.backup)
    }
}

/// Kinds that the backup holds completely and that could be read here: of others nothing is deleted.
fn complete(
    opened: &Opened,
    kinds: &Kinds,
    unread: &HashSet<GroupResource>,
) -> HashSet<GroupResource> {
    let partial = &opened.backup.commit.partial;
    let carried = |kind: &GroupResource| partial.iter().any(|carried| carried.covers(kind));
    let all = kinds.all().iter().map(Kind::group_resource);
    all.filter(|kind| !carried(kind) && !unread.contains(kind)).collect()
}

/// Objects that failed, by kind.
pub fn failed_by_kind(report: &Report) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for item in &report.failed {
        *kinds.entry(item.key.group_resource().to_string()).or_default() += 1;
    }
    kinds
}

/// A guard that never stops: a passive restore is stopped by cancellation alone.
pub fn no_guard() -> futures::future::BoxFuture<'static, std::ops::ControlFlow<String>> {
    Box::pin(std::future::ready(std::ops::ControlFlow::Continue(())))
}
