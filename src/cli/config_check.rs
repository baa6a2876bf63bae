//! `understudy config check` and `config schema`: the file alone, and with `--hub` what it means on
//! the hub. A warning is no failure: a rule may be written for a kind that is installed later.

use super::exit::Failure;
use super::render_check::{self, Checked};
use super::stored::show;
use super::{Global, render, run};
use crate::capture::select::own::{OwnRules, Warning, unserved};
use crate::capture::survey::Survey;
use crate::config::{self, preset, settings::Settings};
use crate::object::GroupResource;
use crate::retry;
use std::ops::ControlFlow;

pub(super) async fn check(global: &Global, hub: bool) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let warnings = if hub { Some(warnings(global, &settings).await?) } else { None };
    let checked = Checked { hub: &settings.hub.name, pair: &settings.hub.pair, warnings };
    show(render_check::checked(&checked, global.output))
}

async fn warnings(global: &Global, settings: &Settings) -> Result<Vec<Warning>, Failure> {
    let selection = settings.selection.clone().with_own_namespace(&global.home());
    let survey = Survey::of(run::client(global).await?, &selection).await?;
    let mut own = OwnRules::of(&survey.selection, &survey.kinds);
    let kinds = &survey.kinds;
    let wanted: Vec<_> = kinds.iter().filter(|kind| own.want(kind)).cloned().collect();
    let outcome = survey
        .run(
            |kind| wanted.contains(kind),
            |candidate, verdict| {
                own.see(candidate, verdict);
                ControlFlow::Continue(())
            },
        )
        .await?;
    for (kind, error) in &outcome.failed {
        let error = retry::chain(error);
        eprintln!("warning: {kind} cannot be listed, nothing is said of its rules: {error}");
    }
    let failed = outcome.failed.into_keys().collect();
    let mut warnings = own.warnings(kinds, &survey.failed_groups, &failed);
    warnings.extend(unserved(kinds_named(settings), kinds, &survey.failed_groups));
    Ok(warnings)
}

/// Kinds that the file names for the restoring hub, with their keys. What presets adopt is theirs.
fn kinds_named(settings: &Settings) -> Vec<(String, GroupResource)> {
    let shipped: Vec<_> = preset::names().filter_map(preset::load).flat_map(|p| p.adopt).collect();
    let is_shipped = |kind: &GroupResource, name: &str| {
        shipped.iter().any(|adopt| adopt.resource.0 == *kind && adopt.name == name)
    };
    let allowed = settings.restore.allow_kinds.iter().cloned().enumerate();
    let allowed = allowed.map(|(index, kind)| (format!("passive.allowKinds[{index}]"), kind));
    let adopted = settings.restore.adopt.iter().filter(|(kind, name)| !is_shipped(kind, name));
    let adopted = adopted.map(|(kind, name)| (format!("passive.adopt ({name})"), kind.clone()));
    allowed.chain(adopted).collect()
}

pub(super) fn schema() -> Result<(), Failure> {
    show(render::pretty(&config::schema()))
}
