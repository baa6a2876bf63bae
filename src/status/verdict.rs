//! Pure: the sentences that stand first on every surface: what this hub is, whether it could take
//! over, and what would be lost.
//!
//! The verdict comes before any figure, names absolute and relative times, and uses words, never
//! only a colour. Nothing is said that the snapshot does not hold.

use super::handover::{self, by_this_hub};
use super::problem::{Problem, REJOIN, Reason, Severity, problems, promote_command, standbys};
use super::words::{age_of, clock, moment, plural, seconds_between, span, span_of};
use super::{PRIMARY_SILENT, Role, Snapshot, Standby};
use jiff::Timestamp;
use serde::Serialize;

/// How many problems are listed; the rest follow from the first ones more often than not.
pub const MAX_PROBLEMS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Good,
    Attention,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub level: Level,
    pub headline: String,
    pub sentences: Vec<String>,
    /// Worst first, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
}

impl Verdict {
    /// For `status --exit-code`: nothing critical.
    pub fn healthy(&self) -> bool {
        self.level != Level::Bad
    }
}

pub fn verdict(snapshot: &Snapshot, now: Timestamp) -> Verdict {
    let mut problems = problems(snapshot, now);
    let worst = problems.first();
    let level = match worst.map(|problem| problem.severity) {
        Some(Severity::Critical) => Level::Bad,
        Some(Severity::Warning) => Level::Attention,
        None if matches!(snapshot.role, None | Some(Role::Promoting)) => Level::Attention,
        None => Level::Good,
    };
    let (headline, mut sentences) = match (&snapshot.frozen, snapshot.role) {
        (Some(_), _) => frozen(snapshot, worst),
        (None, None) => starting(snapshot, worst),
        (None, Some(Role::Fenced)) => fenced(snapshot, now),
        (None, Some(Role::Promoting)) => promoting(snapshot, now),
        (None, Some(Role::Passive)) => match by_this_hub(snapshot) {
            Some(handed) => handover::verdict(snapshot, handed, now),
            None => passive(snapshot, worst, now),
        },
        (None, Some(Role::Primary)) => primary(snapshot, worst, now),
    };
    sentences.extend(snapshot.sync.progress.as_ref().map(|progress| format!("Now {progress}.")));
    problems.truncate(MAX_PROBLEMS);
    Verdict { level, headline, sentences, problems }
}

/// Whether a promotion would be accepted if the primary were silent.
pub fn standby_ready(snapshot: &Snapshot, now: Timestamp) -> bool {
    snapshot.role == Some(Role::Passive)
        && problems(snapshot, now).iter().all(|problem| problem.severity != Severity::Critical)
}

fn frozen(snapshot: &Snapshot, worst: Option<&Problem>) -> (String, Vec<String>) {
    let reason = worst.map_or(Reason::Frozen, |problem| problem.reason);
    let sentence = "Nothing is backed up, restored or written to the repository until an operator \
                    has looked.";
    (format!("{} is FROZEN: {reason}.", snapshot.hub), vec![sentence.to_owned()])
}

fn starting(snapshot: &Snapshot, worst: Option<&Problem>) -> (String, Vec<String>) {
    let sentence = "The role stands in the repository's journal, which was not read yet; until \
                    then nothing is written.";
    let headline = match worst {
        Some(problem) => format!("{} IS STARTING, BUT: {}.", snapshot.hub, problem.reason),
        None => format!("{} IS STARTING.", snapshot.hub),
    };
    (headline, vec![sentence.to_owned()])
}

fn fenced(snapshot: &Snapshot, now: Timestamp) -> (String, Vec<String>) {
    let holder = snapshot.holder.as_deref().unwrap_or("another hub");
    let since =
        snapshot.role_since.map_or(String::new(), |at| format!(", seen at {}", clock(at, now)));
    let headline =
        format!("{} is FENCED: {holder} promoted (epoch {}{since}).", snapshot.hub, snapshot.epoch);
    let stop = "What this hub's own controllers still do is outside Understudy: stop them if they \
                manage the same clusters.";
    (headline, vec![format!("Nothing is written.  Next: {REJOIN}"), stop.to_owned()])
}

