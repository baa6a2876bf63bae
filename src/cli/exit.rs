//! Pure: how the program ends: one number a kind of failure, kept for ever, and the words with it.

use crate::capture::cut::CutError;
use crate::capture::survey::SurveyError;
use crate::config::ConfigErrors;
use crate::daemon::DaemonError;
use crate::kube_client::KubeError;
use crate::kube_status::HubError;
use crate::repository::journal::JournalError;
use crate::repository::keys::KeyError;
use crate::repository::packs::PacksError;
use crate::repository::record::RepoError;
use crate::repository::storage::StorageError;
use crate::retry::{self, Class};

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    /// What to do, a command where there is one.
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Failed = 1,
    Usage = 2,
    /// Finished, but some objects or kinds failed.
    Partial = 3,
    NotHealthy = 4,
    /// Refused by a rule, nothing changed.
    Refused = 5,
    TimedOut = 6,
    /// Answered no, or nobody to ask.
    NotConfirmed = 7,
    /// `diff --exit-code`: they differ.
    Different = 8,
    StorageUnreachable = 10,
    Fenced = 11,
    KeyMissing = 12,
    Damaged = 13,
    KubernetesUnreachable = 14,
    Interrupted = 130,
    Terminated = 143,
}

impl Code {
    pub fn reason(self) -> &'static str {
        match self {
            Code::Failed => "Failed",
            Code::Usage => "Usage",
            Code::Partial => "Partial",
            Code::NotHealthy => "NotHealthy",
            Code::Refused => "Refused",
            Code::TimedOut => "TimedOut",
            Code::NotConfirmed => "NotConfirmed",
            Code::Different => "Different",
            Code::StorageUnreachable => "StorageUnreachable",
            Code::Fenced => "Fenced",
            Code::KeyMissing => "KeyMissing",
            Code::Damaged => "Damaged",
            Code::KubernetesUnreachable => "KubernetesUnreachable",
            Code::Interrupted => "Interrupted",
            Code::Terminated => "Terminated",
        }
    }
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Code::Usage, errors.to_string())
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let code =
            if matches!(error, KeyError::Write { .. }) { Code::Failed } else { Code::KeyMissing };
        Self::new(code, retry::chain(&error))
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let code =
            if error.class() == Class::Damaged { Code::Damaged } else { Code::StorageUnreachable };
        Self::new(code, retry::chain(&error)).with_hint(error.hint())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let message = retry::chain(&error);
        match error {
            JournalError::Storage(error) => error.into(),
            JournalError::Repo(RepoError::UnknownKey { .. }) => {
                Self::new(Code::KeyMissing, message)
            }
            JournalError::Repo(RepoError::Damaged | RepoError::Newer { .. }) => {
                Self::new(Code::Damaged, message)
            }
            JournalError::Frozen(frozen) => {
                let code =
                    if frozen.reason == "KeyMissing" { Code::KeyMissing } else { Code::Damaged };
                Self::new(code, frozen.message).with_hint(frozen.hint)
            }
            JournalError::Stale { .. } | JournalError::NotAllowed { .. } => {
                Self::new(Code::Failed, message)
            }
        }
    }
}

impl From<PacksError> for Failure {
    fn from(error: PacksError) -> Self {
        let code = if error.is_missing_key() {
            Code::KeyMissing
        } else if error.is_damage() {
            Code::Damaged
        } else if matches!(error, PacksError::Storage { .. }) {
            Code::StorageUnreachable
        } else {
            Code::Failed
        };
        let failure = Self::new(code, retry::chain(&error));
        if let PacksError::Storage { source, .. } = &error {
            return failure.with_hint(source.hint());
        }
        failure
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let failure = Self::new(Code::KubernetesUnreachable, retry::chain(&error));
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

impl From<KubeError> for Failure {
    fn from(error: KubeError) -> Self {
        let failure = Self::new(Code::KubernetesUnreachable, retry::chain(&error));
        match error.code() {
            Some(403) => failure.with_hint("ask for read access, or name another --context"),
            Some(_) | None => failure,
        }
    }
}

impl From<SurveyError> for Failure {
    fn from(error: SurveyError) -> Self {
        let message = retry::chain(&error);
        match error {
            SurveyError::Discovery(_) => Self::new(Code::KubernetesUnreachable, message),
            SurveyError::Cut(CutError::List { source, .. }) => {
                Self { message, ..Self::from(source) }
            }
            SurveyError::Cut(CutError::Expired { .. } | CutError::OtherRevision { .. }) => {
                Self::new(Code::Failed, message).with_hint("run it again")
            }
            SurveyError::Cut(
                CutError::NotAList { .. } | CutError::Object { .. } | CutError::Stopped,
            ) => Self::new(Code::Failed, message),
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let message = retry::chain(&error);
        match error {
            DaemonError::Key(error) => error.into(),
            DaemonError::Storage(error) => error.into(),
            DaemonError::Hub(error) => error.into(),
            DaemonError::Client(error) => {
                Self::new(Code::KubernetesUnreachable, message).with_hint(error.hint())
            }
            DaemonError::Listen { .. } | DaemonError::Cache(_) => Self::new(Code::Failed, message),
            DaemonError::Superseded => Self::new(Code::Fenced, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::cut;

    #[test]
    fn each_kind_of_failure_has_its_own_number() {
        let missing = KeyError::NoIdentity { path: "k".into() };
        assert_eq!(Failure::from(missing).code as i32, 12);
        assert_eq!(Failure::from(DaemonError::Superseded).code as i32, 11);
        assert_eq!(Failure::from(DaemonError::Hub(HubError::CrdMissing)).code as i32, 14);
        assert_eq!(Failure::from(JournalError::Repo(RepoError::Damaged)).code as i32, 13);
        let key = JournalError::Repo(RepoError::UnknownKey { key: "k".to_owned() });
        assert_eq!(Failure::from(key).code as i32, 12);
        let path = "/api/v1/secrets".to_owned();
        let source = KubeError::TooLarge { verb: "list", path, limit: 1 };
        let kind = cut::namespaces().group_resource();
        let list = SurveyError::Cut(CutError::List { kind, source });
        assert_eq!(Failure::from(list).code as i32, 14);
    }

    #[test]
    fn a_failure_of_a_missing_crd_names_the_command_that_installs_it() {
        let failure = Failure::from(DaemonError::Hub(HubError::CrdMissing));
        assert_eq!(failure.hint.as_deref(), Some("understudy crd | kubectl apply -f -"));
    }
}
