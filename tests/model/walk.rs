//! Pure: the model's own reading of a journal, written apart from the product's.
//!
//! [`step`] says what `repository.md` says about validity, in the model's terms; `product.rs` holds it
//! against the product's own walk, so neither can drift away from the other unnoticed.

use super::config::{Config, Weakness};
use super::record::{Kind, Record, SLOTS};

/// The holder of the term before there is one.
pub(crate) const NOBODY: u8 = u8::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Frozen {
    No,
    /// Only an operator's `Term` that names the junk may follow.
    Junk,
    /// Written under a key that this reader lacks.
    Key,
}

/// Where the reign of the term stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Reign {
    Taken,
    Activated,
    HandedOver,
}

/// Slots are bits in the masks, 0 is "none" where one slot is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) head: u8,
    pub(crate) last: u8,
    pub(crate) epoch: u8,
    pub(crate) hub: u8,
    pub(crate) term: u8,
    pub(crate) incarnation: u8,
    pub(crate) reign: Reign,
    pub(crate) newest: u8,
    pub(crate) usable: u8,
    pub(crate) base: u8,
    pub(crate) frozen: Frozen,
    pub(crate) rekeyed: bool,
    /// A backup was committed behind a `Handover` of its term.
    pub(crate) ignored_handover: bool,
    /// Condemned packs.
    pub(crate) condemned: u16,
    pub(crate) commits: u16,
    pub(crate) terms: u16,
    pub(crate) junk: u16,
    /// Slots that an operator has given up by passing junk.
    pub(crate) passed: u16,
}

impl View {
    pub(crate) const EMPTY: View = View {
        head: 0,
        last: 0,
        epoch: 0,
        hub: NOBODY,
        term: 0,
        incarnation: 0,
        reign: Reign::Taken,
        newest: 0,
        usable: 0,
        base: 0,
        frozen: Frozen::No,
        rekeyed: false,
        ignored_handover: false,
        condemned: 0,
        commits: 0,
        terms: 0,
        junk: 0,
        passed: 0,
    };

    /// Slots at or above the first junk that nobody has passed.
    pub(crate) fn doubtful(&self) -> u16 {
        if self.junk == 0 { 0 } else { u16::MAX << self.junk.trailing_zeros() }
    }
}

/// A term taken beside the journal, as the weakening [`Weakness::TermBesideTheJournal`] does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beside {
    pub(crate) epoch: u8,
    pub(crate) hub: u8,
    /// Commits from this slot on do not count.
    pub(crate) from: u8,
}

/// What a reader with or without the new key makes of the journal.
pub(crate) fn walk(
    config: &Config,
    log: &[Record; SLOTS],
    beside: Option<Beside>,
    has_new_key: bool,
) -> View {
    let mut view = View::EMPTY;
    let mut slot = 1;
    while slot < SLOTS && log[slot].kind as u8 != Kind::Nothing as u8 {
        if let Some(beside) = beside
            && slot >= beside.from as usize
        {
            view.epoch = beside.epoch;
            view.hub = beside.hub;
        }
        step(config, &mut view, &log[slot], has_new_key);
        slot += 1;
    }
    if let Some(beside) = beside {
        view.epoch = beside.epoch;
        view.hub = beside.hub;
    }
    view
}

/// Moves the view by what stands in the slot after its head.
pub(crate) fn step(config: &Config, view: &mut View, record: &Record, has_new_key: bool) {
    view.head += 1;
    let bit = 1_u16 << view.head;
    if record.kind == Kind::Junk {
        if config.weakness != Weakness::JunkIsSkipped {
            freeze_on_junk(view, bit);
        }
        return;
    }
    if record.rekeyed && !has_new_key {
        if config.weakness != Weakness::UnreadableIsSkipped && view.frozen == Frozen::No {
            view.frozen = Frozen::Key;
        }
        return;
    }
    if view.frozen != Frozen::No {
        if !passes_junk(view, record) {
            return;
        }
        view.passed |= view.doubtful() & (bit - 1);
        view.frozen = Frozen::No;
        view.junk = 0;
    }
    // One key authenticates at a time: the new one from the record that names it on.
    let other_key = has_new_key && view.rekeyed != record.rekeyed;
    if record.prev != view.last || other_key {
        if config.weakness != Weakness::JunkIsSkipped {
            freeze_on_junk(view, bit);
        }
        return;
    }
    if counts(config, view, record) {
        apply(config, view, record, has_new_key);
        view.last = view.head;
    }
}

fn freeze_on_junk(view: &mut View, bit: u16) {
    view.junk |= bit;
    if view.frozen == Frozen::No {
        view.frozen = Frozen::Junk;
    }
}

fn passes_junk(view: &View, record: &Record) -> bool {
    view.frozen == Frozen::Junk
        && record.kind == Kind::Term
        && record.names == view.junk
        && record.epoch == view.epoch + 1
        && record.prev == view.last
}

fn counts(config: &Config, view: &View, record: &Record) -> bool {
    let holds = config.hub_of[record.by as usize] == view.hub && record.epoch == view.epoch;
    let handed = view.reign == Reign::HandedOver && config.weakness != Weakness::HandoverIsIgnored;
    let current =
        holds && !handed && view.incarnation != 0 && record.incarnation == view.incarnation;
    match record.kind {
        Kind::Nothing | Kind::Junk => false,
        Kind::Init => view.last == 0,
        Kind::Term => view.last != 0 && record.epoch == view.epoch + 1,
        Kind::Open => holds && !handed,
        Kind::Commit => {
            current
                && (view.reign != Reign::Taken || config.weakness == Weakness::CommitsUnactivated)
                && (view.condemned & record.names == 0 || !config.weakness.checks_condemned())
        }
        Kind::Activated | Kind::Condemn | Kind::Handover | Kind::Rekey => current,
    }
}

fn apply(config: &Config, view: &mut View, record: &Record, has_new_key: bool) {
    match record.kind {
        Kind::Nothing | Kind::Junk | Kind::Init => {}
        Kind::Term => {
            view.epoch = record.epoch;
            view.hub = config.hub_of[record.by as usize];
            view.term = view.head;
            view.terms |= 1 << view.head;
            view.incarnation = 0;
            // There is nothing to activate from before the first term.
            view.reign = if record.epoch == 1 { Reign::Activated } else { Reign::Taken };
            view.base = view.usable;
        }
        Kind::Open => view.incarnation = view.head,
        Kind::Activated => view.reign = Reign::Activated,
        Kind::Commit => {
            view.commits |= 1 << view.head;
            view.newest = view.head;
            if !record.suspect {
                view.usable = view.head;
            }
            view.ignored_handover |= view.reign == Reign::HandedOver;
        }
        Kind::Condemn => view.condemned |= record.names,
        Kind::Handover => view.reign = Reign::HandedOver,
        Kind::Rekey => {
            view.rekeyed = true;
            // A hub without the new key goes no further than here.
            if !has_new_key && config.weakness != Weakness::UnreadableIsSkipped {
                view.frozen = Frozen::Key;
            }
        }
    }
}
