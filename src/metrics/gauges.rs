//! Pure: the gauges that a snapshot gives, at the moment of a scrape.
//!
//! A series stands here as soon as its value is known and disappears with its role: a primary has no
//! sync deadline, a standby no backup deadline. 0 in a timestamp means "never".

mod clusters;
mod tried;

use crate::config::settings::InitialRole;
use crate::object::Set;
use crate::status::problem::standbys;
use crate::status::verdict::standby_ready;
use crate::status::{BackupSummary, Outcome, Peer, Role, Snapshot, Standby};
use jiff::Timestamp;

/// One metric: its name, its help and its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    pub name: &'static str,
    pub help: &'static str,
    pub series: Vec<(Vec<(&'static str, String)>, f64)>,
}

fn one(name: &'static str, help: &'static str, value: f64) -> Gauge {
    Gauge { name, help, series: vec![(Vec::new(), value)] }
}

fn many<V: Into<String>>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    series: impl IntoIterator<Item = (V, f64)>,
) -> Gauge {
    let series = series.into_iter().map(|(of, value)| (vec![(label, of.into())], value)).collect();
    Gauge { name, help, series }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Counts and seconds on these gauges stay far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> f64 {
    value as f64
}

/// Seconds since 1970; 0: never.
fn time(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.as_duration().as_secs_f64())
}

/// Everything known now, in no particular order; metrics without a series are left out.
pub fn gauges(snapshot: &Snapshot, now: Timestamp) -> Vec<Gauge> {
    let mut all = process(snapshot);
    all.extend(storage(snapshot));
    if snapshot.role.is_some() {
        all.extend(ownership(snapshot));
        all.extend(repository(snapshot));
        all.extend(promotion(snapshot));
        all.extend(tried::drill(snapshot));
        all.extend(clusters::clusters(snapshot));
    }
    match snapshot.role {
        Some(Role::Primary) => all.extend(primary(snapshot)),
        Some(Role::Passive) => all.extend(passive(snapshot, now)),
        Some(Role::Promoting | Role::Fenced) | None => {}
    }
    if matches!(snapshot.role, Some(Role::Passive | Role::Promoting)) {
        all.extend(restoring(snapshot));
    }
    if matches!(snapshot.role, Some(Role::Primary | Role::Passive)) {
        all.extend(verification(snapshot));
    }
    all.retain(|gauge| !gauge.series.is_empty());
    all
}

/// Facts of the process: known from the start.
fn process(snapshot: &Snapshot) -> Vec<Gauge> {
    let configured = match snapshot.configured_role {
        InitialRole::Primary => Role::Primary.name(),
        InitialRole::Passive => Role::Passive.name(),
    };
    let build = vec![
        ("version", snapshot.version.clone()),
        ("revision", option_env!("UNDERSTUDY_REVISION").unwrap_or("unknown").to_owned()),
    ];
    let hub = vec![
        ("hub", snapshot.hub.clone()),
        ("pair", snapshot.pair.clone()),
        ("hub_id", snapshot.hub_id.clone()),
        ("configured_role", configured.to_owned()),
    ];
    vec![
        Gauge {
            name: "understudy_build_info",
            help: "Version of the daemon; always 1.",
            series: vec![(build, 1.0)],
        },
        Gauge {
            name: "understudy_hub_info",
            help: "Names of this hub and of its pair; always 1.",
            series: vec![(hub, 1.0)],
        },
        one(
            "understudy_objective_rpo_seconds",
            "Configured objective: data younger than this survives.",
            number(snapshot.objectives.rpo_seconds),
        ),
        one(
            "understudy_objective_rto_seconds",
            "Configured objective: a promotion takes no longer than this.",
            number(snapshot.objectives.rto_seconds),
        ),
        many(
            "understudy_loop_last_tick_timestamp_seconds",
            "When each loop last turned.",
            "loop",
            snapshot.loops.iter().map(|(name, at)| (name.clone(), time(Some(*at)))),
        ),
        one(
            "understudy_state_recovered",
            "1 once values that outlive the process are known again.",
            flag(snapshot.role.is_some()),
        ),
        one(
            "understudy_config_last_reload_successful",
            "1 if the running settings are those of the file.",
            flag(snapshot.config.error.is_none()),
        ),
        one(
            "understudy_config_last_reload_success_timestamp_seconds",
            "When the running settings were read.",
            time(snapshot.config.loaded_at),
        ),
        one(
            "understudy_writer_conflict",
            "1 while another writer under this hub's name is seen.",
            flag(snapshot.writer_conflict.is_some()),
        ),
    ]
}

