//! The cut: every kind listed at one pinned revision, page by page, as raw JSON.
//!
//! What may go wrong: the revision is compacted away while we page (410): then the whole cut starts
//! again at a new revision, never with a mixed list. The `continue` token that such a 410 carries
//! leads to an *inconsistent* rest and is never followed. A kind may live in another store, where the
//! pinned number means something else: [`shares_the_store`] proves that it does not.

use crate::kube_client::{self, KubeError};
use crate::object::{GroupResource, Kind};
use crate::retry::{self, Policy};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Objects a page. Larger pages cost the API server memory, smaller ones requests.
const PAGE: u32 = 500;

/// By so much a page shrinks when its bytes are more than the client takes.
const SHRINK: u32 = 8;

/// Heads read at once while proving that kinds share the store.
const PROOF_WIDTH: usize = 8;

/// A request that fails for so long fails its kind.
const PATIENCE: Policy = Policy {
    first: Duration::from_millis(100),
    cap: Duration::from_secs(5),
    give_up_after: Some(Duration::from_mins(1)),
};

#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error("the revision {revision} is no longer available for {kind}")]
    Expired { kind: GroupResource, revision: String },
    #[error("failed to list {kind}")]
    List { kind: GroupResource, source: KubeError },
    #[error("the list of {kind} is not a list")]
    NotAList { kind: GroupResource, source: serde_json::Error },
    #[error("an object of {kind} cannot be read")]
    Object { kind: GroupResource, source: serde_json::Error },
    #[error("a page of {kind} is at revision {found}, not at {expected}")]
    OtherRevision { kind: GroupResource, found: String, expected: String },
    #[error("whoever takes the pages has stopped")]
    Stopped,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta<'a> {
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default)]
    r#continue: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ListHead<'a> {
    #[serde(borrow)]
    metadata: ListMeta<'a>,
}

/// The newest revision of the main store.
pub async fn newest_revision(client: &kube::Client) -> Result<String, CutError> {
    head(client, &namespaces()).await
}

/// What the proof and the revision are taken from: every hub has namespaces, in its main store.
pub fn namespaces() -> Kind {
    Kind {
        group: String::new(),
        version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        resource: "namespaces".to_owned(),
        namespaced: false,
        categories: Vec::new(),
    }
}

/// The revision of a consistent read of one object of the kind.
async fn head(client: &kube::Client, kind: &Kind) -> Result<String, CutError> {
    let body = page(client, kind, &mut 1, &[]).await?;
    Ok(list_head(&body, kind)?.0)
}

/// Which of the kinds share the store of the reference (`true`): a head read between two heads of the
/// reference lies between them. A kind whose head cannot be read is not in the answer: nothing is
/// proven of it.
///
/// A probabilistic proof (another store may happen to be in step), so it is repeated for new kinds
/// and at every start.
pub async fn prove(client: &kube::Client, kinds: &[Kind]) -> Result<Vec<(Kind, bool)>, CutError> {
    let before = number(&newest_revision(client).await?);
    let heads: Vec<_> =
        kinds.iter().map(|kind| async move { (kind, head(client, kind).await) }).collect();
    let heads: Vec<_> = stream::iter(heads).buffered(PROOF_WIDTH).collect().await;
    let after = number(&newest_revision(client).await?);
    let proven = |(kind, head): (&Kind, Result<String, CutError>)| {
        Some((kind.clone(), shares_the_store(before, number(&head.ok()?), after)))
    };
    Ok(heads.into_iter().filter_map(proven).collect())
}

/// `None`: not a number, so not comparable.
fn number(revision: &str) -> Option<u64> {
    revision.parse().ok()
}

fn shares_the_store(before: Option<u64>, head: Option<u64>, after: Option<u64>) -> bool {
    matches!((before, head, after), (Some(before), Some(head), Some(after)) if before <= head && head <= after)
}

