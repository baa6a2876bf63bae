//! The cut: every kind listed at one pinned revision, page by page, as raw JSON.
//!
//! What may go wrong: the revision is compacted away while we page (410): then the whole cut starts
//! again at a new revision, never with a mixed list. The `continue` token that such a 410 carries
//! leads to an *inconsistent* rest and is never followed. A kind may live in another store, where the
//! pinned number means something else: [`shares_the_store`] proves that it does not.

use super::page_size::{Outcome, PageSize};
use crate::clock;
use crate::kube_client::{self, KubeError};
use crate::object::{GroupResource, Kind};
use crate::retry::{self, Next, Policy};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Heads read at once while proving that kinds share the store.
const PROOF_WIDTH: usize = 8;

/// A request that fails for so long fails its kind.
pub const PATIENCE: Policy = Policy {
    first: Duration::from_millis(100),
    cap: Duration::from_secs(5),
    give_up_after: Some(Duration::from_mins(1)),
};

/// Attempts at a page that fails for what may be a reason of its kind, such as a conversion webhook that
/// is away or an object that cannot be decrypted: no patience of ours mends it, and all others wait.
const ATTEMPTS_AT_BROKEN: u32 = 3;

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
    let mut size = PageSize::ONE;
    let body = page(client, kind, &mut size, &[]).await?;
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
    let mut size = PageSize::default();
    let mut body = page(client, kind, &mut size, first).await?;
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
        (body, ()) = futures::try_join!(page(client, kind, &mut size, &rest), take(body))?;
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

/// One page. A server in trouble (etcd elects a leader) answers 500, too: if it comes from the kind, it
/// does so again once the reference can be read.
async fn page(
    client: &kube::Client,
    kind: &Kind,
    size: &mut PageSize,
    query: &[(&str, &str)],
) -> Result<Bytes, CutError> {
    let reference = namespaces();
    match patient_page(client, kind, size, query).await {
        Err(CutError::List { source, .. }) if source.code() == Some(500) && *kind != reference => {
            let mut one = PageSize::ONE;
            patient_page(client, &reference, &mut one, &[]).await?;
            patient_page(client, kind, size, query).await
        }
        result => result,
    }
}

/// One page. Its size follows how the server fares, within the attempts at this page and for the pages
/// after it.
async fn patient_page(
    client: &kube::Client,
    kind: &Kind,
    size: &mut PageSize,
    query: &[(&str, &str)],
) -> Result<Bytes, CutError> {
    let (path, never) = (kind.list_path(), CancellationToken::new());
    let is_reference = *kind == namespaces();
    let pace = Mutex::new(Pace { size: *size, is_reference, broken: 0 });
    let now = || pace.lock().unwrap_or_else(PoisonError::into_inner);
    let attempt = || async {
        let limit = now().size.limit().to_string();
        let query: Vec<_> = query.iter().copied().chain([("limit", &*limit)]).collect();
        let begun = clock::monotonic();
        let body = kube_client::list_page(client, &path, &query).await?;
        let took = clock::monotonic() - begun;
        let mut now = now();
        now.size = now.size.after(Outcome::Page { bytes: body.len(), took });
        Ok(body)
    };
    let judge = |error: &KubeError| now().after(error);
    let listed = retry::retry(&PATIENCE, &path, &never, judge, attempt).await;
    *size = now().size;
    listed.map_err(|source| match source.code() {
        Some(410) => {
            let pinned = query.iter().find(|(name, _)| *name == "resourceVersion");
            let revision = pinned.map_or("of its first page", |(_, revision)| revision);
            CutError::Expired { kind: kind.group_resource(), revision: revision.to_owned() }
        }
        _ => CutError::List { kind: kind.group_resource(), source },
    })
}

/// How the attempts at one page fare.
struct Pace {
    size: PageSize,
    /// What it answers is about the server and never about the kind.
    is_reference: bool,
    broken: u32,
}

