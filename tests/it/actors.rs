//! Hubs without clusters: each is a journal, a writer and what it was told, on a repository behind a
//! fault proxy before the real S3 server. What they did is judged by the checker.

use crate::harness::Result;
use crate::harness::checker::{self, Acknowledged, Evidence};
use crate::harness::faultd::Faultd;
use crate::harness::s3::{BUCKET, REGION, S3};
use crate::harness::scratch::Scratch;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use understudy::config::settings;
use understudy::object::{Digest, ObjectKey, Set};
use understudy::repository::chain::View;
use understudy::repository::journal::{Journal, JournalError, Writer};
use understudy::repository::keys::{self, Keys};
use understudy::repository::layout::{FORMAT, PackName};
use understudy::repository::pack::{self, Header, Line, ObjectLine};
use understudy::repository::packs::PackStore;
use understudy::repository::record::{Body, Commit, Cut, HubId, Level, PackRef, SetContents};
use understudy::repository::storage::Storage;
use understudy::{clock, observe};

/// The storage of some repositories, and the proxy before it.
pub(crate) struct Front {
    pub(crate) s3: &'static S3,
    pub(crate) faultd: Faultd,
    pub(crate) keys: Arc<Keys>,
    scratch: Scratch,
}

pub(crate) struct Actor {
    pub(crate) journal: Journal,
    pub(crate) writer: Writer,
    packs: PackStore,
    keys: Arc<Keys>,
    pub(crate) told: Vec<Acknowledged>,
}

impl Front {
    pub(crate) async fn new() -> Result<Self> {
        let s3 = S3::shared().await?;
        let scratch = Scratch::new()?;
        let key = scratch.path().join("key");
        keys::create_key_file(&key, clock::now())?;
        let keys = Arc::new(Keys::load(&[key], &[])?);
        Ok(Self { s3, faultd: s3.faultd().await?, keys, scratch })
    }

    /// Through the proxy.
    pub(crate) async fn storage(&self, prefix: &str) -> Result<Storage> {
        storage_at(&self.faultd.endpoint, self.s3, BUCKET, prefix).await
    }

    /// A hub that makes the repository, or finds it made.
    pub(crate) async fn actor(&self, name: &str, prefix: &str) -> Result<Actor> {
        self.actor_on(name, self.storage(prefix).await?).await
    }

    pub(crate) async fn actor_on(&self, name: &str, storage: Storage) -> Result<Actor> {
        let (keys, id) = (self.keys.clone(), clock::random());
        let journal = Journal::create(storage.clone(), keys.clone(), id).await?;
        let cache = self.scratch.path().join("cache");
        let packs = PackStore::new(storage, keys.clone(), journal.repository(), cache)?;
        let hub = HubId { name: name.to_owned(), uid: format!("uid-{name}") };
        let writer = Writer { hub, epoch: 0, incarnation: 0 };
        Ok(Actor { journal, writer, packs, keys, told: vec![] })
    }

    /// The primary of a new repository.
    pub(crate) async fn primary(&self, name: &str, prefix: &str) -> Result<Actor> {
        let mut actor = self.actor(name, prefix).await?;
        actor.begin().await?;
        Ok(actor)
    }

    /// Waits until nothing is under way, and reads what happened below the prefix. Forgets it.
    pub(crate) async fn evidence(
        &self,
        prefix: &str,
        acknowledged: Vec<Acknowledged>,
    ) -> Result<Evidence> {
        self.faultd.heal(prefix);
        self.faultd.rest().await?;
        let history = self.faultd.take(prefix);
        let stored = self.s3.stored(prefix).await?;
        Ok(Evidence { prefix: prefix.to_owned(), history, stored, acknowledged })
    }

    /// Fails with every invariant that was broken. Gives back what was judged.
    pub(crate) async fn judge(
        &self,
        prefix: &str,
        acknowledged: Vec<Acknowledged>,
    ) -> Result<Evidence> {
        let evidence = self.evidence(prefix, acknowledged).await?;
        let broken: Vec<String> =
            checker::check(&evidence).iter().map(ToString::to_string).collect();
        if broken.is_empty() { Ok(evidence) } else { Err(broken.join("\n").into()) }
    }
}

