//! `understudy restore plan` and `restore run`: put chosen objects of a backup onto the hub of the
//! kubeconfig, whichever role it has. See `restore/once/mod.rs` for what that means.

use super::exit::{Code, Failure};
use super::filter::Filter;
use super::once::{self, Chosen, Made};
use super::progress;
use super::render_plan::{self, Outcome};
use super::stored::show;
use super::{Global, confirm};
use crate::object::Set;
use crate::restore::once::saved::Saved;
use crate::restore::once::steps::{Act, Existing, only_after_others};
use crate::status::words::plural;
use clap::{Args, Subcommand, ValueEnum};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Restore {
    /// Show what a restore would do, object by object; nothing is written
    Plan {
        #[command(flatten)]
        what: What,
        /// Keep the plan in this file, for `restore run --plan`; it must not exist
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Restore; the plan is shown first
    Run(Running),
}

/// The chosen objects.
#[derive(Clone, Debug, Args)]
pub(super) struct What {
    /// Id or slot of the backup, or `latest`
    #[arg(long, value_name = "ID", default_value = "latest")]
    backup: String,
    /// Only this set; may be repeated. The activation set is left out unless it is named
    #[arg(long, value_enum, value_name = "SET")]
    set: Vec<SetName>,
    #[command(flatten)]
    filter: Filter,
    /// Put what stands in namespace A into namespace B; may be repeated
    #[arg(long, value_name = "A=B", value_parser = namespaces)]
    namespace_map: Vec<(String, String)>,
    /// What to do about objects that exist and differ
    #[arg(long, value_enum, default_value_t)]
    existing: Existing,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SetName {
    Credentials,
    Resources,
    Activation,
}

#[derive(Debug, Args)]
pub(super) struct Running {
    #[command(flatten)]
    what: What,
    /// Carry out this plan of `restore plan --out`, and nothing if the hub has moved since
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["backup", "set", "include", "exclude", "name", "selector", "namespace_map", "existing"]
    )]
    plan: Option<PathBuf>,
    /// Restore objects of the activation set, too: this hub acts on them at once
    #[arg(long)]
    activate: bool,
    /// `client`: only show the plan; `server`: have the API server judge every write, and change
    /// nothing
    #[arg(long, value_enum, conflicts_with = "yes")]
    dry_run: Option<DryRun>,
    /// Do not ask for a confirmation
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    Client,
    Server,
}

fn namespaces(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => {
            Ok((from.to_owned(), to.to_owned()))
        }
        _ => Err("write OLD=NEW".to_owned()),
    }
}

impl What {
    fn chosen(self, global: &Global) -> Chosen {
        let sets = if self.set.is_empty() {
            HashSet::from([Set::Credentials, Set::Resources])
        } else {
            let set = |name: &SetName| match name {
                SetName::Credentials => Set::Credentials,
                SetName::Resources => Set::Resources,
                SetName::Activation => Set::Activation,
            };
            self.set.iter().map(set).collect()
        };
        Chosen {
            backup: self.backup,
            sets,
            filter: self.filter,
            namespace: global.namespace.clone(),
            namespaces: self.namespace_map.into_iter().collect(),
            existing: self.existing,
        }
    }
}

pub(super) async fn restore(global: &Global, restore: Restore) -> Result<(), Failure> {
    match restore {
        Restore::Plan { what, out } => Box::pin(plan(global, what, out.as_deref())).await,
        Restore::Run(run) => Box::pin(self::run(global, run)).await,
    }
}

async fn plan(global: &Global, what: What, out: Option<&Path>) -> Result<(), Failure> {
    let made = Box::pin(once::make(global, what.chosen(global))).await?;
    show(render_plan::plan(&made.saved, &made.steps, global.output))?;
    hints(&made);
    if let Some(out) = out {
        write(out, &made.saved)?;
        eprintln!("carry it out with: understudy restore run --plan {}", out.display());
    }
    Ok(())
}

