//! A sweep carried out: backups retired, packs condemned, condemned packs deleted.
//!
//! Contract: only the current writer of the term does it, and it reads the journal again before every
//! record and before every batch of deletes. Nothing is deleted that the journal, as it is then, does
//! not hold condemned. What fails is left to the next sweep: each begins with what it can see, so one
//! that was stopped or killed anywhere needs no repair.

use super::retention::{self, Verdict};
use super::sweep::{self, Plan, Seen, StoredPack};
use crate::config::settings::Retention;
use crate::repository::Repository;
use crate::repository::chain::View;
use crate::repository::journal::{JournalError, Writer};
use crate::repository::layout::{PACKS, RECORD_LIMIT, journal_key, pack_key, pack_of_key};
use crate::repository::record::Body;
use crate::repository::storage::{Storage, StorageError};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use tokio_util::sync::CancellationToken;

/// Deletes between two looks at the journal.
const BATCH: usize = 100;

/// Requests at once: a sweep has time, backups and heartbeats have not.
const AT_ONCE: usize = 4;

/// Whose wish a sweep is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// What the rules of the configuration say.
    Rules,
    /// An operator names backups, by the slots of their commits.
    Delete(BTreeSet<u64>),
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub retired: usize,
    pub condemned: usize,
    pub deleted: usize,
    /// By the packs that were deleted.
    pub freed_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("failed to sweep the packs")]
    Storage(#[from] StorageError),
    #[error("{why}")]
    NotAllowed { why: String },
    #[error("nothing is deleted: {}", .0.join("; "))]
    Refused(Vec<String>),
}

