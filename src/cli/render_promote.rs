//! Pure: what `understudy promote` shows: the preconditions with what would be lost and done, and the
//! report in the end.

use super::render::{Output, envelope, plain};
use crate::object::Set;
use crate::status::clusters::{ClusterFacts, Line, of_this_term};
use crate::status::words::{age_of, clock, count, full, plural, seconds_between, span};
use crate::status::{Check, Guards, Outcome, PRIMARY_SILENT, PromotionFacts, Role, Snapshot};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write as _;

const STEPS: [&str; 5] = [
    "1 take the next term: from here the old primary cannot publish, and there is no way back",
    "2 catch up with the newest backup",
    "3 restore the activation set: this hub begins to act",
    "4 start the own schedule, with a backup; managed clusters come meanwhile",
    "5 report",
];

/// What the operator demands of this promotion.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// Why the primary need not be silent.
    pub primary_is_dead: Option<String>,
    pub guards: Guards,
}

/// What a promotion would meet, as the daemon last knew it. The daemon judges again.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview<'a> {
    hub: &'a str,
    epoch: u64,
    holder: Option<&'a str>,
    backup: Option<&'a str>,
    data_loss_seconds: Option<u64>,
    checks: Vec<Check>,
    /// The first thing for which it would be refused.
    refusal: Option<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
    pub hint: Option<String>,
}

pub fn preview<'a>(snapshot: &'a Snapshot, demands: &Demands, now: Timestamp) -> Preview<'a> {
    let usable = snapshot.usable();
    let checks = checks(snapshot, demands, now);
    let refusal = not_passive(snapshot).or_else(|| {
        let first = checks.iter().find(|check| check.refuses())?;
        let Check { reason, why, hint, .. } = first.clone();
        Some(Refusal { reason, message: why, hint })
    });
    Preview {
        hub: &snapshot.hub,
        epoch: snapshot.epoch,
        holder: snapshot.holder.as_deref(),
        backup: usable.map(|usable| usable.id.as_str()),
        data_loss_seconds: usable.map(|usable| seconds_between(usable.at, now)),
        checks,
        refusal,
    }
}

fn not_passive(snapshot: &Snapshot) -> Option<Refusal> {
    let Snapshot { hub, role, epoch, .. } = snapshot;
    if let Some(frozen) = &snapshot.frozen {
        let (reason, message) = (frozen.reason.clone(), frozen.message.clone());
        return Some(Refusal { reason, message, hint: Some(frozen.hint.clone()) });
    }
    let (reason, message) = match role {
        Some(Role::Passive) => return None,
        Some(Role::Primary | Role::Promoting) => {
            ("NotPassive", format!("{hub} holds the term {epoch} already"))
        }
        Some(Role::Fenced) => ("Fenced", format!("{hub} is fenced: a newer primary has the term")),
        None => ("Starting", format!("the daemon of {hub} does not know its role yet")),
    };
    Some(Refusal { reason: reason.to_owned(), message, hint: Some("understudy status".to_owned()) })
}

/// The daemon's list, under what this request demands.
fn checks(snapshot: &Snapshot, demands: &Demands, now: Timestamp) -> Vec<Check> {
    let mut checks = snapshot.promotion.checklist.clone();
    let usable = snapshot.usable();
    let set = |check: &mut Check, ok: bool, why: String| {
        (check.ok, check.why) = (ok, why);
        check.hint.take_if(|_| ok);
    };
    for check in &mut checks {
        let age = usable.map(|usable| seconds_between(usable.at, now));
        if check.name == PRIMARY_SILENT && demands.primary_is_dead.is_some() {
            set(check, true, "the primary is declared dead by the operator".to_owned());
        } else if check.name == PRIMARY_SILENT && !check.ok {
            let command =
                "if it is surely dead: understudy promote --primary-is-dead --reason 'why'";
            check.hint = Some(command.to_owned());
        } else if check.reason == "DataTooOld"
            && let (Some(limit), Some(age)) = (demands.guards.max_data_age_seconds, age)
        {
            let why = format!(
                "the newest backup is {} old, at most {} is accepted",
                span(age),
                span(limit)
            );
            set(check, age <= limit, why);
        }
    }
    if let Some(expected) = &demands.guards.expect_backup {
        let newest = usable.map_or("none", |usable| &usable.id);
        let ok = newest == expected;
        checks.push(Check {
            name: "expected backup".to_owned(),
            reason: "UnexpectedBackup".to_owned(),
            ok,
            why: format!("the newest backup is {newest}"),
            hint: (!ok).then(|| format!("understudy promote --expect-backup {newest}")),
        });
    }
    checks
}

