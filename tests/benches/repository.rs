//! What the repository costs: a backup without changes and one with few, sealing against plain PUT
//! and GET of the same bytes, opening a large backup, and the start from a long journal.
//! `cargo bench --bench repository -- [--objects N] [--slots N] [--json FILE]`.

#[path = "../harness/mod.rs"]
mod harness;

use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use harness::bench;
use harness::config::Config;
use harness::daemon::new_key;
use harness::figures::{Figures, Goal};
use harness::fleet::{self, Item};
use harness::holder::{Holder, Place};
use harness::hub::Hub;
use harness::process::peak_rss_mib;
use harness::s3::S3;
use harness::scratch::Scratch;
use harness::{Result, tools};
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use understudy::clock::monotonic;
use understudy::object::{Digest, Set};
use understudy::observe;
use understudy::repository::chain::View;
use understudy::repository::checkpoint;
use understudy::repository::journal::Journal;
use understudy::repository::keys::Keys;
use understudy::repository::layout::{FORMAT, PackName, journal_key, pack_key};
use understudy::repository::pack::{self, Header, Line, ObjectLine, Sealed};
use understudy::repository::packs::PackStore;
use understudy::repository::record::{self, Body, Commit, Cut, Found, HubId, Record, SetContents};
use understudy::repository::storage::Storage;

const SEED: u64 = 7;
const OBJECTS_A_CLUSTER: usize = 27;
const POPULATE_CONNECTIONS: usize = 32;
const WRITES_AT_ONCE: usize = 32;
/// What is sealed: several packs of the first size.
const SEAL_BYTES: usize = 256 << 20;
/// As many as a backup uploads at once.
const UPLOADS: usize = 2;
/// One object in so many is changed.
const CHANGED: usize = 1_000;
const GOALS: [Goal; 8] = [
    ("nochange_packs", '≤', 0.0),
    ("nochange_requests", '≤', 5.0),
    ("delta_bytes_over_full", '≤', 0.01),
    ("seal_mb_per_second", '≥', 100.0),
    ("open_seconds_100k", '≤', 3.0),
    ("open_rss_mib", '≤', 128.0),
    ("journal_start_cached_seconds", '≤', 2.0),
    ("journal_start_cold_seconds", '≤', 5.0),
];

/// The repository against the bare storage.
#[derive(Parser)]
struct Arguments {
    /// Objects of the hub that is backed up; the names of the figures say what their goals are for.
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    /// Records of the journal that is read.
    #[arg(long, default_value_t = 100_000)]
    slots: u64,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Opens the newest backup and tells seconds and memory: in a process of its own, or it would be
    /// the memory of all that was measured before.
    #[arg(long, hide = true)]
    open: Option<PathBuf>,
    /// Passed by `cargo bench`, and by it alone.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = arguments.bench || arguments.open.is_some();
    let work = Box::pin(async {
        match &arguments.open {
            Some(file) => open_newest(file).await,
            None => Box::pin(run(&arguments)).await,
        }
    });
    bench::measure("repository", wanted, work).await
}

async fn run(arguments: &Arguments) -> Result<()> {
    tools::cluster().await?;
    tools::minio().await?;
    let mut figures = Figures::default();
    let s3 = S3::start().await?;
    let scratch = Scratch::new()?;
    let key_file = scratch.path().join("key");
    new_key(&key_file)?;
    let place = |prefix: &str| -> Result<Place> {
        let config = Config::new("eu-1", "primary", &key_file)?.with_s3(&s3, prefix);
        Place::at(&config, &scratch.path().join(format!("{}.yaml", prefix.trim_end_matches('/'))))
    };
    read_journal(&mut figures, &place("journal/")?, arguments.slots).await?;
    seal(&mut figures, &place("seal/")?).await?;
    back_up(&mut figures, &place("backup/")?, arguments.objects).await?;

    let Arguments { objects, slots, .. } = arguments;
    figures.tell(
        &format!("{objects} objects, a journal of {slots} slots"),
        &GOALS,
        arguments.json.as_deref(),
    )
}

fn hub() -> HubId {
    HubId { name: "eu-1".to_owned(), uid: "uid".to_owned() }
}

// Journal ----------------------------------------------------------------------------------------

async fn read_journal(figures: &mut Figures, place: &Place, slots: u64) -> Result<()> {
    eprintln!("writing a journal of {slots} records …");
    let storage = place.storage(observe::nobody()).await?;
    let journal = Journal::create(storage.clone(), place.keys.clone(), 1).await?;
    let repository = journal.repository().to_owned();
    let mut view = View::default();
    let records = (1..=slots).map(|slot| {
        let bytes = next_record(&mut view, &repository, slot, &place.keys);
        // As late as can be: nearly as many records as can be stand above it.
        let last = (slots - 1) / checkpoint::EVERY * checkpoint::EVERY;
        let left = (slot == last).then(|| view.clone());
        (slot, bytes, left)
    });
    let (shared, keys, id) = (&storage, &place.keys, &repository);
    stream::iter(records)
        .map(Ok)
        .try_for_each_concurrent(WRITES_AT_ONCE, |(slot, bytes, left)| async move {
            if let Some(view) = left {
                checkpoint::leave(shared, &view, id, keys).await;
            }
            shared.create(&journal_key(slot), bytes).await.map(|_| ())
        })
        .await?;

    eprintln!("reading it …");
    let cache = Scratch::new()?;
    figures.set("journal_start_cold_seconds", start(place, &storage, cache.path(), slots).await?);
    figures.set("journal_start_cached_seconds", start(place, &storage, cache.path(), slots).await?);
    Ok(())
}

