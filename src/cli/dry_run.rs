//! `understudy backup run --dry-run`: what a backup of this hub would hold now, and by which rule.
//! Needs the hub and nothing else; works on a hub of any role.

use super::exit::{Code, Failure};
use super::render_survey::{self, Tally, Unlisted};
use super::stored::show;
use super::{Global, run};
use crate::capture::survey::Survey;
use crate::retry;
use crate::status::words::plural;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;

/// `objects`: each object on a line of its own, as it is read.
pub(super) async fn dry_run(global: &Global, objects: bool) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let selection = settings.selection.with_own_namespace(&global.home());
    let survey = Survey::of(run::client(global).await?, &selection).await?;
    let unlisted = unlisted(&survey);
    let listed = |kind: &_| survey.selection.may_select(kind);
    let mut tally = Tally::default();
    let mut lines = BufWriter::new(std::io::stdout());
    let mut written = Ok(());
    let outcome = survey
        .run(listed, |candidate, verdict| {
            if objects {
                let line = render_survey::line(candidate, verdict, global.output);
                written = lines.write_all(line.as_bytes());
            } else {
                tally.add(candidate.kind, verdict);
            }
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
    if objects {
        match written.and_then(|()| lines.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                let message = format!("failed to write the result: {error}");
                return Err(Failure::new(Code::Failed, message));
            }
            Ok(()) | Err(_) => {}
        }
    } else {
        tally.without(&outcome.failed.keys().cloned().collect());
        show(render_survey::summary(
            &tally,
            &unlisted,
            &outcome,
            &survey.failed_groups,
            global.output,
        ))?;
    }
    for group in &survey.failed_groups {
        eprintln!(
            "warning: the API group {group} cannot be read; a backup would be partial if the \
                   one before it holds objects of the group"
        );
    }
    let Some((kind, error)) = outcome.failed.iter().next() else { return Ok(()) };
    let kinds = plural(outcome.failed.len(), "kind", "kinds");
    let message = format!("{kinds} cannot be listed, such as {kind}: {}", retry::chain(error));
    Err(Failure::new(Code::Partial, message)
        .with_hint("a backup would carry them over from the backup before"))
}

/// Kinds that a backup does not even list.
fn unlisted(survey: &Survey) -> Vec<Unlisted> {
    let rules = survey.kinds.iter().map(|kind| (kind, survey.selection.for_kind(kind)));
    let unlisted = rules.filter_map(|(kind, rules)| {
        Some(Unlisted { kind: kind.group_resource(), rule: rules.not_listed()?.to_owned() })
    });
    unlisted.collect()
}
