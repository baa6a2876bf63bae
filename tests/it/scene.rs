//! Two hubs, a repository in a folder, and the configuration of a daemon on each: what most tests
//! of a running pair need, and how they look at it.

use crate::canary;
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli_on, new_key};
use crate::harness::fleet::{self, Item};
use crate::harness::hub::{AuditEvent, Hub, NAMESPACE};
use crate::harness::oracle::Oracle;
use crate::harness::pair::Pair;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, eventually, kinds, status};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use understudy::object::{ObjectKey, Set};

pub(crate) const FIRST: &str = "eu-1";
pub(crate) const SECOND: &str = "eu-2";
/// No step takes longer on any machine that could run a hub.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);
/// Two polls of the journal and what a slow machine adds.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const CONNECTIONS: usize = 16;
const SEED: u64 = 7;

pub(crate) struct Scene {
    pub(crate) pair: Pair,
    pub(crate) items: Vec<Item>,
    pub(crate) first: Config,
    pub(crate) second: Config,
    pub(crate) key: PathBuf,
    pub(crate) repository: PathBuf,
    pub(crate) scratch: Scratch,
}

impl Scene {
    /// A fresh pair with a fleet of so many clusters and the canaries on the first hub; no daemon runs
    /// yet.
    pub(crate) async fn set(clusters: usize) -> Result<Self> {
        let pair = Pair::fresh().await?;
        let mut items = if clusters == 0 { vec![] } else { fleet::demo(clusters, SEED) };
        if clusters > 0 {
            items.extend(canary::items());
        }
        fleet::populate(&pair.primary.api()?, &items, CONNECTIONS).await?;
        let scratch = Scratch::new()?;
        let (key, repository) = (scratch.path().join("key"), scratch.path().join("repository"));
        new_key(&key)?;
        std::fs::create_dir(&repository)?;
        let config = |name, role| -> Result<Config> {
            Ok(Config::new(name, role, &key)?.with_directory(&repository))
        };
        let (first, second) = (config(FIRST, "primary")?, config(SECOND, "passive")?);
        Ok(Self { pair, items, first, second, key, repository, scratch })
    }

    pub(crate) fn first_file(&self) -> Result<PathBuf> {
        self.first.write(&self.scratch.path().join("first.yaml"))
    }

    pub(crate) fn second_file(&self) -> Result<PathBuf> {
        self.second.write(&self.scratch.path().join("second.yaml"))
    }

    pub(crate) async fn start_first(&self) -> Result<Daemon> {
        Daemon::start_on(&self.pair.primary, &self.first_file()?).await
    }

    pub(crate) async fn start_second(&self) -> Result<Daemon> {
        Daemon::start_on(&self.pair.passive, &self.second_file()?).await
    }

    /// Both daemons run, and the second hub holds the first's backup.
    pub(crate) async fn running(&self) -> Result<(Daemon, Daemon)> {
        let (mut first, mut second) = tokio::try_join!(self.start_first(), self.start_second())?;
        until_role(&mut first, "primary").await?;
        first.until(DEADLINE, "a first backup", |s| status::newest(s).map(|_| ())).await?;
        second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
        Ok((first, second))
    }

    /// Asks the daemon of the first hub for a backup as an operator does; its id.
    pub(crate) async fn backup(&self, daemon: &mut Daemon) -> Result<String> {
        let before = status::newest(&daemon.status().await?).map(str::to_owned);
        let output = cli_on(&self.pair.primary, &self.first_file()?, &["backup", "run"])?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let newer = |seen: &Value| {
            status::newest(seen).filter(|id| Some(*id) != before.as_deref()).map(str::to_owned)
        };
        daemon.until(DEADLINE, "a newer backup", newer).await
    }

