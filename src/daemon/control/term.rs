//! What it takes to write: the proof that the storage fences, the `Term`, and the own `Open`.

use super::super::jobs::{self, Job, JobResult};
use super::super::surface;
use super::{Control, ControlError, Next};
use crate::promotion::machine::Fence;
use crate::repository::journal::{Journal, JournalError, Writer};
use crate::repository::record::Body;
use crate::retry;

impl Control {
    /// What the last race said.
    pub(super) fn fence(&self) -> Fence {
        let storage = self.shared.board.read().storage;
        match (storage.atomic_create, storage.allow_unfenced) {
            (None, _) => Fence::NotProbed,
            (Some(true), _) => Fence::Proven,
            (Some(false), true) => Fence::Unfenced,
            (Some(false), false) => Fence::Refuted(storage.probe_verdict.unwrap_or_default()),
        }
    }

    pub(super) async fn probe(&mut self) -> Next {
        match jobs::probe(self.shared.clone()).await {
            JobResult::Done => {
                self.timing.probed(crate::clock::monotonic());
                Next::Again
            }
            JobResult::Failed => Next::Rest,
        }
    }

    /// Starts the race when it is due: at first, and again and again while the fence holds. It runs
    /// alone, so that no backup is on its way when it turns out that the storage does not fence any
    /// more. That verdict stands until the daemon is started again: a storage without a fence wins a
    /// race by luck, if only there are enough of them.
    pub(super) fn probe_again(&mut self) -> bool {
        let due = self.work.is_none()
            && matches!(self.fence(), Fence::NotProbed | Fence::Proven)
            && self.timing.probe_is_due(crate::clock::monotonic());
        if due {
            let probe = jobs::probe(self.shared.clone());
            self.start(Job::Probe, self.stop.child_token(), probe);
        }
        due
    }

    pub(super) async fn take_term(&mut self, epoch: u64, request: &str) -> Next {
        // A sync in progress stops at its next object; the term does not wait for it.
        if let Some(work) = &self.work {
            work.cancel.cancel();
        }
        match self.write_term(epoch, request).await {
            Ok(()) => Next::Again,
            Err(error) => {
                tracing::error!(error = retry::chain(&error), epoch, "failed to take the term");
                Next::Rest
            }
        }
    }

    async fn write_term(&mut self, epoch: u64, request: &str) -> Result<(), ControlError> {
        if self.opened.is_none() && !self.open_repository().await? {
            Journal::create(
                self.shared.storage.clone(),
                self.shared.keys.clone(),
                crate::clock::random(),
            )
            .await?;
            self.open_repository().await?;
        }
        let Some(opened) = &self.opened else { return Ok(()) };
        let writer = Writer { hub: self.me.clone(), epoch, incarnation: 0 };
        let mut journal = opened.repository.journal.lock().await;
        journal.look_for_holes().await?;
        if journal.view().last.is_none() {
            let init = Writer { epoch: 0, ..writer.clone() };
            let made = journal.append(&init, Body::Init, |view| match view.last {
                None => Ok(()),
                Some(_) => Err("another hub has just initialised the repository".to_owned()),
            });
            match made.await {
                Ok(_) | Err(JournalError::NotAllowed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Only with an operator's word, and only what was read: if there is more by now, nothing is
        // written.
        let forced = self.request.as_ref().is_some_and(|request| request.forced.is_some());
        let junk = if forced { journal.view().passable() } else { &[] };
        let skips = junk.to_vec();
        let body = Body::Term { request: request.to_owned(), skips: skips.clone() };
        let opened = self.timing.newest_slot();
        let asked = journal.append(&writer, body, |view| {
            if view.epoch + 1 != epoch {
                let holder = view.holder.as_ref().map_or("nobody", |hub| &hub.name);
                return Err(format!("{holder} has taken the term {}", view.epoch));
            }
            if view.passable() != skips {
                return Err("the journal was frozen by something new meanwhile".to_owned());
            }
            // What a term starts from must have been opened before: there is no way back behind it.
            // A hub that takes back what it handed over starts from itself.
            match view.usable.as_ref().filter(|_| !view.is_holder(&self.me)) {
                Some(usable) if Some(usable.mark.slot) != opened => {
                    Err(format!("the backup {} has not been opened here yet", usable.id()))
                }
                Some(_) | None => Ok(()),
            }
        });
        asked.await?;
        surface::show_view(&self.shared.board, journal.view(), &self.me);
        surface::show_term(&self.shared.board, journal.view(), crate::clock::now());
        Ok(())
    }

    pub(super) async fn open_term(&mut self) -> Next {
        let Some(opened) = &self.opened else { return Next::Rest };
        let mut journal = opened.repository.journal.lock().await;
        let epoch = journal.view().epoch;
        let writer = Writer { hub: self.me.clone(), epoch, incarnation: 0 };
        let me = &self.me;
        let open = journal.append(&writer, Body::Open, |view| {
            let ours = view.is_holder(me) && view.epoch == epoch;
            if ours { Ok(()) } else { Err("another hub has taken the term".to_owned()) }
        });
        match open.await {
            Ok(slot) => {
                self.own_open = Some((epoch, slot));
                self.timing.opened();
                Next::Again
            }
            Err(error) => {
                tracing::error!(error = retry::chain(&error), epoch, "failed to open the term");
                Next::Rest
            }
        }
    }

    pub(super) fn writer(&self) -> Option<Writer> {
        let (epoch, incarnation) = self.own_open?;
        Some(Writer { hub: self.me.clone(), epoch, incarnation })
    }
}
