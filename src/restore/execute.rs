//! Performs a checked plan: waves of parallel writes, a few passes for what could not be written
//! at once, then deletions. No choices are left here but those that only the server can settle.
//!
//! Objects come from the packs as a stream while others are being written, so the memory needed
//! does not grow with the backup. The run can be stopped between two objects: by cancellation (a
//! promotion interrupts a sync) or by the guard (another hub holds a higher term). What was written
//! until then is in `restored`, and nothing is deleted by a run that was stopped.

use super::check::Checked;
use super::hub::{Hub, LOOK_UPS};
use super::kinds::Kinds;
use super::known::{Mark, Restored};
use super::order::{self, Class};
use super::owners::{OwnerIndex, key_on_hub};
use super::plan::{NOT_SERVED, NOT_SERVED_YET, Plan, Verb, Write};
use super::policy::Policy;
use super::prune::{Delete, Unlabel};
use super::remove::{self, Removal};
use super::report::{Done, MAX_NAMED, Released, Report};
use super::wave::{self, Asked};
use super::write::Outcome;
use crate::clock;
use crate::object::{GroupResource, ObjectKey, Set};
use crate::progress::Tally;
use crate::progress::pace::RESTORING;
use crate::repository::contents::{Contents, Entry};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Passes over what may work later (a namespace that is still being deleted, a webhook that is
/// away) and over references that can be linked now. What is left is the next run's.
const PASSES: u32 = 3;
/// Before the second pass; doubled before each further one.
const PASS_WAIT: Duration = Duration::from_secs(1);
/// A definition is established within milliseconds, or something is wrong with it.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);
const ESTABLISHED_POLL: Duration = Duration::from_millis(50);
/// An API server holds each creation of an object whose kind is new for that long: waiting once
/// is cheaper than waiting in every connection.
const NEW_KIND_SETTLES: Duration = Duration::from_secs(2);
/// Objects in a row for which the server said nothing at all: it is away, not busy.
const MAX_UNANSWERED: usize = 4;

pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Calls the sink with every object of a pack (by its number in the opened backup), in any order,
/// until the sink breaks. It blocks, and is run where blocking is allowed.
pub type Source = Arc<dyn Fn(u32, &mut Sink<'_>) -> Result<(), SourceError> + Send + Sync>;
pub type Sink<'a> = dyn FnMut(ObjectKey, &RawValue) -> ControlFlow<()> + 'a;

/// Calls the sink with the objects as they were when these marks were written, as far as they can
/// still be read. Blocks, too.
pub type Applied = Arc<dyn Fn(&HashMap<ObjectKey, Mark>, &mut Sink<'_>) + Send + Sync>;

/// Asked before the first write and then so often that no write starts more than 200 objects or 5
/// seconds after a question that was answered well. `Break` tells why the run must stop.
pub type Guard<'a> = &'a (dyn Fn() -> BoxFuture<'static, ControlFlow<String>> + Send + Sync);

/// On whose behalf it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A standby's: what is written is marked as ours, and followed from then on.
    Sync,
    /// A person's: each object as the plan saw it or not at all, and nobody's afterwards.
    Once,
}

/// All that an execution needs beside its plan.
pub struct Run<'a> {
    pub how: How,
    /// With a time-out of its own, and without retries: they would hide the server's complaints
    /// from the governor.
    pub client: &'a kube::Client,
    pub contents: &'a Contents,
    pub kinds: &'a Kinds,
    pub policy: &'a Policy,
    pub max_in_flight: usize,
    /// Everything is sent so that the server tries it and writes nothing, once each. `restored` then
    /// tells what it would hold.
    pub dry_run: bool,
    pub cancel: &'a CancellationToken,
    pub guard: Guard<'a>,
    pub source: Source,
    /// None: every object that changed is read from the hub first.
    pub applied: Option<Applied>,
    pub tally: &'a Tally,
}

/// What does not change while a plan is executed.
pub(super) struct Context<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) hub: Hub<'a>,
    index: OwnerIndex<'a>,
}

