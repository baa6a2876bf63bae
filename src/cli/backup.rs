//! `understudy backup …`: listing from the storage alone, and asking the daemon to do something now.

use super::exit::{Code, Failure};
use super::render::Output;
use super::stored::{self, Stored, show};
use super::{Global, render, run};
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

/// Asks for a backup, and waits for it if that is wanted.
pub(super) async fn run(global: &Global, wait: bool, timeout: Duration) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    if wait {
        return request(global, &settings, Verb::BackupRun, timeout).await;
    }
    let client = run::client(global).await?;
    ask(&client, global, &settings, Verb::BackupRun).await?;
    println!("asked {} for a backup", settings.hub.name);
    Ok(())
}

/// Asks the daemon through the annotation of its `Hub`; the id of the request.
async fn ask(
    client: &kube::Client,
    global: &Global,
    settings: &Settings,
    verb: Verb,
) -> Result<String, Failure> {
    let id = format!("{:032x}", crate::clock::random());
    let asked = Ask { id: id.clone(), verb };
    ask::ask(client, &global.namespace, &settings.hub.name, &asked).await?;
    Ok(id)
}

/// Asks the daemon, and waits for its answer in the status of its `Hub`.
pub(super) async fn request(
    global: &Global,
    settings: &Settings,
    verb: Verb,
    timeout: Duration,
) -> Result<(), Failure> {
    let client = run::client(global).await?;
    let (namespace, name) = (&global.namespace, &settings.hub.name);
    let id = ask(&client, global, settings, verb).await?;
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
            "{name} has not answered within {}; what was asked goes on",
            humantime::format_duration(timeout)
        );
        return Err(Failure::new(Code::TimedOut, message).with_hint("understudy status"));
    };
    let answer = answer?;
    match &*answer.outcome {
        "success" => show(match global.output {
            Output::Table => Ok(format!("{}\n", answer.message)),
            Output::Json => render::envelope("Answer", &answer),
        }),
        "partial" => Err(Failure::new(Code::Partial, answer.message)),
        "refused" => Err(Failure::new(Code::Refused, answer.message)),
        _ => Err(Failure::new(Code::Failed, answer.message)),
    }
}
