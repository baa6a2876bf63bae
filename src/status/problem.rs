//! Pure: what is wrong with this hub, worst first, each with a word of the closed list of reasons
//! and with what to do.
//!
//! The same list feeds the verdict, the conditions, the page and the exit code, so that no two of
//! them can disagree. The reason word is at once the Event reason and the stem of the alert's name.

pub use super::reason::Reason;
use super::words::{age_of, clock, plural, seconds_between, span};
use super::{DriftFacts, Outcome, PRIMARY_SILENT, Role, Snapshot, Standby, rehearsal};
use jiff::Timestamp;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The hub does not do its work: `Ready` is False.
    Critical,
    /// Somebody should look.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub reason: Reason,
    pub severity: Severity,
    pub message: String,
    /// What to do; a command where there is one.
    pub hint: Option<String>,
}

/// Causes come from servers and may be long; a condition, an Event and a page have little room.
const MAX_MESSAGE: usize = 400;

pub(super) fn critical(
    reason: Reason,
    message: impl Into<String>,
    hint: Option<String>,
) -> Problem {
    Problem { reason, severity: Severity::Critical, message: message.into(), hint }
}

pub(super) fn warning(reason: Reason, message: impl Into<String>, hint: Option<String>) -> Problem {
    Problem { reason, severity: Severity::Warning, message: message.into(), hint }
}

/// Everything wrong, worst first: critical before warning, and among equals what explains the
/// others (frozen, fenced, keys, storage) before what follows from them.
pub fn problems(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let mut found = ownership(snapshot, now);
    found.extend(surroundings(snapshot, now));
    found.extend(super::pause::problem(snapshot, now));
    found.extend(super::handover::problem(snapshot, now));
    found.extend(super::clusters::problems(snapshot, now));
    found.extend(super::verification::problems(snapshot, now));
    match snapshot.role {
        Some(Role::Primary) => found.extend(primary(snapshot, now)),
        Some(Role::Passive) if super::handover::by_this_hub(snapshot).is_some() => {}
        Some(Role::Passive) => {
            found.extend(passive(snapshot, now));
            found.extend(super::drill::problems(snapshot, now));
        }
        Some(Role::Promoting) => found.extend(promotion(snapshot)),
        Some(Role::Fenced) | None => {}
    }
    found.sort_by_key(|problem| problem.severity);
    for problem in &mut found {
        if let Some((end, _)) = problem.message.char_indices().nth(MAX_MESSAGE) {
            problem.message.truncate(end);
            problem.message.push('…');
        }
    }
    found
}

/// Who may write, and whether this hub still may.
fn ownership(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(frozen) = &snapshot.frozen {
        let reason = Reason::from_word(&frozen.reason, Reason::Frozen);
        found.push(critical(reason, frozen.message.clone(), Some(frozen.hint.clone())));
    }
    if snapshot.role == Some(Role::Fenced) {
        let holder = snapshot.holder.as_deref().unwrap_or("another hub");
        let since = snapshot.role_since.map(|at| format!(", seen here at {}", clock(at, now)));
        found.push(critical(
            Reason::Fenced,
            format!(
                "{holder} holds epoch {}{}: this hub writes nothing",
                snapshot.epoch,
                since.unwrap_or_default()
            ),
            Some(REJOIN.to_owned()),
        ));
    }
    if let Some(conflict) = &snapshot.writer_conflict {
        found.push(critical(
            Reason::WriterConflict,
            conflict.clone(),
            Some(
                "run one daemon for each hub name; the higher epoch is right by definition"
                    .to_owned(),
            ),
        ));
    }
    found
}

/// What a fenced hub's operator runs first.
pub const REJOIN: &str = "understudy rejoin --dry-run";

