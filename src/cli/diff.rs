//! `understudy backup diff`: two backups, or a backup and what a backup of the hub would hold now.
//!
//! Memory holds the digests of both sides. Objects are read only where the digests differ, and of
//! those only a limited number of bytes at once.

use super::exit::{Code, Failure};
use super::filter::{Filter, Wanted};
use super::opened::{self, Open};
use super::progress;
use super::render_diff::{self, Compared};
use super::stored::{Stored, show};
use super::{Global, home, run};
use crate::capture::candidates::{self, NamespaceLabels};
use crate::capture::clean::{self, Head};
use crate::capture::cut::{self, CutError};
use crate::capture::discovery::{self, Discovered};
use crate::capture::select::{KindRules, Selection, Verdict};
use crate::capture::survey::SurveyError;
use crate::config::settings::Settings;
use crate::differ::{self, Change, Difference, Paths};
use crate::object::{Digest, GroupResource, Kind, ObjectKey, Set};
use crate::progress::Tally;
use crate::repository::contents::{Contents, Entry};
use crate::repository::packs::PacksError;
use crate::retry;
use clap::Args;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Of objects that wait for their other side to be read.
const BYTES_AT_ONCE: usize = 32 << 20;

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Id or slot of the backup, or `latest`
    #[arg(value_name = "A")]
    before: String,
    /// The backup that it is compared with; without it, the hub as it is now
    #[arg(value_name = "B")]
    after: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Count by kind only
    #[arg(long)]
    summary: bool,
    /// Tell of Secrets, too, which fields differ; their values are never shown
    #[arg(long)]
    show_secrets: bool,
    /// End with 8 when there are differences
    #[arg(long)]
    exit_code: bool,
}

pub(super) async fn diff(global: &Global, diff: Diff) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let mut stored = Stored::expect(&settings).await?;
    let before = opened::open(&mut stored, global, &diff.before).await?;
    let namespace = global.namespace.as_deref();
    let (differences, after) = if let Some(after) = &diff.after {
        let after = opened::open(&mut stored, global, after).await?;
        let id = after.id();
        (between(before.clone(), after, diff.filter, namespace, diff.summary).await?, id)
    } else {
        let client = run::client(global).await?;
        (with_hub(global, &settings, &client, &before, diff.filter).await?, "this hub".to_owned())
    };
    let compared = Compared { before: before.id(), after, differences };
    let compared = if diff.show_secrets { compared } else { compared.without_paths_of_secrets() };
    show(render_diff::diff(&compared, diff.summary, global.output))?;
    stored.complete()?;
    if diff.exit_code && !compared.differences.is_empty() {
        let message = format!("{} and {} differ", compared.before, compared.after);
        return Err(Failure::new(Code::Different, message));
    }
    Ok(())
}

async fn between(
    before: Open,
    after: Open,
    filter: Filter,
    namespace: Option<&str>,
    summary: bool,
) -> Result<Vec<Difference>, Failure> {
    let namespace = namespace.map(str::to_owned);
    let compare = move || -> Result<_, Failure> {
        let mut kinds = vec![];
        if filter.names_kinds() {
            kinds = before.kind_names()?;
            kinds.extend(after.kind_names()?);
        }
        let wanted = filter.resolve(namespace.as_deref(), &kinds)?;
        let takes = |key: &ObjectKey| wanted.takes(key);
        let mut found = differ::contents(before.contents(), after.contents(), takes);
        if wanted.selector.is_some() {
            let mut labelled = HashSet::new();
            for (open, side) in [(&before, Side::Before), (&after, Side::After)] {
                let keys = found.iter().filter(|found| Side::of(found) == side);
                open.read(keys.map(|found| &found.key), |key, object| {
                    if wanted.takes_labels(object) {
                        labelled.insert(key.clone());
                    }
                })?;
            }
            found.retain(|found| labelled.contains(&found.key));
        }
        if !summary {
            let mut pairs = Pairs::new(&before);
            let changed = found.iter().filter(|found| found.change == Change::Changed);
            let mut failed = Ok(());
            after.read(changed.map(|found| &found.key), |key, object| {
                let done = pairs.add(key.clone(), object.to_owned());
                if failed.is_ok() {
                    failed = done;
                }
            })?;
            failed?;
            let mut paths = pairs.finish()?;
            for difference in &mut found {
                difference.paths = paths.remove(&difference.key).unwrap_or_default();
            }
        }
        Ok(found)
    };
    tokio::task::spawn_blocking(compare).await.map_err(|_| PacksError::Thread)?
}

