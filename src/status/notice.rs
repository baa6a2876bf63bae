//! Pure: what changed between two snapshots and is worth telling: the Events of the `Hub` resource
//! and, later, notifications.
//!
//! Only changes of state are told, so a storage that is away for an hour is told once, and so is its
//! return. Routine successes are silent.

use super::problem::{Reason, problems};
use super::words::span_of;
use super::{BackupSummary, Outcome, Role, Snapshot};
use jiff::Timestamp;

/// The closed list of Event reasons, in the past tense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventReason {
    ActivationIncomplete,
    ActivationRestored,
    BackupDamaged,
    BackupFailed,
    BackupOverdue,
    BackupPartial,
    BackupPaused,
    BackupRecovered,
    BackupRefused,
    BackupResumed,
    BackupSuspect,
    DrillCompleted,
    DrillFailed,
    Fenced,
    HandedOver,
    ImportCredentialExpiring,
    PrimaryReturned,
    PrimarySilent,
    PromotionCompleted,
    PromotionFailed,
    PromotionRefused,
    PromotionRequestStale,
    PromotionRequested,
    PromotionStarted,
    PruneHeld,
    RoleDiffersFromConfig,
    StorageRecovered,
    StorageUnavailable,
    SyncApplied,
    SyncFailed,
    SyncPaused,
    SyncResumed,
    SyncShrinkRefused,
    WriterConflictDetected,
}

impl EventReason {
    pub fn word(self) -> String {
        format!("{self:?}")
    }

    /// `Warning` in `kubectl describe`.
    pub fn warns(self) -> bool {
        match self {
            Self::ActivationIncomplete
            | Self::BackupDamaged
            | Self::BackupFailed
            | Self::BackupOverdue
            | Self::BackupPartial
            | Self::BackupPaused
            | Self::BackupRefused
            | Self::BackupSuspect
            | Self::DrillFailed
            | Self::Fenced
            | Self::HandedOver
            | Self::ImportCredentialExpiring
            | Self::PrimarySilent
            | Self::PromotionFailed
            | Self::PromotionRefused
            | Self::PromotionRequestStale
            | Self::PruneHeld
            | Self::StorageUnavailable
            | Self::SyncFailed
            | Self::SyncPaused
            | Self::SyncShrinkRefused
            | Self::WriterConflictDetected => true,
            Self::ActivationRestored
            | Self::BackupRecovered
            | Self::BackupResumed
            | Self::DrillCompleted
            | Self::PrimaryReturned
            | Self::PromotionCompleted
            | Self::PromotionRequested
            | Self::PromotionStarted
            | Self::RoleDiffersFromConfig
            | Self::StorageRecovered
            | Self::SyncApplied
            | Self::SyncResumed => false,
        }
    }