/// What has happened until now.
pub(super) struct Progress<'a> {
    pub(super) restored: &'a mut Restored,
    pub(super) report: Report,
    /// Owners outside the backup, looked up on the hub once a run. None: not there.
    outside: HashMap<ObjectKey, Option<String>>,
    later: HashMap<ObjectKey, String>,
    failed_kinds: HashSet<GroupResource>,
    unanswered: usize,
    /// Deleted to be created again, so that what it owns has to be linked anew.
    renewed: HashSet<ObjectKey>,
    /// None: the guard was never asked.
    pub(super) asked: Option<Asked>,
    /// When the API server is done with the kinds that are new to it.
    settled: Option<Instant>,
}

pub async fn execute(run: &Run<'_>, checked: &Checked, restored: &mut Restored) -> Report {
    let plan = checked.plan();
    let hub = Hub::new(run.client, run.max_in_flight, run.cancel).doing(run.how, run.dry_run);
    let context = Context { run, hub, index: OwnerIndex::new(run.contents) };
    let mut progress = Progress {
        restored,
        report: planned(plan),
        outside: HashMap::new(),
        later: HashMap::new(),
        failed_kinds: HashSet::new(),
        unanswered: 0,
        renewed: HashSet::new(),
        asked: None,
        settled: None,
    };

    let doing = if run.dry_run { "trying" } else { RESTORING };
    run.tally.begin(doing, "objects", Some(plan.writes.len()));
    let mut todo = plan.writes.clone();
    let passes = if run.dry_run { 1 } else { PASSES };
    for pass in 0..passes {
        if pass > 0 {
            todo = next_pass(&context, &mut progress, plan);
        }
        if todo.is_empty() || progress.report.stopped.is_some() {
            break;
        }
        if pass > 0 && !progress.later.is_empty() {
            let pause = tokio::time::sleep(PASS_WAIT * 2u32.pow(pass - 1));
            if run.cancel.run_until_cancelled(pause).await.is_none() {
                progress.stop("the restore was interrupted");
                break;
            }
        }
        write_all(&context, &mut progress, &todo).await;
    }
    if progress.report.stopped.is_none() && !progress.renewed.is_empty() {
        let writes = owned_by_renewed(&context, &progress);
        write_all(&context, &mut progress, &writes).await;
    }
    for (key, reason) in std::mem::take(&mut progress.later) {
        progress.fail(context.run.contents, key, reason);
    }
    if progress.report.stopped.is_none() {
        remove_all(&context, &mut progress, plan).await;
    }
    progress.report.failed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    progress.report.mutations = context.hub.mutations();
    progress.report
}

/// What the plan alone settles.
fn planned(plan: &Plan) -> Report {
    let mut report = Report::default();
    for (line, count) in &plan.summary {
        let done = match line.verb {
            Verb::Skip => Done::Skipped,
            Verb::Refuse => Done::Refused,
            Verb::Leave | Verb::Hold => Done::Left,
            Verb::Unchanged => Done::Unchanged,
            Verb::Create | Verb::Update | Verb::Delete | Verb::Unlabel => continue,
        };
        report.add(line.set, done, *count);
        if [NOT_SERVED, NOT_SERVED_YET].contains(&line.why) {
            *report.waiting.entry(line.kind.clone()).or_default() += count;
        }
    }
    for (key, why) in &plan.refused {
        report.name_refused(key.clone(), (*why).to_owned());
    }
    report.held_plan = plan.held.clone().map(Box::new);
    let released = plan.released.clone();
    report.released = released
        .map(|released| Box::new(Released { plan: released, deletions: plan.deletes.len() }));
    report
}

