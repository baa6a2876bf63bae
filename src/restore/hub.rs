//! The API server of this hub as a restore talks to it: few verbs, answers read as far as
//! `metadata`, retried while the server is busy, and counted.
//!
//! A lost answer is no special case: the same request is sent again, and what the first one did
//! shows up as 409 or 404, which every caller handles anyway.

use super::governor::Governor;
use super::request::{KubeError, raw};
use crate::object::ObjectKey;
use bytes::Bytes;
use http::{Method, Request};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// With the waits below about ten seconds; what fails longer is tried again in a later pass.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Attempts in a row without any answer: the server is away, so nothing is tried twice.
const SILENT: usize = 16;
/// A server that asks for more gets the object again in the next run instead.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Spares the server the work of encoding, and us of reading, the object that we just sent.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
/// Names us in `managedFields`. Unknown fields are stored or dropped as the kind's schema says;
/// validating them strictly would only cost time.
const WRITE_QUERY: &str = "fieldManager=understudy&fieldValidation=Ignore";

pub(super) struct Hub<'a> {
    client: &'a kube::Client,
    timeout: Duration,
    cancel: &'a CancellationToken,
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

impl<'a> Hub<'a> {
    pub(super) fn new(
        client: &'a kube::Client,
        timeout: Duration,
        max_in_flight: usize,
        cancel: &'a CancellationToken,
    ) -> Self {
        let governor = Mutex::new(Governor::new(max_in_flight));
        Self {
            client,
            timeout,
            cancel,
            governor,
            mutations: AtomicU64::new(0),
            silent: AtomicUsize::new(0),
        }
    }

    /// How many requests may be in flight now.
    pub(super) fn limit(&self) -> usize {
        self.governor.lock().unwrap_or_else(PoisonError::into_inner).limit()
    }

    pub(super) fn mutations(&self) -> u64 {
        self.mutations.load(Ordering::Relaxed)
    }

    pub(super) async fn post(
        &self,
        key: &ObjectKey,
        version: &str,
        body: Bytes,
    ) -> Result<Metadata, KubeError> {
        let path = format!("{}?{WRITE_QUERY}", key.collection_path(version));
        self.object(Method::POST, &path, "application/json", body).await
    }

    /// `body` holds the resourceVersion that it replaces.
    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        version: &str,
        body: Bytes,
    ) -> Result<Metadata, KubeError> {
        let path = format!("{}?{WRITE_QUERY}", key.url_path(version));
        self.object(Method::PUT, &path, "application/json", body).await
    }

    /// A JSON merge patch.
    pub(super) async fn patch(
        &self,
        key: &ObjectKey,
        version: &str,
        body: Bytes,
    ) -> Result<Metadata, KubeError> {
        let path = format!("{}?{WRITE_QUERY}", key.url_path(version));
        self.object(Method::PATCH, &path, "application/merge-patch+json", body).await
    }

    pub(super) async fn metadata(
        &self,
        key: &ObjectKey,
        version: &str,
    ) -> Result<Metadata, KubeError> {
        self.object(Method::GET, &key.url_path(version), "application/json", Bytes::new()).await
    }

    /// The whole object.
    pub(super) async fn get(&self, key: &ObjectKey, version: &str) -> Result<Bytes, KubeError> {
        self.send(
            Method::GET,
            &key.url_path(version),
            "application/json",
            "application/json",
            Bytes::new(),
        )
        .await
    }

    pub(super) async fn delete(
        &self,
        key: &ObjectKey,
        version: &str,
        options: Bytes,
    ) -> Result<(), KubeError> {
        let path = key.url_path(version);
        self.send(Method::DELETE, &path, METADATA, "application/json", options).await.map(drop)
    }

    /// Metadata of the objects below `path`, one page.
    pub(super) async fn list(&self, path: &str, query: &str) -> Result<List, KubeError> {
        let path = format!("{path}?{query}");
        let answer =
            self.send(Method::GET, &path, METADATA_LIST, "application/json", Bytes::new()).await?;
        parse(&answer)
    }

    async fn object(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Metadata, KubeError> {
        let answer = self.send(method, path, METADATA, content_type, body).await?;
        parse::<Object>(&answer).map(|object| object.metadata)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes, KubeError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            if method != Method::GET {
                self.mutations.fetch_add(1, Ordering::Relaxed);
            }
            let request = Request::builder()
                .method(&method)
                .uri(path)
                .header(http::header::ACCEPT, accept)
                .header(http::header::CONTENT_TYPE, content_type)
                .body(body.clone())
                .map_err(|source| KubeError::Transport { source: source.into() })?;
            let answer = raw(self.client, request, self.timeout).await;
            self.learn(&answer);
            match answer {
                Err(error) if error.is_transient() && attempt < ATTEMPTS && !self.is_silent() => {
                    let pause = tokio::time::sleep(wait(&error, attempt));
                    if self.cancel.run_until_cancelled(pause).await.is_none() {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed) >= SILENT
    }

    fn learn(&self, answer: &Result<Bytes, KubeError>) {
        if matches!(answer, Err(KubeError::Transport { .. } | KubeError::Timeout)) {
            self.silent.fetch_add(1, Ordering::Relaxed);
        } else {
            self.silent.store(0, Ordering::Relaxed);
        }
        let mut governor = self.governor.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Err(error) if error.is_transient() => governor.overloaded(),
            _ => governor.answered(),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, KubeError> {
    serde_json::from_slice(bytes).map_err(|source| KubeError::Unreadable { source })
}

/// What the server asks for, else a random part of a doubling time: clients that failed together
/// must not come back together.
fn wait(error: &KubeError, attempt: u32) -> Duration {
    if let KubeError::Api { retry_after: Some(asked), .. } = error {
        return (*asked).min(LONGEST_RETRY_AFTER);
    }
    let longest = (FIRST_WAIT * 2u32.saturating_pow(attempt)).min(LONGEST_WAIT);
    let random =
        u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(u32::MAX);
    longest.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
