//! Pure: everything that is the case at one moment: the storage, what is under way to it, and what
//! each process knows.

use super::config::{Budget, Config, PROCESSES};
use super::record::{Kind, Record, SLOTS, small};
use super::walk::Beside;

/// Requests under way at most; a run that needs more panics.
const FLIGHT: usize = 10;

/// Names for packs that each process may use; together they are the 16 bits of a mask.
const PACKS_EACH: u8 = 5;

/// A create on its way to the storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) slot: u8,
    /// Nobody waits for the answer any more.
    pub(crate) orphan: bool,
    /// A storage that is not atomic has looked, and will write.
    pub(crate) looked: bool,
    pub(crate) record: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Append {
    None,
    /// Sent, the answer is awaited.
    Sent,
    /// The answer was lost: only what stands in the slot is one.
    Unknown,
}

/// A request to promote, kept over restarts. Its id is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: u8,
    pub(crate) epoch: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) runs: bool,
    /// Slot of its own `Open`, 0: none. Lost at a restart.
    pub(crate) open: u8,
    pub(crate) append: Append,
    pub(crate) slot: u8,
    pub(crate) record: Record,
    /// Packs of the backup that is uploaded and not committed.
    pub(crate) plan: u16,
    pub(crate) plan_is_suspect: bool,
    pub(crate) plan_is_whole: bool,
    /// The slot at which the sweep that has read the journal will write, 0: none.
    pub(crate) sweep: u8,
    /// The epoch for which it restores what activates, 0: none.
    pub(crate) restoring: u8,
    /// The last epoch for which that came to its end. Stands on the hub, so a restart keeps it.
    pub(crate) restored: u8,
    pub(crate) request: Request,
    /// The logical append that it is at.
    pub(crate) nonce: u8,
    pub(crate) packs_made: u8,
}

#[derive(Clone, Copy)]
pub(crate) struct State {
    pub(crate) log: [Record; SLOTS],
    pub(crate) beside: Option<Beside>,
    pub(crate) flight: [Message; FLIGHT],
    pub(crate) flying: usize,
    pub(crate) processes: [Process; PROCESSES],
    /// Packs that exist.
    pub(crate) packs: u16,
    /// Packs that somebody deletes whatever the journal says.
    pub(crate) doomed: u16,
    /// Slots of the backups that were reported as taken.
    pub(crate) acknowledged: u16,
    /// An operator was told that a hub has handed over.
    pub(crate) handed_over: bool,
    /// Which hub has come to know that it holds an epoch, plus one, four bits an epoch.
    pub(crate) winners: u32,
    /// Hubs that hold the new pair key.
    pub(crate) new_keys: u8,
    pub(crate) budget: Budget,
    /// Something that must not be has happened.
    pub(crate) broken: Option<&'static str>,
}

impl State {
    /// The first hub holds the first term, nothing is written in it yet.
    pub(crate) fn initial(config: &Config) -> Self {
        let mut log = [Record::NOTHING; SLOTS];
        log[1] = Record { kind: Kind::Init, nonce: 62, ..Record::NOTHING };
        log[2] = Record { kind: Kind::Term, epoch: 1, prev: 1, nonce: 63, ..Record::NOTHING };
        let process = Process {
            runs: true,
            open: 0,
            append: Append::None,
            slot: 0,
            record: Record::NOTHING,
            plan: 0,
            plan_is_suspect: false,
            plan_is_whole: false,
            sweep: 0,
            restoring: 0,
            restored: 0,
            request: Request { id: 0, epoch: 0 },
            nonce: 1,
            packs_made: 0,
        };
        let message = Message { slot: 0, orphan: true, looked: false, record: Record::NOTHING };
        State {
            log,
            beside: None,
            flight: [message; FLIGHT],
            flying: 0,
            processes: [process; PROCESSES],
            packs: 0,
            doomed: 0,
            acknowledged: 0,
            handed_over: false,
            winners: 1 << 4,
            new_keys: 1,
            budget: config.budget,
            broken: None,
        }
    }

    pub(crate) fn has_new_key(&self, hub: u8) -> bool {
        self.new_keys & (1 << hub) != 0
    }

    pub(crate) fn send(&mut self, slot: u8, record: Record) {
        assert!((slot as usize) < SLOTS, "the run needs more slots");
        assert!(self.flying < FLIGHT, "the run needs more room for requests under way");
        self.flight[self.flying] = Message { slot, orphan: false, looked: false, record };
        self.flying += 1;
    }

    /// Whoever sent them does not wait any more.
    pub(crate) fn orphan(&mut self, process: usize) {
        let mut i = 0;
        while i < self.flying {
            if self.flight[i].record.by as usize == process {
                self.flight[i].orphan = true;
            }
            i += 1;
        }
    }