impl Pace {
    fn after(&mut self, error: &KubeError) -> Next {
        let (before, next) = (self.size, error.next());
        match error {
            KubeError::TooLarge { .. } => {
                self.size = before.after(Outcome::TooLarge);
                return if self.size == before { Next::Stop } else { Next::Again };
            }
            KubeError::Transport { .. } => self.size = before.after(Outcome::Unanswered),
            KubeError::Api(_) if next != Next::Stop => self.size = before.after(Outcome::Busy),
            KubeError::Api(_) | KubeError::Unreadable { .. } => {}
        }
        self.broken += u32::from(error.code() == Some(500) && !self.is_reference);
        if self.broken >= ATTEMPTS_AT_BROKEN { Next::Stop } else { next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

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

    type Asked = Arc<Mutex<Vec<String>>>;

    /// A client whose server gives these answers in turn, and the queries that it saw.
    fn scripted(answers: Vec<Option<(u16, &'static str)>>) -> (kube::Client, Asked) {
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let mut seen = seen.lock().unwrap();
            let answer = answers.get(seen.len()).copied().flatten();
            seen.push(request.uri().query().unwrap_or_default().to_owned());
            async move {
                let (code, body) = answer.ok_or_else(|| std::io::Error::other("no answer"))?;
                let body = kube::client::Body::from(body.as_bytes().to_vec());
                let answer = http::Response::builder().status(code).body(body);
                answer.map_err(std::io::Error::other)
            }
        });
        (kube::Client::new(service, "default"), asked)
    }

    async fn check(
        answers: Vec<Option<(u16, &'static str)>>,
        revision: Option<&str>,
    ) -> (Result<usize, CutError>, Vec<String>) {
        let (client, asked) = scripted(answers);
        let pages = pages(&client, &namespaces(), revision).await;
        let asked = asked.lock().unwrap().clone();
        (pages.map(|pages| pages.len()), asked)
    }

    const FIRST: &str = r#"{"metadata":{"resourceVersion":"5","continue":"t"},"items":[]}"#;
    const LAST: &str = r#"{"metadata":{"resourceVersion":"5"},"items":[]}"#;
    const EXACT: &str = "resourceVersion=5&resourceVersionMatch=Exact&limit=500";

    #[tokio::test]
    async fn the_token_pins_what_the_first_page_began() {
        let (pages, asked) = check(vec![Some((200, FIRST)), Some((200, LAST))], Some("5")).await;
        assert_eq!(pages.unwrap(), 2);
        assert_eq!(asked, [EXACT, "continue=t&limit=500"]);
    }

    #[tokio::test]
    async fn the_continue_of_a_revision_that_is_gone_is_not_followed() {
        let gone = r#"{"kind":"Status","reason":"Expired","metadata":{"continue":"inconsistent"}}"#;
        for revision in [Some("5"), None] {
            let answers = vec![Some((200, FIRST)), Some((410, gone)), Some((200, LAST))];
            let (pages, asked) = check(answers, revision).await;
            assert!(matches!(pages, Err(CutError::Expired { .. })), "{pages:?}");
            assert_eq!(asked.len(), 2, "{asked:?}");
        }
    }

    #[tokio::test]
    async fn a_page_of_another_revision_is_refused() {
        let older = r#"{"metadata":{"resourceVersion":"4"},"items":[]}"#;
        for (answers, revision) in [
            (vec![Some((200, older))], Some("5")),
            (vec![Some((200, FIRST)), Some((200, older))], Some("5")),
            (vec![Some((200, FIRST)), Some((200, older))], None),
        ] {
            let (pages, _) = check(answers, revision).await;
            assert!(matches!(&pages, Err(CutError::OtherRevision { found, .. }) if found == "4"));
        }
    }

    #[tokio::test]
    async fn what_was_not_answered_is_asked_for_in_smaller_parts() {
        let answers = vec![
            None,
            None,
            Some((429, "")),
            Some((200, FIRST)),
            Some((200, FIRST)),
            Some((200, LAST)),
        ];
        let (pages, asked) = check(answers, Some("5")).await;
        assert_eq!(pages.unwrap(), 3);
        let limits = asked.iter().map(|query| query.rsplit_once('=').unwrap().1);
        assert_eq!(limits.collect::<Vec<_>>(), ["500", "62", "7", "3", "6", "12"]);
    }

    /// Another kind than the reference, at the revision 5. The answers that namespaces get are fine.
    async fn check_other(code: u16, body: &'static str, failures: usize) -> (bool, usize, usize) {
        let counts = Arc::new(Mutex::new((0, 0)));
        let seen = Arc::clone(&counts);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let mut seen = seen.lock().unwrap();
            let (code, body) = if request.uri().path() == "/api/v1/namespaces" {
                seen.1 += 1;
                (200, LAST)
            } else {
                seen.0 += 1;
                if seen.0 > failures { (200, LAST) } else { (code, body) }
            };
            async move {
                let body = kube::client::Body::from(body.as_bytes().to_vec());
                http::Response::builder().status(code).body(body)
            }
        });
        let client = kube::Client::new(service, "default");
        let kind = Kind { resource: "as".to_owned(), group: "x.io".to_owned(), ..namespaces() };
        let listed = pages(&client, &kind, Some("5")).await.is_ok();
        let counts = *counts.lock().unwrap();
        (listed, counts.0, counts.1)
    }

    #[tokio::test]
    async fn what_is_broken_by_itself_costs_no_patience() {
        let webhook = r#"{"message":"conversion webhook for x.io/v1 failed: refused"}"#;
        let spoiled = r#"{"message":"unable to transform key"}"#;
        for (name, code, body, failures, expected) in [
            ("a webhook", 500, webhook, 99, (false, 6, 1)),
            ("an object", 500, spoiled, 99, (false, 6, 1)),
            ("a new leader", 500, "{}", 2, (true, 3, 0)),
            ("a leader that takes its time", 500, "{}", 4, (true, 5, 1)),
            ("forbidden", 403, "{}", 99, (false, 1, 0)),
            ("not there", 404, "{}", 99, (false, 1, 0)),
        ] {
            assert_eq!(check_other(code, body, failures).await, expected, "{name}");
        }
    }
}
