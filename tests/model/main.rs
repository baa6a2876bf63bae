//! The journal protocol of `repository.md`, checked in every state that small pairs of hubs can reach.
//!
//! Creates arrive late, twice or after their writer died, answers are lost, processes restart, two
//! processes of one hub run at once, packs are deleted late, operators promote whom they like, slots
//! hold junk. In every state: no acknowledged backup is lost, an epoch has one winner, an incarnation
//! one writer, only the holder activates, what retention must keep exists.
//!
//! That a rule matters is shown by leaving it out: each weakening must be caught. With
//! `UNDERSTUDY_CAMPAIGN` set each configuration takes one backup more.

mod acts;
mod alphabet;
mod append;
mod checks;
mod config;
mod product;
mod record;
mod rules;
mod search;
mod state;
mod walk;
mod world;

use acts::Act;
use config::{Budget, Config, Weakness};

/// Two hubs, one process each.
const PAIR: ([u8; 3], usize) = ([0, 1, 0], 2);
/// Two standbys.
const TRIO: ([u8; 3], usize) = ([0, 1, 2], 3);
/// The primary's pod runs twice.
const TWINS: ([u8; 3], usize) = ([0, 1, 0], 3);

/// Each configuration has at least so many, all together more than 20 million.
const MIN_STATES: usize = 2_000_000;

/// Explores all of it; nothing may be violated, and each of the acts must have happened.
fn holds(name: &'static str, hubs: ([u8; 3], usize), mut budget: Budget, acts: &[Act]) {
    budget.backups += campaign();
    let (hub_of, processes) = hubs;
    let config = Config { hub_of, processes, budget, weakness: Weakness::None };
    let started = understudy::clock::monotonic();
    let outcome = search::search(&config);
    println!(
        "{name}: {} states, {} transitions, depth {}, epochs up to {}, up to {} backups acknowledged, {} journals compared, {:.1?}",
        outcome.states,
        outcome.transitions,
        outcome.depth,
        outcome.highest_epoch,
        outcome.most_acknowledged,
        outcome.journals,
        understudy::clock::monotonic() - started,
    );
    if let Some(violation) = outcome.violation {
        panic!("{name}: {}:\n  {}", violation.what, violation.story.join("\n  "));
    }
    assert!(outcome.states >= MIN_STATES, "{name}: {} states are too few", outcome.states);
    for act in acts {
        assert!(outcome.did(*act), "{name}: {act:?} never happened");
    }
}

/// One more is several times as many states.
fn campaign() -> u8 {
    u8::from(std::env::var_os("UNDERSTUDY_CAMPAIGN").is_some())
}

/// The weakening leads to this violation.
#[track_caller]
fn caught(weakness: Weakness, hubs: ([u8; 3], usize), budget: Budget, violation: &str) {
    let (hub_of, processes) = hubs;
    let config = Config { hub_of, processes, budget, weakness };
    let outcome = search::search(&config);
    let states = outcome.states;
    let Some(found) = outcome.violation else {
        panic!("{weakness:?} was not caught in {states} states");
    };
    println!(
        "{weakness:?}: caught in {} steps, {states} states: {}\n  {}",
        outcome.depth,
        found.what,
        found.story.join("\n  ")
    );
    assert_eq!(found.what, violation, "{weakness:?}");
}

#[test]
fn the_model_and_the_product_read_every_short_journal_alike() {
    let journals = alphabet::read_all();
    println!("{journals} journals");
    assert!(journals > 50_000, "{journals} journals are too few");
}

#[test]
fn a_pair_survives_promotions_crashes_and_lost_answers() {
    let budget = Budget { backups: 3, promotions: 2, crashes: 1, losses: 1, ..Budget::NONE };
    holds("pair", PAIR, budget, &[Act::SendsAgain, Act::FindsOwn, Act::FindsOther, Act::Refused]);
}

#[test]
fn two_standbys_may_be_promoted_at_once() {
    let budget = Budget { backups: 2, promotions: 2, crashes: 1, losses: 1, ..Budget::NONE };
    holds("trio", TRIO, budget, &[Act::Refused, Act::DropsRequest, Act::Withdraws]);
}

#[test]
fn two_processes_of_one_hub_do_not_write_at_once() {
    let budget = Budget { backups: 2, promotions: 1, crashes: 1, losses: 1, ..Budget::NONE };
    holds("twins", TWINS, budget, &[Act::Exits, Act::FindsOther]);
}

