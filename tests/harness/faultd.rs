//! An HTTP fault proxy on loopback, between a client and an S3 or an API server: it understands one request
//! well enough to apply it and lose the answer, to deliver it later, or to answer with what was true
//! before. What it did is in its history, for a checker that trusts nobody's word.
//!
//! Host and signed headers pass unchanged, so a real server accepts the signature. What may go wrong:
//! the server cannot be reached, and then the client's connection ends without an answer, as it would
//! have without a proxy. Before an API server it speaks TLS on both sides, with that server's own
//! certificate; watches pass through as they come.

use super::ports::Port;
use super::{Result, eventually};
use bytes::Bytes;
use futures::StreamExt as _;
use http::request::Parts;
use http::{Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::Request;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub mod fault;
pub mod history;
mod sign;

use fault::{Fault, Rule, Side};
use history::{Exchange, History};

/// No test holds a request for longer.
const REST_DEADLINE: Duration = Duration::from_mins(1);

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Sender = hyper::client::conn::http1::SendRequest<Body>;

/// Ends with the value; requests that it still holds are then never delivered.
pub struct Faultd {
    /// Stands in the place of the server's endpoint in a client's configuration.
    pub endpoint: String,
    shared: Arc<Shared>,
    /// Its own, so that a test with one thread does not stop it. Taken when dropped.
    runtime: Option<Runtime>,
    _port: Port,
}

struct Shared {
    /// `host:port` of the server.
    server: String,
    tls: Option<Tls>,
    /// Connections to the server that wait for a request.
    idle: Mutex<Vec<Sender>>,
    /// The secret access key, for requests that have to be signed anew.
    secret: String,
    rules: Mutex<fault::Rules>,
    history: Mutex<History>,
    /// Deliveries under way or held.
    open: AtomicUsize,
}

/// Both ends of it.
struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// A request as it came, to be sent as often as need be.
#[derive(Clone)]
struct Sent {
    /// Its place in the history.
    number: u64,
    method: http::Method,
    target: http::Uri,
    headers: http::HeaderMap,
    body: Bytes,
    /// The connection to the server ends after so many bytes of the body.
    reset_at: Option<usize>,
}

/// An answer on its way to the client.
struct Received {
    status: http::StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
    /// The connection to the client ends after so many bytes of the body.
    reset_at: Option<usize>,
}

impl Faultd {
    /// Before the server at `endpoint` (`http://host:port`), without any fault.
    pub async fn start(endpoint: &str, secret: &str) -> Result<Self> {
        let server = endpoint.strip_prefix("http://").ok_or("only plain HTTP can be read")?;
        Self::begin("http", server, secret, None).await
    }

    /// Before the API server at `endpoint` (`https://127.0.0.1:port`), whose certificate, key and
    /// authority are in `folder`.
    pub async fn before_api_server(endpoint: &str, folder: &Path) -> Result<Self> {
        let server = endpoint.strip_prefix("https://").ok_or("an API server speaks TLS")?;
        Self::begin("https", server, "", Some(Tls::of(folder)?)).await
    }

    async fn begin(scheme: &str, server: &str, secret: &str, tls: Option<Tls>) -> Result<Self> {
        let port = Port::reserve()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("faultd")
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            tls,
            idle: Mutex::default(),
            secret: secret.to_owned(),
            rules: Mutex::default(),
            history: Mutex::default(),
            open: AtomicUsize::new(0),
        });
        let endpoint = format!("{scheme}://{}", port.address());
        let (address, serving) = (port.address(), Arc::clone(&shared));
        let listener = runtime.spawn(async move { TcpListener::bind(address).await }).await??;
        runtime.spawn(listen(listener, serving));
        Ok(Self { endpoint, shared, runtime: Some(runtime), _port: port })
    }

    /// From now on both tell their moments in one order. Before there is any.
    pub fn in_order_with(&self, other: &Faultd) {
        let order = lock(&other.shared.history).order();
        lock(&self.shared.history).follow(order);
    }

    pub fn add(&self, rule: Rule) {
        lock(&self.shared.rules).add(rule);
    }

    /// Takes away all rules whose keys begin so. Held requests stay held.
    pub fn heal(&self, prefix: &str) {
        lock(&self.shared.rules).heal(prefix);
    }

    /// Waits until nothing is held or under way any more.
    pub async fn rest(&self) -> Result<()> {
        let open = &self.shared.open;
        eventually(REST_DEADLINE, "faultd to rest", async || {
            (open.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await
    }

    /// The present in the history's order: how far things have come, whatever the machine's speed.
    pub fn moment(&self) -> u64 {
        lock(&self.shared.history).last()
    }

    /// Everything below `prefix`, in the order of arrival.
    pub fn history(&self, prefix: &str) -> Vec<Exchange> {
        lock(&self.shared.history).below(prefix)
    }

    /// Of what arrived after that moment.
    pub fn count_since(&self, moment: u64, look: impl Fn(&Exchange) -> bool) -> usize {
        lock(&self.shared.history).since(moment).filter(|exchange| look(exchange)).count()
    }

    /// The same, and forgets it. Only at rest.
    pub fn take(&self, prefix: &str) -> Vec<Exchange> {
        lock(&self.shared.history).take(prefix)
    }
}

impl Drop for Faultd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let handle = Handle::current();
    while let Ok((socket, _)) = listener.accept().await {
        let (shared, tls) = (Arc::clone(&shared), Arc::clone(&shared));
        let service = service_fn(move |request| serve(Arc::clone(&shared), request));
        handle.spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // Ends with an error when a fault ends it, or when the client goes away.
            if let Some(tls) = &tls.tls {
                if let Ok(socket) = tls.acceptor.accept(socket).await {
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                }
            } else {
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            }
        });
    }
}

