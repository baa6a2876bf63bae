//! From pages to packs: each object is selected, compared, cleaned if it must be, and sealed.
//!
//! Runs on a blocking thread between the LIST and the upload, with a bounded channel on either side,
//! so memory holds a few pages and one open pack a set, whatever the hub holds.

use super::BackupError;
use super::changes::{Changes, Content};
use crate::capture::clean::{self, Head};
use crate::capture::cut;
use crate::capture::select::{Candidate, KindRules, Verdict};
use crate::object::{Digest, GroupResource, Kind, ObjectKey, Set};
use crate::repository::keys::Keys;
use crate::repository::layout::FORMAT;
use crate::repository::pack::{Header, Line, ObjectLine, Sealed, Writer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What every pack of a run has in common.
#[derive(Clone)]
pub(super) struct RunHeader {
    pub(super) repository: String,
    pub(super) epoch: u64,
    pub(super) revision: String,
}

/// A kind of which objects may be selected.
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) rules: KindRules,
    pub(super) keeps_status: bool,
}

/// Labels by namespace.
pub(super) type NamespaceLabels = HashMap<String, Vec<(String, String)>>;

pub(super) struct Sealer {
    keys: Arc<Keys>,
    header: RunHeader,
    namespace_labels: NamespaceLabels,
    changes: Changes,
    open: BTreeMap<Set, Writer>,
    finished: BTreeMap<Set, u32>,
    packs: mpsc::Sender<(Set, Sealed)>,
}

impl Sealer {
    pub(super) fn new(
        keys: Arc<Keys>,
        header: RunHeader,
        namespace_labels: NamespaceLabels,
        changes: Changes,
        packs: mpsc::Sender<(Set, Sealed)>,
    ) -> Self {
        Self {
            keys,
            header,
            namespace_labels,
            changes,
            open: BTreeMap::new(),
            finished: BTreeMap::new(),
            packs,
        }
    }

    /// Takes one page of a kind.
    pub(super) fn page(&mut self, wanted: &Wanted, body: &[u8]) -> Result<(), BackupError> {
        cut::items(body, &wanted.kind)?.into_iter().try_for_each(|item| self.item(wanted, item))
    }

    fn item(&mut self, wanted: &Wanted, item: &RawValue) -> Result<(), BackupError> {
        let Wanted { kind, rules, keeps_status } = wanted;
        let unreadable = |source| BackupError::Object { kind: kind.group_resource(), source };
        let head = clean::head(item).map_err(unreadable)?;
        // What is being deleted counts as deleted: it is not seen.
        if head.being_deleted {
            return Ok(());
        }
        let key = ObjectKey::new(&kind.group, &kind.resource, &head.namespace, &head.name)?;
        let Verdict::In { set, rule: _ } = rules.decide(&self.candidate(kind, &head)) else {
            self.changes.deselected(&key);
            return Ok(());
        };
        if self.changes.unchanged(&key, set, &kind.version, &head.uid, &head.resource_version) {
            return Ok(());
        }
        let cleaned = clean::clean(item, kind, *keeps_status).map_err(unreadable)?;
        let content = Content {
            version: kind.version.as_str().into(),
            uid: head.uid.as_ref().into(),
            resource_version: head.resource_version.as_ref().into(),
            digest: Digest::of(&cleaned),
        };
        if self.changes.content(&key, set, content) {
            let object: &RawValue = serde_json::from_slice(&cleaned).map_err(unreadable)?;
            self.write(
                set,
                Line::Object(ObjectLine {
                    key,
                    version: Cow::Borrowed(&kind.version),
                    uid: head.uid,
                    resource_version: head.resource_version,
                    object,
                }),
            )?;
        }
        Ok(())
    }

    fn candidate<'a>(&'a self, kind: &'a Kind, head: &'a Head<'a>) -> Candidate<'a> {
        Candidate {
            kind,
            namespace: &head.namespace,
            name: &head.name,
            labels: &head.labels,
            annotations: &head.annotations,
            namespace_labels: self
                .namespace_labels
                .get(&*head.namespace)
                .map_or(&[], Vec::as_slice),
            secret_type: head.r#type.as_deref(),
            controller_kind: head.controller_kind.as_deref(),
        }
    }

    fn write(&mut self, set: Set, line: Line<'_>) -> Result<(), BackupError> {
        let Self { keys, header, open, finished, .. } = self;
        let writer = match open.entry(set) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let RunHeader { repository, epoch, revision } = header.clone();
                let index = finished.get(&set).copied().unwrap_or_default();
                let header = Header { format: FORMAT, repository, epoch, set, index, revision };
                entry.insert(Writer::new(&header, keys).map_err(BackupError::Seal)?)
            }
        };
        writer.push(line).map_err(BackupError::Seal)?;
        if writer.is_full() { self.close(set) } else { Ok(()) }
    }

    fn close(&mut self, set: Set) -> Result<(), BackupError> {
        let Some(writer) = self.open.remove(&set) else { return Ok(()) };
        *self.finished.entry(set).or_default() += 1;
        let sealed = writer.finish().map_err(BackupError::Seal)?;
        self.packs.blocking_send((set, sealed)).map_err(|_| BackupError::Stopped)
    }

    /// Adds the tombstones and closes the last packs. Kinds in `failed` keep their objects.
    pub(super) fn finish(&mut self, failed: &BTreeSet<GroupResource>) -> Result<(), BackupError> {
        for tombstone in self.changes.finish(failed) {
            self.write(tombstone.set, Line::Gone { key: tombstone.key, gone: tombstone.gone })?;
        }
        Set::ALL.into_iter().try_for_each(|set| self.close(set))
    }

    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}
