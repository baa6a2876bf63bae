//! `understudy switchover`: the hand-over on one hub and the promotion on the other, by the same two requests
//! that operators can place by hand. Whatever ends this command ends neither of them.

use super::confirm::confirm_by_name;
use super::exit::{Code, Failure};
use super::{Global, ask, run};
use crate::kube_status::ask::Verb;
use crate::kube_status::request::PROMOTE;
use crate::kube_status::{self, HubStatus};
use crate::status::{PRIMARY_SILENT, Role};
use clap::Args;
use std::time::Duration;

/// Between two looks at the other hub.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Switchover {
    /// The hub that shall take over
    #[arg(long, value_name = "HUB")]
    to: String,
    /// The context of the kubeconfig in which the primary is
    #[arg(long, value_name = "CONTEXT")]
    primary_context: String,
    /// The context in which the hub is that shall take over
    #[arg(long, value_name = "CONTEXT")]
    passive_context: String,
    /// Only tell what would be done, and what speaks against it
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask for a confirmation
    #[arg(long)]
    yes: bool,
    /// Why: stands in the logs
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long each of the two steps may take
    #[arg(long, default_value = "30m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// One of the two hubs.
struct Side {
    client: kube::Client,
    namespace: String,
    hub: String,
}

impl Side {
    async fn status(&self) -> Result<HubStatus, Failure> {
        let found = kube_status::load(&self.client, &self.namespace, &self.hub).await?;
        found.and_then(|hub| hub.status).ok_or_else(|| {
            Failure::new(Code::Failed, format!("the hub {} has no status yet", self.hub))
        })
    }

    /// Looks until there is something to tell.
    async fn until<T>(
        &self,
        patience: Duration,
        what: &str,
        mut look: impl FnMut(&HubStatus) -> Option<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let looks = async {
            loop {
                if let Some(found) = look(&self.status().await?) {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, looks).await.unwrap_or_else(|_| {
            let patience = humantime::format_duration(patience);
            Err(Failure::new(Code::TimedOut, format!("{}: {what} took over {patience}", self.hub)))
        })
    }
}

pub(super) async fn switchover(global: &Global, how: Switchover) -> Result<(), Failure> {
    let Switchover { to, primary_context, passive_context, dry_run, yes, reason, timeout } = how;
    let first = Global { context: Some(primary_context.clone()), ..global.clone() };
    let second = Global { context: Some(passive_context), ..global.clone() };
    let from = run::settings(&first)?.hub.name;
    let there = Side { client: run::client(&second).await?, namespace: global.home(), hub: to };
    let to = &there.hub;
    let before = there.status().await?;
    check(&there, &before)?;
    let verb = Verb::Demote { to: Some(to.clone()), dry_run };
    if dry_run {
        ask::ask_because(&first, verb, reason, Some(timeout)).await?;
        println!("{to} could be promoted then.");
        return Ok(());
    }
    let command = "the same command with --yes";
    confirm_by_name(yes, to, &format!("switch over from {from} to it"), command)?;
    eprintln!("1 {from}: the last backup and the hand-over");
    ask::ask_because(&first, verb, reason, Some(timeout)).await?;
    let back = format!(
        "take it back with: kubectl --context {primary_context} -n {} annotate \
         hubs.understudy.dev {from} understudy.dev/promote={from}",
        there.namespace
    );
    let promoted = promote(&there, &before, timeout).await;
    let (backup, base) = promoted.map_err(|failure| {
        let hint = failure.hint.clone().map_or(back.clone(), |hint| format!("{hint}; or {back}"));
        failure.with_hint(hint)
    })?;
    println!("{from} handed over with backup {backup}");
    println!("{to} is primary and started from backup {base}");
    if backup == base {
        Ok(())
    } else {
        Err(Failure::new(Code::Failed, "these should be the same backup: see both logs"))
    }
}

/// What speaks against a promotion there beside the primary's signs of life.
fn check(there: &Side, status: &HubStatus) -> Result<(), Failure> {
    let hub = &there.hub;
    if status.role.as_deref() != Some(Role::Passive.name()) {
        let role = status.role.as_deref().unwrap_or("of no role yet");
        return Err(Failure::new(Code::Refused, format!("{hub} is {role}, not passive")));
    }
    let checklist = status.snapshot().map(|seen| seen.promotion.checklist).unwrap_or_default();
    match checklist.into_iter().find(|check| check.refuses() && check.name != PRIMARY_SILENT) {
        None => Ok(()),
        Some(check) => {
            let failure = Failure::new(Code::Refused, format!("{hub}: {}", check.why));
            Err(check
                .hint
                .map_or(failure, |hint| Failure::new(Code::Refused, check.why).with_hint(hint)))
        }
    }
}

/// The backup that was handed over with, and the one that the promotion started from.
async fn promote(
    there: &Side,
    before: &HubStatus,
    patience: Duration,
) -> Result<(String, String), Failure> {
    let Side { client, namespace, hub } = there;
    eprintln!("2 {hub}: sees the hand-over");
    let handed = |status: &HubStatus| Some(Ok(status.handover.handed.clone()?.backup));
    let backup = there.until(patience, "to see the hand-over", handed).await?;
    eprintln!("3 {hub}: the promotion");
    ask::place(client, namespace, hub, PROMOTE, hub).await?;
    let mut phase = None;
    let promotion = |status: &HubStatus| status.promotion.clone().unwrap_or_default();
    let refusal = |status: &HubStatus| status.snapshot().and_then(|seen| seen.promotion.refused);
    let earlier = (promotion(before).request, refusal(before));
    let look = |status: &HubStatus| {
        let seen = promotion(status);
        let refused = refusal(status);
        if (&seen.request, &refused) == (&earlier.0, &earlier.1) {
            return None;
        }
        if phase != seen.phase {
            phase.clone_from(&seen.phase);
            eprintln!("  {}", phase.as_deref().unwrap_or("refused"));
        }
        if status.role.as_deref() == Some(Role::Primary.name()) {
            return Some(Ok(seen.backup.unwrap_or_default()));
        }
        let refused = refused.filter(|_| seen.phase.is_none())?;
        Some(Err(Failure::new(Code::Refused, refused.message).with_hint(refused.hint)))
    };
    let base = there.until(patience, "the promotion", look).await?;
    Ok((backup.unwrap_or_default(), base))
}