    pub(crate) fn take_message(&mut self, i: usize) -> Message {
        let message = self.flight[i];
        self.flying -= 1;
        self.flight[i] = self.flight[self.flying];
        message
    }

    /// A name that nobody has used.
    pub(crate) fn new_pack(&mut self, process: usize) -> u16 {
        let made = self.processes[process].packs_made;
        assert!(made < PACKS_EACH, "the run needs more names for packs");
        self.processes[process].packs_made += 1;
        1 << (small(process) * PACKS_EACH + made)
    }

    /// Notes that `hub` has come to know that it holds the epoch.
    pub(crate) fn wins(&mut self, hub: u8, epoch: u8, passes_junk: bool) {
        let shift = 4 * u32::from(epoch);
        let winner = (self.winners >> shift) & 15;
        let claims = u32::from(hub) + 1;
        // An operator who passes junk by has looked at who was there.
        if winner != 0 && winner != claims && !passes_junk {
            self.broken = Some("two hubs have won one epoch");
        }
        self.winners = self.winners & !(15 << shift) | claims << shift;
    }

    /// 128 bits that stand for the state: that two of some 10^8 states share them is less likely than
    /// one in 10^20. Requests under way have no order.
    #[expect(clippy::cast_lossless, reason = "`From` is a call where nothing is optimised")]
    pub(crate) fn fingerprint(&self) -> u128 {
        let mut hash = self.log_fingerprint();
        let mut i = 0;
        let mut flight = 0_u128;
        while i < self.flying {
            let message = &self.flight[i];
            let about =
                (message.slot as u64) | (message.orphan as u64) << 8 | (message.looked as u64) << 9;
            flight = flight.wrapping_add(mix(mix(SEED, message.record.word()), about));
            i += 1;
        }
        hash = mix(hash ^ flight, self.budget.word());
        let beside = match self.beside {
            None => 0,
            Some(b) => 1 | (b.epoch as u64) << 1 | (b.hub as u64) << 5 | (b.from as u64) << 8,
        };
        hash = mix(hash, (self.packs as u64) | (self.doomed as u64) << 16 | beside << 32);
        let ghosts =
            (self.acknowledged as u64) | (self.new_keys as u64) << 32 | (self.winners as u64) << 40;
        hash = mix(hash, ghosts ^ (self.handed_over as u64) << 24);
        let mut i = 0;
        while i < PROCESSES {
            hash = self.processes[i].mixed_into(hash);
            i += 1;
        }
        hash
    }

    pub(crate) fn log_fingerprint(&self) -> u128 {
        let mut hash = SEED;
        let mut slot = 1;
        while slot < SLOTS && self.log[slot].kind as u8 != Kind::Nothing as u8 {
            hash = mix(hash, self.log[slot].word());
            slot += 1;
        }
        mix(hash, slot as u64)
    }
}

impl Process {
    pub(crate) fn drop_plan(&mut self) {
        self.plan = 0;
        self.plan_is_suspect = false;
        self.plan_is_whole = false;
    }

    /// Lets go of all that belongs to a term.
    pub(crate) fn withdraw(&mut self) {
        self.drop_plan();
        self.open = 0;
        self.sweep = 0;
        self.restoring = 0;
        self.nonce += 1;
    }

    /// What only memory held is gone; what stands on the hub stays.
    pub(crate) fn restart(&mut self) {
        self.withdraw();
        self.append = Append::None;
        self.slot = 0;
    }

    pub(crate) fn stop(&mut self) {
        self.restart();
        self.runs = false;
    }

    #[expect(clippy::cast_lossless, reason = "`From` is a call where nothing is optimised")]
    fn mixed_into(&self, hash: u128) -> u128 {
        let flags = (self.runs as u64)
            | (self.plan_is_suspect as u64) << 1
            | (self.plan_is_whole as u64) << 2
            | (self.append as u64) << 3
            | (self.open as u64) << 8
            | (self.slot as u64) << 16
            | (self.restoring as u64) << 24
            | (self.restored as u64) << 28
            | (self.request.id as u64) << 32
            | (self.request.epoch as u64) << 40
            | (self.nonce as u64) << 48
            | (self.packs_made as u64) << 56;
        let hash = mix(mix(hash, flags), self.plan as u64 | (self.sweep as u64) << 16);
        if self.append as u8 == Append::None as u8 { hash } else { mix(hash, self.record.word()) }
    }
}

const SEED: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

/// One step of a hash; for each word a permutation of the 128 bits.
#[expect(clippy::cast_lossless, reason = "`From` is a call where nothing is optimised")]
fn mix(hash: u128, word: u64) -> u128 {
    let hash = (hash ^ word as u128).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
    hash ^ hash >> 67
}
