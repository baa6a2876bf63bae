//! The test servers: found in a folder that the environment names, or built once from the Go
//! modules in `tests/tools/` and kept outside the checkout.
//!
//! Kept under the hash of the module's go.mod and go.sum, so a new version is a new folder. A
//! lock on a file keeps two test binaries from building the same thing; a build goes into a
//! temporary name and is renamed, so a killed one leaves nothing that could be taken for a
//! server. Without Go this is an error that says how to get it, never a skipped test.

use super::process::Process;
use super::{Result, eventually};
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use understudy::clock::monotonic;
use understudy::object::Digest;

/// From an empty Go cache on two slow cores the largest takes 4 minutes, its download 1 more.
const BUILD_DEADLINE: Duration = Duration::from_mins(30);
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

struct Tool {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    /// Build tags.
    tags: &'static str,
    cold: &'static str,
}

const ETCD: Tool = Tool {
    name: "etcd",
    module: "cluster",
    package: "go.etcd.io/etcd/server/v3",
    tags: "",
    cold: "about 1 minute",
};
const APISERVER: Tool = Tool {
    name: "kube-apiserver",
    module: "cluster",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    tags: "",
    cold: "about 4 minutes",
};
const CONTROLLERS: Tool = Tool {
    name: "kube-controller-manager",
    module: "cluster",
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    tags: "",
    cold: "about 1 minute",
};
const MINIO: Tool = Tool {
    name: "minio",
    module: "s3",
    package: "github.com/minio/minio",
    tags: "",
    cold: "about 3 minutes",
};

/// Without the discovery of targets in clouds, which is most of both programs and none of what is tested.
const PLAIN: &str = "remove_all_sd";
const PROMTOOL: Tool = Tool {
    name: "promtool",
    module: "charts",
    package: "github.com/prometheus/prometheus/cmd/promtool",
    tags: PLAIN,
    cold: "about 3 minutes",
};
const PROMETHEUS: Tool = Tool {
    name: "prometheus",
    module: "charts",
    package: "github.com/prometheus/prometheus/cmd/prometheus",
    tags: PLAIN,
    cold: "about 1 minute after promtool",
};

/// What docs/format.md reads a backup with: `age` as its author builds it, `jq` in Go, and of `zstd` a
/// small program over its decoder in Go. None shares code with what wrote the backup.
const STOCK: [Tool; 3] = [
    Tool {
        name: "age",
        module: "stock",
        package: "filippo.io/age/cmd/age",
        tags: "",
        cold: "seconds",
    },
    Tool { name: "zstd", module: "stock", package: "./zstd", tags: "", cold: "seconds" },
    Tool {
        name: "jq",
        module: "stock",
        package: "github.com/itchyny/gojq/cmd/gojq",
        tags: "",
        cold: "seconds",
    },
];

/// Folders in which a ready program is looked for, in this order.
const FOLDERS: [&str; 2] = ["UNDERSTUDY_TEST_TOOLS", "KUBEBUILDER_ASSETS"];

pub struct Cluster {
    pub etcd: PathBuf,
    pub apiserver: PathBuf,
    pub controllers: PathBuf,
}

pub async fn cluster() -> Result<Cluster> {
    Ok(Cluster {
        etcd: find_or_build(&ETCD).await?,
        apiserver: find_or_build(&APISERVER).await?,
        controllers: find_or_build(&CONTROLLERS).await?,
    })
}

pub async fn minio() -> Result<PathBuf> {
    find_or_build(&MINIO).await
}

pub async fn promtool() -> Result<PathBuf> {
    find_or_build(&PROMTOOL).await
}

/// After promtool, with which it shares most of what is compiled: two builds at once would do that twice.
pub async fn prometheus() -> Result<PathBuf> {
    promtool().await?;
    find_or_build(&PROMETHEUS).await
}

/// The paths of `age`, `zstd` and `jq`.
pub async fn stock() -> Result<Vec<PathBuf>> {
    let mut programs = vec![];
    for tool in &STOCK {
        programs.push(find_or_build(tool).await?);
    }
    Ok(programs)
}

