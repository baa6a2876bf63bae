//! What the rules look at beside the object itself: the labels of its namespace, and whether it stands
//! for the hub. A backup, its dry run and `explain` ask here, so that they cannot disagree.

use super::clean::{self, Head};
use super::cut::{self, CutError};
use super::select::{Candidate, Selection};
use crate::object::Kind;
use std::collections::{BTreeSet, HashMap};

/// Labels by namespace.
pub type NamespaceLabels = HashMap<String, Vec<(String, String)>>;

/// Nothing that is being deleted is seen: it counts as deleted.
pub const BEING_DELETED: &str = "built-in: what is being deleted counts as deleted";

/// The object as the rules see it.
pub fn candidate<'a>(
    kind: &'a Kind,
    head: &'a Head<'a>,
    namespaces: &'a NamespaceLabels,
) -> Candidate<'a> {
    Candidate {
        kind,
        namespace: &head.namespace,
        name: &head.name,
        labels: &head.labels,
        annotations: &head.annotations,
        namespace_labels: namespaces.get(&*head.namespace).map_or(&[], Vec::as_slice),
        secret_type: head.r#type.as_deref(),
        controller_kind: head.controller_kind.as_deref(),
    }
}

/// The objects that stand for this hub among those it manages belong to it alone, with their
/// namespaces: which those are, only the hub can tell.
pub async fn without_the_hub_itself(
    client: &kube::Client,
    selection: &Selection,
    kinds: &[Kind],
) -> Result<Selection, CutError> {
    let mut names = BTreeSet::new();
    for kind in kinds.iter().filter(|kind| selection.may_be_hub_itself(kind)) {
        names.extend(hub_itself_among(client, selection, kind).await?);
    }
    Ok(selection.clone().with_hub_itself(names))
}

/// The names of those of one kind.
pub async fn hub_itself_among(
    client: &kube::Client,
    selection: &Selection,
    kind: &Kind,
) -> Result<BTreeSet<String>, CutError> {
    let (rules, namespaces) = (selection.for_kind(kind), NamespaceLabels::new());
    let mut names = BTreeSet::new();
    for page in cut::pages(client, kind, None).await? {
        for item in cut::items(&page, kind)? {
            let Ok(head) = clean::head(item) else { continue };
            if rules.is_hub_itself(&candidate(kind, &head, &namespaces)) {
                names.insert(head.name.into_owned());
            }
        }
    }
    Ok(names)
}

/// Of all namespaces, as they were at the revision.
pub async fn namespace_labels(
    client: &kube::Client,
    revision: &str,
) -> Result<NamespaceLabels, CutError> {
    let kind = cut::namespaces();
    let mut namespaces = NamespaceLabels::new();
    for page in cut::pages(client, &kind, Some(revision)).await? {
        for item in cut::items(&page, &kind)? {
            let head = clean::head(item)
                .map_err(|source| CutError::Object { kind: kind.group_resource(), source })?;
            let (name, labels) = labels_of(head);
            namespaces.insert(name, labels);
        }
    }
    Ok(namespaces)
}

/// The name of a namespace, and its labels.
pub fn labels_of(namespace: Head<'_>) -> (String, Vec<(String, String)>) {
    let labels = namespace.labels.into_iter();
    let labels = labels.map(|(key, value)| (key.into_owned(), value.into_owned()));
    (namespace.name.into_owned(), labels.collect())
}
