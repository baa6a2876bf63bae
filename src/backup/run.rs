//! One backup, stage by stage: kinds, revision, pages, packs, commit.

use super::BackupError;
use super::attempts::{Again, Attempts};
use super::changes::{Catalogue, Changes, Unlisted};
use super::guard;
use super::levels::{sets_that_need, sets_to_write_anew};
use super::merge::{Merger, Tails};
use super::plan::{Plan, Planner};
use super::sealer::{Sealer, Wanted};
use super::upload::{Levels, upload};
use crate::capture::candidates::namespace_labels;
use crate::capture::cut::{self, CutError};
use crate::capture::select::Selection;
use crate::object::{Kind, Set};
use crate::repository::chain::Backup;
use crate::repository::journal::{Journal, Writer};
use crate::repository::keys::Keys;
use crate::repository::packs::PackStore;
use crate::repository::record::{Body, Commit, Cut, Level, SetContents};
use crate::retry;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// A run does not wait longer for levels to become one: what was captured wants to be committed.
const MERGE_PATIENCE: Duration = Duration::from_mins(5);

/// Pages and packs between two stages: one in work, one waiting.
const CHANNEL: usize = 2;

/// The primary's backup stage. Between runs it keeps what it could read again: the catalogue.
pub struct Primary {
    client: kube::Client,
    packs: PackStore,
    keys: Arc<Keys>,
    planner: Planner,
    record_unchanged: bool,
    /// By more than this fraction a set does not shrink without somebody looking.
    max_shrink: f64,
    /// The slot of the backup that it describes, and the catalogue.
    catalogue: Option<(u64, Catalogue)>,
    /// Sets that the next run writes anew: of which a pack was found to be damaged, or is sealed under
    /// an older key.
    to_renew: BTreeSet<Set>,
}

/// A backup that is committed and acknowledged.
#[derive(Debug)]
pub struct BackupDone {
    pub slot: u64,
    pub changed: u64,
    pub packs: usize,
    /// Nothing had changed, and the configuration wants no record of that.
    pub recorded: bool,
    /// API groups that discovery could not read, and kinds that could not be listed.
    pub failed: Vec<String>,
    pub phases: Phases,
}

/// Where the time went, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Listing, sealing and uploading overlap; this is their common time.
    pub capture: f64,
    pub publish: f64,
}

/// From the lister to the sealer.
enum Listed {
    /// A page of the kind with this index.
    Page(usize, Bytes),
    /// All kinds were listed to their end.
    Everything,
}

impl Primary {
    pub fn new(
        client: kube::Client,
        packs: PackStore,
        keys: Arc<Keys>,
        selection: Selection,
        record_unchanged: bool,
        max_shrink: f64,
    ) -> Self {
        Self {
            planner: Planner::new(client.clone(), selection),
            client,
            packs,
            keys,
            record_unchanged,
            max_shrink,
            catalogue: None,
            to_renew: BTreeSet::new(),
        }
    }

    /// Takes one backup under `writer`'s term. The time-out is for what comes before the commit: a
    /// commit that was begun is carried through to a definite answer. A set that needs one of the
    /// objects in `damaged` is written anew.
    pub async fn run(
        &mut self,
        journal: &Mutex<Journal>,
        writer: &Writer,
        timeout: Duration,
        damaged: &BTreeSet<String>,
    ) -> Result<BackupDone, BackupError> {
        let started = crate::clock::monotonic();
        let (repository, before) = {
            let mut journal = journal.lock().await;
            let view = journal.refresh().await?;
            let before = view.newest.clone();
            self.to_renew.extend(view.sets_under_older_keys());
            (journal.repository().to_owned(), before)
        };
        let (before, catalogue) = self.catalogue_of(before, writer.epoch).await?;
        self.to_renew.extend(sets_that_need(damaged, before.as_deref()));
        let capture: BoxFuture<'_, _> =
            Box::pin(self.capture(&repository, writer, before.as_deref(), catalogue));
        let captured = tokio::time::timeout(timeout, capture).await;
        let seconds = timeout.as_secs();
        let (plan, changes, deltas) = captured.unwrap_or(Err(BackupError::TimedOut { seconds }))?;
        let left = timeout.saturating_sub(crate::clock::monotonic() - started);
        let (packs, keys, header) = (&self.packs, &self.keys, &plan.header);
        let merger = Merger { packs, keys, header, patience: left.min(MERGE_PATIENCE) };
        let (tails, damaged) = merger.tails(before.as_deref(), &plan.full, &changes, deltas).await;
        let captured = crate::clock::monotonic();

        let mut done = BackupDone {
            slot: 0,
            changed: Set::ALL.iter().map(|set| changes.tally(*set).changed).sum(),
            packs: tails.values().map(|tail| tail.packs.len()).sum(),
            recorded: true,
            failed: plan.unlisted.failed.iter().map(ToString::to_string).collect(),
            phases: Phases { capture: (captured - started).as_secs_f64(), publish: 0.0 },
        };
        match &before {
            Some(before) if tails.is_empty() && !self.record_unchanged => {
                done.recorded = false;
                done.slot = before.mark.slot;
            }
            _ => {
                let anew = plan.full.clone();
                let mut commit = commit(plan, &changes, tails, before.as_deref());
                commit.suspect =
                    guard::suspect(&commit, journal.lock().await.view(), self.max_shrink);
                done.slot = publish(journal, writer, commit).await?;
                self.to_renew.retain(|set| !anew.contains(set));
                self.to_renew.extend(damaged);
            }
        }
        self.catalogue = Some((done.slot, changes.committed()));
        done.phases.publish = (crate::clock::monotonic() - captured).as_secs_f64();
        Ok(done)
    }

