//! The create protocol: whose bytes stand at a key, whatever became of the answers.

use super::journal::JournalError;
use super::layout::RECORD_LIMIT;
use super::storage::{Created, Storage};
use crate::retry::{self, Next, Policy};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A slot is settled or the process dies: there is no third way.
const UNTIL_DEFINITE: Policy =
    Policy { first: Duration::from_millis(100), cap: Duration::from_secs(5), give_up_after: None };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Ours,
    Theirs,
}

/// Creates `key` with exactly these bytes and finds out, whatever it takes, whose bytes stand there.
///
/// Fails only while it is certain that nothing was written: once an answer was lost, only what stands
/// in the slot is an answer.
pub(super) async fn settle(
    storage: &Storage,
    key: &str,
    bytes: &Bytes,
) -> Result<Settled, JournalError> {
    let unknown = AtomicBool::new(false);
    let judge = |error: &JournalError| match error {
        JournalError::Storage(error) if error.next() != Next::Stop => error.next(),
        JournalError::Stale { .. } => Next::Again,
        JournalError::Storage(_)
        | JournalError::Repo(_)
        | JournalError::Frozen(_)
        | JournalError::NotAllowed { .. } => {
            if unknown.load(Relaxed) {
                Next::Again
            } else {
                Next::Stop
            }
        }
    };
    retry::retry(&UNTIL_DEFINITE, key, &CancellationToken::new(), judge, || async {
        let lost = match storage.create(key, bytes.clone()).await {
            Ok(Created::Yes) => return Ok(Settled::Ours),
            Ok(Created::Exists) => None,
            Err(error) if error.next() == Next::Stop => return Err(error.into()),
            Err(error) => {
                unknown.store(true, Relaxed);
                Some(error)
            }
        };
        match (storage.get(key, RECORD_LIMIT).await?, lost) {
            (Some(stored), _) if stored.bytes == *bytes => Ok(Settled::Ours),
            (Some(_), _) => Ok(Settled::Theirs),
            (None, Some(lost)) => Err(lost.into()),
            (None, None) => Err(JournalError::Stale { key: key.to_owned() }),
        }
    })
    .await
}
