//! Backups of objects that no hub holds, written by the library: base and deltas in the order of a
//! cut, so that a standby can be tried without a primary.

use super::Result;
use super::fleet::Item;
use super::holder::Place;
use super::scratch::Scratch;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use understudy::clock;
use understudy::object::{Digest, ObjectKey, Set};
use understudy::observe;
use understudy::repository::journal::{Journal, Writer};
use understudy::repository::keys::Keys;
use understudy::repository::layout::{FORMAT, PackName, pack_key};
use understudy::repository::pack::{self, Gone, Header, Line, ObjectLine};
use understudy::repository::packs::PackStore;
use understudy::repository::record::{
    Body, Commit, Cut, HubId, Level, PackRef, Retire, SetContents,
};

pub struct Author {
    journal: Journal,
    writer: Writer,
    packs: PackStore,
    keys: Arc<Keys>,
    levels: BTreeMap<Set, Vec<Level>>,
    objects: BTreeMap<Set, HashSet<ObjectKey>>,
    revision: u64,
    _cache: Scratch,
}

impl Author {
    /// The primary of a new repository.
    pub async fn begin(place: &Place) -> Result<Self> {
        let storage = place.storage(observe::nobody()).await?;
        let (keys, cache) = (place.keys.clone(), Scratch::new()?);
        let mut journal = Journal::create(storage.clone(), keys.clone(), clock::random()).await?;
        let path = cache.path().to_owned();
        let packs = PackStore::new(storage, keys.clone(), journal.repository(), path)?;
        let hub = HubId { name: "eu-1".to_owned(), uid: "uid".to_owned() };
        let mut writer = Writer { hub, epoch: 0, incarnation: 0 };
        journal.append(&writer, Body::Init, |_| Ok(())).await?;
        writer.epoch = 1;
        let term = Body::Term { request: "initial".to_owned(), skips: vec![] };
        journal.append(&writer, term, |_| Ok(())).await?;
        writer.incarnation = journal.append(&writer, Body::Open, |_| Ok(())).await?;
        let (levels, objects) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { journal, writer, packs, keys, levels, objects, revision: 0, _cache: cache })
    }

    /// A backup in which these objects are new or changed. Its id.
    pub async fn back_up(&mut self, items: &[Item]) -> Result<String> {
        self.back_up_without(items, &[]).await
    }

    /// The same, and those were deleted.
    pub async fn back_up_without(&mut self, items: &[Item], gone: &[ObjectKey]) -> Result<String> {
        self.revision += 1;
        let mut sets = BTreeMap::new();
        for set in Set::ALL {
            let mut of_set: Vec<&Item> =
                items.iter().filter(|item| item.set == Some(set)).collect();
            of_set.sort_by(|a, b| (&a.kind, &a.key).cmp(&(&b.kind, &b.key)));
            let objects = self.objects.entry(set).or_default();
            let gone: Vec<&ObjectKey> = gone.iter().filter(|key| objects.remove(key)).collect();
            let packs = self.put(set, &of_set, &gone).await?;
            let levels = self.levels.entry(set).or_default();
            levels.extend((!packs.is_empty()).then_some(Level { packs }));
            let objects = self.objects.entry(set).or_default();
            objects.extend(of_set.iter().map(|item| item.key.clone()));
            let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
            for key in objects.iter() {
                *kinds.entry(key.group_resource().to_string()).or_default() += 1;
            }
            let contents = SetContents {
                levels: levels.clone(),
                objects: objects.len() as u64,
                changed: (of_set.len() + gone.len()) as u64,
                kinds,
            };
            sets.insert(set, contents);
        }
        let cut = Cut { revision: self.revision.to_string(), apart: vec![] };
        let rules = Digest::of(b"rules");
        let commit = Commit { sets, cut, rules, suspect: None, partial: vec![] };
        self.journal.append(&self.writer, Body::Commit(commit), |_| Ok(())).await?;
        let newest = self.journal.view().newest.clone().ok_or("the commit does not count")?;
        Ok(newest.id())
    }

    /// A backup that needs nothing of those before it; they are retired, and their packs deleted. Its id.
    pub async fn begin_anew(&mut self, items: &[Item], place: &Place) -> Result<String> {
        self.levels.clear();
        let before = self.journal.view().ledger.clone();
        let id = self.back_up(items).await?;
        let backups = before.offered.keys().copied().collect();
        let packs: Vec<PackName> = before.superfluous(&backups).cloned().collect();
        let backups = backups.into_iter().collect();
        let retire = Retire { backups, packs: packs.clone(), swept: 0 };
        self.journal.append(&self.writer, Body::Retire(retire), |_| Ok(())).await?;
        let storage = place.storage(observe::nobody()).await?;
        for pack in &packs {
            storage.delete(&pack_key(pack)).await?;
        }
        Ok(id)
    }

    async fn put(&self, set: Set, items: &[&Item], gone: &[&ObjectKey]) -> Result<Vec<PackRef>> {
        let (mut packs, mut items) = (vec![], items.iter().peekable());
        let mut gone = gone.iter().peekable();
        while items.peek().is_some() || gone.peek().is_some() {
            let header = Header {
                format: FORMAT,
                repository: self.journal.repository().to_owned(),
                epoch: self.writer.epoch,
                set,
                index: u32::try_from(packs.len())?,
                revision: self.revision.to_string(),
            };
            let mut pack = pack::Writer::new(&header, &self.keys)?;
            while let Some(item) = items.next_if(|_| !pack.is_full()) {
                let object = RawValue::from_string(body(item))?;
                pack.push(Line::Object(ObjectLine {
                    key: item.key.clone(),
                    version: item.kind.version.as_str().into(),
                    uid: uid(&item.key).into(),
                    resource_version: self.revision.to_string().into(),
                    object: &object,
                }))?;
            }
            while let Some(key) = gone.next_if(|_| items.peek().is_none() && !pack.is_full()) {
                pack.push(Line::Gone { key: (*key).clone(), gone: Gone::Deleted })?;
            }
            let unique = ulid::Ulid::from(clock::random());
            let name = PackName::new(self.writer.epoch, self.writer.incarnation, unique);
            packs.push(self.packs.put(&name, pack.finish()?).await?);
        }
        Ok(packs)
    }
}

