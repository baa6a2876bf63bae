//! Pure: the errors of the storage, sorted by what to do about them.
//!
//! Sorting goes by the code in the answer first and by the HTTP status second, because servers agree
//! on the codes better than on the statuses. What may go wrong: an answer that is not understood
//! must never be taken for "there is no such object"; only `NoSuchKey` says that.

use crate::retry::{Class, Next};
use std::fmt;
use std::time::Duration;

pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What was attempted: the nouns of every error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub operation: &'static str,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// `s3://bucket/prefix/` or a path.
    pub location: String,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} in {}", self.operation, self.key, self.location)
    }
}

/// Why access was denied; each has another remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    UnknownKey,
    WrongSecret,
    Expired,
    NotAllowed,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denial::UnknownKey => "the storage does not know this access key",
            Denial::WrongSecret => "the secret does not belong to this access key",
            Denial::Expired => "the credentials have expired",
            Denial::NotAllowed => "these credentials may not do this",
        })
    }
}

/// One variant per thing that can be wrong. After `create`, `put` and `delete` every transient error
/// and every conflict means **outcome unknown**: the write may have happened, may not, or may still
/// happen; read back, or send the very same bytes again.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("failed to {act}: no definite answer")]
    NoAnswer { act: Box<Act>, source: Cause },
    #[error("failed to {act}: the storage is overloaded or out of order")]
    Unavailable { act: Box<Act>, retry_after: Option<Duration>, source: Cause },
    #[error("failed to {act}: the storage has no room left")]
    Full { act: Box<Act>, source: Cause },
    #[error("failed to {act}: the clocks of this machine and of the storage differ too much")]
    Skewed { act: Box<Act>, source: Cause },
    #[error("failed to {act}: other bytes arrived than were sent")]
    Garbled { act: Box<Act>, source: Cause },
    #[error("failed to {act}: another write of the same key was under way")]
    Conflict { act: Box<Act>, source: Cause },
    #[error("failed to {act}: it has {size} bytes, more than the {limit} that it may have")]
    TooLarge { act: Box<Act>, size: u64, limit: u64 },
    #[error("failed to {act}: {what}")]
    Unsound { act: Box<Act>, what: &'static str },
    #[error("failed to {act}: {why}")]
    Denied { act: Box<Act>, why: Denial, source: Cause },
    #[error("failed to {act}: there is no such bucket or folder")]
    Missing { act: Box<Act>, source: Cause },
    #[error("failed to {act}: the bucket lives elsewhere")]
    Misdirected { act: Box<Act>, source: Cause },
    #[error("failed to {act}: the storage rejects the request")]
    Rejected { act: Box<Act>, source: Cause },
    #[error("failed to {act}: the credentials in {file} cannot be used")]
    Credentials { act: Box<Act>, file: String, source: Cause },
    #[error("failed to use {what} for the storage {location}")]
    Configuration { what: String, location: String, source: Cause },
    #[error("{key:?} cannot be a key: {why}")]
    BadKey { key: String, why: &'static str },
}

impl StorageError {
    pub fn class(&self) -> Class {
        match self {
            Self::NoAnswer { .. }
            | Self::Unavailable { .. }
            | Self::Full { .. }
            | Self::Skewed { .. }
            | Self::Garbled { .. } => Class::Transient,
            Self::Conflict { .. } => Class::Conflict,
            Self::TooLarge { .. } | Self::Unsound { .. } => Class::Damaged,
            Self::Denied { .. }
            | Self::Missing { .. }
            | Self::Misdirected { .. }
            | Self::Rejected { .. }
            | Self::Credentials { .. }
            | Self::Configuration { .. }
            | Self::BadKey { .. } => Class::Refused,
        }
    }

    /// For [`crate::retry::retry`]. A conflict is retried with the same bytes: the other write may
    /// have failed, and if it has not, the next answer is a definite `Exists`.
    pub fn next(&self) -> Next {
        match (self.class(), self) {
            (Class::Transient, Self::Unavailable { retry_after: Some(wait), .. }) => {
                Next::AgainAfter(*wait)
            }
            (Class::Transient | Class::Conflict, _) => Next::Again,
            (Class::Damaged | Class::Refused, _) => Next::Stop,
        }
    }

    /// The operator's next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoAnswer { .. } => {
                "check that the endpoint can be reached from here: name, port, network policy, \
                 proxy, its certificate (storage.s3.caFile for a private authority), and that AWS' \
                 default chain finds credentials if no storage.credentialsFile is named"
            }
            Self::Unavailable { .. } => {
                "wait, or look at the storage's own health and request limits"
            }
            Self::Full { .. } => {
                "raise the quota or free space; Understudy deletes nothing early to make room"
            }
            Self::Skewed { .. } => "let NTP set the clock of this machine (or of the storage)",
            Self::Garbled { .. } => {
                "a proxy or the network changes bytes on their way; look for one between here and the storage"
            }
            Self::Conflict { .. } => {
                "nothing to do: it is tried again until the answer is definite"
            }
            Self::TooLarge { .. } | Self::Unsound { .. } => {
                "find out what else writes to this bucket or folder; Understudy did not write this"
            }
            Self::Denied { why: Denial::Expired, .. } => {
                "renew the credentials; a changed credentials file is read by itself"
            }
            Self::Denied { why: Denial::UnknownKey | Denial::WrongSecret, .. } => {
                "correct the credentials (storage.credentialsFile); the file is read again by itself"
            }
            Self::Denied { why: Denial::NotAllowed, .. } => {
                "allow get, put, delete and list on the prefix (s3:GetObject, s3:PutObject, s3:DeleteObject, \
                 s3:ListBucket), or read and write on the folder"
            }
            Self::Missing { .. } => {
                "create the bucket or mount the folder, or correct storage.s3.bucket or storage.directory; \
                 a lost one is never created again silently"
            }
            Self::Misdirected { .. } => "correct storage.s3.region and storage.s3.endpoint",
            Self::Rejected { .. } => {
                "check storage.s3.endpoint and storage.s3.pathStyle: does a current S3 server answer there?"
            }
            Self::Credentials { .. } => {
                "write the file in AWS' shared credentials format: [default], aws_access_key_id, aws_secret_access_key"
            }
            Self::Configuration { .. } => {
                "correct the configuration; `understudy config check` shows it"
            }
            Self::BadKey { .. } => "report this: Understudy never makes such a key",
        }
    }
}

