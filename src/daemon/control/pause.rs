//! What an operator pauses: the schedule of backups on a primary, the following on a passive hub. A
//! pause stands in the `Hub` status before it is answered, so it survives a restart; it ends by
//! itself, and with the term.

use super::super::surface;
use super::Control;
use crate::promotion::machine::State;
use crate::status::pause::Pause;
use crate::status::words::full;
use crate::status::{Outcome, Role};

impl Control {
    pub(super) async fn pause_asked(
        &mut self,
        id: String,
        seconds: Option<u64>,
        reason: Option<String>,
    ) {
        let (outcome, message) = match self.pause(seconds, reason) {
            Ok(message) => (Outcome::Success, message),
            Err(why) => (Outcome::Refused, why),
        };
        surface::answer(&self.shared, id, outcome, message).await;
    }

    fn pause(&mut self, seconds: Option<u64>, reason: Option<String>) -> Result<String, String> {
        let (now, monotonic) = (crate::clock::now(), crate::clock::monotonic());
        let reason = reason.ok_or("a pause needs a reason: add --reason TEXT")?;
        let end = |seconds| now.checked_add(std::time::Duration::from_secs(seconds));
        let until = seconds.map(end).transpose().map_err(|_| {
            "no calendar goes that far: name a shorter time, or --indefinitely".to_owned()
        })?;
        let (epoch, role) = {
            let seen = self.shared.board.read();
            (seen.epoch, seen.role)
        };
        let end = until.map_or_else(|| "somebody resumes it".to_owned(), full);
        tracing::warn!(until = end, reason, "paused");
        self.timing.pause(Pause { since: now, until, reason, epoch }, now, monotonic);
        surface::show_pause(&self.shared, &self.timing, now);
        Ok(if role == Some(Role::Primary) {
            format!(
                "the schedule of backups is paused until {end}; `understudy backup run` still takes one"
            )
        } else {
            format!("the following of the primary is paused until {end}; a promotion still follows")
        })
    }

    pub(super) async fn resume_asked(&mut self, id: String) {
        let now = crate::clock::now();
        let message = match self.timing.resume(now) {
            Some(_) => "the pause is over; what it held back begins at once",
            None => "nothing was paused",
        };
        tracing::info!(message, "asked to resume");
        surface::show_pause(&self.shared, &self.timing, now);
        surface::answer(&self.shared, id, Outcome::Success, message.to_owned()).await;
    }

    /// In every turn: what the clocks and the journal did to the schedule and to a pause.
    pub(super) fn follow_clocks(&mut self, state: State) {
        let (now, monotonic) = (crate::clock::now(), crate::clock::monotonic());
        let passed = self.timing.look(now, monotonic);
        let primary = state.role() == Some(Role::Primary);
        if passed.clock_set_back && primary {
            tracing::warn!("the wall clock was set back: the schedule begins anew, with a backup");
        }
        if passed.skipped && primary {
            tracing::info!("a backup was due and is held back by the pause");
            self.shared.metrics.backup_run(Outcome::Skipped);
        }
        if passed.resumed {
            tracing::info!("the time of the pause is over");
        }
        let epoch = self.shared.board.read().epoch;
        if state.role().is_some() && self.timing.paused().is_some_and(|pause| pause.epoch != epoch)
        {
            tracing::warn!(epoch, "a new term began, in which nothing is paused");
            self.timing.resume(now);
        }
        surface::show_pause(&self.shared, &self.timing, now);
    }
}
