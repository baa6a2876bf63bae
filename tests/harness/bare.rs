//! The leanest client that is possible: what an API server gives at most, to compare against.
//!
//! HTTP/1.1 without compression; a request in flight is a connection. Bodies are made before the
//! clock starts, and of the answers only what the next request needs is read.

use super::Result;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::{Method, StatusCode};
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use understudy::clock::monotonic;
use understudy::object::Kind;

/// As kubectl and client-go page.
const PAGE: usize = 500;
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The API server of one hub as one user. Lives and dies with the runtime of its test.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    url: String,
    token: String,
}

/// What a whole listing took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    pub seconds: f64,
    pub objects: usize,
    pub bytes: usize,
}

/// A request that creates one object, ready to be sent.
#[derive(Clone)]
pub struct Post {
    /// Of the collection.
    pub path: String,
    pub body: Bytes,
}

impl Api {
    pub fn new(url: &str, authority: &Path, token: &str) -> Result<Self> {
        let certificate = reqwest::Certificate::from_pem(&std::fs::read(authority)?)?;
        let client = reqwest::Client::builder()
            .tls_certs_only([certificate])
            .http1_only()
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        Ok(Self { client, url: url.to_owned(), token: token.to_owned() })
    }

    /// Status and body of any request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let response = self
            .client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .header("content-type", content_type)
            .body(body)
            .send()
            .await?;
        Ok((response.status(), response.bytes().await?))
    }

    async fn must(&self, method: Method, path: &str, kind: &str, body: Bytes) -> Result<Bytes> {
        let (status, answer) = self.send(method.clone(), path, kind, body).await?;
        if status.is_success() {
            return Ok(answer);
        }
        // The message of a Status names the object and the reason, never the content.
        let message = serde_json::from_slice::<Value>(&answer).ok();
        let message = message.as_ref().and_then(|status| status["message"].as_str()).unwrap_or("");
        Err(format!("{method} {path}: {status} {message}").into())
    }

    pub async fn get(&self, path: &str) -> Result<Bytes> {
        self.must(Method::GET, path, "application/json", Bytes::new()).await
    }

    pub async fn get_json(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }

    /// None when there is no such object.
    pub async fn find(&self, path: &str) -> Result<Option<Value>> {
        let (status, body) = self.send(Method::GET, path, "application/json", Bytes::new()).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(serde_json::from_slice(&body)?)),
            status => Err(format!("GET {path}: {status}").into()),
        }
    }

    /// Creates an object in the collection `path`.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let body = serde_json::to_vec(body)?.into();
        let answer = self.must(Method::POST, path, "application/json", body).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    pub async fn merge_patch(&self, path: &str, change: &Value) -> Result<Value> {
        let body = serde_json::to_vec(change)?.into();
        let answer = self.must(Method::PATCH, path, "application/merge-patch+json", body).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Server-side apply of YAML or JSON to the object `path`.
    pub async fn apply(&self, path: &str, document: impl Into<Bytes>) -> Result<()> {
        let path = format!("{path}?fieldManager=harness&force=true");
        self.must(Method::PATCH, &path, "application/apply-patch+yaml", document.into()).await?;
        Ok(())
    }

    pub async fn delete(&self, path: &str) -> Result<()> {
        self.must(Method::DELETE, path, "application/json", Bytes::new()).await?;
        Ok(())
    }

    /// Every object of a kind, page after page.
    pub async fn list(&self, kind: &Kind) -> Result<Vec<Value>> {
        let mut objects = Vec::new();
        let mut token = None;
        loop {
            let page = self.get(&page_path(kind, token.as_deref())).await?;
            let mut page: Value = serde_json::from_slice(&page)?;
            if let Value::Array(items) = page["items"].take() {
                objects.extend(items);
            }
            token = page["metadata"]["continue"].as_str().map(str::to_owned);
            if token.as_deref().is_none_or(str::is_empty) {
                return Ok(objects);
            }
        }
    }

    /// Pages through all `kinds` over one connection, and keeps nothing.
    pub async fn measure_list(&self, kinds: &[Kind]) -> Result<Listing> {
        let mut listing = Listing::default();
        let start = monotonic();
        for kind in kinds {
            let mut token = None;
            loop {
                let body = self.get(&page_path(kind, token.as_deref())).await?;
                let page: Page = serde_json::from_slice(&body)?;
                listing.bytes += body.len();
                listing.objects += page.items.0;
                if page.metadata.token.is_empty() {
                    break;
                }
                token = Some(page.metadata.token);
            }
        }
        listing.seconds = start.elapsed().as_secs_f64();
        Ok(listing)
    }

    /// Sends all `posts` with so many at once. The answers come in any order, as `(index, body)`.
    pub async fn post_all(
        &self,
        posts: &[Post],
        connections: usize,
    ) -> Result<Vec<(usize, Bytes)>> {
        futures::stream::iter(posts.iter().enumerate())
            .map(async |(index, Post { path, body })| {
                self.must(Method::POST, path, "application/json", body.clone())
                    .await
                    .map(|answer| (index, answer))
            })
            .buffer_unordered(connections)
            .try_collect()
            .await
    }

    /// Mutating requests without dry run since the server started, by `group/resource`; from its
    /// own counters, which cost nothing while the clock runs.
    pub async fn write_counts(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.get("/metrics").await?;
        let mut counts = BTreeMap::new();
        for line in std::str::from_utf8(&text)?.lines() {
            let Some(rest) = line.strip_prefix("apiserver_request_total{") else { continue };
            let Some((labels, value)) = rest.split_once("} ") else { continue };
            let label = |name: &str| {
                let (_, after) = labels.split_once(&format!("{name}=\""))?;
                after.split_once('"').map(|(value, _)| value)
            };
            let verb = label("verb").unwrap_or_default();
            let dry = label("dry_run").unwrap_or_default();
            let writes = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];
            if writes.contains(&verb) && dry.is_empty() {
                let (group, resource) = (label("group"), label("resource"));
                let name =
                    format!("{}/{}", group.unwrap_or_default(), resource.unwrap_or_default());
                *counts.entry(name).or_default() += value.trim().parse::<f64>()?;
            }
        }
        Ok(counts)
    }
}

fn page_path(kind: &Kind, token: Option<&str>) -> String {
    let path = kind.list_path();
    match token {
        // The token is base64url, so nothing in it needs escaping.
        Some(token) => format!("{path}?limit={PAGE}&continue={token}"),
        None => format!("{path}?limit={PAGE}"),
    }
}

/// Of a page only what the next request needs: the token, and how many objects there were.
#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    items: Count,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    token: String,
}

struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> std::result::Result<Count, A::Error> {
                let mut count = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_unit<E: de::Error>(self) -> std::result::Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(Counter)
    }
}
