//! Child processes that never outlive the test: killed on drop, on panic, and when this process
//! is itself killed.
//!
//! For the last case a small shell (`watchdog.sh`) holds the reading end of a pipe whose writing
//! end is here and nowhere else (Rust opens pipes close-on-exec). When this process ends, in
//! whatever way, the shell reads the end of the file and kills every process group it was told
//! of. Linux' parent-death signal would not do: it fires when the *thread* that started the child
//! ends, and every test has its own thread.

use super::{Result, eventually};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How much of a log an error shows.
const TAIL_LINES: usize = 20;

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own; standard output and error go to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let program = command.get_program().display().to_string();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("failed to start {name} ({program}): {error}"))?;
        tell_watchdog(&format!("+{}", child.id()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// None while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_some() {
                // The number is free for another process from now on.
                let _ = tell_watchdog(&format!("-{}", self.child.id()));
            }
        }
        self.ended
    }

    /// An error with the end of the log when the process has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.exit_status() {
            None => Ok(()),
            Some(status) => {
                let (name, tail) = (&self.name, self.log_tail());
                Err(format!("{name} ended with {status}; the end of its log:\n{tail}").into())
            }
        }
    }

    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(deadline, &what, async || self.exit_status()).await
    }

    /// `name` as in `kill -NAME`: `USR1`, `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, name: &str) -> Result<()> {
        if self.ended.is_some() {
            return Err(format!("{} has ended and takes no signal", self.name).into());
        }
        send_signal(name, &self.child.id().to_string())
    }

    /// SIGKILL to the whole group, and waits for the end.
    pub fn kill(&mut self) {
        if self.exit_status().is_some() {
            return;
        }
        // An error can only mean that the group is gone already.
        let _ = send_signal("KILL", &format!("-{}", self.child.id()));
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
        let _ = tell_watchdog(&format!("-{}", self.child.id()));
    }

    /// The most memory it ever held, in MiB. Only while it runs.
    pub fn peak_rss_mib(&self) -> Result<f64> {
        peak_rss_mib(&self.child.id().to_string())
    }
}

/// Of the process with this number, or of `self`.
pub fn peak_rss_mib(process: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .ok_or("no VmHWM in /proc")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Removes a folder when this process has ended, if it is still there then.
pub(super) fn remove_at_end(folder: &Path) -> Result<()> {
    tell_watchdog(&format!("d{}", folder.display()))
}

/// Through the shell, whose `kill` is built in; the standard library only knows SIGKILL.
fn send_signal(name: &str, target: &str) -> Result<()> {
    let output =
        Command::new("sh").args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", name, target]).output()?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("failed to send SIG{name} to {target}: {}", error.trim()).into())
}

fn tell_watchdog(line: &str) -> Result<()> {
    static WATCHDOG: Mutex<Option<ChildStdin>> = Mutex::new(None);
    let mut watchdog = WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner);
    if watchdog.is_none() {
        // Its own group, so that Ctrl-C on the terminal does not reach it.
        let mut child = Command::new("sh")
            .args(["-c", include_str!("watchdog.sh")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("failed to start a shell: {error}"))?;
        *watchdog = child.stdin.take();
    }
    let pipe = watchdog.as_mut().ok_or("the watchdog has no pipe")?;
    writeln!(pipe, "{line}").map_err(|error| format!("the watchdog is gone: {error}").into())
}
