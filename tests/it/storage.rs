//! The S3 back end and the race probe against a server in this process, whose faults are known: its
//! conditional PUT looks first and writes then, so two creators can both win.
//!
//! A server in front of it adds what a test needs: one request at a time (which makes it atomic),
//! a header taken away, an answer by script.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on ends its test")]

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::future::join_all;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::access::S3Access;
use s3s::auth::SimpleAuth;
use s3s::dto::PutObjectInput;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Request, S3Result};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use understudy::config::settings;
use understudy::observe::{Observer, nobody};
use understudy::repository::probe;
use understudy::repository::storage::{Created, Storage, StorageError};
use understudy::retry::{Class, chain};

/// How the server treats requests.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    /// As it is: not atomic.
    Plain,
    /// One write at a time: atomic.
    OneAtATime,
    /// The condition never arrives, as with a server that does not know it.
    ConditionIgnored,
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>>;

/// What came in: method, path and headers, lower case names.
pub(crate) type Requests = Arc<Mutex<Vec<(String, String, http::HeaderMap)>>>;

pub(crate) struct Server {
    pub(crate) endpoint: String,
    folder: tempfile::TempDir,
    pub(crate) requests: Requests,
    mode: Arc<Mutex<Mode>>,
}

impl Server {
    /// An S3 server with a bucket `hub-dr`; access key `key`, secret `secret`.
    pub(crate) fn start(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("hub-dr")).unwrap();
        let mut s3 = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        s3.set_auth(SimpleAuth::from_single("key", "secret"));
        if mode == Mode::ConditionIgnored {
            s3.set_access(Forgetful);
        }
        let s3 = s3.build();
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let mode = Arc::new(Mutex::new(mode));
        let current = Arc::clone(&mode);
        let server = Self::serve(folder, move |request| {
            let (s3, turn, mode) = (s3.clone(), Arc::clone(&turn), *current.lock().unwrap());
            async move { through(&s3, &turn, mode, request).await }
        });
        Self { mode, ..server }
    }

    /// From now on it is `Plain`, or `OneAtATime`.
    pub(crate) fn switch_to(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// A server that answers everything with this status and these headers, and the body given.
    fn scripted(
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        body: String,
    ) -> Self {
        Self::serve(tempfile::tempdir().unwrap(), move |_| {
            let body = body.clone();
            async move {
                let mut answer = Response::builder().status(status);
                for (name, value) in headers {
                    answer = answer.header(*name, *value);
                }
                // A stream has no length of its own, so that a header can claim another one.
                let frame = Ok(hyper::body::Frame::data(Bytes::from(body)));
                let body = StreamBody::new(futures::stream::iter([frame]));
                answer.body(body.boxed_unsync()).unwrap()
            }
        })
    }

    fn serve<F>(
        folder: tempfile::TempDir,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Requests::default();
        let log = Arc::clone(&requests);
        // The thread ends with the process; a test that is over sends nothing any more.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let mut connections = JoinSet::new();
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let (answer, log) = (answer.clone(), Arc::clone(&log));
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (method, path) =
                            (request.method().to_string(), request.uri().to_string());
                        log.lock().unwrap().push((method, path, request.headers().clone()));
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    connections.spawn(async move {
                        let server =
                            hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                        // A client that goes away is no fault of the server.
                        let _ = server.serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
        });
        let mode = Arc::new(Mutex::new(Mode::Plain));
        Self { endpoint, folder, requests, mode }
    }

    async fn storage(&self, secret: &str) -> (tempfile::TempDir, Storage) {
        self.observed(secret, nobody()).await
    }

    async fn observed(&self, secret: &str, observer: Observer) -> (tempfile::TempDir, Storage) {
        let folder = tempfile::tempdir().unwrap();
        let credentials = folder.path().join("credentials");
        write_credentials(&credentials, "key", secret);
        (folder, open(&self.endpoint, Some(&credentials), observer).await)
    }
}

/// Takes the condition away after the signature was checked.
struct Forgetful;

impl S3Access for Forgetful {
    fn put_object<'a, 'b, 'c>(
        &'a self,
        request: &'b mut S3Request<PutObjectInput>,
    ) -> BoxFuture<'c, S3Result<()>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        request.input.if_none_match = None;
        Box::pin(async { Ok(()) })
    }
}

