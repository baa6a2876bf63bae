//! What the command line asks of the primary. All that is asked is answered, once it is done or when
//! it cannot be.

use super::super::surface;
use super::Control;
use crate::backup::sweeper::Wish;
use crate::kube_status::ask::{Ask, Verb};
use crate::repository::chain::View;
use crate::repository::journal::JournalError;
use crate::repository::record::Body;
use crate::repository::rotation;
use crate::retry;
use crate::status::{Outcome, Role};

impl Control {
    /// A backup is taken when its turn comes, and what writes the journal waits for a running one: no
    /// run goes over a change of keys.
    pub(super) async fn asked(&mut self, ask: Ask) {
        let (role, frozen) = {
            let seen = self.shared.board.read();
            (seen.role, seen.frozen)
        };
        let refused = match (role, frozen) {
            (_, Some(frozen)) => format!("{}; {}", frozen.message, frozen.hint),
            (Some(Role::Primary), None) => {
                match ask.verb {
                    Verb::BackupRun => {
                        self.timing.run_now();
                        self.asked.push(ask.id);
                    }
                    Verb::BackupPrune => self.sweep_asked(ask.id, Wish::Rules).await,
                    Verb::BackupDelete { backups } => {
                        self.sweep_asked(ask.id, Wish::Delete(backups)).await;
                    }
                    Verb::BackupAck { .. } | Verb::KeyRotate { .. } => self.orders.push(ask),
                }
                return;
            }
            (Some(Role::Passive | Role::Promoting | Role::Fenced) | None, None) => {
                format!("{} is not the primary, only the primary can do that", self.me.name)
            }
        };
        surface::answer(&self.shared, ask.id, Outcome::Refused, refused).await;
    }

    /// Writes the journal: only while no job runs.
    pub(super) async fn obey(&mut self) {
        for Ask { id, verb } in std::mem::take(&mut self.orders) {
            let done = match verb {
                Verb::BackupAck { slot } => self.acknowledge(slot).await,
                Verb::KeyRotate { force } => self.rotate(force).await,
                Verb::BackupRun | Verb::BackupPrune | Verb::BackupDelete { .. } => continue,
            };
            let (outcome, message) = match done {
                Ok(message) => (Outcome::Success, message),
                Err(JournalError::NotAllowed { why }) => (Outcome::Refused, why),
                Err(error) => (Outcome::Failed, retry::chain(&error)),
            };
            tracing::info!(request = ?verb, outcome = outcome.name(), message, "asked for");
            surface::answer(&self.shared, id, outcome, message).await;
        }
    }

    async fn acknowledge(&mut self, slot: u64) -> Result<String, JournalError> {
        self.append(Body::Ack { slot }, |_| None).await?;
        Ok(format!("the backup of slot {slot} is acknowledged: standbys restore it"))
    }

    async fn rotate(&mut self, force: bool) -> Result<String, JournalError> {
        let to = self.shared.keys.ids().next().unwrap_or_default().to_owned();
        if !self.shared.beats.looked() {
            let why = "the heartbeats of the other hubs are not read yet: ask again".to_owned();
            return Err(JournalError::NotAllowed { why });
        }
        let peers = self.shared.board.read().peers;
        let rekey = Body::Rekey { to: to.clone() };
        let slot = self.append(rekey, |view| rotation::refuses(view, &to, &peers, force)).await?;
        // All sets are written anew under the new key. The sooner that stands, the better.
        self.timing.run_now();
        Ok(format!(
            "the journal is under the key {to} from slot {slot} on; the next backup is sealed under it \
             alone. `understudy key list` says when the old key file may be removed"
        ))
    }

    /// The slot, if the record stands there and the term is still this hub's.
    async fn append(
        &mut self,
        body: Body,
        refuses: impl Fn(&View) -> Option<String>,
    ) -> Result<u64, JournalError> {
        let not_allowed = |why: &str| JournalError::NotAllowed { why: why.to_owned() };
        let (Some(opened), Some(writer)) = (&self.opened, self.writer()) else {
            return Err(not_allowed("this hub has not opened its term yet"));
        };
        let allowed = |view: &View| {
            writer.may_write(view)?;
            refuses(view).map_or(Ok(()), Err)
        };
        let mut journal = opened.repository.journal.lock().await;
        let slot = journal.append(&writer, body, allowed).await?;
        surface::show_view(&self.shared.board, journal.view(), &self.me);
        if journal.view().epoch == writer.epoch {
            Ok(slot)
        } else {
            Err(not_allowed("another hub has taken over; what was written may not count"))
        }
    }
}
