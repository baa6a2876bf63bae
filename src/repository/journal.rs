//! The journal: reading it to its head, and the one way to append to it.
//!
//! Contract of `append`: the record's bytes are fixed before the first attempt; the same bytes go to
//! the same slot again until the answer is definite, because the loss of an answer after the write is
//! the normal failure. A slot is settled by what stands in it, never by what an attempt returned.

use super::chain::View;
use super::checkpoint::{self, Local};
use super::keys::Keys;
use super::layout::{self, JOURNAL, Mark, RECORD_LIMIT, REPO, Repo};
use super::record::{self, Body, Found, HubId, Record, RepoError};
use super::settle::{Settled, settle};
use super::storage::{Storage, StorageError};
use crate::object::Digest;
use crate::retry::{self, Next, Policy};
use crate::status::Frozen;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Slots read at once while catching up. Grows from one, so that a poll costs one request.
const READ_WIDTH: u32 = 32;

/// Before a write nothing is lost but the work done for it, so a storage that stumbles is asked again.
const BEFORE_A_WRITE: Policy = Policy {
    first: Duration::from_millis(100),
    cap: Duration::from_secs(2),
    give_up_after: Some(Duration::from_secs(10)),
};

/// A slot that cannot be trusted is read so often before that is believed: a line may flip a bit.
const LOOKS: usize = 3;

pub struct Journal {
    storage: Storage,
    keys: Arc<Keys>,
    repo: Repo,
    view: View,
    /// What this hub has seen of the journal before.
    watermark: Option<Mark>,
    local: Option<Local>,
}

/// Who appends.
#[derive(Clone, Debug)]
pub struct Writer {
    pub hub: HubId,
    pub epoch: u64,
    pub incarnation: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("failed to reach the storage")]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("the journal cannot be used: {} ({})", .0.message, .0.hint)]
    Frozen(Frozen),
    #[error("{key} exists, but a read does not show it")]
    Stale { key: String },
    #[error("{why}")]
    NotAllowed { why: String },
}

impl Journal {
    /// `None`: there is no repository at this place yet.
    /// With a `watermark`, a journal that does not hold that record any more is not followed.
    pub async fn open(
        storage: Storage,
        keys: Arc<Keys>,
        watermark: Option<Mark>,
    ) -> Result<Option<Self>, JournalError> {
        let Some(stored) = storage.get(REPO, RECORD_LIMIT).await? else {
            return nothing_there(&storage).await.map(|()| None);
        };
        let (repo, view) = match record::decode_repo(&stored.bytes, &keys) {
            Ok(repo) => (repo, View::default()),
            // Written under a key of long ago: what the pair has left under its key of today proves it.
            Err(RepoError::UnknownKey { key }) => {
                let claimed = record::claimed_repo(&stored.bytes).ok_or(RepoError::Damaged)?;
                let view = checkpoint::newest(&storage, &claimed.repository, &keys).await?;
                (claimed, view.ok_or(RepoError::UnknownKey { key })?)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Self { storage, keys, repo, view, watermark, local: None }))
    }

    /// Begins at the newest checkpoint, of the storage or of the folder `cache`, instead of the first
    /// slot. Only before anything is read.
    pub async fn resume(&mut self, cache: Option<&Path>) -> Result<(), JournalError> {
        let (id, keys) = (&self.repo.repository, &self.keys);
        let mut local = cache.map(Local::new);
        let cached = local.as_mut().and_then(|local| local.load(id, keys));
        let left = checkpoint::newest(&self.storage, id, keys).await?;
        self.local = local;
        if let Some(view) = cached.into_iter().chain(left).max_by_key(|view| view.head) {
            self.view = view;
            let marks = self.view.last.into_iter().chain(self.watermark);
            for mark in marks.filter(|mark| mark.slot <= self.view.head).collect::<Vec<_>>() {
                self.expect(mark).await?;
            }
        }
        Ok(())
    }

    /// Freezes the view when the slot does not hold what it held.
    async fn expect(&mut self, mark: Mark) -> Result<(), JournalError> {
        let slot = mark.slot;
        match self.slot(slot).await? {
            Some((_, sha256)) if sha256 == mark.sha256 => {}
            Some(_) => self.freeze("JournalFork", other(slot)),
            None => self.freeze("Rewound", format!("slot {slot} of the journal is gone")),
        }
        Ok(())
    }

