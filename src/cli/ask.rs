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
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// A daemon that runs takes a request within a second or two. One that nobody takes is left from a
/// time when none ran: a newer one may take its place.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Between two attempts to write a request.
const AGAIN: Duration = Duration::from_millis(100);

/// Asks and, with a `patience`, waits for the answer; it is printed, or becomes the failure.
pub(super) async fn ask(
    global: &Global,
    verb: Verb,
    patience: Option<Duration>,
) -> Result<(), Failure> {
    ask_because(global, verb, None, patience).await
}

/// The same with a reason, which is shown wherever what was asked for is.
pub(super) async fn ask_because(
    global: &Global,
    verb: Verb,
    reason: Option<String>,
    patience: Option<Duration>,
) -> Result<(), Failure> {
    match answered(global, verb, reason, patience).await? {
        Some(answer) => told(answer, global.output),
        None => Ok(()),
    }
}

/// The answer, whatever it says. None: nobody waits for it.
pub(super) async fn answered(
    global: &Global,
    verb: Verb,
    reason: Option<String>,
    patience: Option<Duration>,
) -> Result<Option<Answer>, Failure> {
    let settings = run::settings(global)?;
    let client = run::client(global).await?;
    let id = format!("{:032x}", crate::clock::random());
    let (namespace, name) = (&global.home(), &settings.hub.name);
    let text = serde_json::to_string(&Ask { id: id.clone(), verb, reason })
        .expect("a request is plain data");
    place(&client, namespace, name, ask::REQUEST, &text).await?;
    let Some(patience) = patience else {
        println!("asked {name}");
        return Ok(None);
    };
    let answer = async {
        loop {
            let hub = kube_status::load(&client, namespace, name).await?;
            let answers = hub.and_then(|hub| hub.status).map(|status| status.answers);
            let mine = answers.into_iter().flatten().find(|answer| answer.id == id);
            if let Some(answer) = mine {
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
    answer.map(Some)
}

/// Two commands at once are two requests: the second waits until the first was taken.
pub(super) async fn place(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    annotation: &str,
    request: &str,
) -> Result<(), Failure> {
    let started = crate::clock::monotonic();
    loop {
        let late = crate::clock::monotonic() - started >= TAKEN_WITHIN;
        let hub = kube_status::load(client, namespace, name).await?;
        let version = hub.as_ref().and_then(|hub| ask::free(hub, annotation)).filter(|_| !late);
        let may = version.is_some() || late || hub.is_none();
        if may && ask::ask(client, namespace, name, (annotation, request), version).await? {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn told(answer: Answer, output: Output) -> Result<(), Failure> {
    match ended(&answer) {
        None => show(match output {
            Output::Table => Ok(format!("{}\n", answer.message)),
            Output::Json => render::envelope("Answer", &answer),
        }),
        Some(code) => Err(Failure { hint: answer.hint, ..Failure::new(code, answer.message) }),
    }
}

/// None: it was done.
pub(super) fn ended(answer: &Answer) -> Option<Code> {
    match &*answer.outcome {
        "success" => None,
        "partial" => Some(Code::Partial),
        "refused" => Some(Code::Refused),
        _ => Some(Code::Failed),
    }
}
