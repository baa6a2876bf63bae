//! The S3 back end, and the only file that names the SDK.
//!
//! One attempt and one time-out per call: the SDK's retries, time-outs and stalled-stream watch are
//! off, because bodies are whole buffers and the time-out grows with their size. The only exception
//! is a 403 while the credentials file holds other credentials than the refused request was signed
//! with: then the same request is sent once more, at once. The SDK learns the difference of the
//! clocks from each answer and signs the next request with it.
//!
//! What may go wrong: a 404 that is not `NoSuchKey` comes from a wrong endpoint or a lost bucket and
//! must not look like an empty repository; a redirect is not followed, for the request would take
//! its signature to another host; a bucket without order in its listings is refused.

use super::error::{Answer, Cause};
use super::{ANSWER, Act, Created, Entry, Page, StorageError, Stored, check_key, patience};
use crate::config::settings;
use crate::observe::{Observation, Observer};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, Object, ServerSideEncryption as SseKind};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod credentials;
mod witness;

use credentials::Stamp;
use witness::{Seen, Witness};

/// What S3 gives at most in one page.
const KEYS_A_PAGE: i32 = 1000;

/// Room that is made for a body at once; more only as bytes arrive, whatever a header promised.
const FIRST_BUFFER: u64 = 1 << 20;

#[derive(Clone)]
pub struct S3 {
    shared: Arc<Shared>,
}

struct Shared {
    settings: settings::S3,
    location: String,
    tls: TlsContext,
    /// With AWS' default chain of credentials, or with none when they come from a file.
    client: Client,
    /// The client with the credentials of the file, as last read.
    session: tokio::sync::Mutex<Option<Session>>,
    observer: Observer,
}

#[derive(Clone)]
struct Session {
    client: Client,
    credentials: Credentials,
    stamp: Stamp,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3({})", self.shared.location)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no complete answer within {0:?}")]
struct TimedOut(Duration);

impl S3 {
    pub(super) async fn open(
        settings: &settings::S3,
        observer: Observer,
    ) -> Result<Self, StorageError> {
        let location = format!("s3://{}/{}", settings.bucket, settings.prefix);
        let tls = trust(settings).map_err(|source| StorageError::Configuration {
            what: "storage.s3.caFile".to_owned(),
            location: location.clone(),
            source,
        })?;
        let region = Region::new(settings.region.clone());
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .http_client(http_client(&tls))
            .force_path_style(settings.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // With a named algorithm and a body in memory this is one plain header. Trailers in
            // chunks, which older gateways refuse, are for streams.
            .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        if settings.credentials_file.is_none() {
            // The chain talks to AWS' own services, which a private authority does not vouch for.
            let chain = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .region(region)
                .http_client(http_client(&TlsContext::default()))
                .load()
                .await;
            config.set_credentials_provider(chain.credentials_provider());
        }
        let client = Client::from_conf(config.build());
        let session = tokio::sync::Mutex::new(None);
        let settings = settings.clone();
        Ok(Self { shared: Arc::new(Shared { settings, location, tls, client, session, observer }) })
    }

    pub(super) fn location(&self) -> &str {
        &self.shared.location
    }

    pub(super) fn separate(&self) -> Self {
        let Shared { settings, location, tls, client, session: _, observer } = &*self.shared;
        let config = client.config().to_builder().http_client(http_client(tls)).build();
        Self {
            shared: Arc::new(Shared {
                settings: settings.clone(),
                location: location.clone(),
                tls: tls.clone(),
                client: Client::from_conf(config),
                session: tokio::sync::Mutex::new(None),
                observer: Arc::clone(observer),
            }),
        }
    }

    pub(super) async fn create(&self, act: Act, bytes: Bytes) -> Result<Created, StorageError> {
        match self.upload(&act, bytes, Some("*")).await? {
            Ok(()) => Ok(Created::Yes),
            Err(answer) if answer.status == 412 => Ok(Created::Exists),
            Err(answer) => Err(answer.into_error(act)),
        }
    }

    pub(super) async fn put(&self, act: Act, bytes: Bytes) -> Result<(), StorageError> {
        self.upload(&act, bytes, None).await?.map_err(|answer| answer.into_error(act))
    }

    async fn upload(
        &self,
        act: &Act,
        bytes: Bytes,
        if_none_match: Option<&str>,
    ) -> Result<Result<(), Answer>, StorageError> {
        let patience = patience(bytes.len() as u64);
        let mut observation = Observation::start(&self.shared.observer, act.operation);
        let (encryption, key) = match &self.shared.settings.server_side_encryption {
            Some(settings::ServerSideEncryption::Aes256) => (Some(SseKind::Aes256), None),
            Some(settings::ServerSideEncryption::Kms { key_id }) => {
                (Some(SseKind::AwsKms), key_id.clone())
            }
            None => (None, None),
        };
        let answer = self
            .attempt(act, patience, &mut observation, |client, witness| {
                client
                    .put_object()
                    .set_server_side_encryption(encryption.clone())
                    .set_ssekms_key_id(key.clone())
                    .bucket(&self.shared.settings.bucket)
                    .key(self.full(&act.key))
                    .set_if_none_match(if_none_match.map(str::to_owned))
                    .checksum_algorithm(ChecksumAlgorithm::Sha256)
                    .body(ByteStream::from(bytes.clone()))
                    .customize()
                    .interceptor(witness)
                    .send()
            })
            .await?;
        Ok(answer.map(|_| ()))
    }

    pub(super) async fn get(&self, act: Act, limit: u64) -> Result<Option<Stored>, StorageError> {
        let mut observation = Observation::start(&self.shared.observer, act.operation);
        let answer = self
            .attempt(&act, ANSWER, &mut observation, |client, witness| {
                client
                    .get_object()
                    .bucket(&self.shared.settings.bucket)
                    .key(self.full(&act.key))
                    .customize()
                    .interceptor(witness)
                    .send()
            })
            .await?;
        let (output, seen) = match answer {
            Ok(answer) => answer,
            Err(answer) if answer.code == "NoSuchKey" => return Ok(None),
            Err(answer) => return Err(answer.into_error(act)),
        };
        let act = Box::new(act);
        let unsound = |what| StorageError::Unsound { act: act.clone(), what };
        let modified = output
            .last_modified()
            .and_then(timestamp)
            .ok_or_else(|| unsound("the answer lacks a usable Last-Modified"))?;
        let now = seen.date.ok_or_else(|| unsound("the answer lacks a usable Date"))?;
        let size = output.content_length().and_then(|length| u64::try_from(length).ok());
        let size = size.ok_or_else(|| unsound("the answer lacks its length"))?;
        if size > limit {
            return Err(StorageError::TooLarge { act, size, limit });
        }
        let patience = patience(size);
        let read = match tokio::time::timeout(patience, read(output.body, size)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(source)) => Err(source),
            Err(_) => Err(Cause::from(TimedOut(patience))),
        };
        match read {
            Ok(bytes) => Ok(Some(Stored { bytes, modified, now })),
            Err(source) => {
                observation.broken();
                Err(StorageError::NoAnswer { act, source })
            }
        }
    }