/// Keys, storage, API server, configuration, loops: the same for every role.
fn surroundings(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(error) = &snapshot.keys.error {
        let hint = "put the pair's key file where encryption.keyFiles names it";
        found.push(critical(Reason::KeyMissing, error.clone(), Some(hint.to_owned())));
    }
    for (hub, key) in &snapshot.keys.unread {
        let hint = "add that key file to encryption.keyFiles on this hub and restart";
        found.push(warning(
            Reason::KeyMissing,
            format!("{hub} is alive under the key {key}, which this hub does not hold"),
            Some(hint.to_owned()),
        ));
    }
    let storage = &snapshot.storage;
    if storage.up == Some(false) {
        let error = storage.error.as_deref().unwrap_or("it does not answer");
        let since = storage
            .last_probe_at
            .map_or(String::new(), |at| format!(", last tried {} ago", age_of(at, now)));
        found.push(critical(
            Reason::StorageUnavailable,
            format!("{}: {error}{since}", storage.location),
            Some("restore access to the storage; nothing is lost meanwhile".to_owned()),
        ));
    }
    if storage.atomic_create == Some(false) {
        let verdict = storage.probe_verdict.as_deref().unwrap_or("create-if-absent is not atomic");
        found.push(if storage.allow_unfenced {
            warning(
                Reason::Unfenced,
                format!(
                    "{verdict}; allowed by storage.allowUnfenced: a superseded hub is not refused"
                ),
                Some("move the repository to a storage with conditional writes".to_owned()),
            )
        } else {
            critical(
                Reason::StorageNotAtomic,
                format!("{verdict}: the storage cannot refuse a superseded hub"),
                Some("use a storage with conditional writes (If-None-Match), then restart the daemon".to_owned()),
            )
        });
    }
    if let Some(error) = &snapshot.kubernetes_error {
        let hint = "see that the API server answers and that the service account has its rights";
        found.push(critical(Reason::KubernetesUnavailable, error.clone(), Some(hint.to_owned())));
    }
    for (name, last) in snapshot.stalled_loops(now) {
        found.push(critical(
            Reason::LoopStalled,
            format!("the {name} loop has not turned for {}", age_of(last, now)),
            Some("restart the daemon: it goes on where the journal says".to_owned()),
        ));
    }
    if let Some(error) = &snapshot.config.error {
        let message = format!("the running settings are not the file's: {error}");
        let hint = "understudy config check".to_owned();
        found.push(warning(Reason::ConfigRejected, message, Some(hint)));
    }
    if let Some(refused) = &snapshot.promotion.refused {
        let reason = Reason::from_word(&refused.reason, Reason::PromotionRefused);
        let message = format!("the last request was refused: {}", refused.message);
        found.push(warning(reason, message, Some(refused.hint.clone())));
    }
    found
}

fn primary(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let mut found = Vec::new();
    let backup = &snapshot.backup;
    let error = backup.last_error.as_deref().unwrap_or("see the log of the daemon");
    let run = Some("understudy backup run".to_owned());
    match (backup.deadline_at, backup.last_success_at) {
        (Some(deadline), last) if deadline < now => {
            let last = last.map_or("there is none yet".to_owned(), |at| {
                format!("the last one succeeded at {}", super::words::moment(at, now))
            });
            let message = format!("a backup was due by {}; {last}; {error}", clock(deadline, now));
            found.push(critical(Reason::BackupOverdue, message, run));
        }
        (_, None) if snapshot.newest.is_none() => {
            found.push(critical(Reason::NoBackup, "no backup was made yet", run));
        }
        (_, _) if backup.last_outcome == Some(Outcome::Failed) => {
            found.push(warning(Reason::BackupFailed, format!("the last run failed: {error}"), run));
        }
        (_, _) => {}
    }
    found.extend(super::newest::problems(snapshot));
    if !backup.failed_groups.is_empty() {
        found.push(warning(
            Reason::DiscoveryFailed,
            format!("could not be listed: {}", backup.failed_groups.join(", ")),
            Some("see that these APIs are served".to_owned()),
        ));
    }
    let ready = standbys(snapshot, Standby::Ready).len();
    if ready == 0 {
        let message = match snapshot.peers.iter().filter(|p| p.role == Some(Role::Passive)).count()
        {
            0 => "no standby was ever seen in this repository".to_owned(),
            seen => format!("of {} none is ready", plural(seen, "standby", "standbys")),
        };
        let hint = "understudy status on the standby says why";
        found.push(warning(Reason::NoReadyStandby, message, Some(hint.to_owned())));
    }
    found
}

fn drift(drift: &DriftFacts) -> Option<Problem> {
    let DriftFacts { objects, corrected, contested } = drift;
    if let Some(first) = contested.first() {
        let many = plural(contested.len(), "object is", "objects are");
        let message = format!("{many} changed again and again by somebody else, such as {first}");
        let hint = "find out who writes it on this hub, or leave it out of the backup";
        return Some(warning(Reason::Drift, message, Some(hint.to_owned())));
    }
    if *corrected || *objects == 0 {
        return None;
    }
    let objects = usize::try_from(*objects).unwrap_or(usize::MAX);
    let many = plural(objects, "restored object was", "restored objects were");
    let hint = "the log names them; passive.drift: correct writes them again";
    Some(warning(Reason::Drift, format!("{many} changed on this hub"), Some(hint.to_owned())))
}

