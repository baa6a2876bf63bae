//! The repository as a command sees it: from the storage alone, with both clusters dead.

use super::exit::{Code, Failure};
use crate::config::settings::Settings;
use crate::observe;
use crate::repository::chain::{Backup, View};
use crate::repository::journal::{Journal, JournalError};
use crate::repository::keys::Keys;
use crate::repository::layout;
use crate::repository::packs::PackStore;
use crate::repository::record::{self, Body, Commit, Record};
use crate::repository::storage::Storage;
use crate::status::Role;
use std::io::Write as _;
use std::sync::Arc;
use tempfile::TempDir;

/// The journal is read to its head.
pub(super) struct Stored {
    pub(super) storage: Storage,
    pub(super) journal: Journal,
    keys: Arc<Keys>,
}

/// A commit with the record around it; the backup is not suspect any more once it is acknowledged.
pub(super) struct Committed {
    pub(super) record: Box<Record>,
    pub(super) backup: Arc<Backup>,
}

impl Stored {
    /// `None`: there is no repository at this place yet.
    pub(super) async fn open(settings: &Settings) -> Result<Option<Self>, Failure> {
        Self::read(storage(settings).await?, keys(settings)?).await
    }

    pub(super) async fn read(storage: Storage, keys: Arc<Keys>) -> Result<Option<Self>, Failure> {
        Self::from(storage, keys, true).await
    }

    /// From the newest checkpoint, or from the first slot.
    async fn from(
        storage: Storage,
        keys: Arc<Keys>,
        checkpoint: bool,
    ) -> Result<Option<Self>, Failure> {
        let opened = Journal::open(storage.clone(), keys.clone(), None).await?;
        let Some(mut journal) = opened else { return Ok(None) };
        if checkpoint {
            journal.resume(None).await?;
        }
        journal.refresh().await?;
        journal.look_for_holes().await?;
        Ok(Some(Self { storage, journal, keys }))
    }

    /// For commands that are about a backup, so that there must be one.
    pub(super) async fn expect(settings: &Settings) -> Result<Self, Failure> {
        Self::open(settings).await?.ok_or_else(nothing)
    }

    /// The same with every record read.
    pub(super) async fn whole(settings: &Settings) -> Result<Self, Failure> {
        Self::from(storage(settings).await?, keys(settings)?, false).await?.ok_or_else(nothing)
    }

    pub(super) fn view(&self) -> &View {
        self.journal.view()
    }

    /// By its id, its slot, or `latest`.
    pub(super) async fn find(&self, id: &str) -> Result<Committed, Failure> {
        let newest = self.view().newest.as_ref();
        let slot = match id {
            "latest" => newest.map(|newest| newest.mark.slot),
            id => Some(layout::slot_of_backup_id(id).ok_or_else(|| {
                let message = format!("{id:?} is not the id of a backup");
                Failure::new(Code::Usage, message).with_hint(
                    "an id is like 20261120-173007-42; its slot (42) is enough, and so is: latest",
                )
            })?),
        };
        let missing = |what: String| match (&self.view().frozen, newest) {
            // What stands beyond was not looked at.
            (Some(frozen), _) => JournalError::Frozen(frozen.clone()).into(),
            (None, Some(newest)) => Failure::new(Code::Failed, what).with_hint(format!(
                "the newest is {}; all are shown by: understudy backup list",
                newest.id()
            )),
            (None, None) => Failure::new(Code::Failed, "there is no backup yet"),
        };
        let Some(slot) = slot else { return Err(missing(String::new())) };
        let found = self
            .committed(slot)
            .await?
            .ok_or_else(|| missing(format!("there is no backup {id}")))?;
        let full = found.backup.id();
        if id.contains('-') && id != full {
            return Err(missing(format!("there is no backup {id}; slot {slot} holds {full}")));
        }
        Ok(found)
    }

    /// The backup whose commit stands in the slot, if it counts.
    pub(super) async fn committed(&self, slot: u64) -> Result<Option<Committed>, Failure> {
        let Some((record, mark)) = self.journal.backup(slot).await? else { return Ok(None) };
        let Some(commit) = commit(&record) else { return Ok(None) };
        let mut backup = Backup::of(&record, commit, mark);
        let suspect = self.view().ledger.offered.get(&slot).is_some_and(|offered| offered.suspect);
        backup.commit.suspect.take_if(|_| !suspect);
        Ok(Some(Committed { backup: Arc::new(backup), record }))
    }

    /// Whether a backup was retired since it was found: then packs may be missing that were there. Reads
    /// the journal to its head again.
    pub(super) async fn is_retired(&mut self, slot: u64) -> Result<bool, Failure> {
        Ok(!self.journal.refresh().await?.ledger.offered.contains_key(&slot))
    }

    /// Whether the cluster last said in a heartbeat that it follows the primary.
    pub(super) async fn is_standby(&self, cluster: &str) -> Result<bool, Failure> {
        for entry in self.storage.list(layout::BEATS, None).await? {
            let Some(stored) = self.storage.get(&entry.key, layout::RECORD_LIMIT).await? else {
                continue;
            };
            let beat = record::decode_beat(&stored.bytes, self.journal.repository(), &self.keys);
            let follows = |role| matches!(role, Role::Passive | Role::Promoting);
            if beat.is_ok_and(|beat| beat.hub.uid == cluster && follows(beat.role)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// With a cache of its own: that of a daemon must not change under it. It goes with the folder.
    pub(super) fn packs(&self) -> Result<(PackStore, TempDir), Failure> {
        let folder = tempfile::tempdir().map_err(|error| {
            Failure::new(Code::Failed, format!("failed to make a temporary folder: {error}"))
        })?;
        let (storage, keys) = (self.storage.clone(), self.keys.clone());
        let cache = folder.path().to_owned();
        Ok((PackStore::new(storage, keys, self.journal.repository(), cache)?, folder))
    }

    /// What could be read was shown; that it is not all must not look like success.
    pub(super) fn complete(&self) -> Result<(), Failure> {
        complete(self.view())
    }
}

fn nothing() -> Failure {
    Failure::new(Code::Failed, "there is no repository at the configured place yet")
}

pub(super) fn commit(record: &Record) -> Option<&Commit> {
    if let Body::Commit(commit) = &record.body { Some(commit) } else { None }
}

pub(super) fn complete(view: &View) -> Result<(), Failure> {
    view.frozen.clone().map_or(Ok(()), |frozen| Err(JournalError::Frozen(frozen).into()))
}

pub(super) fn keys(settings: &Settings) -> Result<Arc<Keys>, Failure> {
    Ok(Arc::new(Keys::load(&settings.encryption.key_files, &settings.encryption.recipients)?))
}

pub(super) async fn storage(settings: &Settings) -> Result<Storage, Failure> {
    Ok(Storage::open(&settings.storage.location, observe::nobody()).await?)
}

/// The result, on standard output. Whoever reads it may have seen enough and gone (`| head`).
pub(super) fn show<E: std::fmt::Display>(text: Result<String, E>) -> Result<(), Failure> {
    let text = text.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Failed, format!("failed to write the result: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
