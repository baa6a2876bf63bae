//! Pure: the steps that lead from one state to the next, by name.

use super::record::small;
use std::fmt;

/// What happens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Act {
    // The world.
    Applied,
    Refused,
    Looked,
    Restarts,
    IsAsked,
    LosesPack,
    MeetsJunk,
    IsDamaged,
    GetsKey,
    // A process and its append.
    LosesAnswer,
    SendsAgain,
    FindsOwn,
    FindsOther,
    // A process and its role.
    SendsTerm,
    SendsTermPastJunk,
    TakesTermBeside,
    DropsRequest,
    SendsOpen,
    AdoptsOpen,
    Exits,
    BeginsActivation,
    EndsActivation,
    SendsActivated,
    UploadsFull,
    UploadsDelta,
    UploadsSuspect,
    DropsPlan,
    SendsCommit,
    BeginsSweep,
    DropsSweep,
    SendsCondemn,
    SendsHandover,
    SendsRekey,
    Withdraws,
}

/// A step: what, of which process, about which slot (or pack, or hub).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) act: Act,
    pub(crate) who: u8,
    pub(crate) at: u8,
}

impl Step {
    pub(crate) fn new(act: Act, who: usize, at: u8) -> Self {
        Self { act, who: small(who), at }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: {:?} ({})", self.who, self.act, self.at)
    }
}

/// A set of acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acts(u64);

impl Acts {
    pub(crate) fn insert(&mut self, act: Act) {
        self.0 |= 1 << act as u8;
    }

    pub(crate) fn contains(self, act: Act) -> bool {
        self.0 & (1 << act as u8) != 0
    }
}
