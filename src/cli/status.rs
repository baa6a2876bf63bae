//! `understudy status`: the verdict and the figures of a hub, read from its `Hub` resource or, where
//! there is no API server, from the daemon's own endpoint.
//!
//! The daemon's words may be old: when nobody has reported for some minutes, that is said first, and
//! the exit code says that the hub is not healthy.

use super::render::{Align, Column, Output, plain, pretty, table};
use crate::http::{ReadStatus, StatusDocument};
use crate::kube_status::{Hub, HubError, list, load};
use crate::object::Set;
use crate::status::clusters::{ClusterFacts, Line, of_this_term};
use crate::status::problem::{Reason, Severity};
use crate::status::verdict::{Level, verdict};
use crate::status::words::{age_of, clock, count, full, span_of, until};
use crate::status::{Role, Snapshot};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write as _;
use std::time::Duration;

/// The daemon reports at least every two minutes; with one missed report it counts as silent.
pub const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Of the daemon's endpoint, which answers from memory.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("failed to read the status from Kubernetes")]
    Hub(#[source] HubError),
    #[error("namespace {namespace} holds no hub: no daemon was started there")]
    NoHub { namespace: String },
    #[error("there is no hub {name} in namespace {namespace}")]
    UnknownHub { namespace: String, name: String },
    #[error("namespace {namespace} holds several hubs: name one of {}", names.join(", "))]
    SeveralHubs { namespace: String, names: Vec<String> },
    #[error("hub {name} has no status that this version can read")]
    NoStatus { name: String },
    #[error("failed to read the status from {url}")]
    Http { url: String, source: reqwest::Error },
    #[error("failed to write the status as JSON")]
    Json(#[source] serde_json::Error),
}

/// What was known, by whom, and when.
#[derive(Clone, Debug)]
pub struct Seen {
    pub snapshot: Snapshot,
    pub reported_at: Timestamp,
    /// For the header: `seen from hub eu-2`.
    pub viewpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For standard output.
    pub text: String,
    /// `--exit-code` ends with 4 when not.
    pub healthy: bool,
}

/// From the `Hub` resource: `hub`, or the only one of the namespace.
pub async fn from_hub(
    client: &kube::Client,
    namespace: &str,
    hub: Option<&str>,
) -> Result<Seen, StatusError> {
    let found = if let Some(name) = hub {
        let unknown =
            || StatusError::UnknownHub { namespace: namespace.to_owned(), name: name.to_owned() };
        load(client, namespace, name).await.map_err(StatusError::Hub)?.ok_or_else(unknown)?
    } else {
        the_only(list(client, namespace).await.map_err(StatusError::Hub)?, namespace)?
    };
    let name = found.metadata.name.unwrap_or_default();
    let status = found.status.unwrap_or_default();
    match (status.snapshot(), status.reported_at) {
        (Some(snapshot), Some(reported_at)) => {
            let viewpoint = format!("seen from hub {name}");
            Ok(Seen { snapshot, reported_at, viewpoint })
        }
        (_, _) => Err(StatusError::NoStatus { name }),
    }
}

fn the_only(mut hubs: Vec<Hub>, namespace: &str) -> Result<Hub, StatusError> {
    if hubs.len() > 1 {
        let names = hubs.into_iter().filter_map(|hub| hub.metadata.name).collect();
        return Err(StatusError::SeveralHubs { namespace: namespace.to_owned(), names });
    }
    hubs.pop().ok_or_else(|| StatusError::NoHub { namespace: namespace.to_owned() })
}

/// From a daemon's endpoint; `base` is the address of its page.
pub async fn from_http(base: &str) -> Result<Seen, StatusError> {
    let url = format!("{}/api/v1/status", base.trim_end_matches('/'));
    let failed = |source| StatusError::Http { url: url.clone(), source };
    let client = reqwest::Client::builder().timeout(HTTP_TIMEOUT).build().map_err(failed)?;
    let response = client.get(&url).send().await.map_err(failed)?;
    let read: ReadStatus =
        response.error_for_status().map_err(failed)?.json().await.map_err(failed)?;
    let viewpoint = format!("seen from {base}");
    Ok(Seen { snapshot: read.snapshot, reported_at: read.time, viewpoint })
}

/// The same facts as a table or as JSON.
pub fn report(seen: &Seen, output: Output, now: Timestamp) -> Result<Report, StatusError> {
    let silent = is_silent(seen, now);
    // A silent daemon's loops are not stalled one by one: that would bury the one fact that counts.
    let at = if silent { seen.reported_at } else { now };
    let healthy = !silent && verdict(&seen.snapshot, at).healthy();
    let text = match output {
        Output::Json => pretty(&StatusDocument::of(seen.snapshot.clone(), at)),
        Output::Table => Ok(text(seen, now)),
    }
    .map_err(StatusError::Json)?;
    Ok(Report { text, healthy })
}

fn is_silent(seen: &Seen, now: Timestamp) -> bool {
    now.duration_since(seen.reported_at) > SILENT_AFTER
}

/// The table: verdict first, then sets, storage, keys, problems and what comes next.
pub fn text(seen: &Seen, now: Timestamp) -> String {
    let snapshot = &seen.snapshot;
    let mut text = header(seen, now);
    let at = if is_silent(seen, now) {
        let ago = age_of(seen.reported_at, now);
        let _ = writeln!(
            text,
            "  THE DAEMON HAS NOT REPORTED FOR {ago}.  What follows is what it last knew.\n"
        );
        seen.reported_at
    } else {
        now
    };
    let verdict = verdict(snapshot, at);
    let mark = match verdict.level {
        Level::Good | Level::Attention => "",
        Level::Bad => "NOT HEALTHY.  ",
    };
    let _ = writeln!(text, "  {mark}{}", verdict.headline);
    for sentence in &verdict.sentences {
        let _ = writeln!(text, "  {sentence}");
    }
    text.push('\n');
    if snapshot.role.is_some() {
        text.push_str(&sets(snapshot, at));
        text.push('\n');
    }
    let facts = [
        ("storage", storage(snapshot, at)),
        ("keys", keys(snapshot)),
        ("rehearsal", rehearsal(snapshot, at)),
        ("next", next(snapshot, at)),
        ("clusters", of_this_term(snapshot).map(ClusterFacts::sentence).unwrap_or_default()),
    ];
    for (name, fact) in facts.into_iter().filter(|(_, fact)| !fact.is_empty()) {
        let _ = writeln!(text, "{name:<9} {fact}");
    }
    for Line { cluster, state, why, next } in of_this_term(snapshot).iter().flat_map(|c| &c.named) {
        let _ = writeln!(text, "{:<9} {cluster} {}: {}", "", state.name(), plain(why));
        let _ = writeln!(text, "{:<9} -> {}", "", plain(next));
    }
    for problem in &verdict.problems {
        let name = match problem.severity {
            Severity::Critical => "problem",
            Severity::Warning => "warning",
        };
        let _ = writeln!(text, "{name:<9} {}  {}", problem.reason, problem.message);
        if let Some(hint) = &problem.hint {
            let _ = writeln!(text, "{:<9} -> {hint}", "");
        }
    }
    text
}

/// `hub eu-2   PASSIVE  epoch 7  (configured passive)          pair eu-hubs, seen from …`
fn header(seen: &Seen, now: Timestamp) -> String {
    let snapshot = &seen.snapshot;
    let role = snapshot.role.map_or("STARTING".to_owned(), |role| role.name().to_uppercase());
    let state = if snapshot.frozen.is_some() { format!("{role}, FROZEN") } else { role };
    let configured = match snapshot.configured_role {
        crate::config::settings::InitialRole::Primary => Role::Primary.name(),
        crate::config::settings::InitialRole::Passive => Role::Passive.name(),
    };
    format!(
        "hub {}   {state}  epoch {}  (configured {configured})          pair {}, {} at {}\n\n",
        snapshot.hub,
        snapshot.epoch,
        snapshot.pair,
        seen.viewpoint,
        full(now)
    )
}

fn sets(snapshot: &Snapshot, now: Timestamp) -> String {
    let newest = snapshot.newest.as_ref();
    let objects = |set: Set| {
        let summary = newest.and_then(|backup| backup.sets.get(&set));
        summary.map_or_else(|| "-".to_owned(), |summary| count(summary.objects))
    };
    let newest_id = || newest.map_or_else(|| "-".to_owned(), |backup| backup.id.clone());
    let newest_age = || newest.map_or_else(|| "-".to_owned(), |backup| age_of(backup.at, now));
    if snapshot.role == Some(Role::Passive) {
        const COLUMNS: [Column; 6] = [
            ("SET", Align::Left),
            ("NEWEST IN STORAGE", Align::Left),
            ("ON THIS HUB", Align::Left),
            ("DATA AGE", Align::Left),
            ("OBJECTS", Align::Right),
            ("LAST SYNC", Align::Left),
        ];
        let restored = snapshot.sync.restored.as_ref();
        let rows = Set::ALL.map(|set| {
            let held = if set == Set::Activation { snapshot.usable() } else { restored };
            let (here, last) = if set == Set::Activation {
                ("held back".to_owned(), "restored only at promotion".to_owned())
            } else {
                let here = held.map_or_else(|| "-".to_owned(), |backup| backup.id.clone());
                (here, last_sync(snapshot, now))
            };
            let age = held.map_or_else(|| "-".to_owned(), |backup| age_of(backup.at, now));
            vec![set.name().to_owned(), newest_id(), here, age, objects(set), last]
        });
        table(&COLUMNS, rows)
    } else {
        const COLUMNS: [Column; 5] = [
            ("SET", Align::Left),
            ("NEWEST IN STORAGE", Align::Left),
            ("DATA AGE", Align::Left),
            ("OBJECTS", Align::Right),
            ("CHANGED", Align::Right),
        ];
        let rows = Set::ALL.map(|set| {
            let summary = newest.and_then(|backup| backup.sets.get(&set));
            let changed = summary.map_or_else(|| "-".to_owned(), |s| count(s.changed));
            vec![set.name().to_owned(), newest_id(), newest_age(), objects(set), changed]
        });
        table(&COLUMNS, rows)
    }
}

fn last_sync(snapshot: &Snapshot, now: Timestamp) -> String {
    let sync = &snapshot.sync;
    let Some(outcome) = sync.last_outcome else { return "-".to_owned() };
    let ago = sync.last_attempt_at.map_or(String::new(), |at| format!(", {} ago", age_of(at, now)));
    format!("{}{ago}", outcome.name())
}

fn storage(snapshot: &Snapshot, now: Timestamp) -> String {
    let storage = &snapshot.storage;
    let mut parts = vec![format!(
        "{}  {}",
        storage.location,
        match (storage.up, storage.latency_seconds) {
            (Some(true), Some(latency)) => format!("ok {}", span_of(latency)),
            (Some(true), None) => "ok".to_owned(),
            (Some(false), _) => "UNAVAILABLE".to_owned(),
            (None, _) => "not tried yet".to_owned(),
        }
    )];
    match (storage.atomic_create, storage.allow_unfenced) {
        (Some(false), true) => parts.push("NO FENCE (storage.allowUnfenced)".to_owned()),
        (Some(false), false) => parts.push("NO FENCE".to_owned()),
        (Some(true) | None, _) => {}
    }
    if let Some(skew) = storage.clock_skew_seconds {
        parts.push(format!("clock skew {skew:.1}s"));
    }
    if snapshot.role.is_some() {
        parts.push(format!("{} backups", snapshot.backups_in_storage));
    }
    if let Some(at) = snapshot.oldest_backup_at {
        let newest = snapshot.newest.as_ref().map_or(at, |newest| newest.at);
        parts.push(format!("since {}", clock(at, newest)));
    }
    if let Some(at) = snapshot.verify.last_success_at {
        parts.push(format!("last verify {} ago", age_of(at, now)));
    }
    parts.join(", ")
}

fn keys(snapshot: &Snapshot) -> String {
    if let Some(error) = &snapshot.keys.error {
        return format!("{}  {error}", Reason::KeyMissing);
    }
    match (snapshot.keys.known, snapshot.keys.newest_opens) {
        (0, _) => String::new(),
        (known, Some(true)) => format!("{known} known, newest backup opens"),
        (known, Some(false)) => format!("{known} known, newest backup does NOT open"),
        (known, None) => format!("{known} known"),
    }
}

fn rehearsal(snapshot: &Snapshot, now: Timestamp) -> String {
    let facts = &snapshot.sync.rehearsal;
    match (snapshot.role, facts.last_attempt_at) {
        (Some(Role::Passive), Some(at)) => format!("{}, {} ago", facts.sentence(), age_of(at, now)),
        _ => String::new(),
    }
}

fn next(snapshot: &Snapshot, now: Timestamp) -> String {
    let (what, at) = match snapshot.role {
        Some(Role::Primary) => ("backup", snapshot.backup.next_run_at),
        Some(Role::Passive) => ("sync", snapshot.sync.next_run_at),
        Some(Role::Promoting | Role::Fenced) | None => return String::new(),
    };
    let due = |what: &str, at: Option<Timestamp>| Some(format!("{what} {}", until(at?, now)));
    let first = match &snapshot.pause {
        Some(pause) => Some(format!("{what} {}", pause.sentence(now))),
        None => due(what, at),
    };
    let drill = match snapshot.role {
        Some(Role::Passive) if snapshot.drill.running_since.is_some() => {
            Some("a drill runs".to_owned())
        }
        Some(Role::Passive) => due("drill", snapshot.drill.next_run_at),
        _ => None,
    };
    let next = [first, due("verify", snapshot.verify.next_run_at), drill];
    next.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{self, ago, now};

    fn seen(snapshot: Snapshot) -> Seen {
        let viewpoint = format!("seen from hub {}", snapshot.hub);
        Seen { snapshot, reported_at: ago(20), viewpoint }
    }

    #[test]
    fn a_standby_reads_as_documented() {
        let found = report(&seen(samples::passive()), Output::Table, now()).unwrap();
        assert!(found.healthy);
        assert_eq!(
            found.text,
            "\
hub eu-2   PASSIVE  epoch 7  (configured passive)          pair eu-hubs, seen from hub eu-2 at 2026-11-20 17:37:12Z

  READY TO TAKE OVER.
  Primary eu-1 is alive (41s ago), so promotion would be refused unless forced.
  If promoted now you would lose at most the changes since 17:30Z (7m).  RPO 1h: met.
  Last drill 4m12s, 12 days ago (RTO 15m).

SET          NEWEST IN STORAGE   ON THIS HUB         DATA AGE  OBJECTS  LAST SYNC
credentials  20261120-173000-42  20261120-173000-42  7m         29,387  changed, 2m ago
resources    20261120-173000-42  20261120-173000-42  7m         14,886  changed, 2m ago
activation   20261120-173000-42  held back           7m         51,422  restored only at promotion

storage   s3://hub-dr/eu-hubs/  ok 38ms, clock skew 0.1s, 48 backups, since 2026-10-22 17:37Z, last verify 6h ago
keys      2 known, newest backup opens
rehearsal 51,422 objects tried, none was refused, 2m ago
next      sync in 2m50s · verify in 18h · drill in 78d
"
        );
    }

    #[test]
    fn a_fenced_hub_reads_as_documented() {
        let found = report(&seen(samples::fenced()), Output::Table, now()).unwrap();
        assert!(!found.healthy);
        assert_eq!(
            found.text,
            "\
hub eu-1   FENCED  epoch 8  (configured primary)          pair eu-hubs, seen from hub eu-1 at 2026-11-20 17:37:12Z

  NOT HEALTHY.  eu-1 is FENCED: eu-2 promoted (epoch 8, seen at 16:37Z).
  Nothing is written.  Next: understudy rejoin --dry-run
  What this hub's own controllers still do is outside Understudy: stop them if they manage the same clusters.

SET          NEWEST IN STORAGE   DATA AGE  OBJECTS  CHANGED
credentials  20261120-173000-42  7m         29,387        3
resources    20261120-173000-42  7m         14,886       12
activation   20261120-173000-42  7m         51,422        0

storage   s3://hub-dr/eu-hubs/  ok 38ms, clock skew 0.1s, 48 backups, since 2026-10-22 17:37Z, last verify 6h ago
keys      2 known, newest backup opens
problem   Fenced  eu-2 holds epoch 8, seen here at 16:37Z: this hub writes nothing
          -> understudy rejoin --dry-run
"
        );
    }

    #[test]
    fn a_silent_daemon_is_not_healthy_whatever_it_last_said() {
        let mut old = seen(samples::passive());
        old.reported_at = ago(720);
        old.snapshot.loops.values_mut().for_each(|at| *at = ago(723));
        let found = report(&old, Output::Table, now()).unwrap();
        assert!(!found.healthy);
        let said = "  THE DAEMON HAS NOT REPORTED FOR 12m.  What follows is what it last knew.";
        assert!(found.text.lines().any(|line| line == said), "{}", found.text);
        assert!(!found.text.contains("LoopStalled"), "{}", found.text);
    }

    #[test]
    fn json_is_the_document_of_the_endpoint() {
        let found = report(&seen(samples::primary()), Output::Json, now()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&found.text).unwrap();
        assert_eq!(
            (&value["apiVersion"], &value["kind"]),
            (&"understudy.dev/v1".into(), &"Status".into())
        );
        assert_eq!(value["verdict"]["headline"], "PROTECTED.");
        assert_eq!(value["role"], "primary");
    }
}
