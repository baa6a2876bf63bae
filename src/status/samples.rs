//! Snapshots of one pair in its typical situations, for the tests of everything that is derived.

use super::{
    BackupSummary, Check, Frozen, Identity, Objectives, Outcome, PRIMARY_SILENT, Peer, Role, Run,
    SetSummary, Snapshot, Watermark,
};
use crate::config::settings::InitialRole;
use crate::object::Set;
use crate::repository::drill::{Drill, Drills};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// 2026-11-20T17:37:12Z: the moment at which all samples are looked at.
pub(crate) fn now() -> Timestamp {
    "2026-11-20T17:37:12Z".parse().unwrap()
}

pub(crate) fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

pub(crate) fn backup(id: &str, hub: &str, epoch: u64, seconds: i64) -> BackupSummary {
    let set = |objects, bytes, changed| SetSummary { objects, bytes, changed };
    BackupSummary {
        id: id.to_owned(),
        slot: 42,
        epoch,
        hub: hub.to_owned(),
        at: ago(seconds),
        sets: [
            (Set::Credentials, set(29_387, 48_000_000, 3)),
            (Set::Resources, set(14_886, 21_500_000, 12)),
            (Set::Activation, set(51_422, 39_100_000, 0)),
        ]
        .into(),
        suspect: None,
        partial: Vec::new(),
        packs_written: 2,
    }
}

fn start(hub: &str, configured_role: InitialRole) -> Snapshot {
    let identity = Identity {
        hub: hub.to_owned(),
        pair: "eu-hubs".to_owned(),
        namespace: "understudy".to_owned(),
        configured_role,
        objectives: Objectives { rpo_seconds: 3600, rto_seconds: 900 },
        storage_location: "s3://hub-dr/eu-hubs/".to_owned(),
    };
    Snapshot::starting(identity, ago(7200))
}

/// Nothing was looked at yet.
pub(crate) fn starting() -> Snapshot {
    start("eu-2", InitialRole::Passive)
}

fn settled(hub: &str, role: Role, configured: InitialRole) -> Snapshot {
    let mut s = start(hub, configured);
    "5f1c3e0e-0b3a-4f8e-9d53-6f7d7b8f1c11".clone_into(&mut s.hub_id);
    s.role = Some(role);
    s.epoch = 7;
    s.role_since = Some(ago(9 * 86_400));
    s.holder = Some("eu-1".to_owned());
    s.keys.known = 2;
    s.keys.newest_opens = Some(true);
    s.storage.up = Some(true);
    s.storage.last_probe_at = Some(ago(20));
    s.storage.latency_seconds = Some(0.038);
    s.storage.clock_skew_seconds = Some(0.1);
    s.storage.atomic_create = Some(true);
    s.watermark = Some(Watermark { slot: 42, digest: "ab".repeat(32) });
    s.newest = Some(backup("20261120-173000-42", "eu-1", 7, 432));
    s.backups = [
        backup("20261120-173000-42", "eu-1", 7, 432),
        backup("20261120-170000-41", "eu-1", 7, 2232),
    ]
    .into();
    s.backups_in_storage = 48;
    s.oldest_backup_at = Some(ago(29 * 86_400));
    s.verify.last_attempt_at = Some(ago(21_630));
    s.verify.last_success_at = Some(ago(21_600));
    s.verify.next_run_at = Some(ago(-64_800));
    s.verify.deadline_at = Some(ago(-151_200));
    s.loops = ["backup", "sync", "promotion", "probe"].map(|l| (l.to_owned(), ago(3))).into();
    s
}

fn peer(hub: &str, role: Role, seconds: i64) -> Peer {
    Peer {
        hub: hub.to_owned(),
        role: Some(role),
        heartbeat_at: ago(seconds),
        deadline_at: ago(seconds - 60),
        silent: seconds > 60,
        backup: Some("20261120-173000-42".to_owned()),
        backup_at: Some(ago(432)),
        epoch: Some(7),
        keys: vec![],
        ready: None,
    }
}

pub(crate) fn run(what: &str, seconds: i64, outcome: Outcome, changed: u64) -> Run {
    Run {
        what: what.to_owned(),
        at: ago(seconds),
        seconds: 1.84,
        outcome,
        backup: Some("20261120-173000-42".to_owned()),
        changed,
        failed: 0,
        message: String::new(),
    }
}

pub(crate) fn primary() -> Snapshot {
    let mut s = settled("eu-1", Role::Primary, InitialRole::Primary);
    s.peers = vec![peer("eu-2", Role::Passive, 8)];
    s.backup.timeout_seconds = 1200;
    s.backup.last_attempt_at = Some(ago(432));
    s.backup.last_success_at = Some(ago(430));
    s.backup.last_outcome = Some(Outcome::Success);
    s.backup.next_run_at = Some(ago(-1368));
    s.backup.deadline_at = Some(ago(-4368));
    s.runs = (0..6).map(|n| run("backup", 432 + n * 1800, Outcome::Success, 15)).collect();
    s
}

