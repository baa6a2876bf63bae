//! Neighbouring levels of a set become one.
//!
//! Their packs are streamed one after another from the newest to the oldest, each verified and
//! decrypted as for every reader, and the first line of each key is sealed again: memory holds one
//! pack on either side and the keys that were seen. What may go wrong costs nothing but the merge:
//! the levels stay as they are, the delta goes on top, and what was uploaded are packs that no commit
//! names.

use super::BackupError;
use super::changes::Changes;
use super::levels::{self, Size};
use super::sealer::{LevelWriter, RunHeader};
use super::upload::{Levels, upload};
use crate::object::{ObjectKey, Set};
use crate::repository::chain::Backup;
use crate::repository::keys::Keys;
use crate::repository::pack::{Gone, Line};
use crate::repository::packs::PackStore;
use crate::repository::record::{Level, PackRef};
use crate::retry;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Packs between two stages: one in work, one waiting.
const CHANNEL: usize = 1;

/// What a run adds to the levels of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// So many of the levels before stay as they are.
    pub(super) keeps: usize,
    pub(super) packs: Vec<PackRef>,
}

/// The tails of a run by set.
pub(super) type Tails = BTreeMap<Set, Tail>;

/// Where lines come from and go to.
pub(super) struct Merger<'a> {
    pub(super) packs: &'a PackStore,
    pub(super) keys: &'a Arc<Keys>,
    pub(super) header: &'a RunHeader,
    /// For the merges of all sets together.
    pub(super) patience: Duration,
}

/// Which lines that tell of what is gone are kept.
#[derive(Clone, Debug)]
enum Tombstones {
    /// Older levels hold the objects.
    All,
    /// There is nothing below that they could hide: only these, for standbys that were away.
    Deselected(HashSet<ObjectKey>),
}

