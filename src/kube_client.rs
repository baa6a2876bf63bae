//! The client of the hub's API server: how it is built, and requests whose bodies stay raw bytes.
//!
//! kube's own retries are off (we retry, see [`crate::retry`]); compression is off unless asked for
//! (on a LAN it costs more than it saves); a layer bounds requests in flight, gives each one time-out
//! and reports it ([`layer`]). One client serves reads, writes and watches.
//!
//! What may go wrong: kube's typed calls log a body that they cannot parse, and a body may be a
//! Secret. So everything that reads or writes captured objects goes through [`raw`], and an error
//! about a Secret carries the server's reason but not its message, which may quote the value.

use crate::object::encode;
use crate::observe::Observer;
use crate::retry::{Class, Next};
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::{Body, ClientBuilder};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

pub mod layer;

/// A page of 500 objects of 32 KiB each. A backup holds a few pages at a time, so this bounds its
/// memory; the remedy for more is a smaller page.
const MAX_BODY: usize = 16 << 20;

/// An error body is a `Status` of some hundred bytes; a proxy's page may be anything.
const MAX_ERROR_BODY: usize = 256 << 10;

/// Longer messages are lists of every value an enum may have.
const MAX_MESSAGE: usize = 1024;

/// A key of a Secret has at most 253 bytes.
const MAX_FIELD: usize = 300;

/// What etcd says once it has reached its quota, until somebody disarms the alarm.
const FULL: &str = "database space exceeded";
/// How the API server begins when a webhook denies, cannot be called, or cannot convert.
const WEBHOOK: [&str; 3] = ["admission webhook \"", "failed calling webhook", "conversion webhook"];

type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug)]
pub struct Options {
    /// None: `KUBECONFIG`, `~/.kube/config`, or the service account of the pod, in this order.
    pub kubeconfig: Option<PathBuf>,
    /// None: the current context of the kubeconfig.
    pub context: Option<String>,
    /// From sending a request to the last byte of its answer (of a watch: to its first).
    pub request_timeout: Duration,
    /// Requests at the same time, watches not counted.
    pub max_in_flight: usize,
    pub gzip: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("failed to read the kubeconfig {path}")]
    Kubeconfig { path: String, source: Cause },
    #[error("failed to find an API server: neither a kubeconfig nor a service account can be used")]
    Infer { source: Cause },
    #[error("failed to build the client for {url}")]
    Build { url: String, source: Cause },
}

impl ConnectError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Kubeconfig { .. } => {
                "check the file and the context: `kubectl config get-contexts`"
            }
            Self::Infer { .. } => {
                "name a kubeconfig with --kubeconfig, or run in a pod with a service account"
            }
            Self::Build { .. } => "check server, certificates and proxy in the kubeconfig",
        }
    }
}

/// Builds a client; touches files but not the network. Needs a tokio runtime.
pub async fn connect(options: &Options, observer: Observer) -> Result<Client, ConnectError> {
    let Options { kubeconfig, context, request_timeout, max_in_flight, gzip } = options;
    let mut config = match (kubeconfig, context) {
        (None, None) => {
            Config::infer().await.map_err(|e| ConnectError::Infer { source: e.into() })?
        }
        (path, context) => {
            let shown = path.as_ref().map_or("by default".to_owned(), |p| p.display().to_string());
            let unusable = |source: Cause| ConnectError::Kubeconfig { path: shown.clone(), source };
            let chosen = KubeConfigOptions { context: context.clone(), ..Default::default() };
            match path {
                Some(path) => {
                    let file = kube::config::Kubeconfig::read_from(path);
                    let file = file.map_err(|e| unusable(e.into()))?;
                    Config::from_custom_kubeconfig(file, &chosen).await
                }
                None => Config::from_kubeconfig(&chosen).await,
            }
            .map_err(|e| unusable(e.into()))?
        }
    };
    config.default_retry = false;
    config.disable_compression = !gzip;
    // The layer's time-out covers the whole request. One on the connection would cut idle watches.
    config.read_timeout = None;
    let url = config.cluster_url.to_string();
    let rules = layer::Rules::new(*max_in_flight, *request_timeout, observer);
    let builder = ClientBuilder::try_from(config);
    let builder = builder.map_err(|e| ConnectError::Build { url, source: e.into() })?;
    Ok(builder.with_layer(&rules).build())
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub body: Bytes,
}

