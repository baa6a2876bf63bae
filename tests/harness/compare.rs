//! Two hubs, object by object.
//!
//! What every API server sets for itself is left out, and what Understudy marks. An owner
//! reference is equal when it points to the live object of the same kind and name on its own hub.
//! A difference names the object and the field, never a value: some of them are Secrets.

use super::Result;
use super::bare::Api;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use understudy::object::{Kind, ObjectKey};

/// On every object that a restore wrote.
pub const PAIR_LABEL: &str = "understudy.dev/pair";
const OWN_PREFIX: &str = "understudy.dev/";
/// A promoted hub orders imports by it.
const IMPORT: &str = "import.open-cluster-management.io/immediate-import";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// On the first hub only.
    Missing(ObjectKey),
    /// On the second hub although it should not be there.
    Extra(ObjectKey),
    /// JSON pointer to the first field that differs.
    Changed(ObjectKey, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "{key} is missing"),
            Self::Extra(key) => write!(f, "{key} should not be there"),
            Self::Changed(key, field) => write!(f, "{key} differs in {field}"),
        }
    }
}

/// All objects of `kinds` on a hub.
pub async fn snapshot(api: &Api, kinds: &[Kind]) -> Result<BTreeMap<ObjectKey, Value>> {
    let mut objects = BTreeMap::new();
    for kind in kinds {
        for object in api.list(kind).await? {
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
            let (namespace, name) = (text("namespace"), text("name"));
            let key = ObjectKey::new(&kind.group, &kind.resource, namespace, name)?;
            objects.insert(key, object);
        }
    }
    let resources = kinds.iter().map(|kind| ((kind.group.as_str(), kind.kind.as_str()), kind));
    let resources: BTreeMap<_, _> = resources.collect();
    let uids: BTreeMap<ObjectKey, String> = objects
        .iter()
        .map(|(key, object)| {
            (key.clone(), object["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    for (key, object) in &mut objects {
        resolve_owners(key, object, &resources, &uids);
        normalise(object);
    }
    Ok(objects)
}

/// Where an object should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Both,
    FirstOnly,
    /// Not told: it may be anywhere, but a restore must not have brought it.
    Anywhere,
}

/// What is different on `second`.
pub fn compare(
    first: &BTreeMap<ObjectKey, Value>,
    second: &BTreeMap<ObjectKey, Value>,
    place: impl Fn(&ObjectKey) -> Place,
) -> Vec<Difference> {
    let keys: BTreeSet<&ObjectKey> = first.keys().chain(second.keys()).collect();
    keys.into_iter()
        .filter_map(|key| match (place(key), first.get(key), second.get(key)) {
            (Place::Both, Some(first), Some(second)) => {
                let (mut first, mut second) = (first.clone(), second.clone());
                strip_own(&mut first);
                strip_own(&mut second);
                first_difference(&first, &second, String::new())
                    .map(|field| Difference::Changed(key.clone(), field))
            }
            (Place::Both, _, None) => Some(Difference::Missing(key.clone())),
            (Place::Both, None, Some(_)) | (Place::FirstOnly, _, Some(_)) => {
                Some(Difference::Extra(key.clone()))
            }
            (Place::Anywhere, None, Some(object)) if is_restored(object) => {
                Some(Difference::Extra(key.clone()))
            }
            (Place::FirstOnly | Place::Anywhere, _, _) => None,
        })
        .collect()
}

/// Whether a restore has written it.
pub fn is_restored(object: &Value) -> bool {
    object["metadata"]["labels"][PAIR_LABEL].is_string()
}

fn resolve_owners(
    key: &ObjectKey,
    object: &mut Value,
    kinds: &BTreeMap<(&str, &str), &Kind>,
    uids: &BTreeMap<ObjectKey, String>,
) {
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    let Some(owners) = owners else { return };
    for owner in owners {
        let text = |name: &str| owner[name].as_str().unwrap_or_default();
        let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
        let verdict = match kinds.get(&(group, text("kind"))) {
            None => "of a kind that was not listed",
            Some(kind) => {
                let namespace = if kind.namespaced { key.namespace() } else { "" };
                let owner_key = ObjectKey::new(group, &kind.resource, namespace, text("name")).ok();
                let live = owner_key.and_then(|key| uids.get(&key));
                if live.is_some_and(|uid| uid == text("uid")) { "live" } else { "dead" }
            }
        };
        owner["uid"] = verdict.into();
    }
}

fn normalise(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
            "selfLink",
        ] {
            metadata.remove(field);
        }
    }
}

/// Drops our labels and annotations, and a map that is empty without them.
fn strip_own(object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for field in ["labels", "annotations"] {
        if let Some(Value::Object(map)) = metadata.get_mut(field) {
            map.retain(|name, _| !name.starts_with(OWN_PREFIX) && name != IMPORT);
            if map.is_empty() {
                metadata.remove(field);
            }
        }
    }
}

fn first_difference(first: &Value, second: &Value, at: String) -> Option<String> {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
            names.into_iter().find_map(|name| {
                let at = format!("{at}/{name}");
                match (first.get(name), second.get(name)) {
                    (Some(first), Some(second)) => first_difference(first, second, at),
                    _ => Some(at),
                }
            })
        }
        (Value::Array(first), Value::Array(second)) if first.len() == second.len() => {
            let pairs = first.iter().zip(second).enumerate();
            pairs.into_iter().find_map(|(index, (first, second))| {
                first_difference(first, second, format!("{at}/{index}"))
            })
        }
        _ => (first != second).then_some(at),
    }
}