/// Where the newer form of an object stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

impl Side {
    fn of(difference: &Difference) -> Self {
        match difference.change {
            Change::Removed => Side::Before,
            Change::Added | Change::Changed => Side::After,
        }
    }
}

/// Objects of the one side, compared with the other side as soon as they are many.
struct Pairs<'a> {
    before: &'a Open,
    waiting: HashMap<ObjectKey, Box<RawValue>>,
    bytes: usize,
    paths: HashMap<ObjectKey, Paths>,
}

impl<'a> Pairs<'a> {
    fn new(before: &'a Open) -> Self {
        Self { before, waiting: HashMap::new(), bytes: 0, paths: HashMap::new() }
    }

    fn add(&mut self, key: ObjectKey, after: Box<RawValue>) -> Result<(), PacksError> {
        self.bytes += after.get().len();
        self.waiting.insert(key, after);
        if self.bytes >= BYTES_AT_ONCE { self.compare() } else { Ok(()) }
    }

    fn compare(&mut self) -> Result<(), PacksError> {
        let Self { before, waiting, bytes, paths } = self;
        before.read(waiting.keys(), |key, before| {
            paths.insert(key.clone(), differ::paths(before, &waiting[key]));
        })?;
        waiting.clear();
        *bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<HashMap<ObjectKey, Paths>, PacksError> {
        self.compare()?;
        Ok(self.paths)
    }
}

/// What the rules of this hub would take into a backup now.
struct Now<'a> {
    wanted: Wanted,
    namespaces: NamespaceLabels,
    contents: Contents,
    /// By their labels.
    unwanted: HashSet<ObjectKey>,
    pairs: Pairs<'a>,
}

async fn with_hub(
    global: &Global,
    settings: &Settings,
    client: &kube::Client,
    before: &Open,
    filter: Filter,
) -> Result<Vec<Difference>, Failure> {
    let mut names = vec![];
    if filter.names_kinds() {
        let open = before.clone();
        let read = tokio::task::spawn_blocking(move || open.kind_names()).await;
        names = read.map_err(|_| PacksError::Thread)??;
    }
    let discovered = discovery::discover(client).await.map_err(SurveyError::Discovery)?;
    let Discovered { mut kinds, failed: unread, versions } = discovered;
    as_in(before.contents(), &mut kinds, &versions);
    names.extend(kinds.iter().map(|kind| (kind.group_resource(), kind.kind.clone())));
    let wanted = filter.resolve(global.namespace.as_deref(), &names)?;
    let home = home::of(client, settings).await;
    let selection = settings.selection.clone().with_own_namespace(&home);
    let selection = candidates::without_the_hub_itself(client, &selection, &kinds).await;
    let selection = selection.map_err(SurveyError::Cut)?;
    let revision = cut::newest_revision(client).await.map_err(SurveyError::Cut)?;
    let namespaces =
        candidates::namespace_labels(client, &revision).await.map_err(SurveyError::Cut)?;
    let mut now = Now {
        wanted,
        namespaces,
        contents: Contents::default(),
        unwanted: HashSet::new(),
        pairs: Pairs::new(before),
    };
    progress::say(global, "reading what stands on the hub");
    let tally = Tally::default();
    progress::follow(global, &tally, now.read(client, &selection, &kinds, &tally)).await?;
    let mut found = now.finish(before.contents())?;
    for group in unread {
        eprintln!("the hub cannot tell what it holds of the API group {group}: it is left out");
        found.retain(|found| found.key.group() != group);
    }
    Ok(found)
}

/// In the versions in which the backup holds them, where they are served: else each object would
/// differ by its version alone.
fn as_in(before: &Contents, kinds: &mut [Kind], served: &BTreeMap<GroupResource, Vec<String>>) {
    let held: HashMap<_, _> =
        before.entries.iter().map(|(key, entry)| (key.group_resource(), &*entry.version)).collect();
    for kind in kinds {
        let name = kind.group_resource();
        let held = held.get(&name).filter(|held| {
            served.get(&name).is_some_and(|served| served.iter().any(|version| version == *held))
        });
        if let Some(held) = held {
            (*held).clone_into(&mut kind.version);
        }
    }
}