    pub(super) async fn list_page(
        &self,
        act: Act,
        after: Option<&str>,
    ) -> Result<Page, StorageError> {
        let mut observation = Observation::start(&self.shared.observer, act.operation);
        let answer = self
            .attempt(&act, ANSWER, &mut observation, |client, witness| {
                client
                    .list_objects_v2()
                    .bucket(&self.shared.settings.bucket)
                    .prefix(self.full(&act.key))
                    .set_start_after(after.map(|after| self.full(after)))
                    .max_keys(KEYS_A_PAGE)
                    .customize()
                    .interceptor(witness)
                    .send()
            })
            .await?;
        let (output, _) = match answer {
            Ok(answer) => answer,
            Err(answer) => return Err(answer.into_error(act)),
        };
        let more = output.is_truncated() == Some(true);
        page(output.contents(), more, &self.shared.settings.prefix, &act.key, after)
            .map_err(|what| StorageError::Unsound { act: Box::new(act), what })
    }

    pub(super) async fn delete(&self, act: Act) -> Result<(), StorageError> {
        let mut observation = Observation::start(&self.shared.observer, act.operation);
        let answer = self
            .attempt(&act, ANSWER, &mut observation, |client, witness| {
                client
                    .delete_object()
                    .bucket(&self.shared.settings.bucket)
                    .key(self.full(&act.key))
                    .customize()
                    .interceptor(witness)
                    .send()
            })
            .await?;
        match answer {
            Ok(_) => Ok(()),
            Err(answer) if answer.code == "NoSuchKey" => Ok(()),
            Err(answer) => Err(answer.into_error(act)),
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.shared.settings.prefix)
    }