/// Why a request did not succeed.
///
/// **The outcome of a write is unknown** after [`KubeError::Transport`], after
/// [`KubeError::TooLarge`] and [`KubeError::Unreadable`], and after a 500, 502 or 504: it may have
/// been applied. Read the object again before deciding anything. After every other answer it was not
/// applied.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    #[error("failed to {}", .0)]
    Api(Box<ApiError>),
    #[error("failed to {verb} {path}: no complete answer")]
    Transport { verb: &'static str, path: String, source: Cause },
    #[error("failed to {verb} {path}: the answer has more than {limit} bytes")]
    TooLarge { verb: &'static str, path: String, limit: usize },
    #[error("failed to {verb} {path}: the answer is not what was asked for")]
    Unreadable { verb: &'static str, path: String, source: serde_json::Error },
}

/// The API server's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub verb: &'static str,
    pub path: String,
    pub code: u16,
    /// Kubernetes' word for it, such as `AlreadyExists`. Empty when a proxy answered.
    pub reason: String,
    /// Empty when the request was about Secrets: messages quote values.
    pub message: String,
    pub causes: Vec<ApiCause>,
    /// An admission or conversion webhook refused it or is away: a fact about this kind of object,
    /// whatever the code, and none about the server. Known also where the message is not.
    pub webhook: bool,
    /// The store below the API server takes no write any more. Known also where the message is not.
    pub full: bool,
    pub retry_after: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiCause {
    pub reason: String,
    /// Of Secrets too, if it is a plain path: the keys of a Secret's data are names that Pods refer
    /// to and `kubectl describe` prints, and without them nobody can mend a refused Secret.
    pub field: String,
    /// Empty for Secrets, as above.
    pub message: String,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.verb, self.path, self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

impl KubeError {
    pub fn class(&self) -> Class {
        match self {
            Self::Transport { .. } => Class::Transient,
            Self::TooLarge { .. } | Self::Unreadable { .. } => Class::Refused,
            Self::Api(error) => match error.code {
                409 | 410 | 412 => Class::Conflict,
                408 | 429 | 500 | 502..=599 => Class::Transient,
                _ => Class::Refused,
            },
        }
    }

    /// For [`crate::retry::retry`], where repeating the very same request is right.
    pub fn next(&self) -> Next {
        match (self.class(), self) {
            (Class::Transient, Self::Api(error)) => {
                error.retry_after.map_or(Next::Again, Next::AgainAfter)
            }
            (Class::Transient, _) => Next::Again,
            (Class::Conflict | Class::Damaged | Class::Refused, _) => Next::Stop,
        }
    }

    /// The HTTP status, if the server gave one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(error) => Some(error.code),
            Self::Transport { .. } | Self::TooLarge { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// The store of the hub takes no write any more, of no object.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Api(error) if error.full)
    }

    /// Empty if the server gave none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Api(error) => &error.reason,
            Self::Transport { .. } | Self::TooLarge { .. } | Self::Unreadable { .. } => "",
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether a write may have been applied although it failed.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::TooLarge { .. } | Self::Unreadable { .. } => true,
            Self::Api(error) => matches!(error.code, 500 | 502 | 504),
        }
    }
}

/// Sends a request as it is and gives back the bytes of a successful answer.
pub async fn raw(
    client: &Client,
    request: Request<impl Into<Body>>,
) -> Result<Response, KubeError> {
    let verb = layer::verb(request.method(), request.uri());
    let path = request.uri().path().to_owned();
    let transport = |source: Cause| KubeError::Transport { verb, path: path.clone(), source };

    let answer = client.send(request.map(Into::into)).await.map_err(|e| transport(e.into()))?;
    let (head, body) = answer.into_parts();
    if head.status.is_success() {
        let status = head.status.as_u16();
        let body = collect(body, MAX_BODY).await.map_err(&transport)?;
        let body = body.ok_or(KubeError::TooLarge { verb, path, limit: MAX_BODY })?;
        return Ok(Response { status, body });
    }
    let retry_after = head.headers.get(http::header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    // An error whose body is too long or broken is still an error with a code.
    let body = collect(body, MAX_ERROR_BODY).await.ok().flatten().unwrap_or_default();
    let error = api_error(verb, path, head.status.as_u16(), &body, retry_after);
    Err(KubeError::Api(Box::new(error)))
}

/// GETs `path` with these parameters, for instance one page of a list.
pub async fn list_page(
    client: &Client,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<Bytes, KubeError> {
    let request = Request::get(with_parameters(path, parameters)).body(Vec::new());
    let request = request.map_err(|e| KubeError::Transport {
        verb: "list",
        path: path.to_owned(),
        source: e.into(),
    })?;
    Ok(raw(client, request).await?.body)
}

/// `path?name=value&…` with everything encoded that could mean something else.
pub fn with_parameters(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut url = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        url.push(separator);
        separator = '&';
        encode(&mut url, name, b"");
        url.push('=');
        encode(&mut url, value, b"");
    }
    url
}

/// None: there is more than `limit`; the rest is not read.
async fn collect(mut body: Body, limit: usize) -> Result<Option<Bytes>, Cause> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(bytes.freeze()))
}

