//! Pure: the kinds that a hub serves, found by plural or by kind.

use crate::object::{Kind, ObjectKey};
use std::collections::{BTreeSet, HashMap};

/// Built once a run from discovery.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    all: Vec<Kind>,
    /// group → resource → index
    by_resource: HashMap<String, HashMap<String, usize>>,
    /// group → kind → index
    by_kind: HashMap<String, HashMap<String, usize>>,
    /// Groups that the hub announces and does not describe.
    unread: BTreeSet<String>,
}

impl Kinds {
    /// Of a kind that is given at several versions the first counts.
    pub fn new(kinds: Vec<Kind>) -> Self {
        let mut index = Self::default();
        for (position, kind) in kinds.iter().enumerate() {
            let group = index.by_resource.entry(kind.group.clone()).or_default();
            group.entry(kind.resource.clone()).or_insert(position);
            let group = index.by_kind.entry(kind.group.clone()).or_default();
            group.entry(kind.kind.clone()).or_insert(position);
        }
        index.all = kinds;
        index
    }

    /// What these groups hold nobody knows.
    #[must_use]
    pub fn lacking(self, unread: BTreeSet<String>) -> Self {
        Self { unread, ..self }
    }

    pub fn unread(&self) -> &BTreeSet<String> {
        &self.unread
    }

    pub fn all(&self) -> &[Kind] {
        &self.all
    }

    pub fn of(&self, key: &ObjectKey) -> Option<&Kind> {
        self.resource(key.group(), key.resource())
    }

    pub fn resource(&self, group: &str, resource: &str) -> Option<&Kind> {
        Some(&self.all[*self.by_resource.get(group)?.get(resource)?])
    }

    pub fn kind(&self, group: &str, kind: &str) -> Option<&Kind> {
        Some(&self.all[*self.by_kind.get(group)?.get(kind)?])
    }
}
