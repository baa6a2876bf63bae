//! A fenced hub follows the one that superseded it, because an operator says so. That stands in its `Hub`
//! status, with the term it was said under: a later one that supersedes it fences it again.

use super::super::surface;
use super::Control;
use crate::status::Outcome;

impl Control {
    pub(super) async fn rejoin_asked(&mut self, id: String, reason: Option<String>) {
        let seen = self.shared.board.read();
        let (epoch, before) = (seen.epoch, seen.handover.rejoined);
        self.shared.board.update(|s| s.handover.rejoined = epoch);
        let (outcome, message) = if surface::publish_now(&self.shared).await {
            let holder = seen.holder.as_deref().unwrap_or("the primary");
            tracing::warn!(epoch, holder, reason, "an operator has this hub rejoin");
            let hub = &self.me.name;
            let message = format!(
                "{hub} follows {holder} (epoch {epoch}) as passive; deletions wait for \
                 `understudy sync ack`, the first time"
            );
            (Outcome::Success, message)
        } else {
            self.shared.board.update(|s| s.handover.rejoined = before);
            let why = "the status of the Hub could not be written; nothing was done";
            (Outcome::Failed, why.to_owned())
        };
        surface::answer(&self.shared, id, outcome, message).await;
    }
}