async fn run(global: &Global, run: Running) -> Result<(), Failure> {
    let mut made = match &run.plan {
        Some(file) => once::again(global, &read(file)?, file).await?,
        None => Box::pin(once::make(global, run.what.chosen(global))).await?,
    };
    if run.dry_run == Some(DryRun::Client) {
        hints(&made);
        return show(render_plan::plan(&made.saved, &made.steps, global.output));
    }
    let told = render_plan::plan(&made.saved, &made.steps, super::render::Output::Table);
    eprint!("{}", told.map_err(|error| Failure::new(Code::Failed, error.to_string()))?);
    let writes = made.steps.iter().filter(|step| step.act.writes());
    let (mut count, mut activation) = (0, 0);
    for step in writes {
        count += 1;
        activation += usize::from(step.set == Set::Activation);
    }
    if count == 0 {
        return nothing_to_do(&made);
    }
    if activation > 0 && !run.activate {
        let what = plural(activation, "object", "objects");
        let message = format!("{what} of the activation set: this hub would act on them at once");
        return Err(Failure::new(Code::Refused, message).with_hint(same_with("--activate")));
    }
    let rehearsal = run.dry_run == Some(DryRun::Server);
    let untried = if rehearsal { only_after_others(made.checked.plan()) } else { HashSet::new() };
    if !rehearsal {
        let question = format!("Restore {}?", plural(count, "object", "objects"));
        confirm::confirm(run.yes, &question, &same_with("--yes"))?;
        made.still_may_write().await?;
    }
    let objects = plural(count - untried.len(), "object", "objects");
    progress::say(global, &format!("writing {objects}"));
    made.leave_out(&untried)?;
    let report = made.execute(global, rehearsal).await;
    let written: HashSet<_> = made.checked.plan().writes.iter().map(|write| &write.key).collect();
    let refused = report.refused.iter().filter(|item| written.contains(&item.key));
    let mut failed: Vec<_> = report.failed.iter().chain(refused).collect();
    failed.sort_by(|a, b| a.key.cmp(&b.key));
    let mut untried: Vec<_> = untried.into_iter().collect();
    untried.sort();
    let outcome = Outcome { report: &report, failed, untried, rehearsal };
    show(render_plan::outcome(&outcome, global.output))?;
    if let Some(why) = &report.stopped {
        return Err(Failure::new(Code::Failed, format!("the restore ended early: {why}")));
    }
    if outcome.failed.is_empty() {
        return Ok(());
    }
    let kinds = outcome.failed_by_kind();
    let message = format!("{} of {count} objects failed: {kinds}", outcome.failed.len());
    Err(Failure::new(Code::Partial, message)
        .with_hint("what is restored stays; the same command tries the others again"))
}

/// That nothing is written must not look like success where something was to be.
fn nothing_to_do(made: &Made) -> Result<(), Failure> {
    let stays = |act: Act| made.steps.iter().find(|step| step.act == act);
    if let Some(step) = stays(Act::Refuse).or_else(|| stays(Act::Skip)) {
        let message = format!("nothing may be restored here, such as {}: {}", step.key, step.why);
        return Err(Failure::new(Code::Refused, message));
    }
    if let Some(step) = stays(Act::Keep) {
        let message = format!("nothing was restored, such as {}: {}", step.key, step.why);
        return Err(Failure::new(Code::Refused, message).with_hint(same_with("--existing update")));
    }
    eprintln!("everything stands on this hub as in the backup");
    Ok(())
}

/// The command as it was typed, with one more flag.
fn same_with(flag: &str) -> String {
    let plain =
        |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=,:".contains(&b));
    let words = std::env::args()
        .skip(1)
        .map(|word| if plain(&word) { word } else { format!("'{}'", word.replace('\'', r"'\''")) });
    format!("understudy {} {flag}", words.collect::<Vec<_>>().join(" "))
}

fn hints(made: &Made) {
    let has = |act: Act| made.steps.iter().any(|step| step.act == act);
    if has(Act::Keep) {
        eprintln!("what exists is kept; --existing update replaces it");
    }
    let activates = made.steps.iter().any(|s| s.act.writes() && s.set == Set::Activation);
    if activates {
        eprintln!(
            "this hub would act on objects of the activation set at once: run needs --activate"
        );
    }
}

fn read(file: &Path) -> Result<Saved, Failure> {
    let fail = |why: String| Failure::new(Code::Usage, format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| fail(error.to_string()))?;
    Saved::read(&bytes).map_err(|error| fail(crate::retry::chain(&error)))
}

fn write(file: &Path, saved: &Saved) -> Result<(), Failure> {
    use std::io::Write as _;
    let text = super::render::pretty(saved);
    let text = text.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    let made = std::fs::File::create_new(file);
    made.and_then(|mut made| made.write_all(text.as_bytes())).map_err(|error| {
        Failure::new(Code::Failed, format!("failed to write {}: {error}", file.display()))
    })
}
