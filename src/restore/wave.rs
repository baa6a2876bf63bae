//! One wave: objects that may be written in any order, as many at once as the hub takes.
//!
//! A blocking thread reads the packs that the wave needs, one after another, and hands over the
//! objects that are wanted through a queue; this side starts a write for each as long as the
//! governor allows. The queue holds more than is written while the next pack is opened, and the next
//! wave's packs are opened while the last objects of this one are in flight: the server never waits
//! for a reader. So a restore holds at most the queue and what is in flight.

use super::execute::{Applied, Context, Progress, Source, SourceError, links};
use super::known::Mark;
use super::plan;
use super::write::{self, Job};
use crate::clock;
use crate::object::ObjectKey;
use futures::StreamExt as _;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Chunks between the packs and the writers: about 700 objects, half a second of writing. Opening a
/// pack takes a tenth of a second.
const QUEUE: usize = 16;
/// Bytes after which a chunk is handed over. An object is at most 1.5 MiB, nearly always 3 KiB.
const CHUNK: usize = 128 << 10;
/// No write starts more objects, or more time, after the last question that the guard answered well.
const BATCH: usize = 200;
const BATCH_TIME: Duration = Duration::from_secs(5);

/// Bytes of objects as they were applied last, held while their wave is written. What is beyond that
/// is read from the hub.
const MAX_APPLIED: usize = 32 << 20;

struct Found {
    key: ObjectKey,
    object: Box<RawValue>,
    /// As it was applied last, if that can still be read.
    applied: Option<Box<RawValue>>,
}

/// The packs of one wave on their way.
pub(super) struct Reader {
    objects: mpsc::Receiver<Vec<Found>>,
    thread: JoinHandle<Result<(), SourceError>>,
}

/// When the guard was asked what it answered well, and how many writes were started since.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    at: Instant,
    started: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    No,
    /// Asked now, the answer is there before it is needed.
    Soon,
    /// Nothing starts before the answer.
    Now,
}

struct Question {
    asked: Asked,
    answer: BoxFuture<'static, ControlFlow<String>>,
}

/// Writes the wave, and gives back the reader of the `following` one, which has begun by then.
pub(super) async fn write(
    context: &Context<'_>,
    progress: &mut Progress<'_>,
    wave: &[plan::Write],
    mut reader: Reader,
    following: Option<&[plan::Write]>,
) -> Option<Reader> {
    let run = context.run;
    let mut unseen: HashMap<&ObjectKey, &plan::Write> =
        wave.iter().map(|write| (&write.key, write)).collect();
    let mut writes = FuturesUnordered::new();
    let mut ready = Vec::<Found>::new().into_iter();
    let mut question: Option<Question> = None;
    let mut next = None;
    let mut open = true;

    while open || ready.len() > 0 || !writes.is_empty() {
        let more = open || ready.len() > 0;
        let due = due(progress.asked, clock::monotonic());
        if more && due != Due::No && question.is_none() {
            let asked = Asked { at: clock::monotonic(), started: started(progress) };
            question = Some(Question { asked, answer: (run.guard)() });
        }
        let has_place = due != Due::Now && writes.len() < context.hub.limit();
        if has_place && let Some(found) = ready.next() {
            if let Some(planned) = unseen.remove(&found.key) {
                let job = job(context, progress, planned, found);
                writes.push(write::write(&context.hub, run.policy, job));
            }
            continue;
        }
        let answer = OptionFuture::from(question.as_mut().map(|question| &mut question.answer));
        tokio::select! {
            biased;
            () = run.cancel.cancelled(), if more => progress.stop("the restore was interrupted"),
            Some(answer) = answer => {
                let asked = question.take().map(|question| question.asked);
                match answer {
                    ControlFlow::Continue(()) => answered(progress, asked),
                    ControlFlow::Break(why) => progress.stop(why),
                }
            }
            chunk = reader.objects.recv(), if open && ready.len() == 0 => {
                open = chunk.is_some();
                ready = chunk.unwrap_or_default().into_iter();
                if !open {
                    next = following.map(|wave| read(context, progress, wave));
                }
            }
            Some((key, outcome)) = writes.next() => {
                run.tally.add(usize::from(outcome.is_settled()));
                progress.record(run.contents, key.clone(), outcome);
            }
        }
        // What is in flight is still waited for: its outcome belongs into the report.
        if progress.report.stopped.is_some() {
            (open, ready, question) = (false, Vec::new().into_iter(), None);
        }
    }
    finish(context, progress, reader, unseen).await;
    next
}