impl Preview<'_> {
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    pub fn render(
        &self,
        snapshot: &Snapshot,
        output: Output,
        now: Timestamp,
    ) -> Result<String, serde_json::Error> {
        match output {
            Output::Json => envelope("PromotionPreview", self),
            Output::Table => Ok(self.text(snapshot, now)),
        }
    }

    fn text(&self, snapshot: &Snapshot, now: Timestamp) -> String {
        let from = self.holder.map_or_else(String::new, |holder| format!(" from {holder}"));
        let mut text = format!(
            "Promoting {} of pair {} takes the term {}{from}.\n\n",
            self.hub,
            snapshot.pair,
            self.epoch + 1
        );
        if let Some(usable) = snapshot.usable() {
            let objects = |set| usable.sets.get(&set).map_or(0, |summary| summary.objects);
            let sets = Set::ALL.map(|set| format!("{} {}", count(objects(set)), set.name()));
            let _ = writeln!(text, "  starts from  {}: {}", usable.id, sets.join(", "));
            let (since, age) = (clock(usable.at, now), age_of(usable.at, now));
            let _ = writeln!(text, "  loses        at most the changes since {since} ({age})");
            text.push('\n');
        }
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        for check in &self.checks {
            let mark = match (check.ok, check.refuses()) {
                (true, _) => "✔",
                (false, true) => "✗",
                (false, false) => "!",
            };
            let _ = writeln!(text, "  {mark} {:width$}  {}", check.name, plain(&check.why));
            if let Some(hint) = check.hint.as_ref().filter(|_| !check.ok) {
                let _ = writeln!(text, "    {:width$}  -> {}", "", plain(hint));
            }
        }
        text.push('\n');
        for step in STEPS {
            let _ = writeln!(text, "  {step}");
        }
        if let Some(Refusal { reason, message, .. }) = &self.refusal {
            let _ = write!(text, "\nNow it would be refused: {reason}: {}\n", plain(message));
        }
        text
    }
}

/// What has begun of a promotion, a line each.
pub fn phases(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { hub, epoch, promotion, .. } = snapshot;
    let base = promotion.base.as_deref().unwrap_or("nothing");
    let activated = usize::try_from(promotion.activated).unwrap_or(usize::MAX);
    let all = [
        ("Requested", "requested: the daemon checks what must hold".to_owned()),
        (
            "TermHeld",
            format!(
                "the term {epoch} is {hub}'s: the old primary cannot publish any more; catching up \
                 with {base}"
            ),
        ),
        ("CaughtUp", "caught up".to_owned()),
        ("Activating", "restoring the activation set".to_owned()),
        ("Activated", format!("activated: {}", plural(activated, "object", "objects"))),
    ];
    let now = promotion.phase.as_deref();
    let begun = all.iter().position(|(phase, _)| Some(*phase) == now).map_or(0, |at| at + 1);
    all.into_iter().take(begun).map(|(_, line)| line).collect()
}

/// How it went, for the post-mortem.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Promoted<'a> {
    hub: &'a str,
    pair: &'a str,
    epoch: u64,
    request: Option<&'a str>,
    trigger: Option<&'a str>,
    reason: Option<&'a str>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    outcome: Option<Outcome>,
    backup: Option<&'a str>,
    data_loss_seconds: Option<u64>,
    rpo_seconds: u64,
    seconds: Option<u64>,
    rto_seconds: u64,
    activated: u64,
    failed: &'a [String],
    first_backup: Option<&'a str>,
    /// As they stood when the report was made.
    clusters: Option<&'a ClusterFacts>,
}

pub fn promoted(snapshot: &Snapshot) -> Promoted<'_> {
    let facts: &PromotionFacts = &snapshot.promotion;
    let seconds = facts.started_at.zip(facts.finished_at);
    Promoted {
        hub: &snapshot.hub,
        pair: &snapshot.pair,
        epoch: snapshot.epoch,
        request: facts.request.as_deref(),
        trigger: facts.trigger.as_deref(),
        reason: facts.forced.as_deref(),
        started_at: facts.started_at,
        finished_at: facts.finished_at,
        outcome: facts.outcome,
        backup: facts.base.as_deref(),
        data_loss_seconds: facts.data_loss_seconds,
        rpo_seconds: snapshot.objectives.rpo_seconds,
        seconds: seconds.map(|(started, finished)| seconds_between(started, finished)),
        rto_seconds: snapshot.objectives.rto_seconds,
        activated: facts.activated,
        failed: &facts.failed,
        first_backup: first_backup(snapshot),
        clusters: of_this_term(snapshot),
    }
}

/// The newest backup, if this hub wrote it in its own term.
pub fn first_backup(snapshot: &Snapshot) -> Option<&str> {
    let newest = snapshot.newest.as_ref();
    let own = newest.filter(|newest| newest.epoch == snapshot.epoch && newest.hub == snapshot.hub);
    own.map(|own| own.id.as_str())
}