/// Lists one kind, at `revision` if one is given, else at whatever is newest; hands on each page.
/// While a page is taken, the next one is on its way.
pub async fn list<F: Future<Output = Result<(), CutError>>>(
    client: &kube::Client,
    kind: &Kind,
    revision: Option<&str>,
    mut take: impl FnMut(Bytes) -> F,
) -> Result<(), CutError> {
    let mut pinned = revision.map(str::to_owned);
    let exact =
        [("resourceVersion", revision.unwrap_or_default()), ("resourceVersionMatch", "Exact")];
    let first = if revision.is_some() { &exact[..] } else { &[] };
    let mut limit = PAGE;
    let mut body = page(client, kind, &mut limit, first).await?;
    loop {
        let (found, token) = list_head(&body, kind)?;
        let expected = pinned.get_or_insert_with(|| found.clone());
        if found != *expected {
            let (kind, expected) = (kind.group_resource(), expected.clone());
            return Err(CutError::OtherRevision { kind, found, expected });
        }
        if token.is_empty() {
            return take(body).await;
        }
        let rest = [("continue", &*token)];
        (body, ()) = futures::try_join!(page(client, kind, &mut limit, &rest), take(body))?;
    }
}

/// All pages of a kind that is known to be small, such as namespaces.
pub async fn pages(
    client: &kube::Client,
    kind: &Kind,
    revision: Option<&str>,
) -> Result<Vec<Bytes>, CutError> {
    let mut pages = vec![];
    list(client, kind, revision, |body| {
        pages.push(body);
        std::future::ready(Ok(()))
    })
    .await?;
    Ok(pages)
}

/// The items of a page, borrowed from it.
pub fn items<'a>(body: &'a [u8], kind: &Kind) -> Result<Vec<&'a RawValue>, CutError> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    serde_json::from_slice::<List<'a>>(body)
        .map(|list| list.items.unwrap_or_default())
        .map_err(|source| CutError::NotAList { kind: kind.group_resource(), source })
}

/// Revision and `continue` token of a page.
fn list_head(body: &[u8], kind: &Kind) -> Result<(String, String), CutError> {
    serde_json::from_slice::<ListHead<'_>>(body)
        .map(|head| {
            (head.metadata.resource_version.into_owned(), head.metadata.r#continue.into_owned())
        })
        .map_err(|source| CutError::NotAList { kind: kind.group_resource(), source })
}

/// One page of at most `limit` objects, which shrinks, for the pages after it too, when the objects
/// are so large that the page is not taken.
async fn page(
    client: &kube::Client,
    kind: &Kind,
    limit: &mut u32,
    query: &[(&str, &str)],
) -> Result<Bytes, CutError> {
    let path = kind.list_path();
    loop {
        let text = limit.to_string();
        let query: Vec<_> = query.iter().copied().chain([("limit", &*text)]).collect();
        let attempt = || kube_client::list_page(client, &path, &query);
        let never = CancellationToken::new();
        let listed = retry::retry(&PATIENCE, &path, &never, KubeError::next, attempt).await;
        match listed {
            Ok(body) => return Ok(body),
            Err(KubeError::TooLarge { .. }) if *limit > 1 => *limit = (*limit / SHRINK).max(1),
            Err(source) if source.code() == Some(410) => {
                let pinned = query.iter().find(|(name, _)| *name == "resourceVersion");
                let revision = pinned.map_or("of its first page", |(_, revision)| revision);
                let kind = kind.group_resource();
                return Err(CutError::Expired { kind, revision: revision.to_owned() });
            }
            Err(source) => return Err(CutError::List { kind: kind.group_resource(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_shares_the_store_only_when_its_head_lies_between_two_heads() {
        for (before, head, after, expected) in [
            (Some(10), Some(10), Some(10), true),
            (Some(10), Some(11), Some(12), true),
            (Some(10), Some(9), Some(12), false),
            (Some(10), Some(13), Some(12), false),
            (Some(10), None, Some(12), false),
            (None, Some(10), Some(12), false),
        ] {
            assert_eq!(
                shares_the_store(before, head, after),
                expected,
                "{before:?} {head:?} {after:?}"
            );
        }
    }

    #[test]
    fn a_page_is_split_into_its_raw_items() {
        let page = br#"{"kind":"L","metadata":{"resourceVersion":"5","continue":"t"},"items":[{"a":1.0},{"b":2}]}"#;
        assert_eq!(list_head(page, &namespaces()).unwrap(), ("5".to_owned(), "t".to_owned()));
        let items: Vec<_> = super::items(page, &namespaces())
            .unwrap()
            .into_iter()
            .map(|i| i.get().to_owned())
            .collect();
        assert_eq!(items, [r#"{"a":1.0}"#, r#"{"b":2}"#]);
        assert!(super::items(br#"{"items":1}"#, &namespaces()).is_err());
    }
}
