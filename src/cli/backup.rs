//! `understudy backup …`: listing from the storage alone, and asking the daemon to do something now.

use super::exit::Failure;
use super::stored::{self, Stored, show};
use super::{Global, ask, render, run};
use crate::config::settings::Settings;
use crate::kube_status::ask::Verb;
use crate::repository::chain::View;
use std::time::Duration;

/// Newest first.
pub(super) async fn list(global: &Global) -> Result<(), Failure> {
    let view = view(&run::settings(global)?).await?;
    let backups: Vec<_> = view.backups.iter().rev().cloned().collect();
    show(render::backup_list(&backups, global.output, crate::clock::now()))?;
    stored::complete(&view)
}

/// The journal read to its head; an empty view where there is no repository yet.
async fn view(settings: &Settings) -> Result<View, Failure> {
    let storage = stored::storage(settings).await?;
    let location = storage.location().to_owned();
    let Some(stored) = Stored::read(storage, stored::keys(settings)?).await? else {
        eprintln!("there is no repository in {location} yet");
        return Ok(View::default());
    };
    Ok(stored.view().clone())
}

/// Asks the daemon for a backup.
pub(super) async fn run(
    global: &Global,
    wait: bool,
    timeout: Duration,
    reason: Option<String>,
) -> Result<(), Failure> {
    ask::ask_because(global, Verb::BackupRun, reason, wait.then_some(timeout)).await
}

/// Tells the daemon that a suspect backup is in order.
pub(super) async fn ack(global: &Global, id: &str, timeout: Duration) -> Result<(), Failure> {
    let stored = Stored::expect(&run::settings(global)?).await?;
    let slot = stored.find(id).await?.backup.mark.slot;
    ask::ask(global, Verb::BackupAck { slot }, Some(timeout)).await
}