impl Promoted<'_> {
    pub fn render(&self, output: Output) -> Result<String, serde_json::Error> {
        match output {
            Output::Json => envelope("Promotion", self),
            Output::Table => Ok(self.text()),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} is PRIMARY in the term {}.\n\n", self.hub, self.epoch);
        let mut line = |name: &str, what: String| {
            let _ = writeln!(text, "  {name:<13} {what}");
        };
        line("started from", self.backup.unwrap_or("nothing: there was no backup").to_owned());
        if let Some(lost) = self.data_loss_seconds {
            let met = met("RPO", self.rpo_seconds, lost);
            line("lost at most", format!("the changes of {}{met}", span(lost)));
        }
        if let (Some(seconds), Some(at)) = (self.seconds, self.started_at) {
            let met = met("RTO", self.rto_seconds, seconds);
            line("took", format!("{} from the request at {}{met}", span(seconds), full(at)));
        }
        if let Some(reason) = self.reason {
            line("forced", plain(reason));
        }
        line("activated", count(self.activated));
        for failed in self.failed {
            line("failed", plain(failed));
        }
        line("first backup", self.first_backup.unwrap_or("not there yet").to_owned());
        if let Some(clusters) = self.clusters {
            line("clusters", clusters.sentence());
            for Line { cluster, state, why, next } in &clusters.named {
                line("", format!("{cluster} {}: {}", state.name(), plain(why)));
                line("", format!("-> {}", plain(next)));
            }
        }
        text
    }
}

fn met(objective: &str, limit: u64, seconds: u64) -> String {
    match limit {
        0 => String::new(),
        limit if seconds <= limit => format!("  {objective} {}: met", span(limit)),
        limit => format!("  {objective} {}: NOT met", span(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{self, ago, now};

    fn dead() -> Demands {
        Demands { primary_is_dead: Some("fire".to_owned()), ..Demands::default() }
    }

    fn refused(snapshot: &Snapshot, demands: &Demands) -> Option<String> {
        preview(snapshot, demands, now()).refusal.map(|refusal| refusal.reason)
    }

    #[test]
    fn a_preview_reads_as_documented() {
        let snapshot = samples::passive();
        let text = preview(&snapshot, &Demands::default(), now()).text(&snapshot, now());
        assert_eq!(text, include_str!("render_promote/preview.txt"));
    }

    #[test]
    fn what_is_demanded_changes_what_is_refused() {
        let mut snapshot = samples::passive();
        assert_eq!(refused(&snapshot, &Demands::default()).as_deref(), Some("PrimaryAlive"));
        assert_eq!(refused(&snapshot, &dead()), None);
        let usable = snapshot.usable().unwrap();
        let (id, age) = (usable.id.clone(), seconds_between(usable.at, now()));
        let guarded = |max_data_age_seconds, expect_backup: Option<&str>| Demands {
            guards: Guards {
                max_data_age_seconds,
                expect_backup: expect_backup.map(ToOwned::to_owned),
            },
            ..dead()
        };
        assert_eq!(refused(&snapshot, &guarded(Some(age), Some(&id))), None);
        let too_old = refused(&snapshot, &guarded(Some(age - 1), None));
        assert_eq!(too_old.as_deref(), Some("DataTooOld"));
        let another = refused(&snapshot, &guarded(None, Some("20261120-173007-1")));
        assert_eq!(another.as_deref(), Some("UnexpectedBackup"));
        snapshot.role = Some(Role::Fenced);
        assert_eq!(refused(&snapshot, &dead()).as_deref(), Some("Fenced"));
        snapshot.role = Some(Role::Primary);
        assert_eq!(refused(&snapshot, &dead()).as_deref(), Some("NotPassive"));
        snapshot.role = None;
        assert_eq!(refused(&snapshot, &dead()).as_deref(), Some("Starting"));
    }

    #[test]
    fn the_report_reads_as_documented() {
        let mut snapshot = samples::primary();
        (snapshot.hub, snapshot.epoch) = ("eu-2".to_owned(), 8);
        snapshot.promotion = PromotionFacts {
            request: Some("r".to_owned()),
            trigger: Some("cli".to_owned()),
            forced: Some("the rack\u{1b} is on fire".to_owned()),
            started_at: Some(ago(100)),
            finished_at: Some(ago(28)),
            base: Some("20261120-173000-42".to_owned()),
            data_loss_seconds: Some(420),
            activated: 51_422,
            failed: vec!["3 managedclusters.cluster.open-cluster-management.io".to_owned()],
            ..PromotionFacts::default()
        };
        assert_eq!(promoted(&snapshot).text(), include_str!("render_promote/report.txt"));
    }
}
