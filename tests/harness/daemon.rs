//! The real program as a child process, driven as an operator drives it: configuration file,
//! signals, its HTTP endpoints and its command line.

use super::hub::{Hub, NAMESPACE, answers};
use super::process::Process;
use super::{Result, eventually, install_tls_provider, status};
use reqwest::StatusCode;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;
use understudy::clock::monotonic;

const START_DEADLINE: Duration = Duration::from_secs(30);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Daemon {
    process: Process,
    url: String,
    http: reqwest::Client,
}

impl Daemon {
    /// Starts `understudy run`. Its log stands beside the configuration, as `<config>.log`.
    pub fn start(config: &Path, kubeconfig: &Path, namespace: &str) -> Result<Self> {
        install_tls_provider();
        let text = std::fs::read_to_string(config)?;
        let settings: Value = serde_saphyr::from_str(&text)?;
        let listen = settings["http"]["listen"].as_str().ok_or("http.listen is not set")?;
        let mut command = Command::new(binary()?);
        command
            .arg("run")
            .arg("-c")
            .arg(config)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["-n", namespace])
            // A crash in a test should say where.
            .env("RUST_BACKTRACE", "1");
        let log = config.with_extension("log");
        let process = Process::start("understudy run", command, &log)?;
        let http = reqwest::Client::builder().no_proxy().timeout(HTTP_TIMEOUT).build()?;
        Ok(Self { process, url: format!("http://{listen}"), http })
    }

    /// On `hub`, in the usual namespace, and waits until it answers.
    pub async fn start_on(hub: &Hub, config: &Path) -> Result<Self> {
        let mut daemon = Self::start(config, &hub.kubeconfig, NAMESPACE)?;
        daemon.wait_live().await?;
        Ok(daemon)
    }

    pub async fn wait_live(&mut self) -> Result<()> {
        let live = format!("{}/livez", self.url);
        let outcome = eventually(START_DEADLINE, &format!("an answer from {live}"), async || {
            if let Err(error) = self.process.must_run() {
                return Some(Err(error));
            }
            answers(self.http.get(&live)).await.then_some(Ok(()))
        })
        .await;
        outcome.map_err(|error| format!("{error}\n{}", self.process.log_tail()))?
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn log(&self) -> &Path {
        self.process.log()
    }

    pub fn log_text(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.log())?)
    }

    /// `USR1`, `TERM`, `STOP` …
    pub fn signal(&self, name: &str) -> Result<()> {
        self.process.signal(name)
    }

    /// SIGKILL: no drain, no goodbye.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    pub async fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.process.wait(deadline).await
    }

    pub async fn http_get(&self, path: &str) -> Result<(StatusCode, String)> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await?;
        Ok((response.status(), response.text().await?))
    }

    /// The answer of `/api/v1/status`.
    pub async fn status(&self) -> Result<Value> {
        let (status, text) = self.http_get("/api/v1/status").await?;
        if !status.is_success() {
            return Err(format!("/api/v1/status: {status} {text}").into());
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until `look` finds what it wants in the status. In vain, the error ends with the
    /// last status and the end of the log.
    pub async fn until<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        look: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = Value::Null;
        let outcome = eventually(deadline, what, async || {
            if let Err(error) = self.process.must_run() {
                return Some(Err(error));
            }
            last = self.status().await.ok()?;
            look(&last).map(Ok)
        })
        .await;
        let tail = self.process.log_tail();
        outcome.map_err(|error| format!("{error}\nstatus: {last}\nlog:\n{tail}"))?
    }

    /// Sends SIGUSR1 and waits for the term: the seconds in between. The primary must be silent
    /// already, else the signal is refused, which is an error here.
    pub async fn promote(&mut self, deadline: Duration) -> Result<f64> {
        let before = self.status().await?;
        let start = monotonic();
        self.signal("USR1")?;
        let outcome = self.until(deadline, "the term", |seen| {
            if status::epoch(seen) > status::epoch(&before) {
                return Some(Ok(start.elapsed().as_secs_f64()));
            }
            // Until the signal is handled, the answer to an earlier request stands there.
            if seen["promotion"]["request"] == before["promotion"]["request"] {
                return None;
            }
            let refusal = seen["promotion"]["refused"]["message"].as_str()?;
            Some(Err(format!("the promotion was refused: {refusal}").into()))
        });
        outcome.await?
    }

    pub fn rss_peak_mib(&self) -> Result<f64> {
        self.process.peak_rss_mib()
    }
}

/// Runs the program to its end. For commands that need no hub, or name it in `args`.
pub fn cli(args: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?).args(args).output()?)
}

/// Runs the program against the hub and the configuration of a daemon.
pub fn cli_on(hub: &Hub, config: &Path, args: &[&str]) -> Result<Output> {
    let output = Command::new(binary()?)
        .args(args)
        .arg("-c")
        .arg(config)
        .arg("--kubeconfig")
        .arg(&hub.kubeconfig)
        .args(["-n", NAMESPACE])
        .output()?;
    Ok(output)
}

/// Makes a key as an operator does, and keeps it in `file`.
pub fn new_key(file: &Path) -> Result<()> {
    let output = cli(&["key", "new"])?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`understudy key new` ended with {}: {error}", output.status).into());
    }
    Ok(std::fs::write(file, output.stdout)?)
}

/// Cargo names the program for tests and benchmarks; an example stands beside it.
fn binary() -> Result<PathBuf> {
    if let Some(path) = option_env!("CARGO_BIN_EXE_understudy") {
        return Ok(path.into());
    }
    let example = std::env::current_exe()?;
    let profile = example.parent().and_then(Path::parent).ok_or("no folder of the profile")?;
    Ok(profile.join("understudy"))
}

/// Builds the program as this example was built. Tests and benchmarks need no such thing.
pub fn build_beside_example() -> Result<()> {
    let release = binary()?.parent().is_some_and(|folder| folder.ends_with("release"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--quiet",
        "--bin",
        "understudy",
    ]);
    if release {
        command.arg("--release");
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("cargo build ended with {status}").into()) }
}
