//! Pure: what a restore did, as numbers and as names of what did not work.

use super::prune::Held;
use crate::object::{GroupResource, ObjectKey, Set};
use std::collections::BTreeMap;
use std::fmt;

/// Names kept of each sort; the counts are always complete.
pub const MAX_NAMED: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Done {
    Created,
    Updated,
    Adopted,
    /// Nothing had to be written.
    Unchanged,
    /// Exists here, is not ours, stays as it is.
    Kept,
    Skipped,
    Refused,
    Failed,
    Deleted,
    Unlabelled,
    /// Left the backup and stays here nevertheless, for the reason in the plan.
    Left,
}

impl Done {
    pub fn name(self) -> &'static str {
        match self {
            Done::Created => "created",
            Done::Updated => "updated",
            Done::Adopted => "adopted",
            Done::Unchanged => "unchanged",
            Done::Kept => "kept",
            Done::Skipped => "skipped",
            Done::Refused => "refused",
            Done::Failed => "failed",
            Done::Deleted => "deleted",
            Done::Unlabelled => "unlabelled",
            Done::Left => "left",
        }
    }
}

/// Never holds content: of a Secret only its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemError {
    pub key: ObjectKey,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub plan: String,
    pub deletions: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By set (None: the object is not in the backup) and outcome.
    pub counts: BTreeMap<(Option<Set>, Done), usize>,
    /// What did not work and is tried again by the next run.
    pub failed: Vec<ItemError>,
    /// What this hub does not accept, and objects of others that stand in the way.
    pub refused: Vec<ItemError>,
    /// Deletions that were not done, with the reason.
    pub held: Vec<String>,
    /// Objects of kinds that this hub does not serve: written as soon as it does.
    pub waiting: BTreeMap<GroupResource, usize>,
    /// More deletions than allowed: none of them was done.
    pub held_plan: Option<Box<Held>>,
    /// Deleted, and still there at the end of the run: finalizers keep them.
    pub going: Vec<ObjectKey>,
    /// The deletions that an operator has released; how many were done, `counts` tells.
    pub released: Option<Box<Released>>,
    /// Why the run ended before its end. None: it went through.
    pub stopped: Option<String>,
    /// POST, PUT, PATCH and DELETE requests sent.
    pub mutations: u64,
}

impl Report {
    pub fn count(&self, done: Done) -> usize {
        self.counts.iter().filter(|((_, found), _)| *found == done).map(|(_, count)| count).sum()
    }

    /// The hub holds what the backup holds, as far as this hub accepts it.
    pub fn is_complete(&self) -> bool {
        self.stopped.is_none() && self.count(Done::Failed) == 0
    }

    pub(super) fn add(&mut self, set: Option<Set>, done: Done, count: usize) {
        if count > 0 {
            *self.counts.entry((set, done)).or_default() += count;
        }
    }

    pub(super) fn fail(&mut self, set: Option<Set>, key: ObjectKey, reason: String) {
        self.add(set, Done::Failed, 1);
        if self.failed.len() < MAX_NAMED {
            self.failed.push(ItemError { key, reason });
        }
    }

    pub(super) fn refuse(&mut self, set: Option<Set>, done: Done, key: ObjectKey, reason: String) {
        self.add(set, done, 1);
        self.name_refused(key, reason);
    }

    pub(super) fn name_refused(&mut self, key: ObjectKey, reason: String) {
        if self.refused.len() < MAX_NAMED {
            self.refused.push(ItemError { key, reason });
        }
    }

    pub(super) fn hold(&mut self, why: String) {
        if self.held.len() < MAX_NAMED {
            self.held.push(why);
        }
    }
}

/// `created 12, unchanged 340, failed 1`
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut totals: BTreeMap<Done, usize> = BTreeMap::new();
        for ((_, done), count) in &self.counts {
            *totals.entry(*done).or_default() += count;
        }
        let totals: Vec<String> =
            totals.iter().map(|(done, count)| format!("{} {count}", done.name())).collect();
        f.write_str(if totals.is_empty() { "nothing to do" } else { "" })?;
        f.write_str(&totals.join(", "))
    }
}
