//! Sweeps beside the jobs of the control loop: they delay no backup, and no backup delays them. One
//! runs at a time; what operators ask for waits its turn.

use super::Control;
use crate::backup::sweeper::Wish;
use crate::daemon::{jobs, surface};
use crate::status::Outcome;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Requests that wait. A command waits for its answer, so there are never many.
const MOST_WAITING: usize = 16;

pub(super) struct Sweeping {
    /// The request of the command line that it answers.
    answers: Option<String>,
    handle: JoinHandle<(Outcome, String)>,
    cancel: CancellationToken,
}

impl Control {
    pub(super) async fn sweep_asked(&mut self, id: String, wish: Wish) {
        if self.sweeps.len() < MOST_WAITING {
            self.sweeps.push_back((id, wish));
        } else {
            let message = format!("{MOST_WAITING} requests of this kind wait already");
            surface::answer(&self.shared, id, Outcome::Refused, message).await;
        }
    }

    /// Begins what is asked for or due.
    pub(super) fn sweep(&mut self) {
        let (Some(opened), Some(writer)) = (&self.opened, self.writer()) else { return };
        if self.sweeping.is_some() {
            return;
        }
        let (answers, wish) = match self.sweeps.pop_front() {
            Some((id, wish)) => (Some(id), wish),
            None if self.timing.sweep_begins(crate::clock::monotonic()) => (None, Wish::Rules),
            None => return,
        };
        let cancel = self.stop.child_token();
        let (shared, repository) = (self.shared.clone(), opened.repository.clone());
        let job = jobs::sweep(shared, repository, writer, wish, cancel.clone());
        self.sweeping = Some(Sweeping { answers, handle: self.tasks.spawn(job), cancel });
    }

    pub(super) async fn sweep_ended(&mut self, (outcome, message): (Outcome, String)) {
        let answers = self.sweeping.take().and_then(|sweeping| sweeping.answers);
        if let Some(id) = answers {
            surface::answer(&self.shared, id, outcome, message).await;
        }
    }

    /// It ends before its next request.
    pub(super) fn cancel_sweep(&self) {
        if let Some(sweeping) = &self.sweeping {
            sweeping.cancel.cancel();
        }
    }

    /// Ends it where it stands; the requests that are without an answer then.
    pub(super) fn abort_sweeps(&mut self) -> Vec<String> {
        let waiting = std::mem::take(&mut self.sweeps).into_iter().map(|(id, _)| id);
        let running = self.sweeping.take().and_then(|Sweeping { answers, handle, cancel: _ }| {
            handle.abort();
            self.shared.board.update(|s| s.sweep.running_since = None);
            answers
        });
        waiting.chain(running).collect()
    }
}

/// Waits for the sweep; never ends while there is none.
pub(super) async fn ended(sweeping: &mut Option<Sweeping>) -> (Outcome, String) {
    match sweeping {
        Some(sweeping) => (&mut sweeping.handle)
            .await
            .unwrap_or_else(|_| (Outcome::Failed, "the sweep ended early".to_owned())),
        None => std::future::pending().await,
    }
}
