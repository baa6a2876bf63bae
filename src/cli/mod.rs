//! The command line: what can be asked, and how a verb ends. One file a verb; each ends in a value
//! that is rendered as a table or as JSON. Results go to standard output, everything else to
//! standard error.

pub mod ask;
pub mod backup;
mod config_check;
mod confirm;
mod demote;
pub mod describe;
mod diff;
mod drill;
mod dry_run;
pub mod exit;
mod explain;
mod filter;
pub mod find;
pub mod get;
mod held;
mod home;
pub mod keys;
mod once;
mod opened;
mod pause;
mod progress;
mod promote;
mod prune;
mod rejoin;
pub mod render;
pub mod render_backup;
mod render_check;
mod render_diff;
pub mod render_drill;
mod render_explain;
pub mod render_keys;
pub mod render_object;
mod render_plan;
pub mod render_promote;
pub mod render_storage;
mod render_survey;
pub mod render_sweep;
mod report;
mod restore;
pub mod run;
pub mod status;
pub mod storage;
pub mod storage_check;
pub mod stored;
mod switchover;
pub mod verify;

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
    /// The namespace of the daemon and its Hub resource [default: `POD_NAMESPACE`, or understudy]; in
    /// `backup diff` and `restore` that of the objects
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// The kubeconfig file to use
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true)]
    context: Option<String>,
    /// How the result is written
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// How long work tells how far it is, on standard error: `auto` draws a bar on a terminal and writes
    /// lines elsewhere, none with -o json
    #[arg(long, global = true, value_enum, default_value_t)]
    progress: progress::Mode,
}

impl Global {
    /// The namespace of the daemon, for verbs that ask it.
    fn home(&self) -> String {
        self.namespace.clone().unwrap_or_else(Self::usual_home)
    }

