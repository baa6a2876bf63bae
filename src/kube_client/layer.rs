//! What every request to the API server passes through: a place among those in flight, one time-out
//! for the whole of it, and a report for the metrics.
//!
//! The place and the time-out last until the last byte of the answer, for the body of a LIST is most
//! of its cost. A watch has no end: it takes no place, and its time-out ends with the first byte.
//! What may go wrong: the place is taken inside the request's own future and not before it is sent,
//! or requests that wait for a place would hold up the watches behind them.

use crate::observe::{Observation, Observer};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::client::{Body, DynBody};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tower::{BoxError, Layer, Service};

#[derive(Clone)]
pub struct Rules {
    places: Arc<Semaphore>,
    timeout: Duration,
    observer: Observer,
}

impl Rules {
    pub fn new(max_in_flight: usize, timeout: Duration, observer: Observer) -> Self {
        Self { places: Arc::new(Semaphore::new(max_in_flight)), timeout, observer }
    }
}

impl<S> Layer<S> for Rules {
    type Service = Ruled<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Ruled { inner, rules: self.clone() }
    }
}

/// A service under the [`Rules`].
pub struct Ruled<S> {
    inner: S,
    rules: Rules,
}

#[derive(Debug, thiserror::Error)]
#[error("no complete answer within {0:?}")]
struct TimedOut(Duration);

type Answered = Response<UnsyncBoxBody<Bytes, BoxError>>;

impl<S> Service<Request<Body>> for Ruled<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answered;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answered, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = verb(request.method(), request.uri());
        let answer = self.inner.call(request);
        let rules = self.rules.clone();
        if verb == "watch" {
            Box::pin(watched(rules, answer))
        } else {
            Box::pin(bounded(rules, verb, answer))
        }
    }
}

async fn watched(
    rules: Rules,
    answer: impl Future<Output = Result<Response<Box<DynBody>>, BoxError>>,
) -> Result<Answered, BoxError> {
    let mut observation = Observation::start(&rules.observer, "watch");
    let answer = tokio::time::timeout(rules.timeout, answer).await;
    let answer = answer.map_err(|_| TimedOut(rules.timeout))??;
    observation.answered(answer.status().as_u16());
    Ok(answer.map(BodyExt::boxed_unsync))
}

async fn bounded(
    rules: Rules,
    verb: &'static str,
    answer: impl Future<Output = Result<Response<Box<DynBody>>, BoxError>>,
) -> Result<Answered, BoxError> {
    let place = Arc::clone(&rules.places).acquire_owned().await?;
    let mut observation = Observation::start(&rules.observer, verb);
    let mut end = Box::pin(tokio::time::sleep(rules.timeout));
    let answer = tokio::select! {
        answer = answer => answer?,
        () = end.as_mut() => return Err(TimedOut(rules.timeout).into()),
    };
    observation.answered(answer.status().as_u16());
    let (head, body) = answer.into_parts();
    let reading =
        Reading { body: Some(body), end, timeout: rules.timeout, observation, _place: place };
    let frames = futures::stream::unfold(reading, async |mut reading| {
        let mut body = reading.body.take()?;
        let frame = tokio::select! {
            frame = body.frame() => frame?,
            () = reading.end.as_mut() => Err(TimedOut(reading.timeout).into()),
        };
        match &frame {
            Ok(_) => reading.body = Some(body),
            Err(_) => reading.observation.broken(),
        }
        Some((frame, reading))
    });
    Ok(Response::from_parts(head, StreamBody::new(frames).boxed_unsync()))
}

/// An answer whose body is on its way.
struct Reading {
    /// None after an error: nothing can follow.
    body: Option<Box<DynBody>>,
    end: Pin<Box<Sleep>>,
    timeout: Duration,
    observation: Observation,
    _place: OwnedSemaphorePermit,
}

/// What a request does, in the words of RBAC. A closed set, so it may be a label.
pub fn verb(method: &Method, uri: &Uri) -> &'static str {
    let collection = is_collection(uri.path());
    match *method {
        Method::GET if is_watch(uri.query().unwrap_or_default()) => "watch",
        Method::GET if collection => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        _ => "other",
    }
}

fn is_watch(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "watch" | "watch=1" | "watch=true"))
}