/// As the API server of a hub spells it, which is how a backup holds it.
fn body(item: &Item) -> String {
    let mut body = item.body.clone();
    if let Some(owner) = &item.owner {
        body["metadata"]["ownerReferences"][0]["uid"] = uid(owner).into();
    }
    match (&*item.kind.group, &*item.kind.kind) {
        ("", "Secret") if body["type"].is_null() => body["type"] = "Opaque".into(),
        ("", "Namespace") => {
            body["metadata"]["labels"]["kubernetes.io/metadata.name"] = item.key.name().into();
            body["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        _ => {}
    }
    // Fields of custom resources are sorted, and so is a `Value`; those of built-in kinds stand in the
    // order of their Go types.
    if item.kind.group.contains('.') { body.to_string() } else { in_order(&body, &TOP) }
}

const TOP: [&str; 3] = ["apiVersion", "kind", "metadata"];
const METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];

/// These fields first, the others sorted behind them.
fn in_order(object: &Value, first: &[&str]) -> String {
    let Value::Object(fields) = object else { return object.to_string() };
    let others = fields.keys().map(String::as_str).filter(|name| !first.contains(name));
    let names = first.iter().copied().filter(|name| fields.contains_key(*name)).chain(others);
    let fields = names.map(|name| {
        let metadata = name == "metadata";
        let value =
            if metadata { in_order(&fields[name], &METADATA) } else { fields[name].to_string() };
        format!("{}:{value}", Value::from(name))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn uid(key: &ObjectKey) -> String {
    format!("uid of {key}")
}