async fn find_or_build(tool: &Tool) -> Result<PathBuf> {
    for variable in FOLDERS {
        if let Some(folder) = std::env::var_os(variable) {
            let program = Path::new(&folder).join(tool.name);
            if program.is_file() {
                return Ok(program);
            }
        }
    }
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(tool.module);
    let folder = cache_folder(tool, &module)?;
    let program = folder.join(tool.name);
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder)?;
    let _lock = lock(&folder, tool.name).await?;
    // Another process may have built it while this one waited.
    if !program.is_file() {
        build(tool, &module, &folder).await?;
    }
    Ok(program)
}

/// `~/.cache/understudy/test-tools/<hash>`
fn cache_folder(tool: &Tool, module: &Path) -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    let mut text = std::fs::read(module.join("go.mod"))?;
    text.extend(std::fs::read(module.join("go.sum"))?);
    text.extend(tool.tags.as_bytes());
    if let Some(own) = tool.package.strip_prefix("./") {
        text.extend(std::fs::read(module.join(own).join("main.go"))?);
    }
    Ok(base.join("understudy/test-tools").join(Digest::of(&text).short()))
}

async fn lock(folder: &Path, name: &str) -> Result<File> {
    let file = File::create(folder.join(format!("{name}.lock")))?;
    if file.try_lock().is_err() {
        eprintln!("another process builds {name}; waiting for it");
        let what = format!("another process to build {name}");
        eventually(BUILD_DEADLINE, &what, async || file.try_lock().ok()).await?;
    }
    Ok(file)
}

async fn build(tool: &Tool, module: &Path, folder: &Path) -> Result<()> {
    let name = tool.name;
    check_go(module)?;
    eprintln!("building {name} (once, {}) …", tool.cold);
    let unfinished = folder.join(format!("{name}.unfinished"));
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags"])
        .arg(ldflags(module))
        .args(["-tags", tool.tags])
        .arg("-o")
        .arg(&unfinished)
        .arg(tool.package)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off");
    let log = folder.join(format!("{name}.log"));
    let start = monotonic();
    let mut go = Process::start(&format!("go build {}", tool.package), command, &log)?;
    let mut told = Duration::ZERO;
    while go.exit_status().is_none() {
        if start.elapsed() > BUILD_DEADLINE {
            return Err(format!("{name} was not built within {BUILD_DEADLINE:?}").into());
        }
        if start.elapsed() > told + PROGRESS_EVERY {
            told = start.elapsed();
            eprintln!("building {name} … {} s", told.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if !go.exit_status().is_some_and(|status| status.success()) {
        return Err(format!("failed to build {name}:\n{}", go.log_tail()).into());
    }
    std::fs::rename(&unfinished, folder.join(name))?;
    std::fs::remove_file(&log)?;
    eprintln!("built {name} in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Fails with what to do when there is no Go that can read the module.
fn check_go(module: &Path) -> Result<()> {
    let output = Command::new("go").current_dir(module).args(["env", "GOVERSION"]).output();
    let problem = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("`go` cannot be started: {error}"),
    };
    let wanted = go_mod_value(module, "go ")?;
    let servers = [&ETCD, &APISERVER, &CONTROLLERS, &MINIO, &PROMTOOL, &PROMETHEUS];
    let names: Vec<_> = servers.into_iter().chain(&STOCK).map(|tool| tool.name).collect();
    Err(format!(
        "the test servers are built with Go {wanted} or newer, and {problem}\n\
         Get it from https://go.dev/dl/ or the distribution's packages, or set {} to a folder that \
         holds {}.",
        FOLDERS[0],
        names.join(", ")
    )
    .into())
}

/// Stamps the version of Kubernetes, without which clients see v0.0.0.
fn ldflags(module: &Path) -> String {
    let mut flags = "-s -w".to_owned();
    if let Ok(version) = go_mod_value(module, "require k8s.io/kubernetes ") {
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
        for (name, value) in [("Version", version.as_str()), ("Major", major), ("Minor", minor)] {
            // Writing to a String cannot fail.
            let _ = write!(flags, " -X k8s.io/component-base/version.git{name}={value}");
        }
    }
    flags
}

/// The rest of the line of go.mod that begins with `start`.
fn go_mod_value(module: &Path, start: &str) -> Result<String> {
    let text = std::fs::read_to_string(module.join("go.mod"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| format!("no line {start:?} in {}", module.join("go.mod").display()).into())
}