pub(crate) async fn storage_at(
    endpoint: &str,
    s3: &S3,
    bucket: &str,
    prefix: &str,
) -> Result<Storage> {
    let location = settings::Location::S3(settings::S3 {
        endpoint: Some(endpoint.to_owned()),
        region: REGION.to_owned(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        path_style: true,
        ca_file: None,
        credentials_file: Some(s3.credentials_file.clone()),
        server_side_encryption: None,
    });
    Ok(Storage::open(&location, observe::nobody()).await?)
}

impl Actor {
    pub(crate) async fn append(&mut self, body: Body) -> Result<u64, JournalError> {
        let (kind, writer) = (body.name(), self.writer.clone());
        let allowed = {
            let body = body.clone();
            let writer = writer.clone();
            move |view: &View| may(view, &writer, &body)
        };
        let slot = self.journal.append(&writer, body, allowed).await?;
        let hub = writer.hub.name;
        self.told.push(Acknowledged { slot, epoch: writer.epoch, hub, kind });
        Ok(slot)
    }

    /// `Init`, the first `Term`, `Open`.
    pub(crate) async fn begin(&mut self) -> Result<(), JournalError> {
        self.append(Body::Init).await?;
        self.promote().await?;
        self.open().await?;
        Ok(())
    }

    /// Takes the next term.
    pub(crate) async fn promote(&mut self) -> Result<u64, JournalError> {
        self.writer.epoch = self.journal.refresh().await?.epoch + 1;
        self.writer.incarnation = 0;
        let request = format!("{}-{}", self.writer.hub.name, self.writer.epoch);
        self.append(Body::Term { request, skips: vec![] }).await
    }

    /// Opens the term that it holds, and activates it if need be.
    pub(crate) async fn open(&mut self) -> Result<u64, JournalError> {
        self.writer.epoch = self.journal.refresh().await?.epoch;
        self.writer.incarnation = 0;
        self.writer.incarnation = self.append(Body::Open).await?;
        if !self.journal.view().activated {
            self.append(Body::Activated { failed: vec![] }).await?;
        }
        Ok(self.writer.incarnation)
    }

    /// A backup of one object: its pack, then the record.
    pub(crate) async fn backup(&mut self) -> Result<u64> {
        let pack = self.put_pack().await?;
        Ok(self.append(Body::Commit(commit(vec![pack]))).await?)
    }

    pub(crate) async fn put_pack(&self) -> Result<PackRef> {
        let header = Header {
            format: FORMAT,
            repository: self.journal.repository().to_owned(),
            epoch: self.writer.epoch,
            set: Set::Resources,
            index: 0,
            revision: "1".to_owned(),
        };
        let key = ObjectKey::new("", "configmaps", "default", "site")?;
        let object = RawValue::from_string(r#"{"kind":"ConfigMap"}"#.to_owned())?;
        let mut pack = pack::Writer::new(&header, &self.keys)?;
        pack.push(Line::Object(ObjectLine {
            key,
            version: "v1".into(),
            uid: "1".into(),
            resource_version: "1".into(),
            object: &object,
        }))?;
        let unique = ulid::Ulid::from(clock::random());
        let name = PackName::new(self.writer.epoch, self.writer.incarnation, unique);
        Ok(self.packs.put(&name, pack.finish()?).await?)
    }
}

pub(crate) fn commit(packs: Vec<PackRef>) -> Commit {
    let kinds = BTreeMap::from([("configmaps".to_owned(), 1)]);
    let contents = SetContents { levels: vec![Level { packs }], objects: 1, changed: 1, kinds };
    Commit {
        sets: BTreeMap::from([(Set::Resources, contents)]),
        cut: Cut { revision: "1".to_owned(), apart: vec![] },
        rules: Digest([0; 32]),
        suspect: None,
        partial: vec![],
    }
}

/// How often a campaign goes round: `UNDERSTUDY_CAMPAIGN`, or a sample.
pub(crate) fn rounds(sample: u64) -> Result<u64> {
    match std::env::var("UNDERSTUDY_CAMPAIGN") {
        Ok(number) => Ok(number.parse()?),
        Err(_) => Ok(sample),
    }
}

/// The first of the seeds of a campaign: `UNDERSTUDY_SEED`, or `otherwise`.
pub(crate) fn first_seed(otherwise: u64) -> Result<u64> {
    match std::env::var("UNDERSTUDY_SEED") {
        Ok(number) => Ok(number.parse()?),
        Err(_) => Ok(otherwise),
    }
}

/// What a daemon asks of the journal before it chooses a slot.
fn may(view: &View, writer: &Writer, body: &Body) -> Result<(), String> {
    let holds = view.is_holder(&writer.hub) && view.epoch == writer.epoch;
    let current = holds && view.incarnation == writer.incarnation && view.incarnation != 0;
    let allowed = match body.name() {
        "Init" => view.last.is_none(),
        "Term" => view.last.is_some() && view.epoch + 1 == writer.epoch,
        "Open" => holds,
        "Commit" => current && view.activated,
        _ => current,
    };
    if allowed { Ok(()) } else { Err(format!("{} is not for {}", body.name(), writer.hub.name)) }
}
