//! `understudy rejoin`: what it would change on a fenced hub to follow the one that superseded it, and, once it is
//! confirmed, a request to its daemon.

use super::confirm::confirm_by_name;
use super::exit::{Code, Failure};
use super::render::{Align, Column, Output, envelope, plain, table};
use super::stored::{Stored, show};
use super::{Global, ask, run};
use crate::kube_status;
use crate::kube_status::ask::Verb;
use crate::repository::record::HubId;
use crate::restore::plan;
use crate::retry;
use crate::status::words::count;
use crate::sync::Standby;
use crate::sync::claims::Rejoining;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Names that are shown of each verb; `-o json` has all.
const MAX_NAMED: usize = 20;

const COLUMNS: [Column; 4] =
    [("VERB", Align::Left), ("KIND", Align::Left), ("OBJECTS", Align::Right), ("WHY", Align::Left)];

#[derive(Debug, Args)]
pub(super) struct Rejoin {
    /// Only show what it would change on this hub
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask for a confirmation
    #[arg(long)]
    yes: bool,
    /// Why: stands in the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait for the daemon
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn rejoin(global: &Global, how: Rejoin) -> Result<(), Failure> {
    let settings = Arc::new(run::settings(global)?);
    let client = run::client(global).await?;
    let stored = Stored::expect(&settings).await?;
    let me =
        HubId { name: settings.hub.name.clone(), uid: kube_status::cluster_uid(&client).await? };
    let view = stored.view();
    if view.is_holder(&me) {
        let message = format!("{} holds the term {} itself", me.name, view.epoch);
        return Err(Failure::new(Code::Refused, message));
    }
    let newest = view
        .usable
        .clone()
        .ok_or_else(|| Failure::new(Code::Refused, "there is no backup to follow yet"))?;
    let own = match view.former(&me).and_then(|former| former.backup) {
        Some(slot) => stored.committed(slot).await?.map(|committed| committed.backup),
        None => None,
    };
    let (packs, _folder) = stored.packs()?;
    let standby = Standby::new(client, packs, &global.home(), settings.clone());
    let rejoining = standby.rejoining(own.as_ref(), &newest, &CancellationToken::new()).await;
    let rejoining = rejoining.map_err(|e| Failure::new(Code::Failed, retry::chain(&e)))?;
    let holder = view.holder.as_ref().map_or("nobody", |hub| &hub.name);
    let own = own.map_or("none".to_owned(), |own| own.id());
    let about = format!(
        "{} would follow {holder} (epoch {}), from backup {}; its own last backup is {own}",
        me.name,
        view.epoch,
        newest.id()
    );
    if how.dry_run {
        return show(text(&about, &rejoining, global.output));
    }
    let told = text(&about, &rejoining, Output::Table);
    eprint!("{}", told.map_err(|error| Failure::new(Code::Failed, error.to_string()))?);
    confirm_by_name(how.yes, &me.name, "have it rejoin", "understudy rejoin --yes")?;
    ask::ask_because(global, Verb::Rejoin, how.reason, Some(how.timeout)).await
}

fn text(about: &str, rejoining: &Rejoining, output: Output) -> Result<String, serde_json::Error> {
    let (summary, named) = (summary(rejoining), named(rejoining));
    if output == Output::Json {
        let line = |((verb, kind, why), objects): &((&str, String, &str), usize)| json!({"verb": verb, "kind": kind, "why": why, "objects": objects});
        let summary: Vec<_> = summary.iter().map(line).collect();
        return envelope(
            "RejoinPlan",
            json!({"about": about, "summary": summary, "objects": named}),
        );
    }
    let rows = summary.iter().map(|((verb, kind, why), objects)| {
        vec![(*verb).to_owned(), kind.clone(), count(*objects as u64), (*why).to_owned()]
    });
    let mut text = format!("{}\n\n{}", plain(about), table(&COLUMNS, rows));
    for (verb, names) in named.iter().filter(|(_, names)| !names.is_empty()) {
        text = format!("{text}\n{verb}:\n");
        text.extend(names.iter().take(MAX_NAMED).map(|name| format!("  {}\n", plain(name))));
        if names.len() > MAX_NAMED {
            text = format!("{text}  and {} more\n", names.len() - MAX_NAMED);
        }
    }
    text.push_str(
        "\nNothing is deleted before `understudy sync ack`; the activation set stays as it is.\n",
    );
    Ok(text)
}

/// Labels first, then the plan of the first sync.
fn summary(rejoining: &Rejoining) -> Vec<((&str, String, &str), usize)> {
    let Rejoining { claims, plan } = rejoining;
    let mut labels: BTreeMap<_, usize> = BTreeMap::new();
    for claim in claims {
        let why = if claim.changed {
            "its own, written since its last backup"
        } else {
            "its own, as in its last backup"
        };
        let kind = claim.key.group_resource().to_string();
        *labels.entry(("label", kind, why)).or_default() += 1;
    }
    let steps = plan.summary.iter().map(|(plan::Line { verb, kind, set: _, why }, objects)| {
        ((verb.name(), kind.to_string(), *why), *objects)
    });
    labels.into_iter().chain(steps).collect()
}

fn named(rejoining: &Rejoining) -> BTreeMap<&'static str, Vec<String>> {
    let Rejoining { claims, plan } = rejoining;
    let written = |update: bool| {
        let writes = plan.writes.iter().filter(move |write| write.update == update);
        writes.map(|write| write.key.to_string()).collect()
    };
    let changed = claims.iter().filter(|claim| claim.changed);
    let held = plan.held.iter().flat_map(|held| &held.deletes);
    BTreeMap::from([
        ("create", written(false)),
        ("update", written(true)),
        ("written here since the own last backup", changed.map(|c| c.key.to_string()).collect()),
        ("held", held.map(|delete| delete.key.to_string()).collect()),
        ("refuse", plan.refused.iter().map(|(key, _)| key.to_string()).collect()),
    ])
}
