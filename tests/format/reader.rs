//! Reads all of a repository as a standby does that has just started: the journal, every backup that
//! it shows, the heartbeats. What is handed out is kept as text, to be compared.

use crate::Result;
use crate::make::storage;
use futures::FutureExt as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use understudy::object::Set;
use understudy::repository::chain::{Backup, View};
use understudy::repository::journal::{Journal, JournalError};
use understudy::repository::keys::Keys;
use understudy::repository::layout::{BEATS, Mark, RECORD_LIMIT, beat_key, pack_key};
use understudy::repository::packs::{Opened, PackStore};
use understudy::repository::record::{self, Body, PackRef};
use understudy::repository::storage::Storage;
use understudy::retry::Class;

/// What a reader was told. No complaint and no damaged backup: it would act on all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Read {
    /// Why the journal is not followed.
    pub(crate) complaint: Option<String>,
    /// All that the walk found, but for that reason.
    pub(crate) view: String,
    pub(crate) head: Option<Mark>,
    /// By the slot of the commit: what it holds, or what is damaged.
    pub(crate) backups: BTreeMap<u64, std::result::Result<Held, String>>,
    /// By hub, as far as authentic.
    pub(crate) beats: BTreeMap<String, Vec<u8>>,
}

/// A backup as it was opened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) backup: Arc<Backup>,
    /// Everything that a restore would take from it, as text.
    pub(crate) contents: String,
    /// As in [`crate::make::Maker::backups`].
    pub(crate) objects: Value,
}

pub(crate) struct Reader {
    cache: PathBuf,
    keys: Arc<Keys>,
    storage: Storage,
    /// A commit that is as it was and names no pack that was touched gives what it gave: it need not
    /// be opened again.
    pub(crate) known: BTreeMap<u64, Held>,
}

impl Reader {
    pub(crate) async fn new(folder: &Path, cache: &Path, keys: Arc<Keys>) -> Result<Self> {
        let storage = storage(folder).await?;
        Ok(Self { cache: cache.to_owned(), keys, storage, known: BTreeMap::new() })
    }

    /// Fails when it panicked, or ended with anything but what it read or damage.
    pub(crate) async fn read(&self, watermark: Option<Mark>, touched: &[String]) -> Result<Read> {
        let read = AssertUnwindSafe(self.journal(watermark, touched)).catch_unwind().await;
        read.map_err(|_| "it panicked")?
    }

    async fn journal(&self, watermark: Option<Mark>, touched: &[String]) -> Result<Read> {
        let mut read = Read::default();
        let opened = Journal::open(self.storage.clone(), self.keys.clone(), watermark).await;
        let mut journal = match opened {
            Ok(Some(journal)) => journal,
            Ok(None) => {
                // As the daemon: what it has seen once cannot be absent.
                read.complaint = watermark.map(|_| "there is no repository any more".to_owned());
                return Ok(read);
            }
            Err(error) => {
                read.complaint = Some(damage(error)?);
                return Ok(read);
            }
        };
        journal.refresh().await?;
        if watermark.is_none() {
            journal.look_for_holes().await?;
        }
        let view = journal.view();
        read.complaint = view.frozen.as_ref().map(|frozen| frozen.message.clone());
        read.view = format!("{:?}", View { frozen: None, junk: vec![], ..view.clone() });
        read.head = view.last;
        let store = PackStore::new(
            self.storage.clone(),
            self.keys.clone(),
            journal.repository(),
            self.cache.clone(),
        )?;
        let mut before = None;
        for summary in &view.backups {
            let Some((record, mark)) = journal.backup(summary.slot).await? else {
                return Err(format!("the backup {} is shown and not there", summary.id).into());
            };
            let Body::Commit(commit) = &record.body else { return Err("it is no commit".into()) };
            let backup = Arc::new(Backup::of(&record, commit, mark));
            let known = self.known.get(&summary.slot).filter(|known| known.backup == backup);
            let is_touched = |pack: &PackRef| touched.contains(&pack_key(&pack.name));
            let held = match known.filter(|_| !commit.packs().any(is_touched)) {
                Some(known) => Ok(known.clone()),
                None => open(&store, backup, &mut before).await?,
            };
            read.backups.insert(summary.slot, held);
        }
        for name in ["eu-1", "eu-2"] {
            let stored = self.storage.get(&beat_key(name), RECORD_LIMIT).await;
            let Ok(Some(stored)) = stored else { continue };
            // As the daemon: a beat counts under its writer's own name.
            let beat = record::decode_beat(&stored.bytes, journal.repository(), &self.keys);
            if beat.is_ok_and(|beat| beat.hub.name == name) {
                read.beats.insert(format!("{BEATS}{name}"), stored.bytes.to_vec());
            }
        }
        Ok(read)
    }
}

/// An answer of the storage that is not damage would mean that the test looks at something else.
fn damage(error: JournalError) -> Result<String> {
    match error {
        JournalError::Repo(error) => Ok(error.to_string()),
        JournalError::Frozen(frozen) => Ok(frozen.message),
        JournalError::Storage(error) if error.class() == Class::Damaged => Ok(error.to_string()),
        error @ (JournalError::Storage(_)
        | JournalError::Stale { .. }
        | JournalError::NotAllowed { .. }) => Err(error.into()),
    }
}

async fn open(
    store: &PackStore,
    backup: Arc<Backup>,
    before: &mut Option<Opened>,
) -> Result<std::result::Result<Held, String>> {
    let opened = match store.open(backup.clone(), before.take()).await {
        Ok(opened) => opened,
        Err(error) if error.is_damage() => return Ok(Err(error.to_string())),
        // Also a panic on the thread that opens packs.
        Err(error) => return Err(error.into()),
    };
    let mut objects = BTreeMap::new();
    for pack in (0..).take(backup.commit.packs().count()) {
        store.objects(&opened, pack, |key, object| {
            objects.insert(key, object.get().to_owned());
            ControlFlow::Continue(())
        })?;
    }
    let mut contents = String::new();
    let mut sets: BTreeMap<String, serde_json::Map<String, Value>> =
        Set::ALL.map(|set| (set.to_string(), serde_json::Map::new())).into();
    let entries: BTreeMap<_, _> = opened.contents.entries.iter().collect();
    for (key, entry) in entries {
        let object = objects.get(key).ok_or("an object that was counted is not in its pack")?;
        writeln!(contents, "{key} {entry:?} {object}")?;
        let set = sets.entry(entry.set.to_string()).or_default();
        set.insert(key.to_string(), serde_json::from_str(object)?);
    }
    for (set, gone) in &opened.contents.gone {
        let gone: BTreeMap<_, _> = gone.iter().collect();
        writeln!(contents, "{set} without {gone:?}")?;
    }
    *before = Some(opened);
    let objects = sets.into_iter().map(|(set, objects)| (set, Value::Object(objects))).collect();
    Ok(Ok(Held { backup, contents, objects }))
}