fn promoting(snapshot: &Snapshot, now: Timestamp) -> (String, Vec<String>) {
    let facts = &snapshot.promotion;
    let phase = facts.phase.as_deref().unwrap_or("Requested");
    let running = facts
        .started_at
        .map_or(String::new(), |at| format!(", for {}", span(seconds_between(at, now))));
    let by = facts.trigger.as_deref().map_or(String::new(), |by| format!(", asked for by {by}"));
    let mut sentences = Vec::new();
    sentences.push(if phase == "Requested" {
        "No term is taken yet: the old primary is still in force.".to_owned()
    } else {
        let epoch = snapshot.epoch;
        format!(
            "Epoch {epoch} is taken: the old primary can no longer write.  This is past the point \
             of no return and goes on after a restart."
        )
    });
    if let Some(base) = &facts.base {
        let loss = facts.data_loss_seconds.map_or(String::new(), |seconds| {
            format!("; at most the changes of its last {} are lost", span(seconds))
        });
        sentences.push(format!("It starts from backup {base}{loss}."));
    }
    if facts.activated > 0 {
        let activated =
            plural(usize::try_from(facts.activated).unwrap_or(usize::MAX), "object", "objects");
        sentences.push(format!("{activated} activated so far."));
    }
    (format!("PROMOTING {}: {phase}{running}{by}.", snapshot.hub), sentences)
}

fn passive(snapshot: &Snapshot, worst: Option<&Problem>, now: Timestamp) -> (String, Vec<String>) {
    let headline = match worst {
        Some(problem) if problem.severity == Severity::Critical => {
            format!("NOT READY TO TAKE OVER: {}.", problem.reason)
        }
        // A primary that is gone is what the standby is for, not a flaw of the standby.
        Some(Problem { reason: Reason::PrimarySilent | Reason::HandedOver, .. }) | None => {
            "READY TO TAKE OVER.".to_owned()
        }
        Some(problem) => {
            format!("READY TO TAKE OVER, but: {}.", problem.reason)
        }
    };
    let mut sentences = vec![primary_alive(snapshot, now)];
    sentences.extend(exposure(snapshot, "If promoted now you would lose", now));
    sentences.extend(snapshot.drill.sentence(snapshot.objectives.rto_seconds, now));
    (headline, sentences)
}

fn primary_alive(snapshot: &Snapshot, now: Timestamp) -> String {
    let refused =
        snapshot.promotion.checklist.iter().any(|check| check.name == PRIMARY_SILENT && !check.ok);
    match snapshot.primary_peer() {
        None => "No primary was seen alive since this daemon started.".to_owned(),
        Some(peer) if peer.silent => format!(
            "Primary {} is SILENT since {}: if it is dead, promote with: {}",
            peer.hub,
            moment(peer.heartbeat_at, now),
            promote_command(snapshot, false),
        ),
        Some(peer) => {
            let but = if refused { ", so promotion would be refused unless forced" } else { "" };
            let ago = age_of(peer.heartbeat_at, now);
            format!("Primary {} is alive ({ago} ago){but}.", peer.hub)
        }
    }
}

/// What the newest backup that is in force leaves uncovered, and whether that is within the objective.
fn exposure(snapshot: &Snapshot, lead: &str, now: Timestamp) -> Option<String> {
    let newest = snapshot.usable()?;
    let lost = seconds_between(newest.at, now);
    let rpo = match snapshot.objectives.rpo_seconds {
        0 => String::new(),
        rpo if lost <= rpo => format!("  RPO {}: met.", span(rpo)),
        rpo => format!("  RPO {}: NOT met.", span(rpo)),
    };
    let since = clock(newest.at, now);
    Some(format!("{lead} at most the changes since {since} ({}).{rpo}", age_of(newest.at, now)))
}

