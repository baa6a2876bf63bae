//! When each job is due.

use super::{Job, JobResult};
use crate::config::settings::Settings;
use crate::repository::Repository;
use crate::repository::chain::Backup;
use crate::repository::layout::{RECORD_LIMIT, journal_key};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a failed job, before it is tried again ahead of its schedule. Doubles with each further
/// failure: a backup that cannot work must not list the hub six times a minute.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Doublings of the wait: it grows to about five minutes.
const MAX_DOUBLINGS: u32 = 5;

pub(in crate::daemon) struct Timing {
    settings: Arc<Settings>,
    /// The next backup; `None` until the schedule was asked.
    backup_at: Timestamp,
    sync_at: Instant,
    /// The last backup that a sync was begun for.
    synced: Option<u64>,
    activation_at: Instant,
    probe_at: Instant,
    sweep_at: Instant,
    /// There was a backup since the last sweep.
    unswept: bool,
    /// Failures of the current job in a row.
    failures: u32,
    /// Newest usable backup: slot, id, and `Last-Modified` of its record.
    newest: Option<(u64, String, Option<Timestamp>)>,
}

impl Timing {
    pub(in crate::daemon) fn new(
        settings: Arc<Settings>,
        now: Timestamp,
        monotonic: Instant,
    ) -> Self {
        let backup_at = settings.schedule.cron.next_after(now);
        Self {
            settings,
            backup_at,
            sync_at: monotonic,
            synced: None,
            activation_at: monotonic,
            probe_at: monotonic,
            sweep_at: monotonic,
            unswept: false,
            failures: 0,
            newest: None,
        }
    }

    /// This process may write from now on: a first backup at once, if the configuration wants it.
    pub(in crate::daemon) fn opened(&mut self, now: Timestamp) {
        if self.settings.schedule.on_start {
            self.backup_at = now;
        }
    }

    pub(in crate::daemon) fn run_now(&mut self) {
        self.backup_at = Timestamp::MIN;
        self.synced = None;
    }

    pub(in crate::daemon) fn backup_at(&self) -> Timestamp {
        self.backup_at
    }

    /// The second scheduled time from now, plus the time that a backup may take: later than that no
    /// backup is on time.
    pub(in crate::daemon) fn backup_deadline(&self, after: Timestamp) -> Timestamp {
        let cron = &self.settings.schedule.cron;
        let second = cron.next_after(cron.next_after(after));
        second.checked_add(self.settings.schedule.timeout).unwrap_or(Timestamp::MAX)
    }

    pub(in crate::daemon) fn backup_is_due(&self, now: Timestamp) -> bool {
        now >= self.backup_at
    }

    /// Runs that were missed meanwhile are this one.
    pub(in crate::daemon) fn backup_begins(&mut self, now: Timestamp) {
        let next = self.settings.schedule.cron.next_after(now);
        self.backup_at = next.checked_add(self.jitter()).unwrap_or(next);
    }

    fn jitter(&self) -> SignedDuration {
        let limit = self.settings.schedule.jitter.as_millis().max(1);
        let milliseconds = crate::clock::random() % limit;
        SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or_default())
    }

    pub(in crate::daemon) fn sync_is_due(&self, slot: u64, now: Instant) -> bool {
        self.synced != Some(slot) || now >= self.sync_at
    }

    pub(in crate::daemon) fn sync_begins(&mut self, slot: u64, now: Instant) {
        self.synced = Some(slot);
        self.sync_at = now + self.settings.passive.sync_interval;
    }

    /// Whether to try to prove the fence, for the first time or again; asking counts as trying.
    pub(in crate::daemon) fn probe_is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.probe_at;
        if due {
            self.probe_at = now + self.settings.storage.probe_interval;
        }
        due
    }

    pub(in crate::daemon) fn probed(&mut self, now: Instant) {
        self.probe_at = now + self.settings.storage.race_interval;
    }

    /// Whether a sweep is due; asking counts as beginning it.
    pub(in crate::daemon) fn sweep_begins(&mut self, now: Instant) -> bool {
        let due = self.unswept && now >= self.sweep_at;
        if due {
            self.unswept = false;
            self.sweep_at = now + self.settings.retention.sweep_interval;
        }
        due
    }

    pub(in crate::daemon) fn activation_is_due(&self, now: Instant) -> bool {
        now >= self.activation_at
    }

    pub(in crate::daemon) fn ended(
        &mut self,
        job: Job,
        result: JobResult,
        now: Timestamp,
        monotonic: Instant,
    ) {
        if job == Job::Probe {
            if result == JobResult::Done {
                self.probed(monotonic);
            }
            return;
        }
        let wait = RETRY_AFTER * 2u32.pow(self.failures.min(MAX_DOUBLINGS));
        self.failures = if result == JobResult::Failed { self.failures + 1 } else { 0 };
        match (job, result) {
            // After a promotion the first backup of the term comes at once, whatever the schedule says.
            (Job::Activation, JobResult::Done) => self.backup_at = now,
            (Job::Backup, JobResult::Done) => self.unswept = true,
            (_, JobResult::Done) | (Job::Probe, _) => {}
            (Job::Activation, JobResult::Failed) => self.activation_at = monotonic + RETRY_AFTER,
            (Job::Backup, JobResult::Failed) => {
                self.backup_at = self.backup_at.min(now.checked_add(wait).unwrap_or(now));
            }
            (Job::Sync, JobResult::Failed) => self.sync_at = self.sync_at.min(monotonic + wait),
        }
    }

    /// How long the control loop may rest when nothing wakes it.
    pub(in crate::daemon) fn rest(&self, poll: Duration, now: Timestamp) -> Duration {
        let until = Duration::try_from(self.backup_at.duration_since(now)).unwrap_or(poll);
        poll.min(until.max(Duration::from_millis(100)))
    }

    /// Learns id and age of the newest usable backup; one request a backup.
    pub(in crate::daemon) async fn look_at_newest(
        &mut self,
        repository: &Repository,
        backup: &Backup,
    ) {
        let slot = backup.mark.slot;
        if self
            .newest
            .as_ref()
            .is_some_and(|(known, _, modified)| *known == slot && modified.is_some())
        {
            return;
        }
        let stored = repository.storage.get(&journal_key(slot), RECORD_LIMIT).await;
        let modified = stored.ok().flatten().map(|stored| stored.modified);
        self.newest = Some((slot, backup.id(), modified));
    }

    pub(in crate::daemon) fn newest_slot(&self) -> Option<u64> {
        self.newest.as_ref().map(|(slot, _, _)| *slot)
    }

    pub(in crate::daemon) fn newest_usable(&self) -> Option<String> {
        self.newest.as_ref().map(|(_, id, _)| id.clone())
    }

    pub(in crate::daemon) fn newest_modified(&self) -> Option<Timestamp> {
        self.newest.as_ref()?.2
    }
}
