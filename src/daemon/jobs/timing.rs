//! When each job is due.

use super::due::{Due, Passed};
use super::{Job, JobResult};
use crate::config::settings::Settings;
use crate::repository::Repository;
use crate::repository::chain::Backup;
use crate::repository::layout::{RECORD_LIMIT, journal_key};
use crate::status::pause::Pause;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a failed job, before it is tried again ahead of its schedule. Doubles with each further
/// failure: a backup that cannot work must not list the hub six times a minute.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Doublings of the wait: it grows to about five minutes.
const MAX_DOUBLINGS: u32 = 5;

pub(in crate::daemon) struct Timing {
    settings: Arc<Settings>,
    backup: Due,
    sync_at: Instant,
    /// A sync at once, also during a pause.
    sync_asked: bool,
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
        let schedule = &settings.schedule;
        let backup = Due::new(schedule.cron.clone(), schedule.jitter, schedule.timeout, now);
        Self {
            settings,
            backup,
            sync_at: monotonic,
            sync_asked: false,
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
    pub(in crate::daemon) fn opened(&mut self) {
        if self.settings.schedule.on_start {
            self.backup.want();
        }
    }

    pub(in crate::daemon) fn run_now(&mut self) {
        self.backup.ask();
        self.sync_asked = true;
    }

    /// Follows the clocks; to be called in every turn.
    pub(in crate::daemon) fn look(&mut self, now: Timestamp, monotonic: Instant) -> Passed {
        self.backup.look(now, monotonic)
    }

    /// One pause holds back whatever this hub does in its role: a term gives it one role.
    pub(in crate::daemon) fn pause(&mut self, pause: Pause, now: Timestamp, monotonic: Instant) {
        self.backup.pause(pause, now, monotonic);
    }

    pub(in crate::daemon) fn resume(&mut self, now: Timestamp) -> Option<Pause> {
        self.backup.resume(now)
    }

    pub(in crate::daemon) fn paused(&self) -> Option<&Pause> {
        self.backup.paused()
    }

    /// None: not before somebody asks for it.
    pub(in crate::daemon) fn next_backup(
        &self,
        now: Timestamp,
        monotonic: Instant,
    ) -> Option<Timestamp> {
        self.backup.next(now, monotonic)
    }

    /// `success`: the last one, or the term's begin.
    pub(in crate::daemon) fn backup_deadline(
        &mut self,
        success: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.backup.deadline(success, now)
    }

    pub(in crate::daemon) fn backup_is_due(&self, now: Timestamp, monotonic: Instant) -> bool {
        self.backup.is_due(now, monotonic)
    }

    pub(in crate::daemon) fn backup_begins(&mut self, now: Timestamp) {
        self.backup.begins(now, crate::clock::random());
    }

    /// A promotion that was asked for does not wait for a pause to end.
    pub(in crate::daemon) fn sync_is_due(&self, slot: u64, promoting: bool, now: Instant) -> bool {
        let allowed = promoting || self.paused().is_none();
        self.sync_asked || (allowed && (self.synced != Some(slot) || now >= self.sync_at))
    }

    pub(in crate::daemon) fn sync_begins(&mut self, slot: u64, now: Instant) {
        self.sync_asked = false;
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

    pub(in crate::daemon) fn ended(&mut self, job: Job, result: JobResult, monotonic: Instant) {
        if job == Job::Probe {
            if result == JobResult::Done {
                self.probed(monotonic);
            }
            return;
        }
        if job == Job::Drill {
            return;
        }
        let wait = RETRY_AFTER * 2u32.pow(self.failures.min(MAX_DOUBLINGS));
        self.failures = if result == JobResult::Failed { self.failures + 1 } else { 0 };
        match (job, result) {
            // After a promotion the first backup of the term comes at once, whatever the schedule says.
            (Job::Activation, JobResult::Done) => self.backup.ask(),
            (Job::Backup, JobResult::Done) => self.unswept = true,
            (_, JobResult::Done) | (Job::Probe | Job::Drill, _) => {}
            (Job::Activation, JobResult::Failed) => self.activation_at = monotonic + RETRY_AFTER,
            (Job::Backup, JobResult::Failed) => self.backup.failed(monotonic, wait),
            (Job::Sync, JobResult::Failed) => self.sync_at = self.sync_at.min(monotonic + wait),
        }
    }

    /// How long the control loop may rest when nothing wakes it.
    pub(in crate::daemon) fn rest(
        &self,
        poll: Duration,
        now: Timestamp,
        monotonic: Instant,
    ) -> Duration {
        let next = self.backup.next(now, monotonic).filter(|next| *next > now);
        let until = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        poll.min(until.unwrap_or(poll).max(Duration::from_millis(100)))
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
