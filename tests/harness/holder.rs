//! A hub that holds the term of a repository, by the library: backups one after another in this very
//! process, with what each of them cost.

use super::Result;
use super::config::Config;
use super::hub::NAMESPACE;
use super::scratch::Scratch;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Mutex;
use understudy::backup::{BackupDone, Primary};
use understudy::capture::select::Selection;
use understudy::config;
use understudy::config::settings::Settings;
use understudy::kube_client;
use understudy::observe::{self, Observer};
use understudy::repository::chain::Backup;
use understudy::repository::journal::{Journal, Writer};
use understudy::repository::keys::Keys;
use understudy::repository::packs::PackStore;
use understudy::repository::record::{self, Body, HubId};
use understudy::repository::storage::Storage;

const TIMEOUT: Duration = Duration::from_mins(20);

/// A repository and the file that says where it is.
pub struct Place {
    pub file: PathBuf,
    pub settings: Settings,
    pub keys: Arc<Keys>,
}

impl Place {
    pub fn at(config: &Config, file: &Path) -> Result<Self> {
        Self::of(&config.write(file)?)
    }

    pub fn of(file: &Path) -> Result<Self> {
        let settings = config::load(file, std::iter::empty())?;
        let keys = Keys::load(&settings.encryption.key_files, &[])?;
        Ok(Self { file: file.to_owned(), settings, keys: Arc::new(keys) })
    }

    /// As the daemon connects.
    pub async fn client(&self, kubeconfig: &Path) -> Result<kube::Client> {
        let kubernetes = &self.settings.kubernetes;
        let options = kube_client::Options {
            kubeconfig: Some(kubeconfig.to_owned()),
            context: None,
            request_timeout: kubernetes.request_timeout,
            max_in_flight: kubernetes.max_in_flight,
            gzip: false,
        };
        Ok(kube_client::connect(&options, observe::nobody()).await?)
    }

    pub fn selection(&self) -> Selection {
        self.settings.selection.clone().with_own_namespace(NAMESPACE)
    }

    pub async fn storage(&self, observer: Observer) -> Result<Storage> {
        Ok(Storage::open(&self.settings.storage.location, observer).await?)
    }
}

/// A hub that holds the term of a repository, with its requests counted.
pub struct Holder {
    journal: Arc<Mutex<Journal>>,
    primary: Primary,
    writer: Writer,
    requests: Arc<AtomicU64>,
    _cache: Scratch,
}

impl Holder {
    /// Begins a repository at the place, and backs up the hub of this kubeconfig.
    pub async fn take(place: &Place, kubeconfig: &Path) -> Result<Self> {
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let observer: Observer = Arc::new(move |_, _, _| {
            counted.fetch_add(1, Relaxed);
        });
        let storage = place.storage(observer).await?;
        let mut journal = Journal::create(storage.clone(), place.keys.clone(), 1).await?;
        let hub = HubId { name: "eu-1".to_owned(), uid: "uid".to_owned() };
        let mut writer = Writer { hub, epoch: 0, incarnation: 0 };
        journal.append(&writer, Body::Init, |_| Ok(())).await?;
        writer.epoch = 1;
        let term = Body::Term { request: "initial".to_owned(), skips: vec![] };
        journal.append(&writer, term, |_| Ok(())).await?;
        writer.incarnation = journal.append(&writer, Body::Open, |_| Ok(())).await?;

        let cache = Scratch::new()?;
        let keys = place.keys.clone();
        let id = journal.repository();
        let packs = PackStore::new(storage, keys.clone(), id, cache.path().to_owned())?;
        let client = place.client(kubeconfig).await?;
        let primary = Primary::new(client, packs, keys, place.selection(), true, 0.3);
        Ok(Self {
            journal: Arc::new(Mutex::new(journal)),
            primary,
            writer,
            requests,
            _cache: cache,
        })
    }

    /// A backup newer than `before`, and the requests to the storage.
    pub async fn back_up(&mut self, before: u64) -> Result<(BackupDone, u64)> {
        let requests = self.requests.load(Relaxed);
        let undamaged = BTreeSet::new();
        let done = self.primary.run(&self.journal, &self.writer, TIMEOUT, &undamaged).await?;
        if done.slot <= before || !done.failed.is_empty() {
            return Err(format!("slot {}, failed {:?}", done.slot, done.failed).into());
        }
        Ok((done, self.requests.load(Relaxed) - requests))
    }

    pub async fn packs(&self, slot: u64) -> Result<Vec<record::PackRef>> {
        let found = self.journal.lock().await.backup(slot).await?;
        let (record, mark) = found.ok_or("there is no such backup")?;
        let Body::Commit(commit) = &record.body else { return Err("it is no commit".into()) };
        Ok(Backup::of(&record, commit, mark).commit.packs().cloned().collect())
    }

    pub async fn bytes(&self, slot: u64) -> Result<u64> {
        Ok(self.packs(slot).await?.iter().map(|pack| pack.length).sum())
    }

    pub async fn new_bytes(&self, slot: u64, before: u64) -> Result<u64> {
        let before = self.packs(before).await?;
        let new = self.packs(slot).await?.into_iter().filter(|pack| !before.contains(pack));
        Ok(new.map(|pack| pack.length).sum())
    }
}
