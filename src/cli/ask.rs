//! A request to the running daemon, through the annotation of its `Hub`; the answer is read from the
//! status.

use super::exit::{Code, Failure};
use super::render::Output;
use super::stored::show;
use super::{Global, render, run};
use crate::kube_status;
use crate::kube_status::ask::{self, Answer, Ask, Verb};
use std::time::Duration;

/// Between two looks at the answer of the daemon.
const LOOK: Duration = Duration::from_millis(500);

/// Asks and, with a `patience`, waits for the answer; it is printed, or becomes the failure.
pub(super) async fn ask(
    global: &Global,
    verb: Verb,
    patience: Option<Duration>,
) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let client = run::client(global).await?;
    let id = format!("{:032x}", crate::clock::random());
    let (namespace, name) = (&global.namespace, &settings.hub.name);
    ask::ask(&client, namespace, name, &Ask { id: id.clone(), verb }).await?;
    let Some(patience) = patience else {
        println!("asked {name}");
        return Ok(());
    };
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
    let Ok(answer) = tokio::time::timeout(patience, answer).await else {
        let patience = humantime::format_duration(patience);
        let message = format!("{name} has not answered within {patience}; it may still do it");
        return Err(Failure::new(Code::TimedOut, message).with_hint("understudy status"));
    };
    told(answer?, global.output)
}

fn told(answer: Answer, output: Output) -> Result<(), Failure> {
    let code = match &*answer.outcome {
        "success" => {
            return show(match output {
                Output::Table => Ok(format!("{}\n", answer.message)),
                Output::Json => render::envelope("Answer", &answer),
            });
        }
        "partial" => Code::Partial,
        "refused" => Code::Refused,
        _ => Code::Failed,
    };
    Err(Failure::new(code, answer.message))
}
