//! The primary's sweep: retention carried out, beside the backups.

use crate::backup::sweeper::{self, SweepError, Swept, Wish};
use crate::daemon::{Shared, surface};
use crate::repository::Repository;
use crate::repository::journal::Writer;
use crate::retry;
use crate::status::Outcome;
use crate::status::words::{bytes, plural};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How it ended, in words for whoever asked for it.
pub(in crate::daemon) async fn sweep(
    shared: Shared,
    repository: Arc<Repository>,
    writer: Writer,
    wish: Wish,
    cancel: CancellationToken,
) -> (Outcome, String) {
    let at = crate::clock::now();
    shared.board.update(|s| s.sweep.running_since = Some(at));
    let (rules, zone) = (&shared.settings.retention, shared.settings.schedule.cron.zone());
    let mut done = Swept::default();
    let result = if shared.board.read().storage.atomic_create == Some(false) {
        // Two hubs may both hold the term, and the other may have named what this one condemns.
        let why = "the storage cannot fence, so nothing is deleted from it".to_owned();
        Err(SweepError::NotAllowed { why })
    } else {
        sweeper::sweep(&repository, &writer, &wish, rules, zone, &cancel, &mut done).await
    };
    shared.metrics.retired(done.retired);
    let (outcome, message) = match &result {
        Ok(()) => (Outcome::Success, told(&done, rules.sweep_after)),
        Err(error @ (SweepError::Refused(_) | SweepError::NotAllowed { .. })) => {
            (Outcome::Refused, retry::chain(error))
        }
        Err(error) => (Outcome::Failed, retry::chain(error)),
    };
    let Swept { retired, condemned, deleted, freed_bytes } = done;
    if result.is_ok() {
        tracing::info!(retired, condemned, deleted, freed_bytes, "sweep");
    } else {
        tracing::warn!(retired, condemned, deleted, freed_bytes, error = message, "sweep");
    }
    let view = repository.journal.lock().await.view().clone();
    surface::show_view(&shared.board, &view, &writer.hub);
    shared.board.update(|s| {
        s.sweep = crate::status::SweepFacts {
            running_since: None,
            last_at: Some(at),
            last_outcome: Some(outcome),
            message: message.clone(),
            retired,
            condemned,
            deleted,
            freed_bytes,
        };
    });
    (outcome, message)
}

fn told(done: &Swept, after: std::time::Duration) -> String {
    let Swept { retired, condemned, deleted, freed_bytes } = *done;
    let (backups, condemned) =
        (plural(retired, "backup", "backups"), plural(condemned, "pack", "packs"));
    format!(
        "{backups} retired; {condemned} to be deleted after {}; {} deleted, {} freed",
        humantime::format_duration(after),
        plural(deleted, "pack", "packs"),
        bytes(freed_bytes),
    )
}