fn storage(snapshot: &Snapshot) -> Vec<Gauge> {
    let storage = &snapshot.storage;
    let mut all = Vec::new();
    if let Some(up) = storage.up {
        all.push(one("understudy_storage_up", "1 if the last probe succeeded.", flag(up)));
        all.push(one(
            "understudy_storage_last_probe_timestamp_seconds",
            "When the storage was last probed.",
            time(storage.last_probe_at),
        ));
    }
    if let Some(atomic) = storage.atomic_create {
        all.push(one(
            "understudy_storage_atomic_create",
            "1 if the last race proved that the storage refuses a superseded hub.",
            flag(atomic),
        ));
        all.push(one(
            "understudy_storage_allow_unfenced",
            "1 if this hub may be primary although the storage does not refuse a superseded one.",
            flag(storage.allow_unfenced),
        ));
    }
    if let Some(skew) = storage.clock_skew_seconds {
        all.push(one(
            "understudy_storage_clock_skew_seconds",
            "The storage's clock minus this hub's.",
            skew,
        ));
    }
    all
}

fn ownership(snapshot: &Snapshot) -> Vec<Gauge> {
    let role = snapshot.role;
    vec![
        many(
            "understudy_role",
            "The role of this hub: exactly one is 1.",
            "role",
            Role::ALL.map(|each| (each.name(), flag(role == Some(each)))),
        ),
        one("understudy_epoch", "Number of the term this hub believes in.", number(snapshot.epoch)),
        many(
            "understudy_role_changed_timestamp_seconds",
            "When this hub took its role.",
            "role",
            role.map(|role| (role.name(), time(snapshot.role_since))),
        ),
        Gauge {
            name: "understudy_peer_heartbeat_timestamp_seconds",
            help: "When the heartbeat of another hub last changed, by this hub's clock.",
            series: peers(snapshot, |peer| peer.heartbeat_at),
        },
        Gauge {
            name: "understudy_peer_heartbeat_deadline_timestamp_seconds",
            help: "When another hub counts as silent.",
            series: peers(snapshot, |peer| peer.deadline_at),
        },
    ]
}

