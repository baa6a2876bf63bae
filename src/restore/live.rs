//! Reads back from the hub what stands there: what Understudy restored, by its own labels, and
//! which other objects stand where the backup has one.
//!
//! What is ours is selected by label; a kind is listed as a whole only when the backup holds objects
//! of it that are not ours here, which on a settled standby is rare. Metadata is enough where it is
//! known which resourceVersion an object had when it was looked at last; where it is not, the objects
//! are listed as they stand and compared by digest on their way. A kind that cannot be read is named
//! and missing from the result: its objects are then found one by one when their creation meets them,
//! and none of them is deleted.

use super::conflict::Conflict;
use super::hub::{Hub, LOOK_UPS, Metadata, Object, WholeList};
use super::kinds::Kinds;
use super::known::{ADOPTED_LABEL, DIGEST_ANNOTATION, Known, Mark, PAIR_LABEL, Restored, Standing};
use super::policy::Policy;
use super::same;
use crate::capture::page_size::{Outcome, PageSize};
use crate::clock;
use crate::kube_client::KubeError;
use crate::object::{GroupResource, Kind, ObjectKey};
use crate::repository::contents::Contents;
use futures::StreamExt as _;
use std::collections::{HashMap, HashSet};
use tokio_util::sync::CancellationToken;

/// A LIST whose pages expire is begun anew.
const ATTEMPTS: usize = 3;
/// How often the pages of a kind become smaller, after all attempts of [`Hub`] have failed.
const SMALLER: usize = 3;
/// Lists of whole objects at once: their pages are heavy.
const HEAVY_LISTS: usize = 4;

/// How much of what is ours is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Metadata,
    Content,
}

#[derive(Debug, Default)]
pub struct Live {
    pub restored: Restored,
    /// Read with their content, and found to be what their mark says; the others may be.
    pub same: HashSet<ObjectKey>,
    /// Ours and being deleted: finalizers keep them.
    pub going: Vec<ObjectKey>,
    /// Kinds that could not be read, and why.
    pub unread: Vec<(GroupResource, String)>,
}

/// `kinds`: all that may hold objects of ours, which is every kind that this hub can list.
pub async fn read(
    client: &kube::Client,
    cancel: &CancellationToken,
    policy: &Policy,
    kinds: &Kinds,
    contents: &Contents,
    depth: Depth,
) -> Live {
    let hub = Hub::new(client, LOOK_UPS, cancel);
    let mut live = Live::default();
    let (compared, width) = match depth {
        Depth::Metadata => (None, LOOK_UPS),
        Depth::Content => (Some(contents), HEAVY_LISTS),
    };

    let mut ours = Vec::new();
    for kind in kinds.all() {
        let find = Find::Marked(Standing::Ours);
        ours.push(list(&hub, kind, Some(selector(PAIR_LABEL, policy)), find, compared));
        if policy.adopts_kind(kind) {
            let find = Find::Marked(Standing::Adopted);
            ours.push(list(&hub, kind, Some(selector(ADOPTED_LABEL, policy)), find, compared));
        }
    }
    gather(&mut live, ours, width).await;

    let mut wanted: HashMap<&Kind, HashSet<&ObjectKey>> = HashMap::new();
    for key in contents.entries.keys() {
        let unknown = live.restored.get(key).is_none();
        // What a rule adopts or refuses is left for the write, which looks at it anyway.
        if unknown
            && policy.refuses(key).is_none()
            && let Some(kind) = kinds.of(key)
            && policy.conflict(key, &kind.kind) == Conflict::Keep
        {
            wanted.entry(kind).or_default().insert(key);
        }
    }
    let mut others = Vec::new();
    for (kind, wanted) in wanted {
        let find = Find::Foreign { wanted, pair: &policy.pair };
        others.push(list(&hub, kind, None, find, None));
    }
    gather(&mut live, others, LOOK_UPS).await;
    live
}

/// Which objects of a list count.
enum Find<'a> {
    Marked(Standing),
    /// Those that stand where the backup has an object. With our label they are ours after all
    /// (made since the first list, or of a kind that could not be listed) and the write finds out.
    Foreign {
        wanted: HashSet<&'a ObjectKey>,
        pair: &'a str,
    },
}

#[derive(Default)]
struct Found {
    known: Vec<(ObjectKey, Known)>,
    going: Vec<ObjectKey>,
    same: Vec<ObjectKey>,
}

type Listed = Result<Found, (GroupResource, KubeError)>;

