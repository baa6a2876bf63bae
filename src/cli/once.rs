//! A one-off restore from flags or from a saved plan to a checked plan, and its execution.

use super::exit::{Code, Failure};
use super::filter::{Filter, Wanted};
use super::home;
use super::opened::{self, Open};
use super::progress;
use super::stored::Stored;
use super::{Global, run};
use crate::capture::discovery;
use crate::config::settings::{RestorePolicy, Settings};
use crate::differ;
use crate::kube_status;
use crate::object::{Kind, ObjectKey, Set};
use crate::repository::packs::PacksError;
use crate::restore::once::pick::{self, PickError, Picked};
use crate::restore::once::present::{self, Live};
use crate::restore::once::rehome::Namespaces;
use crate::restore::once::saved::{Backup, Hub, Saved};
use crate::restore::once::steps::{self, Existing, Found, Present, State, Step};
use crate::restore::prune::Pruning;
use crate::restore::{self, Checked, Desired, How, Kinds, Policy, Report, Restored, Run, Scope};
use crate::retry;
use crate::sync::no_guard;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the flags say.
pub(super) struct Chosen {
    pub(super) backup: String,
    pub(super) sets: HashSet<Set>,
    pub(super) filter: Filter,
    pub(super) namespace: Option<String>,
    pub(super) namespaces: BTreeMap<String, String>,
    pub(super) existing: Existing,
}

/// The hub of the kubeconfig, and what the journal says of it.
struct Target {
    client: kube::Client,
    settings: Settings,
    kinds: Kinds,
    policy: Policy,
    uid: String,
    home: String,
    /// Its own term, if it holds the highest.
    epoch: Option<u64>,
    /// What the sync of this hub keeps: nothing unless it is a standby.
    followed: HashSet<ObjectKey>,
}

/// A plan, and all that it takes to carry it out.
pub(super) struct Made {
    target: Target,
    stored: Stored,
    open: Open,
    picked: Picked,
    namespaces: Namespaces,
    present: Present,
    existing: Existing,
    activation: bool,
    pub(super) checked: Checked,
    pub(super) steps: Vec<Step>,
    pub(super) saved: Saved,
}

/// From flags.
pub(super) async fn make(global: &Global, chosen: Chosen) -> Result<Made, Failure> {
    let settings = run::settings(global)?;
    let mut stored = Stored::expect(&settings).await?;
    let open = opened::open(&mut stored, global, &chosen.backup).await?;
    let target = target(global, settings, &mut stored, &open).await?;
    let activation = chosen.sets.contains(&Set::Activation);
    target.may_activate(activation)?;
    let Chosen { backup: _, sets, filter, namespace, namespaces, existing } = chosen;
    let reading = open.clone();
    let keys = move || choose(&reading, &sets, filter, namespace.as_deref());
    let keys = tokio::task::spawn_blocking(keys).await.map_err(|_| PacksError::Thread)??;
    let namespaces = Namespaces(namespaces);
    let picked = pick::pick(open.contents(), keys.iter(), &namespaces)
        .map_err(|error| unpickable(&error))?;
    progress::say(global, "reading what stands on the hub");
    let tally = open.packs.tally().clone();
    let planned = planned(target, stored, open, picked, namespaces, existing, activation);
    Box::pin(progress::follow(global, &tally, Box::pin(planned))).await
}