/// The part of `Status` that says why. Everything may be missing.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    details: Details,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    causes: Vec<StatusCause>,
    retry_after_seconds: u64,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct StatusCause {
    reason: String,
    message: String,
    field: String,
}

fn api_error(
    verb: &'static str,
    path: String,
    code: u16,
    body: &[u8],
    retry_after: Option<u64>,
) -> ApiError {
    let secret = path.split('/').any(|part| part == "secrets");
    let said = |text: &str| -> String {
        if secret {
            return String::new();
        }
        text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
    };
    let word = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let Status { message, reason, details } = serde_json::from_slice(body).unwrap_or_else(|_| {
        Status { message: String::from_utf8_lossy(body).into_owned(), ..Default::default() }
    });
    let causes = details.causes.iter().map(|cause| ApiCause {
        reason: word(&cause.reason),
        field: if is_path(&cause.field) { cause.field.clone() } else { said(&cause.field) },
        message: said(&cause.message),
    });
    let asked = Some(details.retry_after_seconds).filter(|seconds| *seconds > 0);
    ApiError {
        verb,
        code,
        reason: word(&reason),
        message: said(&message),
        causes: causes.collect(),
        full: message.contains(FULL),
        webhook: WEBHOOK.iter().any(|words| message.contains(words)),
        retry_after: retry_after.or(asked).map(Duration::from_secs),
        path,
    }
}