fn primary(snapshot: &Snapshot, worst: Option<&Problem>, now: Timestamp) -> (String, Vec<String>) {
    let ready = standbys(snapshot, Standby::Ready);
    let headline = match worst {
        Some(problem) if problem.severity == Severity::Critical => {
            format!("NOT PROTECTED: {}.", problem.reason)
        }
        Some(_) if ready.is_empty() => "BACKED UP, but no standby is ready.".to_owned(),
        Some(problem) => format!("PROTECTED, but: {}.", problem.reason),
        None => "PROTECTED.".to_owned(),
    };
    let mut sentences = Vec::new();
    sentences.extend(exposure(snapshot, "If this hub died now you would lose", now));
    let mut counts = vec![format!(
        "{} ready{}",
        plural(ready.len(), "standby", "standbys"),
        if ready.is_empty() { String::new() } else { format!(" ({})", some(&ready)) }
    )];
    for state in [Standby::Lagging, Standby::Silent] {
        let names = standbys(snapshot, state);
        if !names.is_empty() {
            counts.push(format!("{} {} ({})", names.len(), state.name(), some(&names)));
        }
    }
    sentences.push(format!("{}.", counts.join(", ")));
    sentences.extend(promoted(snapshot, now));
    (headline, sentences)
}

/// The first names; whoever has more hubs than fit into a sentence looks at the table.
fn some(names: &[&str]) -> String {
    const MAX: usize = 5;
    let more = if names.len() > MAX { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(MAX)].join(", "))
}