/// From a saved plan, which must come to the same writes as when it was made.
pub(super) async fn again(global: &Global, saved: &Saved, file: &Path) -> Result<Made, Failure> {
    let moved = |why: String| {
        let message = format!("{} cannot be carried out, nothing was done: {why}", file.display());
        Failure::new(Code::Refused, message)
            .with_hint("make a new one: understudy restore plan --out FILE …")
    };
    let settings = run::settings(global)?;
    let mut stored = Stored::expect(&settings).await?;
    let (id, mark) = (&saved.backup.id, saved.backup.mark);
    let there = stored.committed(mark.slot).await?;
    if there.is_none_or(|there| there.backup.mark != mark) {
        return Err(moved(format!("the backup {id} is not in the storage any more")));
    }
    let open = opened::open(&mut stored, global, &mark.slot.to_string()).await?;
    let target = target(global, settings, &mut stored, &open).await?;
    if target.uid != saved.hub.uid {
        return Err(moved(format!("it was made for another cluster, the hub {}", saved.hub.name)));
    }
    target.may_activate(saved.activation)?;
    let usage = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Usage, format!("{}: {error}", file.display()))
    };
    let mut then = saved.steps().map_err(|error| usage(&error))?;
    then.retain(|step| step.act.writes());
    if then.is_empty() {
        return Err(moved("it writes nothing".to_owned()));
    }
    let namespaces = Namespaces::of_moves(then.iter().map(|step| (&step.from, &step.key)));
    let keys = then.iter().map(|step| &step.from);
    let picked =
        pick::pick(open.contents(), keys, &namespaces).map_err(|error| moved(error.to_string()))?;
    progress::say(global, "reading what stands on the hub");
    let tally = open.packs.tally().clone();
    let planned =
        planned(target, stored, open, picked, namespaces, saved.existing, saved.activation);
    let made = Box::pin(progress::follow(global, &tally, Box::pin(planned))).await?;
    let drift = steps::drift(&then, &made.steps);
    if drift.is_empty() { Ok(made) } else { Err(moved(drift.join("; "))) }
}

fn unpickable(error: &PickError) -> Failure {
    Failure::new(Code::Usage, error.to_string())
}

async fn target(
    global: &Global,
    settings: Settings,
    stored: &mut Stored,
    open: &Open,
) -> Result<Target, Failure> {
    let client = run::client(global).await?;
    let unreachable = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Code::KubernetesUnreachable, retry::chain(error))
    };
    let uid = kube_status::cluster_uid(&client).await?;
    let kinds = discovery::discover(&client).await.map_err(|error| unreachable(&error))?.kinds;
    let home = home::of(&client, &settings).await;
    let view = stored.view();
    let holds = view.holder.as_ref().is_some_and(|holder| holder.uid == uid);
    let epoch = holds.then_some(view.epoch);
    let mut followed = HashSet::new();
    if !holds
        && stored.is_standby(&uid).await?
        && let Some(newest) = view.usable.clone()
    {
        if newest.mark == open.opened.backup.mark {
            followed.extend(open.contents().entries.keys().cloned());
        } else {
            let newest = opened::open(stored, global, &newest.mark.slot.to_string()).await?;
            followed.extend(newest.contents().entries.keys().cloned());
        }
    }
    // A person wants the object as it was, on whatever hub.
    let as_it_was = RestorePolicy {
        transforms: Vec::new(),
        other_transforms: Vec::new(),
        ..settings.restore.clone()
    };
    let policy = Policy::new(&settings.hub.pair, &home, &as_it_was);
    let kinds = Kinds::new(kinds);
    Ok(Target { client, settings, kinds, policy, uid, home, epoch, followed })
}

impl Target {
    /// Only a hub with the highest term may act (I12).
    fn may_activate(&self, activation: bool) -> Result<(), Failure> {
        if !activation || self.epoch.is_some() {
            return Ok(());
        }
        let (hub, namespace) = (&self.settings.hub.name, &self.home);
        let message = "the activation set is only restored on the hub that holds the term: here a \
                       second hub would act on the same clusters";
        Err(Failure::new(Code::Refused, message).with_hint(format!(
            "to make this hub the primary: kubectl -n {namespace} annotate hubs.understudy.dev {hub} \
             understudy.dev/promote={hub}"
        )))
    }

