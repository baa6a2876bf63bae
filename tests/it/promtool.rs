//! Runs `promtool`, the judge of what Prometheus reads: metrics, alert rules and their tests.

use crate::harness::{Result, tools};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// An error with all it said, unless it found everything in order.
pub(crate) async fn promtool(folder: &Path, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(tools::promtool().await?)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Dropped at once, so that it reads an end.
    child.stdin.take().ok_or("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Err(format!("promtool {}: {}\n{text}", arguments.join(" "), output.status).into())
}