fn passive(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let mut found = Vec::new();
    let sync = &snapshot.sync;
    if let Some(damaged) = &sync.damaged {
        let kept = sync.restored.as_ref().map_or("nothing was restored".to_owned(), |held| {
            format!("backup {} stays in force", held.id)
        });
        found.push(critical(
            Reason::BackupDamaged,
            format!("{damaged}; {kept}"),
            Some("keep the older backups; the next full backup of the primary heals it".to_owned()),
        ));
    }
    let error = sync.last_error.as_deref().unwrap_or("see the log of the daemon");
    match (sync.deadline_at, sync.last_outcome) {
        (Some(deadline), _) if deadline < now => {
            let message = format!("a sync was due by {}: {error}", clock(deadline, now));
            found.push(critical(Reason::SyncOverdue, message, None));
        }
        (_, Some(Outcome::Failed | Outcome::Refused)) if sync.damaged.is_none() => {
            found.push(warning(Reason::SyncFailed, format!("the last sync failed: {error}"), None));
        }
        (_, _) => {}
    }
    if sync.restored.is_none() && sync.damaged.is_none() {
        found.push(match snapshot.usable() {
            None => critical(Reason::NoBackup, "the repository holds no backup yet", None),
            Some(newest) => critical(
                Reason::NoBackup,
                format!("backup {} is not restored here yet", newest.id),
                None,
            ),
        });
    }
    if !sync.failed.is_empty() {
        let kinds: Vec<_> = sync.failed.iter().take(5).map(|(k, n)| format!("{n} {k}")).collect();
        let message = format!("could not be restored: {}", kinds.join(", "));
        found.push(warning(Reason::SyncPartial, message, None));
    }
    found.extend(super::held::problem(sync));
    found.extend(drift(&sync.drift));
    found.extend(super::newest::problems(snapshot));
    found.extend(data_age(snapshot, now).into_iter().chain(rehearsal::problem(&sync.rehearsal)));
    found.extend(checklist(snapshot, &found));
    if let Some(peer) = snapshot.primary_peer().filter(|peer| peer.silent) {
        found.push(warning(
            Reason::PrimarySilent,
            format!("{} was last seen alive {} ago", peer.hub, age_of(peer.heartbeat_at, now)),
            Some(format!("dead, or only cut off? If dead: {}", promote_command(snapshot, false))),
        ));
    }
    found
}

fn data_age(snapshot: &Snapshot, now: Timestamp) -> Option<Problem> {
    let restored = snapshot.sync.restored.as_ref()?;
    let rpo = snapshot.objectives.rpo_seconds;
    let old = seconds_between(restored.at, now);
    (rpo > 0 && old > rpo).then(|| {
        let message =
            format!("the data of this hub is {} old, the objective is {}", span(old), span(rpo));
        warning(Reason::DataTooOld, message, None)
    })
}

/// Preconditions that fail and that no other problem has named already. That the primary is alive
/// is not a problem.
fn checklist(snapshot: &Snapshot, found: &[Problem]) -> Vec<Problem> {
    snapshot
        .promotion
        .checklist
        .iter()
        .filter(|check| check.refuses() && check.name != PRIMARY_SILENT)
        .map(|check| {
            let message = format!("{}: {}", check.name, check.why);
            critical(Reason::NotPromotable, message, check.hint.clone())
        })
        // One cause, one line: the checklist repeats what storage, keys and sync already said.
        .filter(|_| !found.iter().any(|problem| problem.severity == Severity::Critical))
        .filter(|_| snapshot.storage.up != Some(false) && snapshot.keys.error.is_none())
        .collect()
}

fn promotion(snapshot: &Snapshot) -> Vec<Problem> {
    let failed = &snapshot.promotion.failed;
    if failed.is_empty() {
        return Vec::new();
    }
    let message = format!("could not be activated: {}", plural(failed.len(), "object", "objects"));
    vec![warning(Reason::PromotionFailed, message, None)]
}

/// The names of the standbys in one state.
pub fn standbys(snapshot: &Snapshot, state: Standby) -> Vec<&str> {
    snapshot
        .peers
        .iter()
        .filter(|peer| peer.standby(snapshot.usable()) == Some(state))
        .map(|peer| peer.hub.as_str())
        .collect()
}

/// The command that promotes this hub. `forced`: although the primary does not look dead.
pub fn promote_command(snapshot: &Snapshot, forced: bool) -> String {
    let hub = &snapshot.hub;
    let command = annotate_hub(snapshot, hub);
    if forced {
        format!(
            "{command} understudy.dev/promote-reason='…' 'understudy.dev/promote={hub}!primary-is-dead'"
        )
    } else {
        format!("{command} understudy.dev/promote={hub}")
    }
}

/// The beginning of every command that asks a hub of the pair, whose daemons live in namespaces of the
/// same name.
pub(super) fn annotate_hub(snapshot: &Snapshot, hub: &str) -> String {
    let namespace = match snapshot.namespace.as_str() {
        "" => String::new(),
        name => format!(" -n {name}"),
    };
    format!("kubectl{namespace} annotate hubs.understudy.dev {hub}")
}
