//! A standby alone with its storage: backups of a fleet that no hub ever held, each a few seeded
//! changes after the one before, and what the standby has to look like when it holds the newest.

use crate::harness::author::Author;
use crate::harness::bare::Post;
use crate::harness::compare::{Place, compare, snapshot};
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, new_key};
use crate::harness::faultd::fault::draw;
use crate::harness::fleet::{self, Item};
use crate::harness::holder;
use crate::harness::hub::{AuditEvent, Hub, HubOptions, NAMESPACE};
use crate::harness::oracle::Oracle;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, kinds, pair, status};
use crate::scene::files;
use crate::stage::{CONNECTIONS, DEADLINE};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use understudy::object::{ObjectKey, Set};

pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) file: PathBuf,
    author: Author,
    /// What the newest backup holds.
    items: BTreeMap<ObjectKey, Item>,
    /// What was deleted, and may come back.
    away: Vec<Item>,
    /// Stand on the hub, made by somebody else.
    foreign: BTreeMap<ObjectKey, Value>,
    /// How often a backup changed them since this was asked last.
    changed: BTreeMap<ObjectKey, usize>,
    seed: u64,
    step: u64,
    audited: usize,
    /// Verbs whose requests are not counted by [`World::is_exact`].
    pub(crate) uncounted: &'static [&'static str],
    _config: Config,
    scratch: Scratch,
}

impl World {
    /// A hub without a daemon, and an empty repository in a folder.
    pub(crate) async fn set(
        seed: u64,
        clusters: usize,
        adjust: impl Fn(Config) -> Config,
    ) -> Result<Self> {
        Self::on(HubOptions::default(), seed, clusters, adjust).await
    }

    pub(crate) async fn on(
        options: HubOptions,
        seed: u64,
        clusters: usize,
        adjust: impl Fn(Config) -> Config,
    ) -> Result<Self> {
        let hub = Hub::start("passive", options).await?;
        pair::prepare(&hub).await?;
        let scratch = Scratch::new()?;
        let (key, repository) = (scratch.path().join("key"), scratch.path().join("repository"));
        new_key(&key)?;
        std::fs::create_dir(&repository)?;
        let config = Config::new("eu-2", "passive", &key)?
            .with_directory(&repository)
            .with("passive.syncInterval", json!("1s"))
            .with("passive.maxShrink", json!("100%"));
        let config = adjust(config);
        let file = scratch.path().join("passive.yaml");
        let author = Author::begin(&holder::Place::at(&config, &file)?).await?;
        let fleet = fleet::demo(clusters, seed);
        let away = fleet.into_iter().filter(|item| item.set.is_some()).collect();
        Ok(Self {
            hub,
            file,
            author,
            items: BTreeMap::new(),
            away,
            foreign: BTreeMap::new(),
            changed: BTreeMap::new(),
            seed,
            step: 0,
            audited: 0,
            uncounted: &[],
            _config: config,
            scratch,
        })
    }

    pub(crate) fn packs(&self) -> Result<Vec<PathBuf>> {
        files(&self.scratch.path().join("repository/packs"))
    }

    /// Objects of somebody else, of kinds of the core group.
    pub(crate) async fn put_foreign(&mut self, objects: &[(ObjectKey, Value)]) -> Result<()> {
        let posts = objects.iter().map(|(key, body)| {
            Ok(Post { path: key.collection_path("v1"), body: serde_json::to_vec(body)?.into() })
        });
        let posts = posts.collect::<Result<Vec<_>>>()?;
        for (index, answer) in self.hub.api()?.post_all(&posts, CONNECTIONS).await? {
            let object = as_listed(serde_json::from_slice(&answer)?);
            self.foreign.insert(objects[index].0.clone(), object);
        }
        Ok(())
    }

    /// What is somebody else's is as it was, bit for bit.
    pub(crate) async fn spares_foreign(&self) -> Result<()> {
        let api = self.hub.api()?;
        let of_core = kinds::all().into_iter().filter(|kind| kind.group.is_empty());
        let mut live = BTreeMap::new();
        for kind in of_core {
            for object in api.list(&kind).await? {
                let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
                let key = ObjectKey::new("", &kind.resource, text("namespace"), text("name"))?;
                live.insert(key, as_listed(object));
            }
        }
        for (key, object) in &self.foreign {
            assert!(live.get(key) == Some(object), "{key} is not ours and was changed");
        }
        Ok(())
    }

