//! Packs on their way: put into the storage and read back, fetched into the local cache and opened.
//!
//! Contract: a pack is named in a commit only after [`PackStore::put`] has read it back; a backup is
//! used only after [`PackStore::open`] has fetched, verified, decrypted and counted all of it. The
//! cache holds sealed files and is never trusted: every read verifies the SHA-256 of the commit.

use super::chain::Backup;
use super::contents::{Contents, Entry};
use super::keys::Keys;
use super::layout::{PACK_LIMIT, PackName, pack_key};
use super::older::Older;
use super::pack::{self, Gone, Line, ObjectLine, PackError, Sealed};
use super::record::{Commit, PackRef, SetContents};
use super::storage::{Storage, StorageError};
use crate::object::{Digest, ObjectKey, Set};
use crate::progress::Tally;
use crate::retry::{self, Policy};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Transfers at once: enough to hide the round trip, few enough to bound the memory.
const TRANSFERS: usize = 4;

/// A run that cannot move one pack for this long fails and starts anew at its next time.
const PATIENCE: Policy = Policy {
    first: Duration::from_millis(200),
    cap: Duration::from_secs(5),
    give_up_after: Some(Duration::from_mins(2)),
};

#[derive(Clone)]
pub struct PackStore {
    storage: Storage,
    keys: Arc<Keys>,
    repository: Arc<str>,
    cache: PathBuf,
    tally: Tally,
}

/// A backup of which every byte was authenticated, decrypted and counted.
pub struct Opened {
    pub backup: Arc<Backup>,
    pub contents: Contents,
    /// By [`Entry::pack`].
    packs: Vec<(Set, PackRef)>,
    older: Older,
}

impl Opened {
    /// All of it was applied, so that no older form is asked for any more.
    pub fn forget_older(&mut self) {
        self.older = Older::default();
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PacksError {
    #[error("failed to move the pack {pack}")]
    Storage { pack: PackName, source: StorageError },
    #[error("the pack {pack} is not in the storage")]
    Missing { pack: PackName },
    #[error("the pack {pack} is damaged")]
    Damaged { pack: PackName, source: PackError },
    #[error("the set {set} holds {found} objects, its commit says {expected}")]
    Count { set: Set, found: u64, expected: u64 },
    #[error("{key} stands in two sets")]
    TwoSets { key: ObjectKey },
    #[error("failed to use the cache {path}")]
    Cache { path: PathBuf, source: std::io::Error },
    #[error("the thread that opens packs ended early")]
    Thread,
}

impl PacksError {
    /// Nothing of the backup may be used, and trying again will not help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Damaged { .. }
            | Self::Count { .. }
            | Self::TwoSets { .. } => true,
            Self::Storage { source, .. } => source.class() == retry::Class::Damaged,
            Self::Cache { .. } | Self::Thread => false,
        }
    }
}

impl PacksError {
    /// The pack is what was committed, but sealed for keys that we do not hold.
    pub fn is_missing_key(&self) -> bool {
        let no_key = |source: &PackError| {
            matches!(source, PackError::Decrypt(age::DecryptError::NoMatchingKeys))
        };
        matches!(self, Self::Damaged { source, .. } if no_key(source))
    }
}

/// What the lines of one set come to: the newest line of each key.
type Overlay = HashMap<ObjectKey, Option<Entry>>;
/// Hears of each entry in whose place a newer one came.
type Replaced<'a> = dyn FnMut(ObjectKey, &Entry) + 'a;

impl PackStore {
    /// `cache` is created if it is not there.
    pub fn new(
        storage: Storage,
        keys: Arc<Keys>,
        repository: &str,
        cache: PathBuf,
    ) -> Result<Self, PacksError> {
        std::fs::create_dir_all(&cache)
            .map_err(|source| PacksError::Cache { path: cache.clone(), source })?;
        Ok(Self { storage, keys, repository: repository.into(), cache, tally: Tally::default() })
    }

