//! What the command line asks of this hub. All that is asked is answered, once it is done or when
//! it cannot be.

use super::super::jobs::Job;
use super::super::surface;
use super::Control;
use crate::backup::sweeper::Wish;
use crate::kube_status::ask::{Ask, Verb};
use crate::repository::chain::View;
use crate::repository::journal::JournalError;
use crate::repository::record::Body;
use crate::repository::rotation;
use crate::retry;
use crate::status::drill::told;
use crate::status::held;
use crate::status::words::full;
use crate::status::{MAX_ANSWERS, Outcome, Role, Snapshot};

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
            (Some(Role::Passive), None)
                if let Verb::Demote { to, dry_run: _ } = &ask.verb
                    && self.has_handed_over() =>
            {
                return self.demoted_already(ask.id, to.as_deref()).await;
            }
            (Some(Role::Fenced), None) if ask.verb == Verb::Rejoin => {
                return self.take(ask).await;
            }
            (role, None) if ask.verb == Verb::Rejoin => {
                let role = role.map_or("of no role yet", Role::name);
                format!("{} is {role}, only a fenced hub can rejoin", self.me.name)
            }
            (Some(Role::Primary), None) if ask.verb.is_for_primary() => {
                return self.take(ask).await;
            }
            (Some(Role::Passive), None) if !ask.verb.is_for_primary() => {
                return self.take(ask).await;
            }
            (_, None) if ask.verb.is_for_primary() => {
                format!("{} is not the primary, only the primary can do that", self.me.name)
            }
            (_, None) => format!("{} is not passive, only a passive hub can do that", self.me.name),
        };
        surface::answer(&self.shared, ask.id, Outcome::Refused, refused).await;
    }

    async fn take(&mut self, ask: Ask) {
        match ask.verb {
            Verb::BackupRun | Verb::SyncNow | Verb::SyncAck { .. } | Verb::Drill
                if self.asked.len() >= MAX_ANSWERS =>
            {
                let message = format!("{MAX_ANSWERS} requests of this kind wait already");
                surface::answer(&self.shared, ask.id, Outcome::Refused, message).await;
            }
            Verb::BackupRun | Verb::SyncNow => {
                self.timing.run_now();
                self.asked.push(ask);
            }
            Verb::Drill => self.asked.push(ask),
            Verb::SyncAck { ref plan } => {
                let refused = held::refuses(&self.shared.board.read(), plan);
                if let Some(why) = refused {
                    return surface::answer(&self.shared, ask.id, Outcome::Refused, why).await;
                }
                let reason = ask.reason.as_deref();
                tracing::warn!(plan, reason, "an operator releases what is held");
                self.timing.run_now();
                self.asked.push(ask);
            }
            Verb::BackupPause { seconds } | Verb::SyncPause { seconds } => {
                self.pause_asked(ask.id, seconds, ask.reason).await;
            }
            Verb::BackupResume | Verb::SyncResume => self.resume_asked(ask.id).await,
            Verb::BackupPrune => self.sweep_asked(ask.id, Wish::Rules).await,
            Verb::BackupDelete { backups } => {
                self.sweep_asked(ask.id, Wish::Delete(backups)).await;
            }
            Verb::BackupAck { .. } | Verb::KeyRotate { .. } => self.orders.push(ask),
            Verb::Rejoin => self.rejoin_asked(ask.id, ask.reason).await,
            Verb::Demote { to, dry_run } => {
                self.demote_asked(ask.id, to, dry_run, ask.reason).await;
            }
        }
    }

    /// Writes the journal: only while no job runs.
    pub(super) async fn obey(&mut self) {
        for Ask { id, verb, reason: _ } in std::mem::take(&mut self.orders) {
            let done = match verb {
                Verb::BackupAck { slot } => self.acknowledge(slot).await,
                Verb::KeyRotate { force } => self.rotate(force).await,
                Verb::BackupRun
                | Verb::BackupPause { .. }
                | Verb::BackupResume
                | Verb::BackupPrune
                | Verb::BackupDelete { .. }
                | Verb::Demote { .. }
                | Verb::Drill
                | Verb::Rejoin
                | Verb::SyncNow
                | Verb::SyncPause { .. }
                | Verb::SyncResume
                | Verb::SyncAck { .. } => continue,
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
        Ok(format!(
            "the backup of slot {slot} is acknowledged: standbys restore it; how much they delete at once \
             is still up to their passive.maxDeletes and passive.maxShrink"
        ))
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
    pub(super) async fn append(
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

fn drilled(seen: &Snapshot) -> (Outcome, String) {
    let facts = &seen.drill;
    match (&facts.broken_off, &facts.last) {
        (Some(why), _) => (Outcome::Refused, why.clone()),
        (None, None) => (Outcome::Failed, "see the log of the daemon".to_owned()),
        (None, Some(last)) if last.succeeded() => (Outcome::Success, told(last)),
        (None, Some(last)) if last.error.is_some() => (Outcome::Failed, told(last)),
        (None, Some(last)) => (Outcome::Partial, told(last)),
    }
}

/// The held plans that may go.
pub(super) fn released(asked: &[Ask]) -> Vec<String> {
    let plan = |ask: &Ask| {
        if let Verb::SyncAck { plan } = &ask.verb { Some(plan.clone()) } else { None }
    };
    asked.iter().filter_map(plan).collect()
}

/// How the job ended, for whoever asked this and waits for it.
pub(super) fn ended(seen: &Snapshot, job: Job, verb: &Verb) -> (Outcome, String) {
    let last = |what| seen.runs.iter().find(|run| run.what == what);
    let (outcome, message) = match (job, verb) {
        (Job::Sync, Verb::SyncAck { plan }) => held::released(seen, plan),
        (Job::Backup, _) => last("backup").map_or((Outcome::Failed, String::new()), |run| {
            let message = match &run.backup {
                Some(backup) => format!("backup {backup}: {}", run.message),
                None => run.message.clone(),
            };
            (run.outcome, message)
        }),
        (Job::Sync, _) => match (seen.sync.last_outcome, &seen.sync.restored) {
            (Some(Outcome::Unchanged), Some(held)) => {
                (Outcome::Success, format!("backup {} stands here already", held.id))
            }
            (Some(Outcome::Changed), Some(held)) => {
                let message = last("sync").map_or("", |run| &run.message);
                (Outcome::Success, format!("backup {} stands here: {message}", held.id))
            }
            (outcome, _) => {
                let message = last("sync").map_or_else(String::new, |run| run.message.clone());
                (outcome.unwrap_or(Outcome::Failed), message)
            }
        },
        (Job::Drill, _) => return drilled(seen),
        (Job::Activation | Job::Probe, _) => (Outcome::Success, String::new()),
    };
    match &seen.pause {
        Some(pause) => {
            let until = pause.until.map_or_else(|| "somebody resumes it".to_owned(), full);
            (outcome, format!("{message}; the schedule stays paused until {until}"))
        }
        None => (outcome, message),
    }
}