impl Now<'_> {
    async fn read(
        &mut self,
        client: &kube::Client,
        selection: &Selection,
        kinds: &[Kind],
        tally: &Tally,
    ) -> Result<(), Failure> {
        let chosen = kinds.iter().filter(|kind| self.wanted.takes_kind(&kind.group_resource()));
        let chosen = chosen.map(|kind| (kind, selection.for_kind(kind)));
        let chosen: Vec<_> = chosen.filter(|(_, rules)| rules.may_select()).collect();
        tally.begin("listing", "kinds", Some(chosen.len()));
        for (kind, rules) in chosen {
            let keeps_status = selection.keeps_status(kind);
            let mut read = Ok(());
            let listed = cut::list(client, kind, None, |page| {
                read = self.page(kind, &rules, keeps_status, &page);
                std::future::ready(if read.is_ok() { Ok(()) } else { Err(CutError::Stopped) })
            });
            let listed = listed.await;
            read?;
            listed.map_err(SurveyError::Cut)?;
            tally.add(1);
        }
        Ok(())
    }

    fn page(
        &mut self,
        kind: &Kind,
        rules: &KindRules,
        keeps_status: bool,
        page: &[u8],
    ) -> Result<(), Failure> {
        let unreadable = |error: &dyn std::fmt::Display| {
            let message = format!("an object of {} cannot be read: {error}", kind.group_resource());
            Failure::new(Code::Failed, message)
        };
        for item in cut::items(page, kind).map_err(|error| unreadable(&retry::chain(&error)))? {
            let head = clean::head(item).map_err(|error| unreadable(&error))?;
            let key = ObjectKey::new(&kind.group, &kind.resource, &head.namespace, &head.name)
                .map_err(|error| unreadable(&error))?;
            if head.being_deleted || !self.wanted.takes(&key) {
                continue;
            }
            let Verdict::In { set, rule: _ } =
                rules.decide(&candidates::candidate(kind, &head, &self.namespaces))
            else {
                continue;
            };
            if !self.wanted.takes_labels(item) {
                self.unwanted.insert(key.clone());
            }
            let digest = self.digest(&key, kind, keeps_status, &head, item);
            let digest = digest.map_err(|error| unreadable(&error))?;
            self.contents.entries.insert(key, entry(set, kind, digest));
        }
        if self.pairs.bytes >= BYTES_AT_ONCE {
            self.pairs.compare()?;
        }
        Ok(())
    }

    /// What was not written since is not looked into; what differs waits for the other side.
    fn digest(
        &mut self,
        key: &ObjectKey,
        kind: &Kind,
        keeps_status: bool,
        head: &Head<'_>,
        item: &RawValue,
    ) -> Result<Digest, serde_json::Error> {
        let before = self.pairs.before.contents().entries.get(key);
        if let Some(before) = before
            && *before.uid == *head.uid
            && *before.resource_version == *head.resource_version
        {
            return Ok(before.digest);
        }
        let cleaned = clean::clean(item, kind, keeps_status)?;
        let digest = Digest::of(&cleaned);
        if before.is_some_and(|before| before.digest != digest) {
            let object: Box<RawValue> = serde_json::from_slice(&cleaned)?;
            self.pairs.bytes += object.get().len();
            self.pairs.waiting.insert(key.clone(), object);
        }
        Ok(digest)
    }

    /// A kind that this hub does not serve differs by all its objects.
    fn finish(self, before: &Contents) -> Result<Vec<Difference>, Failure> {
        let Self { wanted, namespaces: _, contents, unwanted, pairs } = self;
        let open = pairs.before;
        let mut paths = pairs.finish()?;
        let takes = |key: &ObjectKey| wanted.takes(key) && !unwanted.contains(key);
        let mut found = differ::contents(before, &contents, takes);
        for difference in &mut found {
            difference.paths = paths.remove(&difference.key).unwrap_or_default();
        }
        // Only a UID of an owner, or the order of fields: the same object on another hub.
        found.retain(|found| {
            found.change != Change::Changed || found.moved_from.is_some() || !found.paths.is_empty()
        });
        if wanted.selector.is_some() {
            let mut labelled = HashSet::new();
            let removed = found.iter().filter(|found| found.change == Change::Removed);
            open.read(removed.map(|found| &found.key), |key, object| {
                if wanted.takes_labels(object) {
                    labelled.insert(key.clone());
                }
            })?;
            found.retain(|found| found.change != Change::Removed || labelled.contains(&found.key));
        }
        Ok(found)
    }
}

fn entry(set: Set, kind: &Kind, digest: Digest) -> Entry {
    Entry {
        set,
        version: kind.version.as_str().into(),
        digest,
        pack: 0,
        uid: Box::default(),
        resource_version: Box::default(),
        owners: Box::default(),
    }
}