    /// The same where `-n` means the objects.
    fn usual_home() -> String {
        let named = std::env::var("POD_NAMESPACE").ok();
        named.filter(|name| !name.is_empty()).unwrap_or_else(|| "understudy".to_owned())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon of this hub
    Run,
    #[command(flatten)]
    Verb(Box<Verb>),
}

/// Whatever comes to an end by itself.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Is this hub in order, and what would a failover cost now
    Status {
        /// End with 4 unless the hub is healthy
        #[arg(long)]
        exit_code: bool,
        /// Ask the daemon at this address instead of the API server
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Backups: list and verify them, get an object back, take one now, or pause the schedule
    #[command(subcommand)]
    Backup(Backup),
    /// Put objects of a backup back, on any hub: the plan first, then the restore
    #[command(subcommand)]
    Restore(restore::Restore),
    /// What a passive hub does: follow the primary now, or not for a while; release a held prune
    #[command(subcommand)]
    Sync(pause::Sync),
    /// Make this passive hub the primary; what must hold is shown first
    Promote(promote::Promote),
    /// Rehearse a promotion on this passive hub, which changes nothing on it
    Drill(drill::Drill),
    /// Hand over to the other hub, on the primary: a last backup, and from then on none
    Demote(demote::Demote),
    /// Let a fenced hub follow the one that was promoted; shows first what that changes on it
    Rejoin(rejoin::Rejoin),
    /// Hand over to the other hub and promote it there, in one command
    Switchover(switchover::Switchover),
    /// The storage: is it fit, what does it hold; works with both clusters dead
    #[command(subcommand)]
    Storage(Storage),
    /// The configuration file
    #[command(subcommand)]
    Config(Config),
    /// The pair's keys
    #[command(subcommand)]
    Key(Key),
    /// Which set an object of this hub belongs to, by which rule, and what a standby does with it
    Explain {
        /// The kind: `policies`, `Policy` or `policies.policy.open-cluster-management.io`
        kind: String,
        /// The object; its namespace may be left out where that is clear enough
        #[arg(value_name = "[NS/]NAME")]
        name: String,
    },
    /// Print the `CustomResourceDefinition` of the Hub resource
    Crd,
}

#[derive(Debug, Subcommand)]
enum Backup {
    /// All backups in the storage, newest first; works with both clusters dead
    List,
    /// What a backup holds: its sets, kinds, levels and packs
    Describe {
        /// Id or slot of the backup, or `latest`
        #[arg(default_value = "latest")]
        id: String,
    },
    /// Print one object of a backup as YAML (`-o json`: as JSON)
    Get(Get),
    /// What differs between two backups, or between a backup and the hub as it is now
    Diff(diff::Diff),
    /// Fetch, authenticate, decrypt and count everything of a backup
    Verify {
        /// Id or slot of the backup, or `latest`
        #[arg(default_value = "latest")]
        id: String,
        /// Verify all backups
        #[arg(long, conflicts_with = "id")]
        all: bool,
        /// Read only a share of the packs, such as 5%, others each time: of the backup, or with --all
        /// of all backups together. Each of them is authenticated and decrypted; that the backup as a
        /// whole counts up is left to a run without it
        #[arg(long, value_name = "SHARE", value_parser = share)]
        sample: Option<f64>,
    },
    /// Retire the backups that the retention rules do not keep; the plan is shown first
    Prune(prune::How),
    /// Retire these backups; the plan is shown first
    Delete {
        /// Ids or slots of the backups
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        how: prune::How,
    },
    /// A suspect backup is in order: standbys may restore it
    Ack {
        /// Id or slot of the backup, or `latest`
        id: String,
        /// How long to wait for the primary
        #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
        timeout: std::time::Duration,
    },
    /// Take a backup now, on the primary
    Run {
        /// Only show what a backup of this hub would hold, by which rule; asks nothing but the hub
        #[arg(long, conflicts_with = "no_wait")]
        dry_run: bool,
        /// With --dry-run: each object instead of counts (`-o json`: one line of JSON each)
        #[arg(long, requires = "dry_run")]
        objects: bool,
        /// Return as soon as the daemon was asked
        #[arg(long)]
        no_wait: bool,
        /// How long to wait for the backup
        #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
        timeout: std::time::Duration,
        /// Why: shown among the runs and in the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take no backups by the schedule for a while, on the primary
    Pause(pause::Pause),
    /// Take backups by the schedule again
    Resume(pause::Patience),
}

#[derive(Debug, Args)]
struct Get {
    /// Id or slot of the backup, or `latest`
    id: String,
    /// The kind: `policies`, `Policy` or `policies.policy.open-cluster-management.io`
    kind: String,
    /// The object; its namespace may be left out where that is clear enough
    #[arg(value_name = "[NS/]NAME")]
    name: String,
    /// Print the data of Secrets, which is masked otherwise
    #[arg(long)]
    show_secret_data: bool,
}

#[derive(Debug, Subcommand)]
enum Storage {
    /// Reachable, writable, able to fence, and readable with these keys
    Check,
    /// Room that journal, packs and the rest take
    Usage,
    /// All keys with their sizes
    Ls {
        /// Only what is below this folder, such as `packs`
        #[arg(default_value = "")]
        prefix: String,
    },
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Check the file and name everything that is wrong with it
    Check {
        /// Also ask the hub: which rules of the file do nothing there, which kinds it does not serve
        #[arg(long)]
        hub: bool,
    },
    /// Print the JSON Schema of the file, for editors
    Schema,
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make a pair key; every hub of the pair needs the same one
    New {
        /// Write the key to this file, which must not exist; without it, to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// The keys of the pair, and which backups need which; works with both clusters dead
    List,
    /// Change to the first key of `encryption.keyFiles`, on the primary
    Rotate {
        /// Also if a hub that is alive does not hold the key: it is left out
        #[arg(long)]
        force: bool,
        /// How long to wait for the primary
        #[arg(long, default_value = "20m", value_parser = humantime::parse_duration)]
        timeout: std::time::Duration,
    },
}

/// `5%` as 0.05.
fn share(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok()) {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("write a share above 0%, up to 100%".to_owned()),
    }
}

impl Cli {
    /// JSON output also means JSON errors.
    pub fn output(&self) -> Output {
        self.global.output
    }