async fn finish(
    context: &Context<'_>,
    progress: &mut Progress<'_>,
    reader: Reader,
    unseen: HashMap<&ObjectKey, &plan::Write>,
) {
    // A reader that still waits for room in the queue sees it closed and ends.
    drop(reader.objects);
    match reader.thread.await {
        Ok(Ok(())) => {}
        Ok(Err(source)) => progress.stop(format!("failed to read a pack: {source}")),
        Err(_) => progress.stop("failed to read a pack: the reader ended early"),
    }
    if progress.report.stopped.is_none() {
        for key in unseen.into_keys() {
            let why = "its pack does not hold it".to_owned();
            progress.fail(context.run.contents, key.clone(), why);
        }
    }
}

fn due(asked: Option<Asked>, now: Instant) -> Due {
    let Some(Asked { at, started }) = asked else { return Due::Now };
    let past = now.duration_since(at);
    if started >= BATCH || past >= BATCH_TIME {
        Due::Now
    } else if started >= BATCH / 2 || past >= BATCH_TIME / 2 {
        Due::Soon
    } else {
        Due::No
    }
}

fn started(progress: &Progress<'_>) -> usize {
    progress.asked.map_or(0, |asked| asked.started)
}

/// What was started while the guard thought about it counts towards the next question.
fn answered(progress: &mut Progress<'_>, asked: Option<Asked>) {
    let before = started(progress);
    progress.asked =
        asked.map(|Asked { at, started }| Asked { at, started: before.saturating_sub(started) });
}

fn job<'a>(
    context: &Context<'a>,
    progress: &mut Progress<'_>,
    planned: &'a plan::Write,
    found: Found,
) -> Job<'a> {
    if let Some(asked) = &mut progress.asked {
        asked.started += 1;
    }
    let plan::Write { key, inert, stage: _, update: _, why: _ } = planned;
    let entry = &context.run.contents.entries[key];
    let links = links(context, progress, key, entry);
    let Found { key: _, object, applied } = found;
    let known = progress.restored.get(key).cloned();
    let served = context.run.kinds.of(key);
    Job { key, entry, inert: *inert, object, applied, known, links, served }
}

pub(super) fn read(context: &Context<'_>, progress: &Progress<'_>, wave: &[plan::Write]) -> Reader {
    let mut packs: BTreeMap<u32, HashSet<ObjectKey>> = BTreeMap::new();
    let mut marks = HashMap::new();
    for write in wave {
        let entry = &context.run.contents.entries[&write.key];
        packs.entry(entry.pack).or_default().insert(write.key.clone());
        let known = progress.restored.get(&write.key).filter(|_| write.update);
        if let Some(mark) = known.and_then(|known| known.mark)
            && !mark.same_content(&entry.digest)
            && mark != mark.unfinished()
        {
            marks.insert(write.key.clone(), mark);
        }
    }
    let (sender, objects) = mpsc::channel(QUEUE);
    let (source, applied) = (context.run.source.clone(), context.run.applied.clone());
    let thread = tokio::task::spawn_blocking(move || {
        let applied = applied.map(|applied| read_applied(&applied, &marks)).unwrap_or_default();
        read_packs(&source, packs, applied, sender)
    });
    Reader { objects, thread }
}

