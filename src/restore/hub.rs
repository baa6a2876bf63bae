//! The API server of this hub as a restore talks to it: few verbs, answers read as far as
//! `metadata`, retried while the server is busy, and counted.
//!
//! The governor hears of every single answer, retried or not. A lost answer is no special case: the
//! same request is sent again, and what the first one did shows up as 409 or 404, which every caller
//! handles anyway. A webhook that is away is none of the server's complaints and is not waited for:
//! one dead webhook must not slow down the objects that it has nothing to do with.

use super::execute::How;
use super::governor::Governor;
use super::overlay::MANAGER;
use crate::kube_client::{self, KubeError, layer};
use crate::object::ObjectKey;
use crate::retry::{self, Class, Next};
use bytes::Bytes;
use http::{Method, Request, Uri};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What fails longer is tried again in a later pass.
const PATIENCE: retry::Policy = retry::Policy {
    first: Duration::from_millis(200),
    cap: Duration::from_secs(5),
    give_up_after: Some(Duration::from_secs(10)),
};
/// Attempts in a row without any answer: the server is away, so nothing is tried twice.
const SILENT: usize = 16;
/// LISTs and GETs at once, where a restore has many of them to ask.
pub(super) const LOOK_UPS: usize = 8;

const JSON: &str = "application/json";
/// Spares the server the work of encoding, and us of reading, the object that we just sent.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
/// The server does everything but write.
const DRY_RUN: &str = "dryRun=All";

pub(super) struct Hub<'a> {
    client: &'a kube::Client,
    cancel: &'a CancellationToken,
    how: How,
    /// Nothing that is sent changes anything.
    dry_run: bool,
    governor: Mutex<Governor>,
    mutations: AtomicU64,
    /// Attempts since the server last said anything.
    silent: AtomicUsize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: Box<str>,
    #[serde(default)]
    pub(super) resource_version: Box<str>,
    pub(super) deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "null_is_empty", default)]
    pub(super) labels: HashMap<String, String>,
    #[serde(deserialize_with = "null_is_empty", default)]
    pub(super) annotations: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMetadata,
    /// The server writes an empty list as `null`.
    #[serde(deserialize_with = "null_is_empty", default)]
    pub(super) items: Vec<Object>,
}

/// With the objects as they were written down.
#[derive(Debug, Deserialize)]
pub(super) struct WholeList<'a> {
    pub(super) metadata: ListMetadata,
    #[serde(borrow, deserialize_with = "null_is_empty", default)]
    pub(super) items: Vec<&'a RawValue>,
}

