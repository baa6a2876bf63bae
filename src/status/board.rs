//! The one snapshot that all loops of a daemon write into and everything shown is read from.

use super::Snapshot;
use jiff::Timestamp;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Shared by all loops of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Board {
    snapshot: Arc<Mutex<Snapshot>>,
    changed: watch::Sender<u64>,
}

impl Board {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot: Arc::new(Mutex::new(snapshot)), changed: watch::Sender::new(0) }
    }

    pub fn read(&self) -> Snapshot {
        self.lock().clone()
    }

    pub fn update<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        value
    }

    /// A loop's sign of life. Long work ticks between its steps, or `/livez` takes it for stalled.
    pub fn tick(&self, name: &str, now: Timestamp) {
        self.update(|snapshot| snapshot.loops.insert(name.to_owned(), now));
    }

    /// Wakes when anything was updated.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
