//! Real servers, real daemons and sample fleets for the tests, the demo and the benchmarks.
//!
//! Included by `#[path = "…/harness/mod.rs"] mod harness;`, because a crate of its own would need
//! a workspace. Everything here is edge: it starts processes, waits and measures. A server that
//! cannot be had is an error that says how to get it, never a skip.

// Each of the targets that include this module uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod author;
pub mod bare;
pub mod bench;
pub mod checker;
pub mod compare;
pub mod config;
pub mod daemon;
pub mod etcd;
pub mod faultd;
pub mod figures;
pub mod fleet;
pub mod holder;
pub mod hub;
pub mod kinds;
pub mod oracle;
pub mod pair;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod quiet;
pub mod s3;
pub mod scratch;
pub mod status;
pub mod tools;

use std::time::Duration;
use understudy::clock::monotonic;

/// What went wrong, in words: nothing in a test decides by the kind of an error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// How long [`eventually`] waits between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value. The end of the wait is an error that names what was awaited.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let start = monotonic();
    loop {
        if let Some(value) = look().await {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            return Err(format!("waited {deadline:?} in vain for {what}").into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The TLS provider of this process. A second call changes nothing.
pub fn install_tls_provider() {
    // An error means that it is already installed, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
