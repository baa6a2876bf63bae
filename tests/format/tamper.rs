//! The tamper matrix (F22 to F27): every change, truncation, removal, exchange and replay of a stored
//! object is noticed or changes nothing. A reader is never silently given other contents, and never
//! panics.
//!
//! Each mutation is read twice. A hub that remembers what it has seen (slot and digest) must notice
//! everything. One that starts without a memory cannot tell a journal whose newest records were taken
//! away from one to which they were not added yet: what it reads then must be exactly what stood there
//! earlier, and nothing but the removal of newest records may lead to it.
//!
//! A sample by default; `UNDERSTUDY_CAMPAIGN` runs every byte with nine masks and every length.

mod made;

use crate::Result;
use crate::make;
use crate::reader::{Held, Read, Reader};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use understudy::repository::journal::{Journal, Writer};
use understudy::repository::keys::Keys;
use understudy::repository::layout::journal_key;
use understudy::repository::record::Body;

/// Of flipped bytes and truncations, when no campaign is asked for.
const SAMPLE: usize = 1_500;

/// What a campaign has at the least.
const CAMPAIGN: usize = 200_000;

/// Each bit, and all of them.
const MASKS: [u8; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 255];

/// Names and bytes of all stored objects.
type Objects = BTreeMap<String, Vec<u8>>;

/// What is done; the keys count in the order of [`Objects`].
#[derive(Clone, Copy, Debug)]
enum Act {
    Flip {
        key: usize,
        at: usize,
        mask: u8,
    },
    Cut {
        key: usize,
        length: usize,
    },
    Delete {
        key: usize,
    },
    Swap {
        one: usize,
        other: usize,
    },
    Replay {
        from: usize,
        to: usize,
    },
    /// One that was made by hand.
    Made {
        number: usize,
    },
}

/// What a reader may make of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// Nothing but notice it.
    Notice,
    /// No reader looks there: it has no effect.
    Ignore,
    /// The newest records are gone: without a memory, an older state.
    FallBack,
    /// What stands above an empty slot: a reader without a memory looks there, one with a memory not.
    IgnoreIfKnown,
    /// A heartbeat, which protects nothing: it may also be absent or an older one.
    Beat,
}

struct Made {
    what: &'static str,
    may: May,
    writes: Vec<(String, Option<Vec<u8>>)>,
}

/// What all mutations start from.
struct Original {
    objects: Objects,
    names: Vec<String>,
    made: Vec<Made>,
    read: Read,
    /// What a reader saw after each slot.
    earlier: Vec<Read>,
    /// Heartbeats that stood there once.
    old_beats: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Noticed,
    NoEffect,
    Older,
}

/// How often what was done came to which verdict, with and without a memory.
type Counts = BTreeMap<(String, bool, Verdict), usize>;

