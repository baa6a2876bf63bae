//! Pure: what happens without any process wanting it: requests arrive, processes die, operators ask,
//! packs are deleted late, strange bytes appear.

use super::acts::{Act, Step};
use super::append;
use super::config::{Config, PROCESSES};
use super::record::{Kind, Record, SLOTS, small};
use super::state::{Append, State};
use super::walk::{Frozen, Reign, View};

pub(crate) fn moves(config: &Config, state: &State, truth: &View, out: &mut Vec<(Step, State)>) {
    let mut i = 0;
    while i < state.flying {
        deliver(config, state, i, out);
        i += 1;
    }
    let mut p = 0;
    while p < config.processes {
        if state.budget.crashes > 0 && state.processes[p].runs {
            let mut next = *state;
            next.budget.crashes -= 1;
            next.orphan(p);
            next.processes[p].restart();
            out.push((Step::new(Act::Restarts, p, 0), next));
        }
        p += 1;
    }
    lose_packs(state, truth, out);
    spoil(state, truth, out);
}

fn deliver(config: &Config, state: &State, i: usize, out: &mut Vec<(Step, State)>) {
    let mut next = *state;
    let message = next.take_message(i);
    let (slot, record) = (message.slot, message.record);
    let writer = record.by as usize;
    let Some(created) = append::apply(config, &mut next, slot, message.looked, record) else {
        next.send(slot, record);
        next.flight[next.flying - 1].orphan = message.orphan;
        next.flight[next.flying - 1].looked = true;
        out.push((Step::new(Act::Looked, writer, slot), next));
        return;
    };
    if !message.orphan && next.processes[writer].append == Append::Sent {
        append::answered(config, &mut next, writer, created);
    }
    let act = if created { Act::Applied } else { Act::Refused };
    out.push((Step::new(act, writer, slot), next));
}

/// An operator asks for this hub to be promoted. On a fenced one that stands for "rejoin" before it;
/// on the holder it makes sense only beyond junk, or after it has handed over.
pub(crate) fn ask(
    config: &Config,
    state: &State,
    view: &View,
    p: usize,
    out: &mut Vec<(Step, State)>,
) {
    let process = &state.processes[p];
    let in_force = view.frozen == Frozen::No && view.reign != Reign::HandedOver;
    let sensible = view.frozen != Frozen::Key && (view.hub != config.hub_of[p] || !in_force);
    if state.budget.promotions > 0 && process.runs && process.request.id == 0 && sensible {
        let mut next = *state;
        next.budget.promotions -= 1;
        let process = &mut next.processes[p];
        process.request.id = process.nonce;
        process.request.epoch = view.epoch;
        process.nonce += 1;
        out.push((Step::new(Act::IsAsked, p, 0), next));
    }
}

/// The deletion of a condemned pack takes effect whenever it likes, whoever sent it.
fn lose_packs(state: &State, truth: &View, out: &mut Vec<(Step, State)>) {
    let condemned = state.packs & (truth.condemned | state.doomed);
    if condemned == 0 {
        return;
    }
    let mut pack = 0;
    while pack < 16 {
        if condemned & (1 << pack) != 0 {
            let mut next = *state;
            next.packs &= !(1 << pack);
            out.push((Step::new(Act::LosesPack, 0, pack), next));
        }
        pack += 1;
    }
}

/// Junk, damage, and a key file that an operator brings to a hub that lacks it.
fn spoil(state: &State, truth: &View, out: &mut Vec<(Step, State)>) {
    let head = truth.head as usize;
    if state.budget.junk > 0 && head + 1 < SLOTS {
        let mut next = *state;
        next.budget.junk -= 1;
        next.log[head + 1] = Record::JUNK;
        out.push((Step::new(Act::MeetsJunk, 0, truth.head + 1), next));
    }
    if state.budget.damages > 0 {
        let mut slot = 3;
        while slot <= head {
            if state.log[slot].kind != Kind::Junk {
                let mut next = *state;
                next.budget.damages -= 1;
                next.log[slot] = Record::JUNK;
                out.push((Step::new(Act::IsDamaged, 0, small(slot)), next));
            }
            slot += 1;
        }
    }
}

/// Only where keys change at all.
pub(crate) fn bring_key(config: &Config, state: &State, p: usize, out: &mut Vec<(Step, State)>) {
    let hub = config.hub_of[p];
    if config.budget.rekeys > 0 && !state.has_new_key(hub) {
        let mut next = *state;
        next.new_keys |= 1 << hub;
        out.push((Step::new(Act::GetsKey, p, hub), next));
    }
}

const _: () = assert!(PROCESSES <= 8, "hubs are bits of a byte");