async fn write_all<'a>(context: &'a Context<'a>, progress: &mut Progress<'_>, writes: &'a [Write]) {
    let mut waves = writes.chunk_by(|a, b| a.stage == b.stage).peekable();
    let mut reader = None;
    while let Some(wave) = waves.next() {
        let class = wave[0].stage.class;
        let packs = reader.take().unwrap_or_else(|| wave::read(context, progress, wave));
        if class > Class::Basics && !settle(context, progress).await {
            return progress.stop("the restore was interrupted");
        }
        find_outside_owners(context, progress, wave).await;
        let created = progress.report.count(Done::Created);
        reader = wave::write(context, progress, wave, packs, waves.peek().copied()).await;
        if progress.report.stopped.is_some() {
            return;
        }
        let new = progress.report.count(Done::Created) > created && !context.run.dry_run;
        if class == Class::CustomResourceDefinitions && new {
            let established = established(context, progress, wave);
            if context.run.cancel.run_until_cancelled(established).await.is_none() {
                return progress.stop("the restore was interrupted");
            }
            progress.settled = Some(clock::monotonic() + NEW_KIND_SETTLES);
        }
    }
}

/// Waits for what is left of the time that new kinds need; what comes before their objects is
/// written meanwhile. `false`: interrupted.
async fn settle(context: &Context<'_>, progress: &mut Progress<'_>) -> bool {
    let Some(settled) = progress.settled.take() else { return true };
    let left = settled.saturating_duration_since(clock::monotonic());
    context.run.cancel.run_until_cancelled(tokio::time::sleep(left)).await.is_some()
}

/// Waits until the API server serves the new kinds. A kind that does not come makes its objects
/// fail one by one, with their own reason.
async fn established(context: &Context<'_>, progress: &Progress<'_>, wave: &[Write]) {
    let created = wave.iter().filter(|write| progress.restored.get(&write.key).is_some());
    let polls: Vec<_> = created.map(|write| until_established(context, &write.key)).collect();
    let polls = futures::stream::iter(polls).buffer_unordered(LOOK_UPS);
    if tokio::time::timeout(ESTABLISHED_WITHIN, polls.collect::<Vec<()>>()).await.is_err() {
        tracing::warn!("not all restored CustomResourceDefinitions were established in time");
    }
}

async fn until_established(context: &Context<'_>, key: &ObjectKey) {
    let version = &context.run.contents.entries[key].version;
    while !context.hub.get(key, version).await.is_ok_and(|body| is_established(&body)) {
        tokio::time::sleep(ESTABLISHED_POLL).await;
    }
}

fn is_established(definition: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Definition {
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, serde::Deserialize)]
    struct Status {
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    #[derive(serde::Deserialize)]
    struct Condition {
        r#type: String,
        status: String,
    }
    serde_json::from_slice::<Definition>(definition).is_ok_and(|definition| {
        let mut conditions = definition.status.conditions.iter();
        conditions.any(|condition| condition.r#type == "Established" && condition.status == "True")
    })
}

/// Asks the hub for owners that the backup lacks, once each.
async fn find_outside_owners(context: &Context<'_>, progress: &mut Progress<'_>, wave: &[Write]) {
    let mut wanted = HashMap::new();
    for write in wave {
        for owner in &context.run.contents.entries[&write.key].owners {
            if context.index.find(&write.key, owner).is_none()
                && let Some(key) = key_on_hub(&write.key, owner, context.run.kinds)
                && !progress.outside.contains_key(&key)
                && let Some(kind) = context.run.kinds.of(&key)
            {
                wanted.insert(key, kind.version.clone());
            }
        }
    }
    let looks: Vec<_> =
        wanted.into_iter().map(|(key, version)| live_uid(context, key, version)).collect();
    let mut looks = futures::stream::iter(looks).buffer_unordered(LOOK_UPS);
    while let Some((key, uid)) = looks.next().await {
        progress.outside.insert(key, uid);
    }
}

async fn live_uid(
    context: &Context<'_>,
    key: ObjectKey,
    version: String,
) -> (ObjectKey, Option<String>) {
    let found = context.hub.metadata(&key, &version).await.ok();
    let living = found.filter(|found| found.deletion_timestamp.is_none());
    (key, living.map(|found| found.uid.into_string()))
}

/// Source UID → UID here, for the owners of an object that stand on this hub.
pub(super) fn links<'a>(
    context: &Context<'a>,
    progress: &Progress<'_>,
    key: &ObjectKey,
    entry: &'a Entry,
) -> HashMap<&'a str, String> {
    let live = entry.owners.iter().filter_map(|owner| {
        let uid = if let Some(owner) = context.index.find(key, owner) {
            progress.restored.uid(owner)?.to_owned()
        } else {
            let owner = key_on_hub(key, owner, context.run.kinds)?;
            progress.outside.get(&owner)?.clone()?
        };
        Some((&*owner.uid, uid))
    });
    live.collect()
}

