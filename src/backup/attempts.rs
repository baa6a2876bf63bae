//! Pure: whether a run whose attempt failed makes another one, and what is different in it.
//!
//! Each reason has its bound, so that a hub on which a CRD comes and goes in a loop, or revisions are
//! compacted faster than they are listed, ends a run and does not keep it for ever.

use super::BackupError;
use crate::capture::cut::{self, CutError};
use crate::kube_client::KubeError;
use crate::object::GroupResource;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// New revisions that one run may try after the pinned one was compacted away.
const MAX_REVISIONS: u32 = 3;

/// Times that one run reads discovery again for one kind that was not found.
const MAX_DISCOVERIES: u32 = 3;

/// Kinds that one backup may carry over from the backup before.
const MAX_FAILED_KINDS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Kinds that the next attempt leaves out.
    pub(super) failed: BTreeSet<GroupResource>,
    revisions: u32,
    not_found: BTreeMap<GroupResource, u32>,
}

/// What another attempt does differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    AtANewRevision,
    /// It answered with another revision: whether the kind shares the store must be proven again.
    AfterProof(GroupResource),
    /// The kind that was listed at this path is not there: discovery must tell what became of it.
    AfterDiscovery(String),
    Without(GroupResource),
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtANewRevision => f.write_str("starting the cut again at a new revision"),
            Self::AfterProof(kind) => {
                write!(f, "starting the cut again after a proof that {kind} shares the store")
            }
            Self::AfterDiscovery(_) => f.write_str("starting the cut again after discovery"),
            Self::Without(kind) => write!(f, "starting the cut again without {kind}"),
        }
    }
}

impl Attempts {
    /// The error comes back where no other attempt is worth it.
    pub(super) fn after(&mut self, error: BackupError) -> Result<Again, BackupError> {
        let BackupError::Cut(error) = error else { return Err(error) };
        match error {
            CutError::Expired { .. } => {
                self.revisions += 1;
                if self.revisions >= MAX_REVISIONS {
                    return Err(BackupError::NeverAtOneRevision { attempts: self.revisions });
                }
                Ok(Again::AtANewRevision)
            }
            CutError::OtherRevision { ref kind, .. } => {
                self.revisions += 1;
                if self.revisions >= MAX_REVISIONS {
                    return Err(error.into());
                }
                Ok(Again::AfterProof(kind.clone()))
            }
            CutError::List { ref kind, source: KubeError::Api(ref api) }
                if api.code == 404 && self.may_look_again(kind) =>
            {
                Ok(Again::AfterDiscovery(api.path.clone()))
            }
            CutError::List { ref kind, .. }
            | CutError::NotAList { ref kind, .. }
            | CutError::Object { ref kind, .. } => self.without(kind.clone(), error.into()),
            CutError::Stopped => Err(error.into()),
        }
    }

    fn may_look_again(&mut self, kind: &GroupResource) -> bool {
        let times = self.not_found.entry(kind.clone()).or_default();
        *times += 1;
        *times <= MAX_DISCOVERIES
    }

    fn without(&mut self, kind: GroupResource, error: BackupError) -> Result<Again, BackupError> {
        // Without namespaces there is neither a revision nor a place for anything. And leaving out
        // what is left out already would go on for ever.
        if kind == cut::namespaces().group_resource() || !self.failed.insert(kind.clone()) {
            return Err(error);
        }
        if self.failed.len() > MAX_FAILED_KINDS {
            return Err(BackupError::TooManyKindsFailed { kinds: self.failed.len() });
        }
        Ok(Again::Without(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_client::ApiError;

    fn kind(resource: &str) -> GroupResource {
        GroupResource { group: String::new(), resource: resource.to_owned() }
    }

    fn list(resource: &str, code: u16) -> BackupError {
        let api = ApiError {
            verb: "list",
            path: format!("/api/v1/{resource}"),
            code,
            reason: String::new(),
            message: String::new(),
            causes: vec![],
            webhook: false,
            full: false,
            retry_after: None,
        };
        let source = KubeError::Api(Box::new(api));
        BackupError::Cut(CutError::List { kind: kind(resource), source })
    }

    fn expired() -> BackupError {
        let (kind, revision) = (kind("as"), "5".to_owned());
        BackupError::Cut(CutError::Expired { kind, revision })
    }

    fn other_revision() -> BackupError {
        let (found, expected) = ("4".to_owned(), "5".to_owned());
        BackupError::Cut(CutError::OtherRevision { kind: kind("as"), found, expected })
    }

    fn no_list(resource: &str) -> BackupError {
        let source = serde_json::from_str::<u8>("x").unwrap_err();
        BackupError::Cut(CutError::NotAList { kind: kind(resource), source })
    }

    /// Each error in turn; what becomes of them, an error as the beginning of its text.
    #[track_caller]
    fn check(name: &str, errors: Vec<BackupError>, expected: &[&str]) {
        let mut attempts = Attempts::default();
        let told = errors.into_iter().map(|error| match attempts.after(error) {
            Ok(again) => again.to_string(),
            Err(error) => format!("ends: {error}"),
        });
        for (told, expected) in told.zip(expected) {
            assert!(told.starts_with(expected), "{name}: {told}, not {expected}");
        }
    }

    #[test]
    fn each_reason_has_its_way_and_its_bound() {
        const NEW: &str = "starting the cut again at a new revision";
        const PROOF: &str = "starting the cut again after a proof that as shares";
        const DISCOVERY: &str = "starting the cut again after discovery";
        const WITHOUT: &str = "starting the cut again without as";
        check(
            "compacted",
            vec![expired(), expired(), expired()],
            &[NEW, NEW, "ends: the revision"],
        );
        check(
            "another revision",
            vec![other_revision(), other_revision(), other_revision()],
            &[PROOF, PROOF, "ends: a page of as is at revision 4"],
        );
        check("both", vec![expired(), other_revision(), expired()], &[NEW, PROOF, "ends: "]);
        check(
            "no kind like that",
            (0..4).map(|_| list("as", 404)).collect(),
            &[DISCOVERY, DISCOVERY, DISCOVERY, WITHOUT],
        );
        check("forbidden", vec![list("as", 403)], &[WITHOUT]);
        check("broken", vec![list("as", 500)], &[WITHOUT]);
        check("not a list", vec![no_list("as")], &[WITHOUT]);
        check(
            "left out, and fails again",
            vec![list("as", 500), list("as", 500)],
            &[WITHOUT, "ends: failed to list as"],
        );
        check("namespaces", vec![list("namespaces", 500)], &["ends: failed to list namespaces"]);
        let many = (0..9).map(|n| list(&format!("as{n}"), 403)).collect();
        check("many", many, &[WITHOUT; 8]);
        let mut attempts = Attempts::default();
        let told: Vec<_> = (0..9).map(|n| attempts.after(list(&format!("as{n}"), 403))).collect();
        assert!(matches!(told[8], Err(BackupError::TooManyKindsFailed { kinds: 9 })), "{told:?}");
        check("anything else", vec![BackupError::Stopped], &["ends: a stage"]);
    }
}