async fn start(place: &Place, storage: &Storage, cache: &Path, slots: u64) -> Result<f64> {
    let begun = monotonic();
    let opened = Journal::open(storage.clone(), place.keys.clone(), None).await?;
    let mut journal = opened.ok_or("there is no repository")?;
    journal.resume(Some(cache)).await?;
    let view = journal.refresh().await?;
    if view.head != slots || view.frozen.is_some() {
        return Err(format!("read to slot {}: {:?}", view.head, view.frozen).into());
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// A journal as a hub with a backup every few minutes writes it: each names one new pack.
fn next_record(view: &mut View, repository: &str, slot: u64, keys: &Keys) -> Bytes {
    let (epoch, incarnation, body) = match slot {
        1 => (0, 0, Body::Init),
        2 => (1, 0, Body::Term { request: "initial".to_owned(), skips: vec![] }),
        3 => (1, 0, Body::Open),
        _ => (1, 3, Body::Commit(commit(view, slot))),
    };
    let record = Record {
        repository: repository.to_owned(),
        slot,
        epoch,
        incarnation,
        hub: hub(),
        nonce: slot.to_string(),
        prev: view.last,
        key: keys.id().to_owned(),
        writer: "bench".to_owned(),
        at: understudy::clock::now(),
        requires: vec![],
        body,
    };
    let bytes = Bytes::from(record::encode(&record, keys));
    let void = view.step(Found::Record(Box::new(record)), Digest::of(&bytes));
    assert!(void.is_none(), "{void:?}");
    bytes
}

/// A base, and up to 15 levels upon it.
fn commit(view: &View, slot: u64) -> Commit {
    let before = view.newest.as_ref().map(|newest| newest.commit.sets.clone());
    let mut sets =
        before.unwrap_or_else(|| Set::ALL.map(|set| (set, SetContents::default())).into());
    let resources = sets.entry(Set::Resources).or_default();
    resources.levels.truncate((slot % 16) as usize);
    let name = PackName::new(1, 3, ulid::Ulid(u128::from(slot)));
    let pack = record::PackRef { name, length: 1, sha256: Digest([7; 32]), lines: 1 };
    resources.levels.push(record::Level { packs: vec![pack] });
    resources.objects = slot;
    let cut = Cut { revision: slot.to_string(), apart: vec![] };
    Commit { sets, cut, rules: Digest([1; 32]), suspect: None, partial: vec![] }
}

// Packs ------------------------------------------------------------------------------------------

async fn seal(figures: &mut Figures, place: &Place) -> Result<()> {
    eprintln!("sealing {} MiB …", SEAL_BYTES >> 20);
    let storage = place.storage(observe::nobody()).await?;
    let cache = Scratch::new()?;
    let packs = PackStore::new(storage.clone(), place.keys.clone(), "r", cache.path().to_owned())?;
    let items = fleet::scale(SEAL_BYTES / OBJECTS_A_CLUSTER / 2_000, SEED);
    let objects: Arc<Vec<_>> = Arc::new(items.iter().map(raw).collect::<Result<_>>()?);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Sealed>(UPLOADS);
    let keys = place.keys.clone();
    let begun = monotonic();
    let sealing = tokio::task::spawn_blocking(move || seal_all(&objects, &keys, &sender));
    let sealed = stream::unfold(receiver, |mut packs| async {
        packs.recv().await.map(|pack| (pack, packs))
    });
    let uploaded: Vec<(PackName, Bytes)> = sealed
        .enumerate()
        .map(|(index, sealed)| {
            let name = PackName::new(1, 3, ulid::Ulid(index as u128));
            let (packs, bytes) = (&packs, Bytes::from(sealed.bytes.clone()));
            async move { packs.put(&name, sealed).await.map(|_| (name, bytes)) }
        })
        .buffered(UPLOADS)
        .try_collect()
        .await?;
    let plain = sealing.await??;
    let ours = begun.elapsed().as_secs_f64();

    let begun = monotonic();
    let bare = uploaded.into_iter().map(|(name, bytes)| {
        let (storage, key) = (&storage, format!("bare-{}", pack_key(&name).replace('/', "-")));
        async move {
            storage.create(&key, bytes.clone()).await?;
            storage.get(&key, bytes.len() as u64).await.map(|_| ())
        }
    });
    stream::iter(bare).buffered(UPLOADS).try_collect::<()>().await?;
    figures.set("seal_mb_per_second", megabytes(plain) / ours);
    figures.set("seal_seconds_over_put_and_get", ours / begun.elapsed().as_secs_f64());
    Ok(())
}

type Raw = (understudy::object::ObjectKey, Box<RawValue>);

fn raw(item: &Item) -> Result<Raw> {
    Ok((item.key.clone(), serde_json::value::to_raw_value(&item.body)?))
}

/// Returns the bytes of JSON.
fn seal_all(
    objects: &[Raw],
    keys: &Keys,
    packs: &tokio::sync::mpsc::Sender<Sealed>,
) -> std::io::Result<usize> {
    let mut plain = 0;
    let mut objects = objects.iter().cycle();
    while plain < SEAL_BYTES {
        let (repository, revision) = ("r".to_owned(), "1".to_owned());
        let set = Set::Resources;
        let header = Header { format: FORMAT, repository, epoch: 1, set, index: 0, revision };
        let mut writer = pack::Writer::new(&header, keys)?;
        while !writer.is_full() {
            let Some((key, object)) = objects.next() else { return Ok(plain) };
            plain += object.get().len();
            // As the cut finds out what has changed.
            std::hint::black_box(Digest::of(object.get().as_bytes()));
            let text = |text| Cow::Borrowed(text);
            writer.push(Line::Object(ObjectLine {
                key: key.clone(),
                version: text("v1"),
                uid: text("0b9d51c2-9d0c-4b36-9d6c-0a5f3a5f7d11"),
                resource_version: text("123456"),
                object,
            }))?;
        }
        if packs.blocking_send(writer.finish()?).is_err() {
            return Ok(plain);
        }
    }
    Ok(plain)
}

#[allow(clippy::cast_precision_loss)]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

// Backups ----------------------------------------------------------------------------------------

async fn back_up(figures: &mut Figures, place: &Place, objects: usize) -> Result<()> {
    let hub = bench::hub("primary").await?;
    let items = fleet::scale(objects / OBJECTS_A_CLUSTER, SEED);
    eprintln!("creating {} objects …", items.len());
    fleet::populate(&hub.api()?, &items, POPULATE_CONNECTIONS).await?;

    let mut holder = Holder::take(place, &hub.kubeconfig).await?;
    eprintln!("backups …");
    let (full, _) = holder.back_up(0).await?;
    let (none, requests) = holder.back_up(full.slot).await?;
    figures.count("nochange_packs", none.packs as u64);
    figures.count("nochange_requests", requests);
    let changed = change(&hub, &items).await?;
    let (few, _) = holder.back_up(none.slot).await?;
    if few.changed != changed {
        return Err(format!("{} objects changed, {changed} were changed", few.changed).into());
    }
    let (few, full) =
        (holder.new_bytes(few.slot, none.slot).await?, holder.bytes(full.slot).await?);
    figures.count("full_bytes", full);
    figures.count("delta_bytes", few);
    #[allow(clippy::cast_precision_loss)]
    figures.set("delta_bytes_over_full", few as f64 / full as f64);
    drop((holder, hub));

    eprintln!("opening …");
    let child = std::process::Command::new(std::env::current_exe()?)
        .arg("--open")
        .arg(&place.file)
        .output()?;
    let told: [f64; 2] = serde_json::from_slice(&child.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&child.stderr)))?;
    figures.set("open_seconds_100k", told[0]);
    figures.set("open_rss_mib", told[1]);
    Ok(())
}