    /// The field `action` of an Event: which stage it is about.
    pub fn action(self) -> &'static str {
        match self {
            Self::BackupFailed
            | Self::BackupOverdue
            | Self::BackupPartial
            | Self::BackupPaused
            | Self::BackupRecovered
            | Self::BackupRefused
            | Self::BackupResumed
            | Self::BackupSuspect => "Backup",
            Self::BackupDamaged
            | Self::SyncApplied
            | Self::SyncFailed
            | Self::SyncPaused
            | Self::SyncResumed
            | Self::SyncShrinkRefused
            | Self::PruneHeld => "Sync",
            Self::ActivationIncomplete
            | Self::ActivationRestored
            | Self::DrillCompleted
            | Self::DrillFailed
            | Self::HandedOver
            | Self::PromotionCompleted
            | Self::PromotionFailed
            | Self::PromotionRefused
            | Self::PromotionRequestStale
            | Self::PromotionRequested
            | Self::PromotionStarted => "Promote",
            Self::Fenced
            | Self::ImportCredentialExpiring
            | Self::PrimaryReturned
            | Self::PrimarySilent
            | Self::RoleDiffersFromConfig
            | Self::StorageRecovered
            | Self::StorageUnavailable
            | Self::WriterConflictDetected => "Watch",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub reason: EventReason,
    pub note: String,
}

/// Requests for a promotion are told by the loop that answers them; everything else is seen here.
pub fn notices(old: &Snapshot, new: &Snapshot, now: Timestamp) -> Vec<Notice> {
    let mut told = began(old, new, now);
    told.extend(ended(old, new));
    told.extend(paused(old, new, now));
    told.extend(moved(old, new));
    told.extend(synced(old, new));
    told.extend(drilled(old, new));
    told
}

/// The problems whose beginning is an Event. The others are seen in the conditions.
const TOLD: [(Reason, EventReason); 18] = [
    (Reason::ActivationIncomplete, EventReason::ActivationIncomplete),
    (Reason::BackupDamaged, EventReason::BackupDamaged),
    (Reason::BackupFailed, EventReason::BackupFailed),
    (Reason::BackupOverdue, EventReason::BackupOverdue),
    (Reason::BackupPartial, EventReason::BackupPartial),
    (Reason::BackupSuspect, EventReason::BackupSuspect),
    (Reason::Fenced, EventReason::Fenced),
    (Reason::HandedOver, EventReason::HandedOver),
    (Reason::ImportCredentialExpiring, EventReason::ImportCredentialExpiring),
    (Reason::PrimarySilent, EventReason::PrimarySilent),
    (Reason::PruneHeld, EventReason::PruneHeld),
    (Reason::ShrinkRefused, EventReason::SyncShrinkRefused),
    (Reason::StorageNotAtomic, EventReason::BackupRefused),
    (Reason::StorageUnavailable, EventReason::StorageUnavailable),
    (Reason::SyncFailed, EventReason::SyncFailed),
    (Reason::SyncOverdue, EventReason::SyncFailed),
    (Reason::VerifyDamaged, EventReason::BackupDamaged),
    (Reason::WriterConflict, EventReason::WriterConflictDetected),
];

/// Problems that were not there before.
fn began(old: &Snapshot, new: &Snapshot, now: Timestamp) -> Vec<Notice> {
    let known: Vec<Reason> = problems(old, now).iter().map(|problem| problem.reason).collect();
    problems(new, now)
        .into_iter()
        .filter(|problem| !known.contains(&problem.reason))
        .filter(|problem| {
            problem.reason != Reason::BackupPartial || new.role == Some(Role::Primary)
        })
        .filter_map(|problem| {
            let (_, reason) = TOLD.iter().find(|(begun, _)| *begun == problem.reason)?;
            Some(Notice { reason: *reason, note: problem.message })
        })
        .collect()
}

fn ended(old: &Snapshot, new: &Snapshot) -> Vec<Notice> {
    let mut told = Vec::new();
    if old.storage.up == Some(false) && new.storage.up == Some(true) {
        let note = format!("{} answers again", new.storage.location);
        told.push(Notice { reason: EventReason::StorageRecovered, note });
    }
    let failed = |snapshot: &Snapshot| snapshot.backup.last_outcome == Some(Outcome::Failed);
    if failed(old) && new.backup.last_outcome == Some(Outcome::Success) {
        let note = new.newest.as_ref().map_or(String::new(), |n| format!("backup {}", n.id));
        told.push(Notice { reason: EventReason::BackupRecovered, note });
    }
    let suspect = |newest: &&BackupSummary| newest.suspect.is_some();
    if new.role == Some(Role::Primary)
        && old.newest.as_ref().is_some_and(|newest| suspect(&newest))
        && let Some(newest) = new.newest.as_ref().filter(|newest| !suspect(newest))
    {
        let note = format!("standbys may apply backup {}", newest.id);
        told.push(Notice { reason: EventReason::BackupRecovered, note });
    }
    let silent = |snapshot: &Snapshot| snapshot.primary_peer().is_some_and(|peer| peer.silent);
    if silent(old)
        && let Some(peer) = new.primary_peer().filter(|peer| !peer.silent)
        && new.role == Some(Role::Passive)
    {
        let note = format!("{} sends heartbeats again", peer.hub);
        told.push(Notice { reason: EventReason::PrimaryReturned, note });
    }
    told
}

/// A pause that an earlier daemon has told of is no news; its end is, whoever sees it.
fn paused(old: &Snapshot, new: &Snapshot, now: Timestamp) -> Option<Notice> {
    let (paused, resumed) = match new.role? {
        Role::Primary => (EventReason::BackupPaused, EventReason::BackupResumed),
        Role::Passive => (EventReason::SyncPaused, EventReason::SyncResumed),
        Role::Promoting | Role::Fenced => return None,
    };
    if old.pause == new.pause {
        return None;
    }
    Some(match super::pause::problem(new, now) {
        Some(problem) => Notice { reason: paused, note: problem.message },
        None => Notice { reason: resumed, note: "the pause is over".to_owned() },
    })
}

/// Changes of the role, as far as they are not problems.
fn moved(old: &Snapshot, new: &Snapshot) -> Vec<Notice> {
    let mut told = Vec::new();
    let facts = &new.promotion;
    // A short promotion may begin and end between two looks.
    let promoted = old.role == Some(Role::Passive) && new.role == Some(Role::Primary);
    if promoted || (old.role != new.role && new.role == Some(Role::Promoting)) {
        let by = facts.trigger.as_deref().unwrap_or("an unknown trigger");
        let note = format!("{} is being promoted, asked for by {by}", new.hub);
        told.push(Notice { reason: EventReason::PromotionStarted, note });
    }
    if promoted || (old.role == Some(Role::Promoting) && new.role == Some(Role::Primary)) {
        let base = facts.base.as_deref().unwrap_or("an unknown backup");
        let note = format!("{} is primary with epoch {}, from {base}", new.hub, new.epoch);
        told.push(Notice { reason: EventReason::PromotionCompleted, note });
    }
    if old.role == Some(Role::Promoting) && new.role == Some(Role::Passive) {
        let note = format!("{} stays passive", new.hub);
        told.push(Notice { reason: EventReason::PromotionFailed, note });
    }
    let activated = |phase: &Option<String>| phase.as_deref() == Some("Activated");
    if activated(&facts.phase) && !activated(&old.promotion.phase) {
        let note = format!("{} activated, {} failed", facts.activated, facts.failed.len());
        told.push(Notice { reason: EventReason::ActivationRestored, note });
    }
    if old.role.is_none()
        && let Some(role @ (Role::Primary | Role::Passive)) = new.role
        && role.name() != configured(new)
    {
        let note =
            format!("the journal says {}, the configuration {}", role.name(), configured(new));
        told.push(Notice { reason: EventReason::RoleDiffersFromConfig, note });
    }
    told
}

fn configured(snapshot: &Snapshot) -> &'static str {
    use crate::config::settings::InitialRole;
    match snapshot.configured_role {
        InitialRole::Primary => Role::Primary.name(),
        InitialRole::Passive => Role::Passive.name(),
    }
}

