//! What it takes to write: the proof that the storage fences, the `Term`, and the own `Open`.

use super::super::surface;
use super::{Control, ControlError, Next};
use crate::promotion::machine::Fence;
use crate::repository::journal::{Journal, JournalError, Writer};
use crate::repository::probe;
use crate::repository::record::Body;
use crate::retry;

impl Control {
    pub(super) async fn probe(&mut self) -> Next {
        let probed =
            probe::race(&self.shared.storage, &format!("{:032x}", crate::clock::random())).await;
        let (fence, verdict) = match probed {
            Ok(probe::Verdict { atomic: true, why }) => (Fence::Proven, Some((true, why))),
            Ok(probe::Verdict { atomic: false, why })
                if self.shared.settings.storage.allow_unfenced =>
            {
                tracing::warn!(
                    why,
                    "the storage cannot fence; storage.allowUnfenced lets this hub go on"
                );
                (Fence::Unfenced, Some((false, why)))
            }
            Ok(probe::Verdict { atomic: false, why }) => {
                tracing::error!(why, "the storage cannot fence a superseded primary");
                (Fence::Refuted(why.clone()), Some((false, why)))
            }
            Err(error) => {
                tracing::warn!(error = retry::chain(&error), "the storage could not be probed");
                (Fence::NotProbed, None)
            }
        };
        self.fence = fence;
        if let Some((atomic, why)) = verdict {
            self.shared.board.update(|s| {
                s.storage.atomic_create = Some(atomic);
                s.storage.probe_verdict = Some(why);
            });
        }
        if self.fence == Fence::NotProbed { Next::Rest } else { Next::Again }
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
        let body = Body::Term { request: request.to_owned(), skips: vec![] };
        let opened = self.timing.newest_slot();
        let asked = journal.append(&writer, body, |view| {
            if view.epoch + 1 != epoch {
                let holder = view.holder.as_ref().map_or("nobody", |hub| &hub.name);
                return Err(format!("{holder} has taken the term {}", view.epoch));
            }
            // What a term starts from must have been opened before: there is no way back behind it.
            match &view.usable {
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
                self.timing.opened(crate::clock::now());
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
