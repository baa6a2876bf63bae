//! Where a reader may begin, so that reading the journal does not cost its whole history.
//!
//! The holder leaves what it knows of the journal below `checkpoints/` every [`EVERY`] slots; a
//! daemon keeps one more in its cache folder. A checkpoint is authenticated by the pair key that
//! comes first and by no older one, and whoever begins with it looks whether its last record still
//! stands in the journal. One that cannot be used is no fault: the reader begins at the first slot.

use super::chain::View;
use super::keys::Keys;
use super::layout::{CHECKPOINTS, checkpoint_key};
use super::record;
use super::storage::{Storage, StorageError};
use crate::retry;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Slots between two checkpoints in the storage.
pub const EVERY: u64 = 1_000;

/// Slots between two that a daemon keeps for itself: writing one costs no request.
const EVERY_LOCAL: u64 = 100;

/// The newest may have come with the storage's last breath.
const KEPT: usize = 2;

/// Some hundred thousand backups. A larger one is not ours.
const LIMIT: u64 = 64 << 20;

const FILE: &str = "journal.checkpoint";
const NEW: &str = "journal.checkpoint.new";

#[derive(Serialize)]
struct Written<'a> {
    repository: &'a str,
    key: &'a str,
    view: &'a View,
}

#[derive(Deserialize)]
struct Read {
    repository: String,
    view: View,
}

fn encode(view: &View, repository: &str, keys: &Keys) -> Vec<u8> {
    record::encode_checkpoint(&Written { repository, key: keys.id(), view }, keys)
}

fn decode(bytes: &[u8], repository: &str, keys: &Keys) -> Option<View> {
    let read: Read = record::decode_checkpoint(bytes, keys)?;
    let current = read.view.key() == keys.ids().next();
    (read.repository == repository && current && read.view.frozen.is_none()).then_some(read.view)
}

/// The newest in the storage that can be used.
pub async fn newest(
    storage: &Storage,
    repository: &str,
    keys: &Keys,
) -> Result<Option<View>, StorageError> {
    for entry in storage.list(CHECKPOINTS, None).await?.iter().rev().take(KEPT) {
        let stored = match storage.get(&entry.key, LIMIT).await {
            Ok(stored) => stored,
            Err(StorageError::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(view) = stored.and_then(|stored| decode(&stored.bytes, repository, keys)) {
            return Ok(Some(view));
        }
        tracing::warn!(key = entry.key, "the checkpoint cannot be used");
    }
    Ok(None)
}

/// Leaves one for every reader, and takes away the oldest. That it fails harms nobody.
pub async fn leave(storage: &Storage, view: &View, repository: &str, keys: &Keys) {
    let write = async {
        let bytes = Bytes::from(encode(view, repository, keys));
        storage.create(&checkpoint_key(view.head), bytes).await?;
        let all = storage.list(CHECKPOINTS, None).await?;
        for old in &all[..all.len().saturating_sub(KEPT)] {
            storage.delete(&old.key).await?;
        }
        Ok::<_, StorageError>(())
    };
    if let Err(error) = write.await {
        tracing::warn!(error = retry::chain(&error), "failed to leave a checkpoint");
    }
}

/// The one that a daemon keeps for its own next start.
pub struct Local {
    folder: PathBuf,
    saved: u64,
}

impl Local {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), saved: 0 }
    }

    pub fn load(&mut self, repository: &str, keys: &Keys) -> Option<View> {
        let view = decode(&std::fs::read(self.folder.join(FILE)).ok()?, repository, keys)?;
        self.saved = view.head;
        Some(view)
    }

    /// Once enough has happened since the last one.
    pub fn save(&mut self, view: &View, repository: &str, keys: &Keys) {
        if view.frozen.is_some() || view.head < self.saved + EVERY_LOCAL {
            return;
        }
        self.saved = view.head;
        let new = self.folder.join(NEW);
        let written = std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&new, encode(view, repository, keys)))
            .and_then(|()| std::fs::rename(&new, self.folder.join(FILE)));
        if let Err(error) = written {
            tracing::warn!(
                error = retry::chain(&error),
                "failed to keep a checkpoint in the cache"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{digest, term, walk};
    use super::super::keys::Keys;
    use super::super::keys::tests::{holding, new_keys};
    use super::super::layout::PackName;
    use super::super::record::tests::{commit_of, record};
    use super::super::record::{Body, Found};
    use super::*;

    fn view(keys: &Keys) -> View {
        let pack = PackName::new(1, 3, ulid::Ulid(1));
        let commit = Body::Commit(commit_of(&[pack]));
        let (view, _) = walk(
            keys,
            vec![
                (0, 0, "a", Body::Init),
                (1, 0, "a", term()),
                (1, 0, "a", Body::Open),
                (1, 3, "a", commit),
            ],
        );
        view
    }

    #[test]
    fn a_checkpoint_says_all_that_the_walk_said() {
        let keys = new_keys();
        let view = view(&keys);
        let mut read = decode(&encode(&view, "r", &keys), "r", &keys).unwrap();
        assert_eq!(read, view);
        let mut on = view.clone();
        for view in [&mut read, &mut on] {
            let mut term = record(&keys, 5, 2, 0, "b", term());
            term.prev = view.last;
            assert_eq!(view.step(Found::Record(Box::new(term)), digest(5)), None);
        }
        assert_eq!(read, on);
    }

    #[test]
    fn nothing_but_a_checkpoint_of_this_repository_under_the_first_key_is_used() {
        let (old, new) = (new_keys(), new_keys());
        let bytes = encode(&view(&old), "r", &old);
        assert!(decode(&bytes, "r", &old).is_some());
        assert!(decode(&bytes, "other", &old).is_none());
        assert!(decode(&bytes, "r", &new).is_none());
        // Whoever was expelled still holds the old key.
        assert!(decode(&bytes, "r", &holding(&[&new, &old])).is_none());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged, "r", &old).is_none(), "byte {at}");
        }
        let mut frozen = view(&old);
        frozen.freeze_without("k");
        assert!(decode(&encode(&frozen, "r", &old), "r", &old).is_none());
    }

    #[test]
    fn a_daemon_keeps_one_in_its_folder_and_survives_a_damaged_one() {
        let (keys, folder) = (new_keys(), tempfile::tempdir().unwrap());
        let mut view = view(&keys);
        let mut local = Local::new(folder.path());
        local.save(&view, "r", &keys);
        assert!(local.load("r", &keys).is_none(), "it is not worth one yet");
        view.head = EVERY_LOCAL;
        local.save(&view, "r", &keys);
        assert_eq!(Local::new(folder.path()).load("r", &keys), Some(view));
        std::fs::write(folder.path().join(FILE), "{}\n").unwrap();
        assert!(Local::new(folder.path()).load("r", &keys).is_none());
    }
}
