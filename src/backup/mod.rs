//! The primary's jobs: one backup, from discovery to the committed record, and the sweep that takes
//! away what is no longer needed.
//!
//! Order of writes, and the only one that is safe: packs first, each read back, then the `Commit`
//! that names them. A crash before the commit leaves nothing but orphan packs; after it the backup
//! exists whether or not anybody was told. Success is reported only after the journal was read on
//! behind the commit and no term above ours stands there.

mod attempts;
pub mod changes;
mod guard;
mod levels;
mod merge;
mod plan;
pub mod retention;
mod run;
mod sealer;
pub mod sweep;
pub mod sweeper;
mod upload;

pub use run::{BackupDone, Primary};

use crate::capture::cut::CutError;
use crate::kube_client::KubeError;
use crate::object::{BadKey, GroupResource, Set};
use crate::repository::chain::View;
use crate::repository::journal::{JournalError, Writer};
use crate::repository::packs::PacksError;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("failed to discover the kinds of this hub")]
    Discovery(#[source] KubeError),
    #[error(
        "{kind} tells which namespaces are the hub's own, and cannot be listed; see that it is served"
    )]
    HubItselfUnknown { kind: GroupResource },
    #[error(transparent)]
    Cut(#[from] CutError),
    #[error("the API server names an object that cannot be")]
    Key(#[from] BadKey),
    #[error("failed to seal a pack")]
    Seal(#[source] std::io::Error),
    #[error(transparent)]
    Packs(#[from] PacksError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the revision was compacted away {attempts} times while the kinds were listed")]
    NeverAtOneRevision { attempts: u32 },
    #[error("{kinds} kinds could not be listed: this is no partial backup but a failed one")]
    TooManyKindsFailed { kinds: usize },
    #[error(
        "hub {holder} took the term {epoch} while the backup was written; it is not acknowledged"
    )]
    Superseded { holder: String, epoch: u64 },
    #[error("the backup was not finished within {seconds} s (schedule.timeout)")]
    TimedOut { seconds: u64 },
    #[error("a pack of the set {set} holds a key twice and cannot be merged")]
    Repeated { set: Set },
    #[error("a stage of the backup stopped early")]
    Stopped,
}

/// What [`crate::repository::chain`] will ask of the record.
fn may_write(view: &View, writer: &Writer) -> Result<(), String> {
    writer.may_write(view)?;
    if !view.activated {
        return Err("the term is not activated yet".to_owned());
    }
    Ok(())
}
