//! Pure: the words in which every surface tells why.

use serde::Serialize;

/// The closed list of reasons: conditions, problems and refusals use these words and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    ActivationIncomplete,
    BackupCurrent,
    BackupDamaged,
    BackupFailed,
    BackupOverdue,
    BackupPartial,
    BackupPaused,
    BackupSuspect,
    ConfigRejected,
    ConfigValid,
    DataTooOld,
    DiscoveryFailed,
    Drift,
    DrillFailed,
    DrillOverdue,
    Fenced,
    Frozen,
    HandedOver,
    HubReplaced,
    ImportCredentialExpiring,
    InSync,
    JournalFork,
    JournalHole,
    JunkRecord,
    KeyMissing,
    KeysAvailable,
    KubernetesUnavailable,
    LoopStalled,
    NoBackup,
    NoConflict,
    NoReadyStandby,
    NotPassive,
    NotPrimary,
    NotPromotable,
    NotPromoting,
    PrimaryAlive,
    PrimarySilent,
    PrimaryUnknown,
    Promotable,
    PromotionFailed,
    PromotionRefused,
    Promoting,
    PruneHeld,
    RehearsalFailed,
    Rewound,
    ShrinkRefused,
    Starting,
    StorageAvailable,
    StorageNotAtomic,
    StorageUnavailable,
    SyncFailed,
    SyncOverdue,
    SyncPartial,
    SyncPaused,
    UnexpectedBackup,
    Unfenced,
    UnknownRecord,
    Verified,
    VerifyDamaged,
    VerifyStale,
    WriterConflict,
}

impl Reason {
    /// Every reason; the documentation lists them from here.
    pub const ALL: [Reason; 61] = {
        use Reason as R;
        [
            R::ActivationIncomplete,
            R::BackupCurrent,
            R::BackupDamaged,
            R::BackupFailed,
            R::BackupOverdue,
            R::BackupPartial,
            R::BackupPaused,
            R::BackupSuspect,
            R::ConfigRejected,
            R::ConfigValid,
            R::DataTooOld,
            R::DiscoveryFailed,
            R::Drift,
            R::DrillFailed,
            R::DrillOverdue,
            R::Fenced,
            R::Frozen,
            R::HandedOver,
            R::HubReplaced,
            R::ImportCredentialExpiring,
            R::InSync,
            R::JournalFork,
            R::JournalHole,
            R::JunkRecord,
            R::KeyMissing,
            R::KeysAvailable,
            R::KubernetesUnavailable,
            R::LoopStalled,
            R::NoBackup,
            R::NoConflict,
            R::NoReadyStandby,
            R::NotPassive,
            R::NotPrimary,
            R::NotPromotable,
            R::NotPromoting,
            R::PrimaryAlive,
            R::PrimarySilent,
            R::PrimaryUnknown,
            R::Promotable,
            R::PromotionFailed,
            R::PromotionRefused,
            R::Promoting,
            R::PruneHeld,
            R::RehearsalFailed,
            R::Rewound,
            R::ShrinkRefused,
            R::Starting,
            R::StorageAvailable,
            R::StorageNotAtomic,
            R::StorageUnavailable,
            R::SyncFailed,
            R::SyncOverdue,
            R::SyncPartial,
            R::SyncPaused,
            R::UnexpectedBackup,
            R::Unfenced,
            R::UnknownRecord,
            R::Verified,
            R::VerifyDamaged,
            R::VerifyStale,
            R::WriterConflict,
        ]
    };

    /// The word itself, as in `kubectl get hub` and in Events.
    pub fn word(self) -> String {
        format!("{self:?}")
    }

    /// A word that a stage wrote; `otherwise` when it is not one of the list.
    pub fn from_word(word: &str, otherwise: Reason) -> Reason {
        Reason::ALL.into_iter().find(|reason| reason.word() == word).unwrap_or(otherwise)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_reads_back() {
        let mut words: Vec<String> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        for (reason, word) in Reason::ALL.iter().zip(&words) {
            assert_eq!(Reason::from_word(word, Reason::Frozen), *reason);
        }
        assert_eq!(Reason::from_word("Nonsense", Reason::Frozen), Reason::Frozen);
        words.sort();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
