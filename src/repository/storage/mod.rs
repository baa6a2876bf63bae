//! The storage under a repository: few verbs, one attempt each, every error sorted by what to do.
//!
//! Keys are relative to the repository (`repo`, `journal/…`, `packs/…`). A call makes **one** attempt
//! with one time-out; who retries is the caller, through [`crate::retry`]. What may go wrong is the
//! normal case here: an answer that is lost after the write happened. So `create` can be repeated
//! with the same bytes without end, and a reader never sees half an object.

use crate::config::settings;
use crate::observe::Observer;
use bytes::Bytes;
use jiff::Timestamp;
use std::time::Duration;

pub mod directory;
pub mod error;
pub mod s3;

pub use directory::Directory;
pub use error::{Act, Denial, StorageError};
pub use s3::S3;

#[derive(Clone, Debug)]
pub enum Storage {
    S3(S3),
    Directory(Directory),
}

/// The answer to a create-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object did not exist and holds exactly our bytes now, durably.
    Yes,
    /// Something stood there already (HTTP 412). It may be ours, from an attempt whose answer was lost.
    Exists,
}

#[derive(Clone, Debug)]
pub struct Stored {
    pub bytes: Bytes,
    /// `Last-Modified`, by the storage's clock.
    pub modified: Timestamp,
    /// The storage's clock when it answered (`Date`).
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub size: u64,
    pub modified: Timestamp,
}

/// What one request for a listing gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys, byte by byte.
    pub entries: Vec<Entry>,
    /// There is more: ask again with this as `after`.
    pub next: Option<String>,
}

/// How long a small request may take. Above anything a healthy storage needs, and of the order of
/// the poll interval, so that a hanging connection costs a poll and not a promotion.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);

/// The slowest line that still counts as working: several packs of 8 MiB in parallel over 10 Mbit/s.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;

/// A journal of ten years with a backup every five minutes. More keys than this are not ours to
/// hold in memory (about 100 bytes each).
const MAX_LISTED: usize = 1_000_000;

/// S3 allows 1,024 bytes with the prefix.
const MAX_KEY: usize = 512;

/// The time-out of a request that moves so many bytes.
pub(crate) fn patience(bytes: u64) -> Duration {
    ANSWER + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
}

impl Storage {
    /// Touches neither network nor bucket: a daemon starts also while its storage is away.
    pub async fn open(
        location: &settings::Location,
        observer: Observer,
    ) -> Result<Self, StorageError> {
        match location {
            settings::Location::S3(s3) => S3::open(s3, observer).await.map(Self::S3),
            settings::Location::Directory(path) => {
                Ok(Self::Directory(Directory::open(path, observer)))
            }
        }
    }

    /// `s3://bucket/prefix/`, or the path of the folder.
    pub fn location(&self) -> &str {
        match self {
            Self::S3(s3) => s3.location(),
            Self::Directory(directory) => directory.location(),
        }
    }

    /// Creates the object if there is none. After a transient error or a conflict the outcome is
    /// unknown: the same bytes may be sent again until the answer is definite, and `Exists` may then
    /// mean the own earlier attempt.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, StorageError> {
        let act = self.act("create", key)?;
        match self {
            Self::S3(s3) => s3.create(act, bytes).await,
            Self::Directory(directory) => directory.create(act, bytes).await,
        }
    }

    /// Overwrites. Only for heartbeats; everything else in a repository is written once.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        let act = self.act("put", key)?;
        match self {
            Self::S3(s3) => s3.put(act, bytes).await,
            Self::Directory(directory) => directory.put(act, bytes).await,
        }
    }

    /// None: there is no such object. An object above `limit` bytes is refused before it is read.
    pub async fn get(&self, key: &str, limit: u64) -> Result<Option<Stored>, StorageError> {
        let act = self.act("get", key)?;
        match self {
            Self::S3(s3) => s3.get(act, limit).await,
            Self::Directory(directory) => directory.get(act, limit).await,
        }
    }

    /// One request's worth of keys that start with `prefix` (empty, or ending with a slash) and come
    /// after `after`. Names that Understudy could not have written are left out: nothing addresses
    /// them. A listing may be stale; nothing safe rests on it alone.
    pub async fn list_page(&self, prefix: &str, after: Option<&str>) -> Result<Page, StorageError> {
        if !prefix.is_empty() {
            let folder = prefix.strip_suffix('/').ok_or(StorageError::BadKey {
                key: prefix.to_owned(),
                why: "a prefix ends with a slash",
            })?;
            check_key(folder)?;
        }
        let act =
            Act { operation: "list", key: prefix.to_owned(), location: self.location().to_owned() };
        match self {
            Self::S3(s3) => s3.list_page(act, after).await,
            Self::Directory(directory) => directory.list_page(act, after).await,
        }
    }

    /// All pages. For journals of unknown length ask page by page and retry page by page.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut all = Vec::new();
        let mut after = after.map(str::to_owned);
        loop {
            let page = self.list_page(prefix, after.as_deref()).await?;
            all.extend(page.entries);
            if all.len() > MAX_LISTED {
                let act = self.act("list", prefix.trim_end_matches('/'))?;
                let what = "there are more than a million keys";
                return Err(StorageError::Unsound { act: Box::new(act), what });
            }
            if page.next.is_none() {
                return Ok(all);
            }
            after = page.next;
        }
    }

    /// Deleting what is not there succeeds.
    pub async fn delete(&self, key: &str) -> Result<(), StorageError> {
        let act = self.act("delete", key)?;
        match self {
            Self::S3(s3) => s3.delete(act).await,
            Self::Directory(directory) => directory.delete(act).await,
        }
    }

    /// `count` handles that share no connection with each other or with this one.
    pub fn separate(&self, count: usize) -> Vec<Self> {
        (0..count)
            .map(|_| match self {
                Self::S3(s3) => Self::S3(s3.separate()),
                // System calls are separate by nature.
                Self::Directory(directory) => Self::Directory(directory.clone()),
            })
            .collect()
    }

    fn act(&self, operation: &'static str, key: &str) -> Result<Act, StorageError> {
        check_key(key)?;
        Ok(Act { operation, key: key.to_owned(), location: self.location().to_owned() })
    }
}

/// One anchored grammar for both back ends: segments of letters, digits, `.`, `_` and `-` that do
/// not begin with a dot. So no key can leave the folder, and none meets a temporary file.
fn check_key(key: &str) -> Result<(), StorageError> {
    let bad = |why| Err(StorageError::BadKey { key: key.to_owned(), why });
    if key.len() > MAX_KEY {
        return bad("it is longer than 512 bytes");
    }
    for segment in key.split('/') {
        if segment.is_empty() {
            return bad("a part of it is empty");
        }
        if segment.starts_with('.') {
            return bad("a part of it begins with a dot");
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return bad("only letters, digits, dot, underscore and hyphen may stand in it");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_keys_are_accepted() {
        for key in ["repo", "journal/00000000000000000001", "packs/1-2-01ABC.x_y", "a/b/c/d"] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        let long = "x".repeat(513);
        for key in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".tmp/x", "a/.b", "a b", "a%2f",
            "a\\b", "a\0", "ä", "a\n", "a:b", &long,
        ] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn patience_grows_with_the_bytes() {
        assert_eq!(patience(0), ANSWER);
        assert_eq!(patience(64 << 20), ANSWER + Duration::from_secs(256));
        assert!(patience(u64::MAX) > patience(1 << 40));
    }
}