async fn through(
    s3: &S3Service,
    turn: &tokio::sync::Mutex<()>,
    mode: Mode,
    request: Request<Incoming>,
) -> Answer {
    let _turn = if mode == Mode::OneAtATime { Some(turn.lock().await) } else { None };
    let answer = s3.call(request.map(s3s::Body::from)).await;
    let answer = answer.unwrap_or_else(|_| panic!("the server in this process failed"));
    answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync())
}

pub(crate) fn write_credentials(path: &Path, key: &str, secret: &str) {
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    std::fs::write(path, text).unwrap();
}

async fn open(endpoint: &str, credentials: Option<&Path>, observer: Observer) -> Storage {
    open_with(endpoint, credentials, None, observer).await
}

async fn open_with(
    endpoint: &str,
    credentials: Option<&Path>,
    server_side_encryption: Option<settings::ServerSideEncryption>,
    observer: Observer,
) -> Storage {
    let location = settings::Location::S3(settings::S3 {
        server_side_encryption,
        endpoint: Some(endpoint.to_owned()),
        region: "us-east-1".to_owned(),
        bucket: "hub-dr".to_owned(),
        prefix: "eu-hubs/".to_owned(),
        path_style: true,
        ca_file: None,
        credentials_file: credentials.map(Path::to_owned),
    });
    Storage::open(&location, observer).await.unwrap()
}

async fn bytes(storage: &Storage, key: &str) -> Option<Bytes> {
    storage.get(key, 1 << 20).await.unwrap().map(|stored| stored.bytes)
}

#[tokio::test]
async fn objects_are_created_read_listed_and_deleted() {
    let server = Server::start(Mode::Plain);
    let (_folder, storage) = server.storage("secret").await;
    assert_eq!(storage.location(), "s3://hub-dr/eu-hubs/");
    assert_eq!(bytes(&storage, "journal/1").await, None);
    assert_eq!(storage.create("journal/1", "a".into()).await.unwrap(), Created::Yes);
    assert_eq!(storage.create("journal/1", "b".into()).await.unwrap(), Created::Exists);
    assert_eq!(bytes(&storage, "journal/1").await.unwrap(), "a");
    let stored = storage.get("journal/1", 1).await.unwrap().unwrap();
    assert!(stored.now.duration_since(stored.modified).as_secs().abs() < 60, "{stored:?}");
    storage.put("beats/eu-1", "1".into()).await.unwrap();
    storage.put("beats/eu-1", "22".into()).await.unwrap();
    let all = storage.list("", None).await.unwrap();
    let all: Vec<_> = all.iter().map(|entry| (entry.key.as_str(), entry.size)).collect();
    assert_eq!(all, [("beats/eu-1", 2), ("journal/1", 1)]);
    storage.delete("beats/eu-1").await.unwrap();
    storage.delete("beats/eu-1").await.unwrap();
    assert_eq!(bytes(&storage, "beats/eu-1").await, None);
    assert!(server.folder.path().join("hub-dr/eu-hubs/journal/1").exists(), "below the prefix");
}

