//! Pure: the conditions of the `Hub` resource, in the shape of KEP-1623.
//!
//! All of them stand there from the first write, so that `kubectl wait` never waits for a type that
//! does not exist; what does not apply to the role is `Unknown` and says so. Status and reason come
//! from the list of problems, so conditions and verdict cannot disagree.

use super::problem::{Problem, Reason, Severity, problems};
use super::words::clock;
use super::{Role, Snapshot};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    True,
    False,
    Unknown,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::True => "True",
            State::False => "False",
            State::Unknown => "Unknown",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Type {
    /// The summary: nothing critical.
    Ready,
    StorageAvailable,
    /// Of a primary.
    BackupCurrent,
    /// Of a passive hub.
    Synced,
    /// Of a passive hub: a promotion would be accepted if the primary were silent.
    Promotable,
    PrimaryAlive,
    /// What is stored was read again and is sound.
    Verified,
    KeysAvailable,
    ConfigValid,
    /// Normal: False.
    WriterConflict,
    /// Normal: False.
    Promoting,
}

impl Type {
    pub const ALL: [Type; 11] = [
        Type::Ready,
        Type::StorageAvailable,
        Type::BackupCurrent,
        Type::Synced,
        Type::Promotable,
        Type::PrimaryAlive,
        Type::Verified,
        Type::KeysAvailable,
        Type::ConfigValid,
        Type::WriterConflict,
        Type::Promoting,
    ];