    pub(crate) fn start(&self, kubeconfig: &Path) -> Result<Daemon> {
        Daemon::start(&self.file, kubeconfig, NAMESPACE)
    }

    /// The next backup: the first holds everything, in each further one some objects are others, some
    /// are gone, and some of those that went are back. Its id.
    pub(crate) async fn back_up(&mut self) -> Result<String> {
        self.step += 1;
        let mut gone = vec![];
        if self.step > 1 {
            let keys: Vec<ObjectKey> = self.items.keys().cloned().collect();
            for (key, number) in keys.iter().zip(0..) {
                let stays = key.resource() == "namespaces";
                match self.draw(number) % 100 {
                    0..15 if !stays => gone.push(key.clone()),
                    15..40 => self.edit(key),
                    _ => {}
                }
            }
            // On a primary the garbage collector takes what is owned along.
            let owned = self.items.values().filter(|item| {
                let mut owners = std::iter::successors(item.owner.as_ref(), |owner| {
                    self.items.get(owner)?.owner.as_ref()
                });
                owners.any(|owner| gone.contains(owner))
            });
            let owned: Vec<_> = owned.map(|item| item.key.clone()).collect();
            gone.extend(owned);
            gone.sort();
            gone.dedup();
        }
        let edited = |item: &&Item| item.body["metadata"]["annotations"][self.mark()] == "yes";
        let mut changed: Vec<Item> = self.items.values().filter(edited).cloned().collect();
        changed.retain(|item| !gone.contains(&item.key));
        let going: Vec<Item> = gone.iter().filter_map(|key| self.items.remove(key)).collect();
        changed.extend(self.returning());
        self.away.extend(going);
        self.items.extend(changed.iter().map(|item| (item.key.clone(), item.clone())));
        self.save(changed, &gone).await
    }

    /// A backup in which these are others, or new, and those are gone.
    pub(crate) async fn back_up_with(
        &mut self,
        changed: Vec<Item>,
        gone: &[ObjectKey],
    ) -> Result<String> {
        self.away.extend(gone.iter().filter_map(|key| self.items.remove(key)));
        self.items.extend(changed.iter().map(|item| (item.key.clone(), item.clone())));
        self.save(changed, gone).await
    }

    async fn save(&mut self, changed: Vec<Item>, gone: &[ObjectKey]) -> Result<String> {
        for key in changed.iter().map(|item| &item.key).chain(gone) {
            *self.changed.entry(key.clone()).or_default() += 1;
        }
        self.author.back_up_without(&changed, gone).await
    }

    /// Of the newest backup.
    pub(crate) fn item(&self, key: &ObjectKey) -> Result<&Item> {
        Ok(self.items.get(key).ok_or_else(|| format!("the backup does not hold {key}"))?)
    }

    fn draw(&self, number: u64) -> u64 {
        draw(self.seed.wrapping_add(self.step * 1_000), number)
    }

    fn mark(&self) -> String {
        format!("change-{}", self.step)
    }

    /// Another annotation in place of the one before.
    fn edit(&mut self, key: &ObjectKey) {
        let mark = self.mark();
        if let Some(item) = self.items.get_mut(key) {
            item.body["metadata"]["annotations"] = json!({mark: "yes"});
        }
    }

    /// Half of what is away, with its owners there; at first all of it.
    fn returning(&mut self) -> Vec<Item> {
        let (mut back, mut away) = (BTreeMap::new(), vec![]);
        for (number, item) in std::mem::take(&mut self.away).into_iter().enumerate() {
            let owner = item.owner.as_ref();
            let may =
                owner.is_none_or(|key| self.items.contains_key(key) || back.contains_key(key));
            if may && (self.step == 1 || self.draw(10_000 + number as u64).is_multiple_of(2)) {
                back.insert(item.key.clone(), item);
            } else {
                away.push(item);
            }
        }
        self.away = away;
        back.into_values().collect()
    }

    /// An object of this kind that a standby holds, without an owner.
    pub(crate) fn some(&self, resource: &str) -> Result<&Item> {
        let mut all = self.items.values().filter(|item| is_passive(item) && item.owner.is_none());
        let found = all.find(|item| item.key.resource() == resource);
        Ok(found.ok_or_else(|| format!("the backup holds no {resource}"))?)
    }

