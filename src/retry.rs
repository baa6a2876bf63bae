//! The only retry loop. Clients make one attempt per call (SDK and kube retries are off); whether
//! and how long to try again is decided here, by a policy that the caller can name a reason for.
//!
//! Waits grow exponentially up to a cap with full jitter, so that hubs that lost the same server do
//! not come back in step. What may go wrong: `backoff` gives up after 15 minutes unless told
//! otherwise (always told here), and its own loop lets a server's `Retry-After` outlive the limit;
//! therefore only its arithmetic is used.

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use std::error::Error;
use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What to do about an error; every stage sorts its errors into these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// May work later; a write may or may not have happened.
    Transient,
    /// Somebody else was there: look again, then decide anew.
    Conflict,
    /// What was read cannot be true. Trying again does not help and skipping is not allowed.
    Damaged,
    /// Somebody must change something first: configuration, permissions, the request itself.
    Refused,
}

/// What an error means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Stop,
    Again,
    /// The server said when it wants to be asked again.
    AgainAfter(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Upper bound of the first wait; it doubles with each further one.
    pub first: Duration,
    /// Upper bound of any wait.
    pub cap: Duration,
    /// None: until it works, is refused, or is cancelled.
    pub give_up_after: Option<Duration>,
}

/// A server that asks for more than this is not believed: a promotion must not sleep for an hour
/// because of one header.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(1);

impl Policy {
    /// `backoff` draws from interval ± factor × interval. With a factor of one and half the interval
    /// that is "anything from zero to the interval": full jitter.
    fn waits(&self) -> ExponentialBackoff {
        ExponentialBackoffBuilder::new()
            .with_initial_interval(self.first / 2)
            .with_max_interval(self.cap / 2)
            .with_randomization_factor(1.0)
            .with_multiplier(2.0)
            .with_max_elapsed_time(self.give_up_after)
            .build()
    }
}

/// Calls `operation` until it succeeds, `judge` says stop, the policy gives up, or `cancel` is
/// cancelled; the error is then the one of the last attempt.
///
/// Cancelling ends the waiting, never an attempt: each attempt has its own time-out, and cutting one
/// off would make its outcome unknown for nothing.
pub async fn retry<T, E, F>(
    policy: &Policy,
    what: &str,
    cancel: &CancellationToken,
    judge: impl Fn(&E) -> Next,
    operation: impl FnMut() -> F,
) -> Result<T, E>
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut failures: u64 = 0;
    let tell = |error: &E, wait: Duration| {
        failures += 1;
        if failures == 1 {
            tracing::warn!(what, error = chain(error), ?wait, "failed, trying again");
        } else {
            tracing::debug!(what, error = chain(error), ?wait, failures, "failed again");
        }
    };
    retry_telling(policy, cancel, judge, tell, operation).await
}

/// The same for callers who tell of a failed attempt in their own way: thousands of writes that meet
/// one busy server are one piece of news, and an error may quote what no log may hold.
pub async fn retry_telling<T, E, F>(
    policy: &Policy,
    cancel: &CancellationToken,
    judge: impl Fn(&E) -> Next,
    mut tell: impl FnMut(&E, Duration),
    mut operation: impl FnMut() -> F,
) -> Result<T, E>
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut waits = policy.waits();
    loop {
        let error = match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let asked_for = match judge(&error) {
            Next::Stop => return Err(error),
            Next::Again => Duration::ZERO,
            Next::AgainAfter(wait) => wait.min(MAX_RETRY_AFTER),
        };
        let Some(jitter) = waits.next_backoff() else { return Err(error) };
        let wait = asked_for + jitter;
        tell(&error, wait);
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(error),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// An error with all its causes in one line, as logs and status show it. A cause that its parent
/// already repeats (many libraries do) is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    let text = text.replace(|c: char| c.is_control(), " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Debug, thiserror::Error, PartialEq)]
    #[error("failed attempt {0}")]
    struct Failed(u32);

    const QUICK: Policy = Policy {
        first: Duration::from_micros(10),
        cap: Duration::from_micros(100),
        give_up_after: None,
    };

    /// Fails `failures` times, then succeeds; gives back the result and the number of attempts.
    async fn check(
        policy: Policy,
        failures: u32,
        judge: impl Fn(&Failed) -> Next,
        cancel: &CancellationToken,
    ) -> (Result<u32, Failed>, u32) {
        let attempts = Cell::new(0);
        let result = retry(&policy, "test", cancel, judge, || async {
            attempts.set(attempts.get() + 1);
            if attempts.get() <= failures { Err(Failed(attempts.get())) } else { Ok(7) }
        })
        .await;
        (result, attempts.get())
    }

    #[tokio::test]
    async fn it_tries_until_it_works() {
        let never = CancellationToken::new();
        assert_eq!(check(QUICK, 0, |_| Next::Again, &never).await, (Ok(7), 1));
        assert_eq!(check(QUICK, 30, |_| Next::Again, &never).await, (Ok(7), 31));
    }

    #[tokio::test]
    async fn it_stops_at_an_error_that_no_repetition_cures() {
        let never = CancellationToken::new();
        let judge = |e: &Failed| if e.0 == 3 { Next::Stop } else { Next::Again };
        assert_eq!(check(QUICK, 9, judge, &never).await, (Err(Failed(3)), 3));
    }

    #[tokio::test]
    async fn it_gives_up_when_the_policy_says_so_even_if_the_server_keeps_asking_for_patience() {
        let never = CancellationToken::new();
        let policy = Policy { give_up_after: Some(Duration::from_millis(20)), ..QUICK };
        let judge = |_: &Failed| Next::AgainAfter(Duration::from_millis(1));
        let (result, attempts) = check(policy, u32::MAX, judge, &never).await;
        assert!(result.is_err());
        assert!((2..=25).contains(&attempts), "{attempts}");
    }

    #[tokio::test]
    async fn cancelling_ends_the_waiting_with_the_last_error_but_the_first_attempt_is_made() {
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let policy = Policy { first: Duration::from_hours(1), ..QUICK };
        assert_eq!(check(policy, 9, |_| Next::Again, &cancelled).await, (Err(Failed(1)), 1));
    }

    #[test]
    fn waits_use_the_whole_range_below_a_growing_bound_and_never_exceed_the_cap() {
        let policy = Policy {
            first: Duration::from_millis(100),
            cap: Duration::from_secs(1),
            give_up_after: None,
        };
        let mut longest = [Duration::ZERO; 8];
        for _ in 0..500 {
            let mut waits = policy.waits();
            for (n, longest) in longest.iter_mut().enumerate() {
                let wait = waits.next_backoff().unwrap();
                let bound = policy.cap.min(policy.first * 2_u32.pow(u32::try_from(n).unwrap()));
                assert!(wait <= bound + Duration::from_nanos(2), "{n}: {wait:?} > {bound:?}");
                *longest = (*longest).max(wait);
            }
        }
        assert!(longest[0] > Duration::from_millis(90), "{longest:?}");
        assert!(longest[7] > Duration::from_millis(900), "{longest:?}");
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to read the journal")]
        struct Outer(#[source] Failed);
        assert_eq!(chain(&Outer(Failed(1))), "failed to read the journal: failed attempt 1");
        assert_eq!(chain(&std::io::Error::other("tried:\n  a\n  b")), "tried: a b");
    }
}