fn synced(old: &Snapshot, new: &Snapshot) -> Option<Notice> {
    let held = |snapshot: &Snapshot| snapshot.sync.restored.as_ref().map(|held| held.id.clone());
    let id = held(new)?;
    let applied = new.role == Some(Role::Passive)
        && new.sync.last_outcome == Some(Outcome::Changed)
        // The first look at what an earlier daemon restored is not news.
        && old.role.is_some()
        && held(old).as_ref() != Some(&id);
    applied.then(|| {
        let changed = new.runs.iter().find(|run| run.what == "sync").map_or(0, |run| run.changed);
        Notice { reason: EventReason::SyncApplied, note: format!("backup {id}, {changed} changed") }
    })
}

/// Each that ended, also a second one that found the same. What an earlier daemon has left is no news.
fn drilled(old: &Snapshot, new: &Snapshot) -> Option<Notice> {
    let last = new.drill.last.as_ref().filter(|last| last.at >= new.started_at)?;
    let is_new = old.drill.last.as_ref().is_none_or(|before| before.at != last.at);
    let completed = last.succeeded();
    let reason = if completed { EventReason::DrillCompleted } else { EventReason::DrillFailed };
    let note = format!("{} in {}", super::drill::told(last), span_of(last.seconds));
    is_new.then_some(Notice { reason, note })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, now};
    use super::*;

    fn check(old: &Snapshot, new: &Snapshot, expected: &[&str]) {
        let told = notices(old, new, now());
        let words: Vec<String> = told.iter().map(|notice| notice.reason.word()).collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn a_state_is_told_when_it_begins_and_when_it_ends() {
        let well = samples::passive();
        let mut away = well.clone();
        away.storage.up = Some(false);
        check(&well, &well, &[]);
        check(&well, &away, &["StorageUnavailable"]);
        check(&away, &away, &[]);
        check(&away, &well, &["StorageRecovered"]);
        check(&well, &samples::abandoned(), &["PrimarySilent"]);
        check(&samples::abandoned(), &well, &["PrimaryReturned"]);
    }

    #[test]
    fn a_failover_is_told_step_by_step() {
        let (before, running) = (samples::abandoned(), samples::promoting());
        let mut activated = running.clone();
        activated.promotion.phase = Some("Activated".to_owned());
        let mut after = samples::primary();
        after.hub = running.hub.clone();
        check(&before, &running, &["PromotionStarted"]);
        check(&running, &activated, &["ActivationRestored"]);
        check(&activated, &after, &["PromotionCompleted"]);
        check(&samples::primary(), &samples::fenced(), &["Fenced"]);
    }

    #[test]
    fn a_backup_that_works_again_is_news_and_one_that_still_works_is_not() {
        let well = samples::primary();
        let mut failed = well.clone();
        failed.backup.last_outcome = Some(Outcome::Failed);
        check(&well, &failed, &["BackupFailed"]);
        check(&failed, &well, &["BackupRecovered"]);
        check(&well, &well, &[]);
    }

    #[test]
    fn a_suspect_backup_is_told_on_both_hubs_and_its_end_on_the_primary() {
        let (first, refused) = (samples::primary(), samples::shrunk(samples::passive()));
        let (lost, mut second) = (samples::shrunk(first.clone()), refused.clone());
        second.newest = second.in_force.take();
        check(&first, &lost, &["BackupSuspect"]);
        check(&lost, &lost, &[]);
        check(&lost, &first, &["BackupRecovered"]);
        check(&second, &refused, &["SyncShrinkRefused"]);
    }

    #[test]
    fn each_drill_is_told_and_those_of_earlier_daemons_are_not() {
        let drilled = |at, failed: &[(&str, u64)]| {
            let mut snapshot = samples::passive();
            let last = snapshot.drill.last.as_mut().unwrap();
            last.at = at;
            last.failed = failed.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect();
            snapshot
        };
        let (well, denied) = (samples::passive(), [("x.io", 1)]);
        check(&samples::starting(), &well, &[]);
        check(&well, &drilled(samples::ago(60), &[]), &["DrillCompleted"]);
        check(&well, &drilled(samples::ago(60), &denied), &["DrillFailed"]);
        let (first, second) = (samples::ago(60), samples::ago(10));
        check(&drilled(first, &denied), &drilled(second, &denied), &["DrillFailed"]);
        check(&drilled(second, &denied), &drilled(second, &denied), &[]);
        check(&well, &drilled(samples::ago(8000), &[]), &[]);
    }

    #[test]
    fn a_restart_is_no_news() {
        check(&samples::starting(), &samples::passive(), &[]);
    }

    #[test]
    fn a_pause_is_told_when_it_begins_changes_and_ends() {
        use super::super::samples::ago;
        let pause = |since| {
            let reason = "maintenance".to_owned();
            Some(crate::status::pause::Pause { since, until: None, reason, epoch: 7 })
        };
        for (running, began, ended) in [
            (samples::primary(), "BackupPaused", "BackupResumed"),
            (samples::passive(), "SyncPaused", "SyncResumed"),
        ] {
            let paused = Snapshot { pause: pause(ago(9)), ..running.clone() };
            check(&running, &paused, &[began]);
            check(&paused, &paused, &[]);
            check(&paused, &Snapshot { pause: pause(ago(1)), ..running.clone() }, &[began]);
            check(&paused, &running, &[ended]);
            let remembered = Snapshot { pause: pause(ago(9)), ..samples::starting() };
            check(&remembered, &Snapshot { pause: pause(ago(9)), ..running.clone() }, &[]);
        }
        let promoted = Snapshot { pause: pause(ago(9)), ..samples::passive() };
        check(&promoted, &samples::promoting(), &["PromotionStarted"]);
    }
}