/// What may work later, and what was written without a reference whose owner is there by now.
fn next_pass(context: &Context<'_>, progress: &mut Progress<'_>, plan: &Plan) -> Vec<Write> {
    let linkable = |write: &Write| {
        let entry = &context.run.contents.entries[&write.key];
        let known = progress.restored.get(&write.key);
        let stripped = known.and_then(|known| known.mark).map_or(0, |mark| mark.stripped);
        let links = || links(context, progress, &write.key, entry);
        stripped > 0 && entry.owners.len() - links().len() < usize::from(stripped)
    };
    let again = plan.writes.iter();
    again
        .filter(|write| progress.later.contains_key(&write.key) || linkable(write))
        .cloned()
        .collect()
}

/// What stands here as in the backup but for the UID of an owner that was created anew: the garbage
/// collector took the reference out when the old one went.
fn owned_by_renewed(context: &Context<'_>, progress: &Progress<'_>) -> Vec<Write> {
    let contents = context.run.contents;
    let stages = order::stages(contents, &context.index);
    let is_owned = |key: &ObjectKey, entry: &Entry| {
        let mut owners = entry.owners.iter().filter_map(|owner| context.index.find(key, owner));
        owners.any(|owner| progress.renewed.contains(owner))
    };
    let mark = |key: &ObjectKey| progress.restored.get(key).and_then(|known| known.mark);
    let as_in_backup = |key: &ObjectKey, entry: &Entry| {
        mark(key).is_some_and(|mark| {
            let written = Mark::new(&entry.digest, entry.set, mark.stripped.into());
            mark == written.made_inert(mark.inert)
        })
    };
    let owned = contents.entries.iter();
    let owned = owned.filter(|(key, entry)| is_owned(key, entry) && as_in_backup(key, entry));
    let mut writes: Vec<Write> = owned
        .map(|(key, _)| {
            let (stage, why) = (stages.of(key), "its owner was created anew");
            let inert = mark(key).and_then(|mark| mark.inert);
            Write { key: key.clone(), stage, update: true, inert, why }
        })
        .collect();
    writes.sort_unstable_by(|a, b| (a.stage, &a.key).cmp(&(b.stage, &b.key)));
    writes
}

impl Progress<'_> {
    pub(super) fn stop(&mut self, why: impl Into<String>) {
        self.report.stopped.get_or_insert(why.into());
    }

    pub(super) fn record(&mut self, contents: &Contents, key: ObjectKey, outcome: Outcome) {
        let set = contents.entries.get(&key).map(|entry| entry.set);
        self.later.remove(&key);
        if !matches!(outcome, Outcome::Unanswered(_)) {
            self.unanswered = 0;
        }
        match outcome {
            Outcome::Written(done, known) => {
                self.report.add(set, done, 1);
                self.restored.objects.insert(key, known);
            }
            Outcome::Kept(known) => {
                let why = "exists on this hub and is not ours".to_owned();
                self.report.refuse(set, Done::Kept, key.clone(), why);
                self.restored.objects.insert(key, known);
            }
            Outcome::Refused(why) => self.report.refuse(set, Done::Refused, key, why),
            Outcome::Failed(reason) => self.fail(contents, key, reason),
            Outcome::Gone(reason) => {
                // Nobody may refer to its UID any more.
                self.restored.objects.remove(&key);
                self.renewed.insert(key.clone());
                self.later.insert(key, reason);
            }
            Outcome::Later(reason) => {
                self.later.insert(key, reason);
            }
            Outcome::Full(reason) => {
                self.stop(format!("this hub takes no writes: {reason}"));
                self.later.insert(key, reason);
            }
            Outcome::Unanswered(reason) => {
                self.unanswered += 1;
                if self.unanswered >= MAX_UNANSWERED {
                    self.stop(format!("the API server is away: {reason}"));
                }
                self.later.insert(key, reason);
            }
        }
    }

    pub(super) fn fail(&mut self, contents: &Contents, key: ObjectKey, reason: String) {
        let set: Option<Set> = contents.entries.get(&key).map(|entry| entry.set);
        self.failed_kinds.insert(key.group_resource());
        self.report.fail(set, key, reason);
    }
}