async fn gather(live: &mut Live, lists: Vec<impl Future<Output = Listed>>, width: usize) {
    let mut lists = futures::stream::iter(lists).buffer_unordered(width);
    while let Some(found) = lists.next().await {
        match found {
            Ok(Found { known, going, same }) => {
                live.restored.objects.extend(known);
                live.going.extend(going);
                live.same.extend(same);
            }
            Err((kind, error)) => live.unread.push((kind, error.to_string())),
        }
    }
}

fn selector(label: &str, policy: &Policy) -> String {
    format!("{label}={}", policy.pair)
}

/// `compared`: the whole objects are asked for, and compared with these.
async fn list(
    hub: &Hub<'_>,
    kind: &Kind,
    selector: Option<String>,
    find: Find<'_>,
    compared: Option<&Contents>,
) -> Listed {
    let (mut found, mut next, mut attempt) = (Found::default(), String::new(), 1);
    let (mut size, mut shrunk) = (PageSize::default(), 0);
    loop {
        let limit = size.limit().to_string();
        let mut query = vec![("limit", &*limit)];
        query.extend(selector.as_deref().map(|selector| ("labelSelector", selector)));
        query.extend((!next.is_empty()).then_some(("continue", &*next)));
        let page = match compared {
            None => metadata_page(hub, kind, &query, &find, &mut found).await,
            Some(contents) => {
                whole_page(hub, kind, &query, &find, contents, &mut size, &mut found).await
            }
        };
        match page {
            Ok(token) if token.is_empty() => return Ok(found),
            Ok(token) => next = token,
            Err(error) if matches!(error.code(), Some(404 | 405)) => return Ok(Found::default()),
            // The answer offers to go on with another revision; that would be no list of anything.
            Err(error) if error.code() == Some(410) && attempt < ATTEMPTS => {
                (found, next, attempt) = (Found::default(), String::new(), attempt + 1);
            }
            Err(error) => match smaller(size, &error).filter(|_| shrunk < SMALLER) {
                Some(smaller) => (size, shrunk) = (smaller, shrunk + 1),
                None => return Err((kind.group_resource(), error)),
            },
        }
    }
}

/// The token of the next one.
async fn metadata_page(
    hub: &Hub<'_>,
    kind: &Kind,
    query: &[(&str, &str)],
    find: &Find<'_>,
    found: &mut Found,
) -> Result<String, KubeError> {
    let list = hub.list(&kind.list_path(), query).await?;
    for Object { metadata } in list.items {
        found.take(kind, find, metadata);
    }
    Ok(list.metadata.next)
}

async fn whole_page(
    hub: &Hub<'_>,
    kind: &Kind,
    query: &[(&str, &str)],
    find: &Find<'_>,
    contents: &Contents,
    size: &mut PageSize,
    found: &mut Found,
) -> Result<String, KubeError> {
    let path = kind.list_path();
    let begun = clock::monotonic();
    let body = hub.list_whole(&path, query).await?;
    let page = Outcome::Page { bytes: body.len(), took: clock::monotonic() - begun };
    // A page that grows again may be too large again.
    let fitting = size.after(page);
    if fitting.limit() < size.limit() {
        *size = fitting;
    }
    let list = WholeList::of(&body, &path)?;
    for item in list.items {
        // What has no metadata is not ours.
        let Ok(Object { metadata }) = serde_json::from_str(item.get()) else { continue };
        if let Some((key, known)) = found.take(kind, find, metadata)
            && let Some(mark) = known.mark
            && contents.entries.get(key).is_some_and(|entry| same::holds(item, kind, mark, entry))
        {
            let key = key.clone();
            found.same.push(key);
        }
    }
    Ok(list.metadata.next)
}

impl Found {
    /// What it is, if it counts.
    fn take(
        &mut self,
        kind: &Kind,
        find: &Find<'_>,
        metadata: Metadata,
    ) -> Option<&(ObjectKey, Known)> {
        self.going.extend(going(kind, find, &metadata));
        self.known.push(known(kind, find, metadata)?);
        self.known.last()
    }
}

/// The pages that a server may answer which does not answer these; they do not grow again.
fn smaller(size: PageSize, error: &KubeError) -> Option<PageSize> {
    let outcome = match error {
        KubeError::TooLarge { .. } => Outcome::TooLarge,
        KubeError::Transport { .. } => Outcome::Unanswered,
        KubeError::Api(_) if matches!(error.code(), Some(429 | 504)) => Outcome::Busy,
        KubeError::Api(_) | KubeError::Unreadable { .. } => return None,
    };
    let smaller = size.after(outcome);
    (smaller != size).then_some(smaller)
}