/// An error ends the client's connection without an answer.
async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        return watch(&shared, request).await;
    }
    let (Parts { method, uri: target, headers, .. }, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut exchange = Exchange::received(&method, &target, &headers, &body);
    let fault = lock(&shared.rules).choose(&exchange);
    exchange.fault.clone_from(&fault);
    let is_head = method == http::Method::HEAD;
    let number = lock(&shared.history).push(exchange);
    let sent = Sent { number, method, target, headers, body, reset_at: None };
    let received = match fault {
        None => Some(deliver(&shared, sent).await?),
        Some(fault) => meet(&shared, fault, sent).await?,
    };
    let Some(received) = received else {
        return Err(io::Error::other("the fault leaves no answer"));
    };
    if received.reset_at.is_none() {
        let Received { status, headers, body, .. } = &received;
        lock(&shared.history).shown(number, *status, headers, body);
    }
    received.into_response(is_head)
}

/// What never ends has no place in the history, and no fault.
async fn watch(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(connect(shared).await?)
        .await
        .map_err(io::Error::other)?;
    Handle::current().spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
}

async fn connect(shared: &Shared) -> io::Result<TokioIo<Box<dyn Socket>>> {
    let socket = TcpStream::connect(&shared.server).await?;
    Ok(TokioIo::new(match &shared.tls {
        None => Box::new(socket),
        Some(tls) => {
            let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
            Box::new(tls.connector.connect(name, socket).await?)
        }
    }))
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Tls {
    fn of(folder: &Path) -> Result<Self> {
        let certificates = |name: &str| -> Result<Vec<_>> {
            let pem = CertificateDer::pem_file_iter(folder.join(name))?;
            Ok(pem.collect::<std::result::Result<_, _>>()?)
        };
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates("server.crt")?, key)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca.crt")? {
            roots.add(authority)?;
        }
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (acceptor, connector) =
            (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        Ok(Self { acceptor, connector })
    }
}

/// Lets the fault happen. None: the client hears nothing.
async fn meet(shared: &Arc<Shared>, fault: Fault, sent: Sent) -> io::Result<Option<Received>> {
    let received = match fault {
        Fault::FailBefore => return Ok(None),
        Fault::ApplyThenDrop => {
            deliver(shared, sent).await?;
            return Ok(None);
        }
        Fault::Stall => std::future::pending().await,
        Fault::ApplyThenStall => {
            deliver(shared, sent).await?;
            std::future::pending().await
        }
        Fault::Hold(time) => {
            drop(spawn(shared, sent, time));
            return Ok(None);
        }
        Fault::Reset(Side::Request, at) => {
            // Whatever the server says to half a request, nobody hears it.
            let _ = deliver(shared, Sent { reset_at: Some(at), ..sent }).await;
            return Ok(None);
        }
        Fault::Reset(Side::Answer, at) => {
            Received { reset_at: Some(at), ..deliver(shared, sent).await? }
        }
        Fault::ApplyThen { status, body } => {
            deliver(shared, sent).await?;
            scripted(status, &[], &body)?
        }
        Fault::Status { status, headers, body } => scripted(status, &headers, &body)?,
        Fault::Duplicate => {
            deliver(shared, sent.clone()).await?;
            deliver(shared, sent).await?
        }
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            deliver(shared, sent).await?
        }
        Fault::Strip(name) => {
            let sent = sign::without(sent, name, &shared.secret).map_err(io::Error::other)?;
            deliver(shared, sent).await?
        }
        Fault::Stale => {
            let before = lock(&shared.history).first_answer(sent.number);
            match before {
                Some((status, headers, body)) => Received { status, headers, body, reset_at: None },
                None => deliver(shared, sent).await?,
            }
        }
        Fault::Omit(needle) => {
            changed(shared, sent, Side::Answer, |body| fault::omit(body, &needle)).await?
        }
        Fault::Truncate(side, at) => changed(shared, sent, side, |body| cut(body, at)).await?,
        Fault::Flip(side, at) => changed(shared, sent, side, |body| fault::flip(body, at)).await?,
    };
    Ok(Some(received))
}