impl<'a> WholeList<'a> {
    pub(super) fn of(body: &'a [u8], path: &str) -> Result<Self, KubeError> {
        serde_json::from_slice(body).map_err(|source| KubeError::Unreadable {
            verb: "list",
            path: path.to_owned(),
            source,
        })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ListMetadata {
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// How an object is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Write {
    Create,
    /// The body holds the resourceVersion that it replaces.
    Replace,
    /// The body is a JSON merge patch.
    Merge,
    /// The body is a JSON Patch that tests what it relies on.
    Patch,
    /// The same, to the status of the object.
    PatchStatus,
}

impl<'a> Hub<'a> {
    pub(super) fn new(
        client: &'a kube::Client,
        max_in_flight: usize,
        cancel: &'a CancellationToken,
    ) -> Self {
        let governor = Mutex::new(Governor::new(max_in_flight));
        let (mutations, silent) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { client, cancel, how: How::Sync, dry_run: false, governor, mutations, silent }
    }

    pub(super) fn doing(self, how: How, dry_run: bool) -> Self {
        Self { how, dry_run, ..self }
    }

    pub(super) fn how(&self) -> How {
        self.how
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// How many requests may be in flight now.
    pub(super) fn limit(&self) -> usize {
        self.governor.lock().unwrap_or_else(PoisonError::into_inner).limit()
    }

    pub(super) fn mutations(&self) -> u64 {
        self.mutations.load(Ordering::Relaxed)
    }

    /// Unknown fields are stored or dropped as the kind's schema says; validating them strictly would
    /// only cost time.
    pub(super) async fn write(
        &self,
        how: Write,
        key: &ObjectKey,
        version: &str,
        body: Bytes,
    ) -> Result<Metadata, KubeError> {
        self.write_validated(how, key, version, body, "Ignore").await
    }

    /// For a body that was captured at another version: a field that this one does not have is an
    /// error, and not dropped in silence.
    pub(super) async fn write_converted(
        &self,
        how: Write,
        key: &ObjectKey,
        version: &str,
        body: Bytes,
    ) -> Result<Metadata, KubeError> {
        self.write_validated(how, key, version, body, "Strict").await
    }

    async fn write_validated(
        &self,
        how: Write,
        key: &ObjectKey,
        version: &str,
        body: Bytes,
        validation: &str,
    ) -> Result<Metadata, KubeError> {
        let (method, path, content_type) = match how {
            Write::Create => (Method::POST, key.collection_path(version), JSON),
            Write::Replace => (Method::PUT, key.url_path(version), JSON),
            Write::Merge => (Method::PATCH, key.url_path(version), "application/merge-patch+json"),
            Write::Patch => (Method::PATCH, key.url_path(version), "application/json-patch+json"),
            Write::PatchStatus => {
                let path = format!("{}/status", key.url_path(version));
                (Method::PATCH, path, "application/json-patch+json")
            }
        };
        // The manager names us in `managedFields`.
        let url = format!("{path}?fieldManager={MANAGER}&fieldValidation={validation}");
        let object: Object = self.read(request(method, url, METADATA, content_type, body)?).await?;
        Ok(object.metadata)
    }

    pub(super) async fn metadata(
        &self,
        key: &ObjectKey,
        version: &str,
    ) -> Result<Metadata, KubeError> {
        let object: Object = self.read(get(key.url_path(version), METADATA)?).await?;
        Ok(object.metadata)
    }

    /// The whole object.
    pub(super) async fn get(&self, key: &ObjectKey, version: &str) -> Result<Bytes, KubeError> {
        self.send(get(key.url_path(version), JSON)?).await
    }

    /// Whether the object still stands, being deleted.
    pub(super) async fn delete(
        &self,
        key: &ObjectKey,
        version: &str,
        options: Bytes,
    ) -> Result<bool, KubeError> {
        let path = key.url_path(version);
        let answer = self.send(request(Method::DELETE, path, METADATA, JSON, options)?).await?;
        // What is gone at once is answered with a `Status`, or as it was.
        let object = serde_json::from_slice::<Object>(&answer);
        Ok(object.is_ok_and(|object| object.metadata.deletion_timestamp.is_some()))
    }

    /// Metadata of the objects below `path`, one page.
    pub(super) async fn list(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<List, KubeError> {
        let url = kube_client::with_parameters(path, parameters);
        self.read(get(url, METADATA_LIST)?).await
    }

    /// The objects below `path` as they stand, one page; a [`WholeList`].
    pub(super) async fn list_whole(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Bytes, KubeError> {
        self.send(get(kube_client::with_parameters(path, parameters), JSON)?).await
    }

    async fn read<T: for<'de> Deserialize<'de>>(
        &self,
        request: Request<Bytes>,
    ) -> Result<T, KubeError> {
        let verb = layer::verb(request.method(), request.uri());
        let path = request.uri().path().to_owned();
        let answer = self.send(request).await?;
        serde_json::from_slice(&answer).map_err(|source| KubeError::Unreadable {
            verb,
            path,
            source,
        })
    }

    /// Every request passes here, so no write of a dry run can be sent as a write.
    async fn send(&self, mut request: Request<Bytes>) -> Result<Bytes, KubeError> {
        if self.dry_run && request.method() != Method::GET {
            *request.uri_mut() = dry(request.uri())?;
        }
        let request = &request;
        let attempt = || async {
            if request.method() != Method::GET {
                self.mutations.fetch_add(1, Ordering::Relaxed);
            }
            let answer = kube_client::raw(self.client, request.clone()).await;
            self.learn(answer.as_ref().err());
            answer.map(|answer| answer.body)
        };
        let judge = |error: &KubeError| {
            let may_help = complains(error) && !error.is_full() && !self.is_silent();
            if may_help { error.next() } else { Next::Stop }
        };
        // Not the message: of a ConfigMap, too, it may quote what no log may hold.
        let tell = |error: &KubeError, wait: Duration| {
            let (path, code, reason) = (request.uri().path(), error.code(), error.reason());
            tracing::debug!(path, code, reason, ?wait, "failed, trying again");
        };
        retry::retry_telling(&PATIENCE, self.cancel, judge, tell, attempt).await
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed) >= SILENT
    }

    /// What one attempt tells about the server.
    fn learn(&self, error: Option<&KubeError>) {
        if matches!(error, Some(KubeError::Transport { .. })) {
            self.silent.fetch_add(1, Ordering::Relaxed);
        } else {
            self.silent.store(0, Ordering::Relaxed);
        }
        let mut governor = self.governor.lock().unwrap_or_else(PoisonError::into_inner);
        match error.filter(|error| complains(error)) {
            Some(error) if governor.overloaded() => {
                let (limit, code, reason) = (governor.limit(), error.code(), error.reason());
                tracing::info!(limit, code, reason, "the API server is busy, fewer writes at once");
            }
            Some(_) => {}
            None => governor.answered(),
        }
    }
}

/// Whether the server had too much, or said nothing in time; everything else is about the object.
fn complains(error: &KubeError) -> bool {
    let webhook = matches!(error, KubeError::Api(error) if error.webhook);
    error.class() == Class::Transient && !webhook
}

fn dry(uri: &Uri) -> Result<Uri, KubeError> {
    let more = if uri.query().is_some() { '&' } else { '?' };
    let url = format!("{uri}{more}{DRY_RUN}");
    url.parse().map_err(|e: http::uri::InvalidUri| KubeError::Transport {
        verb: "address",
        path: url,
        source: e.into(),
    })
}

fn get(url: String, accept: &'static str) -> Result<Request<Bytes>, KubeError> {
    request(Method::GET, url, accept, JSON, Bytes::new())
}

fn request(
    method: Method,
    url: String,
    accept: &'static str,
    content_type: &'static str,
    body: Bytes,
) -> Result<Request<Bytes>, KubeError> {
    Request::builder()
        .method(method)
        .uri(&url)
        .header(http::header::ACCEPT, accept)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(body)
        .map_err(|e| KubeError::Transport { verb: "address", path: url, source: e.into() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::*;
    use kube::client::Body;

    /// A server that gives these answers, one a request, and the last one for ever. 0: none at all.
    fn server(answers: &'static [(u16, &'static str)]) -> kube::Client {
        let count = AtomicUsize::new(0);
        let service = tower::service_fn(move |_: Request<Body>| {
            let turn = count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
            let (code, body) = answers[turn];
            std::future::ready(if code == 0 {
                Err(std::io::Error::other("connection refused"))
            } else {
                let answer = http::Response::builder().status(code);
                Ok(answer.body(Body::from(body.as_bytes().to_vec())).unwrap())
            })
        });
        kube::Client::new(service, "default")
    }

    /// Code of the outcome, requests that were sent, and how many may be in flight afterwards.
    async fn check(
        answers: &'static [(u16, &'static str)],
        expected: (Option<u16>, u64, usize),
        cancel: &CancellationToken,
    ) {
        let client = server(answers);
        let hub = Hub::new(&client, 64, cancel);
        let written = hub.write(Write::Create, &key("/secrets/ns/a"), "v1", Bytes::new()).await;
        let code = written.as_ref().map_or_else(KubeError::code, |_| Some(200));
        assert_eq!((code, hub.mutations(), hub.limit()), expected, "{answers:?} {written:?}");
    }

    const CREATED: &str = r#"{"metadata":{"uid":"u","resourceVersion":"7"}}"#;

    #[tokio::test]
    async fn the_governor_hears_of_every_answer_and_every_attempt_is_counted() {
        let never = CancellationToken::new();
        check(&[(201, CREATED)], (Some(200), 1, 9), &never).await;
        check(&[(429, ""), (201, CREATED)], (Some(200), 2, 4), &never).await;
        // Complaints of one round count once: of these two only the first.
        check(&[(503, ""), (0, ""), (201, CREATED)], (Some(200), 3, 4), &never).await;
        check(&[(409, "")], (Some(409), 1, 9), &never).await;
        check(&[(422, "")], (Some(422), 1, 9), &never).await;
    }

    #[tokio::test]
    async fn a_webhook_that_is_away_is_neither_waited_for_nor_the_servers_fault() {
        let away = r#"{"message":"Internal error occurred: failed calling webhook \"w\""}"#;
        let answers: &[(u16, &str)] = Box::leak(Box::new([(500, away)]));
        check(answers, (Some(500), 1, 9), &CancellationToken::new()).await;
    }

    #[tokio::test]
    async fn in_a_dry_run_every_request_that_would_change_something_says_so() {
        let never = CancellationToken::new();
        let seen = std::sync::Arc::new(Mutex::new(vec![]));
        let log = seen.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            log.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            let answer = http::Response::new(Body::from(CREATED.as_bytes().to_vec()));
            std::future::ready(Ok::<_, std::io::Error>(answer))
        });
        let client = kube::Client::new(service, "default");
        let key = key("/secrets/ns/a");
        for dry_run in [true, false] {
            let hub = Hub::new(&client, 1, &never).doing(How::Sync, dry_run);
            hub.metadata(&key, "v1").await.unwrap();
            for how in [Write::Create, Write::Replace, Write::Merge] {
                hub.write(how, &key, "v1", Bytes::new()).await.unwrap();
            }
            hub.delete(&key, "v1", Bytes::new()).await.unwrap();
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            let (reads, writes): (Vec<_>, Vec<_>) =
                seen.iter().partition(|request| request.starts_with("GET "));
            assert_eq!((reads.len(), writes.len()), (1, 4), "{seen:?}");
            let marked = |request: &String| {
                request.ends_with("&dryRun=All") || request.ends_with("/a?dryRun=All")
            };
            assert!(writes.iter().all(|request| marked(request) == dry_run), "{writes:?}");
            assert!(!reads.iter().any(|request| marked(request)), "{reads:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_not_asked_for_ever() {
        let never = CancellationToken::new();
        let client = server(&[(0, "")]);
        let hub = Hub::new(&client, 64, &never);
        hub.silent.store(SILENT - 2, Ordering::Relaxed);
        for sent in [2, 3, 4] {
            assert!(hub.metadata(&key("/secrets/ns/a"), "v1").await.is_err());
            assert_eq!(hub.silent.load(Ordering::Relaxed), SILENT - 2 + sent);
        }
    }

    #[tokio::test]
    async fn an_interruption_ends_the_waiting() {
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        check(&[(429, r#"{"details":{"retryAfterSeconds":60}}"#)], (Some(429), 1, 4), &cancelled)
            .await;
    }

    #[tokio::test]
    async fn an_answer_that_is_no_object_is_an_error_and_not_quoted() {
        let client = server(&[(200, r#"{"metadata":"canary"}"#)]);
        let never = CancellationToken::new();
        let hub = Hub::new(&client, 1, &never);
        let error = hub.metadata(&key("/secrets/ns/a"), "v1").await.unwrap_err();
        assert!(matches!(error, KubeError::Unreadable { verb: "get", .. }), "{error:?}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