#[tokio::test]
async fn a_large_pack_comes_back_as_it_was_and_one_above_the_limit_is_refused() {
    let server = Server::start(Mode::Plain);
    let (_folder, storage) = server.storage("secret").await;
    let pack: Bytes = (0..9_000_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<u8>>().into();
    assert_eq!(storage.create("packs/1", pack.clone()).await.unwrap(), Created::Yes);
    let stored = storage.get("packs/1", pack.len() as u64).await.unwrap().unwrap();
    assert!(stored.bytes == pack);
    let error = storage.get("packs/1", pack.len() as u64 - 1).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_upload_carries_its_sha_256_in_a_plain_header() {
    let server = Server::start(Mode::Plain);
    let (_folder, storage) = server.storage("secret").await;
    storage.create("repo", "abc".into()).await.unwrap();
    let requests = server.requests.lock().unwrap().clone();
    let [(method, path, headers)] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((method.as_str(), path.split('?').next().unwrap()), ("PUT", "/hub-dr/eu-hubs/repo"));
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let sha256 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    assert_eq!(header("x-amz-checksum-sha256").as_deref(), Some(sha256));
    assert_eq!(header("if-none-match").as_deref(), Some("*"));
    assert_eq!(header("content-length").as_deref(), Some("3"));
    for unwanted in ["x-amz-trailer", "transfer-encoding", "content-encoding"] {
        assert_eq!(header(unwanted), None, "{unwanted}");
    }
}

/// The server here does not know them; what counts is that they are sent, and signed.
#[tokio::test]
async fn uploads_ask_for_server_side_encryption_and_carry_the_session_token() {
    use settings::ServerSideEncryption::{Aes256, Kms};
    let server = Server::scripted(200, &[("content-length", "0")], String::new());
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    write_credentials(&credentials, "key", "secret");
    let mut text = std::fs::read_to_string(&credentials).unwrap();
    text.push_str("aws_session_token = session\n");
    std::fs::write(&credentials, text).unwrap();
    for (asked, kind, key) in [
        (None, None, None),
        (Some(Aes256), Some("AES256"), None),
        (Some(Kms { key_id: None }), Some("aws:kms"), None),
        (Some(Kms { key_id: Some("alias/hub".to_owned()) }), Some("aws:kms"), Some("alias/hub")),
    ] {
        let storage = open_with(&server.endpoint, Some(&credentials), asked, nobody()).await;
        storage.create("repo", "abc".into()).await.unwrap();
        let (_, _, headers) = server.requests.lock().unwrap().last().cloned().unwrap();
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        let name = "x-amz-server-side-encryption";
        assert_eq!(header(name), kind);
        assert_eq!(header(&format!("{name}-aws-kms-key-id")), key);
        assert_eq!(header("x-amz-security-token"), Some("session"));
        let signed = header("authorization").unwrap_or_default();
        assert_eq!(signed.contains(name), kind.is_some(), "{signed}");
    }
}

#[tokio::test]
async fn a_listing_goes_over_many_pages() {
    let server = Server::start(Mode::Plain);
    let folder = server.folder.path().join("hub-dr/eu-hubs/journal");
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..2_300 {
        std::fs::write(folder.join(format!("{n:020}")), "x").unwrap();
    }
    let (_folder, storage) = server.storage("secret").await;
    let all = storage.list("journal/", None).await.unwrap();
    assert_eq!(all.len(), 2_300);
    assert!(all.is_sorted_by(|a, b| a.key < b.key));
    let rest = storage.list("journal/", Some(&all[2_289].key)).await.unwrap();
    assert_eq!(rest, all[2_290..]);
    let page = storage.list_page("journal/", None).await.unwrap();
    assert_eq!((page.entries.len(), page.next.as_ref()), (1_000, Some(&all[999].key)));
}

#[tokio::test]
async fn the_probe_accepts_an_atomic_storage_and_tidies_up() {
    let server = Server::start(Mode::OneAtATime);
    let (_folder, storage) = server.storage("secret").await;
    let verdict = probe::race(&storage, "n1").await.unwrap();
    assert!(verdict.atomic, "{verdict:?}");
    assert!(storage.list("probes/", None).await.unwrap().is_empty());

    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(&directory(folder.path()), nobody()).await.unwrap();
    let verdict = probe::race(&storage, "n1").await.unwrap();
    assert!(verdict.atomic, "{verdict:?}");
    assert!(storage.list("", None).await.unwrap().is_empty());
    let absent = directory(&folder.path().join("absent"));
    let storage = Storage::open(&absent, nobody()).await.unwrap();
    let error = probe::race(&storage, "n1").await.unwrap_err();
    assert_eq!(error.class(), Class::Refused, "no folder, no verdict: {error}");
}

fn directory(path: &Path) -> settings::Location {
    settings::Location::Directory(path.to_owned())
}

#[tokio::test]
async fn the_probe_rejects_a_storage_that_looks_first_and_writes_then() {
    let server = Server::start(Mode::Plain);
    let (_folder, storage) = server.storage("secret").await;
    assert_eq!(storage.create("x", "a".into()).await.unwrap(), Created::Yes);
    assert_eq!(
        storage.create("x", "b".into()).await.unwrap(),
        Created::Exists,
        "one by one it is fine"
    );
    let verdict = probe::race(&storage, "n1").await.unwrap();
    assert!(!verdict.atomic && verdict.why.contains("told that they had won"), "{verdict:?}");
    assert!(storage.list("probes/", None).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_probe_rejects_a_storage_that_ignores_the_condition() {
    let server = Server::start(Mode::ConditionIgnored);
    let (_folder, storage) = server.storage("secret").await;
    let verdict = probe::race(&storage, "n1").await.unwrap();
    assert!(!verdict.atomic && verdict.why.starts_with("16 of 16 creators"), "{verdict:?}");
}

#[tokio::test]
async fn separate_handles_use_separate_connections() {
    let server = Server::start(Mode::Plain);
    let (_folder, storage) = server.storage("secret").await;
    let handles = storage.separate(16);
    for found in join_all(handles.iter().map(|handle| handle.get("repo", 1))).await {
        assert!(found.unwrap().is_none());
    }
    assert_eq!(server.requests.lock().unwrap().len(), 16);
}

#[tokio::test]
async fn new_credentials_in_the_file_are_used_at_once() {
    let server = Server::start(Mode::Plain);
    let (folder, storage) = server.storage("wrong").await;
    let error = storage.get("repo", 1).await.unwrap_err();
    assert!(matches!(error, StorageError::Denied { .. }), "{}", chain(&error));
    assert!(error.to_string().contains("does not belong"), "{error}");
    assert!(!chain(&error).contains("wrong"), "the secret itself is not shown");
    assert_eq!(server.requests.lock().unwrap().len(), 1, "the same credentials are not sent twice");

    // Same length, and perhaps within the resolution of the file's time: the 403 must do.
    write_credentials(&folder.path().join("credentials"), "key", "other");
    storage.get("repo", 1).await.unwrap_err();
    write_credentials(&folder.path().join("credentials"), "key", "secret");
    assert!(storage.get("repo", 1).await.unwrap().is_none());

    std::fs::write(folder.path().join("credentials"), "[default]\naws_access_key_id\n").unwrap();
    let error = storage.get("repo", 1).await.unwrap_err();
    assert!(matches!(error, StorageError::Credentials { .. }), "{}", chain(&error));
    std::fs::remove_file(folder.path().join("credentials")).unwrap();
    let error = storage.get("repo", 1).await.unwrap_err();
    assert!(matches!(error, StorageError::Credentials { .. }), "{}", chain(&error));
    write_credentials(&folder.path().join("credentials"), "key", "secret");
    assert!(storage.get("repo", 1).await.unwrap().is_none());
}

#[tokio::test]
async fn errors_of_the_server_are_sorted_by_what_to_do() {
    let xml = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>")
    };
    for (status, headers, body, class, text) in [
        (503, &[("retry-after", "3")][..], xml("SlowDown"), Class::Transient, "overloaded"),
        (500, &[], xml("InternalError"), Class::Transient, "overloaded"),
        (502, &[], "<html>Bad gateway</html>".to_owned(), Class::Transient, "overloaded"),
        (409, &[], xml("ConditionalRequestConflict"), Class::Conflict, "another write"),
        (403, &[], xml("AccessDenied"), Class::Refused, "may not do this"),
        (403, &[], xml("InvalidAccessKeyId"), Class::Refused, "does not know"),
        (403, &[], xml("ExpiredToken"), Class::Refused, "expired"),
        (403, &[], xml("RequestTimeTooSkewed"), Class::Transient, "clocks"),
        (404, &[], xml("NoSuchBucket"), Class::Refused, "no such bucket"),
        (404, &[], "not found".to_owned(), Class::Refused, "rejects"),
        (
            301,
            &[("location", "http://127.0.0.1:1/")],
            xml("PermanentRedirect"),
            Class::Refused,
            "elsewhere",
        ),
        (307, &[("location", "http://127.0.0.1:1/")], String::new(), Class::Refused, "elsewhere"),
    ] {
        let server = Server::scripted(status, headers, body);
        let (_folder, storage) = server.storage("secret").await;
        for error in [
            storage.create("journal/1", "a".into()).await.unwrap_err(),
            storage.get("journal/1", 1).await.unwrap_err(),
            storage.list("journal/", None).await.unwrap_err(),
            storage.delete("journal/1").await.unwrap_err(),
        ] {
            assert_eq!(error.class(), class, "{status}: {}", chain(&error));
            assert!(error.to_string().contains(text), "{status}: {}", chain(&error));
        }
        assert_eq!(server.requests.lock().unwrap().len(), 4, "{status}: one attempt each");
    }
    let server = Server::scripted(412, &[], xml("PreconditionFailed"));
    let (_folder, storage) = server.storage("secret").await;
    assert_eq!(storage.create("journal/1", "a".into()).await.unwrap(), Created::Exists);
}

#[tokio::test]
async fn a_storage_that_is_away_gives_a_transient_error_and_no_verdict() {
    let storage = open("http://127.0.0.1:1", Some(Path::new("/dev/null")), nobody()).await;
    let error = storage.get("repo", 1).await.unwrap_err();
    assert!(matches!(error, StorageError::Credentials { .. }), "{}", chain(&error));

    let folder = tempfile::tempdir().unwrap();
    write_credentials(&folder.path().join("credentials"), "key", "secret");
    let storage =
        open("http://127.0.0.1:1", Some(&folder.path().join("credentials")), nobody()).await;
    let error = storage.get("repo", 1).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{}", chain(&error));
    assert!(chain(&error).contains("refused"), "the cause is named: {}", chain(&error));
    assert_eq!(probe::race(&storage, "n1").await.unwrap_err().class(), Class::Transient);
}

#[tokio::test]
async fn every_request_is_reported_with_operation_and_class() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let sink = Arc::clone(&seen);
    let server = Server::start(Mode::Plain);
    let observer: Observer = Arc::new(move |operation, code, seconds| {
        assert!(seconds >= 0.0);
        sink.lock().unwrap().insert((operation, code));
    });
    let (_folder, storage) = server.observed("secret", observer).await;
    storage.get("repo", 1).await.unwrap();
    storage.create("repo", "a".into()).await.unwrap();
    storage.create("repo", "a".into()).await.unwrap();
    storage.get("repo", 1).await.unwrap();
    storage.put("beats/a", "a".into()).await.unwrap();
    storage.list("", None).await.unwrap();
    storage.delete("repo").await.unwrap();
    let expected = [
        ("create", "2xx"),
        ("create", "4xx"),
        ("delete", "2xx"),
        ("get", "2xx"),
        ("get", "4xx"),
        ("list", "2xx"),
        ("put", "2xx"),
    ];
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from(expected));
}

#[tokio::test]
async fn a_listing_that_cannot_be_true_is_refused_and_foreign_names_are_left_out() {
    let xml = |keys: &[&str], more: bool| {
        let modified = "<LastModified>2026-11-21T10:00:00.000Z</LastModified>";
        let object =
            |key: &&str| format!("<Contents><Key>{key}</Key>{modified}<Size>1</Size></Contents>");
        let contents = keys.iter().map(object).collect::<Vec<_>>().concat();
        format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{contents}</ListBucketResult>")
    };
    for (keys, more, expected) in [
        (&["eu-hubs/journal/1", "eu-hubs/journal/2"][..], false, Ok(2)),
        (&["eu-hubs/journal/1", "eu-hubs/journal/2 copy", "eu-hubs/journal/3/"], false, Ok(1)),
        (&["eu-hubs/journal/2", "eu-hubs/journal/1"], false, Err("not in order")),
        (&["eu-hubs/journal/1", "eu-hubs/journal/1"], false, Err("not in order")),
        (&["eu-hubs/journal/0"], false, Err("not in order")),
        (&["eu-hubs/packs/1"], false, Err("elsewhere")),
        (&["us-hubs/journal/1"], false, Err("elsewhere")),
        (&[], true, Err("says there is more")),
    ] {
        let server = Server::scripted(200, &[], xml(keys, more));
        let (_folder, storage) = server.storage("secret").await;
        match (storage.list("journal/", Some("journal/0")).await, expected) {
            (Ok(entries), Ok(count)) => assert_eq!(entries.len(), count, "{keys:?}"),
            (Err(error), Err(text)) => {
                assert_eq!(error.class(), Class::Damaged, "{keys:?}");
                assert!(error.to_string().contains(text), "{keys:?}: {error}");
            }
            (is, _) => panic!("{keys:?}: {is:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_lacks_its_times_is_no_object() {
    const HALF: &[(&str, &str)] =
        &[("content-length", "10"), ("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT")];
    let server = Server::scripted(200, &[("content-length", "4")], "half".to_owned());
    let (_folder, storage) = server.storage("secret").await;
    let error = storage.get("repo", 100).await.unwrap_err();
    assert_eq!(error.class(), Class::Damaged, "no Last-Modified: {}", chain(&error));

    let server = Server::scripted(200, HALF, "half".to_owned());
    let (_folder, storage) = server.storage("secret").await;
    let error = storage.get("repo", 100).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{}", chain(&error));
}