fn read_applied(
    applied: &Applied,
    marks: &HashMap<ObjectKey, Mark>,
) -> HashMap<ObjectKey, Box<RawValue>> {
    let (mut found, mut bytes) = (HashMap::new(), 0);
    if !marks.is_empty() {
        applied(marks, &mut |key, object| {
            bytes += object.get().len();
            found.insert(key, object.to_owned());
            if bytes < MAX_APPLIED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
    found
}

fn read_packs(
    source: &Source,
    packs: BTreeMap<u32, HashSet<ObjectKey>>,
    mut applied: HashMap<ObjectKey, Box<RawValue>>,
    sender: mpsc::Sender<Vec<Found>>,
) -> Result<(), SourceError> {
    let mut sending = Sending { sender, chunk: Vec::new(), bytes: 0 };
    for (pack, mut wanted) in packs {
        let mut heard = ControlFlow::Continue(());
        source(pack, &mut |key, object| {
            if wanted.remove(&key) {
                let applied = applied.remove(&key);
                heard = sending.push(Found { key, object: object.to_owned(), applied });
            }
            if wanted.is_empty() { ControlFlow::Break(()) } else { heard }
        })?;
        if heard.is_break() || sending.flush().is_break() {
            break;
        }
    }
    Ok(())
}

struct Sending {
    sender: mpsc::Sender<Vec<Found>>,
    chunk: Vec<Found>,
    bytes: usize,
}

impl Sending {
    /// Hands over what there is as soon as the writers have nothing else. Breaks when nobody
    /// listens any more.
    fn push(&mut self, found: Found) -> ControlFlow<()> {
        self.bytes += found.object.get().len();
        self.chunk.push(found);
        let is_awaited = self.sender.capacity() == self.sender.max_capacity();
        if is_awaited || self.bytes >= CHUNK { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        self.bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        if self.sender.is_closed()
            || (!chunk.is_empty() && self.sender.blocking_send(chunk).is_err())
        {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::*;

    #[test]
    fn the_guard_is_asked_before_its_answer_is_needed() {
        let at = clock::monotonic();
        let check = |started, past, expected| {
            assert_eq!(due(Some(Asked { at, started }), at + past), expected, "{started} {past:?}");
        };
        assert_eq!(due(None, at), Due::Now);
        check(0, Duration::ZERO, Due::No);
        check(BATCH / 2 - 1, BATCH_TIME / 4, Due::No);
        check(BATCH / 2, Duration::ZERO, Due::Soon);
        check(0, BATCH_TIME / 2, Due::Soon);
        check(BATCH, Duration::ZERO, Due::Now);
        check(0, BATCH_TIME, Due::Now);
    }

    /// Every pack holds ten objects of its own number and one that another pack holds in truth.
    fn packs() -> (Source, BTreeMap<u32, HashSet<ObjectKey>>) {
        let name = |pack, object| key(&format!("/configmaps/ns/{pack}-{object}"));
        let source: Source = std::sync::Arc::new(move |pack, sink| {
            let object: Box<RawValue> = serde_json::from_str(r#"{"a":1}"#)?;
            for object_name in [99].into_iter().chain(0..10) {
                if sink(name(pack, object_name), &object).is_break() {
                    break;
                }
            }
            Ok(())
        });
        let wanted = (0..5).map(|pack| (pack, (0..10).map(|n| name(pack, n)).collect())).collect();
        (source, wanted)
    }

    #[tokio::test]
    async fn everything_wanted_comes_out_once_and_nothing_else() {
        let (source, wanted) = packs();
        let all: HashSet<ObjectKey> = wanted.values().flatten().cloned().collect();
        let (sender, mut objects) = mpsc::channel(2);
        let reader = tokio::task::spawn_blocking(move || {
            read_packs(&source, wanted, HashMap::new(), sender)
        });
        let mut seen = Vec::new();
        while let Some(chunk) = objects.recv().await {
            assert!(!chunk.is_empty());
            seen.extend(chunk.into_iter().map(|object| object.key));
        }
        reader.await.unwrap().unwrap();
        assert_eq!(seen.len(), all.len());
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), all);
    }

    #[tokio::test]
    async fn a_reader_to_whom_nobody_listens_ends() {
        let (source, wanted) = packs();
        let (sender, objects) = mpsc::channel(1);
        let reader = tokio::task::spawn_blocking(move || {
            read_packs(&source, wanted, HashMap::new(), sender)
        });
        drop(objects);
        reader.await.unwrap().unwrap();
    }
}