    /// Whether this hub's own store went back in time since its backup: it counts its revisions anew,
    /// and what looks unchanged need not be.
    async fn went_back(&self, own: &Backup) -> Result<bool, BackupError> {
        let now = cut::newest_revision(&self.client).await?;
        let then = &own.commit.cut.revision;
        let back = now.parse::<u64>().ok() < then.parse().ok();
        if back {
            tracing::error!(now, then, "this hub's store went back in time, taking a full backup");
        }
        Ok(back)
    }

    /// The backup to build on with its catalogue; from its packs when this process does not have it,
    /// which is so after a restart and after a run that failed. A damaged one is not built on: the hub
    /// itself is here, so a full backup mends what no retry could. Nor is one of another term: another
    /// hub's revisions and UIDs say nothing about this one.
    async fn catalogue_of(
        &mut self,
        newest: Option<Arc<Backup>>,
        epoch: u64,
    ) -> Result<(Option<Arc<Backup>>, Catalogue), BackupError> {
        let held = self.catalogue.take();
        let Some(before) = newest else { return Ok((None, Catalogue::default())) };
        let unlike_this_hub = before.epoch != epoch || self.went_back(&before).await?;
        if let Some((slot, catalogue)) = held
            && slot == before.mark.slot
            && !unlike_this_hub
        {
            return Ok((Some(before), catalogue));
        }
        match self.packs.open(before.clone(), None).await {
            Ok(opened) if unlike_this_hub => {
                Ok((None, Catalogue::of_another_term(&opened.contents)))
            }
            Ok(opened) => {
                let catalogue = Catalogue::of(opened.contents, before.commit.rules);
                Ok((Some(before), catalogue))
            }
            Err(error) if error.is_damage() => {
                let (backup, error) = (before.id(), retry::chain(&error));
                tracing::error!(backup, error, "the backup is damaged, taking a full one");
                Ok((None, Catalogue::default()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Attempts until one goes through at one revision. A kind that cannot be listed is carried over
    /// from the backup before in the next attempt, so that no half-listed kind is in a backup.
    async fn capture(
        &mut self,
        repository: &str,
        writer: &Writer,
        before: Option<&Backup>,
        mut catalogue: Catalogue,
    ) -> Result<(Plan, Changes, Levels), BackupError> {
        self.planner.begin_run();
        let mut attempts = Attempts::default();
        loop {
            let failed = attempts.failed.clone();
            let planned = self.planner.plan(repository, writer, &catalogue, failed).await;
            let error = match planned {
                Err(error) => error,
                Ok(mut plan) => {
                    let carried = &plan.unlisted.failed;
                    plan.full = sets_to_write_anew(before, &self.to_renew, carried);
                    let changes = catalogue.observe(plan.rules, plan.full.clone());
                    match self.attempt(&plan, changes).await {
                        (Some(changes), Ok(levels)) => return Ok((plan, changes, levels)),
                        (None, result) => return Err(result.err().unwrap_or(BackupError::Stopped)),
                        (Some(changes), Err(error)) => {
                            catalogue = changes.abandoned();
                            error
                        }
                    }
                }
            };
            let why = retry::chain(&error);
            let again = attempts.after(error)?;
            tracing::warn!(error = why, "{again}");
            match &again {
                Again::AtANewRevision => {}
                Again::AfterProof(kind) => self.planner.doubt(kind),
                Again::AfterDiscovery(path) => self.planner.until_discovery_follows(path).await,
                Again::Without(kind) => self.planner.forget_version(kind),
            }
        }
    }

    /// Lists, seals and uploads, each at its own pace. The changes come back also when it fails, but
    /// not when the sealing thread itself is lost.
    async fn attempt(
        &self,
        plan: &Plan,
        changes: Changes,
    ) -> (Option<Changes>, Result<Levels, BackupError>) {
        let namespaces = match namespace_labels(&self.client, &plan.header.revision).await {
            Ok(namespaces) => namespaces,
            Err(error) => return (Some(changes), Err(error.into())),
        };
        let (pages, to_seal) = mpsc::channel(CHANNEL);
        let (packs, to_upload) = mpsc::channel(CHANNEL);
        let sealer =
            Sealer::new(self.keys.clone(), plan.header.clone(), namespaces, changes, packs);
        let (kinds, unlisted) = (plan.kinds.clone(), plan.unlisted.clone());
        let thread = tokio::task::spawn_blocking(move || seal(sealer, to_seal, &kinds, &unlisted));
        let uploading = upload(&self.packs, &plan.header, to_upload);
        let (listing, ended, uploading) =
            tokio::join!(self.list_all(plan, pages), thread, uploading);
        let Ok((changes, sealing)) = ended else { return (None, Err(BackupError::Stopped)) };
        // A stage that stopped because another one failed is not the reason.
        let result = match (listing, sealing, uploading) {
            (_, _, Err(error)) => Err(error),
            (_, Err(error), _) if !matches!(error, BackupError::Stopped) => Err(error),
            (Err(error), _, _) | (_, Err(error), _) => Err(error),
            (Ok(()), Ok(()), Ok(levels)) => Ok(levels),
        };
        (Some(changes), result)
    }

    async fn list_all(&self, plan: &Plan, pages: mpsc::Sender<Listed>) -> Result<(), BackupError> {
        for (index, Wanted { kind, .. }) in plan.kinds.iter().enumerate() {
            let revision = (!plan.apart.contains(kind)).then_some(&*plan.header.revision);
            cut::list(&self.client, kind, revision, |body| async {
                pages.send(Listed::Page(index, body)).await.map_err(|_| CutError::Stopped)
            })
            .await?;
        }
        pages.send(Listed::Everything).await.map_err(|_| BackupError::Stopped)
    }
}

/// The blocking stage: pages in, packs out.
fn seal(
    mut sealer: Sealer,
    mut pages: mpsc::Receiver<Listed>,
    kinds: &[Wanted],
    unlisted: &Unlisted,
) -> (Changes, Result<(), BackupError>) {
    while let Some(listed) = pages.blocking_recv() {
        let result = match listed {
            Listed::Page(index, body) => sealer.page(&kinds[index], &body),
            Listed::Everything => {
                let result = sealer.finish(unlisted);
                return (sealer.into_changes(), result);
            }
        };
        if let Err(error) = result {
            return (sealer.into_changes(), Err(error));
        }
    }
    (sealer.into_changes(), Err(BackupError::Stopped))
}

/// Commits and reads on: only a record with no higher term behind it is acknowledged.
async fn publish(
    journal: &Mutex<Journal>,
    writer: &Writer,
    commit: Commit,
) -> Result<u64, BackupError> {
    let mut journal = journal.lock().await;
    let slot =
        journal.append(writer, Body::Commit(commit), |view| super::may_write(view, writer)).await?;
    let view = journal.view();
    if view.epoch != writer.epoch {
        let holder = view.holder.as_ref().map_or_else(String::new, |hub| hub.name.clone());
        return Err(BackupError::Superseded { holder, epoch: view.epoch });
    }
    Ok(slot)
}

fn commit(plan: Plan, changes: &Changes, mut tails: Tails, before: Option<&Backup>) -> Commit {
    let sets = Set::ALL.into_iter().map(|set| {
        let tally = changes.tally(set);
        let kept = before
            .filter(|_| !plan.full.contains(&set))
            .and_then(|before| before.commit.sets.get(&set));
        let mut all = kept.map(|contents| contents.levels.clone()).unwrap_or_default();
        if let Some(tail) = tails.remove(&set) {
            all.truncate(tail.keeps);
            all.extend((!tail.packs.is_empty()).then_some(Level { packs: tail.packs }));
        }
        (
            set,
            SetContents {
                levels: all,
                objects: tally.objects,
                changed: tally.changed,
                kinds: tally.kinds,
            },
        )
    });
    Commit {
        sets: sets.collect(),
        cut: Cut {
            revision: plan.header.revision,
            apart: plan.apart.iter().map(Kind::group_resource).collect(),
        },
        rules: plan.rules,
        suspect: None,
        partial: plan.unlisted.failed.into_iter().collect(),
    }
}
