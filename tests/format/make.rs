//! A small repository that holds something of everything: two terms, a void record, bases and deltas
//! with all kinds of tombstones, an unchanged, a partial and a suspect backup, an acknowledgement,
//! heartbeats.
//!
//! What each backup holds is kept beside it, computed without the code that reads backups.

use crate::Result;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use understudy::clock;
use understudy::config::settings;
use understudy::object::{Digest, GroupResource, ObjectKey, Set};
use understudy::observe;
use understudy::repository::journal::{Journal, Writer};
use understudy::repository::keys::{self, Keys};
use understudy::repository::layout::{self, FORMAT, PackName, beat_key};
use understudy::repository::pack::{self, Gone, Header, Line, ObjectLine};
use understudy::repository::packs::PackStore;
use understudy::repository::record::{
    self, Beat, Body, Commit, Cut, HubId, Level, Record, Retire, SetContents,
};
use understudy::repository::storage::Storage;
use understudy::status::Role;

/// What happens to one object between two backups.
pub(crate) enum Change {
    Is(&'static str),
    Gone(Gone),
}

type Changes<'a> = &'a [(Set, &'static str, Change)];

pub(crate) struct Maker {
    pub(crate) storage: Storage,
    pub(crate) keys: Arc<Keys>,
    pub(crate) journal: Journal,
    packs: PackStore,
    levels: BTreeMap<Set, Vec<Level>>,
    objects: BTreeMap<Set, BTreeMap<ObjectKey, Value>>,
    /// By slot of the commit, by set, by key as in a pack: the objects.
    pub(crate) backups: BTreeMap<u64, Value>,
    _cache: tempfile::TempDir,
}

pub(crate) async fn storage(folder: &Path) -> Result<Storage> {
    let location = settings::Location::Directory(folder.to_owned());
    Ok(Storage::open(&location, observe::nobody()).await?)
}

pub(crate) fn new_keys(file: &Path) -> Result<Arc<Keys>> {
    keys::create_key_file(file, clock::now())?;
    load_keys(file)
}

pub(crate) fn load_keys(file: &Path) -> Result<Arc<Keys>> {
    Ok(Arc::new(Keys::load(&[file.to_owned()], &[])?))
}

/// Makes the whole repository in an empty folder.
pub(crate) async fn make(folder: &Path, keys: Arc<Keys>) -> Result<Maker> {
    use Change::{Gone as Left, Is};
    use Gone::{Deleted, Deselected, Moved};
    use Set::{Activation, Credentials, Resources};
    let mut maker = Maker::new(folder, keys).await?;
    maker.append("eu-1", 0, 0, Body::Init).await?;
    maker.append("eu-1", 1, 0, term("initial")).await?;
    let first = maker.append("eu-1", 1, 0, Body::Open).await?;
    let base: Changes = &[
        (Credentials, "token", Is("s3cr3t")),
        (Credentials, "old", Is("x")),
        (Resources, "settings", Is("one")),
        (Resources, "moving", Is("m")),
        (Resources, "dropped", Is("d")),
        (Activation, "cluster-1", Is("c")),
    ];
    maker.backup("eu-1", (1, first), base, |_| ()).await?;
    let delta: Changes = &[
        (Credentials, "old", Left(Deleted)),
        (Credentials, "moving", Is("m")),
        (Resources, "moving", Left(Moved)),
        (Resources, "dropped", Left(Deselected)),
        (Resources, "settings", Is("two <&> ü \u{1f680} 12345678901234567890")),
    ];
    let superseded = maker.backup("eu-1", (1, first), delta, |_| ()).await?;

    maker.append("eu-2", 2, 0, term("failover")).await?;
    // The old primary had not seen that: void.
    maker.put_blindly("eu-1", 1, first, superseded).await?;
    let second = maker.append("eu-2", 2, 0, Body::Open).await?;
    let failed = vec!["configmaps ns/dropped: denied".to_owned()];
    maker.append("eu-2", 2, second, Body::Activated { failed }).await?;
    maker.levels.clear();
    let again: Changes = &[
        (Credentials, "token", Is("s3cr3t")),
        (Credentials, "moving", Is("m")),
        (Resources, "settings", Is("two")),
        (Activation, "cluster-1", Is("c")),
        (Activation, "cluster-2", Is("c")),
    ];
    let apart =
        GroupResource { group: "wardle.example".to_owned(), resource: "fischers".to_owned() };
    maker.backup("eu-2", (2, second), again, |c| c.cut.apart = vec![apart]).await?;
    let delta: Changes =
        &[(Resources, "settings", Is("three")), (Activation, "cluster-1", Left(Deleted))];
    maker.backup("eu-2", (2, second), delta, |_| ()).await?;
    let broken = GroupResource::whole_group("broken.example");
    maker.backup("eu-2", (2, second), &[], |c| c.partial = vec![broken]).await?;
    let delta: Changes = &[(Credentials, "token", Left(Deleted))];
    let suspect = "credentials shrank by half".to_owned();
    maker.backup("eu-2", (2, second), delta, |c| c.suspect = Some(suspect)).await?;
    let slot = maker.journal.view().head;
    maker.append("eu-2", 2, second, Body::Ack { slot }).await?;
    for hub in ["eu-1", "eu-2"] {
        maker.beat(hub, 1).await?;
    }
    Ok(maker)
}

fn term(request: &str) -> Body {
    Body::Term { request: request.to_owned(), skips: vec![] }
}

pub(crate) fn hub(name: &str) -> HubId {
    HubId { name: name.to_owned(), uid: format!("uid-of-{name}") }
}

impl Maker {
    async fn new(folder: &Path, keys: Arc<Keys>) -> Result<Self> {
        let storage = storage(folder).await?;
        let journal = Journal::create(storage.clone(), keys.clone(), clock::random()).await?;
        let cache = tempfile::tempdir()?;
        let path: PathBuf = cache.path().to_owned();
        let packs = PackStore::new(storage.clone(), keys.clone(), journal.repository(), path)?;
        Ok(Self {
            storage,
            keys,
            journal,
            packs,
            levels: BTreeMap::new(),
            objects: Set::ALL.map(|set| (set, BTreeMap::new())).into(),
            backups: BTreeMap::new(),
            _cache: cache,
        })
    }

    pub(crate) async fn append(
        &mut self,
        name: &str,
        epoch: u64,
        incarnation: u64,
        body: Body,
    ) -> Result<u64> {
        let writer = Writer { hub: hub(name), epoch, incarnation };
        Ok(self.journal.append(&writer, body, |_| Ok(())).await?)
    }

    /// The last word so far.
    pub(crate) async fn retire_oldest(&mut self) -> Result<()> {
        let oldest = *self.backups.keys().next().ok_or("there is no backup")?;
        self.backups.remove(&oldest);
        // Of a run that did not come to its commit.
        let orphan = PackName::new(1, 3, ulid::Ulid::from_parts(1, clock::random()));
        let retire = Retire { backups: vec![oldest], packs: vec![orphan], swept: 0 };
        let incarnation = self.journal.view().incarnation;
        self.append("eu-2", 2, incarnation, Body::Retire(retire)).await?;
        Ok(())
    }

    /// As a faulty writer would: [`Journal::append`] refuses what would count for nothing.
    pub(crate) async fn put_blindly(
        &mut self,
        name: &str,
        epoch: u64,
        incarnation: u64,
        body: Body,
    ) -> Result<u64> {
        let slot = self.journal.view().head + 1;
        let record = Record {
            repository: self.journal.repository().to_owned(),
            slot,
            epoch,
            incarnation,
            hub: hub(name),
            nonce: format!("{:032x}", clock::random()),
            prev: self.journal.view().last,
            key: self.keys.id().to_owned(),
            writer: env!("CARGO_PKG_VERSION").to_owned(),
            at: clock::now(),
            requires: vec![],
            body,
        };
        let bytes = record::encode(&record, &self.keys).into();
        self.storage.create(&layout::journal_key(slot), bytes).await?;
        self.journal.refresh().await?;
        Ok(slot)
    }

    /// Adds a level to each set that changed, and commits.
    async fn backup(
        &mut self,
        name: &str,
        (epoch, incarnation): (u64, u64),
        changes: Changes<'_>,
        remark: impl FnOnce(&mut Commit),
    ) -> Result<Body> {
        for set in Set::ALL {
            let of_set: Vec<_> = changes.iter().filter(|(of, ..)| *of == set).collect();
            if of_set.is_empty() {
                continue;
            }
            let revision = format!("{}", 100 + self.backups.len());
            let repository = self.journal.repository().to_owned();
            let header = Header { format: FORMAT, repository, epoch, set, index: 0, revision };
            let mut writer = pack::Writer::new(&header, &self.keys)?;
            for (_, name, change) in of_set {
                self.push(&mut writer, set, name, change)?;
            }
            let milliseconds = u64::try_from(clock::now().as_millisecond())?;
            let unique = ulid::Ulid::from_parts(milliseconds, clock::random());
            let name = PackName::new(epoch, incarnation, unique);
            let reference = self.packs.put(&name, writer.finish()?).await?;
            self.levels.entry(set).or_default().push(Level { packs: vec![reference] });
        }
        let sets = Set::ALL.map(|set| (set, self.contents(set, changes))).into();
        let cut = Cut { revision: format!("{}", 100 + self.backups.len()), apart: vec![] };
        let rules = Digest::of(b"rules");
        let mut commit = Commit { sets, cut, rules, suspect: None, partial: vec![] };
        remark(&mut commit);
        let body = Body::Commit(commit);
        let slot = self.append(name, epoch, incarnation, body.clone()).await?;
        self.backups.insert(slot, expected(&self.objects));
        Ok(body)
    }

    fn push(
        &mut self,
        writer: &mut pack::Writer,
        set: Set,
        name: &str,
        change: &Change,
    ) -> Result<()> {
        let key = key(set, name)?;
        let objects = self.objects.entry(set).or_default();
        match change {
            Change::Gone(gone) => {
                objects.remove(&key);
                writer.push(Line::Gone { key, gone: *gone })?;
            }
            Change::Is(data) => {
                let object = json!({"apiVersion": "v1", "kind": "Any", "metadata": {
                    "name": name, "namespace": key.namespace(),
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Owner", "name": "o", "uid": "u"}],
                }, "data": {"value": data}});
                let raw = RawValue::from_string(object.to_string())?;
                objects.insert(key.clone(), object);
                writer.push(Line::Object(ObjectLine {
                    uid: format!("uid-{name}").into(),
                    resource_version: format!("{}", 90 + self.backups.len()).into(),
                    version: "v1".into(),
                    object: &raw,
                    key,
                }))?;
            }
        }
        Ok(())
    }

    fn contents(&self, set: Set, changes: Changes) -> SetContents {
        let mut kinds = BTreeMap::new();
        for key in self.objects[&set].keys() {
            *kinds.entry(key.group_resource().to_string()).or_default() += 1;
        }
        SetContents {
            levels: self.levels.get(&set).cloned().unwrap_or_default(),
            objects: self.objects[&set].len() as u64,
            changed: changes.iter().filter(|(of, ..)| *of == set).count() as u64,
            kinds,
        }
    }

    /// Overwrites the heartbeat of a hub; its bytes.
    pub(crate) async fn beat(&self, name: &str, counter: u64) -> Result<Vec<u8>> {
        let beat = Beat {
            repository: self.journal.repository().to_owned(),
            hub: hub(name),
            key: self.keys.id().to_owned(),
            keys: self.keys.ids().map(str::to_owned).collect(),
            role: Role::Passive,
            epoch: 2,
            incarnation: 0,
            counter,
            run: "run".to_owned(),
            interval_seconds: 10.0,
            backup: None,
            ready: true,
            drills: None,
            at: clock::now(),
        };
        let bytes = record::encode_beat(&beat, &self.keys);
        self.storage.put(&beat_key(name), bytes.clone().into()).await?;
        Ok(bytes)
    }
}

fn key(set: Set, name: &str) -> Result<ObjectKey> {
    Ok(match set {
        // An object may move: its key does not tell its set.
        Set::Credentials if name != "moving" => ObjectKey::new("", "secrets", "ns", name)?,
        Set::Credentials | Set::Resources => ObjectKey::new("", "configmaps", "ns", name)?,
        Set::Activation => {
            ObjectKey::new("cluster.open-cluster-management.io", "managedclusters", "", name)?
        }
    })
}

fn expected(objects: &BTreeMap<Set, BTreeMap<ObjectKey, Value>>) -> Value {
    let sets = objects.iter().map(|(set, objects)| {
        let objects = objects.iter().map(|(key, object)| (key.to_string(), object.clone()));
        (set.to_string(), Value::Object(objects.collect()))
    });
    Value::Object(sets.collect())
}