/// A promotion stays worth a sentence for a day.
fn promoted(snapshot: &Snapshot, now: Timestamp) -> Option<String> {
    const WORTH_TELLING: u64 = 24 * 60 * 60;
    let facts = &snapshot.promotion;
    let finished = facts.finished_at.filter(|at| seconds_between(*at, now) < WORTH_TELLING)?;
    let took = facts.started_at.map_or(String::new(), |at| {
        format!(" in {}", span_of(finished.duration_since(at).as_secs_f64()))
    });
    let base = facts.base.as_deref().map_or(String::new(), |id| format!(" from backup {id}"));
    let failed = match facts.failed.len() {
        0 => String::new(),
        failed => format!("; {} could not be activated", plural(failed, "object", "objects")),
    };
    Some(format!("Promoted at {}{took}{base}{failed}.", moment(finished, now)))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, ago, now};
    use super::super::{Frozen, Outcome};
    use super::*;
    use crate::progress::pace::Progress;

    fn check(snapshot: &Snapshot, level: Level, expected: &[&str]) {
        let Verdict { level: found, headline, sentences, problems } = verdict(snapshot, now());
        let mut lines = vec![headline];
        lines.extend(sentences);
        lines.extend(problems.iter().map(|p| format!("{}: {}", p.reason, p.message)));
        assert_eq!(lines, expected);
        assert_eq!(found, level);
    }

    #[test]
    fn a_restore_that_runs_tells_how_far_it_is() {
        let mut snapshot = samples::passive();
        snapshot.sync.progress = Some(Progress {
            doing: "restoring".to_owned(),
            what: "objects".to_owned(),
            done: 1_200,
            total: Some(20_000),
            left_seconds: Some(38),
        });
        let told = "Now restoring 1,200 of 20,000 objects, 38s left.";
        assert_eq!(verdict(&snapshot, now()).sentences.last().unwrap(), told);
    }

    #[test]
    fn a_standby_says_whether_it_could_take_over_and_what_would_be_lost() {
        check(
            &samples::passive(),
            Level::Good,
            &[
                "READY TO TAKE OVER.",
                "Primary eu-1 is alive (41s ago), so promotion would be refused unless forced.",
                "If promoted now you would lose at most the changes since 17:30Z (7m).  RPO 1h: met.",
                "Last drill 4m12s, 12 days ago (RTO 15m).",
            ],
        );
        check(
            &samples::abandoned(),
            Level::Attention,
            &[
                "READY TO TAKE OVER.",
                "Primary eu-1 is SILENT since 17:30Z (7m ago): if it is dead, promote with: kubectl \
                 -n understudy annotate hubs.understudy.dev eu-2 understudy.dev/promote=eu-2",
                "If promoted now you would lose at most the changes since 17:30Z (7m).  RPO 1h: met.",
                "Last drill 4m12s, 12 days ago (RTO 15m).",
                "PrimarySilent: eu-1 was last seen alive 7m ago",
            ],
        );
    }

    #[test]
    fn a_standby_that_is_not_ready_says_why_first() {
        let mut snapshot = samples::passive();
        snapshot.storage.up = Some(false);
        snapshot.storage.error = Some("connection refused".to_owned());
        snapshot.sync.prune_held = Some("612 deletions are more than 500".to_owned());
        check(
            &snapshot,
            Level::Bad,
            &[
                "NOT READY TO TAKE OVER: StorageUnavailable.",
                "Primary eu-1 is alive (41s ago), so promotion would be refused unless forced.",
                "If promoted now you would lose at most the changes since 17:30Z (7m).  RPO 1h: met.",
                "Last drill 4m12s, 12 days ago (RTO 15m).",
                "StorageUnavailable: s3://hub-dr/eu-hubs/: connection refused, last tried 20s ago",
                "PruneHeld: 612 deletions are more than 500",
            ],
        );
        snapshot.storage.up = Some(true);
        assert_eq!(verdict(&snapshot, now()).headline, "READY TO TAKE OVER, but: PruneHeld.");
        snapshot.sync.damaged = Some("pack 7f does not authenticate".to_owned());
        let found = verdict(&snapshot, now());
        assert_eq!(found.headline, "NOT READY TO TAKE OVER: BackupDamaged.");
        assert_eq!(
            found.problems[0].message,
            "pack 7f does not authenticate; backup 20261120-173000-42 stays in force"
        );
    }

    #[test]
    fn old_data_misses_the_objective() {
        let mut snapshot = samples::passive();
        let old = samples::backup("20261120-153000-38", "eu-1", 7, 7632);
        snapshot.newest = Some(old.clone());
        snapshot.sync.restored = Some(old);
        check(
            &snapshot,
            Level::Attention,
            &[
                "READY TO TAKE OVER, but: DataTooOld.",
                "Primary eu-1 is alive (41s ago), so promotion would be refused unless forced.",
                "If promoted now you would lose at most the changes since 15:30Z (2h).  RPO 1h: NOT met.",
                "Last drill 4m12s, 12 days ago (RTO 15m).",
                "DataTooOld: the data of this hub is 2h7m old, the objective is 1h",
            ],
        );
    }

    #[test]
    fn what_would_be_lost_counts_from_the_backup_that_is_in_force() {
        let why = "against backup 20261120-170000-41: resources fell from 9 to 0";
        check(
            &samples::shrunk(samples::primary()),
            Level::Attention,
            &[
                "PROTECTED, but: BackupSuspect.",
                "If this hub died now you would lose at most the changes since 17:00Z (37m).  RPO 1h: met.",
                "1 standby ready (eu-2).",
                &format!(
                    "BackupSuspect: backup 20261120-173000-42 is suspect, standbys keep to \
                     20261120-170000-41: {why}"
                ),
            ],
        );
        let passive = samples::shrunk(samples::passive());
        check(
            &passive,
            Level::Attention,
            &[
                "READY TO TAKE OVER, but: ShrinkRefused.",
                "Primary eu-1 is alive (41s ago), so promotion would be refused unless forced.",
                "If promoted now you would lose at most the changes since 17:00Z (37m).  RPO 1h: met.",
                "Last drill 4m12s, 12 days ago (RTO 15m).",
                &format!(
                    "ShrinkRefused: this hub keeps to 20261120-170000-41 and does not apply backup \
                     20261120-173000-42: {why}"
                ),
            ],
        );
        let hint = verdict(&passive, now()).problems[0].hint.clone().unwrap();
        let ack = "understudy backup ack 20261120-173000-42";
        assert_eq!(hint, format!("if it is in order, on eu-1: {ack}"));
    }

    #[test]
    fn a_primary_counts_its_standbys() {
        let mut snapshot = samples::primary();
        let loss = "If this hub died now you would lose at most the changes since 17:30Z (7m).  RPO 1h: met.";
        check(&snapshot, Level::Good, &["PROTECTED.", loss, "1 standby ready (eu-2)."]);
        snapshot.peers[0].silent = true;
        check(
            &snapshot,
            Level::Attention,
            &[
                "BACKED UP, but no standby is ready.",
                loss,
                "0 standbys ready, 1 silent (eu-2).",
                "NoReadyStandby: of 1 standby none is ready",
            ],
        );
        snapshot.backup.deadline_at = Some(ago(60));
        snapshot.backup.last_outcome = Some(Outcome::Failed);
        snapshot.backup.last_error = Some("failed to list pods".to_owned());
        let found = verdict(&snapshot, now());
        assert_eq!(found.headline, "NOT PROTECTED: BackupOverdue.");
        assert!(!found.healthy());
        assert_eq!(
            found.problems[0].message,
            "a backup was due by 17:36Z; the last one succeeded at 17:30Z (7m ago); failed to list pods"
        );
    }

    #[test]
    fn a_fenced_a_frozen_and_a_starting_hub_say_so_first() {
        check(
            &samples::fenced(),
            Level::Bad,
            &[
                "eu-1 is FENCED: eu-2 promoted (epoch 8, seen at 16:37Z).",
                "Nothing is written.  Next: understudy rejoin --dry-run",
                "What this hub's own controllers still do is outside Understudy: stop them if they \
                 manage the same clusters.",
                "Fenced: eu-2 holds epoch 8, seen here at 16:37Z: this hub writes nothing",
            ],
        );
        check(
            &samples::frozen(),
            Level::Bad,
            &[
                "eu-2 is FROZEN: JournalHole.",
                "Nothing is backed up, restored or written to the repository until an operator has looked.",
                "JournalHole: slot 40 is absent, slot 42 is there",
            ],
        );
        let waiting = "The role stands in the repository's journal, which was not read yet; until \
                       then nothing is written.";
        let mut snapshot = samples::starting();
        check(&snapshot, Level::Attention, &["eu-2 IS STARTING.", waiting]);
        snapshot.storage.up = Some(false);
        assert_eq!(
            verdict(&snapshot, now()).headline,
            "eu-2 IS STARTING, BUT: StorageUnavailable."
        );
    }

    #[test]
    fn a_promotion_tells_its_step_and_the_point_of_no_return() {
        check(
            &samples::promoting(),
            Level::Attention,
            &[
                "PROMOTING eu-2: Activating, for 12s, asked for by signal.",
                "Epoch 8 is taken: the old primary can no longer write.  This is past the point of \
                 no return and goes on after a restart.",
                "It starts from backup 20261120-173000-42; at most the changes of its last 7m are lost.",
                "31,900 objects activated so far.",
            ],
        );
        let mut snapshot = samples::promoting();
        snapshot.promotion.phase = Some("Requested".to_owned());
        assert_eq!(
            verdict(&snapshot, now()).sentences[0],
            "No term is taken yet: the old primary is still in force."
        );
    }

    #[test]
    fn a_finished_promotion_is_told_for_a_day() {
        let mut snapshot = samples::primary();
        snapshot.promotion.started_at = Some(ago(300));
        snapshot.promotion.finished_at = Some(ago(240));
        snapshot.promotion.base = Some("20261120-173000-42".to_owned());
        let told = "Promoted at 17:33Z (4m ago) in 1m from backup 20261120-173000-42.";
        assert_eq!(verdict(&snapshot, now()).sentences.last().unwrap(), told);
        snapshot.promotion.finished_at = Some(ago(2 * 86_400));
        assert_ne!(verdict(&snapshot, now()).sentences.last().unwrap(), told);
    }

    #[test]
    fn a_failed_precondition_makes_a_standby_unready_but_a_live_primary_does_not() {
        let mut snapshot = samples::passive();
        assert!(standby_ready(&snapshot, now()));
        snapshot.promotion.checklist[3].ok = false;
        assert!(!standby_ready(&snapshot, now()));
        assert_eq!(verdict(&snapshot, now()).headline, "NOT READY TO TAKE OVER: NotPromotable.");
    }

    #[test]
    fn an_unknown_reason_still_freezes_loudly() {
        let mut snapshot = samples::passive();
        let hint = String::new();
        snapshot.frozen =
            Some(Frozen { reason: "Later".to_owned(), message: "x".to_owned(), hint });
        assert_eq!(verdict(&snapshot, now()).headline, "eu-2 is FROZEN: Frozen.");
    }
}
