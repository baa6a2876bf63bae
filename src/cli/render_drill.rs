//! Pure: the report of a drill, for people and for the archive.

use super::render::{Output, envelope, plain};
use crate::repository::drill::Drill;
use crate::status::Snapshot;
use crate::status::words::{count, full, span, span_of};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    hub: &'a str,
    pair: &'a str,
    /// The term under which it was passive.
    epoch: u64,
    outcome: &'static str,
    ended_at: Timestamp,
    backup: &'a str,
    seconds: f64,
    opening_seconds: f64,
    planning_seconds: f64,
    trying_seconds: f64,
    rto_seconds: u64,
    tried: u64,
    untried: u64,
    failed: &'a BTreeMap<String, u64>,
    /// The first of them, each with the reason.
    failed_objects: &'a [String],
    error: Option<&'a str>,
    last_success_at: Option<Timestamp>,
    next_drill_at: Option<Timestamp>,
}

/// Of the last one. None: there was none yet.
pub fn report(snapshot: &Snapshot) -> Option<Report<'_>> {
    let facts = &snapshot.drill;
    let last = facts.last.as_ref()?;
    let Drill { at, backup, seconds, opening, planning, trying, tried, untried, failed, error } =
        last;
    Some(Report {
        hub: &snapshot.hub,
        pair: &snapshot.pair,
        epoch: snapshot.epoch,
        outcome: match (last.succeeded(), error) {
            (true, _) => "success",
            (false, None) => "partial",
            (false, Some(_)) => "failed",
        },
        ended_at: *at,
        backup,
        seconds: *seconds,
        opening_seconds: *opening,
        planning_seconds: *planning,
        trying_seconds: *trying,
        rto_seconds: snapshot.objectives.rto_seconds,
        tried: *tried,
        untried: *untried,
        failed,
        failed_objects: &facts.named,
        error: error.as_deref(),
        last_success_at: facts.success.as_ref().map(|success| success.at),
        next_drill_at: facts.next_run_at,
    })
}

impl Report<'_> {
    pub fn render(&self, output: Output) -> Result<String, serde_json::Error> {
        match output {
            Output::Json => envelope("Drill", self),
            Output::Table => Ok(self.text()),
        }
    }

    fn text(&self) -> String {
        let ended = match self.outcome {
            "success" => "this hub would take everything",
            "partial" => "this hub would NOT take everything",
            _ => "it did not come to its end",
        };
        let (hub, at) = (self.hub, full(self.ended_at));
        let mut text = format!("Drill on {hub}, {at}: {ended}.  Nothing was changed.\n\n");
        let mut line = |name: &str, what: String| {
            let _ = writeln!(text, "  {name:<13} {what}");
        };
        line("backup", plain(self.backup));
        line("took", format!("{}{}", span_of(self.seconds), self.rto()));
        line("opening", format!("{}  fetched, verified, decrypted", span_of(self.opening_seconds)));
        line("planning", span_of(self.planning_seconds));
        line("trying", format!("{}  in dry runs", span_of(self.trying_seconds)));
        line("tried", count(self.tried));
        if self.untried > 0 {
            let why = "their namespace or kind comes with the promotion";
            line("not tried", format!("{}  {why}", count(self.untried)));
        }
        for (kind, failed) in self.failed {
            line("refused", format!("{} {}", count(*failed), plain(kind)));
        }
        for named in self.failed_objects {
            line("", plain(named));
        }
        if let Some(error) = self.error {
            line("error", plain(error));
        }
        let never = || "never".to_owned();
        line("last success", self.last_success_at.map_or_else(never, full));
        line("next drill", self.next_drill_at.map_or_else(never, full));
        text
    }

    fn rto(&self) -> String {
        #[allow(clippy::cast_precision_loss)] // hours
        let limit = self.rto_seconds as f64;
        match self.rto_seconds {
            0 => String::new(),
            rto if self.seconds <= limit => format!("  RTO {}: met", span(rto)),
            rto => format!("  RTO {}: NOT met", span(rto)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    #[test]
    fn a_report_says_what_was_found_and_how_long_each_step_took() {
        let mut snapshot = samples::passive();
        let last = snapshot.drill.last.as_mut().unwrap();
        (last.opening, last.planning, last.trying) = (41.0, 3.2, 208.2);
        let success = report(&snapshot).unwrap().text();
        assert_eq!(
            success,
            "\
Drill on eu-2, 2026-11-08 17:37:12Z: this hub would take everything.  Nothing was changed.

  backup        20261108-170000-30
  took          4m12s  RTO 15m: met
  opening       41s  fetched, verified, decrypted
  planning      3.2s
  trying        3m28s  in dry runs
  tried         51,422
  last success  2026-11-08 17:37:12Z
  next drill    2027-02-06 17:37:12Z
"
        );
        let last = snapshot.drill.last.as_mut().unwrap();
        (last.seconds, last.untried) = (1000.0, 2);
        last.failed = [("managedclusters.x.io".to_owned(), 3)].into();
        snapshot.drill.named = vec!["managedclusters.x.io c1: denied\u{1b}[2J".to_owned()];
        let partial = report(&snapshot).unwrap();
        assert_eq!(partial.outcome, "partial");
        let text = partial.text();
        for part in
            ["NOT take", "RTO 15m: NOT met", "refused       3 managedclusters", "c1: denied"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
        let json: serde_json::Value =
            serde_json::from_str(&partial.render(Output::Json).unwrap()).unwrap();
        assert_eq!((&json["kind"], &json["outcome"]), (&"Drill".into(), &"partial".into()));
        assert_eq!(json["failed"]["managedclusters.x.io"], 3);
        snapshot.drill.last = None;
        assert!(report(&snapshot).is_none());
    }
}