#[test]
fn retention_takes_nothing_that_is_needed() {
    let budget = Budget {
        backups: 3,
        suspects: 1,
        promotions: 1,
        crashes: 1,
        losses: 1,
        condemns: 1,
        ..Budget::NONE
    };
    holds("retention", PAIR, budget, &[Act::LosesPack, Act::DropsPlan, Act::UploadsDelta]);
}

#[test]
fn nothing_is_lost_in_silence_to_junk() {
    let budget =
        Budget { backups: 2, promotions: 2, losses: 1, junk: 1, damages: 1, ..Budget::NONE };
    holds("junk", PAIR, budget, &[Act::MeetsJunk, Act::IsDamaged, Act::SendsTermPastJunk]);
}

#[test]
fn a_handover_and_a_change_of_keys_cut_nothing_off() {
    let budget =
        Budget { backups: 2, promotions: 2, crashes: 1, handovers: 1, rekeys: 1, ..Budget::NONE };
    holds("switchover", PAIR, budget, &[Act::SendsHandover, Act::SendsRekey, Act::GetsKey]);
}

const LOST: &str = "an acknowledged backup is not in the authoritative history";
const GONE: &str = "a pack of the newest or the newest usable backup is gone";

#[test]
fn a_storage_that_is_not_atomic_is_caught() {
    let weakness = Weakness::CreateIsNotAtomic;
    caught(weakness, PAIR, Budget { backups: 1, promotions: 1, ..Budget::NONE }, LOST);
    caught(weakness, TRIO, Budget { promotions: 2, ..Budget::NONE }, "two hubs have won one epoch");
}

#[test]
fn a_term_beside_the_journal_is_caught() {
    let budget = Budget { backups: 1, promotions: 1, ..Budget::NONE };
    caught(Weakness::TermBesideTheJournal, PAIR, budget, LOST);
}

#[test]
fn a_guess_at_a_lost_answer_is_caught() {
    let budget = Budget { backups: 1, promotions: 1, losses: 1, ..Budget::NONE };
    caught(Weakness::NextSlotUnasked, PAIR, budget, LOST);
    caught(Weakness::SilenceIsFailure, PAIR, budget, "one append stands in two slots");
    caught(Weakness::RefusalIsSuccess, PAIR, budget, LOST);
    caught(Weakness::RefusalIsFailure, PAIR, budget, "one append stands in two slots");
}

#[test]
fn an_activation_without_a_look_is_caught() {
    let budget = Budget { promotions: 2, ..Budget::NONE };
    let violation = "a hub activates that does not hold the term";
    caught(Weakness::NoLookBeforeActivation, PAIR, budget, violation);
    let budget = Budget { promotions: 1, rekeys: 1, ..Budget::NONE };
    caught(Weakness::UnreadableIsSkipped, PAIR, budget, violation);
}

#[test]
fn a_writer_that_was_not_let_in_is_caught() {
    let budget = Budget { backups: 1, ..Budget::NONE };
    let violation = "two processes write under one incarnation";
    caught(Weakness::OpenIsAdopted, TWINS, budget, violation);
    let budget = Budget { backups: 1, promotions: 1, ..Budget::NONE };
    let violation = "the newest backup is of a hub that was not activated";
    caught(Weakness::CommitsUnactivated, PAIR, budget, violation);
    let budget = Budget { backups: 1, handovers: 1, ..Budget::NONE };
    let violation = "a backup counts that was committed after the handover";
    caught(Weakness::HandoverIsIgnored, PAIR, budget, violation);
}

#[test]
fn junk_that_is_passed_by_is_caught() {
    let budget = Budget { backups: 1, damages: 1, ..Budget::NONE };
    caught(Weakness::JunkIsSkipped, PAIR, budget, LOST);
}

#[test]
fn a_sweep_of_what_is_needed_is_caught() {
    let budget = Budget { backups: 2, suspects: 1, condemns: 1, crashes: 1, ..Budget::NONE };
    caught(Weakness::CondemnedMayBeNamed, PAIR, budget, GONE);
    caught(Weakness::NamesComeAgain, PAIR, budget, GONE);
    caught(Weakness::KeepsNewestOnly, PAIR, budget, GONE);
    let budget = Budget { backups: 1, condemns: 1, ..Budget::NONE };
    caught(Weakness::SweepsUnmarked, TWINS, budget, GONE);
}
