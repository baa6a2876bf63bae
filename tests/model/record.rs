//! Pure: a record of the model's journal, no larger than the rules need.
//!
//! What the product's record carries and no rule looks at (repository id, writer, wall time) is left
//! out. Two fields are not stored in reality, they are what the model knows beyond any hub: `by`
//! tells the very process, `whole` whether its hub held everything when the backup was taken.

/// Slots of the journal, 0 unused as in the product. A run that needs more panics: it would
/// otherwise be cut short in silence. Slots are bits of a `u16`.
pub(crate) const SLOTS: usize = 16;

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Nothing,
    Init,
    Term,
    Open,
    Activated,
    Commit,
    Condemn,
    Handover,
    Rekey,
    /// Not written by a member of the pair, or damaged since.
    Junk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) epoch: u8,
    /// The process that wrote it.
    pub(crate) by: u8,
    /// Slot of the `Open` that it was written under.
    pub(crate) incarnation: u8,
    /// Slot of the last valid record before it.
    pub(crate) prev: u8,
    /// One logical append of its process.
    pub(crate) nonce: u8,
    /// The request that a `Term` answers.
    pub(crate) request: u8,
    /// Written under the new pair key.
    pub(crate) rekeyed: bool,
    pub(crate) suspect: bool,
    pub(crate) whole: bool,
    /// Packs that a `Commit` or a `Condemn` names, or the junk slots that a `Term` skips.
    pub(crate) names: u16,
}

impl Record {
    pub(crate) const NOTHING: Record = Record {
        kind: Kind::Nothing,
        epoch: 0,
        by: 0,
        incarnation: 0,
        prev: 0,
        nonce: 0,
        request: 0,
        rekeyed: false,
        suspect: false,
        whole: false,
        names: 0,
    };
    pub(crate) const JUNK: Record = Record { kind: Kind::Junk, ..Record::NOTHING };

    /// All of it in one word: equal words, equal records.
    #[expect(clippy::cast_lossless, reason = "`From` is a call where nothing is optimised")]
    pub(crate) fn word(&self) -> u64 {
        (self.kind as u64)
            | (self.epoch as u64) << 4
            | (self.by as u64) << 8
            | (self.incarnation as u64) << 12
            | (self.prev as u64) << 20
            | (self.nonce as u64) << 28
            | (self.request as u64) << 34
            | (self.rekeyed as u64) << 40
            | (self.suspect as u64) << 41
            | (self.whole as u64) << 42
            | (self.names as u64) << 48
    }
}

/// Slots and processes are few.
#[expect(clippy::cast_possible_truncation, reason = "few fit into a byte")]
pub(crate) fn small(number: usize) -> u8 {
    debug_assert!(number < 256, "{number} is not small");
    number as u8
}