pub(crate) fn check(name: &str, ok: bool, why: &str) -> Check {
    Check { name: name.to_owned(), reason: String::new(), ok, why: why.to_owned(), hint: None }
}

pub(crate) fn passive() -> Snapshot {
    let mut s = settled("eu-2", Role::Passive, InitialRole::Passive);
    s.peers = vec![peer("eu-1", Role::Primary, 41)];
    let drill = Drill {
        at: ago(12 * 86_400),
        backup: "20261108-170000-30".to_owned(),
        seconds: 252.4,
        tried: 51_422,
        ..Drill::default()
    };
    s.drill.recovered(
        Some(Drills { last: Some(drill.clone()), success: Some(drill) }),
        Duration::from_hours(90 * 24),
        now(),
    );
    s.sync.last_attempt_at = Some(ago(130));
    s.sync.last_success_at = Some(ago(128));
    s.sync.last_outcome = Some(Outcome::Changed);
    s.sync.next_run_at = Some(ago(-170));
    s.sync.deadline_at = Some(ago(-470));
    s.sync.restored = s.newest.clone();
    s.sync.rehearsal.last_attempt_at = Some(ago(127));
    s.sync.rehearsal.last_success_at = Some(ago(127));
    s.sync.rehearsal.tried = 51_422;
    s.promotion.checklist = vec![
        check("hub is passive", true, "since 9 days"),
        check("storage reachable", true, "38ms, conditional writes hold"),
        check("newest backup opens", true, "20261120-173000-42"),
        Check {
            reason: "DataTooOld".to_owned(),
            ..check("data young enough", true, "7m, at most 2h")
        },
        Check {
            reason: "PrimaryAlive".to_owned(),
            ..check(PRIMARY_SILENT, false, "eu-1 sent a heartbeat 41s ago")
        },
    ];
    s.runs = vec![
        run("sync", 130, Outcome::Changed, 15),
        run("sync", 430, Outcome::Unchanged, 0),
        run("sync", 730, Outcome::Unchanged, 0),
    ];
    s
}

/// The same hub after a newest backup that lost too much.
pub(crate) fn shrunk(mut s: Snapshot) -> Snapshot {
    s.in_force = Some(backup("20261120-170000-41", "eu-1", 7, 2232));
    s.sync.restored = s.sync.restored.and(s.in_force.clone());
    for peer in s.peers.iter_mut().filter(|peer| peer.role == Some(Role::Passive)) {
        peer.backup = s.in_force.as_ref().map(|usable| usable.id.clone());
    }
    let newest = s.newest.as_mut().expect("a backup was made");
    newest.suspect =
        Some("against backup 20261120-170000-41: resources fell from 9 to 0".to_owned());
    s
}

/// A standby whose primary is dead.
pub(crate) fn abandoned() -> Snapshot {
    let mut s = passive();
    s.peers = vec![peer("eu-1", Role::Primary, 432)];
    s.promotion.checklist[4] = check(PRIMARY_SILENT, true, "no heartbeat for 7m");
    s
}

pub(crate) fn promoting() -> Snapshot {
    let mut s = abandoned();
    s.role = Some(Role::Promoting);
    s.role_since = Some(ago(12));
    s.epoch = 8;
    s.holder = Some("eu-2".to_owned());
    s.promotion.running = true;
    s.promotion.trigger = Some("signal".to_owned());
    s.promotion.request = Some("signal-20261120-173700".to_owned());
    s.promotion.expected_epoch = Some(7);
    s.promotion.phase = Some("Activating".to_owned());
    s.promotion.started_at = Some(ago(12));
    s.promotion.base = Some("20261120-173000-42".to_owned());
    s.promotion.data_loss_seconds = Some(420);
    s.promotion.activated = 31_900;
    s
}

pub(crate) fn fenced() -> Snapshot {
    let mut s = settled("eu-1", Role::Fenced, InitialRole::Primary);
    s.epoch = 8;
    s.holder = Some("eu-2".to_owned());
    s.role_since = Some(ago(3600));
    s.peers = vec![peer("eu-2", Role::Primary, 4)];
    s.peers[0].epoch = Some(8);
    s
}

/// A standby on whose repository a slot of the journal is missing.
pub(crate) fn frozen() -> Snapshot {
    let mut s = passive();
    s.frozen = Some(Frozen {
        reason: "JournalHole".to_owned(),
        message: "slot 40 is absent, slot 42 is there".to_owned(),
        hint: "understudy status --from storage on another machine".to_owned(),
    });
    s
}