/// Whether the path names all objects of a kind: `/api/v1/pods`, `/apis/apps/v1/namespaces/x/jobs`,
/// but neither an object, a subresource, nor discovery.
fn is_collection(path: &str) -> bool {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let root = match parts.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        _ => return false,
    };
    parts.drain(..root.min(parts.len()));
    match parts.as_slice() {
        [_kind] => true,
        ["namespaces", _name, kind] => !matches!(*kind, "status" | "finalize"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use kube::Client;
    use kube::client::ClientBuilder;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_verb_follows_from_method_and_path() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/pods", "list"),
            ("GET", "/api/v1/pods?limit=500&continue=x", "list"),
            ("GET", "/api/v1/pods?watch=true", "watch"),
            ("GET", "/api/v1/pods?limit=1&watch=1", "watch"),
            ("GET", "/api/v1/pods?watch=false", "list"),
            ("GET", "/api/v1/namespaces", "list"),
            ("GET", "/api/v1/namespaces/a", "get"),
            ("GET", "/api/v1/namespaces/a/status", "get"),
            ("GET", "/api/v1/namespaces/a/pods", "list"),
            ("GET", "/api/v1/namespaces/a/pods/b", "get"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get"),
            ("GET", "/apis/apps/v1/deployments", "list"),
            ("GET", "/apis/apps/v1/namespaces/a/deployments/b", "get"),
            ("GET", "/apis/g.example.com/v1/clusters/a", "get"),
            ("GET", "/apis/g.example.com/v1/clusters/a/status", "get"),
            ("GET", "/api", "get"),
            ("GET", "/apis/apps/v1", "get"),
            ("GET", "/version", "get"),
            ("POST", "/api/v1/namespaces/a/pods", "create"),
            ("PUT", "/api/v1/namespaces/a/pods/b", "update"),
            ("PATCH", "/api/v1/namespaces/a/pods/b?fieldManager=x", "patch"),
            ("DELETE", "/api/v1/namespaces/a/pods/b", "delete"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection"),
            ("DELETE", "/api/v1/namespaces/a", "delete"),
            ("OPTIONS", "/api", "other"),
        ] {
            let is = verb(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(is, expected, "{method} {uri}");
        }
    }

    type Reports = Arc<Mutex<Vec<(&'static str, &'static str)>>>;

    /// A client under the rules, over a server that answers `/slow…` with a body that never ends
    /// and `/hang…` not at all. Counts the requests in flight at its side.
    fn client(max_in_flight: usize) -> (Client, Reports, Arc<AtomicUsize>) {
        let reports = Reports::default();
        let sink = Arc::clone(&reports);
        let observer: Observer =
            Arc::new(move |verb, code, _| sink.lock().unwrap().push((verb, code)));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let high = Arc::clone(&most);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&high));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                if request.uri().path().ends_with("/hang") {
                    futures::future::pending::<()>().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                let body: Box<DynBody> = if request.uri().path().ends_with("/slow") {
                    let never = futures::stream::pending::<Result<_, BoxError>>();
                    Box::new(StreamBody::new(never))
                } else {
                    Box::new(Body::from(b"{}".to_vec()).map_err(BoxError::from))
                };
                Ok::<_, BoxError>(Response::new(body))
            }
        });
        let rules = Rules::new(max_in_flight, Duration::from_millis(50), observer);
        (ClientBuilder::new(service, "default").with_layer(&rules).build(), reports, most)
    }

    async fn get(client: &Client, uri: &str) -> Result<(), String> {
        let request = Request::get(uri).body(Vec::new()).unwrap();
        let answer = crate::kube_client::raw(client, request).await;
        answer.map(|_| ()).map_err(|error| crate::retry::chain(&error))
    }

    #[tokio::test]
    async fn no_more_requests_are_in_flight_than_allowed_and_each_is_reported_once() {
        let (client, reports, most) = client(3);
        let answers = join_all((0..50).map(|_| get(&client, "/api/v1/pods"))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(*reports.lock().unwrap(), [("list", "2xx"); 50]);
    }

    #[tokio::test]
    async fn a_server_that_hangs_costs_the_time_out_and_gives_its_place_back() {
        let (client, reports, _) = client(1);
        for path in ["/api/v1/namespaces/hang", "/api/v1/namespaces/slow"] {
            let error = get(&client, path).await.unwrap_err();
            assert!(error.contains("no complete answer within 50ms"), "{error}");
        }
        get(&client, "/api/v1/pods").await.unwrap();
        assert_eq!(*reports.lock().unwrap(), [("get", "error"), ("get", "error"), ("list", "2xx")]);
    }

    #[tokio::test]
    async fn a_watch_takes_no_place_and_outlives_the_time_out() {
        let (client, reports, _) = client(1);
        let request = Request::get("/api/v1/slow?watch=true").body(Body::empty()).unwrap();
        let mut watch = client.send(request).await.unwrap().into_body();
        get(&client, "/api/v1/pods").await.unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(120), watch.frame()).await;
        assert!(silence.is_err(), "it ended by itself");
        assert_eq!(*reports.lock().unwrap(), [("watch", "2xx"), ("list", "2xx")]);
    }
}