    /// Waits until the standby holds the backup, all of it.
    pub(crate) async fn holds(&self, daemon: &mut Daemon, backup: &str) -> Result<()> {
        let held = |seen: &Value| {
            let all = seen["sync"]["failed"] == json!({});
            (all && status::restored(seen) == Some(backup)).then_some(())
        };
        daemon.until(DEADLINE, &format!("the standby to hold {backup}"), held).await
    }

    /// What is not on the hub as the newest backup says, or is there although it should not be.
    pub(crate) async fn differences(&self) -> Result<Vec<String>> {
        let live = snapshot(&self.hub.api()?, &kinds::all()).await?;
        let wanted = self.wanted();
        let place = |key: &ObjectKey| {
            let held_back = self.items.get(key).is_some_and(|item| !is_passive(item));
            match (self.foreign.contains_key(key), wanted.contains_key(key), held_back) {
                (true, ..) | (_, false, false) => Place::Anywhere,
                (_, true, _) => Place::Both,
                (_, _, true) => Place::FirstOnly,
            }
        };
        Ok(compare(&wanted, &live, place).iter().map(ToString::to_string).collect())
    }

    /// The objects of a standby that holds the newest backup, in the form of a snapshot.
    fn wanted(&self) -> BTreeMap<ObjectKey, Value> {
        let passive = self.items.values().filter(|item| is_passive(item));
        let passive = passive.filter(|item| !self.foreign.contains_key(&item.key));
        passive.map(|item| (item.key.clone(), self.as_restored(item))).collect()
    }

    /// With what an API server adds. An owner that is held back has no reference to it.
    fn as_restored(&self, item: &Item) -> Value {
        let mut body = item.body.clone();
        if let Some(owner) = &item.owner {
            if self.items.get(owner).is_some_and(is_passive) {
                body["metadata"]["ownerReferences"][0]["uid"] = "live".into();
            } else if let Some(metadata) = body["metadata"].as_object_mut() {
                metadata.remove("ownerReferences");
            }
        }
        if item.key.group().is_empty() {
            body = as_listed(body);
        }
        match item.key.resource() {
            "namespaces" => {
                body["metadata"]["labels"]["kubernetes.io/metadata.name"] = item.key.name().into();
                body["spec"] = json!({"finalizers": ["kubernetes"]});
            }
            "secrets" if body["type"].is_null() => body["type"] = "Opaque".into(),
            _ => {}
        }
        body
    }

    /// By the audit log of its hub.
    fn did_what_it_may(&self) -> Result<()> {
        let all = self.items.values().chain(&self.away);
        let held_back = all.filter(|item| !is_passive(item)).map(|item| item.key.clone()).collect();
        let oracle = Oracle { held_back, ..Oracle::default() };
        assert_eq!(oracle.judge(&self.hub.audit()?), Vec::<String>::new());
        Ok(())
    }

    /// The standby is exactly the newest backup, what is somebody else's is as it was, and since this
    /// was asked last nothing was written more often than it changed.
    pub(crate) async fn is_exact(&mut self) -> Result<()> {
        assert_eq!(self.differences().await?, Vec::<String>::new());
        self.did_what_it_may()?;
        self.spares_foreign().await?;
        let writes = self.hub.audit_writes(AuditEvent::is_restore_write)?;
        let mut written: BTreeMap<ObjectKey, Vec<&str>> = BTreeMap::new();
        for event in writes.iter().skip(self.audited).filter(|event| event.code < 300) {
            if !self.uncounted.contains(&&*event.verb) {
                written.entry(event.key()?).or_default().push(&event.verb);
            }
        }
        self.audited = writes.len();
        let changed = std::mem::take(&mut self.changed);
        for (key, verbs) in written {
            let times = changed.get(&key).copied().unwrap_or_default();
            assert!(verbs.len() <= times, "{key} changed {times} times: {verbs:?}");
        }
        Ok(())
    }
}

/// Without what the list of a kind tells once.
fn as_listed(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|name, _| name != "apiVersion" && name != "kind");
    }
    object
}

fn is_passive(item: &Item) -> bool {
    matches!(item.set, Some(Set::Credentials | Set::Resources))
}