    /// Does what was asked. The daemon needs the signals that `main` has installed; everything else
    /// they end.
    pub async fn execute(self, mut signals: crate::daemon::Signals) -> Result<(), Failure> {
        let global = self.global;
        let verb = match self.command {
            Command::Run => return Box::pin(run::run(&global, signals)).await,
            Command::Verb(verb) => verb,
        };
        tokio::select! {
            done = verb.execute(&global) => done,
            interrupt = signals.interrupted() => {
                let code = if interrupt { exit::Code::Interrupted } else { exit::Code::Terminated };
                Err(Failure::new(code, "interrupted"))
            }
        }
    }
}

impl Verb {
    async fn execute(self, global: &Global) -> Result<(), Failure> {
        match self {
            Verb::Status { exit_code, url } => run::status(global, exit_code, url.as_deref()).await,
            Verb::Backup(Backup::List) => backup::list(global).await,
            Verb::Backup(Backup::Describe { id }) => describe::describe(global, &id).await,
            Verb::Backup(Backup::Get(Get { id, kind, name, show_secret_data })) => {
                let wanted = find::Wanted::new(kind, &name);
                get::get(global, &id, wanted, show_secret_data).await
            }
            Verb::Backup(Backup::Diff(diff)) => diff::diff(global, diff).await,
            Verb::Backup(Backup::Verify { id, all, sample }) => {
                verify::verify(global, &id, all, sample).await
            }
            Verb::Backup(Backup::Prune(how)) => prune::prune(global, how).await,
            Verb::Backup(Backup::Delete { ids, how }) => prune::delete(global, &ids, how).await,
            Verb::Backup(Backup::Ack { id, timeout }) => backup::ack(global, &id, timeout).await,
            Verb::Backup(Backup::Run { dry_run: true, objects, .. }) => {
                dry_run::dry_run(global, objects).await
            }
            Verb::Backup(Backup::Run { dry_run: false, objects: _, no_wait, timeout, reason }) => {
                backup::run(global, !no_wait, timeout, reason).await
            }
            Verb::Backup(Backup::Pause(how)) => pause::backup(global, how).await,
            Verb::Backup(Backup::Resume(patience)) => pause::backup_again(global, patience).await,
            Verb::Sync(verb) => pause::sync(global, verb).await,
            Verb::Restore(restore) => restore::restore(global, restore).await,
            Verb::Promote(how) => Box::pin(promote::promote(global, how)).await,
            Verb::Drill(how) => drill::drill(global, how).await,
            Verb::Demote(demote) => demote::demote(global, demote).await,
            Verb::Rejoin(rejoin) => Box::pin(rejoin::rejoin(global, rejoin)).await,
            Verb::Switchover(how) => Box::pin(switchover::switchover(global, how)).await,
            Verb::Storage(Storage::Check) => storage_check::check(global).await,
            Verb::Storage(Storage::Usage) => storage::usage(global).await,
            Verb::Storage(Storage::Ls { prefix }) => storage::ls(global, &prefix).await,
            Verb::Config(Config::Check { hub }) => config_check::check(global, hub).await,
            Verb::Config(Config::Schema) => config_check::schema(),
            Verb::Key(Key::New { out }) => keys::new_key(out.as_deref()),
            Verb::Key(Key::List) => keys::list(global).await,
            Verb::Key(Key::Rotate { force, timeout }) => keys::rotate(global, force, timeout).await,
            Verb::Explain { kind, name } => {
                explain::explain(global, find::Wanted::new(kind, &name)).await
            }
            Verb::Crd => run::crd(),
        }
    }
}
