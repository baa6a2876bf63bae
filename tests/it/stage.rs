//! What most promises are shown on: two hubs, a repository of their own in the S3 server, and a
//! configuration file each. The daemons are started by the test, which they outlive in no case.

use crate::canary;
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli_on, new_key};
use crate::harness::fleet::Item;
use crate::harness::hub::{AuditEvent, DAEMON_USER, Hub};
use crate::harness::oracle::Oracle;
use crate::harness::pair::Pair;
use crate::harness::s3::S3;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, eventually, status};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use understudy::config;
use understudy::object::Set;
use understudy::observe;
use understudy::repository::journal::Journal;
use understudy::repository::keys::Keys;
use understudy::repository::packs::PackStore;
use understudy::repository::storage::Storage;

/// No step takes longer on any machine that could run a hub.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);
/// Enough to keep an API server busy.
pub(crate) const CONNECTIONS: usize = 32;
/// Of a kind, at most: ours, adopted, and what stands in the way.
const LISTS_A_CHECK: usize = 3;

pub(crate) struct Stage {
    pub(crate) pair: Pair,
    pub(crate) repository: Repository,
    pub(crate) primary_config: PathBuf,
    pub(crate) passive_config: PathBuf,
    passive: Config,
    // Keeps the port of its daemon.
    _primary: Config,
}

impl Stage {
    /// A fresh pair and its files; `adjust` changes both configurations.
    pub(crate) async fn set(test: &str, adjust: impl Fn(Config) -> Config) -> Result<Self> {
        let pair = Pair::fresh().await?;
        let repository = Repository::new(test).await?;
        let config =
            |name, role| Ok::<_, crate::harness::Failure>(adjust(repository.config(name, role)?));
        let (primary, passive) = (config("eu-1", "primary")?, config("eu-2", "passive")?);
        let folder = repository.folder();
        Ok(Self {
            primary_config: primary.write(&folder.join("primary.yaml"))?,
            passive_config: passive.write(&folder.join("passive.yaml"))?,
            pair,
            passive,
            _primary: primary,
            repository,
        })
    }

    /// Starts the primary's daemon and waits for its first backup.
    pub(crate) async fn start_primary(&self) -> Result<Daemon> {
        start_primary(&self.pair.primary, &self.primary_config).await
    }

    /// Starts the passive's daemon and waits until it holds the newest backup.
    pub(crate) async fn start_passive(&self) -> Result<Daemon> {
        let mut daemon = Daemon::start_on(&self.pair.passive, &self.passive_config).await?;
        daemon
            .until(DEADLINE, "the standby to be ready", |seen| {
                let newest = status::newest(seen)?;
                (status::restored(seen) == Some(newest)).then_some(())
            })
            .await?;
        Ok(daemon)
    }

    /// At the end of a test whose fleet holds the canaries: they are seen nowhere.
    pub(crate) async fn canary_is_seen_nowhere(&self, daemons: &[&Daemon]) -> Result<()> {
        let hubs: [(&Hub, &Path); 2] = [
            (&self.pair.primary, &self.primary_config),
            (&self.pair.passive, &self.passive_config),
        ];
        let stored = self.repository.stored().await?;
        canary::is_seen_nowhere(stored, self.repository.folder(), &hubs, daemons).await
    }

    /// An operator changes the passive's file.
    pub(crate) fn reconfigure_passive(
        &mut self,
        key: &str,
        value: serde_json::Value,
    ) -> Result<()> {
        self.passive.set(key, value);
        self.passive.write(&self.passive_config)?;
        Ok(())
    }