    /// At the end of a test, with both hubs there: what was planted is seen nowhere.
    pub(crate) async fn canary_is_seen_nowhere(&self, daemons: &[&Daemon]) -> Result<()> {
        let (first, second) = (self.first_file()?, self.second_file()?);
        let hubs: [(&Hub, &Path); 2] =
            [(&self.pair.primary, &first), (&self.pair.passive, &second)];
        let mut everything = stored(&self.repository)?;
        for path in
            [self.repository.join("repo")].into_iter().chain(files(&self.repository.join("beats"))?)
        {
            let bytes = std::fs::read(&path)?;
            everything.insert(path, bytes);
        }
        let everything =
            everything.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes));
        canary::is_seen_nowhere(everything, self.scratch.path(), &hubs, daemons).await
    }

    /// By the audit log of the second hub.
    pub(crate) fn second_did_what_it_may(&self) -> Result<()> {
        let own = |record: &Record| record.kind == "Term" && record.hub == SECOND;
        let term = journal(&self.repository)?.into_iter().find(own);
        let oracle = Oracle {
            held_back: self.keys_of(Set::Activation).into_iter().cloned().collect(),
            term: term.map(|record| record.since),
            ..Oracle::default()
        };
        assert_eq!(oracle.judge(&self.pair.passive.audit()?), Vec::<String>::new());
        Ok(())
    }

    pub(crate) fn keys_of(&self, set: Set) -> BTreeSet<&ObjectKey> {
        self.items.iter().filter(|item| item.set == Some(set)).map(|item| &item.key).collect()
    }

    /// Writes of the daemon on `hub` to objects of `set`.
    pub(crate) fn writes_to(&self, hub: &Hub, set: Set) -> Result<Vec<AuditEvent>> {
        let keys = self.keys_of(set);
        hub.audit_writes(|event| {
            event.is_restore_write()
                && ObjectKey::new(&event.group, &event.resource, &event.namespace, &event.name)
                    .is_ok_and(|key| keys.contains(&key))
        })
    }
}

/// The standby holds the newest backup, and says so.
pub(crate) fn in_sync(seen: &Value) -> Option<()> {
    let newest = status::newest(seen)?;
    (status::restored(seen) == Some(newest)).then_some(())
}

pub(crate) async fn until_role(daemon: &mut Daemon, role: &str) -> Result<Value> {
    let has = |seen: &Value| (status::role(seen) == role).then(|| seen.clone());
    daemon.until(DEADLINE, &format!("the role {role}"), has).await
}

pub(crate) async fn until_silent(daemon: &mut Daemon) -> Result<()> {
    let silent = |seen: &Value| status::primary_is_silent(seen).then_some(());
    daemon.until(DEADLINE, "the primary to fall silent", silent).await
}

/// The refusal of the last request to promote.
pub(crate) async fn until_refused(daemon: &mut Daemon, reason: &str) -> Result<Value> {
    let refused = |seen: &Value| {
        let refused = &seen["promotion"]["refused"];
        (refused["reason"] == reason).then(|| refused.clone())
    };
    daemon.until(SOON, &format!("the refusal {reason}"), refused).await
}

/// Writes of restores that the daemon on `hub` ever made.
pub(crate) fn restore_writes(hub: &Hub) -> Result<usize> {
    Ok(hub.audit_writes(AuditEvent::is_restore_write)?.len())
}

pub(crate) fn hub_path(name: &str) -> String {
    format!("/apis/understudy.dev/v1alpha1/namespaces/{NAMESPACE}/hubs/{name}")
}

