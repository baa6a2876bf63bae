//! Takes objects away from the hub: deletions and unlabellings of a checked plan.
//!
//! Every request carries UID and resourceVersion. When the version moved on (a controller wrote a
//! status) the object is looked at again: the same object, still with our label, is removed at the
//! new version; anything else is left. A namespace goes only after a LIST of every kind showed
//! nothing in it but what the hub itself puts there. Finalizers are never touched: what they keep is
//! told as being deleted.

use super::hub::{Hub, LOOK_UPS, Metadata, Write};
use super::kinds::Kinds;
use super::known::{ADOPTED_LABEL, DIGEST_ANNOTATION, PAIR_LABEL};
use super::policy::Policy;
use super::prune::{Delete, Unlabel};
use super::report::Done;
use super::write::describe;
use crate::object::{Kind, ObjectKey, Set};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;

/// The object may change a few times while we look; not for ever.
const MAX_ROUNDS: usize = 4;
/// More than a namespace's defaults of one kind, so that one page shows whether there is more.
const PAGE: &str = "10";

#[derive(Debug)]
pub(super) enum Removal {
    Done(Done),
    /// Deleted, as soon as finalizers, or the contents of a namespace, let it go.
    Going,
    /// Not removed, for a reason that is not an error.
    Held(String),
    Failed(String),
}

pub(super) async fn delete(
    hub: &Hub<'_>,
    kinds: &Kinds,
    policy: &Policy,
    delete: &Delete,
) -> Removal {
    let Delete { key, uid, resource_version, why: _, only_if_empty } = delete;
    if *only_if_empty && let Err(why) = is_empty(hub, kinds, key.name()).await {
        return Removal::Held(format!("{key}: {why}"));
    }
    guarded(hub, kinds, policy, key, uid, resource_version, Done::Deleted).await
}

pub(super) async fn unlabel(
    hub: &Hub<'_>,
    kinds: &Kinds,
    policy: &Policy,
    unlabel: &Unlabel,
) -> Removal {
    let Unlabel { key, uid, resource_version, why: _ } = unlabel;
    guarded(hub, kinds, policy, key, uid, resource_version, Done::Unlabelled).await
}

async fn guarded(
    hub: &Hub<'_>,
    kinds: &Kinds,
    policy: &Policy,
    key: &ObjectKey,
    uid: &str,
    version: &str,
    done: Done,
) -> Removal {
    let Some(kind) = kinds.of(key) else {
        return Removal::Held(format!("{key}: this hub does not serve the kind any more"));
    };
    let mut version: Box<str> = version.into();
    for _ in 0..MAX_ROUNDS {
        let answer = if done == Done::Deleted {
            let going = hub.delete(key, &kind.version, deletion(uid, &version)).await;
            going.map(|going| if going { Removal::Going } else { Removal::Done(done) })
        } else {
            let patch = unlabelling(uid, &version);
            let written = hub.write(Write::Merge, key, &kind.version, patch).await;
            written.map(|_| Removal::Done(done))
        };
        match answer {
            Ok(removal) => return removal,
            Err(error) if error.is_not_found() => return Removal::Done(done),
            Err(error) if error.code() == Some(409) => {}
            Err(error) => return Removal::Failed(describe(&error, key, Set::Credentials)),
        }
        match hub.metadata(key, &kind.version).await {
            Err(error) if error.is_not_found() => return Removal::Done(done),
            Err(error) => return Removal::Failed(describe(&error, key, Set::Credentials)),
            Ok(found) => match still_ours(&found, uid, policy) {
                Ok(()) => version = found.resource_version,
                Err(why) => return Removal::Held(format!("{key}: {why}")),
            },
        }
    }
    Removal::Failed("somebody else changed it at every attempt".to_owned())
}

fn deletion(uid: &str, version: &str) -> Bytes {
    let preconditions = json!({ "uid": uid, "resourceVersion": version });
    let options =
        json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions });
    Bytes::from(options.to_string())
}

fn unlabelling(uid: &str, version: &str) -> Bytes {
    let patch = json!({ "metadata": {
        "uid": uid,
        "resourceVersion": version,
        "labels": { PAIR_LABEL: null, ADOPTED_LABEL: null },
        "annotations": { DIGEST_ANNOTATION: null },
    }});
    Bytes::from(patch.to_string())
}

fn still_ours(found: &Metadata, uid: &str, policy: &Policy) -> Result<(), &'static str> {
    if *found.uid != *uid {
        return Err("another object of that name stands there now");
    }
    if found.labels.get(PAIR_LABEL) != Some(&policy.pair) {
        return Err("somebody took our label away");
    }
    Ok(())
}

async fn is_empty(hub: &Hub<'_>, kinds: &Kinds, namespace: &str) -> Result<(), String> {
    if let Some(group) = kinds.unread().first() {
        return Err(format!(
            "could not be proven empty (the hub does not tell the kinds of {group})"
        ));
    }
    let namespaced = kinds.all().iter().filter(|kind| kind.namespaced);
    let looks: Vec<_> = namespaced.map(|kind| holds_nothing(hub, kind, namespace)).collect();
    let mut looks = futures::stream::iter(looks).buffer_unordered(LOOK_UPS);
    while let Some(empty) = looks.next().await {
        empty?;
    }
    Ok(())
}

async fn holds_nothing(hub: &Hub<'_>, kind: &Kind, namespace: &str) -> Result<(), String> {
    let root = kind.list_path();
    let root = root.strip_suffix(&kind.resource).unwrap_or(&root);
    let path = format!("{root}namespaces/{namespace}/{}", kind.resource);
    let list = match hub.list(&path, &[("limit", PAGE)]).await {
        Ok(list) => list,
        // Not a kind that can be listed, so nothing is stored of it.
        Err(error) if matches!(error.code(), Some(404 | 405)) => return Ok(()),
        Err(error) => {
            return Err(format!("could not be proven empty ({}: {error})", kind.resource));
        }
    };
    match list.items.iter().find(|item| !is_default(kind, &item.metadata.name)) {
        Some(item) => Err(format!("holds {} {}", kind.resource, item.metadata.name)),
        None if list.metadata.next.is_empty() => Ok(()),
        None => Err(format!("holds many {}", kind.resource)),
    }
}

/// What every hub puts into every namespace by itself.
fn is_default(kind: &Kind, name: &str) -> bool {
    match (&*kind.group, &*kind.resource) {
        ("" | "events.k8s.io", "events") => true,
        ("", "serviceaccounts") => name == "default",
        ("", "configmaps") => matches!(name, "kube-root-ca.crt" | "openshift-service-ca.crt"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::kind;
    use super::*;

    #[test]
    fn only_what_the_hub_itself_puts_into_a_namespace_may_be_left_in_it() {
        for (group, resource, name, expected) in [
            ("", "configmaps", "kube-root-ca.crt", true),
            ("", "configmaps", "mine", false),
            ("x.io", "configmaps", "kube-root-ca.crt", false),
            ("", "serviceaccounts", "default", true),
            ("", "serviceaccounts", "builder", false),
            ("events.k8s.io", "events", "any", true),
            ("", "secrets", "default", false),
        ] {
            assert_eq!(
                is_default(&kind(group, "K", resource, true), name),
                expected,
                "{resource} {name}"
            );
        }
    }
}
