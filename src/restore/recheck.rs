//! Whether what we restored still holds what we wrote: the content of objects, compared with the packs.
//!
//! Only objects for which nothing vouches are looked at: neither a resourceVersion that is the one of our
//! own last write or of the last comparison, nor, after a restart, the digest of what was read. Desired
//! objects are held in bounded batches, read from the packs; the hub's own are listed kind by kind
//! where there are many, and asked for one by one where there are few.
//!
//! What cannot be read counts as not looked at, and is looked at by the next full check.

use super::drift;
use super::execute::{Source, SourceError};
use super::hub::{Hub, LOOK_UPS};
use super::kinds::Kinds;
use super::known::{Known, Restored, Standing};
use super::policy::Policy;
use crate::capture::cut::{self, CutError};
use crate::object::{Kind, ObjectKey};
use crate::repository::contents::Contents;
use crate::retry;
use futures::StreamExt as _;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use tokio_util::sync::CancellationToken;

/// Of desired objects in memory at once.
const BATCH_BYTES: usize = 32 << 20;
/// More objects of a kind than these are found by a LIST of the kind.
const FEW: usize = 64;

/// An object that does not hold what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    pub key: ObjectKey,
    /// The first place that differs, without its value.
    pub path: String,
}

#[derive(Debug, Default)]
pub struct Compared {
    pub drifted: Vec<Drift>,
    /// What could not be looked at.
    pub unseen: HashSet<ObjectKey>,
}

/// What vouches for the content of an object.
#[derive(Clone, Copy)]
pub enum Vouched<'a> {
    /// Nothing.
    Not,
    /// The resourceVersion that the last look knew, where it still is the same.
    By(&'a Restored),
    /// It was read, and is the same.
    Same(&'a HashSet<ObjectKey>),
}

impl Vouched<'_> {
    fn for_object(&self, key: &ObjectKey, known: &Known) -> bool {
        match self {
            Self::Not => false,
            Self::By(before) => {
                before.get(key).is_some_and(|seen| seen.resource_version == known.resource_version)
            }
            Self::Same(same) => same.contains(key),
        }
    }
}

/// Ours and adopted objects of which it is not known that they hold what the backup says, although
/// their mark says so. `again`: what the last look left open.
pub fn unsure(
    contents: &Contents,
    live: &Restored,
    vouched: Vouched<'_>,
    again: impl Fn(&ObjectKey) -> bool,
) -> HashSet<ObjectKey> {
    let unsure = |(key, known): &(&ObjectKey, &Known)| {
        let written = contents.entries.get(*key).is_some_and(|entry| {
            known.standing != Standing::Foreign
                && known.mark.is_some_and(|mark| mark.same_content(&entry.digest))
        });
        written && (again(key) || !vouched.for_object(key, known))
    };
    live.objects.iter().filter(unsure).map(|(key, _)| key.clone()).collect()
}

/// The object of a backup in the form in which it was written here. None: it is to be written anyway.
pub type Written<'a> = dyn Fn(&ObjectKey, Box<RawValue>) -> Option<Box<RawValue>> + Sync + 'a;

/// As its mark says: inert, if that is what it was made.
pub fn as_written(policy: &Policy, known: &Known, object: Box<RawValue>) -> Option<Box<RawValue>> {
    match known.mark?.inert {
        None => Some(object),
        Some(tag) => policy.patch(tag)?.apply(&object).and_then(|inert| inert.marked()).ok(),
    }
}

/// Compares them with the hub.
pub async fn compare(
    client: &kube::Client,
    cancel: &CancellationToken,
    (contents, source, kinds): (&Contents, &Source, &Kinds),
    written: &Written<'_>,
    mut unsure: Vec<ObjectKey>,
) -> Result<Compared, SourceError> {
    let hub = Hub::new(client, LOOK_UPS, cancel);
    let mut compared = Compared::default();
    while !unsure.is_empty() && !cancel.is_cancelled() {
        let packs = by_pack(contents, unsure);
        let source = source.clone();
        let read = tokio::task::spawn_blocking(move || read(&source, packs)).await;
        let (desired, left) = read.map_err(SourceError::from)??;
        unsure = left;
        if desired.is_empty() {
            break;
        }
        let mut by_kind: BTreeMap<Kind, HashMap<ObjectKey, Box<RawValue>>> = BTreeMap::new();
        for (key, object) in desired {
            let version = contents.entries[&key].version.to_string();
            if let Some(kind) = kinds.of(&key)
                && let Some(object) = written(&key, object)
            {
                let kind = Kind { version, ..kind.clone() };
                by_kind.entry(kind).or_default().insert(key, object);
            }
        }
        for (kind, desired) in by_kind {
            if desired.len() > FEW {
                listed(client, &kind, &desired, &mut compared).await;
            } else {
                one_by_one(&hub, &kind, &desired, &mut compared).await;
            }
        }
    }
    compared.unseen.extend(unsure);
    Ok(compared)
}

type Packs = BTreeMap<u32, HashSet<ObjectKey>>;