fn peers(
    snapshot: &Snapshot,
    at: impl Fn(&Peer) -> Timestamp,
) -> Vec<(Vec<(&'static str, String)>, f64)> {
    snapshot
        .peers
        .iter()
        .map(|peer| {
            let role = told_role(snapshot, peer).map_or("unknown", Role::name);
            let labels = vec![("peer", peer.hub.clone()), ("peer_role", role.to_owned())];
            (labels, time(Some(at(peer))))
        })
        .collect()
}

/// A primary that was superseded counts as fenced: the last heartbeat of a dead one says for ever that it
/// is primary.
fn told_role(snapshot: &Snapshot, peer: &Peer) -> Option<Role> {
    let holds = snapshot.holder.as_ref().is_none_or(|holder| *holder == peer.hub);
    if holds {
        peer.role
    } else {
        peer.role.map(|role| if role == Role::Primary { Role::Fenced } else { role })
    }
}

fn repository(snapshot: &Snapshot) -> Vec<Gauge> {
    vec![
        one(
            "understudy_storage_backups",
            "Backups in the repository, whoever wrote them.",
            number(snapshot.backups_in_storage as u64),
        ),
        one(
            "understudy_storage_oldest_backup_timestamp_seconds",
            "Creation time of the oldest backup in the repository.",
            time(snapshot.oldest_backup_at),
        ),
        one(
            "understudy_storage_newest_backup_timestamp_seconds",
            "Creation time of the newest backup in the repository, whoever wrote it.",
            time(snapshot.newest.as_ref().map(|newest| newest.at)),
        ),
        one(
            "understudy_storage_newest_backup_suspect",
            "1 while the newest backup lost so much that standbys wait for an acknowledgement.",
            flag(snapshot.newest.as_ref().is_some_and(|newest| newest.suspect.is_some())),
        ),
    ]
}

/// Only the hubs that verify have a deadline.
fn verification(snapshot: &Snapshot) -> Vec<Gauge> {
    let facts = &snapshot.verify;
    let mut all = vec![
        one(
            "understudy_verify_last_success_timestamp_seconds",
            "When the stored backups were last read and found sound.",
            time(facts.last_success_at),
        ),
        one(
            "understudy_verify_damaged_objects",
            "Stored objects of which the last verifications found that they are damaged.",
            number(facts.damaged_objects),
        ),
    ];
    if let Some(deadline) = facts.deadline_at {
        all.push(one(
            "understudy_verify_deadline_timestamp_seconds",
            "When the stored backups are to be found sound again at the latest.",
            time(Some(deadline)),
        ));
    }
    all
}

fn promotion(snapshot: &Snapshot) -> Vec<Gauge> {
    let facts = &snapshot.promotion;
    let mut all = vec![
        one("understudy_promotion_running", "1 while this hub is promoted.", flag(facts.running)),
        one(
            "understudy_promotion_started_timestamp_seconds",
            "When the last promotion began.",
            time(facts.started_at),
        ),
    ];
    if let Some(last) = facts.outcome {
        let outcomes = [Outcome::Success, Outcome::Partial, Outcome::Failed, Outcome::Refused];
        all.push(many(
            "understudy_promotion_last_outcome",
            "How the last promotion ended: exactly one is 1.",
            "outcome",
            outcomes.map(|each| (each.name(), flag(each == last))),
        ));
    }
    if let (Some(started), Some(finished)) = (facts.started_at, facts.finished_at) {
        all.push(one(
            "understudy_promotion_duration_seconds",
            "How long the last promotion took.",
            finished.duration_since(started).as_secs_f64(),
        ));
    }
    all
}

fn primary(snapshot: &Snapshot) -> Vec<Gauge> {
    let backup = &snapshot.backup;
    let mut all = vec![
        one(
            "understudy_backup_running",
            "1 while a backup runs.",
            flag(backup.running_since.is_some()),
        ),
        one(
            "understudy_backup_started_timestamp_seconds",
            "When the running backup, or else the last one, began.",
            time(backup.running_since.or(backup.last_attempt_at)),
        ),
        one(
            "understudy_backup_timeout_seconds",
            "How long a backup may run.",
            number(backup.timeout_seconds),
        ),
        one(
            "understudy_backup_last_success_timestamp_seconds",
            "When a backup last succeeded.",
            time(backup.last_success_at),
        ),
        one(
            "understudy_backup_last_attempt_timestamp_seconds",
            "When a backup was last tried.",
            time(backup.last_attempt_at),
        ),
        one(
            "understudy_discovery_failed_groups",
            "API groups and kinds that the last backup could not list.",
            number(backup.failed_groups.len() as u64),
        ),
        many(
            "understudy_standbys",
            "Standbys of this primary by state.",
            "state",
            Standby::ALL
                .map(|state| (state.name(), number(standbys(snapshot, state).len() as u64))),
        ),
    ];
    all.extend(schedule(snapshot));
    if let Some(last) = backup.last_outcome {
        all.push(many(
            "understudy_backup_last_outcome",
            "How the last backup ended: exactly one is 1.",
            "outcome",
            super::BACKUP_OUTCOMES.map(|each| (each.name(), flag(each == last))),
        ));
    }
    let own = snapshot.newest.as_ref().filter(|newest| newest.hub == snapshot.hub);
    all.extend(own.map(last_backup).unwrap_or_default());
    all
}

fn schedule(snapshot: &Snapshot) -> Vec<Gauge> {
    let (backup, paused) = (&snapshot.backup, snapshot.pause.is_some());
    let mut all = vec![one(
        "understudy_backup_paused",
        "1 while an operator has paused the schedule.",
        flag(paused),
    )];
    if paused || backup.deadline_at.is_some() {
        all.push(one(
            "understudy_backup_deadline_timestamp_seconds",
            "When the next success is due at the latest; 0 while paused.",
            time(backup.deadline_at),
        ));
    }
    if paused || backup.next_run_at.is_some() {
        all.push(one(
            "understudy_backup_next_run_timestamp_seconds",
            "When the next backup begins; 0: not before somebody resumes the schedule.",
            time(backup.next_run_at),
        ));
    }
    all
}

fn last_backup(newest: &BackupSummary) -> Vec<Gauge> {
    let each = |value: fn(&crate::status::SetSummary) -> u64| {
        newest.sets.iter().map(move |(set, summary)| (set.name(), number(value(summary))))
    };
    vec![
        many(
            "understudy_backup_last_objects",
            "Objects in this hub's newest backup.",
            "set",
            each(|summary| summary.objects),
        ),
        many(
            "understudy_backup_last_bytes",
            "Sealed bytes that this hub's newest backup consists of.",
            "set",
            each(|summary| summary.bytes),
        ),
        many(
            "understudy_backup_last_changed_objects",
            "Objects that changed against the backup before.",
            "set",
            each(|summary| summary.changed),
        ),
    ]
}

/// Of the running restore; 0 while none runs.
fn restoring(snapshot: &Snapshot) -> [Gauge; 2] {
    let progress = snapshot.sync.progress.as_ref().filter(|progress| progress.restores());
    let (done, planned) =
        progress.map_or((0, 0), |progress| (progress.done, progress.total.unwrap_or_default()));
    [
        one(
            "understudy_restore_running_done_objects",
            "Objects that the running restore has written; 0 while none runs.",
            number(done),
        ),
        one(
            "understudy_restore_running_planned_objects",
            "Objects that the running restore has to write; 0 while none runs.",
            number(planned),
        ),
    ]
}

fn passive(snapshot: &Snapshot, now: Timestamp) -> Vec<Gauge> {
    let sync = &snapshot.sync;
    let mut all = vec![
        one(
            "understudy_sync_last_success_timestamp_seconds",
            "When a sync last succeeded.",
            time(sync.last_success_at),
        ),
        one(
            "understudy_standby_ready",
            "1 if a promotion would be accepted once the primary is silent.",
            flag(standby_ready(snapshot, now)),
        ),
    ];
    // After a restart the hub is compared with the backup before anything is said about it.
    if sync.restored.is_some() || sync.last_success_at.is_none() {
        all.push(many(
            "understudy_restored_backup_timestamp_seconds",
            "Creation time of the data that this standby holds.",
            "set",
            // Activation is held back until a promotion.
            [Set::Credentials, Set::Resources]
                .map(|set| (set.name(), time(sync.restored.as_ref().map(|held| held.at)))),
        ));
    }
    all.extend(tried::rehearsal(&sync.rehearsal));
    let paused = snapshot.pause.is_some();
    all.push(one(
        "understudy_sync_paused",
        "1 while an operator has paused the following of the primary.",
        flag(paused),
    ));
    if paused || sync.deadline_at.is_some() {
        all.push(one(
            "understudy_sync_deadline_timestamp_seconds",
            "When the next successful sync is due at the latest; 0 while paused.",
            time(sync.deadline_at),
        ));
    }
    all
}
