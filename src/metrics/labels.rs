//! Pure: the closed sets that labels are taken from. Whatever is counted is one of these.

/// The part of a backup that took time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Listing, sealing and uploading, which overlap.
    List,
    Publish,
}

impl Phase {
    pub const ALL: [Phase; 2] = [Phase::List, Phase::Publish];

    pub fn name(self) -> &'static str {
        match self {
            Phase::List => "list",
            Phase::Publish => "publish",
        }
    }
}

/// What objects are restored for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restoring {
    /// What a passive hub may hold.
    Sync,
    /// The last catch-up and the activation set.
    Promotion,
}

impl Restoring {
    pub const ALL: [Restoring; 2] = [Restoring::Sync, Restoring::Promotion];

    pub fn name(self) -> &'static str {
        match self {
            Restoring::Sync => "sync",
            Restoring::Promotion => "promotion",
        }
    }
}

/// What a restore did with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Created,
    Updated,
    Unchanged,
    Pruned,
    Skipped,
    Failed,
}

impl Action {
    pub const ALL: [Action; 6] = [
        Action::Created,
        Action::Updated,
        Action::Unchanged,
        Action::Pruned,
        Action::Skipped,
        Action::Failed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Action::Created => "created",
            Action::Updated => "updated",
            Action::Unchanged => "unchanged",
            Action::Pruned => "pruned",
            Action::Skipped => "skipped",
            Action::Failed => "failed",
        }
    }
}
