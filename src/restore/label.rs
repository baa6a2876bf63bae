//! Claims carried out: the label and the mark of a restored object onto objects of this hub, and nothing
//! else of them is touched.
//!
//! Every request carries UID and resourceVersion. Where the version moved on, the object is looked at
//! again: the same one is labelled at its new version, as one to be compared.

use super::claim::Claim;
use super::hub::{Hub, Write};
use super::known::{ADOPTED_LABEL, DIGEST_ANNOTATION, Mark, PAIR_LABEL};
use super::policy::Policy;
use super::report::ItemError;
use super::write::describe;
use crate::object::{ObjectKey, Set};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The object may change a few times while we look; not for ever.
const MAX_ROUNDS: usize = 4;

/// Requests that are prepared at once.
const CHUNK: usize = 1_000;

#[derive(Debug, Default)]
pub struct Labelled {
    pub labelled: usize,
    pub failed: Vec<ItemError>,
}

/// What is gone or another object by now needs no label. Cancelled, the rest fails.
pub async fn label(
    client: &kube::Client,
    cancel: &CancellationToken,
    policy: &Policy,
    max_in_flight: usize,
    claims: &[Claim],
) -> Labelled {
    let hub = Hub::new(client, max_in_flight, cancel);
    let mut labelled = Labelled::default();
    for some in claims.chunks(CHUNK) {
        let mut requests = Vec::new();
        for claim in some {
            requests.push(one(&hub, policy, claim));
        }
        let mut requests = futures::stream::iter(requests).buffer_unordered(max_in_flight);
        while let Some(done) = requests.next().await {
            match done {
                Ok(()) => labelled.labelled += 1,
                Err(error) => labelled.failed.push(error),
            }
        }
    }
    labelled
}

async fn one(hub: &Hub<'_>, policy: &Policy, claim: &Claim) -> Result<(), ItemError> {
    let Claim { key, version, uid, resource_version, mark, changed: _ } = claim;
    let failed = |reason: String| ItemError { key: key.clone(), reason };
    let (mut at, mut mark) = (resource_version.clone(), *mark);
    for _ in 0..MAX_ROUNDS {
        let patch = labelling(uid, &at, &policy.pair, mark);
        match hub.write(Write::Merge, key, version, patch).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.code() == Some(409) => {}
            Err(error) => return Err(failed(told(&error, key))),
        }
        match hub.metadata(key, version).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(failed(told(&error, key))),
            Ok(found) if found.uid != *uid || found.deletion_timestamp.is_some() => return Ok(()),
            Ok(found) => (at, mark) = (found.resource_version, mark.unfinished()),
        }
    }
    Err(failed("somebody else changed it at every attempt".to_owned()))
}

fn told(error: &crate::kube_client::KubeError, key: &ObjectKey) -> String {
    describe(error, key, Set::Credentials)
}

fn labelling(uid: &str, version: &str, pair: &str, mark: Mark) -> Bytes {
    let patch = json!({ "metadata": {
        "uid": uid,
        "resourceVersion": version,
        "labels": { PAIR_LABEL: pair, ADOPTED_LABEL: null },
        "annotations": { DIGEST_ANNOTATION: mark.to_string() },
    }});
    Bytes::from(patch.to_string())
}