    pub fn word(self) -> String {
        format!("{self:?}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: Type,
    pub status: State,
    pub reason: Reason,
    pub message: String,
}

/// One of each type, in the order of [`Type::ALL`].
pub fn conditions(snapshot: &Snapshot, now: Timestamp) -> Vec<Condition> {
    let problems = problems(snapshot, now);
    Type::ALL
        .into_iter()
        .map(|kind| {
            let (status, reason, message) = match kind {
                Type::Ready => ready(snapshot, &problems),
                Type::StorageAvailable => storage(snapshot, &problems),
                Type::BackupCurrent => backup_current(snapshot, &problems, now),
                Type::Synced => synced(snapshot, &problems, now),
                Type::Promotable => promotable(snapshot, &problems),
                Type::PrimaryAlive => primary_alive(snapshot, now),
                Type::Verified => verified(snapshot, &problems, now),
                Type::KeysAvailable => keys(snapshot, &problems),
                Type::ConfigValid => or_problem(&problems, &[Reason::ConfigRejected], || {
                    (State::True, Reason::ConfigValid, "the running settings are the file's".into())
                }),
                Type::WriterConflict => match &snapshot.writer_conflict {
                    Some(conflict) => (State::True, Reason::WriterConflict, conflict.clone()),
                    None => (State::False, Reason::NoConflict, String::new()),
                },
                Type::Promoting => promoting(snapshot),
            };
            Condition { kind, status, reason, message }
        })
        .collect()
}

type Verdict = (State, Reason, String);

fn starting() -> Verdict {
    (State::Unknown, Reason::Starting, "not looked at yet".to_owned())
}

/// False with the first problem of one of these reasons, or what `otherwise` says.
fn or_problem(
    problems: &[Problem],
    reasons: &[Reason],
    otherwise: impl FnOnce() -> Verdict,
) -> Verdict {
    match problems.iter().find(|problem| reasons.contains(&problem.reason)) {
        Some(problem) => (State::False, problem.reason, problem.message.clone()),
        None => otherwise(),
    }
}

fn first_critical(problems: &[Problem]) -> Option<Verdict> {
    problems
        .iter()
        .find(|problem| problem.severity == Severity::Critical)
        .map(|problem| (State::False, problem.reason, problem.message.clone()))
}

fn ready(snapshot: &Snapshot, problems: &[Problem]) -> Verdict {
    if let Some(critical) = first_critical(problems) {
        return critical;
    }
    match snapshot.role {
        None => starting(),
        Some(Role::Primary) => {
            (State::True, Reason::BackupCurrent, "this hub is primary and backed up".to_owned())
        }
        Some(Role::Passive) => {
            (State::True, Reason::InSync, "this hub is ready to take over".to_owned())
        }
        Some(Role::Promoting) => {
            let phase = snapshot.promotion.phase.as_deref().unwrap_or("Requested");
            (State::False, Reason::Promoting, format!("the promotion is at {phase}"))
        }
        Some(Role::Fenced) => (State::False, Reason::Fenced, "this hub writes nothing".to_owned()),
    }
}

fn storage(snapshot: &Snapshot, problems: &[Problem]) -> Verdict {
    let reasons = [Reason::StorageUnavailable, Reason::StorageNotAtomic];
    or_problem(problems, &reasons, || match snapshot.storage.up {
        Some(_) => (State::True, Reason::StorageAvailable, snapshot.storage.location.clone()),
        None => starting(),
    })
}

fn backup_current(snapshot: &Snapshot, problems: &[Problem], now: Timestamp) -> Verdict {
    if snapshot.role != Some(Role::Primary) {
        let message = "only a primary makes backups".to_owned();
        return (State::Unknown, Reason::NotPrimary, message);
    }
    let reasons =
        [Reason::BackupOverdue, Reason::NoBackup, Reason::BackupSuspect, Reason::BackupPaused];
    or_problem(problems, &reasons, || {
        let newest = snapshot.newest.as_ref().map_or(String::new(), |newest| {
            format!("backup {} of {}", newest.id, clock(newest.at, now))
        });
        (State::True, Reason::BackupCurrent, newest)
    })
}

fn synced(snapshot: &Snapshot, problems: &[Problem], now: Timestamp) -> Verdict {
    if snapshot.role != Some(Role::Passive) {
        let message = "only a passive hub follows a primary".to_owned();
        return (State::Unknown, Reason::NotPassive, message);
    }
    let reasons = [
        Reason::BackupDamaged,
        Reason::SyncOverdue,
        Reason::SyncFailed,
        Reason::NoBackup,
        Reason::ShrinkRefused,
        Reason::SyncPaused,
        Reason::SyncPartial,
        Reason::PruneHeld,
    ];
    or_problem(problems, &reasons, || match &snapshot.sync.restored {
        Some(held) => {
            let message = format!("holds backup {} of {}", held.id, clock(held.at, now));
            (State::True, Reason::InSync, message)
        }
        None => starting(),
    })
}

fn promotable(snapshot: &Snapshot, problems: &[Problem]) -> Verdict {
    if snapshot.role != Some(Role::Passive) {
        let message = "only a passive hub can be promoted".to_owned();
        return (State::False, Reason::NotPassive, message);
    }
    first_critical(problems).unwrap_or_else(|| {
        let message = "a promotion is accepted once the primary is silent".to_owned();
        (State::True, Reason::Promotable, message)
    })
}

fn primary_alive(snapshot: &Snapshot, now: Timestamp) -> Verdict {
    if snapshot.role == Some(Role::Primary) {
        return (State::True, Reason::PrimaryAlive, "this hub is the primary".to_owned());
    }
    match snapshot.primary_peer() {
        None => {
            let message = "no primary was seen since this daemon started".to_owned();
            (State::Unknown, Reason::PrimaryUnknown, message)
        }
        // The age is left out while it is alive: a message that changes each second would be
        // written each time.
        Some(peer) if !peer.silent => {
            (State::True, Reason::PrimaryAlive, format!("{} sends heartbeats", peer.hub))
        }
        Some(peer) => {
            let at = clock(peer.heartbeat_at, now);
            let message = format!("{} was last seen alive at {at}", peer.hub);
            (State::False, Reason::PrimarySilent, message)
        }
    }
}

fn verified(snapshot: &Snapshot, problems: &[Problem], now: Timestamp) -> Verdict {
    let reasons = [Reason::VerifyDamaged, Reason::KeyMissing, Reason::VerifyStale];
    or_problem(problems, &reasons, || match snapshot.verify.last_success_at {
        Some(at) => (State::True, Reason::Verified, format!("found sound at {}", clock(at, now))),
        None => starting(),
    })
}

fn keys(snapshot: &Snapshot, problems: &[Problem]) -> Verdict {
    or_problem(problems, &[Reason::KeyMissing], || match snapshot.keys.known {
        0 => starting(),
        known => {
            let opens = match snapshot.keys.newest_opens {
                Some(true) => ", the newest backup opens",
                Some(false) => ", the newest backup does not open",
                None => "",
            };
            (State::True, Reason::KeysAvailable, format!("{known} known{opens}"))
        }
    })
}

fn promoting(snapshot: &Snapshot) -> Verdict {
    if snapshot.role != Some(Role::Promoting) {
        return (State::False, Reason::NotPromoting, String::new());
    }
    let phase = snapshot.promotion.phase.as_deref().unwrap_or("Requested");
    (State::True, Reason::Promoting, format!("at {phase}"))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, now};
    use super::*;

    fn check(snapshot: &Snapshot, expected: &[&str]) {
        let found: Vec<String> = conditions(snapshot, now())
            .iter()
            .map(|c| format!("{}={} {}", c.kind.word(), c.status.word(), c.reason))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_type_stands_there_from_the_first_write() {
        check(
            &samples::starting(),
            &[
                "Ready=Unknown Starting",
                "StorageAvailable=Unknown Starting",
                "BackupCurrent=Unknown NotPrimary",
                "Synced=Unknown NotPassive",
                "Promotable=False NotPassive",
                "PrimaryAlive=Unknown PrimaryUnknown",
                "Verified=Unknown Starting",
                "KeysAvailable=Unknown Starting",
                "ConfigValid=True ConfigValid",
                "WriterConflict=False NoConflict",
                "Promoting=False NotPromoting",
            ],
        );
    }

    #[test]
    fn each_role_has_its_own_conditions() {
        check(
            &samples::primary(),
            &[
                "Ready=True BackupCurrent",
                "StorageAvailable=True StorageAvailable",
                "BackupCurrent=True BackupCurrent",
                "Synced=Unknown NotPassive",
                "Promotable=False NotPassive",
                "PrimaryAlive=True PrimaryAlive",
                "Verified=True Verified",
                "KeysAvailable=True KeysAvailable",
                "ConfigValid=True ConfigValid",
                "WriterConflict=False NoConflict",
                "Promoting=False NotPromoting",
            ],
        );
        check(
            &samples::abandoned(),
            &[
                "Ready=True InSync",
                "StorageAvailable=True StorageAvailable",
                "BackupCurrent=Unknown NotPrimary",
                "Synced=True InSync",
                "Promotable=True Promotable",
                "PrimaryAlive=False PrimarySilent",
                "Verified=True Verified",
                "KeysAvailable=True KeysAvailable",
                "ConfigValid=True ConfigValid",
                "WriterConflict=False NoConflict",
                "Promoting=False NotPromoting",
            ],
        );
    }

    #[test]
    fn the_first_critical_problem_is_the_reason_of_ready() {
        let ready = |snapshot: &Snapshot| {
            let Condition { kind: _, status, reason, message } =
                conditions(snapshot, now()).remove(0);
            format!("{} {reason} {message}", status.word())
        };
        let mut snapshot = samples::passive();
        snapshot.sync.damaged = Some("pack 7f".to_owned());
        assert_eq!(
            ready(&snapshot),
            "False BackupDamaged pack 7f; backup 20261120-173000-42 stays in force"
        );
        snapshot.keys.error = Some("key k1 is not known".to_owned());
        assert_eq!(ready(&snapshot), "False KeyMissing key k1 is not known");
        assert_eq!(
            ready(&samples::frozen()),
            "False JournalHole slot 40 is absent, slot 42 is there"
        );
        assert!(ready(&samples::fenced()).starts_with("False Fenced "));
        assert_eq!(ready(&samples::promoting()), "False Promoting the promotion is at Activating");
    }

    #[test]
    fn a_suspect_backup_is_not_current_and_a_standby_that_refuses_it_stays_promotable() {
        let named = |snapshot: &Snapshot, kinds: [Type; 2]| {
            let found = conditions(snapshot, now()).into_iter().filter(|c| kinds.contains(&c.kind));
            found.map(|c| format!("{} {}", c.status.word(), c.reason)).collect::<Vec<_>>()
        };
        let primary = samples::shrunk(samples::primary());
        let found = named(&primary, [Type::Ready, Type::BackupCurrent]);
        assert_eq!(found, ["True BackupCurrent", "False BackupSuspect"]);
        let passive = samples::shrunk(samples::passive());
        let found = named(&passive, [Type::Synced, Type::Promotable]);
        assert_eq!(found, ["False ShrinkRefused", "True Promotable"]);
    }

    #[test]
    fn a_storage_that_cannot_fence_is_not_available_unless_allowed() {
        let mut snapshot = samples::primary();
        snapshot.storage.atomic_create = Some(false);
        let storage = |snapshot: &Snapshot| conditions(snapshot, now())[1].reason;
        assert_eq!(storage(&snapshot), Reason::StorageNotAtomic);
        snapshot.storage.allow_unfenced = true;
        assert_eq!(storage(&snapshot), Reason::StorageAvailable);
    }
}