    /// What is fetched and opened from now on is counted here.
    #[must_use]
    pub fn telling(self, tally: Tally) -> Self {
        Self { tally, ..self }
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Creates the pack and reads it back. A second attempt sends the same bytes under the same name.
    pub async fn put(&self, name: &PackName, sealed: Sealed) -> Result<PackRef, PacksError> {
        let reference = PackRef {
            name: name.clone(),
            length: sealed.bytes.len() as u64,
            sha256: sealed.sha256,
            lines: sealed.lines,
        };
        let bytes = Bytes::from(sealed.bytes);
        let key = pack_key(name);
        let create = || self.storage.create(&key, bytes.clone());
        retry::retry(&PATIENCE, &key, &CancellationToken::new(), StorageError::next, create)
            .await
            .map_err(|source| PacksError::Storage { pack: name.clone(), source })?;
        drop(bytes);
        self.get(&reference).await?;
        Ok(reference)
    }

    /// The bytes of a pack from the storage, verified against the commit.
    pub async fn get(&self, reference: &PackRef) -> Result<Bytes, PacksError> {
        let pack = || reference.name.clone();
        let key = pack_key(&reference.name);
        let limit = reference.length.min(PACK_LIMIT);
        let get = || self.storage.get(&key, limit);
        let stored =
            retry::retry(&PATIENCE, &key, &CancellationToken::new(), StorageError::next, get)
                .await
                .map_err(|source| PacksError::Storage { pack: pack(), source })?
                .ok_or_else(|| PacksError::Missing { pack: pack() })?;
        pack::verify(&stored.bytes, reference)
            .map_err(|source| PacksError::Damaged { pack: pack(), source })?;
        Ok(stored.bytes)
    }

    /// Fetches, verifies, decrypts and counts one pack, past the cache.
    pub async fn check(&self, reference: &PackRef, set: Set) -> Result<(), PacksError> {
        let bytes = self.get(reference).await?;
        let (this, reference) = (self.clone(), reference.clone());
        let read = move || {
            let each = |_: Line<'_>| ControlFlow::Continue(());
            this.read(&bytes, &reference, set, each)
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| PacksError::Thread)?
    }

    fn cached(&self, name: &PackName) -> PathBuf {
        self.cache.join(name.to_string())
    }

    /// Brings every pack of the commit into the cache. A cached file with other bytes is replaced.
    async fn fetch(&self, commit: &Commit) -> Result<(), PacksError> {
        let fetches = commit.packs().map(async |reference| {
            self.fetch_one(reference).await?;
            self.tally.add(1);
            Ok(())
        });
        let fetches: Vec<_> = fetches.collect();
        self.tally.begin("fetching", "packs", Some(fetches.len()));
        stream::iter(fetches).buffer_unordered(TRANSFERS).try_collect().await
    }

    async fn fetch_one(&self, reference: &PackRef) -> Result<(), PacksError> {
        let path = self.cached(&reference.name);
        if tokio::fs::read(&path).await.is_ok_and(|bytes| pack::verify(&bytes, reference).is_ok()) {
            return Ok(());
        }
        let bytes = self.get(reference).await?;
        let part = path.with_extension("part");
        let write = async {
            tokio::fs::write(&part, &bytes).await?;
            tokio::fs::rename(&part, &path).await
        };
        write.await.map_err(|source| PacksError::Cache { path: path.clone(), source })
    }

    /// Fetches, verifies, decrypts and counts the whole backup. With the backup that was opened
    /// before, only new packs are read of a set that merely got new levels.
    pub async fn open(
        &self,
        backup: Arc<Backup>,
        before: Option<Opened>,
    ) -> Result<Opened, PacksError> {
        self.fetch(&backup.commit).await?;
        let this = self.clone();
        let opened = tokio::task::spawn_blocking(move || this.open_cached(backup, before))
            .await
            .map_err(|_| PacksError::Thread)??;
        self.forget_others(&opened).await;
        Ok(opened)
    }

    fn open_cached(
        &self,
        backup: Arc<Backup>,
        before: Option<Opened>,
    ) -> Result<Opened, PacksError> {
        let packs = packs_of(&backup.commit);
        let (mut contents, known, mut older) = match before {
            Some(before) => {
                let kept = continued(&before.backup.commit, &backup.commit);
                carry_over(before, &kept, &packs)
            }
            None => Default::default(),
        };
        let mut overlays = BTreeMap::<Set, Overlay>::new();
        let new = packs.iter().filter(|(_, reference)| !known.contains(&reference.name));
        self.tally.begin("opening", "packs", Some(new.count()));
        for (number, (set, reference)) in (0_u32..).zip(&packs) {
            if !known.contains(&reference.name) {
                let overlay = overlays.entry(*set).or_default();
                let gone = contents.gone.entry(*set).or_default();
                let mut replaced = |key, entry: &Entry| {
                    older.add(key, entry, &packs[entry.pack as usize]);
                };
                self.index(reference, *set, number, overlay, gone, &mut replaced)?;
                self.tally.add(1);
            }
        }
        let mut replaced = |key, entry: &Entry| older.add(key, entry, &packs[entry.pack as usize]);
        merge(&mut contents, overlays, &mut replaced)?;
        older.retain_replaced(&contents.entries);
        for (set, set_contents) in &backup.commit.sets {
            let found = contents.entries.values().filter(|entry| entry.set == *set).count() as u64;
            let expected = set_contents.objects;
            if found != expected {
                return Err(PacksError::Count { set: *set, found, expected });
            }
        }
        Ok(Opened { backup, contents, packs, older })
    }

    /// Reads one cached pack into the overlay of its set.
    fn index(
        &self,
        reference: &PackRef,
        set: Set,
        number: u32,
        overlay: &mut Overlay,
        gone: &mut HashMap<ObjectKey, Gone>,
        replaced: &mut Replaced<'_>,
    ) -> Result<(), PacksError> {
        self.lines(reference, set, |line| match line {
            Line::Object(ObjectLine { key, version, uid, resource_version, object }) => {
                let entry = Entry {
                    set,
                    version: version.into(),
                    digest: Digest::of(object.get().as_bytes()),
                    pack: number,
                    uid: uid.into(),
                    resource_version: resource_version.into(),
                    owners: pack::owners(object),
                };
                gone.remove(&key);
                if let Some(Some(before)) = overlay.insert(key.clone(), Some(entry)) {
                    replaced(key, &before);
                }
                ControlFlow::Continue(())
            }
            Line::Gone { key, gone: why } => {
                gone.insert(key.clone(), why);
                overlay.insert(key, None);
                ControlFlow::Continue(())
            }
        })
    }

    fn lines(
        &self,
        reference: &PackRef,
        set: Set,
        each: impl FnMut(Line<'_>) -> ControlFlow<()>,
    ) -> Result<(), PacksError> {
        let path = self.cached(&reference.name);
        let bytes = std::fs::read(&path).map_err(|source| PacksError::Cache { path, source })?;
        self.read(&bytes, reference, set, each)
    }

    /// Hands every line of a pack of `set` to `each`. Blocking.
    pub fn read(
        &self,
        bytes: &[u8],
        reference: &PackRef,
        set: Set,
        each: impl FnMut(Line<'_>) -> ControlFlow<()>,
    ) -> Result<(), PacksError> {
        pack::read(bytes, reference, &self.repository, set, &self.keys, each)
            .map_err(|source| PacksError::Damaged { pack: reference.name.clone(), source })
    }

    /// Hands the objects of one pack of an opened backup to `each`: those whose newest line stands
    /// there. Blocking.
    pub fn objects(
        &self,
        opened: &Opened,
        pack: u32,
        mut each: impl FnMut(ObjectKey, &serde_json::value::RawValue) -> ControlFlow<()>,
    ) -> Result<(), PacksError> {
        let Some((set, reference)) = opened.packs.get(pack as usize) else { return Ok(()) };
        self.lines(reference, *set, |line| match line {
            Line::Object(ObjectLine { key, object, .. })
                if opened.contents.entries.get(&key).is_some_and(|entry| entry.pack == pack) =>
            {
                each(key, object)
            }
            Line::Object(_) | Line::Gone { .. } => ControlFlow::Continue(()),
        })
    }

    /// Hands the older forms of objects for which `wanted` is true to `each`, as far as the cache
    /// still holds them. Blocking.
    pub fn older_objects(
        &self,
        opened: &Opened,
        wanted: impl Fn(&ObjectKey, &Digest) -> bool,
        mut each: impl FnMut(ObjectKey, &serde_json::value::RawValue) -> ControlFlow<()>,
    ) -> Result<(), PacksError> {
        for ((set, reference), mut keys) in opened.older.find(wanted) {
            let mut heard = ControlFlow::Continue(());
            self.lines(reference, *set, |line| {
                if let Line::Object(ObjectLine { key, object, .. }) = line
                    && keys.get(&key) == Some(&Digest::of(object.get().as_bytes()))
                {
                    keys.remove(&key);
                    heard = each(key, object);
                }
                if keys.is_empty() { ControlFlow::Break(()) } else { heard }
            })?;
            if heard.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The cache holds what the newest opened backup needs, and what was applied before it.
    async fn forget_others(&self, opened: &Opened) {
        let names = opened.backup.commit.packs().map(|pack| &pack.name);
        let wanted: HashSet<String> =
            names.chain(opened.older.packs()).map(ToString::to_string).collect();
        let Ok(mut files) = tokio::fs::read_dir(&self.cache).await else { return };
        while let Ok(Some(file)) = files.next_entry().await {
            if !wanted.contains(&*file.file_name().to_string_lossy()) {
                // A file that stays costs room in a temporary folder, nothing else.
                let _ = tokio::fs::remove_file(file.path()).await;
            }
        }
    }
}

/// The packs of a commit, each with its set: an [`Entry::pack`] counts in this order.
fn packs_of(commit: &Commit) -> Vec<(Set, PackRef)> {
    let levels = commit.sets.iter().flat_map(|(set, c)| c.levels.iter().map(|l| (*set, l)));
    levels.flat_map(|(set, level)| level.packs.iter().map(move |p| (set, p.clone()))).collect()
}

/// The sets whose list of levels in `before` is a prefix of that in `after`, so that reading the
/// rest is enough. A set that was merged or written anew is not among them.
fn continued(before: &Commit, after: &Commit) -> BTreeSet<Set> {
    let continues = |set: &Set, before: &SetContents| {
        after.sets.get(set).is_some_and(|after| after.levels.starts_with(&before.levels))
    };
    let sets = before.sets.iter().filter(|(set, contents)| continues(set, contents));
    sets.map(|(set, _)| *set).collect()
}

/// What was opened before of the sets in `kept`, counted by the packs of the newer backup, and the
/// names of the packs that need not be read again.
fn carry_over(
    before: Opened,
    kept: &BTreeSet<Set>,
    packs: &[(Set, PackRef)],
) -> (Contents, HashSet<PackName>, Older) {
    let Opened { backup: _, mut contents, packs: old, mut older } = before;
    let numbers: HashMap<&PackName, u32> =
        packs.iter().map(|(_, reference)| &reference.name).zip(0..).collect();
    let renumbered: Vec<Option<u32>> =
        old.iter().map(|(_, reference)| numbers.get(&reference.name).copied()).collect();
    contents.gone.retain(|set, _| kept.contains(set));
    contents.entries.retain(|key, entry| match renumbered.get(entry.pack as usize) {
        Some(Some(number)) if kept.contains(&entry.set) => {
            entry.pack = *number;
            true
        }
        _ => {
            older.add(key.clone(), entry, &old[entry.pack as usize]);
            false
        }
    });
    let known = old.into_iter().filter(|(set, _)| kept.contains(set)).map(|(_, p)| p.name);
    (contents, known.collect(), older)
}

/// Removals of all sets first, then what is there: an object that moved is gone from one set and
/// stands in another.
fn merge(
    contents: &mut Contents,
    overlays: BTreeMap<Set, Overlay>,
    replaced: &mut Replaced<'_>,
) -> Result<(), PacksError> {
    for (set, overlay) in &overlays {
        for key in overlay.iter().filter(|(_, entry)| entry.is_none()).map(|(key, _)| key) {
            if contents.entries.get(key).is_some_and(|entry| entry.set == *set) {
                contents.entries.remove(key);
            }
        }
    }
    for (set, overlay) in overlays {
        for (key, entry) in overlay {
            let Some(entry) = entry else { continue };
            if contents.entries.get(&key).is_some_and(|there| there.set != set) {
                return Err(PacksError::TwoSets { key });
            }
            if let Some(before) = contents.entries.insert(key.clone(), entry) {
                replaced(key, &before);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layout::Mark;
    use super::super::record::{Cut, HubId, Level};
    use super::*;

    fn entry(set: Set) -> Entry {
        Entry {
            set,
            version: "v1".into(),
            digest: Digest([0; 32]),
            pack: 0,
            uid: "u".into(),
            resource_version: "1".into(),
            owners: [].into(),
        }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("", "configmaps", "ns", name).unwrap()
    }

    /// `before` and each overlay: (name, set, there or gone).
    fn check(
        name: &str,
        before: &[(&str, Set)],
        overlays: &[(Set, &[(&str, bool)])],
        expected: Option<&[(&str, Set)]>,
    ) {
        let mut contents = Contents::default();
        contents.entries.extend(before.iter().map(|(name, set)| (key(name), entry(*set))));
        let overlays = overlays
            .iter()
            .map(|(set, lines)| {
                (
                    *set,
                    lines
                        .iter()
                        .map(|(name, there)| (key(name), there.then(|| entry(*set))))
                        .collect(),
                )
            })
            .collect();
        let merged = merge(&mut contents, overlays, &mut |_, _| ()).ok().map(|()| {
            let mut found: Vec<_> =
                contents.entries.iter().map(|(key, e)| (key.name().to_owned(), e.set)).collect();
            found.sort();
            found
        });
        let expected = expected
            .map(|list| list.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect::<Vec<_>>());
        assert_eq!(merged, expected, "{name}");
    }

    #[test]
    fn levels_of_all_sets_merge_into_one_view() {
        use Set::{Activation, Resources};
        check("an object is added", &[], &[(Resources, &[("a", true)])], Some(&[("a", Resources)]));
        check("an object goes", &[("a", Resources)], &[(Resources, &[("a", false)])], Some(&[]));
        check(
            "an object moves to a set that is read earlier",
            &[("a", Resources)],
            &[(Activation, &[("a", true)]), (Resources, &[("a", false)])],
            Some(&[("a", Activation)]),
        );
        check(
            "an object moves to a set that is read later",
            &[("a", Activation)],
            &[(Activation, &[("a", false)]), (Resources, &[("a", true)])],
            Some(&[("a", Resources)]),
        );
        check("an object in two sets", &[("a", Activation)], &[(Resources, &[("a", true)])], None);
    }

    /// A commit whose sets have these levels, each one pack with this number as its name.
    fn commit(sets: &[(Set, &[u128])]) -> Commit {
        let level = |number: &u128| {
            let name = PackName::new(1, 1, ulid::Ulid(*number));
            let pack = PackRef { name, length: 1, sha256: Digest([0; 32]), lines: 1 };
            Level { packs: vec![pack] }
        };
        let contents = |levels: &[u128]| SetContents {
            levels: levels.iter().map(level).collect(),
            ..SetContents::default()
        };
        Commit {
            sets: sets.iter().map(|(set, levels)| (*set, contents(levels))).collect(),
            cut: Cut { revision: "1".to_owned(), apart: vec![] },
            rules: Digest([0; 32]),
            suspect: None,
            partial: vec![],
        }
    }

    fn backup(commit: Commit) -> Arc<Backup> {
        Arc::new(Backup {
            mark: Mark { slot: 4, sha256: Digest([0; 32]) },
            epoch: 1,
            hub: HubId { name: "a".to_owned(), uid: "u".to_owned() },
            at: jiff::Timestamp::UNIX_EPOCH,
            commit,
        })
    }

    #[test]
    fn only_a_set_that_was_merged_is_read_again() {
        use Set::{Activation, Credentials, Resources};
        let before = commit(&[(Credentials, &[1, 2]), (Resources, &[3, 4]), (Activation, &[5])]);
        let after = commit(&[(Credentials, &[6]), (Resources, &[3, 4, 7]), (Activation, &[5])]);
        let kept = continued(&before, &after);
        assert_eq!(kept, [Resources, Activation].into());

        let mut contents = Contents::default();
        for (name, set, pack) in [
            ("a", Credentials, 0),
            ("b", Credentials, 1),
            ("c", Resources, 3),
            ("d", Activation, 4),
        ] {
            contents.entries.insert(key(name), Entry { pack, ..entry(set) });
        }
        contents.gone.insert(Credentials, [(key("e"), Gone::Deleted)].into());
        contents.gone.insert(Resources, [(key("f"), Gone::Deleted)].into());
        let opened = Opened {
            packs: packs_of(&before),
            backup: backup(before),
            contents,
            older: Older::default(),
        };
        let packs = packs_of(&after);
        let (contents, known, older) = carry_over(opened, &kept, &packs);
        let mut entries: Vec<_> =
            contents.entries.iter().map(|(key, e)| (key.name().to_owned(), e.pack)).collect();
        entries.sort();
        assert_eq!(entries, [("c".to_owned(), 2), ("d".to_owned(), 4)]);
        assert_eq!(contents.gone.keys().collect::<Vec<_>>(), [&Resources]);
        assert_eq!(older.packs().len(), 2, "what a merge replaced may still be asked for");
        let fresh = packs.iter().filter(|(_, pack)| !known.contains(&pack.name));
        let fresh: Vec<_> = fresh.map(|(set, pack)| (*set, pack.name.to_string())).collect();
        let name = |number| PackName::new(1, 1, ulid::Ulid(number)).to_string();
        assert_eq!(fresh, [(Credentials, name(6)), (Resources, name(7))]);
    }
}
