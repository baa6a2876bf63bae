//! The control loop: looks at the journal, decides, does one thing, publishes what it saw.
//!
//! It keeps no role in memory. What it does keep can be lost at any moment: the job that runs, the
//! times at which the next ones are due, and the slot of its own `Open`, without which it writes
//! nothing.

mod demote;
mod drill;
mod look;
mod orders;
mod pause;
mod rejoin;
mod sweep;
mod term;

use super::jobs::{self, Job, JobResult};
use super::{DaemonError, Nudge, PromotionAsked, Shared};
use crate::backup::Primary;
use crate::backup::sweeper::Wish;
use crate::kube_status::ask::Ask;
use crate::promotion::machine::{self, Action, Decision, Facts, Fence, Request, State, Trigger};
use crate::repository::Repository;
use crate::repository::journal::JournalError;
use crate::repository::packs::PacksError;
use crate::repository::record::HubId;
use crate::status::{Frozen, Outcome};
use crate::sync::Standby;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) struct Control {
    shared: Shared,
    me: HubId,
    tasks: TaskTracker,
    stop: CancellationToken,
    opened: Option<Opened>,
    /// Epoch and slot of the `Open` that this process wrote.
    own_open: Option<(u64, u64)>,
    request: Option<Request>,
    /// The request stands in the `Hub` status, so a restart goes on with it.
    request_is_durable: bool,
    /// Held until it is, by whoever waits for that.
    untaken: Option<mpsc::Sender<()>>,
    work: Option<Work>,
    /// Requests of the command line for a backup, or a sync, that has not begun.
    asked: Vec<Ask>,
    /// Requests of the command line that write the journal.
    orders: Vec<Ask>,
    /// A request to hand over that waits for its last backup.
    demotion: Option<demote::Demotion>,
    sweeping: Option<sweep::Sweeping>,
    /// Sweeps that the command line asks for, each with its request.
    sweeps: VecDeque<(String, Wish)>,
    timing: jobs::Timing,
}

/// What exists once the repository could be opened.
struct Opened {
    repository: Arc<Repository>,
    primary: Arc<Mutex<Primary>>,
    standby: Arc<Mutex<Standby>>,
}

struct Work {
    job: Job,
    /// Requests of the command line that this job answers.
    answers: Vec<Ask>,
    handle: JoinHandle<JobResult>,
    cancel: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Packs(#[from] PacksError),
}

/// Whether to look again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Again,
    Rest,
}

impl Control {
    pub(super) fn new(
        shared: Shared,
        hub_uid: String,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let me = HubId { name: shared.settings.hub.name.clone(), uid: hub_uid };
        let (now, monotonic) = (crate::clock::now(), crate::clock::monotonic());
        let mut timing = jobs::Timing::new(shared.settings.clone(), now, monotonic);
        if let Some(pause) = shared.board.read().pause {
            timing.pause(pause, now, monotonic);
        }
        let request = super::surface::remembered_request(&shared.board);
        Self {
            shared,
            me,
            tasks,
            stop,
            opened: None,
            own_open: None,
            request_is_durable: request.is_some(),
            untaken: None,
            request,
            work: None,
            asked: vec![],
            orders: vec![],
            demotion: None,
            sweeping: None,
            sweeps: VecDeque::new(),
            timing,
        }
    }