/// What the storage shows of packs and of the records that condemned some; one page of names after the
/// other, and one request for each such record.
pub async fn look(storage: &Storage, view: &View) -> Result<Option<Seen>, StorageError> {
    // The clock of the storage comes with an answer; the newest backup has one for sure.
    let Some(newest) = &view.newest else { return Ok(None) };
    let newest = storage.get(&journal_key(newest.mark.slot), RECORD_LIMIT).await?;
    let Some((now, committed)) = newest.map(|stored| (stored.now, stored.modified)) else {
        return Ok(None);
    };
    let packs = storage.list(PACKS, None).await?.into_iter().filter_map(|entry| {
        let name = pack_of_key(&entry.key)?;
        Some(StoredPack { name, size: entry.size, modified: entry.modified })
    });
    let slots: BTreeSet<u64> = view.ledger.condemned.values().copied().collect();
    let condemned_at: Vec<_> = stream::iter(slots)
        .map(|slot| async move {
            let stored = storage.get(&journal_key(slot), RECORD_LIMIT).await?;
            Ok::<_, StorageError>(stored.map(|stored| (slot, stored.modified)))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let condemned_at = condemned_at.into_iter().flatten().collect();
    Ok(Some(Seen { packs: packs.collect(), now, committed, condemned_at }))
}

/// The storage's clock as it dates what is written: an answer that comes from this machine, as that of
/// a directory does, says nothing about a file server's.
async fn written_now(storage: &Storage) -> Result<Option<Timestamp>, StorageError> {
    let key = format!("probes/{:032x}/clock", crate::clock::random());
    storage.create(&key, Bytes::from_static(b"now\n")).await?;
    let written = storage.get(&key, RECORD_LIMIT).await;
    storage.delete(&key).await?;
    Ok(written?.map(|stored| stored.modified))
}

/// What the rules say. Of the two clocks the one that is behind counts: rules only ever keep, and
/// for a younger backup they do so longer.
pub fn by_rules(
    view: &View,
    rules: &Retention,
    zone: &TimeZone,
    storage: Timestamp,
) -> Vec<Verdict> {
    let now = storage.min(crate::clock::now());
    retention::plan(&view.ledger.offered, &view.protected(), rules, zone, now)
}

/// The backups that the verdicts let go.
pub fn retired(verdicts: &[Verdict]) -> BTreeSet<u64> {
    verdicts.iter().filter(|verdict| !verdict.keep).map(|verdict| verdict.slot).collect()
}

/// Whether all that is named may go: each that may not, with the reason.
pub fn refusals(view: &View, named: &BTreeSet<u64>) -> Vec<String> {
    let offered = &view.ledger.offered;
    let unknown = named.iter().filter(|slot| !offered.contains_key(slot));
    let unknown = unknown.map(|slot| format!("there is no backup {slot}"));
    let verdicts = retention::plan_deletion(offered, &view.protected(), named);
    let kept = verdicts.iter().filter(|verdict| verdict.keep && named.contains(&verdict.slot));
    unknown.chain(kept.map(|verdict| format!("{}: {}", verdict.id(), verdict.why))).collect()
}

/// One sweep under `writer`'s term. What it did stands in `done`, also when it fails, and when it ends
/// early because it is cancelled.
pub async fn sweep(
    repository: &Repository,
    writer: &Writer,
    wish: &Wish,
    rules: &Retention,
    zone: &TimeZone,
    cancel: &CancellationToken,
    done: &mut Swept,
) -> Result<(), SweepError> {
    let view = holding(repository, writer, View::clone).await?;
    let Some(mut seen) = look(&repository.storage, &view).await? else { return Ok(()) };
    seen.now = written_now(&repository.storage).await?.unwrap_or(seen.now);
    let retire = match wish {
        Wish::Rules => retired(&by_rules(&view, rules, zone, seen.now)),
        Wish::Delete(named) => {
            let refusals = refusals(&view, named);
            if !refusals.is_empty() {
                return Err(SweepError::Refused(refusals));
            }
            named.clone()
        }
    };
    let plan = sweep::plan(&view, retire, &seen, rules.sweep_after);
    retire_all(repository, writer, &plan, cancel, done).await?;
    delete_all(repository, writer, &plan, cancel, done).await
}

async fn retire_all(
    repository: &Repository,
    writer: &Writer,
    plan: &Plan,
    cancel: &CancellationToken,
    done: &mut Swept,
) -> Result<(), SweepError> {
    for record in plan.records() {
        if cancel.is_cancelled() {
            break;
        }
        let (backups, packs) = (record.backups.len(), record.packs.len());
        let mut journal = repository.journal.lock().await;
        journal.append(writer, Body::Retire(record), |view| may_sweep(view, writer)).await?;
        // A term above the record leaves its retirement in force and takes the right to delete.
        may_sweep(journal.view(), writer).map_err(|why| SweepError::NotAllowed { why })?;
        done.retired += backups;
        done.condemned += packs;
    }
    Ok(())
}

async fn delete_all(
    repository: &Repository,
    writer: &Writer,
    plan: &Plan,
    cancel: &CancellationToken,
    done: &mut Swept,
) -> Result<(), SweepError> {
    let storage = &repository.storage;
    for batch in plan.delete.chunks(BATCH) {
        if cancel.is_cancelled() {
            break;
        }
        let batch: Vec<_> = holding(repository, writer, |View { ledger, .. }| {
            let is_condemned = |(pack, since): &&(StoredPack, u64)| {
                ledger.condemned.get(&pack.name) == Some(since) && !ledger.knows(&pack.name)
            };
            batch.iter().filter(is_condemned).map(|(pack, _)| pack).collect()
        })
        .await?;
        let keys: Vec<_> = batch.iter().map(|pack| pack_key(&pack.name)).collect();
        stream::iter(keys)
            .map(|key| async move { storage.delete(&key).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        done.deleted += batch.len();
        done.freed_bytes += batch.iter().map(|pack| pack.size).sum::<u64>();
    }
    Ok(())
}

/// Reads the journal to its head and takes of it what `want` wants, if this writer still holds the term.
async fn holding<T>(
    repository: &Repository,
    writer: &Writer,
    want: impl FnOnce(&View) -> T,
) -> Result<T, SweepError> {
    let mut journal = repository.journal.lock().await;
    let view = journal.refresh().await?;
    if let Some(frozen) = view.frozen.clone() {
        return Err(JournalError::Frozen(frozen).into());
    }
    may_sweep(view, writer).map_err(|why| SweepError::NotAllowed { why })?;
    Ok(want(view))
}

/// A hub that gave its term up deletes no more than one that lost it.
fn may_sweep(view: &View, writer: &Writer) -> Result<(), String> {
    match &view.handed {
        Some(handed) => Err(format!("the term is handed over to {}", handed.to)),
        None => super::may_write(view, writer),
    }
}