    /// Why an object is left to the sync of this hub.
    fn follows(&self, key: &ObjectKey, live: Option<&Live>) -> Option<&'static str> {
        const WHY: &str = "the sync of this standby keeps it: restore it on the primary, or into \
                           another namespace";
        let labelled = live.and_then(|live| live.pair.as_ref()) == Some(&self.policy.pair);
        (self.followed.contains(key) || (labelled && self.epoch.is_none())).then_some(WHY)
    }
}

fn choose(
    open: &Open,
    sets: &HashSet<Set>,
    filter: Filter,
    namespace: Option<&str>,
) -> Result<Vec<ObjectKey>, Failure> {
    let kinds = if filter.names_kinds() { open.kind_names()? } else { vec![] };
    let wanted: Wanted = filter.resolve(namespace, &kinds)?;
    let entries = open.contents().entries.iter();
    let (mut keys, mut elsewhere) = (vec![], None);
    for (key, entry) in entries.filter(|(key, _)| wanted.takes(key)) {
        if sets.contains(&entry.set) {
            keys.push(key.clone());
        } else {
            elsewhere = Some(entry.set);
        }
    }
    if wanted.selector.is_some() {
        let mut labelled = vec![];
        open.read(keys.iter(), |key, object| {
            if wanted.takes_labels(object) {
                labelled.push(key.clone());
            }
        })?;
        keys = labelled;
    }
    if !keys.is_empty() {
        return Ok(keys);
    }
    let id = open.id();
    let failure = Failure::new(Code::Failed, format!("the backup {id} holds nothing of that"));
    Err(failure.with_hint(match elsewhere {
        Some(set) => format!("in another set it does: add --set {set}"),
        None => format!("what it holds is shown by: understudy backup describe {id}"),
    }))
}

async fn planned(
    target: Target,
    stored: Stored,
    open: Open,
    mut picked: Picked,
    namespaces: Namespaces,
    existing: Existing,
    activation: bool,
) -> Result<Made, Failure> {
    let selection = &target.settings.selection;
    let keeps_status = |kind: &Kind| selection.keeps_status(kind);
    let live =
        present::read(&target.client, &target.kinds, &picked, keeps_status, open.packs.tally());
    let live = live.await;
    let live =
        live.map_err(|error| Failure::new(Code::KubernetesUnreachable, retry::chain(&error)))?;
    let keys = picked.contents.entries.keys();
    let refused: BTreeMap<ObjectKey, &'static str> =
        keys.filter_map(|key| Some((key.clone(), target.follows(key, live.get(key))?))).collect();
    let (reading, wanted, names) = (open.clone(), picked.clone(), namespaces.clone());
    let compare = move || compare(&reading, &wanted, &names, live);
    let present = tokio::task::spawn_blocking(compare).await.map_err(|_| PacksError::Thread)??;

    let all = picked.clone();
    picked.retain(|key| !refused.contains_key(key));
    let checked = checked(&target, &picked, &present, existing, activation)?;
    let steps = steps::steps(&all, &present, checked.plan(), &refused);
    let backup = Backup { id: open.id(), mark: open.opened.backup.mark };
    let hub = Hub { name: target.settings.hub.name.clone(), uid: target.uid.clone() };
    let saved = Saved::new(backup, hub, existing, activation, &steps);
    Ok(Made {
        target,
        stored,
        open,
        picked,
        namespaces,
        present,
        existing,
        activation,
        checked,
        steps,
        saved,
    })
}

