//! Pure: another hub of the pair, as its heartbeat tells.

use super::{BackupSummary, Role};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    pub hub: String,
    pub role: Option<Role>,
    /// When its heartbeat was last seen to change, by this hub's clock.
    pub heartbeat_at: Timestamp,
    /// When it counts as silent.
    pub deadline_at: Timestamp,
    pub silent: bool,
    /// Newest backup it has restored (passive) or written (primary).
    pub backup: Option<String>,
    /// Creation time of that backup.
    #[serde(default)]
    pub backup_at: Option<Timestamp>,
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Ids of the keys that it holds.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Whether it calls itself ready to take over. None: it does not say.
    #[serde(default)]
    pub ready: Option<bool>,
}

/// What a standby is for its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standby {
    Ready,
    Lagging,
    Silent,
}

impl Standby {
    pub const ALL: [Standby; 3] = [Standby::Ready, Standby::Lagging, Standby::Silent];

    pub fn name(self) -> &'static str {
        match self {
            Standby::Ready => "ready",
            Standby::Lagging => "lagging",
            Standby::Silent => "silent",
        }
    }
}

impl Peer {
    /// None: it is no standby.
    pub fn standby(&self, newest: Option<&BackupSummary>) -> Option<Standby> {
        if self.role != Some(Role::Passive) {
            return None;
        }
        let holds_newest = newest.is_some_and(|newest| self.backup.as_ref() == Some(&newest.id));
        Some(match self.ready {
            _ if self.silent => Standby::Silent,
            Some(true) => Standby::Ready,
            None if holds_newest => Standby::Ready,
            Some(false) | None => Standby::Lagging,
        })
    }
}
