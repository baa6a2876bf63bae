//! Pure: what one run of the checker explores: who takes part, how often what may happen, and which
//! rule of the protocol is left out.

/// Processes that take part at most.
pub(crate) const PROCESSES: usize = 3;

/// The product's rules are those of [`Weakness::None`]; every other must lead to a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weakness {
    None,
    /// The storage checks for the key, and writes later.
    CreateIsNotAtomic,
    /// The term is an object of its own; readers look at it, the storage does not refuse by it.
    TermBesideTheJournal,
    /// What was not answered is written again to whichever slot is free, unseen.
    SilenceIsFailure,
    /// A refused creator believes that it was refused by its own earlier try.
    RefusalIsSuccess,
    /// A refused creator does not look whether its own earlier try stands there.
    RefusalIsFailure,
    /// A creator whom another has come before takes the next slot without asking whether it still may.
    NextSlotUnasked,
    /// Activation goes on without reading the journal again.
    NoLookBeforeActivation,
    /// A restarted process writes under the `Open` that it finds.
    OpenIsAdopted,
    /// Backups may be committed before `Activated`.
    CommitsUnactivated,
    /// What follows a `Handover` counts.
    HandoverIsIgnored,
    /// Junk is passed by as if nothing stood there.
    JunkIsSkipped,
    /// So is what stands under a key that the reader lacks.
    UnreadableIsSkipped,
    /// A `Commit` may name condemned packs.
    CondemnedMayBeNamed,
    /// So may it, and names come again because they tell the content; what a run has uploaded and
    /// not committed yet is spared.
    NamesComeAgain,
    /// Packs are deleted before their `Condemn` stands in the journal.
    SweepsUnmarked,
    /// Retention keeps the newest backup, be it suspect, and not the newest usable one.
    KeepsNewestOnly,
}

impl Weakness {
    pub(crate) fn checks_condemned(self) -> bool {
        !matches!(self, Weakness::CondemnedMayBeNamed | Weakness::NamesComeAgain)
    }
}

/// How often what may still happen. Deliveries, restarts of what was lost, looks are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) backups: u8,
    /// Of these, how many may be suspect.
    pub(crate) suspects: u8,
    pub(crate) promotions: u8,
    pub(crate) crashes: u8,
    /// Answers lost, while the request itself may arrive at any later time, or never.
    pub(crate) losses: u8,
    pub(crate) condemns: u8,
    pub(crate) handovers: u8,
    pub(crate) rekeys: u8,
    /// Strange bytes in the next free slot.
    pub(crate) junk: u8,
    /// Strange bytes in place of a record.
    pub(crate) damages: u8,
}

impl Budget {
    pub(crate) const NONE: Budget = Budget {
        backups: 0,
        suspects: 0,
        promotions: 0,
        crashes: 0,
        losses: 0,
        condemns: 0,
        handovers: 0,
        rekeys: 0,
        junk: 0,
        damages: 0,
    };

    #[expect(clippy::cast_lossless, reason = "`From` is a call where nothing is optimised")]
    pub(crate) fn word(&self) -> u64 {
        (self.backups as u64)
            | (self.suspects as u64) << 4
            | (self.promotions as u64) << 8
            | (self.crashes as u64) << 12
            | (self.losses as u64) << 16
            | (self.condemns as u64) << 20
            | (self.handovers as u64) << 24
            | (self.rekeys as u64) << 28
            | (self.junk as u64) << 32
            | (self.damages as u64) << 36
    }
}

pub(crate) struct Config {
    /// The hub of each process. Two processes of one hub: a pod that was thought dead.
    pub(crate) hub_of: [u8; PROCESSES],
    pub(crate) processes: usize,
    pub(crate) budget: Budget,
    pub(crate) weakness: Weakness,
}
