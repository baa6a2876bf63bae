//! The repository: one bucket prefix or directory that holds one journal and its packs.

pub mod chain;
pub mod checkpoint;
pub mod contents;
pub mod drill;
pub mod journal;
pub mod keys;
pub mod layout;
pub mod ledger;
mod older;
pub mod pack;
pub mod packs;
pub mod probe;
pub mod record;
pub mod rotation;
mod settle;
pub mod storage;
pub mod verify;

use keys::Keys;
use std::sync::Arc;
use storage::Storage;

/// An opened repository, shared by all loops of a daemon.
pub struct Repository {
    pub storage: Storage,
    pub keys: Arc<Keys>,
    pub id: String,
    pub packs: packs::PackStore,
    /// Held for one refresh or one append, never across a backup or a restore.
    pub journal: tokio::sync::Mutex<journal::Journal>,
}
