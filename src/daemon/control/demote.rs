//! The primary gives its term up: a last backup, then the record behind which it writes no more.
//!
//! Nothing is remembered over a restart: before the record the hub is a primary as before, and behind
//! it the journal says the rest.

use super::super::jobs::JobResult;
use super::super::surface;
use super::Control;
use crate::promotion::handover;
use crate::repository::chain::View;
use crate::repository::journal::JournalError;
use crate::repository::record::Body;
use crate::retry;
use crate::status::handover::{by_this_hub, told};
use crate::status::{Outcome, Snapshot};

pub(super) struct Demotion {
    /// Of the request of the command line.
    pub(super) id: String,
    to: String,
    /// The backup that runs is the last one: it began after the request.
    pub(super) last_runs: bool,
}

impl Control {
    pub(super) async fn demote_asked(
        &mut self,
        id: String,
        to: Option<String>,
        dry_run: bool,
        reason: Option<String>,
    ) {
        let peers = self.shared.board.read().peers;
        let refused = match &self.demotion {
            Some(_) => Some("this hub is handing over already".to_owned()),
            None => handover::refuses(to.as_deref(), &self.me.name, &peers),
        };
        if let Some(why) = refused {
            return surface::answer(&self.shared, id, Outcome::Refused, why).await;
        }
        if dry_run {
            let message = would(&self.me.name, to.as_deref().unwrap_or("any passive hub"));
            return surface::answer(&self.shared, id, Outcome::Success, message).await;
        }
        let to = to.unwrap_or_default();
        tracing::warn!(to, reason, "asked to hand over: a last backup, then no more");
        self.cancel_sweep();
        self.demotion = Some(Demotion { id, to, last_runs: false });
    }

    pub(super) fn has_handed_over(&self) -> bool {
        by_this_hub(&self.shared.board.read()).is_some()
    }

    /// The same request again finds that it was granted.
    pub(super) async fn demoted_already(&self, id: String, to: Option<&str>) {
        let seen = self.shared.board.read();
        let Some(handed) = by_this_hub(&seen) else { return };
        let (outcome, message) = if to.is_none_or(|to| to == handed.to) {
            (Outcome::Success, told(&seen, handed))
        } else {
            (Outcome::Refused, format!("the term is handed over to {} already", handed.to()))
        };
        surface::answer(&self.shared, id, outcome, message).await;
    }

    /// The last backup has ended.
    pub(super) async fn hand_over(&mut self, demotion: Demotion, last: JobResult) {
        let Demotion { id, to, last_runs: _ } = demotion;
        let (outcome, message) = match self.write_handover(to, last).await {
            Ok(message) => (Outcome::Success, message),
            Err(JournalError::NotAllowed { why }) => {
                (Outcome::Refused, format!("nothing is handed over: {why}"))
            }
            Err(error) => (Outcome::Failed, retry::chain(&error)),
        };
        tracing::warn!(outcome = outcome.name(), message, "hand-over");
        surface::answer(&self.shared, id, outcome, message).await;
    }

    async fn write_handover(
        &mut self,
        to: String,
        last: JobResult,
    ) -> Result<String, JournalError> {
        let seen = self.shared.board.read();
        let not_allowed = |why| JournalError::NotAllowed { why };
        if let Some(why) = refuses_last(&seen, last) {
            return Err(not_allowed(why));
        }
        let slot = seen.newest.as_ref().map(|newest| newest.slot);
        let is_last = |view: &View| {
            let at = |backup: &Option<std::sync::Arc<crate::repository::chain::Backup>>| {
                backup.as_ref().map(|backup| backup.mark.slot)
            };
            let last = at(&view.newest) == slot && at(&view.usable) == slot;
            (!last).then(|| "another backup came after the last one".to_owned())
        };
        self.append(Body::Handover { to }, is_last).await?;
        let seen = self.shared.board.read();
        by_this_hub(&seen)
            .map(|handed| told(&seen, handed))
            .ok_or_else(|| not_allowed("another hub has taken over meanwhile".to_owned()))
    }
}

fn would(hub: &str, to: &str) -> String {
    format!(
        "{hub} would hand over to {to}:\n  \
         1 a backup that runs is finished\n  \
         2 a last backup is taken; unless it is complete and in order, nothing is handed over\n  \
         3 the hand-over is recorded: {hub} takes no more backups\n\
         Then the other hub is promoted; until that, promoting {hub} takes it back.\n\
         What is written on {hub} after the last backup is in none: stop who writes there first.\n\
         A dry run: nothing was done."
    )
}

fn refuses_last(seen: &Snapshot, last: JobResult) -> Option<String> {
    if last == JobResult::Failed {
        let why = seen.backup.last_error.as_deref().unwrap_or("see the log of the daemon");
        return Some(format!("the last backup failed: {why}"));
    }
    let run = seen.runs.iter().find(|run| run.what == "backup");
    handover::refuses_backup(run, seen.newest.as_ref())
}
