//! The directory back end: a folder on a disk, or on a share that passes the race probe.
//!
//! An object is written under a temporary name in `.tmp`, synced, and then linked to its own name:
//! `link` refuses an existing name, so creating is exclusive, and no reader ever sees half an object.
//! The folders are synced before an answer is given, also before "exists already" and before bytes
//! are handed to a reader: whoever acts on them may rely on them after a power cut. What may go
//! wrong: a share may be slow or hang, so every call runs on a thread for blocking work with a
//! time-out, and their number is bounded. The root itself is never created: an absent one is a
//! mount that is missing, not an empty repository.

use super::{
    ANSWER, Act, Created, Denial, Entry, MAX_LISTED, Page, StorageError, Stored, check_key,
    patience,
};
use crate::observe::{Observation, Observer};
use bytes::Bytes;
use jiff::Timestamp;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The name begins with a dot, so no key can be the same and no listing shows it.
const TEMPORARY: &str = ".tmp";

/// Calls at the same time. Each may hold a thread for as long as the share hangs.
const MAX_CALLS: usize = 64;

/// Deeper folders are not ours; a loop of mounts must not keep a listing busy.
const MAX_DEPTH: usize = 8;

#[derive(Clone)]
pub struct Directory {
    root: PathBuf,
    location: String,
    observer: Observer,
    calls: Arc<Semaphore>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({})", self.location)
    }
}

/// What a call found, and the HTTP status that S3 would have answered: the metrics count both back
/// ends alike.
type Found<T> = (T, u16);

/// Why a call on the file system failed.
enum Failed {
    Io(io::Error),
    TooLarge(u64),
    Unsound(&'static str),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct TimedOut(Duration);

impl Directory {
    pub(super) fn open(root: &Path, observer: Observer) -> Self {
        Self {
            root: root.to_owned(),
            location: root.display().to_string(),
            observer,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    pub(super) async fn create(&self, act: Act, bytes: Bytes) -> Result<Created, StorageError> {
        let patience = patience(bytes.len() as u64);
        self.call(act, patience, 0, move |root, key| create(root, key, &bytes)).await
    }

    pub(super) async fn put(&self, act: Act, bytes: Bytes) -> Result<(), StorageError> {
        let patience = patience(bytes.len() as u64);
        self.call(act, patience, 0, move |root, key| put(root, key, &bytes)).await
    }

    pub(super) async fn get(&self, act: Act, limit: u64) -> Result<Option<Stored>, StorageError> {
        let found =
            self.call(act, patience(limit), limit, move |root, key| get(root, key, limit)).await?;
        let now = crate::clock::now();
        Ok(found.map(|(bytes, modified)| Stored { bytes, modified, now }))
    }

    /// The whole rest in one page: reading a folder again for each page would cost more.
    pub(super) async fn list_page(
        &self,
        act: Act,
        after: Option<&str>,
    ) -> Result<Page, StorageError> {
        let after = after.map(str::to_owned);
        self.call(act, ANSWER, 0, move |root, key| list(root, key, after.as_deref())).await
    }

    pub(super) async fn delete(&self, act: Act) -> Result<(), StorageError> {
        self.call(act, ANSWER, 0, delete).await
    }

    async fn call<T: Send + 'static>(
        &self,
        act: Act,
        patience: Duration,
        limit: u64,
        work: impl FnOnce(&Path, &str) -> Result<Found<T>, Failed> + Send + 'static,
    ) -> Result<T, StorageError> {
        let mut observation = Observation::start(&self.observer, act.operation);
        let (calls, root, key) = (Arc::clone(&self.calls), self.root.clone(), act.key.clone());
        let answer = tokio::time::timeout(patience, async move {
            let permit = calls.acquire_owned().await.map_err(io::Error::other)?;
            let work = move || {
                // Held by the thread and not by the caller: a call that was given up still hangs.
                let _permit = permit;
                work(&root, &key)
            };
            tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
        });
        match answer.await {
            Ok(Ok((found, status))) => {
                observation.answered(status);
                Ok(found)
            }
            Ok(Err(failed)) => Err(self.sort(act, failed, limit)),
            Err(_) => {
                let source = Box::new(TimedOut(patience));
                Err(StorageError::NoAnswer { act: Box::new(act), source })
            }
        }
    }

    fn sort(&self, act: Act, failed: Failed, limit: u64) -> StorageError {
        let act = Box::new(act);
        let error = match failed {
            Failed::TooLarge(size) => return StorageError::TooLarge { act, size, limit },
            Failed::Unsound(what) => return StorageError::Unsound { act, what },
            Failed::Io(error) => error,
        };
        let kind = error.kind();
        let source = Box::new(error);
        if matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory) && !self.root.is_dir() {
            return StorageError::Missing { act, source };
        }
        if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            return StorageError::Full { act, source };
        }
        if matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
            return StorageError::Denied { act, why: Denial::NotAllowed, source };
        }
        StorageError::NoAnswer { act, source }
    }
}