#[test]
fn nothing_that_is_done_to_a_stored_object_goes_unnoticed() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let keys = make::new_keys(&scratch.path().join("key"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let original = runtime.block_on(Original::make(scratch.path(), &keys))?;
    let acts = original.acts();
    let workers = std::thread::available_parallelism()?.get();
    let next = AtomicUsize::new(0);
    let results = std::thread::scope(|scope| {
        let work = |number: usize| {
            let (original, acts, next, keys) = (&original, &acts, &next, &keys);
            let folder = scratch.path().join(format!("worker-{number}"));
            scope.spawn(move || work(original, acts, next, &folder, keys))
        };
        let workers: Vec<_> = (0..workers).map(work).collect();
        workers.into_iter().map(|worker| worker.join().expect("it catches panics")).collect()
    });
    let results: Vec<Result<(Counts, Vec<String>)>> = results;
    let (mut counts, mut wrong) = (Counts::new(), vec![]);
    for result in results {
        let (some, more) = result?;
        for (key, count) in some {
            *counts.entry(key).or_default() += count;
        }
        wrong.extend(more);
    }
    let bytes: usize = original.objects.values().map(Vec::len).sum();
    println!("{} objects, {bytes} bytes, {} mutations", original.names.len(), acts.len());
    for ((what, remembers, verdict), count) in &counts {
        let memory = if *remembers { "with a memory" } else { "without" };
        println!("{count:>8}  {what:<45} {memory:<14} {verdict:?}");
    }
    println!("{} silently accepted, panics included", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} in all:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    Ok(())
}

/// Takes acts until there are none left; what was wrong, as text.
fn work(
    original: &Original,
    acts: &[Act],
    next: &AtomicUsize,
    folder: &Path,
    keys: &Arc<Keys>,
) -> Result<(Counts, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (repository, cache) = (folder.join("repository"), folder.join("cache"));
    write_all(&repository, &original.objects)?;
    let mut reader = runtime.block_on(Reader::new(&repository, &cache, keys.clone()))?;
    reader.known = original.known();
    let (mut counts, mut wrong) = (Counts::new(), vec![]);
    while let Some(act) = acts.get(next.fetch_add(1, Relaxed)) {
        let writes = original.writes(*act);
        // The same bytes in another place: nothing was done.
        if writes.iter().all(|(key, bytes)| original.objects.get(key) == bytes.as_ref()) {
            continue;
        }
        let touched: Vec<String> = writes.iter().map(|(key, _)| key.clone()).collect();
        for (key, bytes) in &writes {
            let _ = fs::remove_file(cache.join(key.trim_start_matches("packs/")));
            put(&repository, key, bytes.as_deref())?;
        }
        let (what, may) = original.describe(*act);
        for watermark in [None, original.read.head] {
            let verdict = runtime
                .block_on(reader.read(watermark, &touched))
                .map_err(|error| error.to_string())
                .and_then(|read| original.judge(&read, watermark.is_some(), may));
            match verdict {
                Ok(verdict) => {
                    *counts.entry((what.clone(), watermark.is_some(), verdict)).or_default() += 1;
                }
                Err(why) => wrong.push(format!("{what}, {act:?}, {watermark:?}: {why}")),
            }
        }
        for (key, _) in &writes {
            put(&repository, key, original.objects.get(key).map(Vec::as_slice))?;
        }
    }
    Ok((counts, wrong))
}

impl Original {
    async fn make(scratch: &Path, keys: &Arc<Keys>) -> Result<Self> {
        let folder = scratch.join("original");
        fs::create_dir(&folder)?;
        let maker = make::make(&folder, keys.clone()).await?;
        let mut old_beats = vec![];
        for name in ["eu-1", "eu-2"] {
            let key = format!("beats/{name}");
            old_beats.push(fs::read(folder.join(key))?);
            maker.beat(name, 2).await?;
        }
        let objects = objects(&folder)?;
        let reader = Reader::new(&folder, &scratch.join("cache"), keys.clone()).await?;
        let read = reader.read(None, &[]).await?;
        assert_eq!(read.complaint, None, "the repository is sound before anything is done to it");
        let objects_in = |(slot, held): (&u64, &std::result::Result<Held, String>)| {
            (*slot, held.as_ref().map_or(Value::Null, |held| held.objects.clone()))
        };
        let found: BTreeMap<u64, Value> = read.backups.iter().map(objects_in).collect();
        assert_eq!(found, maker.backups, "a reader finds what was written");
        let head = read.head.map_or(0, |head| head.slot);
        let mut made = made::by_hand(&objects, &old_beats, head);
        made.extend(made::of_others(scratch, keys, &objects).await?);
        made.extend(made::forks(scratch, keys, &objects, head).await?);

        let mut earlier = vec![];
        for slot in (0..=head).rev() {
            fs::remove_file(folder.join(journal_key(slot + 1))).or_else(absent)?;
            earlier.push(reader.read(None, &[]).await?);
        }
        fs::remove_file(folder.join("repo"))?;
        earlier.push(reader.read(None, &[]).await?);
        let names = objects.keys().cloned().collect();
        Ok(Self { objects, names, made, read, earlier, old_beats })
    }

    fn known(&self) -> BTreeMap<u64, Held> {
        let held = self.read.backups.iter();
        held.filter_map(|(slot, held)| Some((*slot, held.clone().ok()?))).collect()
    }

    /// Everything that is done. Of flips and cuts a sample at even distances, unless all are wanted.
    fn acts(&self) -> Vec<Act> {
        let mut bytewise = vec![];
        for (key, name) in self.names.iter().enumerate() {
            let length = self.objects[name].len();
            let flips = (0..length).flat_map(|at| MASKS.map(|mask| Act::Flip { key, at, mask }));
            bytewise.extend(flips);
            bytewise.extend((0..length).map(|length| Act::Cut { key, length }));
        }
        let all = std::env::var_os("UNDERSTUDY_CAMPAIGN").is_some();
        let step = if all { 1 } else { bytewise.len().div_ceil(SAMPLE) };
        let mut acts: Vec<Act> = bytewise.into_iter().step_by(step).collect();
        let keys = || 0..self.names.len();
        acts.extend(keys().map(|key| Act::Delete { key }));
        for one in keys() {
            let pairs = (one + 1..self.names.len()).filter(|other| self.same_kind(one, *other));
            acts.extend(pairs.map(|other| Act::Swap { one, other }));
            let places = keys().filter(|to| *to != one);
            acts.extend(places.map(|to| Act::Replay { from: one, to }));
        }
        acts.extend((0..self.made.len()).map(|number| Act::Made { number }));
        assert!(!all || acts.len() >= CAMPAIGN, "{} mutations are too few", acts.len());
        acts
    }

    fn same_kind(&self, one: usize, other: usize) -> bool {
        kind(&self.names[one]) == kind(&self.names[other])
    }

    fn writes(&self, act: Act) -> Vec<(String, Option<Vec<u8>>)> {
        let name = |key: usize| self.names[key].clone();
        let bytes = |key: usize| self.objects[&self.names[key]].clone();
        match act {
            Act::Flip { key, at, mask } => {
                let mut damaged = bytes(key);
                damaged[at] ^= mask;
                vec![(name(key), Some(damaged))]
            }
            Act::Cut { key, length } => vec![(name(key), Some(bytes(key)[..length].to_vec()))],
            Act::Delete { key } => vec![(name(key), None)],
            Act::Swap { one, other } => {
                vec![(name(one), Some(bytes(other))), (name(other), Some(bytes(one)))]
            }
            Act::Replay { from, to } => vec![(name(to), Some(bytes(from)))],
            Act::Made { number } => self.made[number].writes.clone(),
        }
    }

    fn describe(&self, act: Act) -> (String, May) {
        let told = |what: &str, key: usize| {
            let kind = kind(&self.names[key]);
            (format!("{kind}: {what}"), if kind == "beat" { May::Beat } else { May::Notice })
        };
        match act {
            Act::Flip { key, .. } => told("a byte changed", key),
            Act::Cut { key, .. } => told("cut short", key),
            Act::Delete { key } => {
                let (what, may) = told("deleted", key);
                let newest = self.read.head.map(|head| journal_key(head.slot));
                let name = &self.names[key];
                let falls_back = newest.as_ref() == Some(name);
                (what, if falls_back { May::FallBack } else { may })
            }
            Act::Swap { one, .. } => told("swapped with another", one),
            Act::Replay { from, to } if self.same_kind(from, to) => told("replaced by another", to),
            Act::Replay { to, .. } => told("replaced by one of another kind", to),
            Act::Made { number } => {
                let Made { what, may, writes: _ } = &self.made[number];
                ((*what).to_owned(), *may)
            }
        }
    }

    /// Fails when a reader takes for true what never stood there, or may not be told so.
    fn judge(
        &self,
        read: &Read,
        remembers: bool,
        may: May,
    ) -> std::result::Result<Verdict, String> {
        for (slot, held) in &read.backups {
            if let Ok(held) = held
                && self.read.backups.get(slot) != Some(&Ok(held.clone()))
            {
                return Err(format!("the backup in slot {slot} has other contents"));
            }
        }
        let known = |(key, beat): (&String, &Vec<u8>)| {
            self.read.beats.get(key) == Some(beat) || self.old_beats.contains(beat)
        };
        if !read.beats.iter().all(known) {
            return Err("a heartbeat was forged".to_owned());
        }
        let damaged = read.backups.values().any(std::result::Result::is_err);
        let verdict = if read.complaint.is_some() || damaged {
            Verdict::Noticed
        } else if *read == self.read {
            Verdict::NoEffect
        } else if read.view == self.read.view && read.backups == self.read.backups {
            // Only a heartbeat differs: as good as absent, or an older one.
            let fewer = read.beats.len() < self.read.beats.len();
            if fewer { Verdict::Noticed } else { Verdict::Older }
        } else if self.earlier.iter().any(|earlier| earlier.same_journal(read)) {
            Verdict::Older
        } else {
            return Err("it was taken for another journal".to_owned());
        };
        let allowed = match (may, remembers) {
            (May::Ignore, _) | (May::IgnoreIfKnown, true) => verdict == Verdict::NoEffect,
            (May::FallBack, false) => verdict == Verdict::Older,
            (May::Notice | May::FallBack, _) | (May::IgnoreIfKnown, false) => {
                verdict == Verdict::Noticed
            }
            (May::Beat, _) => read.same_journal(&self.read),
        };
        if allowed { Ok(verdict) } else { Err(format!("{verdict:?} may not be")) }
    }
}

impl Read {
    fn same_journal(&self, other: &Self) -> bool {
        self.view == other.view
            && self.backups == other.backups
            && self.complaint == other.complaint
    }
}

/// What no reader can tell from a journal that went another way, a memory does (F26, F27): another
/// newest record by a holder of the key, an older copy of everything, another repository under the key.
#[tokio::test]
async fn what_was_seen_once_cannot_be_replaced_by_something_authentic() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let keys = make::new_keys(&scratch.path().join("key"))?;
    let original = Original::make(scratch.path(), &keys).await?;
    let head = original.read.head.map_or(0, |head| head.slot);
    let forked = scratch.path().join("forked");
    made::fork(&forked, &keys, &original.objects, head).await?;
    let longer = scratch.path().join("longer");
    made::fork(&longer, &keys, &original.objects, head).await?;
    append_term(&longer, &keys).await?;
    let older = scratch.path().join("older");
    write_all(&older, &original.objects)?;
    fs::remove_file(older.join(journal_key(head)))?;
    let (cache, told) = (scratch.path().join("cache"), "not the one that this hub has seen");
    for (folder, told) in [
        (forked, told),
        (longer, told),
        (scratch.path().join("other"), told),
        (older, "but this hub has seen slot"),
    ] {
        let reader = Reader::new(&folder, &cache, keys.clone()).await?;
        assert_eq!(reader.read(None, &[]).await?.complaint, None, "{}", folder.display());
        let complaint = reader.read(original.read.head, &[]).await?.complaint.unwrap_or_default();
        assert!(complaint.contains(told), "{}: {complaint:?}", folder.display());
    }
    Ok(())
}

