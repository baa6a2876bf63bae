//! One wave: objects that may be written in any order, as many at once as the hub takes.
//!
//! A blocking thread reads the packs that the wave needs, one after another, and hands over the
//! objects that are wanted through a short queue; this side starts a write for each as long as the
//! governor allows. So a wave holds at most the queue and what is in flight.

use super::execute::{BATCH, BATCH_TIME, Context, Progress, Source, SourceError, links};
use super::plan;
use super::write::{self, Job};
use crate::clock;
use crate::object::ObjectKey;
use futures::StreamExt as _;
use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Objects between the pack and the writers. An object is at most 1.5 MiB, nearly always 3 KiB.
const QUEUE: usize = 32;

type Objects = mpsc::Receiver<(ObjectKey, Box<RawValue>)>;

pub(super) async fn write(
    context: &Context<'_>,
    progress: &mut Progress<'_>,
    wave: &[plan::Write],
) {
    let run = context.run;
    let mut unseen: HashSet<&ObjectKey> = wave.iter().map(|write| &write.key).collect();
    let (mut objects, reader) = read(context, wave);
    let mut writes = FuturesUnordered::new();
    let mut question = None;
    let mut open = true;

    while open || !writes.is_empty() {
        if open && question.is_none() && is_due(progress) {
            question = Some((run.guard)());
        }
        let may_start = open && question.is_none() && writes.len() < context.hub.limit();
        tokio::select! {
            biased;
            () = run.cancel.cancelled(), if open => {
                progress.stop("the restore was interrupted");
            }
            Some(answer) = OptionFuture::from(question.as_mut()), if question.is_some() => {
                question = None;
                progress.asked = Some((clock::monotonic(), 0));
                if let ControlFlow::Break(why) = answer {
                    progress.stop(why);
                }
            }
            object = objects.recv(), if may_start => match object {
                None => open = false,
                Some((key, object)) => if let Some(key) = unseen.take(&key) {
                    writes.push(write::write(&context.hub, run.policy, job(context, progress, key, object)));
                },
            },
            Some((key, outcome)) = writes.next() => progress.record(run.contents, key.clone(), outcome),
        }
        // What is in flight is still waited for: its outcome belongs into the report.
        if progress.report.stopped.is_some() {
            open = false;
            question = None;
        }
    }
    // A reader that still waits for room in the queue sees it closed and ends.
    drop(objects);
    match reader.await {
        Ok(Ok(())) => {}
        Ok(Err(source)) => progress.stop(format!("failed to read a pack: {source}")),
        Err(_) => progress.stop("failed to read a pack: the reader ended early"),
    }
    if progress.report.stopped.is_none() {
        for key in unseen {
            progress.fail(run.contents, key.clone(), "its pack does not hold it".to_owned());
        }
    }
}

fn is_due(progress: &mut Progress<'_>) -> bool {
    match progress.asked {
        None => true,
        Some((at, started)) => {
            started >= BATCH || clock::monotonic().duration_since(at) >= BATCH_TIME
        }
    }
}

fn job<'a>(
    context: &Context<'a>,
    progress: &mut Progress<'_>,
    key: &'a ObjectKey,
    object: Box<RawValue>,
) -> Job<'a> {
    if let Some((_, started)) = &mut progress.asked {
        *started += 1;
    }
    let entry = &context.run.contents.entries[key];
    let links = links(context, progress, key, entry);
    Job { key, entry, object, known: progress.restored.get(key).cloned(), links }
}

fn read(
    context: &Context<'_>,
    wave: &[plan::Write],
) -> (Objects, JoinHandle<Result<(), SourceError>>) {
    let mut packs: BTreeMap<u32, HashSet<ObjectKey>> = BTreeMap::new();
    for write in wave {
        let pack = context.run.contents.entries[&write.key].pack;
        packs.entry(pack).or_default().insert(write.key.clone());
    }
    let (sender, objects) = mpsc::channel(QUEUE);
    let source = context.run.source.clone();
    let reader = tokio::task::spawn_blocking(move || read_packs(&source, packs, &sender));
    (objects, reader)
}

fn read_packs(
    source: &Source,
    packs: BTreeMap<u32, HashSet<ObjectKey>>,
    sender: &mpsc::Sender<(ObjectKey, Box<RawValue>)>,
) -> Result<(), SourceError> {
    for (pack, mut wanted) in packs {
        source(pack, &mut |key, object| {
            if wanted.remove(&key) && sender.blocking_send((key, object.to_owned())).is_err() {
                return ControlFlow::Break(());
            }
            if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if sender.is_closed() {
            break;
        }
    }
    Ok(())
}