fn create(root: &Path, key: &str, bytes: &[u8]) -> Result<Found<Created>, Failed> {
    let path = make_folder(root, key)?.join(file_name(key));
    // Only spares the bytes when the name is taken; `link` below is what decides.
    let created = if path.symlink_metadata().is_ok() {
        Created::Exists
    } else {
        let temporary = write_temporary(root, bytes)?;
        match fs::hard_link(temporary.path(), &path) {
            Ok(()) => Created::Yes,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Created::Exists,
            Err(error) => return Err(error.into()),
        }
    };
    sync_folders(root, key)?;
    Ok((created, if created == Created::Yes { 200 } else { 412 }))
}

fn put(root: &Path, key: &str, bytes: &[u8]) -> Result<Found<()>, Failed> {
    let path = make_folder(root, key)?.join(file_name(key));
    let temporary = write_temporary(root, bytes)?;
    temporary.persist(path).map_err(|error| error.error)?;
    sync_folders(root, key)?;
    Ok(((), 200))
}

fn get(root: &Path, key: &str, limit: u64) -> Result<Found<Option<(Bytes, Timestamp)>>, Failed> {
    let path = root.join(key);
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound && root.is_dir() => {
            return Ok((None, 404));
        }
        Err(error) => return Err(error.into()),
    };
    // A link could point anywhere, a pipe could hang.
    if !metadata.is_file() {
        return Err(Failed::Unsound("it is not a regular file"));
    }
    if metadata.len() > limit {
        return Err(Failed::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    let file = File::open(&path)?;
    let metadata = file.metadata()?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Failed::TooLarge(metadata.len()));
    }
    sync_folders(root, key)?;
    Ok((Some((bytes.into(), modified(&metadata)?)), 200))
}

fn list(root: &Path, prefix: &str, after: Option<&str>) -> Result<Found<Page>, Failed> {
    let mut entries = Vec::new();
    let mut folders = vec![(prefix.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let names = match fs::read_dir(root.join(&folder)) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound && root.is_dir() => continue,
            Err(error) => return Err(error.into()),
        };
        for name in names {
            let name = name?;
            let Some(key) = name.file_name().to_str().map(|name| format!("{folder}{name}")) else {
                continue;
            };
            if check_key(&key).is_err() {
                continue;
            }
            let metadata = match name.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            if metadata.is_dir() && depth < MAX_DEPTH {
                folders.push((format!("{key}/"), depth + 1));
            } else if metadata.is_file() && after.is_none_or(|after| key.as_str() > after) {
                entries.push(Entry { key, size: metadata.len(), modified: modified(&metadata)? });
            }
            if entries.len() > MAX_LISTED {
                return Err(Failed::Unsound("there are more than a million files"));
            }
        }
    }
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok((Page { entries, next: None }, 200))
}

fn delete(root: &Path, key: &str) -> Result<Found<()>, Failed> {
    let path = root.join(key);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && root.is_dir() => {
            return Ok(((), 404));
        }
        Err(error) => return Err(error.into()),
    }
    let folder = path.parent().unwrap_or(root);
    sync_folder(folder)?;
    // A probe leaves no empty folder behind. Only a folder inside `probes/` or the like goes; one
    // that is not empty stays, and who loses it while creating in it makes it again.
    if key.matches('/').count() > 1 {
        let _ = fs::remove_dir(folder);
    }
    Ok(((), 204))
}