    /// Sends the request once; twice when it was refused and the file holds new credentials by now.
    /// The inner result is a definite answer of the server.
    async fn attempt<T, E, F>(
        &self,
        act: &Act,
        patience: Duration,
        observation: &mut Observation,
        call: impl Fn(Client, Witness) -> F,
    ) -> Result<Result<(T, Seen), Answer>, StorageError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let session = self.session(act).await?;
        let mut client =
            session.as_ref().map_or_else(|| self.shared.client.clone(), |s| s.client.clone());
        let mut may_repeat = session;
        loop {
            let witness = Witness::default();
            let Ok(result) = tokio::time::timeout(patience, call(client, witness.clone())).await
            else {
                let source = Box::new(TimedOut(patience));
                return Err(StorageError::NoAnswer { act: Box::new(act.clone()), source });
            };
            let seen = witness.seen();
            if let Some(status) = seen.status {
                observation.answered(status);
            }
            let answer = match result {
                Ok(output) => return Ok(Ok((output, seen))),
                Err(error) => definite(error, &seen, act)?,
            };
            if answer.status == 403
                && let Some(refused) = may_repeat.take()
                && let Some(renewed) = self.renewed(act, &refused).await?
            {
                tracing::info!(
                    location = self.shared.location,
                    "the storage refused the credentials, and their file holds new ones: trying those"
                );
                client = renewed;
                continue;
            }
            return Ok(Err(answer));
        }
    }

    /// The client with the credentials of the file, which is read again when it changed.
    async fn session(&self, act: &Act) -> Result<Option<Session>, StorageError> {
        let Some(file) = &self.shared.settings.credentials_file else { return Ok(None) };
        let stamp = Stamp::of(file).await.map_err(|source| unusable(act, file, source))?;
        let mut session = self.shared.session.lock().await;
        if let Some(session) = &*session
            && session.stamp == stamp
        {
            return Ok(Some(session.clone()));
        }
        let credentials =
            credentials::load(file).await.map_err(|source| unusable(act, file, source))?;
        Ok(Some(session.insert(self.with_credentials(credentials, stamp)).clone()))
    }

    /// None: the file still holds what was refused.
    async fn renewed(&self, act: &Act, refused: &Session) -> Result<Option<Client>, StorageError> {
        let Some(file) = &self.shared.settings.credentials_file else { return Ok(None) };
        let credentials =
            credentials::load(file).await.map_err(|source| unusable(act, file, source))?;
        if credentials::same(&credentials, &refused.credentials) {
            return Ok(None);
        }
        let renewed = self.with_credentials(credentials, refused.stamp.clone());
        let client = renewed.client.clone();
        *self.shared.session.lock().await = Some(renewed);
        Ok(Some(client))
    }

    fn with_credentials(&self, credentials: Credentials, stamp: Stamp) -> Session {
        let config = self.shared.client.config().to_builder();
        let client = Client::from_conf(config.credentials_provider(credentials.clone()).build());
        Session { client, credentials, stamp }
    }
}

/// The server's own answer, or the error that there was none.
fn definite<E>(
    error: SdkError<E, HttpResponse>,
    seen: &Seen,
    act: &Act,
) -> Result<Answer, StorageError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let answer = |status, code: &str, message: &str| Answer {
        retry_after: seen.retry_after,
        ..Answer::new(status, code, message)
    };
    if let SdkError::ServiceError(service) = &error {
        let (status, error) = (service.raw().status().as_u16(), service.err());
        let code = error.code().unwrap_or_default();
        return Ok(answer(status, code, error.message().unwrap_or_default()));
    }
    // An error page of a proxy in between is an answer, too.
    if let SdkError::ResponseError(response) = &error
        && !response.raw().status().is_success()
    {
        return Ok(answer(response.raw().status().as_u16(), "", ""));
    }
    let act = Box::new(act.clone());
    let never_sent = matches!(error, SdkError::ConstructionFailure(_));
    let source = error.into_source().unwrap_or_else(Into::into);
    if never_sent {
        return Err(StorageError::Rejected { act, source });
    }
    Err(StorageError::NoAnswer { act, source })
}

async fn read(mut body: ByteStream, size: u64) -> Result<Bytes, Cause> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(size.min(FIRST_BUFFER))?);
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() as u64 > size {
            return Err("the body is longer than its header says".into());
        }
    }
    if bytes.len() as u64 != size {
        return Err("the body is shorter than its header says".into());
    }
    Ok(bytes.freeze())
}

/// Turns what the server listed into keys of the repository, or says why it cannot be true.
fn page(
    contents: &[Object],
    more: bool,
    root: &str,
    prefix: &str,
    after: Option<&str>,
) -> Result<Page, &'static str> {
    let mut entries = Vec::with_capacity(contents.len());
    let mut last = after.map(str::to_owned);
    for object in contents {
        let key = object.key().and_then(|key| key.strip_prefix(root));
        let key = key.filter(|key| key.starts_with(prefix)).ok_or("it lists a key of elsewhere")?;
        // Paging goes on after the last key: without order it would skip some or never end.
        if last.as_deref().is_some_and(|last| key <= last) {
            return Err("its listing is not in order");
        }
        last = Some(key.to_owned());
        if check_key(key).is_err() {
            continue;
        }
        let size = object.size().and_then(|size| u64::try_from(size).ok());
        let modified = object.last_modified().and_then(timestamp);
        let (Some(size), Some(modified)) = (size, modified) else {
            return Err("its listing lacks a size or a time");
        };
        entries.push(Entry { key: key.to_owned(), size, modified });
    }
    if more && contents.is_empty() {
        return Err("it lists nothing but says there is more");
    }
    Ok(Page { entries, next: last.filter(|_| more) })
}

fn timestamp(time: &DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// With an own authority only that one is trusted.
fn trust(settings: &settings::S3) -> Result<TlsContext, Cause> {
    let store = match &settings.ca_file {
        Some(file) => {
            let pem = std::fs::read(file)?;
            if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
                return Err(format!("{} holds no certificate in PEM form", file.display()).into());
            }
            TrustStore::empty().with_pem_certificate(pem)
        }
        None => TrustStore::default(),
    };
    Ok(TlsContext::builder().with_trust_store(store).build()?)
}

/// Its connections are its own. Plain HTTP works as well, when the endpoint says so.
fn http_client(tls: &TlsContext) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls.clone())
        .build_https()
}

fn unusable(act: &Act, file: &Path, source: Cause) -> StorageError {
    let file = file.display().to_string();
    StorageError::Credentials { act: Box::new(act.clone()), file, source }
}
