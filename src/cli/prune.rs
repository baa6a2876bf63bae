//! `understudy backup prune` and `backup delete`: what may go, from the storage alone; and, once it is
//! confirmed, a request to the daemon of the primary, which looks again and does it.

use super::confirm::confirm;
use super::exit::{Code, Failure};
use super::render_sweep::{self, Shown};
use super::stored::{Stored, show};
use super::{Global, ask, run};
use crate::backup::retention::{self, Verdict};
use crate::backup::{sweep, sweeper};
use crate::kube_status::ask::{MOST_DELETED, Verb};
use crate::repository::chain::View;
use crate::status::words::plural;
use clap::Args;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct How {
    /// Only show the plan; needs nothing but the storage
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask for a confirmation
    #[arg(long)]
    yes: bool,
    /// How long to wait for the daemon
    #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What the retention rules let go.
pub(super) async fn prune(global: &Global, how: How) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let Some(stored) = Stored::open(&settings).await? else {
        eprintln!("there is no repository in the storage yet");
        return show(render_sweep::retention(&[], &Shown::default(), global.output));
    };
    let (view, rules) = (stored.view(), &settings.retention);
    let seen = sweeper::look(&stored.storage, view).await?;
    let verdicts = seen.as_ref().map_or_else(Vec::new, |seen| {
        sweeper::by_rules(view, rules, settings.schedule.cron.zone(), seen.now)
    });
    let plan =
        seen.map(|seen| sweep::plan(view, sweeper::retired(&verdicts), &seen, rules.sweep_after));
    let shown = Shown { plan: plan.unwrap_or_default(), after: rules.sweep_after };
    show(render_sweep::retention(&verdicts, &shown, global.output))?;
    stored.complete()?;
    if how.dry_run {
        return Ok(());
    }
    confirm(how.yes, "Carry this out?", "understudy backup prune --yes")?;
    ask::ask(global, Verb::BackupPrune, Some(how.timeout)).await
}

/// These backups, unless one of them must stay.
pub(super) async fn delete(global: &Global, ids: &[String], how: How) -> Result<(), Failure> {
    if ids.len() > MOST_DELETED {
        let message = format!("{} are too many, name at most {MOST_DELETED} at once", ids.len());
        return Err(Failure::new(Code::Usage, message)
            .with_hint("older backups go by the rules of `retention`: understudy backup prune"));
    }
    let settings = run::settings(global)?;
    let stored = Stored::expect(&settings).await?;
    let mut named = BTreeSet::new();
    for id in ids {
        named.insert(stored.find(id).await?.backup.mark.slot);
    }
    let view = stored.view();
    let verdicts = of_named(view, &named);
    let after = settings.retention.sweep_after;
    let seen = sweeper::look(&stored.storage, view).await?;
    let plan = seen.map(|seen| sweep::plan(view, sweeper::retired(&verdicts), &seen, after));
    let shown = Shown { plan: plan.unwrap_or_default(), after };
    show(render_sweep::retention(&verdicts, &shown, global.output))?;
    stored.complete()?;
    let refused: Vec<_> = verdicts.iter().filter(|verdict| verdict.keep).collect();
    if let [first, ..] = &*refused {
        let message = match &*refused {
            [one] => format!("{} must stay: {}", one.id(), one.why),
            all => format!("{} must stay, such as {}: {}", all.len(), first.id(), first.why),
        };
        return Err(Failure::new(Code::Refused, message)
            .with_hint("nothing was deleted; name only backups with the verdict retire"));
    }
    if how.dry_run {
        return Ok(());
    }
    let question = format!("Delete {}?", plural(named.len(), "backup", "backups"));
    let command = format!("understudy backup delete --yes {}", ids.join(" "));
    confirm(how.yes, &question, &command)?;
    let verb = Verb::BackupDelete { backups: named };
    ask::ask(global, verb, Some(how.timeout)).await
}

fn of_named(view: &View, named: &BTreeSet<u64>) -> Vec<Verdict> {
    let mut verdicts = retention::plan_deletion(&view.ledger.offered, &view.protected(), named);
    verdicts.retain(|verdict| named.contains(&verdict.slot));
    verdicts
}
