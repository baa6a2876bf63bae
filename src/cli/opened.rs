//! A backup opened for a command: fetched, authenticated and counted as a whole, and its objects on
//! demand.

use super::Global;
use super::exit::{Code, Failure};
use super::progress;
use super::stored::Stored;
use crate::object::{GroupResource, ObjectKey};
use crate::repository::contents::Contents;
use crate::repository::packs::{Opened, PackStore, PacksError};
use crate::status::words::plural;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use tempfile::TempDir;

/// Reading of it blocks.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) packs: PackStore,
    pub(super) opened: Arc<Opened>,
    _cache: Arc<TempDir>,
}

/// By its id, its slot, or `latest`.
pub(super) async fn open(stored: &mut Stored, global: &Global, id: &str) -> Result<Open, Failure> {
    let backup = stored.find(id).await?.backup;
    let slot = backup.mark.slot;
    let (id, (packs, cache)) = (backup.id(), stored.packs()?);
    let count = plural(backup.commit.packs().count(), "pack", "packs");
    progress::say(global, &format!("opening {id}: {count}"));
    let opened = progress::follow(global, packs.tally(), packs.open(backup, None)).await;
    let opened = match opened {
        Err(PacksError::Missing { .. }) if stored.is_retired(slot).await? => {
            let message = format!("the backup {id} was retired while it was read");
            return Err(Failure::new(Code::Failed, message)
                .with_hint("what is left is shown by: understudy backup list"));
        }
        opened => opened?,
    };
    Ok(Open { packs, opened: Arc::new(opened), _cache: Arc::new(cache) })
}

impl Open {
    pub(super) fn id(&self) -> String {
        self.opened.backup.id()
    }

    pub(super) fn contents(&self) -> &Contents {
        &self.opened.contents
    }

    /// Hands the objects of these keys to `each`, pack by pack.
    pub(super) fn read<'a>(
        &self,
        keys: impl Iterator<Item = &'a ObjectKey>,
        mut each: impl FnMut(&'a ObjectKey, &RawValue),
    ) -> Result<(), PacksError> {
        let mut by_pack: BTreeMap<u32, HashSet<&'a ObjectKey>> = BTreeMap::new();
        for key in keys {
            if let Some(entry) = self.contents().entries.get(key) {
                by_pack.entry(entry.pack).or_default().insert(key);
            }
        }
        for (pack, mut wanted) in by_pack {
            self.packs.objects(&self.opened, pack, |key, raw| {
                if let Some(key) = wanted.take(&key) {
                    each(key, raw);
                }
                if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        Ok(())
    }

    /// What the kinds of the backup are called in the singular: only the objects themselves know, so
    /// one object of each is read.
    pub(super) fn kind_names(&self) -> Result<Vec<(GroupResource, String)>, PacksError> {
        #[derive(serde::Deserialize)]
        struct Head {
            kind: String,
        }
        let keys = self.contents().entries.keys();
        let samples: HashMap<GroupResource, &ObjectKey> =
            keys.map(|key| (key.group_resource(), key)).collect();
        let mut names = vec![];
        self.read(samples.into_values(), |key, raw| {
            if let Ok(head) = serde_json::from_str::<Head>(raw.get()) {
                names.push((key.group_resource(), head.kind));
            }
        })?;
        Ok(names)
    }
}
