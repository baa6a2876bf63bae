//! Pure: how a process brings one record into the journal: the same bytes to the same slot until the
//! answer is definite, and only what stands in the slot is an answer once one was lost.

use super::acts::{Act, Step};
use super::config::{Config, Weakness};
use super::record::{Kind, Record, SLOTS};
use super::state::{Append, State};
use super::walk::View;

pub(crate) fn begin(state: &mut State, p: usize, slot: u8, record: Record) {
    let process = &mut state.processes[p];
    process.append = Append::Sent;
    process.slot = slot;
    process.record = record;
    state.send(slot, record);
}

/// The answer of the storage reaches the process that waits for it.
pub(crate) fn answered(config: &Config, state: &mut State, p: usize, created: bool) {
    if created {
        ours(state, p);
    } else {
        look(config, state, p);
    }
}

/// A refused creator looks at what stands in the slot.
fn look(config: &Config, state: &mut State, p: usize) -> Act {
    let process = &state.processes[p];
    let mine = state.log[process.slot as usize] == process.record;
    if config.weakness == Weakness::RefusalIsSuccess
        || mine && config.weakness != Weakness::RefusalIsFailure
    {
        ours(state, p);
        return Act::FindsOwn;
    }
    let process = &mut state.processes[p];
    if config.weakness == Weakness::NextSlotUnasked {
        process.append = Append::Unknown;
    } else {
        // The same logical append goes on, at another slot, if it is still allowed there.
        process.append = Append::None;
        process.slot = 0;
    }
    Act::FindsOther
}

/// The record stands in the journal, and its writer knows.
fn ours(state: &mut State, p: usize) {
    let process = &mut state.processes[p];
    let record = process.record;
    match record.kind {
        Kind::Term => {
            process.request.id = 0;
            process.request.epoch = 0;
        }
        Kind::Open => process.open = process.slot,
        Kind::Commit => {
            state.acknowledged |= 1 << process.slot;
            process.drop_plan();
        }
        Kind::Handover => state.handed_over = true,
        Kind::Nothing | Kind::Init | Kind::Activated | Kind::Condemn | Kind::Rekey | Kind::Junk => {
        }
    }
    process.append = Append::None;
    process.slot = 0;
    process.nonce += 1;
}

/// What a process can do that waits for the answer to its create.
pub(crate) fn moves(
    config: &Config,
    state: &State,
    view: &View,
    p: usize,
    out: &mut Vec<(Step, State)>,
) {
    let process = &state.processes[p];
    match process.append {
        Append::None => {}
        Append::Sent => {
            if state.budget.losses > 0 {
                let mut next = *state;
                next.budget.losses -= 1;
                next.orphan(p);
                next.processes[p].append = Append::Unknown;
                out.push((Step::new(Act::LosesAnswer, p, process.slot), next));
            }
        }
        Append::Unknown => {
            let mut next = *state;
            let there = &state.log[process.slot as usize];
            let occupied = there.kind != Kind::Nothing;
            let taken = occupied && *there != process.record;
            let anywhere = config.weakness == Weakness::SilenceIsFailure
                || config.weakness == Weakness::NextSlotUnasked && taken;
            let act = if anywhere {
                let record = Record { prev: view.last, ..process.record };
                begin(&mut next, p, view.head + 1, record);
                Act::SendsAgain
            } else if occupied {
                look(config, &mut next, p)
            } else {
                begin(&mut next, p, process.slot, process.record);
                Act::SendsAgain
            };
            out.push((Step::new(act, p, process.slot), next));
        }
    }
}

/// The storage meets a create. `None`: it has looked, and will write later.
pub(crate) fn apply(
    config: &Config,
    state: &mut State,
    slot: u8,
    looked: bool,
    record: Record,
) -> Option<bool> {
    let free = state.log[slot as usize].kind == Kind::Nothing;
    if !looked && !free {
        return Some(false);
    }
    if !looked && config.weakness == Weakness::CreateIsNotAtomic {
        return None;
    }
    let mut before = 1;
    while before < SLOTS {
        let other = &state.log[before];
        let same_append =
            other.kind == record.kind && other.by == record.by && before != slot as usize;
        if same_append && other.nonce == record.nonce {
            state.broken = Some("one append stands in two slots");
        }
        if same_append && record.kind == Kind::Term && other.request == record.request {
            state.broken = Some("one request became two terms");
        }
        before += 1;
    }
    state.log[slot as usize] = record;
    Some(true)
}
