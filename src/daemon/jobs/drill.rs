//! A promotion rehearsed on this passive hub, and what became of it on the board. From there it comes
//! into the `Hub` resource and, with the next heartbeat, into the storage.

use super::super::{Shared, surface};
use super::JobResult;
use crate::repository::chain::Backup;
use crate::status::drill::told;
use crate::status::{Outcome, Run};
use crate::sync::Standby;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub(in crate::daemon) async fn drill(
    shared: Shared,
    standby: Arc<Mutex<Standby>>,
    backup: Arc<Backup>,
    cancel: CancellationToken,
) -> JobResult {
    let at = crate::clock::now();
    shared.board.update(|s| s.drill.begins(at));
    let standby = standby.lock().await;
    let tally = standby.tally().clone();
    let drilled = Box::pin(standby.drill(&backup, &cancel));
    let drilled = surface::follow(&shared, &tally, drilled).await;
    let Some((drill, named)) = drilled else {
        tracing::warn!(backup = backup.id(), "the drill was broken off");
        let why = "it was broken off: this hub was needed for something else";
        shared.board.update(|s| s.drill.broke_off(why.to_owned()));
        return JobResult::Failed;
    };
    let outcome = if drill.succeeded() { Outcome::Success } else { Outcome::Failed };
    let (message, seconds, failed) = (told(&drill), drill.seconds, drill.failed_objects());
    tracing::info!(outcome = outcome.name(), message, seconds, "drill");
    for refused in &named {
        tracing::warn!(refused, "a promotion could not write an object");
    }
    let every = shared.settings.objectives.drill_every;
    let backup = Some(drill.backup.clone());
    shared.board.update(|s| {
        s.drill.ended(drill, named, every, crate::clock::now());
        let run = Run {
            what: "drill".to_owned(),
            at,
            seconds,
            outcome,
            backup,
            changed: 0,
            failed,
            message,
        };
        s.add_run(run);
    });
    if outcome == Outcome::Success { JobResult::Done } else { JobResult::Failed }
}