/// Another body on its way to the server or back, with a length that fits.
async fn changed(
    shared: &Arc<Shared>,
    mut sent: Sent,
    side: Side,
    change: impl Fn(&Bytes) -> Bytes,
) -> io::Result<Received> {
    if side == Side::Request {
        sent.body = change(&sent.body);
        sent.headers.insert(header::CONTENT_LENGTH, sent.body.len().into());
        return deliver(shared, sent).await;
    }
    let mut received = deliver(shared, sent).await?;
    received.body = change(&received.body);
    Ok(received)
}

/// Sends the request to the server and takes its whole answer. Goes on when the client is gone: what
/// was sent may be applied.
async fn deliver(shared: &Arc<Shared>, sent: Sent) -> io::Result<Received> {
    spawn(shared, sent, Duration::ZERO).await.map_err(io::Error::other)?
}

fn spawn(
    shared: &Arc<Shared>,
    sent: Sent,
    after: Duration,
) -> tokio::task::JoinHandle<io::Result<Received>> {
    let shared = Arc::clone(shared);
    shared.open.fetch_add(1, Ordering::SeqCst);
    Handle::current().spawn(async move {
        tokio::time::sleep(after).await;
        let answer = exchange(&shared, &sent).await;
        shared.open.fetch_sub(1, Ordering::SeqCst);
        answer
    })
}

async fn exchange(shared: &Shared, sent: &Sent) -> io::Result<Received> {
    let mut sender = sender(shared).await?;
    let delivery = lock(&shared.history).sent(sent.number, &sent.headers, &sent.body);
    let answer = sender.send_request(sent.to_request()?).await.map_err(io::Error::other)?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let answer = Received { status: head.status, headers: head.headers, body, reset_at: None };
    if shared.tls.is_some() && sent.reset_at.is_none() {
        lock(&shared.idle).push(sender);
    }
    lock(&shared.history).answered(
        sent.number,
        delivery,
        answer.status,
        &answer.headers,
        &answer.body,
    );
    Ok(answer)
}

/// To greet a server with TLS costs more than most requests: those connections are used again.
async fn sender(shared: &Shared) -> io::Result<Sender> {
    loop {
        let Some(mut sender) = lock(&shared.idle).pop() else { break };
        if sender.ready().await.is_ok() {
            return Ok(sender);
        }
    }
    let handshake = hyper::client::conn::http1::handshake(connect(shared).await?);
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    // It ends with its sender.
    Handle::current().spawn(connection);
    Ok(sender)
}

impl Sent {
    fn to_request(&self) -> io::Result<Request<Body>> {
        let body = stream(&self.body, self.reset_at);
        let mut request = Request::builder().method(&self.method).uri(&self.target);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        request.body(body).map_err(io::Error::other)
    }
}

impl Received {
    fn into_response(mut self, is_head: bool) -> io::Result<Response<Body>> {
        for hop in [header::CONNECTION, header::TRANSFER_ENCODING] {
            self.headers.remove(hop);
        }
        if !is_head {
            self.headers.insert(header::CONTENT_LENGTH, self.body.len().into());
        }
        let mut response = Response::builder().status(self.status);
        if let Some(headers) = response.headers_mut() {
            *headers = self.headers;
        }
        response.body(stream(&self.body, self.reset_at)).map_err(io::Error::other)
    }
}

fn scripted(status: u16, headers: &[(&'static str, String)], body: &str) -> io::Result<Received> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    let response = response.body(()).map_err(io::Error::other)?;
    let (head, ()) = response.into_parts();
    let body = Bytes::copy_from_slice(body.as_bytes());
    Ok(Received { status: head.status, headers: head.headers, body, reset_at: None })
}

/// The whole body, or its beginning and then the end of the connection.
fn stream(body: &Bytes, reset_at: Option<usize>) -> Body {
    let Some(at) = reset_at else {
        return Full::new(body.clone()).map_err(|never| match never {}).boxed_unsync();
    };
    let begin = Ok(Frame::data(cut(body, at)));
    // What was written has to leave before the end: hyper drops its buffer with the connection.
    let end = futures::stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::other("reset by a fault"))
    });
    StreamBody::new(futures::stream::iter([begin]).chain(end)).boxed_unsync()
}

fn cut(body: &Bytes, at: usize) -> Bytes {
    body.slice(..at.min(body.len()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