    /// Makes the repository, or finds that another hub has just made it.
    pub async fn create(storage: Storage, keys: Arc<Keys>, id: u128) -> Result<Self, JournalError> {
        let repo = Repo {
            format: layout::FORMAT,
            repository: format!("{id:032x}"),
            suite: "sha256 hmac-sha256 age-x25519 zstd".to_owned(),
            key: keys.id().to_owned(),
        };
        let bytes = Bytes::from(record::encode_repo(&repo, &keys));
        match settle(&storage, REPO, &bytes).await? {
            Settled::Ours => {
                let view = View::default();
                Ok(Self { storage, keys, repo, view, watermark: None, local: None })
            }
            Settled::Theirs => {
                Self::open(storage, keys, None).await?.ok_or(JournalError::Repo(RepoError::Damaged))
            }
        }
    }

    pub fn repository(&self) -> &str {
        &self.repo.repository
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// Reads from the last walked slot to the head.
    pub async fn refresh(&mut self) -> Result<&View, JournalError> {
        let mut width: u32 = 1;
        while self.read_slots(width).await? {
            width = (width * 2).min(READ_WIDTH);
        }
        if let Some(seen) = self.watermark
            && seen.slot > self.view.head
        {
            let (head, slot) = (self.view.head, seen.slot);
            let message =
                format!("the journal ends at slot {head}, but this hub has seen slot {slot}");
            self.freeze("Rewound", message);
        }
        if let Some(local) = &mut self.local {
            local.save(&self.view, &self.repo.repository, &self.keys);
        }
        Ok(&self.view)
    }

    /// Walks up to `width` further slots. `false`: the head is reached.
    async fn read_slots(&mut self, width: u32) -> Result<bool, JournalError> {
        let next = self.view.head + 1;
        let mut found = stream::iter(next..next + u64::from(width))
            .map(|slot| self.slot(slot))
            .buffered(READ_WIDTH as usize)
            .collect::<Vec<_>>()
            .await
            .into_iter();
        loop {
            match found.next() {
                None => return Ok(true),
                Some(slot) => match slot? {
                    None => return Ok(false),
                    Some((found, sha256)) => self.step(found, sha256),
                },
            }
        }
    }

    /// What stands in a slot; `None`: nothing.
    async fn slot(&self, slot: u64) -> Result<Option<(Found, Digest)>, StorageError> {
        let mut found = self.look(slot).await?;
        for _ in 1..LOOKS {
            if !matches!(found, Some((Found::Junk { .. }, _))) {
                break;
            }
            found = self.look(slot).await?;
        }
        Ok(found)
    }

    async fn look(&self, slot: u64) -> Result<Option<(Found, Digest)>, StorageError> {
        match self.storage.get(&layout::journal_key(slot), RECORD_LIMIT).await {
            Ok(None) => Ok(None),
            Ok(Some(stored)) => {
                let found = record::decode(&stored.bytes, &self.repo.repository, slot, &self.keys);
                Ok(Some((found, Digest::of(&stored.bytes))))
            }
            // Whatever it is, it is not a record, and it must not look like an outage.
            Err(StorageError::TooLarge { size, .. }) => {
                let why = format!("it has {size} bytes, a record has at most {RECORD_LIMIT}");
                Ok(Some((Found::Junk { why }, Digest::of(&size.to_be_bytes()))))
            }
            Err(error) => Err(error),
        }
    }

    /// The record of a backup and its place, read anew from its slot. `None`: no backup that counts
    /// stands there.
    pub async fn backup(&self, slot: u64) -> Result<Option<(Box<Record>, Mark)>, JournalError> {
        if !self.view.ledger.offered.contains_key(&slot) {
            return Ok(None);
        }
        self.walked(slot).await.map(Some)
    }

    /// A record that the walk has read before.
    async fn walked(&self, slot: u64) -> Result<(Box<Record>, Mark), JournalError> {
        let (record, sha256) = as_walked(slot, self.slot(slot).await?)?;
        Ok((record, Mark { slot, sha256 }))
    }

    fn step(&mut self, found: Found, sha256: Digest) {
        let frozen = self.view.frozen.is_some();
        if let Some(void) = self.view.step(found, sha256) {
            tracing::warn!(
                slot = self.view.head,
                why = void.0,
                "a record of the journal does not count"
            );
        }
        if let Some(key) = self.view.key().map(str::to_owned)
            && !self.keys.use_current(&key)
        {
            self.view.freeze_without(&key);
        }
        if let Some(frozen) = self.view.frozen.as_ref().filter(|_| !frozen) {
            let Frozen { reason, message, hint } = frozen;
            tracing::error!(reason, message, hint, "the journal is frozen");
        }
        self.compare_with_watermark(Mark { slot: self.view.head, sha256 });
    }

    /// Freezes the view when a slot stands above the first absent one: records were taken away.
    /// Costs a LIST; for a first term, a promotion and a start without a watermark.
    pub async fn look_for_holes(&mut self) -> Result<(), JournalError> {
        let after = layout::journal_key(self.view.head);
        let above = self.storage.list(JOURNAL, Some(&after)).await?;
        let Some(highest) = above.iter().filter_map(|e| layout::slot_of_key(&e.key)).max() else {
            return Ok(());
        };
        // What was listed may have been appended since we read; what is still above the head was not.
        self.refresh().await?;
        if highest > self.view.head {
            let absent = self.view.head + 1;
            let message =
                format!("slot {absent} of the journal is missing although slot {highest} exists");
            self.freeze("JournalHole", message);
        }
        Ok(())
    }

    /// Reads to the head, and looks whether what was walked last still stands there: a storage that was
    /// emptied under a running hub would else take a record that names packs which no longer exist.
    async fn prepare(&mut self) -> Result<(), JournalError> {
        let judge = |error: &JournalError| match error {
            JournalError::Storage(error) => error.next(),
            JournalError::Stale { .. } => Next::Again,
            JournalError::Repo(_) | JournalError::Frozen(_) | JournalError::NotAllowed { .. } => {
                Next::Stop
            }
        };
        let this = Mutex::new(&mut *self);
        let read = || async {
            let mut this = this.lock().await;
            let View { head, frozen, .. } = this.refresh().await?;
            let (key, frozen) = (layout::journal_key(*head), frozen.is_some());
            if frozen || *head == 0 || this.storage.get(&key, RECORD_LIMIT).await?.is_some() {
                return Ok(());
            }
            Err(JournalError::Stale { key })
        };
        let never = CancellationToken::new();
        match retry::retry(&BEFORE_A_WRITE, JOURNAL, &never, judge, read).await {
            Err(JournalError::Stale { key }) => {
                self.freeze("Rewound", format!("{key} is gone, this hub has read it"));
                Ok(())
            }
            prepared => prepared,
        }
    }

    /// A journal that lost or changed what this hub has seen is not followed (I17).
    fn compare_with_watermark(&mut self, mark: Mark) {
        let Some(seen) = self.watermark else { return };
        if mark.slot == seen.slot && mark.sha256 != seen.sha256 {
            self.freeze("JournalFork", other(seen.slot));
        }
    }

    fn freeze(&mut self, reason: &str, message: String) {
        let hint = "find out who changed the storage; restore the objects below journal/ from its own versions";
        tracing::error!(reason, message, "the journal is frozen");
        let frozen = Frozen { reason: reason.to_owned(), message, hint: hint.to_owned() };
        // A term may pass junk by, but not this.
        if self.view.passable().is_empty() {
            self.view.frozen.get_or_insert(frozen);
        } else {
            self.view.frozen = Some(frozen);
        }
    }

    /// Appends one record. `allowed` is asked against the head before every choice of a slot; after
    /// the first attempt at a slot nothing stops it but a definite answer.
    ///
    /// Returns the slot. The view then reaches at least to the head as it was after the write: a
    /// `Term` above the record shows in it, and decides.
    pub async fn append(
        &mut self,
        writer: &Writer,
        body: Body,
        allowed: impl Fn(&View) -> Result<(), String>,
    ) -> Result<u64, JournalError> {
        let nonce = format!("{:032x}", crate::clock::random());
        loop {
            self.prepare().await?;
            let passes_junk = matches!(&body, Body::Term { skips, .. } if !skips.is_empty());
            if let Some(frozen) = self.view.frozen.clone().filter(|_| !passes_junk) {
                return Err(JournalError::Frozen(frozen));
            }
            allowed(&self.view).map_err(|why| JournalError::NotAllowed { why })?;
            let slot = self.view.head + 1;
            let record = Record {
                repository: self.repo.repository.clone(),
                slot,
                epoch: writer.epoch,
                incarnation: writer.incarnation,
                hub: writer.hub.clone(),
                nonce: nonce.clone(),
                prev: self.view.last,
                key: self.keys.id().to_owned(),
                writer: env!("CARGO_PKG_VERSION").to_owned(),
                at: crate::clock::now(),
                requires: vec![],
                body: body.clone(),
            };
            if let Some(void) = self.view.voids(&record) {
                let why = format!("the record would count for nothing: {}", void.0);
                return Err(JournalError::NotAllowed { why });
            }
            let bytes = Bytes::from(record::encode(&record, &self.keys));
            if bytes.len() as u64 > RECORD_LIMIT {
                let why = format!(
                    "the record has {} bytes, at most {RECORD_LIMIT} fit into a slot",
                    bytes.len()
                );
                return Err(JournalError::NotAllowed { why });
            }
            if settle(&self.storage, &layout::journal_key(slot), &bytes).await? == Settled::Ours {
                tracing::info!(
                    slot,
                    record = body.name(),
                    epoch = writer.epoch,
                    "journal record written"
                );
                // What stands there is known, so it is not read again.
                self.step(Found::Record(Box::new(record)), Digest::of(&bytes));
                self.leave_checkpoint(&body).await;
                // The record is durable: reading on must not turn that into a failure.
                if let Err(error) = self.refresh().await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        slot,
                        "failed to read on after the write"
                    );
                }
                return Ok(slot);
            }
        }
    }

    /// Where a hub that lacks the first key may begin, there must be one: after a `Rekey`, and, should
    /// that one have been missed, when the holder opens its term again.
    async fn leave_checkpoint(&self, written: &Body) {
        let reopened = matches!(written, Body::Open) && self.view.keys.len() > 1;
        let rekeyed = matches!(written, Body::Rekey { .. });
        if reopened || rekeyed || self.view.head.is_multiple_of(checkpoint::EVERY) {
            let id = &self.repo.repository;
            checkpoint::leave(&self.storage, &self.view, id, &self.keys).await;
        }
    }
}