fn going(kind: &Kind, find: &Find<'_>, metadata: &Metadata) -> Option<ObjectKey> {
    let ours = matches!(find, Find::Marked(Standing::Ours));
    let going = ours && metadata.deletion_timestamp.is_some();
    let key = || ObjectKey::new(&kind.group, &kind.resource, &metadata.namespace, &metadata.name);
    going.then(key)?.ok()
}

fn known(kind: &Kind, find: &Find<'_>, metadata: Metadata) -> Option<(ObjectKey, Known)> {
    let Metadata {
        namespace,
        name,
        uid,
        resource_version,
        labels,
        annotations,
        deletion_timestamp,
    } = metadata;
    // What is being deleted counts as deleted; a write meets it and waits.
    if deletion_timestamp.is_some() {
        return None;
    }
    let key = ObjectKey::new(&kind.group, &kind.resource, &namespace, &name).ok()?;
    let (standing, mark) = match find {
        Find::Marked(standing) => {
            let mark = annotations.get(DIGEST_ANNOTATION).and_then(|text| Mark::parse(text));
            (*standing, mark)
        }
        Find::Foreign { wanted, pair } => {
            let ours = labels.get(PAIR_LABEL).is_some_and(|label| label == pair);
            if ours || !wanted.contains(&key) {
                return None;
            }
            (Standing::Foreign, None)
        }
    };
    Some((key, Known { standing, mark, uid, resource_version }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key, kind};
    use super::*;

    #[test]
    fn what_was_written_is_read_back_from_its_metadata() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"name":"a","namespace":"ns","uid":"u","resourceVersion":"9","annotations":{"understudy.dev/digest":"0123456789abcdef-s1"}}"#,
        )
        .unwrap();
        let ours = Find::Marked(Standing::Ours);
        let (found, known) = known(&kind("x.io", "Part", "parts", true), &ours, metadata).unwrap();
        assert_eq!(found, key("x.io/parts/ns/a"));
        assert_eq!((&*known.uid, &*known.resource_version), ("u", "9"));
        assert_eq!(known.mark.map(|mark| mark.stripped), Some(1));
    }

    #[test]
    fn ours_that_is_being_deleted_counts_as_deleted_and_is_told() {
        let parts = kind("x.io", "Part", "parts", true);
        let read = |deletion: &str, standing| {
            let metadata =
                format!(r#"{{"name":"a","namespace":"ns","deletionTimestamp":{deletion}}}"#);
            let metadata: Metadata = serde_json::from_str(&metadata).unwrap();
            let find = Find::Marked(standing);
            (going(&parts, &find, &metadata).is_some(), known(&parts, &find, metadata).is_some())
        };
        assert_eq!(read("\"2026-11-20T17:30:00Z\"", Standing::Ours), (true, false));
        assert_eq!(read("\"2026-11-20T17:30:00Z\"", Standing::Adopted), (false, false));
        assert_eq!(read("null", Standing::Ours), (false, true));
    }

    #[test]
    fn foreign_is_what_stands_in_the_way_without_our_label() {
        let wanted = key("x.io/parts/ns/a");
        for (name, labels, found) in [
            ("a", "{}", true),
            ("a", "null", true),
            ("a", r#"{"understudy.dev/pair":"us"}"#, true),
            ("a", r#"{"understudy.dev/pair":"eu"}"#, false),
            ("b", "{}", false),
        ] {
            let metadata = format!(r#"{{"name":"{name}","namespace":"ns","labels":{labels}}}"#);
            let metadata: Metadata = serde_json::from_str(&metadata).unwrap();
            let find = Find::Foreign { wanted: HashSet::from([&wanted]), pair: "eu" };
            let known = known(&kind("x.io", "Part", "parts", true), &find, metadata);
            assert_eq!(
                known.is_some_and(|(_, k)| k.standing == Standing::Foreign),
                found,
                "{name} {labels}"
            );
        }
    }

    #[test]
    fn pages_become_smaller_where_that_may_help() {
        let page = PageSize::default();
        let (verb, path) = ("list", String::new());
        let too_large = KubeError::TooLarge { verb, path: path.clone(), limit: 1 };
        let lost = || KubeError::Transport { verb, path: path.clone(), source: "lost".into() };
        let limit = |size, error: &KubeError| smaller(size, error).map(PageSize::limit);
        assert_eq!(limit(page, &too_large), Some(62));
        assert_eq!(limit(page, &lost()), Some(62));
        assert_eq!(limit(PageSize::ONE, &lost()), None);
        let source = serde_json::from_str::<u8>("x").unwrap_err();
        assert_eq!(limit(page, &KubeError::Unreadable { verb, path, source }), None);
    }
}
