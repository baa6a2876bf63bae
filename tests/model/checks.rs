//! Pure: what must hold in every state. The texts are those of the promises in `repository.md` §8.

use super::config::Config;
use super::state::State;
use super::walk::{Frozen, Reign, View};

pub(crate) fn violation(config: &Config, state: &State, truth: &View) -> Option<&'static str> {
    if state.broken.is_some() {
        return state.broken;
    }
    // What is lost to junk is not lost in silence: everybody is frozen, or an operator passed it.
    let told = truth.passed | if truth.frozen == Frozen::No { 0 } else { truth.doubtful() };
    if state.acknowledged & !truth.commits & !told != 0 {
        return Some("an acknowledged backup is not in the authoritative history");
    }
    if state.handed_over && truth.ignored_handover {
        return Some("a backup counts that was committed after the handover");
    }
    let damaged = state.budget.damages != config.budget.damages;
    if !damaged {
        if lacks_packs(state, truth.newest) || lacks_packs(state, truth.usable) {
            return Some("a pack of the newest or the newest usable backup is gone");
        }
        if truth.reign == Reign::Taken && lacks_packs(state, truth.base) {
            return Some("a pack of the base of a promotion is gone");
        }
    }
    if truth.newest != 0 && !state.log[truth.newest as usize].whole {
        return Some("the newest backup is of a hub that was not activated");
    }
    two_writers(config, state)
}

fn lacks_packs(state: &State, backup: u8) -> bool {
    backup != 0 && state.log[backup as usize].names & !state.packs != 0
}

fn two_writers(config: &Config, state: &State) -> Option<&'static str> {
    let mut a = 1;
    while a < config.processes {
        let mut b = 0;
        while b < a {
            let (one, other) = (&state.processes[a], &state.processes[b]);
            if one.open != 0 && one.open == other.open {
                return Some("two processes write under one incarnation");
            }
            b += 1;
        }
        a += 1;
    }
    None
}
