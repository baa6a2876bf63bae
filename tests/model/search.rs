//! Looks at every state that a configuration can reach, breadth first, so that the first violation
//! found has the shortest story.
//!
//! A state is kept as its fingerprint and as the way that led to it; the state itself only while it
//! waits for its turn. A story is told by walking that way again.

use super::acts::{Act, Acts, Step};
use super::config::Config;
use super::record::{Kind, SLOTS, small};
use super::state::State;
use super::walk::{View, walk};
use super::{checks, product, rules, world};
use std::collections::VecDeque;

pub(crate) struct Outcome {
    pub(crate) states: usize,
    pub(crate) transitions: u64,
    pub(crate) depth: u32,
    /// What was done at least once.
    pub(crate) acts: Acts,
    pub(crate) highest_epoch: u8,
    pub(crate) most_acknowledged: u32,
    /// Different journals that were read by the product's walk too.
    pub(crate) journals: usize,
    pub(crate) violation: Option<Violation>,
}

pub(crate) struct Violation {
    pub(crate) what: &'static str,
    pub(crate) story: Vec<String>,
}

pub(crate) fn search(config: &Config) -> Outcome {
    let mut outcome = Outcome {
        states: 0,
        transitions: 0,
        depth: 0,
        acts: Acts::default(),
        highest_epoch: 0,
        most_acknowledged: 0,
        journals: 0,
        violation: None,
    };
    let mut seen = Seen::new();
    let mut journals = Seen::new();
    // How each state was reached: from which, by which of its moves.
    let mut ways: Vec<(u32, u8)> = vec![(0, 0)];
    let initial = State::initial(config);
    seen.insert(initial.fingerprint());
    let mut waiting = VecDeque::from([(initial, 0_u32)]);
    let mut id: u32 = 0;
    let mut moves = Vec::new();
    while let Some((state, depth)) = waiting.pop_front() {
        let truth = walk(config, &state.log, state.beside, true);
        outcome.depth = depth;
        if let Some(what) = checks::violation(config, &state, &truth) {
            outcome.violation = Some(Violation { what, story: story(config, &ways, id) });
            break;
        }
        if journals.insert(state.log_fingerprint()) && product::compare(config, &state.log, &truth)
        {
            outcome.journals += 1;
        }
        outcome.highest_epoch = outcome.highest_epoch.max(truth.epoch);
        let acknowledged = state.acknowledged.count_ones();
        outcome.most_acknowledged = outcome.most_acknowledged.max(acknowledged);
        moves.clear();
        all_moves(config, &state, &truth, &mut moves);
        let mut nth = 0;
        while nth < moves.len() {
            let (step, next) = &moves[nth];
            outcome.acts.insert(step.act);
            if seen.insert(next.fingerprint()) {
                ways.push((id, small(nth)));
                waiting.push_back((*next, depth + 1));
            }
            nth += 1;
        }
        outcome.transitions += moves.len() as u64;
        id += 1;
    }
    outcome.states = ways.len();
    outcome
}

fn all_moves(config: &Config, state: &State, truth: &View, out: &mut Vec<(Step, State)>) {
    world::moves(config, state, truth, out);
    // A reader without the new key sees something else only where the key changes.
    let limited = if config.budget.rekeys > 0 {
        walk(config, &state.log, state.beside, false)
    } else {
        *truth
    };
    let mut p = 0;
    while p < config.processes {
        let view = if state.has_new_key(config.hub_of[p]) { truth } else { &limited };
        world::ask(config, state, view, p, out);
        world::bring_key(config, state, p, out);
        rules::moves(config, state, view, truth, p, out);
        p += 1;
    }
}

/// The steps from the initial state to this one, and the journal at its end.
fn story(config: &Config, ways: &[(u32, u8)], mut id: u32) -> Vec<String> {
    let mut choices = vec![];
    while id != 0 {
        let (from, nth) = ways[id as usize];
        choices.push(nth);
        id = from;
    }
    let mut state = State::initial(config);
    let mut told = vec![];
    for nth in choices.into_iter().rev() {
        let truth = walk(config, &state.log, state.beside, true);
        let mut moves = vec![];
        all_moves(config, &state, &truth, &mut moves);
        let (step, next) = moves[usize::from(nth)];
        told.push(step.to_string());
        state = next;
    }
    for slot in 1..SLOTS {
        let record = &state.log[slot];
        if record.kind != Kind::Nothing {
            told.push(format!("slot {slot}: {record:?}"));
        }
    }
    told
}

impl Outcome {
    pub(crate) fn did(&self, act: Act) -> bool {
        self.acts.contains(act)
    }
}

/// A set of fingerprints: open addressing, at most half full. The standard set is several times
/// slower where the compiler does not optimise, and tests are built so.
struct Seen {
    places: Vec<u128>,
    len: usize,
}

impl Seen {
    fn new() -> Self {
        Self { places: vec![0; 1 << 10], len: 0 }
    }

    /// `true`: it was not there.
    fn insert(&mut self, fingerprint: u128) -> bool {
        let mask = self.places.len() - 1;
        let mut place = fingerprint as usize & mask;
        while self.places[place] != 0 {
            if self.places[place] == fingerprint {
                return false;
            }
            place = (place + 1) & mask;
        }
        self.places[place] = fingerprint;
        self.len += 1;
        if self.len * 2 > self.places.len() {
            let grown = vec![0; self.places.len() * 2];
            self.len = 0;
            for fingerprint in std::mem::replace(&mut self.places, grown) {
                if fingerprint != 0 {
                    self.insert(fingerprint);
                }
            }
        }
        true
    }
}
