//! Pure: what a process may do next, by the rules of `repository.md`.
//!
//! A process reads the journal and acts on it in one step; what it sends arrives at any later time, so
//! the gap between its look and its write is there all the same. A backup is acknowledged as soon as
//! its record is known to stand in its slot: what holds without the post-check holds with it.

use super::acts::{Act, Step};
use super::append;
use super::config::{Config, Weakness};
use super::record::{Kind, Record, small};
use super::state::{Append, State};
use super::walk::{Beside, Frozen, Reign, View, walk};

/// A process, and how it sees the journal.
struct Actor<'a> {
    config: &'a Config,
    state: &'a State,
    view: &'a View,
    /// What a reader with all keys sees. No hub acts on it, violations are found by it.
    truth: &'a View,
    p: usize,
    hub: u8,
}

pub(crate) fn moves(
    config: &Config,
    state: &State,
    view: &View,
    truth: &View,
    p: usize,
    out: &mut Vec<(Step, State)>,
) {
    let process = &state.processes[p];
    if !process.runs || view.frozen == Frozen::Key {
        return;
    }
    if process.append != Append::None {
        return append::moves(config, state, view, p, out);
    }
    if process.sweep != 0 {
        let view = &walk_below(config, state, p, view);
        let actor = Actor { config, state, view, truth, p, hub: config.hub_of[p] };
        return actor.condemn(out);
    }
    let actor = Actor { config, state, view, truth, p, hub: config.hub_of[p] };
    let handed_over =
        view.reign == Reign::HandedOver && config.weakness != Weakness::HandoverIsIgnored;
    if process.request.id != 0 {
        actor.promote(handed_over, out);
    } else if view.frozen == Frozen::Junk {
        // Nothing but an operator's term leads out.
    } else if view.hub == actor.hub && !handed_over {
        actor.hold(out);
    } else {
        actor.withdraw(out);
    }
}

/// The journal as it was when this process began its sweep.
fn walk_below(config: &Config, state: &State, p: usize, view: &View) -> View {
    let slot = state.processes[p].sweep;
    if view.head < slot {
        return *view;
    }
    let mut log = state.log;
    log[slot as usize..].fill(Record::NOTHING);
    walk(config, &log, state.beside, state.has_new_key(config.hub_of[p]))
}