/// A path to a field as the API server writes it (`data[tls.crt]`), and nothing that only looks
/// like one: a value has spaces, quotes or the `=` and `/` of base64 sooner or later.
fn is_path(text: &str) -> bool {
    let of_a_path = |c: char| c.is_ascii_alphanumeric() || "._-[]".contains(c);
    text.len() <= MAX_FIELD && text.chars().all(of_a_path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn client(code: u16, retry_after: Option<&'static str>, body: &'static str) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            let mut answer = http::Response::builder().status(code);
            if let Some(seconds) = retry_after {
                answer = answer.header("retry-after", seconds);
            }
            Ok::<_, Infallible>(answer.body(Body::from(body.as_bytes().to_vec())).unwrap())
        });
        Client::new(service, "default")
    }

    async fn check(path: &str, code: u16, body: &'static str) -> KubeError {
        let request = Request::post(path).body(Vec::new()).unwrap();
        raw(&client(code, None, body), request).await.unwrap_err()
    }

    const CONFIG_MAPS: &str = "/api/v1/namespaces/ns/configmaps";

    #[tokio::test]
    async fn a_successful_answer_comes_back_byte_by_byte() {
        let request = Request::get(CONFIG_MAPS).body(Vec::new()).unwrap();
        let answer = raw(&client(200, None, "{\"b\":1, \"a\":2}"), request).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"{\"b\":1, \"a\":2}"[..]));
    }

    #[tokio::test]
    async fn refusals_are_sorted_by_what_to_do() {
        for (code, class, unknown) in [
            (400, Class::Refused, false),
            (401, Class::Refused, false),
            (403, Class::Refused, false),
            (404, Class::Refused, false),
            (409, Class::Conflict, false),
            (410, Class::Conflict, false),
            (422, Class::Refused, false),
            (429, Class::Transient, false),
            (500, Class::Transient, true),
            (501, Class::Refused, false),
            (503, Class::Transient, false),
            (504, Class::Transient, true),
        ] {
            let error = check(CONFIG_MAPS, code, r#"{"reason":"R","message":"m"}"#).await;
            assert_eq!((error.class(), error.outcome_unknown()), (class, unknown), "{code}");
            assert_eq!(error.code(), Some(code));
            let text = format!("failed to create {CONFIG_MAPS}: {code} R (m)");
            assert_eq!(error.to_string(), text);
        }
    }

    #[tokio::test]
    async fn a_message_about_a_secret_reaches_nobody() {
        let body = r#"{"reason":"Invalid","message":"Invalid value: \"hunter2\"",
            "details":{"causes":[
                {"reason":"FieldValueInvalid","field":"data[tls.crt]","message":"hunter2"},
                {"reason":"FieldValueInvalid","field":"\"hunter2\"","message":"hunter2"}]}}"#;
        for path in ["/api/v1/namespaces/ns/secrets", "/api/v1/namespaces/ns/secrets/x"] {
            let error = check(path, 422, body).await;
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            assert!(error.to_string().contains("422 Invalid"), "{error}");
            assert!(format!("{error:?}").contains("data[tls.crt]"), "the path is told: {error:?}");
        }
        let error = check("/api/v1/namespaces/ns/secrets", 502, "hunter2").await;
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        let error = check(CONFIG_MAPS, 422, body).await;
        assert!(error.to_string().contains("hunter2"), "others tell: {error}");
    }

    #[tokio::test]
    async fn a_webhook_is_told_from_the_server_also_for_a_secret() {
        for (code, body, webhook) in [
            (403, r#"{"message":"admission webhook \"w.x.io\" denied the request: no"}"#, true),
            (500, r#"{"message":"Internal error occurred: failed calling webhook \"w\""}"#, true),
            (500, r#"{"message":"conversion webhook for x.io/v1 failed: refused"}"#, true),
            (500, r#"{"message":"etcdserver: request timed out"}"#, false),
            (403, r#"{"message":"secrets is forbidden: user cannot create"}"#, false),
        ] {
            for path in [CONFIG_MAPS, "/api/v1/namespaces/ns/secrets"] {
                let error = check(path, code, body).await;
                let told = matches!(&error, KubeError::Api(error) if error.webhook);
                assert_eq!(told, webhook, "{path} {body}");
            }
        }
    }

    #[tokio::test]
    async fn a_wish_to_be_left_alone_is_read_from_header_and_body() {
        let ask = async |header, body| {
            let request = Request::get("/api/v1/pods").body(Vec::new()).unwrap();
            raw(&client(429, header, body), request).await.unwrap_err().next()
        };
        let body = r#"{"details":{"retryAfterSeconds":5}}"#;
        assert_eq!(ask(Some("7"), body).await, Next::AgainAfter(Duration::from_secs(7)));
        assert_eq!(ask(None, body).await, Next::AgainAfter(Duration::from_secs(5)));
        assert_eq!(ask(Some("soon"), "").await, Next::Again);
    }

    #[tokio::test]
    async fn an_error_page_of_a_proxy_is_an_error_with_a_code() {
        let error = check(CONFIG_MAPS, 502, "<html>\u{1b}bad gateway</html>").await;
        assert_eq!(
            error.to_string(),
            format!("failed to create {CONFIG_MAPS}: 502 (<html>bad gateway</html>)")
        );
    }

    #[tokio::test]
    async fn a_broken_connection_leaves_the_outcome_open() {
        let service = tower::service_fn(|_: Request<Body>| async {
            Err::<http::Response<Body>, _>(std::io::Error::other("connection reset"))
        });
        let request = Request::delete("/api/v1/namespaces/ns/secrets/x").body(Vec::new()).unwrap();
        let error = raw(&Client::new(service, "default"), request).await.unwrap_err();
        assert!(matches!(error, KubeError::Transport { verb: "delete", .. }), "{error:?}");
        assert!(error.outcome_unknown() && error.class() == Class::Transient);
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_not_read_to_its_end() {
        let body = || Body::from(vec![0; 100]);
        assert_eq!(collect(body(), 100).await.unwrap().unwrap().len(), 100);
        assert!(collect(body(), 99).await.unwrap().is_none());
    }

    #[test]
    fn parameters_are_encoded() {
        let url = with_parameters("/api/v1/pods", &[("limit", "500"), ("continue", "a+b/c=&d ä")]);
        assert_eq!(url, "/api/v1/pods?limit=500&continue=a%2Bb%2Fc%3D%26d%20%C3%A4");
        assert_eq!(with_parameters("/api", &[]), "/api");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let options = |context: Option<&str>| Options {
            kubeconfig: Some(path.clone()),
            context: context.map(str::to_owned),
            request_timeout: Duration::from_secs(1),
            max_in_flight: 1,
            gzip: false,
        };
        let connect =
            async |context| super::connect(&options(context), crate::observe::nobody()).await;
        let error = connect(None).await.err().unwrap();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let cluster = "{name: c, cluster: {server: 'http://127.0.0.1:1'}}";
        let context = "{name: x, context: {cluster: c, user: u}}";
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{cluster}]\ncontexts: [{context}]\n\
             users: [{{name: u, user: {{}}}}]\ncurrent-context: x\n"
        );
        std::fs::write(&path, text).unwrap();
        assert!(connect(None).await.is_ok());
        assert!(connect(Some("x")).await.is_ok());
        assert!(connect(Some("y")).await.is_err());
    }
}