/// Waits for an Event with this reason; its note.
pub(crate) async fn until_event(hub: &Hub, reason: &str) -> Result<String> {
    let api = hub.api()?;
    let path = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    eventually(SOON, &format!("an Event {reason}"), async || {
        let events = api.get_json(&path).await.ok()?;
        let found = events["items"].as_array()?.iter().find(|event| event["reason"] == reason)?;
        Some(found["note"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// The condition of the `Hub` resource has this status and reason; its message.
pub(crate) async fn until_condition(
    hub: &Hub,
    name: &str,
    kind: &str,
    status: &str,
    reason: &str,
) -> Result<String> {
    let (api, path, mut last) = (hub.api()?, hub_path(name), Value::Null);
    let outcome = eventually(DEADLINE, &format!("{kind}={status} ({reason})"), async || {
        last = api.get_json(&path).await.ok()?["status"]["conditions"].take();
        let condition = last.as_array()?.iter().find(|one| one["type"] == kind)?;
        let wanted = condition["status"] == status && condition["reason"] == reason;
        wanted.then(|| condition["message"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    outcome.map_err(|error| format!("{error}\nconditions: {last:#}").into())
}

/// The value of one series of `/metrics`, named as it stands there.
pub(crate) async fn metric(daemon: &Daemon, series: &str) -> Result<Option<f64>> {
    let (_, text) = daemon.http_get("/metrics").await?;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(value.map(str::parse).transpose()?)
}

pub(crate) async fn until_metric(daemon: &Daemon, series: &str, wanted: f64) -> Result<()> {
    eventually(SOON, &format!("{series} {wanted}"), async || {
        let value = metric(daemon, series).await.ok()??;
        (value.to_bits() == wanted.to_bits()).then_some(())
    })
    .await
}

/// A record as it stands in the journal of a repository in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) slot: u64,
    pub(crate) epoch: u64,
    pub(crate) incarnation: u64,
    pub(crate) hub: String,
    pub(crate) kind: String,
    pub(crate) body: Value,
    /// When it had its name: by the file system, not by its writer.
    pub(crate) since: Timestamp,
}

/// The journal from its first slot on.
pub(crate) fn journal(repository: &Path) -> Result<Vec<Record>> {
    let mut records = vec![];
    for path in files(&repository.join("journal"))? {
        let metadata = std::fs::metadata(&path)?;
        let since = Timestamp::new(metadata.ctime(), i32::try_from(metadata.ctime_nsec())?)?;
        let text = std::fs::read_to_string(&path)?;
        let record: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        records.push(Record {
            slot: record["slot"].as_u64().unwrap_or_default(),
            epoch: record["epoch"].as_u64().unwrap_or_default(),
            incarnation: record["incarnation"].as_u64().unwrap_or_default(),
            hub: text(&record["hub"]["name"]),
            kind: text(&record["body"]["kind"]),
            body: record["body"].clone(),
            since,
        });
    }
    Ok(records)
}

/// How often each kind of record was written by a hub in a term.
pub(crate) fn counts(records: &[Record]) -> BTreeMap<(u64, &str, &str), usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry((record.epoch, record.hub.as_str(), record.kind.as_str())).or_default() += 1;
    }
    counts
}

/// Names and contents of journal and packs: what a fenced hub must leave as it is.
pub(crate) fn stored(repository: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut stored = BTreeMap::new();
    for folder in ["journal", "packs"] {
        for path in files(&repository.join(folder))? {
            let bytes = std::fs::read(&path)?;
            stored.insert(path, bytes);
        }
    }
    Ok(stored)
}

/// The files in `folder` by name; none if there is no such folder.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(vec![]);
    }
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// What is different on the second hub, when it should hold the sets in `both` and nothing else.
pub(crate) async fn differences(scene: &Scene, both: &[Set]) -> Result<Vec<String>> {
    use crate::harness::compare::{Place, compare, snapshot};
    let (kinds, pair) = (kinds::all(), &scene.pair);
    let (first, second) = (pair.primary.api()?, pair.passive.api()?);
    let (first, second) = tokio::try_join!(snapshot(&first, &kinds), snapshot(&second, &kinds))?;
    let places = scene.items.iter().map(|item| {
        let held = item.set.is_some_and(|set| both.contains(&set));
        (item.key.clone(), if held { Place::Both } else { Place::FirstOnly })
    });
    let places: BTreeMap<_, _> = places.collect();
    let place = |key: &ObjectKey| places.get(key).copied().unwrap_or(Place::Anywhere);
    Ok(compare(&first, &second, place).iter().map(ToString::to_string).collect())
}