impl Actor<'_> {
    fn step(&self, act: Act, at: u8, next: &State, out: &mut Vec<(Step, State)>) {
        out.push((Step::new(act, self.p, at), *next));
    }

    fn record(&self, kind: Kind) -> Record {
        Record {
            kind,
            epoch: self.view.epoch,
            by: small(self.p),
            incarnation: self.state.processes[self.p].open,
            prev: self.view.last,
            nonce: self.state.processes[self.p].nonce,
            request: 0,
            rekeyed: self.view.rekeyed && self.state.has_new_key(self.hub),
            suspect: false,
            whole: false,
            names: 0,
        }
    }

    /// Sends the record to the slot above the head.
    fn append(&self, act: Act, mut next: State, record: Record, out: &mut Vec<(Step, State)>) {
        let slot = self.view.head + 1;
        append::begin(&mut next, self.p, slot, record);
        self.step(act, slot, &next, out);
    }

    /// Carries out the request to promote this hub, or drops it.
    fn promote(&self, handed_over: bool, out: &mut Vec<(Step, State)>) {
        let view = self.view;
        let request = self.state.processes[self.p].request;
        let mut next = *self.state;
        let holds = view.hub == self.hub && !handed_over && view.frozen == Frozen::No;
        if self.was_granted() || holds || request.epoch != view.epoch {
            next.processes[self.p].request.id = 0;
            next.processes[self.p].request.epoch = 0;
            self.step(Act::DropsRequest, 0, &next, out);
        } else if self.config.weakness == Weakness::TermBesideTheJournal {
            let from = view.head + 1;
            next.beside = Some(Beside { epoch: view.epoch + 1, hub: self.hub, from });
            next.processes[self.p].request.id = 0;
            next.wins(self.hub, view.epoch + 1, false);
            self.step(Act::TakesTermBeside, from, &next, out);
        } else {
            let mut record = self.record(Kind::Term);
            record.epoch += 1;
            record.incarnation = 0;
            record.request = request.id;
            record.names = view.junk;
            let act = if view.junk == 0 { Act::SendsTerm } else { Act::SendsTermPastJunk };
            self.append(act, next, record, out);
        }
    }

    fn was_granted(&self) -> bool {
        let request = self.state.processes[self.p].request.id;
        let mut slot = 1;
        while slot <= self.view.head {
            let record = &self.state.log[slot as usize];
            let valid = self.view.terms & (1 << slot) != 0;
            if valid && record.by as usize == self.p && record.request == request {
                return true;
            }
            slot += 1;
        }
        false
    }

    /// The journal says that this hub holds the term.
    fn hold(&self, out: &mut Vec<(Step, State)>) {
        let view = self.view;
        let process = &self.state.processes[self.p];
        let mut next = *self.state;
        if process.open < view.term {
            let passes_junk = self.state.log[view.term as usize].names != 0;
            next.wins(self.hub, view.epoch, passes_junk);
            if self.config.weakness == Weakness::OpenIsAdopted && view.incarnation != 0 {
                next.processes[self.p].open = view.incarnation;
                return self.step(Act::AdoptsOpen, view.incarnation, &next, out);
            }
            next.processes[self.p].open = 0;
            let mut record = self.record(Kind::Open);
            record.incarnation = 0;
            return self.append(Act::SendsOpen, next, record, out);
        }
        if process.open != view.incarnation {
            next.processes[self.p].stop();
            return self.step(Act::Exits, view.incarnation, &next, out);
        }
        if view.reign == Reign::Taken {
            self.activate(out);
        }
        if view.reign != Reign::Taken || self.config.weakness == Weakness::CommitsUnactivated {
            self.back_up(out);
            self.keep_house(out);
        }
    }

    fn activate(&self, out: &mut Vec<(Step, State)>) {
        let epoch = self.view.epoch;
        let process = &self.state.processes[self.p];
        let mut next = *self.state;
        if process.restored == epoch {
            self.append(Act::SendsActivated, next, self.record(Kind::Activated), out);
        } else if process.restoring == epoch {
            self.end_activation(out);
        } else {
            next.processes[self.p].restoring = epoch;
            self.step(Act::BeginsActivation, 0, &next, out);
        }
    }

    /// Everything of the base is written to the hub.
    fn end_activation(&self, out: &mut Vec<(Step, State)>) {
        let mut next = *self.state;
        let process = &mut next.processes[self.p];
        let epoch = process.restoring;
        process.restoring = 0;
        process.restored = epoch;
        let truth = self.truth;
        let holds = truth.frozen == Frozen::No && truth.hub == self.hub && truth.epoch == epoch;
        if !holds {
            next.broken = Some("a hub activates that does not hold the term");
        }
        self.step(Act::EndsActivation, 0, &next, out);
    }

    fn back_up(&self, out: &mut Vec<(Step, State)>) {
        let process = &self.state.processes[self.p];
        let mut next = *self.state;
        if process.plan != 0 {
            let condemned = process.plan & self.view.condemned != 0;
            if condemned && self.config.weakness.checks_condemned() {
                next.processes[self.p].drop_plan();
                next.processes[self.p].nonce += 1;
                self.step(Act::DropsPlan, 0, &next, out);
            } else {
                let mut record = self.record(Kind::Commit);
                record.names = process.plan;
                record.suspect = process.plan_is_suspect;
                record.whole = process.plan_is_whole;
                self.append(Act::SendsCommit, next, record, out);
            }
        } else if next.budget.backups > 0 {
            next.budget.backups -= 1;
            if self.config.weakness == Weakness::NamesComeAgain {
                self.upload(Act::UploadsFull, next, 1, 0, out);
                return self.upload(Act::UploadsFull, next, 2, 0, out);
            }
            let new = next.new_pack(self.p);
            self.upload(Act::UploadsFull, next, new, 0, out);
            let newest = &self.state.log[self.view.newest as usize];
            if self.view.newest > self.view.term {
                self.upload(Act::UploadsDelta, next, new, newest.names, out);
            }
        }
    }

    /// Writes a pack; the backup will name it and what it builds upon.
    fn upload(&self, act: Act, mut next: State, new: u16, old: u16, out: &mut Vec<(Step, State)>) {
        let epoch = self.view.epoch;
        next.packs |= new;
        let restored = next.processes[self.p].restored;
        let process = &mut next.processes[self.p];
        process.plan = new | old;
        process.plan_is_whole = epoch == 1 || restored == epoch || self.view.reign != Reign::Taken;
        self.step(act, 0, &next, out);
        if next.budget.suspects > 0 {
            next.budget.suspects -= 1;
            next.processes[self.p].plan_is_suspect = true;
            self.step(Act::UploadsSuspect, 0, &next, out);
        }
    }

    /// Retention, a change of keys, and the planned end of the reign. None waits for the backup that
    /// may be under way: that it is safe all the same is what the check at its commit is for.
    fn keep_house(&self, out: &mut Vec<(Step, State)>) {
        let (state, view) = (self.state, self.view);
        if state.budget.condemns > 0 {
            let mut next = *state;
            next.budget.condemns -= 1;
            next.processes[self.p].sweep = view.head + 1;
            self.step(Act::BeginsSweep, view.head, &next, out);
        }
        if state.budget.handovers > 0 {
            let mut next = *state;
            next.budget.handovers -= 1;
            self.append(Act::SendsHandover, next, self.record(Kind::Handover), out);
        }
        if state.budget.rekeys > 0 && state.has_new_key(self.hub) {
            let mut next = *state;
            next.budget.rekeys -= 1;
            self.append(Act::SendsRekey, next, self.record(Kind::Rekey), out);
        }
    }

    /// Lists the packs, and condemns what is superfluous by the journal as it was read before: the
    /// two reads of a sweep are no instant.
    fn condemn(&self, out: &mut Vec<(Step, State)>) {
        let mut next = *self.state;
        let sweep = next.processes[self.p].sweep;
        next.processes[self.p].sweep = 0;
        let superfluous = self.superfluous();
        if superfluous == 0 {
            return self.step(Act::DropsSweep, 0, &next, out);
        }
        if self.config.weakness == Weakness::SweepsUnmarked {
            next.doomed |= superfluous;
        }
        let record = Record { names: superfluous, ..self.record(Kind::Condemn) };
        append::begin(&mut next, self.p, sweep, record);
        self.step(Act::SendsCondemn, sweep, &next, out);
    }

    /// Packs that nothing names which must stay. The age of an upload is not looked at: a clock must
    /// not be what keeps a backup safe.
    fn superfluous(&self) -> u16 {
        let (state, view) = (self.state, self.view);
        let newest = state.log[view.newest as usize].names;
        let usable = state.log[view.usable as usize].names;
        let mut kept = newest;
        if self.config.weakness != Weakness::KeepsNewestOnly {
            kept |= usable;
        }
        if self.config.weakness == Weakness::NamesComeAgain {
            kept |= state.processes[self.p].plan;
        }
        state.packs & !kept & !view.condemned
    }

    /// Another hub holds the term, or nobody does any more: whatever is in hand is not finished.
    fn withdraw(&self, out: &mut Vec<(Step, State)>) {
        let process = &self.state.processes[self.p];
        if process.restoring != 0 && self.config.weakness == Weakness::NoLookBeforeActivation {
            return self.end_activation(out);
        }
        if process.open != 0 || process.plan != 0 || process.restoring != 0 {
            let mut next = *self.state;
            next.processes[self.p].withdraw();
            self.step(Act::Withdraws, 0, &next, out);
        }
    }
}