/// Changes one in [`CHANGED`] of the objects that are backed up.
async fn change(hub: &Hub, items: &[Item]) -> Result<u64> {
    let api = hub.api()?;
    let chosen = items.iter().filter(|item| item.set.is_some()).step_by(CHANGED);
    let mut changed = 0;
    for item in chosen {
        let path = item.key.collection_path(&item.kind.version);
        let change = json!({"metadata": {"annotations": {"changed": "yes"}}});
        api.merge_patch(&format!("{path}/{}", item.key.name()), &change).await?;
        changed += 1;
    }
    Ok(changed)
}

/// In a process of its own: prints the seconds and the peak of its memory.
async fn open_newest(file: &Path) -> Result<()> {
    let place = Place::of(file)?;
    let storage = place.storage(observe::nobody()).await?;
    let begun: Instant = monotonic();
    let opened = Journal::open(storage.clone(), place.keys.clone(), None).await?;
    let mut journal = opened.ok_or("there is no repository")?;
    let newest = journal.refresh().await?.newest.clone().ok_or("there is no backup")?;
    let cache = Scratch::new()?;
    let id = journal.repository();
    let packs = PackStore::new(storage, place.keys.clone(), id, cache.path().to_owned())?;
    let opened = packs.open(newest, None).await?;
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{} objects", opened.contents.entries.len());
    println!("{}", json!([seconds, peak_rss_mib("self")?]));
    Ok(())
}