    pub(super) async fn run(
        mut self,
        mut nudges: mpsc::Receiver<Nudge>,
    ) -> Result<(), DaemonError> {
        loop {
            super::surface::tick(&self.shared.board);
            let next = self.turn().await?;
            if next == Next::Again {
                continue;
            }
            let poll = self.shared.settings.storage.poll_interval;
            let rest = self.timing.rest(poll, crate::clock::now(), crate::clock::monotonic());
            tokio::select! {
                () = self.stop.cancelled() => return self.drain().await,
                Some(nudge) = nudges.recv() => self.nudged(nudge).await,
                result = finished(&mut self.work) => self.finish(result).await,
                result = sweep::ended(&mut self.sweeping) => self.sweep_ended(result).await,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// A promotion asked for again while one is under way is the same promotion.
    async fn nudged(&mut self, nudge: Nudge) {
        match nudge {
            Nudge::RunNow => self.timing.run_now(),
            Nudge::Ask(ask) => self.asked(ask).await,
            Nudge::Promote(PromotionAsked { named, .. }) if self.request.is_some() => {
                let id = named.map(|named| named.id);
                if let Some(id) = id.filter(|id| !self.request.iter().any(|r| r.id == *id)) {
                    let message = "another promotion is under way already".to_owned();
                    super::surface::answer(&self.shared, id, Outcome::Refused, message).await;
                }
            }
            Nudge::Promote(PromotionAsked { trigger, forced, named, guards, taken }) => {
                self.end_drill();
                let named = named.map(|named| (named.id, named.expected_epoch));
                let (id, expected_epoch) = named.unwrap_or_else(|| {
                    let id = format!("{:032x}", crate::clock::random());
                    (id, self.shared.board.read().epoch)
                });
                tracing::info!(
                    trigger = trigger.name(),
                    id,
                    expected_epoch,
                    forced,
                    "promotion requested"
                );
                let request = Request { id, expected_epoch, trigger, forced, guards };
                super::surface::show_request(&self.shared.board, &request, crate::clock::now());
                self.request = Some(request);
                self.request_is_durable = false;
                self.untaken = taken;
            }
        }
    }

    /// One look, one decision, one action.
    async fn turn(&mut self) -> Result<Next, DaemonError> {
        let journal = self.look().await;
        let facts = self.facts(journal);
        let decision = machine::decide(&facts);
        self.show(&decision, &facts);
        self.follow_clocks(decision.state);
        if self.request.is_some() && !self.request_is_durable {
            self.request_is_durable = super::surface::publish_now(&self.shared).await;
            if !self.request_is_durable {
                return Ok(Next::Rest);
            }
            self.untaken = None;
        }
        self.act(decision).await
    }

    fn show(&self, decision: &Decision, facts: &Facts) {
        let now = crate::clock::now();
        let before = self.shared.board.update(|s| {
            let before = s.role;
            if let Some(role) = decision.state.role() {
                if s.role != Some(role) {
                    s.role_since = Some(now);
                }
                s.role = Some(role);
            }
            s.frozen = frozen(decision, facts);
            s.promotion.checklist.clone_from(&facts.checklist);
            before
        });
        if let Some(role) = decision.state.role()
            && before != Some(role)
        {
            tracing::info!(role = role.name(), why = decision.why, "role");
            self.shared.metrics.role_changed(role);
        }
    }

    async fn act(&mut self, decision: Decision) -> Result<Next, DaemonError> {
        let why = decision.why;
        match decision.action {
            Action::Wait => {
                if decision.state == State::Frozen {
                    self.work.iter().for_each(|work| work.cancel.cancel());
                    self.cancel_sweep();
                }
                self.refuse_asked(&why).await;
                Ok(Next::Rest)
            }
            Action::Probe => Ok(self.probe().await),
            Action::TakeTerm { epoch, request } => {
                self.refuse_asked(&why).await;
                Ok(self.take_term(epoch, &request).await)
            }
            Action::Open => Ok(self.open_term().await),
            Action::Activate => Ok(self.activate()),
            Action::Backup => Ok(self.backup().await),
            Action::Sync => Ok(self.sync().await),
            Action::Refuse(refusal) => Ok(self.refuse(refusal)),
            Action::Withdraw => {
                // Whatever this hub still had in hand must not be finished.
                let asked = self.asked.drain(..).chain(self.orders.drain(..));
                let mut unanswered: Vec<String> = asked.map(|ask| ask.id).collect();
                unanswered.extend(self.demotion.take().map(|demotion| demotion.id));
                unanswered.extend(self.abort_sweeps());
                if let Some(work) = self.work.take() {
                    work.handle.abort();
                    super::surface::job_ended(&self.shared.board);
                    tracing::warn!(job = work.job.name(), why, "stopped");
                    unanswered.extend(work.answers.into_iter().map(|ask| ask.id));
                }
                self.answer_refused(unanswered, &why).await;
                Ok(Next::Rest)
            }
            Action::Exit => {
                tracing::error!(why, "ending");
                Err(DaemonError::Superseded)
            }
        }
    }

    async fn refuse_asked(&mut self, why: &str) {
        let mut asked: Vec<_> =
            std::mem::take(&mut self.asked).into_iter().map(|ask| ask.id).collect();
        asked.extend(self.demotion.take().map(|demotion| demotion.id));
        self.answer_refused(asked, why).await;
    }

    async fn answer_refused(&self, asked: Vec<String>, why: &str) {
        for id in asked {
            super::surface::answer(&self.shared, id, Outcome::Refused, why.to_owned()).await;
        }
    }

    fn activate(&mut self) -> Next {
        if let Some(work) = &self.work {
            if work.job != Job::Activation {
                work.cancel.cancel();
            }
            return Next::Rest;
        }
        let (Some(opened), Some(writer)) = (&self.opened, self.writer()) else { return Next::Rest };
        if !self.timing.activation_is_due(crate::clock::monotonic()) {
            return Next::Rest;
        }
        let cancel = self.stop.child_token();
        let job = jobs::activation(
            self.shared.clone(),
            opened.repository.clone(),
            opened.standby.clone(),
            writer,
            cancel.clone(),
        );
        self.start(Job::Activation, cancel, job)
    }

    async fn backup(&mut self) -> Next {
        self.request = None;
        super::surface::settle_promotion(&self.shared.board, crate::clock::now());
        if self.work.is_none() {
            self.obey().await;
        }
        if self.demotion.is_none() {
            self.sweep();
        }
        let (now, monotonic) = (crate::clock::now(), crate::clock::monotonic());
        super::surface::show_schedule(&self.shared.board, &mut self.timing, now, monotonic);
        let due = self.demotion.is_some() || self.timing.backup_is_due(now, monotonic);
        if self.probe_again() || self.work.is_some() || !due {
            return Next::Rest;
        }
        let (Some(opened), Some(writer)) = (&self.opened, self.writer()) else { return Next::Rest };
        self.timing.backup_begins(now);
        if let Some(demotion) = &mut self.demotion {
            demotion.last_runs = true;
        }
        let cancel = self.stop.child_token();
        let job = jobs::backup(
            self.shared.clone(),
            opened.repository.clone(),
            opened.primary.clone(),
            writer,
            self.asked.iter().find_map(|ask| ask.reason.clone()),
        );
        self.start(Job::Backup, cancel, job)
    }

    async fn sync(&mut self) -> Next {
        // Proven now, the fence costs a promotion no time later. A storage that cannot be probed must
        // not keep the standby from following.
        if self.probe_again() {
            return Next::Rest;
        }
        let Some(opened) = &self.opened else { return Next::Rest };
        let backup = opened.repository.journal.lock().await.view().usable.clone();
        let Some(backup) = backup else {
            self.refuse_asked("there is no backup to follow yet").await;
            return Next::Rest;
        };
        self.timing.look_at_newest(&opened.repository, &backup).await;
        let now = crate::clock::monotonic();
        let promoting = self.request.is_some();
        if self.work.is_some() {
            return Next::Rest;
        }
        if !self.timing.sync_is_due(backup.mark.slot, promoting, now) {
            return self.drill(backup);
        }
        self.timing.sync_begins(backup.mark.slot, now);
        let cancel = self.stop.child_token();
        let (shared, repository) = (self.shared.clone(), opened.repository.clone());
        let released = orders::released(&self.asked);
        let standby = opened.standby.clone();
        let job = jobs::sync(
            shared,
            repository,
            standby,
            backup,
            self.me.clone(),
            released,
            cancel.clone(),
        );
        self.start(Job::Sync, cancel, job)
    }

    fn start(
        &mut self,
        job: Job,
        cancel: CancellationToken,
        future: impl Future<Output = JobResult> + Send + 'static,
    ) -> Next {
        tracing::debug!(job = job.name(), "begins");
        let answers = self.answered_by(job);
        self.work = Some(Work { job, answers, handle: self.tasks.spawn(future), cancel });
        Next::Rest
    }

    async fn finish(&mut self, result: JobResult) {
        let Some(work) = self.work.take() else { return };
        self.timing.ended(work.job, result, crate::clock::monotonic());
        super::surface::job_ended(&self.shared.board);
        for Ask { id, verb, reason: _ } in work.answers {
            let (outcome, message) = orders::ended(&self.shared.board.read(), work.job, &verb);
            super::surface::answer(&self.shared, id, outcome, message).await;
        }
        if let Some(demotion) = self.demotion.take_if(|demotion| demotion.last_runs) {
            self.hand_over(demotion, result).await;
        }
    }

    fn refuse(&mut self, refusal: Frozen) -> Next {
        let request = self.request.take();
        if let Some(request) = &request {
            tracing::warn!(
                id = request.id,
                reason = refusal.reason,
                message = refusal.message,
                hint = refusal.hint,
                "promotion refused"
            );
            self.shared.metrics.promotion(request.trigger, Outcome::Refused);
        }
        let asked = request.filter(|request| request.trigger == Trigger::Cli);
        super::surface::show_refusal(&self.shared, refusal, asked.map(|request| request.id));
        Next::Again
    }

    /// Lets the job come to its next object and end there.
    async fn drain(&mut self) -> Result<(), DaemonError> {
        if let Some(mut work) = self.work.take() {
            work.cancel.cancel();
            if tokio::time::timeout(super::DRAIN / 2, &mut work.handle).await.is_err() {
                work.handle.abort();
            }
        }
        super::surface::publish_now(&self.shared).await;
        Ok(())
    }
}

/// Waits for the job; never ends while there is none.
async fn finished(work: &mut Option<Work>) -> JobResult {
    match work {
        Some(work) => (&mut work.handle).await.unwrap_or(JobResult::Failed),
        None => std::future::pending().await,
    }
}

/// What is shown as the reason why this hub does not act, beyond what the journal itself says.
fn frozen(decision: &Decision, facts: &Facts) -> Option<Frozen> {
    let told = facts.journal.as_ref().and_then(|journal| journal.frozen.clone());
    match (decision.state, told) {
        (_, Some(frozen)) => Some(frozen),
        (State::Frozen, None) => Some(Frozen {
            reason: "HubReplaced".to_owned(),
            message: decision.why.clone(),
            hint: "give one of the two hubs another hub.name, or remove the old pair's storage prefix".to_owned(),
        }),
        (_, _) if matches!(facts.fence, Fence::Refuted(_)) && decision.action == Action::Wait => Some(Frozen {
            reason: "StorageNotAtomic".to_owned(),
            message: decision.why.clone(),
            hint: "use a storage with an atomic conditional create, or set storage.allowUnfenced: true".to_owned(),
        }),
        (_, _) => None,
    }
}