/// The bytes under a temporary name, durable. Removed when dropped; a crash leaves it in `.tmp`.
fn write_temporary(root: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let folder = root.join(TEMPORARY);
    create_folder(&folder)?;
    // The umask decides, as for any other file: hubs that share the folder may run as other users.
    let permissions = Permissions::from_mode(0o666);
    let mut file =
        tempfile::Builder::new().prefix("new-").permissions(permissions).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn file_name(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// The folder of the key, made if need be, but never the root.
fn make_folder(root: &Path, key: &str) -> io::Result<PathBuf> {
    let mut folder = root.to_owned();
    if let Some((folders, _)) = key.rsplit_once('/') {
        for name in folders.split('/') {
            folder.push(name);
            create_folder(&folder)?;
        }
    }
    Ok(folder)
}

fn create_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the names on the way from the root to the key durable, whoever made them.
fn sync_folders(root: &Path, key: &str) -> io::Result<()> {
    let mut folder = root.to_owned();
    sync_folder(&folder)?;
    if let Some((folders, _)) = key.rsplit_once('/') {
        for name in folders.split('/') {
            folder.push(name);
            sync_folder(&folder)?;
        }
    }
    Ok(())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn modified(metadata: &fs::Metadata) -> io::Result<Timestamp> {
    Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::nobody;
    use crate::repository::storage::Storage;
    use crate::retry::Class;
    use futures::future::join_all;

    fn storage() -> (tempfile::TempDir, Storage) {
        let root = tempfile::tempdir().unwrap();
        let storage = Storage::Directory(Directory::open(root.path(), nobody()));
        (root, storage)
    }

    async fn keys(storage: &Storage, prefix: &str) -> Vec<String> {
        storage.list(prefix, None).await.unwrap().into_iter().map(|entry| entry.key).collect()
    }

    async fn bytes(storage: &Storage, key: &str) -> Option<Bytes> {
        storage.get(key, 1 << 20).await.unwrap().map(|stored| stored.bytes)
    }

    #[tokio::test]
    async fn an_object_is_created_once_and_stays_as_it_was() {
        let (_root, storage) = storage();
        assert_eq!(bytes(&storage, "journal/1").await, None);
        assert_eq!(storage.create("journal/1", "a".into()).await.unwrap(), Created::Yes);
        assert_eq!(storage.create("journal/1", "b".into()).await.unwrap(), Created::Exists);
        assert_eq!(bytes(&storage, "journal/1").await.unwrap(), "a");
        storage.put("beats/eu-1", "1".into()).await.unwrap();
        storage.put("beats/eu-1", "2".into()).await.unwrap();
        assert_eq!(bytes(&storage, "beats/eu-1").await.unwrap(), "2");
        storage.delete("beats/eu-1").await.unwrap();
        storage.delete("beats/eu-1").await.unwrap();
        assert_eq!(keys(&storage, "").await, ["journal/1"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_sixteen_creators_exactly_one_wins() {
        let (_root, storage) = storage();
        for round in 0..20 {
            let key = format!("journal/{round:020}");
            let body = |n: usize| Bytes::from(vec![u8::try_from(n).unwrap(); 10_000]);
            let answers = join_all((0..16).map(|n| storage.create(&key, body(n)))).await;
            let winners: Vec<usize> =
                (0..16).filter(|n| *answers[*n].as_ref().unwrap() == Created::Yes).collect();
            assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
            assert_eq!(bytes(&storage, &key).await.unwrap(), body(winners[0]));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_reader_never_sees_half_an_object() {
        let (_root, storage) = storage();
        let whole = Bytes::from(vec![7; 1 << 20]);
        let write = async {
            for n in 0..30 {
                storage.create(&format!("packs/{n}"), whole.clone()).await.unwrap();
                storage.put("beats/eu-1", whole.clone()).await.unwrap();
            }
        };
        let read = async {
            loop {
                for entry in storage.list("", None).await.unwrap() {
                    assert_eq!(entry.size, whole.len() as u64, "{}", entry.key);
                    assert_eq!(bytes(&storage, &entry.key).await.unwrap(), whole);
                }
            }
        };
        futures::future::select(Box::pin(write), Box::pin(read)).await;
        assert_eq!(keys(&storage, "").await.len(), 31);
    }

    #[tokio::test]
    async fn what_is_not_an_object_is_neither_listed_nor_in_the_way() {
        let (root, storage) = storage();
        storage.create("journal/1", "a".into()).await.unwrap();
        for leftover in [".tmp/new-abc", "journal/.nfs0001", "journal/a b", "journal/..x"] {
            fs::write(root.path().join(leftover), "half").unwrap();
        }
        let link = root.path().join("journal/2");
        std::os::unix::fs::symlink(root.path().join("journal/1"), link).unwrap();
        assert_eq!(keys(&storage, "").await, ["journal/1"]);
        assert_eq!(keys(&storage, "journal/").await, ["journal/1"]);
        let error = storage.get("journal/2", 1 << 20).await.unwrap_err();
        assert_eq!(error.class(), Class::Damaged, "{error}");
        assert_eq!(storage.create("journal/2", "b".into()).await.unwrap(), Created::Exists);
        assert_eq!(
            fs::read_dir(root.path().join(TEMPORARY)).unwrap().count(),
            1,
            "only the leftover"
        );
    }

    #[tokio::test]
    async fn a_listing_is_in_the_order_of_the_keys_and_goes_on_after_a_given_one() {
        let (_root, storage) = storage();
        for key in ["b/2", "a/x", "b/1", "b-1", "b/10", "c"] {
            storage.create(key, key.to_owned().into()).await.unwrap();
        }
        assert_eq!(keys(&storage, "").await, ["a/x", "b-1", "b/1", "b/10", "b/2", "c"]);
        let rest = storage.list("b/", Some("b/1")).await.unwrap();
        assert_eq!(
            rest.iter().map(|e| (e.key.as_str(), e.size)).collect::<Vec<_>>(),
            [("b/10", 4), ("b/2", 3)]
        );
        assert!(keys(&storage, "absent/").await.is_empty());
    }

    #[tokio::test]
    async fn odd_keys_are_refused_before_the_file_system_sees_them() {
        let (_root, storage) = storage();
        for key in ["", "../x", "a/../../x", "/etc/x", ".tmp/x", "a//b", "a\0b"] {
            for class in [
                storage.create(key, Bytes::new()).await.unwrap_err().class(),
                storage.put(key, Bytes::new()).await.unwrap_err().class(),
                storage.get(key, 1).await.unwrap_err().class(),
                storage.delete(key).await.unwrap_err().class(),
                storage.list(&format!("{key}/"), None).await.unwrap_err().class(),
            ] {
                assert_eq!(class, Class::Refused, "{key:?}");
            }
        }
        assert_eq!(storage.list("journal", None).await.unwrap_err().class(), Class::Refused);
    }

    #[tokio::test]
    async fn an_object_above_the_limit_is_refused() {
        let (_root, storage) = storage();
        storage.create("repo", "12345".into()).await.unwrap();
        assert!(storage.get("repo", 5).await.unwrap().is_some());
        let error = storage.get("repo", 4).await.unwrap_err();
        assert!(matches!(error, StorageError::TooLarge { size: 5, limit: 4, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_missing_root_is_an_error_and_is_never_created() {
        let (root, _) = storage();
        let path = root.path().join("not-mounted");
        let storage = Storage::Directory(Directory::open(&path, nobody()));
        for error in [
            storage.create("journal/1", "a".into()).await.unwrap_err(),
            storage.put("beats/a", "a".into()).await.unwrap_err(),
            storage.get("repo", 1).await.unwrap_err(),
            storage.delete("repo").await.unwrap_err(),
            storage.list("", None).await.unwrap_err(),
            storage.list("journal/", None).await.unwrap_err(),
        ] {
            assert!(matches!(error, StorageError::Missing { .. }), "{error}");
            assert!(error.to_string().contains("not-mounted"), "{error}");
        }
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_last_key_of_a_probe_takes_its_folder_along() {
        let (root, storage) = storage();
        for key in ["probes/x/1", "probes/x/2"] {
            storage.create(key, "a".into()).await.unwrap();
        }
        storage.delete("probes/x/1").await.unwrap();
        assert!(root.path().join("probes/x").exists());
        storage.delete("probes/x/2").await.unwrap();
        assert!(!root.path().join("probes/x").exists());
        assert!(root.path().join("probes").exists());
    }
}
