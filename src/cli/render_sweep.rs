//! Pure: what retention would do, as a table and as JSON.

use super::render::{Align, Column, Output, envelope, table};
use crate::backup::retention::Verdict;
use crate::backup::sweep::Plan;
use crate::status::words::{bytes, plural};
use serde_json::json;
use std::time::Duration;

/// What becomes of packs.
#[derive(Debug, Default)]
pub struct Shown {
    pub plan: Plan,
    /// From the record to the deletion.
    pub after: Duration,
}

const COLUMNS: [Column; 3] =
    [("BACKUP", Align::Left), ("VERDICT", Align::Left), ("WHY", Align::Left)];

/// Newest first, as given.
pub fn retention(
    verdicts: &[Verdict],
    shown: &Shown,
    output: Output,
) -> Result<String, serde_json::Error> {
    let word = |verdict: &Verdict| if verdict.keep { "keep" } else { "retire" };
    match output {
        Output::Table => {
            let row = |v: &Verdict| vec![v.id(), word(v).to_owned(), v.why.clone()];
            Ok(format!("{}\n{}", table(&COLUMNS, verdicts.iter().map(row)), sentence(shown)))
        }
        Output::Json => {
            let item = |v: &Verdict| json!({"backup": v.id(), "keep": v.keep, "why": v.why});
            let items: Vec<_> = verdicts.iter().map(item).collect();
            let Shown { plan, after } = shown;
            let body = json!({
                "items": items,
                "retires": plan.retire.len(),
                "condemns": {
                    "superfluous": plan.superfluous.len(),
                    "orphans": plan.orphans.len(),
                    "bytes": plan.frees_later,
                    "deletedAfterSeconds": after.as_secs(),
                },
                "deletes": {"packs": plan.delete.len(), "bytes": due(plan)},
            });
            envelope("RetentionPlan", body)
        }
    }
}

fn sentence(Shown { plan, after }: &Shown) -> String {
    let packs = |number| plural(number, "pack", "packs");
    let orphans = match plan.orphans.len() {
        0 => String::new(),
        number => format!(", {number} of them left over from runs that did not end"),
    };
    format!(
        "{} retired; {} ({}) deleted {} later{orphans}; {} condemned before ({}) deleted now\n",
        plural(plan.retire.len(), "backup", "backups"),
        packs(plan.superfluous.len() + plan.orphans.len()),
        bytes(plan.frees_later),
        humantime::format_duration(*after),
        packs(plan.delete.len()),
        bytes(due(plan)),
    )
}

fn due(plan: &Plan) -> u64 {
    plan.delete.iter().map(|(pack, _)| pack.size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::layout::PackName;

    #[test]
    fn a_plan_says_what_goes_why_and_what_it_frees() {
        let verdict = |slot, keep, why: &str| Verdict {
            slot,
            at: "2026-11-20T17:30:07Z".parse().unwrap(),
            keep,
            why: why.to_owned(),
        };
        let verdicts = [verdict(42, true, "keepLast 1"), verdict(41, false, "no rule keeps it")];
        let pack = |number| PackName::new(1, 3, ulid::Ulid(number));
        let plan = Plan {
            retire: [41].into(),
            superfluous: vec![pack(1)],
            orphans: vec![pack(2)],
            frees_later: 2_048,
            ..Plan::default()
        };
        let shown = Shown { plan, after: Duration::from_hours(24) };
        assert_eq!(
            retention(&verdicts, &shown, Output::Table).unwrap(),
            "\
BACKUP              VERDICT  WHY
20261120-173007-42  keep     keepLast 1
20261120-173007-41  retire   no rule keeps it

1 backup retired; 2 packs (2.0 KiB) deleted 1day later, 1 of them left over from runs that did not end; 0 packs condemned before (0 B) deleted now
"
        );
        let json = retention(&verdicts, &shown, Output::Json).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["kind"], "RetentionPlan");
        assert_eq!(value["items"][1]["keep"], false);
        assert_eq!(value["condemns"]["bytes"], 2_048);
    }
}