fn by_pack(contents: &Contents, keys: Vec<ObjectKey>) -> Packs {
    let mut packs = Packs::new();
    for key in keys {
        if let Some(entry) = contents.entries.get(&key) {
            packs.entry(entry.pack).or_default().insert(key);
        }
    }
    packs
}

type Read = (Vec<(ObjectKey, Box<RawValue>)>, Vec<ObjectKey>);

/// Desired objects until the batch is full, and the keys that are left.
fn read(source: &Source, packs: Packs) -> Result<Read, SourceError> {
    let (mut desired, mut bytes) = (vec![], 0);
    let mut left = vec![];
    for (pack, mut wanted) in packs {
        if bytes < BATCH_BYTES {
            source(pack, &mut |key, object| {
                if wanted.remove(&key) {
                    bytes += object.get().len();
                    desired.push((key, object.to_owned()));
                }
                let done = wanted.is_empty() || bytes >= BATCH_BYTES;
                if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        left.extend(wanted);
    }
    Ok((desired, left))
}

async fn listed(
    client: &kube::Client,
    kind: &Kind,
    desired: &HashMap<ObjectKey, Box<RawValue>>,
    compared: &mut Compared,
) {
    let mut drifted = vec![];
    let done = cut::list(client, kind, None, |body| {
        std::future::ready(compare_page(kind, &body, desired, &mut drifted))
    });
    if let Err(error) = done.await {
        not_looked_at(kind, &error);
        compared.unseen.extend(desired.keys().cloned());
    }
    compared.drifted.append(&mut drifted);
}

fn compare_page(
    kind: &Kind,
    body: &[u8],
    desired: &HashMap<ObjectKey, Box<RawValue>>,
    drifted: &mut Vec<Drift>,
) -> Result<(), CutError> {
    for item in cut::items(body, kind)? {
        let Ok(head) = crate::capture::clean::head(item) else { continue };
        let key = ObjectKey::new(&kind.group, &kind.resource, &head.namespace, &head.name);
        if let Ok(key) = key
            && let Some(desired) = desired.get(&key)
        {
            drifted.extend(drift_of(key, desired, item));
        }
    }
    Ok(())
}

async fn one_by_one(
    hub: &Hub<'_>,
    kind: &Kind,
    desired: &HashMap<ObjectKey, Box<RawValue>>,
    compared: &mut Compared,
) {
    let looks = desired
        .iter()
        .map(async |(key, desired)| (key, desired, hub.get(key, &kind.version).await));
    let looks: Vec<_> = looks.collect();
    let mut looks = futures::stream::iter(looks).buffer_unordered(LOOK_UPS);
    while let Some((key, desired, answer)) = looks.next().await {
        match answer {
            Ok(body) => {
                if let Ok(live) = serde_json::from_slice::<&RawValue>(&body) {
                    compared.drifted.extend(drift_of(key.clone(), desired, live));
                }
            }
            // It went meanwhile: the next plan creates it again.
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                not_looked_at(kind, &error);
                compared.unseen.insert(key.clone());
            }
        }
    }
}

fn not_looked_at(kind: &Kind, error: &(dyn std::error::Error + 'static)) {
    let (kind, error) = (kind.group_resource(), retry::chain(error));
    tracing::warn!(%kind, error, "objects could not be compared with the backup");
}

/// What cannot be read as JSON is what nobody wrote.
fn drift_of(key: ObjectKey, desired: &RawValue, live: &RawValue) -> Option<Drift> {
    let path = drift::find(desired, live).unwrap_or_else(|_| Some(String::new()))?;
    Some(Drift { key, path })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{contents, key, restored};
    use super::*;

    #[test]
    fn unsure_is_what_may_have_changed_since_it_was_looked_at() {
        let name = "x.io/parts/ns/a";
        let contents = contents(&[(name, &[])]);
        let live = |standing, content| restored(&[(name, standing, content, 0)]);
        let seen = live(Standing::Ours, name);
        let mut older = seen.clone();
        for known in older.objects.values_mut() {
            known.resource_version = "4".into();
        }
        let (read, none) = (HashSet::from([key(name)]), HashSet::new());
        let (same, other) = (Vouched::Same(&read), Vouched::Same(&none));
        let (seen, older) = (Vouched::By(&seen), Vouched::By(&older));
        for (case, live, vouched, again, expected) in [
            ("a first look", live(Standing::Ours, name), Vouched::Not, false, true),
            ("as it was seen", live(Standing::Ours, name), seen, false, false),
            ("left open by the last look", live(Standing::Ours, name), seen, true, true),
            ("changed since", live(Standing::Ours, name), older, false, true),
            ("read, and the same", live(Standing::Ours, name), same, false, false),
            ("read, and not the same", live(Standing::Ours, name), other, false, true),
            ("adopted", live(Standing::Adopted, name), Vouched::Not, false, true),
            ("not ours", live(Standing::Foreign, name), Vouched::Not, true, false),
            ("to be written anyway", live(Standing::Ours, "older"), Vouched::Not, true, false),
        ] {
            let unsure = unsure(&contents, &live, vouched, |_| again);
            assert_eq!(unsure.contains(&key(name)), expected, "{case}");
        }
    }
}