    /// `understudy backup run`; the id of the backup.
    pub(crate) async fn backup(&self, primary: &Daemon) -> Result<String> {
        let output = cli_on(&self.pair.primary, &self.primary_config, &["backup", "run"])?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`understudy backup run`: {}: {error}", output.status).into());
        }
        let seen = primary.status().await?;
        Ok(status::newest(&seen).ok_or("there is no backup")?.to_owned())
    }

    /// Waits until the passive holds this backup without an error.
    pub(crate) async fn synced(&self, passive: &mut Daemon, backup: &str) -> Result<()> {
        let what = format!("the passive to hold {backup}");
        let held =
            |seen: &serde_json::Value| (status::restored(seen) == Some(backup)).then_some(());
        passive.until(DEADLINE, &what, held).await
    }

    /// Waits for a full check of the passive hub that began after now: it lists every kind for
    /// objects with our label. Needs a short `passive.fullCheck`.
    pub(crate) async fn full_check(&self) -> Result<()> {
        let lists = || -> Result<usize> {
            let events = self.pair.passive.audit()?.into_iter();
            let ours = events.filter(|event| event.user == DAEMON_USER && event.verb == "list");
            Ok(ours.filter(|event| event.resource == "managedclustersets").count())
        };
        let seen = lists()?;
        // One may be under way. The one after it is over when the next begins.
        let passed = async || (lists().ok()? > seen + 2 * LISTS_A_CHECK).then_some(());
        eventually(DEADLINE, "a full check", passed).await
    }

    /// By the audit log of the passive hub, which has no term and takes nothing over.
    pub(crate) fn passive_did_what_it_may(&self, fleet: &[Item]) -> Result<()> {
        let held_back = fleet.iter().filter(|item| item.set == Some(Set::Activation));
        let held_back = held_back.map(|item| item.key.clone()).collect();
        let oracle = Oracle { held_back, ..Oracle::default() };
        assert_eq!(oracle.judge(&self.pair.passive.audit()?), Vec::<String>::new());
        Ok(())
    }

    /// What the daemon did to the passive hub beside telling its own state: `verb resource
    /// namespace/name`, sorted. The first `skip` of them are left out.
    pub(crate) fn restore_writes(&self, skip: usize) -> Result<Vec<String>> {
        restore_writes(&self.pair.passive, skip)
    }
}

/// The writes of a daemon other than its own status, in the order of their names.
pub(crate) fn restore_writes(hub: &Hub, skip: usize) -> Result<Vec<String>> {
    let events = hub.audit_writes(AuditEvent::is_restore_write)?;
    let mut writes: Vec<String> = events.iter().skip(skip).map(describe).collect();
    writes.sort_unstable();
    Ok(writes)
}

fn describe(event: &AuditEvent) -> String {
    let AuditEvent { verb, resource, namespace, name, .. } = event;
    format!("{verb} {resource} {namespace}/{name}")
}

pub(crate) async fn start_primary(hub: &Hub, config: &Path) -> Result<Daemon> {
    let mut daemon = Daemon::start_on(hub, config).await?;
    let newest = |seen: &serde_json::Value| status::newest(seen).map(|_| ());
    daemon.until(DEADLINE, "the first backup", newest).await?;
    Ok(daemon)
}

/// A prefix in the bucket of the test run, and the key to it.
pub(crate) struct Repository {
    pub(crate) s3: &'static S3,
    pub(crate) prefix: String,
    key_file: PathBuf,
    scratch: Scratch,
}

impl Repository {
    pub(crate) async fn new(test: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let key_file = scratch.path().join("key");
        new_key(&key_file)?;
        Ok(Self { s3: S3::shared().await?, prefix: S3::prefix(test), key_file, scratch })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn config(&self, name: &str, role: &str) -> Result<Config> {
        Ok(Config::new(name, role, &self.key_file)?.with_s3(self.s3, &self.prefix))
    }

    /// Opened by the library, as whoever holds the key can.
    pub(crate) async fn open(&self, config: &Path) -> Result<(Journal, PackStore)> {
        let settings = config::load(config, std::iter::empty())?;
        let keys = Keys::load(&settings.encryption.key_files, &settings.encryption.recipients)?;
        let keys = Arc::new(keys);
        let storage = Storage::open(&settings.storage.location, observe::nobody()).await?;
        let journal = Journal::open(storage.clone(), keys.clone(), None).await?;
        let journal = journal.ok_or("there is no repository yet")?;
        let cache = self.folder().join("opened");
        let packs = PackStore::new(storage, keys, journal.repository(), cache)?;
        Ok((journal, packs))
    }

    /// Every object that the bucket holds below the prefix.
    pub(crate) async fn stored(&self) -> Result<BTreeMap<String, Bytes>> {
        self.s3.stored(&self.prefix).await
    }
}

/// Those below `packs/`.
pub(crate) fn packs(stored: &BTreeMap<String, Bytes>) -> Vec<(&String, usize)> {
    let packs = stored.iter().filter(|(name, _)| name.starts_with("packs/"));
    packs.map(|(name, bytes)| (name, bytes.len())).collect()
}
