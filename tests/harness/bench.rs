//! What the benchmarks share: their end, hubs without an audit log, and the limit to compare with.

use super::fleet::{self, Item};
use super::hub::{Hub, HubOptions};
use super::{Result, pair};
use std::process::ExitCode;
use understudy::clock::monotonic;

/// Of the client that POSTs; the best of them counts.
pub const POST_CONNECTIONS: [usize; 3] = [16, 32, 64];

/// The end of a benchmark's `main`. Not `wanted`: it was only built, by `cargo test`.
pub async fn measure(name: &str, wanted: bool, run: impl Future<Output = Result<()>>) -> ExitCode {
    if !wanted {
        eprintln!("Not measured: use `cargo bench --bench {name}`.");
        return ExitCode::SUCCESS;
    }
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

pub fn unaudited() -> HubOptions {
    HubOptions { audit: false, ..HubOptions::default() }
}

/// A hub of its own, ready for a daemon.
pub async fn hub(name: &str) -> Result<Hub> {
    let hub = Hub::start(name, unaudited()).await?;
    pair::prepare(&hub).await?;
    Ok(hub)
}

/// Objects a second that bare POSTs create where `before` stands already: the best rate, on a fresh
/// hub for each number of connections.
pub async fn post_rate(before: &[Item], items: &[Item]) -> Result<f64> {
    let mut best: f64 = 0.0;
    for connections in POST_CONNECTIONS {
        let hub = hub("bare").await?;
        let api = hub.api()?;
        fleet::populate(&api, before, connections).await?;
        let begun = monotonic();
        fleet::populate(&api, items, connections).await?;
        let rate = per_second(items.len(), begun.elapsed().as_secs_f64());
        eprintln!("bare POST of {}, {connections} connections: {rate:.0}/s", items.len());
        best = best.max(rate);
    }
    Ok(best)
}

#[allow(clippy::cast_precision_loss)]
pub fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}