/// How what stands on the hub compares with what the backup holds.
fn compare(
    open: &Open,
    picked: &Picked,
    namespaces: &Namespaces,
    live: HashMap<ObjectKey, Live>,
) -> Result<Present, Failure> {
    let differs = |target: &ObjectKey| {
        let digest = picked.contents.entries.get(target).map(|entry| entry.digest);
        live.get(target).is_some_and(|live| !live.deleting && Some(live.digest) != digest)
    };
    let origins = picked.targets.iter().filter(|(_, target)| differs(target));
    let (mut paths, mut unreadable) = (HashMap::new(), None);
    open.read(origins.map(|(key, _)| key), |key, object| {
        let target = &picked.targets[key];
        match namespaces.object(key, object) {
            Ok(object) => {
                let found = differ::paths(&live[target].cleaned, &object);
                paths.insert(target.clone(), found);
            }
            Err(_) => unreadable = Some(key.clone()),
        }
    })?;
    if let Some(key) = unreadable {
        return Err(Failure::new(Code::Damaged, format!("{key} in the backup cannot be read")));
    }
    let found = live.into_iter().map(|(key, live)| {
        let Live { uid, resource_version, pair: _, deleting, digest, cleaned: _ } = live;
        let state = match paths.remove(&key) {
            _ if deleting => State::Deleting,
            Some(paths) if !paths.is_empty() => State::Differs { digest, paths },
            Some(_) | None => State::Same,
        };
        (key, Found { uid, resource_version, state })
    });
    Ok(found.collect())
}

fn checked(
    target: &Target,
    picked: &Picked,
    present: &Present,
    existing: Existing,
    activation: bool,
) -> Result<Checked, Failure> {
    let (complete, gone) = (HashSet::new(), HashMap::new());
    let desired = Desired {
        contents: &picked.contents,
        restored: &steps::restored(picked, present, existing),
        policy: &target.policy,
        kinds: &target.kinds,
        scope: match target.epoch {
            Some(epoch) if activation => Scope::Activation { epoch },
            _ => Scope::Passive,
        },
        // A one-off restore deletes nothing.
        pruning: Pruning {
            enabled: false,
            max_deletes: 0,
            max_shrink: 0.0,
            complete: &complete,
            gone: &gone,
            released: &[],
        },
    };
    restore::check(restore::plan(&desired), &desired)
        .map_err(|violations| Failure::new(Code::Failed, violations.to_string()))
}

impl Made {
    /// Looked at again after the confirmation, which may have taken its time.
    pub(super) async fn still_may_write(&mut self) -> Result<(), Failure> {
        if self.activation {
            let view = self.stored.journal.refresh().await?;
            let holds = view.holder.as_ref().is_some_and(|holder| holder.uid == self.target.uid);
            self.target.epoch = holds.then_some(view.epoch);
            self.target.may_activate(true)?;
        }
        Ok(())
    }

    pub(super) fn leave_out(&mut self, keys: &HashSet<ObjectKey>) -> Result<(), Failure> {
        self.picked.retain(|key| !keys.contains(key));
        let Self { target, picked, present, existing, activation, .. } = self;
        self.checked = checked(target, picked, present, *existing, *activation)?;
        Ok(())
    }

    pub(super) async fn execute(&self, global: &Global, dry_run: bool) -> Report {
        let Self { target, open, picked, namespaces, present, existing, checked, .. } = self;
        let mut restored: Restored = steps::restored(picked, present, *existing);
        let (open, names) = (open.clone(), namespaces.clone());
        let targets = picked.targets.clone();
        let run = Run {
            how: How::Once,
            dry_run,
            applied: None,
            tally: self.open.packs.tally(),
            client: &target.client,
            contents: &picked.contents,
            kinds: &target.kinds,
            policy: &target.policy,
            max_in_flight: target.settings.kubernetes.max_in_flight,
            cancel: &CancellationToken::new(),
            guard: &no_guard,
            source: Arc::new(move |pack, sink| {
                let mut failed = Ok(());
                open.packs.objects(&open.opened, pack, |key, object| {
                    let Some(target) = targets.get(&key) else { return ControlFlow::Continue(()) };
                    match names.object(&key, object) {
                        Ok(object) => sink(target.clone(), &object),
                        Err(error) => {
                            failed = Err(error);
                            ControlFlow::Break(())
                        }
                    }
                })?;
                Ok(failed?)
            }),
        };
        let run = restore::execute(&run, checked, &mut restored);
        progress::follow(global, self.open.packs.tally(), run).await
    }
}
