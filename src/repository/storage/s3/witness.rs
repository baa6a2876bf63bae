//! Reads from each answer what the SDK's typed outputs leave out: the status, the storage's clock, and
//! when the server wants to be asked again.
//!
//! What may go wrong: a request that never got an answer leaves it empty.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the SDK's typed outputs leave out of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) status: Option<u16>,
    pub(super) date: Option<Timestamp>,
    pub(super) retry_after: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Witness(Arc<Mutex<Seen>>);

impl Witness {
    pub(super) fn seen(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Witness {
    fn name(&self) -> &'static str {
        "Witness"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        let seen = Seen {
            status: Some(context.response().status().as_u16()),
            date: headers.get("date").and_then(|date| {
                jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
            }),
            retry_after: headers
                .get("retry-after")
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }
}
