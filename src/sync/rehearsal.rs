//! What a promotion would write is tried on this hub while there is time to mend something: the
//! activation set, and what wakes, is sent with `dryRun=All` after a sync.
//!
//! At first and at every full check all of it, else what changed and what failed before. Nothing is
//! written, so a promotion that comes between drops what is in flight.

use super::{Standby, SyncError, no_guard};
use crate::capture::discovery;
use crate::clock;
use crate::repository::packs::Opened;
use crate::restore::rehearsal::{Extent, Rehearsal, Tried, rehearsal};
use crate::restore::{self, Desired, How, Kinds, Pruning, Restored, Run, Scope};
use crate::retry;
use crate::status::RehearsalFacts;
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A webhook that hangs must not keep the standby from following. What was taken until then is not sent
/// again by the next one. Enough for 100,000 objects.
const AT_MOST: Duration = Duration::from_mins(1);

/// What is to be tried.
pub(super) struct Trial<'t> {
    pub(super) opened: &'t Arc<Opened>,
    pub(super) restored: &'t Restored,
    pub(super) extent: Extent,
    /// Contents that need not be tried again.
    pub(super) before: &'t Tried,
    pub(super) at_most: Duration,
}

/// What was tried.
pub(super) struct Attempt {
    pub(super) rehearsal: Rehearsal,
    /// Why not all of it.
    pub(super) stopped: Option<String>,
    pub(super) planning: Duration,
    pub(super) trying: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// 8 bytes an object.
    tried: Tried,
    /// The full check since which it was tried.
    checked: Option<Instant>,
    /// The backup of which nothing is left to try.
    done: Option<u64>,
    facts: RehearsalFacts,
}

impl Standby {
    /// Tries what the last run left untried. None: nothing was, or a promotion came between.
    pub async fn rehearse(&mut self, cancel: &CancellationToken) -> Option<RehearsalFacts> {
        let (opened, restored) = (self.opened.as_ref()?, self.restored.as_ref()?);
        let slot = opened.backup.mark.slot;
        let whole = self.rehearsal.checked != self.checked;
        if self.rehearsal.done == Some(slot) && !whole {
            return None;
        }
        let nothing = Tried::default();
        let before = if whole { &nothing } else { &self.rehearsal.tried };
        let extent = Extent::WhatWaits;
        let trial = Trial { opened, restored, extent, before, at_most: AT_MOST };
        let tried = cancel.run_until_cancelled(self.try_on_hub(trial, cancel)).await?;

        let mut facts = self.rehearsal.facts.clone();
        facts.last_attempt_at = Some(clock::now());
        facts.backup = Some(opened.backup.id());
        match tried {
            Ok(Attempt { rehearsal, stopped, .. }) => {
                show(&mut facts, &rehearsal, stopped);
                self.rehearsal.tried = rehearsal.tried;
                self.rehearsal.checked = self.checked;
            }
            Err(error) => facts.last_error = Some(retry::chain(&error)),
        }
        if facts.is_clean() {
            facts.last_success_at = facts.last_attempt_at;
        }
        self.rehearsal.done = facts.is_clean().then_some(slot);
        self.tell(&facts);
        self.rehearsal.facts = facts.clone();
        Some(facts)
    }

    pub(super) async fn try_on_hub(
        &self,
        trial: Trial<'_>,
        cancel: &CancellationToken,
    ) -> Result<Attempt, SyncError> {
        let Trial { opened, restored, extent, before, at_most } = trial;
        let begun = clock::monotonic();
        let kinds = discovery::discover(&self.client).await.map_err(SyncError::Discovery)?.kinds;
        let kinds = Kinds::new(kinds);
        let desired = Desired {
            contents: &opened.contents,
            restored,
            policy: &self.policy,
            kinds: &kinds,
            scope: Scope::Activation { epoch: opened.backup.epoch + 1 },
            pruning: Pruning {
                enabled: false,
                max_deletes: 0,
                max_shrink: 0.0,
                complete: &HashSet::new(),
                gone: &HashMap::new(),
                released: &[],
            },
        };
        let mut rehearsal = rehearsal(&desired, extent, before);
        let checked = restore::check(std::mem::take(&mut rehearsal.plan), &desired)
            .map_err(|violations| SyncError::Check(violations.0))?;
        let planned = clock::monotonic();
        let cancel = cancel.child_token();
        let run = Run {
            how: How::Sync,
            client: &self.client,
            contents: &opened.contents,
            kinds: &kinds,
            policy: &self.policy,
            max_in_flight: self.settings.kubernetes.max_in_flight,
            dry_run: true,
            cancel: &cancel,
            guard: &no_guard,
            source: self.source(opened),
            applied: Some(self.applied(opened)),
            tally: self.packs.tally(),
        };
        // A copy: what stands on the hub does not change.
        let mut after = restored.clone();
        let (report, late) = {
            let mut executed = pin!(restore::execute(&run, &checked, &mut after));
            if let Ok(report) = tokio::time::timeout(at_most, &mut executed).await {
                (report, false)
            } else {
                cancel.cancel();
                (executed.await, true)
            }
        };
        let late = late.then(|| format!("{} were not enough", humantime::format_duration(at_most)));
        let stopped = late.or_else(|| report.stopped.clone());
        rehearsal.learn(checked.plan(), &desired, &after, &report);
        let (planning, trying) = (planned - begun, clock::monotonic() - planned);
        Ok(Attempt { rehearsal, stopped, planning, trying })
    }

    /// Names stand in the log once, not after every sync.
    fn tell(&self, facts: &RehearsalFacts) {
        let before = &self.rehearsal.facts;
        let (tried, failed, untried) = (facts.tried, facts.failed_objects(), facts.untried);
        tracing::info!(tried, failed, untried, error = facts.last_error, "activation rehearsed");
        for refused in facts.named.iter().filter(|named| !before.named.contains(named)) {
            tracing::warn!(refused, "a promotion could not write an object");
        }
    }
}

fn show(facts: &mut RehearsalFacts, rehearsal: &Rehearsal, stopped: Option<String>) {
    let Rehearsal { plan: _, tried, untried, failed, named } = rehearsal;
    facts.failed = failed.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
    facts.named = named.iter().map(|item| format!("{}: {}", item.key, item.reason)).collect();
    facts.tried = tried.len() as u64 + facts.failed_objects();
    facts.untried = *untried;
    facts.last_error = stopped;
}