/// Deletions and unlabellings. Of a kind of which something failed nothing is removed: the object
/// that failed may be the one that the others need.
async fn remove_all(context: &Context<'_>, progress: &mut Progress<'_>, plan: &Plan) {
    let unlabels: Vec<_> = plan.unlabels.iter().map(|step| unlabel(context, step)).collect();
    drain(context, progress, unlabels).await;

    for group in plan.deletes.chunk_by(|a, b| Class::of(&a.key) == Class::of(&b.key)) {
        let mut deletes = Vec::new();
        for step in group {
            if progress.failed_kinds.contains(&step.key.group_resource()) {
                let why = "other objects of its kind could not be restored";
                progress.report.add(None, Done::Left, 1);
                progress.report.hold(format!("{}: {why}", step.key));
            } else {
                deletes.push(delete(context, step));
            }
        }
        drain(context, progress, deletes).await;
    }
    let going = std::mem::take(&mut progress.report.going).into_iter().take(MAX_NAMED);
    let looks: Vec<_> = going.map(|key| still_going(context, key)).collect();
    let looks = futures::stream::iter(looks).buffer_unordered(LOOK_UPS);
    progress.report.going = looks.filter_map(std::future::ready).collect().await;
    progress.report.going.sort_unstable();
}

/// Most of what was being deleted is gone by the end of a run. What cannot be looked at may be there.
async fn still_going(context: &Context<'_>, key: ObjectKey) -> Option<ObjectKey> {
    let kind = context.run.kinds.of(&key)?;
    let going = match context.hub.metadata(&key, &kind.version).await {
        Ok(found) => found.deletion_timestamp.is_some(),
        Err(error) => !error.is_not_found(),
    };
    going.then_some(key)
}

async fn unlabel<'k>(context: &Context<'_>, step: &'k Unlabel) -> (&'k ObjectKey, Removal) {
    let removal = remove::unlabel(&context.hub, context.run.kinds, context.run.policy, step);
    (&step.key, removal.await)
}

async fn delete<'k>(context: &Context<'_>, step: &'k Delete) -> (&'k ObjectKey, Removal) {
    let removal = remove::delete(&context.hub, context.run.kinds, context.run.policy, step);
    (&step.key, removal.await)
}

async fn drain<'k, F: Future<Output = (&'k ObjectKey, Removal)>>(
    context: &Context<'_>,
    progress: &mut Progress<'_>,
    removals: Vec<F>,
) {
    let cancel = context.run.cancel;
    context.run.tally.begin("removing", "objects", Some(removals.len()));
    let removals = removals.into_iter().take_while(|_| !cancel.is_cancelled());
    let mut removals = futures::stream::iter(removals).buffer_unordered(context.hub.limit());
    while let Some((key, removal)) = removals.next().await {
        context.run.tally.add(1);
        match removal {
            Removal::Done(done) => {
                progress.report.add(None, done, 1);
                progress.restored.objects.remove(key);
            }
            Removal::Going => {
                progress.report.add(None, Done::Deleted, 1);
                progress.report.going.push(key.clone());
                progress.restored.objects.remove(key);
            }
            Removal::Held(why) => {
                progress.report.add(None, Done::Left, 1);
                progress.report.hold(why);
            }
            Removal::Failed(reason) => {
                progress.failed_kinds.insert(key.group_resource());
                progress.report.fail(None, key.clone(), reason);
            }
        }
    }
    if cancel.is_cancelled() {
        progress.stop("the restore was interrupted");
    }
}
