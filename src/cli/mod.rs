//! The command line: what can be asked, and how a verb ends. One file a verb; each ends in a value
//! that is rendered as a table or as JSON. Results go to standard output, everything else to
//! standard error.

pub mod backup;
pub mod exit;
pub mod render;
pub mod run;
pub mod status;

use clap::{Args, Parser, Subcommand};
use exit::Failure;
use render::Output;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "understudy",
    version,
    about = "Active-passive disaster recovery for Kubernetes hub clusters",
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The configuration file of this hub
    #[arg(short, long, global = true, env = "UNDERSTUDY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The namespace of the daemon and its Hub resource
    #[arg(short, long, global = true, env = "POD_NAMESPACE", default_value = "understudy")]
    namespace: String,
    /// The kubeconfig file to use
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true)]
    context: Option<String>,
    /// How the result is written
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon of this hub
    Run,
    /// Is this hub in order, and what would a failover cost now
    Status {
        /// End with 4 unless the hub is healthy
        #[arg(long)]
        exit_code: bool,
        /// Ask the daemon at this address instead of the API server
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Backups: list them, or take one now
    #[command(subcommand)]
    Backup(Backup),
    /// The configuration file
    #[command(subcommand)]
    Config(Config),
    /// The pair key
    #[command(subcommand)]
    Key(Key),
    /// Print the `CustomResourceDefinition` of the Hub resource
    Crd,
}

#[derive(Debug, Subcommand)]
enum Backup {
    /// All backups in the storage, newest first; works with both clusters dead
    List,
    /// Which backups the retention rules keep, and which may go
    Prune(Prune),
    /// Take a backup now, on the primary
    Run {
        /// Return as soon as the daemon was asked
        #[arg(long)]
        no_wait: bool,
        /// How long to wait for the backup
        #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
        timeout: std::time::Duration,
    },
}

#[derive(Debug, Args)]
struct Prune {
    /// Only show the plan; deleting is not in this version
    #[arg(long, required = true)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Check the file and name everything that is wrong with it
    Check,
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make a pair key; every hub of the pair needs the same one
    New {
        /// Write the key to this file, which must not exist; without it, to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

impl Cli {
    /// JSON output also means JSON errors.
    pub fn output(&self) -> Output {
        self.global.output
    }

    /// Does what was asked. The daemon needs the signals that `main` has installed.
    pub async fn execute(self, signals: crate::daemon::Signals) -> Result<(), Failure> {
        let global = self.global;
        match self.command {
            Command::Run => run::run(&global, signals).await,
            Command::Status { exit_code, url } => {
                run::status(&global, exit_code, url.as_deref()).await
            }
            Command::Backup(Backup::List) => backup::list(&global).await,
            Command::Backup(Backup::Prune(Prune { dry_run: _ })) => backup::prune(&global).await,
            Command::Backup(Backup::Run { no_wait, timeout }) => {
                backup::run(&global, !no_wait, timeout).await
            }
            Command::Config(Config::Check) => run::check(&global),
            Command::Key(Key::New { out }) => run::new_key(out.as_deref()),
            Command::Crd => run::crd(),
        }
    }
}
