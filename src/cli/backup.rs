//! `understudy backup …`: listing from the storage alone, and asking the daemon for a backup now.

use super::exit::{Code, Failure};
use super::stored::{self, Stored, show};
use super::{Global, render, run};
use crate::backup::retention;
use crate::config::settings::Settings;
use crate::kube_status;
use crate::kube_status::ask::{self, Ask, Verb};
use crate::repository::chain::View;
use std::time::Duration;

/// Between two looks at the answer of the daemon.
const LOOK: Duration = Duration::from_millis(500);

/// Newest first.
pub(super) async fn list(global: &Global) -> Result<(), Failure> {
    let view = view(&run::settings(global)?).await?;
    let backups: Vec<_> = view.backups.iter().rev().cloned().collect();
    show(render::backup_list(&backups, global.output, crate::clock::now()))?;
    stored::complete(&view)
}

/// The plan of the retention rules.
pub(super) async fn prune(global: &Global) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let view = view(&settings).await?;
    let backups: Vec<_> = view.backups.iter().rev().cloned().collect();
    let base = view.base.as_ref().map(|base| base.mark.slot);
    let zone = settings.schedule.cron.zone();
    let now = crate::clock::now();
    let verdicts = retention::plan(&backups, &settings.retention, base, zone, now);
    show(render::retention(&verdicts, global.output))?;
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

/// Asks the daemon through the annotation of its `Hub`, and waits for its answer in the status.
pub(super) async fn run(global: &Global, wait: bool, timeout: Duration) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let client = run::client(global).await?;
    let id = format!("{:032x}", crate::clock::random());
    let (namespace, name) = (&global.namespace, &settings.hub.name);
    ask::ask(&client, namespace, name, &Ask { id: id.clone(), verb: Verb::BackupRun }).await?;
    if !wait {
        println!("asked {name} for a backup");
        return Ok(());
    }
    let answer = async {
        loop {
            let hub = kube_status::load(&client, namespace, name).await?;
            let answer = hub.and_then(|hub| hub.status).and_then(|status| status.answer);
            if let Some(answer) = answer.filter(|answer| answer.id == id) {
                return Ok::<_, Failure>(answer);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let Ok(answer) = tokio::time::timeout(timeout, answer).await else {
        let message = format!(
            "{name} has not finished the backup within {}; it goes on",
            humantime::format_duration(timeout)
        );
        return Err(Failure::new(Code::TimedOut, message).with_hint("understudy status"));
    };
    let answer = answer?;
    match &*answer.outcome {
        "success" => {
            println!("{}", answer.message);
            Ok(())
        }
        "partial" => Err(Failure::new(Code::Partial, answer.message)),
        "refused" => Err(Failure::new(Code::Refused, answer.message)),
        _ => Err(Failure::new(Code::Failed, answer.message)),
    }
}