impl Writer {
    /// What [`super::chain`] asks of all but the first records of a term.
    pub fn may_write(&self, view: &View) -> Result<(), String> {
        if !view.is_holder(&self.hub) || view.epoch != self.epoch {
            let holder = view.holder.as_ref().map_or("nobody", |hub| &hub.name);
            return Err(format!("{holder} holds the term {}", view.epoch));
        }
        if view.incarnation != self.incarnation {
            return Err("another daemon of this hub has begun to write".to_owned());
        }
        Ok(())
    }
}

fn as_walked(
    slot: u64,
    found: Option<(Found, Digest)>,
) -> Result<(Box<Record>, Digest), JournalError> {
    match found {
        Some((Found::Record(record), sha256)) => Ok((record, sha256)),
        Some((Found::Junk { why } | Found::Newer { why }, _)) => Err(changed(slot, &why)),
        Some((Found::UnknownKey { key }, _)) => {
            Err(changed(slot, &format!("it names the key {key}, which this hub does not hold")))
        }
        None => Err(changed(slot, "it is gone")),
    }
}

/// Without `repo` there is no repository, and there must be no journal either: a new one must not
/// begin beside it.
async fn nothing_there(storage: &Storage) -> Result<(), JournalError> {
    let listed = storage.list_page(JOURNAL, None).await?;
    if listed.entries.iter().all(|entry| layout::slot_of_key(&entry.key).is_none()) {
        return Ok(());
    }
    Err(JournalError::Frozen(Frozen {
        reason: "JournalHole".to_owned(),
        message: "the object `repo` is missing although the journal has records".to_owned(),
        hint: "find out who deleted it; restore `repo` from the storage's own versions".to_owned(),
    }))
}

fn other(slot: u64) -> String {
    format!("slot {slot} of the journal is not the one that this hub has seen")
}

fn changed(slot: u64, why: &str) -> JournalError {
    JournalError::Frozen(Frozen {
        reason: "JunkRecord".to_owned(),
        message: format!("slot {slot} of the journal is no longer what was read there: {why}"),
        hint: format!("look at the storage: who wrote {}?", layout::journal_key(slot)),
    })
}
