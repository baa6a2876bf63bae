//! One request to the API server: bytes out, bytes in, every failure sorted.
//!
//! Goes through the client's own layers (authentication, TLS) but never through its typed calls:
//! those parse what nobody reads, and log whole bodies when they cannot.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(super) enum KubeError {
    #[error("the API server answered {code} {reason}")]
    Api {
        code: u16,
        reason: String,
        message: String,
        details: Details,
        retry_after: Option<Duration>,
    },
    #[error("failed to reach the API server")]
    Transport { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("failed to read the API server's answer")]
    Unreadable { source: serde_json::Error },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Details {
    pub(super) kind: String,
    pub(super) causes: Vec<Cause>,
    pub(super) retry_after_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cause {
    pub(super) reason: String,
    pub(super) field: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: Option<String>,
    message: Option<String>,
    details: Option<Details>,
}

impl KubeError {
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            KubeError::Api { code, .. } => Some(*code),
            KubeError::Transport { .. } | KubeError::Timeout | KubeError::Unreadable { .. } => None,
        }
    }

    pub(super) fn reason(&self) -> &str {
        match self {
            KubeError::Api { reason, .. } => reason,
            KubeError::Transport { .. } | KubeError::Timeout | KubeError::Unreadable { .. } => "",
        }
    }

    /// The server may do the same request later, or may even have done it.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            KubeError::Api { code, .. } => *code == 429 || *code >= 500,
            KubeError::Transport { .. } | KubeError::Timeout => true,
            KubeError::Unreadable { .. } => false,
        }
    }
}

/// One attempt.
pub(super) async fn raw(
    client: &kube::Client,
    request: Request<Bytes>,
    timeout: Duration,
) -> Result<Bytes, KubeError> {
    let transport = |source: kube::Error| KubeError::Transport { source: source.into() };
    let exchange = async {
        let response =
            client.send(request.map(kube::client::Body::from)).await.map_err(transport)?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(transport)?.to_bytes();
        Ok((parts, body))
    };
    let (parts, body) =
        tokio::time::timeout(timeout, exchange).await.map_err(|_| KubeError::Timeout)??;
    if parts.status.is_success() {
        return Ok(body);
    }
    let status: Status = serde_json::from_slice(&body).unwrap_or_default();
    let details = status.details.unwrap_or_default();
    let header = parts.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds =
        header.and_then(|value| value.parse().ok()).unwrap_or(details.retry_after_seconds);
    Err(KubeError::Api {
        code: parts.status.as_u16(),
        reason: status.reason.unwrap_or_default(),
        message: status.message.unwrap_or_default(),
        details,
        retry_after: (seconds > 0).then(|| Duration::from_secs(seconds)),
    })
}
