//! From pages to packs: each object is selected, compared, cleaned if it must be, and sealed.
//!
//! Runs on a blocking thread between the LIST and the upload, with a bounded channel on either side,
//! so memory holds a few pages and one open pack a set, whatever the hub holds.

use super::BackupError;
use super::changes::{Changes, Content, Unlisted};
use crate::capture::candidates::{self, NamespaceLabels};
use crate::capture::clean;
use crate::capture::cut::{self, CutError};
use crate::capture::select::{KindRules, Verdict};
use crate::object::{Digest, Kind, ObjectKey, Set};
use crate::repository::keys::Keys;
use crate::repository::layout::FORMAT;
use crate::repository::pack::{Header, Line, ObjectLine, Sealed, Writer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What every pack of a run has in common.
#[derive(Clone)]
pub(super) struct RunHeader {
    pub(super) repository: String,
    pub(super) epoch: u64,
    pub(super) incarnation: u64,
    pub(super) revision: String,
}

/// A kind of which objects may be selected.
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) rules: KindRules,
    pub(super) keeps_status: bool,
}

pub(super) struct Sealer {
    keys: Arc<Keys>,
    header: RunHeader,
    namespace_labels: NamespaceLabels,
    changes: Changes,
    open: BTreeMap<Set, LevelWriter>,
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
        Self { keys, header, namespace_labels, changes, open: BTreeMap::new(), packs }
    }

    /// Takes one page of a kind.
    pub(super) fn page(&mut self, wanted: &Wanted, body: &[u8]) -> Result<(), BackupError> {
        cut::items(body, &wanted.kind)?.into_iter().try_for_each(|item| self.item(wanted, item))
    }

    fn item(&mut self, wanted: &Wanted, item: &RawValue) -> Result<(), BackupError> {
        let Wanted { kind, rules, keeps_status } = wanted;
        let unreadable = |source| CutError::Object { kind: kind.group_resource(), source };
        let head = clean::head(item).map_err(unreadable)?;
        // What is being deleted counts as deleted: it is not seen.
        if head.being_deleted {
            return Ok(());
        }
        let key = ObjectKey::new(&kind.group, &kind.resource, &head.namespace, &head.name)?;
        let candidate = candidates::candidate(kind, &head, &self.namespace_labels);
        let Verdict::In { set, rule: _ } = rules.decide(&candidate) else {
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

    fn write(&mut self, set: Set, line: Line<'_>) -> Result<(), BackupError> {
        let Self { keys, header, open, packs, .. } = self;
        let level = open
            .entry(set)
            .or_insert_with(|| LevelWriter::new(keys.clone(), header.clone(), set, packs.clone()));
        level.push(line)
    }

    /// Adds the tombstones and closes the last packs. Of kinds in `unlisted` nothing
    /// counts as deleted.
    pub(super) fn finish(&mut self, unlisted: &Unlisted) -> Result<(), BackupError> {
        for tombstone in self.changes.finish(unlisted) {
            self.write(tombstone.set, Line::Gone { key: tombstone.key, gone: tombstone.gone })?;
        }
        self.open.values_mut().try_for_each(LevelWriter::close)
    }

    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}

/// Seals the lines of one level into packs of bounded size and sends them on.
pub(super) struct LevelWriter {
    keys: Arc<Keys>,
    header: RunHeader,
    set: Set,
    open: Option<Writer>,
    /// Packs of this level that are sent on.
    closed: u32,
    packs: mpsc::Sender<(Set, Sealed)>,
}

impl LevelWriter {
    pub(super) fn new(
        keys: Arc<Keys>,
        header: RunHeader,
        set: Set,
        packs: mpsc::Sender<(Set, Sealed)>,
    ) -> Self {
        Self { keys, header, set, open: None, closed: 0, packs }
    }

    pub(super) fn push(&mut self, line: Line<'_>) -> Result<(), BackupError> {
        let writer = match &mut self.open {
            Some(writer) => writer,
            none => {
                let RunHeader { repository, epoch, incarnation: _, revision } = self.header.clone();
                let (set, index) = (self.set, self.closed);
                let header = Header { format: FORMAT, repository, epoch, set, index, revision };
                none.insert(Writer::new(&header, &self.keys).map_err(BackupError::Seal)?)
            }
        };
        writer.push(line).map_err(BackupError::Seal)?;
        if writer.is_full() { self.close() } else { Ok(()) }
    }

    /// Sends the last pack on.
    pub(super) fn close(&mut self) -> Result<(), BackupError> {
        let Some(writer) = self.open.take() else { return Ok(()) };
        self.closed += 1;
        let sealed = writer.finish().map_err(BackupError::Seal)?;
        self.packs.blocking_send((self.set, sealed)).map_err(|_| BackupError::Stopped)
    }
}
