//! How far a restore is, onto the board and, where it takes long, into the log.

use crate::daemon::Shared;
use crate::progress::{Tally, watch};
use std::time::Duration;

/// As often as those who show the board look at it.
const EVERY: Duration = super::LOOK;
/// Between two lines in the log, and before the first one: most syncs need none.
const LOGGED: u32 = 10;

pub(in crate::daemon) async fn follow<T>(
    shared: &Shared,
    tally: &Tally,
    work: impl Future<Output = T>,
) -> T {
    let mut looks = 0;
    let done = watch(tally, EVERY, work, |progress| {
        looks += 1;
        if looks % LOGGED == 0 {
            tracing::info!(%progress, "the restore goes on");
        }
        shared.board.update(|s| s.sync.progress = Some(progress));
    });
    let done = done.await;
    if looks > 0 {
        shared.board.update(|s| s.sync.progress = None);
    }
    done
}