/// An answer of an S3 server that is not success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Empty when the server gave none.
    pub code: String,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Long enough for every message of S3, short enough for a log line.
    const MAX_MESSAGE: usize = 256;

    /// The text comes from outside: it is cut, and control characters do not reach a terminal.
    pub fn new(status: u16, code: &str, message: &str) -> Self {
        let clean = |text: &str| -> String {
            text.chars().filter(|c| !c.is_control()).take(Self::MAX_MESSAGE).collect()
        };
        Self { status, code: clean(code), message: clean(message), retry_after: None }
    }

    /// The error that this answer is. `create` deals with 412 and `get` with `NoSuchKey` before.
    pub fn into_error(self, act: Act) -> StorageError {
        use StorageError as E;
        let act = Box::new(act);
        let (status, retry_after) = (self.status, self.retry_after);
        let code = self.code.clone();
        let source: Cause = Box::new(self);
        match (code.as_str(), status) {
            ("NoSuchBucket", _) => E::Missing { act, source },
            ("RequestTimeTooSkewed", _) => E::Skewed { act, source },
            (
                "QuotaExceeded" | "XMinioStorageFull" | "InsufficientCapacity" | "EntityTooLarge",
                _,
            )
            | (_, 507) => E::Full { act, source },
            ("BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody", _) => {
                E::Garbled { act, source }
            }
            (
                "ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "TokenRefreshRequired",
                _,
            ) => E::Denied { act, why: Denial::Expired, source },
            ("InvalidAccessKeyId", _) => E::Denied { act, why: Denial::UnknownKey, source },
            ("SignatureDoesNotMatch", _) => E::Denied { act, why: Denial::WrongSecret, source },
            (
                "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException"
                | "PermanentRedirect"
                | "TemporaryRedirect",
                _,
            )
            | (_, 300..=399) => E::Misdirected { act, source },
            ("SlowDown" | "RequestTimeout" | "ServiceUnavailable" | "InternalError", _)
            | (_, 408 | 425 | 429 | 500 | 502..=599) => E::Unavailable { act, retry_after, source },
            (_, 401 | 403) => E::Denied { act, why: Denial::NotAllowed, source },
            (_, 409) => E::Conflict { act, source },
            _ => E::Rejected { act, source },
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Answer {}

#[cfg(test)]
mod tests {
    use super::*;
    use Class::{Conflict, Refused, Transient};

    fn act() -> Act {
        Act { operation: "create", key: "journal/1".into(), location: "s3://b/p/".into() }
    }

    #[test]
    fn answers_are_sorted_by_code_and_then_by_status() {
        for (status, code, class, part_of_text) in [
            (403, "AccessDenied", Refused, "may not do this"),
            (403, "", Refused, "may not do this"),
            (403, "ExpiredToken", Refused, "have expired"),
            (400, "ExpiredToken", Refused, "have expired"),
            (403, "InvalidAccessKeyId", Refused, "does not know this access key"),
            (403, "SignatureDoesNotMatch", Refused, "does not belong"),
            (403, "RequestTimeTooSkewed", Transient, "clocks"),
            (403, "QuotaExceeded", Transient, "no room left"),
            (507, "XMinioStorageFull", Transient, "no room left"),
            (404, "NoSuchBucket", Refused, "no such bucket"),
            (404, "", Refused, "rejects"),
            (301, "PermanentRedirect", Refused, "lives elsewhere"),
            (307, "", Refused, "lives elsewhere"),
            (400, "AuthorizationHeaderMalformed", Refused, "lives elsewhere"),
            (409, "ConditionalRequestConflict", Conflict, "another write"),
            (409, "OperationAborted", Conflict, "another write"),
            (400, "RequestTimeout", Transient, "overloaded"),
            (400, "BadDigest", Transient, "other bytes"),
            (429, "", Transient, "overloaded"),
            (500, "InternalError", Transient, "overloaded"),
            (501, "NotImplemented", Refused, "rejects"),
            (502, "", Transient, "overloaded"),
            (503, "SlowDown", Transient, "overloaded"),
            (400, "InvalidRequest", Refused, "rejects"),
            (412, "PreconditionFailed", Refused, "rejects"),
        ] {
            let error = Answer::new(status, code, "why").into_error(act());
            assert_eq!(error.class(), class, "{status} {code}");
            assert!(error.to_string().contains(part_of_text), "{status} {code}: {error}");
            assert!(error.to_string().contains("create \"journal/1\" in s3://b/p/"), "{error}");
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.starts_with(&status.to_string()) && cause.contains("why"), "{cause}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn a_servers_wish_to_be_left_alone_reaches_the_retry_loop() {
        let answer = |retry_after| Answer { retry_after, ..Answer::new(503, "SlowDown", "") };
        let wait = Duration::from_secs(7);
        assert_eq!(answer(Some(wait)).into_error(act()).next(), Next::AgainAfter(wait));
        assert_eq!(answer(None).into_error(act()).next(), Next::Again);
        assert_eq!(Answer::new(409, "", "").into_error(act()).next(), Next::Again);
        assert_eq!(Answer::new(403, "", "").into_error(act()).next(), Next::Stop);
    }

    #[test]
    fn text_from_the_server_is_cut_and_cannot_steer_a_terminal() {
        let answer = Answer::new(400, "Bad\u{1b}[2J", &"x".repeat(10_000));
        assert_eq!(answer.code, "Bad[2J");
        assert_eq!(answer.message.len(), Answer::MAX_MESSAGE);
    }
}
