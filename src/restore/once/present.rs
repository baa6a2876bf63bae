//! Reads what stands on a hub where objects of a backup are to go: whole objects, in the form in which
//! a backup would hold them if they are not inert.
//!
//! A few objects of a kind are asked for one by one, which needs no right to list; many by listing the
//! kind.

use super::pick::Picked;
use crate::capture::clean;
use crate::capture::cut::{self, CutError};
use crate::kube_client::KubeError;
use crate::object::{Digest, GroupResource, Kind, ObjectKey};
use crate::progress::Tally;
use crate::restore::Kinds;
use crate::restore::hub::{Hub, LOOK_UPS};
use futures::StreamExt as _;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use tokio_util::sync::CancellationToken;

/// Objects of a kind from which on the kind is listed.
const LIST_FROM: usize = 50;

#[derive(Debug)]
pub struct Live {
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    /// The value of our label: whose sync keeps it.
    pub pair: Option<String>,
    pub deleting: bool,
    pub digest: Digest,
    pub cleaned: Box<RawValue>,
}

#[derive(Debug, thiserror::Error)]
pub enum PresentError {
    #[error("failed to read {key}")]
    Get { key: ObjectKey, source: KubeError },
    #[error(transparent)]
    List(#[from] CutError),
    #[error("an object of {kind} on this hub cannot be read")]
    Object { kind: GroupResource, source: serde_json::Error },
}

/// By the keys of this hub; what is not there is missing. Of a kind that the hub does not serve there
/// is nothing.
pub async fn read(
    client: &kube::Client,
    kinds: &Kinds,
    picked: &Picked,
    keeps_status: impl Fn(&Kind) -> bool,
    tally: &Tally,
) -> Result<HashMap<ObjectKey, Live>, PresentError> {
    let mut by_kind: BTreeMap<Kind, Vec<&ObjectKey>> = BTreeMap::new();
    for (key, entry) in &picked.contents.entries {
        // In the version of the backup: another one would differ in form.
        if let Some(kind) = kinds.of(key) {
            let kind = Kind { version: entry.version.to_string(), ..kind.clone() };
            by_kind.entry(kind).or_default().push(key);
        }
    }
    let mut found = HashMap::new();
    tally.begin("reading", "objects of the hub", Some(by_kind.values().map(Vec::len).sum()));
    for (kind, keys) in by_kind {
        let keeps_status = keeps_status(&kind);
        if keys.len() >= LIST_FROM {
            list(client, &kind, keeps_status, picked, &mut found).await?;
            tally.add(keys.len());
        } else {
            get(client, &kind, keeps_status, keys, &mut found, tally).await?;
        }
    }
    Ok(found)
}

async fn get(
    client: &kube::Client,
    kind: &Kind,
    keeps_status: bool,
    keys: Vec<&ObjectKey>,
    found: &mut HashMap<ObjectKey, Live>,
    tally: &Tally,
) -> Result<(), PresentError> {
    let never = CancellationToken::new();
    let hub = &Hub::new(client, LOOK_UPS, &never);
    let looks: Vec<_> = keys
        .into_iter()
        .map(|key| async move { (key, hub.get(key, &kind.version).await) })
        .collect();
    let mut looks = futures::stream::iter(looks).buffer_unordered(LOOK_UPS);
    while let Some((key, answer)) = looks.next().await {
        tally.add(1);
        let body = match answer {
            Ok(body) => body,
            Err(error) if error.is_not_found() => continue,
            Err(source) => return Err(PresentError::Get { key: key.clone(), source }),
        };
        let unreadable = |source| PresentError::Object { kind: kind.group_resource(), source };
        let object: &RawValue = serde_json::from_slice(&body).map_err(unreadable)?;
        found.insert(key.clone(), live(object, kind, keeps_status).map_err(unreadable)?);
    }
    Ok(())
}

async fn list(
    client: &kube::Client,
    kind: &Kind,
    keeps_status: bool,
    picked: &Picked,
    found: &mut HashMap<ObjectKey, Live>,
) -> Result<(), PresentError> {
    let unreadable = |source| PresentError::Object { kind: kind.group_resource(), source };
    let mut failed = Ok(());
    let mut take = |page: &[u8]| -> Result<(), PresentError> {
        for item in cut::items(page, kind)? {
            let head = clean::head(item).map_err(unreadable)?;
            let (group, resource) = (&kind.group, &kind.resource);
            let Ok(key) = ObjectKey::new(group, resource, &head.namespace, &head.name) else {
                continue;
            };
            if picked.contents.entries.contains_key(&key) {
                found.insert(key, live(item, kind, keeps_status).map_err(unreadable)?);
            }
        }
        Ok(())
    };
    let listed = cut::list(client, kind, None, |page| {
        failed = take(&page);
        std::future::ready(if failed.is_ok() { Ok(()) } else { Err(CutError::Stopped) })
    });
    let listed = listed.await;
    failed?;
    Ok(listed?)
}

fn live(object: &RawValue, kind: &Kind, keeps_status: bool) -> Result<Live, serde_json::Error> {
    let head = clean::head(object)?;
    // What is inert differs, so that it can be woken by hand.
    let cleaned = clean::as_it_stands(object, kind, keeps_status)?;
    let pair = head.labels.iter().find(|(name, _)| name == crate::restore::known::PAIR_LABEL);
    Ok(Live {
        pair: pair.map(|(_, value)| value.clone().into_owned()),
        uid: head.uid.as_ref().into(),
        resource_version: head.resource_version.as_ref().into(),
        deleting: head.being_deleted,
        digest: Digest::of(&cleaned),
        cleaned: serde_json::from_slice(&cleaned)?,
    })
}
