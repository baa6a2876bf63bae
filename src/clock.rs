//! The only file that reads a clock or draws randomness. Everything else takes them as parameters, so that every
//! decision can be tested at any moment and on any day.

use jiff::Timestamp;
use std::time::Instant;

/// Wall time: for what people read and for the schedule, never for ordering or fencing (I22).
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Monotonic time: for silence, deadlines and durations.
#[allow(clippy::disallowed_methods)]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// 128 random bits: names and nonces that are never used twice.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_be_bytes(bytes)
}