async fn append_term(folder: &Path, keys: &Arc<Keys>) -> Result<()> {
    let opened = Journal::open(make::storage(folder).await?, keys.clone(), None).await?;
    let mut journal = opened.ok_or("there is no repository")?;
    let epoch = journal.refresh().await?.epoch + 1;
    let writer = Writer { hub: make::hub("eu-3"), epoch, incarnation: 0 };
    let term = Body::Term { request: "later".to_owned(), skips: vec![] };
    journal.append(&writer, term, |_| Ok(())).await?;
    Ok(())
}

fn kind(name: &str) -> &'static str {
    match name.split('/').next() {
        Some("journal") => "record",
        Some("packs") => "pack",
        Some("beats") => "beat",
        _ => "repo",
    }
}

/// All files of the repository.
fn objects(folder: &Path) -> Result<Objects> {
    let mut objects = Objects::from([("repo".to_owned(), fs::read(folder.join("repo"))?)]);
    for part in ["journal", "packs", "beats"] {
        for entry in fs::read_dir(folder.join(part))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            objects.insert(format!("{part}/{name}"), fs::read(entry.path())?);
        }
    }
    Ok(objects)
}

fn write_all(folder: &Path, objects: &Objects) -> Result<()> {
    for part in ["journal", "packs", "beats"] {
        fs::create_dir_all(folder.join(part))?;
    }
    objects.iter().try_for_each(|(key, bytes)| put(folder, key, Some(bytes)))
}

fn put(folder: &Path, key: &str, bytes: Option<&[u8]>) -> Result<()> {
    let path = folder.join(key);
    match bytes {
        Some(bytes) => Ok(fs::write(path, bytes)?),
        None => Ok(fs::remove_file(path).or_else(absent)?),
    }
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