impl Merger<'_> {
    /// Puts the deltas of a run on top of the levels before, or merges them where that is due. A set
    /// in `anew` has no levels before. Also returns the sets of which the levels are damaged.
    pub(super) async fn tails(
        &self,
        before: Option<&Backup>,
        anew: &BTreeSet<Set>,
        changes: &Changes,
        deltas: Levels,
    ) -> (Tails, BTreeSet<Set>) {
        let begun = crate::clock::monotonic();
        let (mut tails, mut damaged) = (Tails::new(), BTreeSet::new());
        for (set, delta) in deltas {
            let before = before.filter(|_| !anew.contains(&set));
            let levels = before.and_then(|before| before.commit.sets.get(&set));
            let levels = levels.map_or(&[][..], |contents| &contents.levels);
            let plain = Tail { keeps: levels.len(), packs: delta };
            let due = levels::merge(&levels::sizes(levels), Size::of(&plain.packs));
            let Some(from) = due else {
                tails.insert(set, plain);
                continue;
            };
            let tombstones = match from {
                0 => Tombstones::Deselected(changes.deselected_keys()),
                _ => Tombstones::All,
            };
            let left = self.patience.saturating_sub(crate::clock::monotonic() - begun);
            let merge = self.merge(set, &levels[from..], &plain.packs, tombstones);
            let tail = match tokio::time::timeout(left, merge).await {
                Ok(Ok(packs)) => Tail { keeps: from, packs },
                Ok(Err(error)) => {
                    tracing::warn!(%set, error = retry::chain(&error), "levels cannot be merged");
                    if matches!(&error, BackupError::Packs(error) if error.is_damage()) {
                        damaged.insert(set);
                    }
                    plain
                }
                Err(_) => {
                    tracing::warn!(%set, "levels cannot be merged in time");
                    plain
                }
            };
            tails.insert(set, tail);
        }
        (tails, damaged)
    }

    /// One level in place of `levels` and the delta above them.
    async fn merge(
        &self,
        set: Set,
        levels: &[Level],
        delta: &[PackRef],
        tombstones: Tombstones,
    ) -> Result<Vec<PackRef>, BackupError> {
        let oldest_first = levels.iter().flat_map(|level| &level.packs).chain(delta);
        let newest_first: Vec<PackRef> = oldest_first.rev().cloned().collect();
        let (fetched, to_merge) = mpsc::channel(CHANNEL);
        let (sealed, to_upload) = mpsc::channel(CHANNEL);
        let lines = Lines {
            packs: self.packs.clone(),
            set,
            tombstones,
            seen: HashMap::new(),
            level: LevelWriter::new(self.keys.clone(), self.header.clone(), set, sealed),
        };
        let thread = tokio::task::spawn_blocking(move || lines.merge(to_merge));
        let (fetching, merging, uploading) = tokio::join!(
            self.fetch(&newest_first, fetched),
            thread,
            upload(self.packs, self.header, to_upload)
        );
        // A stage that stopped because another one failed is not the reason.
        let merging = merging.unwrap_or(Err(BackupError::Stopped));
        let mut merged = match (fetching, merging, uploading) {
            (Err(error), _, _) | (_, _, Err(error)) | (_, Err(error), _) => return Err(error),
            (Ok(()), Ok(()), Ok(merged)) => merged,
        };
        let merged = merged.remove(&set).unwrap_or_default();
        let (before, after) = (newest_first.len(), merged.len());
        tracing::info!(%set, levels = levels.len() + 1, before, after, "levels merged");
        Ok(merged)
    }

    async fn fetch(
        &self,
        references: &[PackRef],
        fetched: mpsc::Sender<(PackRef, Bytes)>,
    ) -> Result<(), BackupError> {
        for reference in references {
            let bytes = self.packs.get(reference).await?;
            if fetched.send((reference.clone(), bytes)).await.is_err() {
                // The merging stage has the reason.
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The blocking stage: packs in from the newest to the oldest, each key once out.
struct Lines {
    packs: PackStore,
    set: Set,
    tombstones: Tombstones,
    /// The number of the pack with the newest line of each key.
    seen: HashMap<ObjectKey, usize>,
    level: LevelWriter,
}

impl Lines {
    fn merge(mut self, mut input: mpsc::Receiver<(PackRef, Bytes)>) -> Result<(), BackupError> {
        let mut number = 0;
        while let Some((reference, bytes)) = input.blocking_recv() {
            number += 1;
            let mut result = Ok(());
            let (packs, set) = (self.packs.clone(), self.set);
            packs.read(&bytes, &reference, set, |line| {
                result = self.line(line, number);
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            result?;
        }
        self.level.close()
    }

    fn line(&mut self, line: Line<'_>, number: usize) -> Result<(), BackupError> {
        match self.seen.get(line.key()) {
            // Of two lines in one pack the later one counts, but the earlier one is already out.
            Some(seen) if *seen == number => return Err(BackupError::Repeated { set: self.set }),
            Some(_) => return Ok(()),
            None => self.seen.insert(line.key().clone(), number),
        };
        let kept = match (&line, &self.tombstones) {
            (Line::Object(_), _) | (_, Tombstones::All) => true,
            (Line::Gone { key, gone }, Tombstones::Deselected(keys)) => {
                *gone == Gone::Deselected && keys.contains(key)
            }
        };
        if kept { self.level.push(line) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;
    use crate::object::Digest;
    use crate::observe::nobody;
    use crate::repository::contents::Contents;
    use crate::repository::keys::tests::new_keys;
    use crate::repository::layout::{Mark, pack_key};
    use crate::repository::pack::ObjectLine;
    use crate::repository::packs::Opened;
    use crate::repository::record::{Commit, Cut, HubId, SetContents};
    use crate::repository::storage::Storage;
    use serde_json::value::RawValue;

    /// A repository in a folder, and the levels of the set `resources` in it.
    struct Bench {
        folder: tempfile::TempDir,
        storage: Storage,
        packs: PackStore,
        keys: Arc<Keys>,
        header: RunHeader,
    }

    /// A line by its key: the object with this body, or why there is none.
    type Lines<'a> = &'a [(&'a str, Result<u32, Gone>)];

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("", "configmaps", "ns", name).unwrap()
    }

    impl Bench {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let repository = folder.path().join("repository");
            std::fs::create_dir(&repository).unwrap();
            let location = settings::Location::Directory(repository);
            let storage = Storage::open(&location, nobody()).await.unwrap();
            let keys = Arc::new(new_keys());
            let cache = folder.path().join("cache");
            let packs = PackStore::new(storage.clone(), keys.clone(), "r", cache).unwrap();
            let (repository, revision) = ("r".to_owned(), "5".to_owned());
            let header = RunHeader { repository, epoch: 1, incarnation: 3, revision };
            Self { folder, storage, packs, keys, header }
        }

        fn merger(&self) -> Merger<'_> {
            let (packs, keys, header) = (&self.packs, &self.keys, &self.header);
            Merger { packs, keys, header, patience: Duration::from_mins(1) }
        }

        /// Seals a level, each part in a pack of its own.
        async fn level(&self, set: Set, parts: &[Lines<'_>]) -> Level {
            let mut packs = vec![];
            for lines in parts {
                let (sender, receiver) = mpsc::channel(1);
                let (keys, header) = (self.keys.clone(), self.header.clone());
                let mut level = LevelWriter::new(keys, header, set, sender);
                let lines: Vec<_> = lines.iter().map(|(name, is)| (key(name), *is)).collect();
                let sealing = tokio::task::spawn_blocking(move || {
                    for (key, is) in lines {
                        let body = is.map(|n| RawValue::from_string(n.to_string()).unwrap());
                        level.push(match &body {
                            Ok(object) => Line::Object(ObjectLine {
                                key,
                                version: "v1".into(),
                                uid: "u".into(),
                                resource_version: "1".into(),
                                object,
                            }),
                            Err(gone) => Line::Gone { key, gone: *gone },
                        })?;
                    }
                    level.close()
                });
                let uploading = upload(&self.packs, &self.header, receiver);
                let (sealed, uploaded) = tokio::join!(sealing, uploading);
                sealed.unwrap().unwrap();
                packs.extend(uploaded.unwrap().remove(&set).unwrap_or_default());
            }
            Level { packs }
        }

        async fn open(&self, levels: &[Level], objects: u64, before: Option<Opened>) -> Opened {
            self.packs.open(Arc::new(backup(levels, objects)), before).await.unwrap()
        }
    }

    fn backup(levels: &[Level], objects: u64) -> Backup {
        let contents = SetContents { levels: levels.to_vec(), objects, ..SetContents::default() };
        Backup {
            mark: Mark { slot: 4, sha256: Digest([0; 32]) },
            epoch: 1,
            hub: HubId { name: "a".to_owned(), uid: "u".to_owned() },
            at: jiff::Timestamp::UNIX_EPOCH,
            commit: Commit {
                sets: [(Set::Resources, contents)].into(),
                cut: Cut { revision: "5".to_owned(), apart: vec![] },
                rules: Digest([0; 32]),
                suspect: None,
                partial: vec![],
            },
        }
    }

    /// What the backup holds, without the places where it stands.
    fn told(contents: &Contents) -> (BTreeMap<String, Digest>, BTreeMap<String, Gone>) {
        let objects = contents.entries.iter().map(|(key, e)| (key.name().to_owned(), e.digest));
        let why = contents.why_gone();
        let gone = why.iter().map(|(key, gone)| (key.name().to_owned(), *gone));
        (objects.collect(), gone.collect())
    }

    async fn levels(bench: &Bench) -> Vec<Level> {
        use Gone::{Deleted, Deselected, Moved};
        let set = Set::Resources;
        vec![
            bench.level(set, &[&[("a", Ok(1)), ("b", Ok(1))], &[("c", Ok(1)), ("d", Ok(1))]]).await,
            bench.level(set, &[&[("a", Ok(2)), ("b", Err(Deleted))]]).await,
            bench
                .level(set, &[&[("e", Ok(3))], &[("c", Err(Deselected)), ("d", Err(Moved))]])
                .await,
            bench.level(set, &[&[("a", Ok(4)), ("b", Ok(4)), ("e", Err(Deleted))]]).await,
        ]
    }

    #[tokio::test]
    async fn merged_levels_tell_what_they_told_before() {
        let bench = Bench::new().await;
        let levels = levels(&bench).await;
        let expected = told(&bench.open(&levels, 2, None).await.contents);
        for from in 1..3 {
            let ([tail @ .., delta], kept) = (&levels[from..], &levels[..from]) else { panic!() };
            let (set, tombstones) = (Set::Resources, Tombstones::All);
            let packs = bench.merger().merge(set, tail, &delta.packs, tombstones).await.unwrap();
            let merged = [kept, &[Level { packs }]].concat();
            assert_eq!(told(&bench.open(&merged, 2, None).await.contents), expected, "{from}");
            let (kept, objects) = (bench.open(kept, [4, 3][from - 1], None).await, 2);
            let on_top = bench.open(&merged, objects, Some(kept)).await;
            assert_eq!(told(&on_top.contents), expected, "{from}, on top of what was open");
            let all = bench.open(&levels, objects, None).await;
            let over = bench.open(&merged, objects, Some(all)).await;
            assert_eq!(told(&over.contents), expected, "{from}, in place of what was open");
        }
    }

    #[tokio::test]
    async fn a_new_base_forgets_what_is_gone_but_not_what_was_deselected() {
        let bench = Bench::new().await;
        let levels = levels(&bench).await;
        let (objects, _) = told(&bench.open(&levels, 2, None).await.contents);
        let [tail @ .., delta] = &levels[..] else { panic!() };
        for (kept, lines) in [(&["c"][..], 3), (&[], 2)] {
            let kept: HashSet<_> = kept.iter().map(|name| key(name)).collect();
            let gone = kept.iter().map(|key| (key.name().to_owned(), Gone::Deselected)).collect();
            let tombstones = Tombstones::Deselected(kept);
            let merged = bench.merger().merge(Set::Resources, tail, &delta.packs, tombstones).await;
            let packs = merged.unwrap();
            assert_eq!(packs.iter().map(|pack| pack.lines).sum::<u64>(), lines);
            let opened = bench.open(&[Level { packs }], 2, None).await;
            assert_eq!(told(&opened.contents), (objects.clone(), gone));
        }
    }

    #[tokio::test]
    async fn a_merge_that_fails_leaves_the_delta_on_top() {
        let bench = Bench::new().await;
        let set = Set::Resources;
        let base = bench.level(set, &[&[("a", Ok(1))]]).await;
        // Sealing adds a random number of bytes to each pack.
        let parts: [Lines<'_>; 4] =
            [&[("a", Ok(2))], &[("b", Ok(2))], &[("c", Ok(2))], &[("d", Ok(2))]];
        let delta = bench.level(set, &parts).await;
        let deltas = || Levels::from([(set, delta.packs.clone())]);
        let before = backup(std::slice::from_ref(&base), 1);
        let changes =
            || crate::backup::changes::Catalogue::default().observe(Digest([0; 32]), [].into());
        let (merger, anew) = (bench.merger(), BTreeSet::new());
        let plain = Tails::from([(set, Tail { keeps: 1, packs: delta.packs.clone() })]);

        let (tails, damaged) = merger.tails(Some(&before), &anew, &changes(), deltas()).await;
        assert_eq!((tails[&set].keeps, damaged), (0, BTreeSet::new()), "it is due");

        let path = bench.folder.path().join("repository").join(pack_key(&base.packs[0].name));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[300] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (tails, damaged) = merger.tails(Some(&before), &anew, &changes(), deltas()).await;
        assert_eq!((tails, damaged), (plain.clone(), [set].into()), "damaged");

        bench.storage.delete(&pack_key(&base.packs[0].name)).await.unwrap();
        let (tails, damaged) = merger.tails(Some(&before), &anew, &changes(), deltas()).await;
        assert_eq!((tails, damaged), (plain.clone(), [set].into()), "missing");

        let late = Merger { patience: Duration::ZERO, ..bench.merger() };
        let (tails, damaged) = late.tails(Some(&before), &anew, &changes(), deltas()).await;
        assert_eq!((tails, damaged), (plain, BTreeSet::new()), "no time is left");

        let all = Set::ALL.into();
        let (tails, _) = merger.tails(Some(&before), &all, &changes(), deltas()).await;
        assert_eq!(tails[&set], Tail { keeps: 0, packs: delta.packs.clone() }, "written anew");
    }

    #[tokio::test]
    async fn a_pack_with_a_key_twice_is_not_merged() {
        let bench = Bench::new().await;
        let delta = bench.level(Set::Resources, &[&[("a", Ok(1)), ("a", Ok(2))]]).await;
        let merged = bench.merger().merge(Set::Resources, &[], &delta.packs, Tombstones::All).await;
        assert!(matches!(merged, Err(BackupError::Repeated { set: Set::Resources })));
    }
}
