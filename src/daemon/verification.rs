//! The stored backups are read again on a schedule (`objectives.verifyEvery`): what nobody reads rots
//! unseen.
//!
//! A loop of its own beside the control loop, so that no backup, sync or look at the journal ever
//! waits for it. It only reads, one pack at a time, and stops at the next pack when this hub is
//! promoted. Both primary and passive do it, each over its own way to the storage and with its own
//! keys; a fenced or frozen hub does not. Each time all packs of the newest usable backup are read,
//! all commits, all packs that were found damaged before, and one share of the other packs, so that
//! after [`ROUNDS`] times each was read.
//!
//! What may go wrong: the storage does not answer. That says nothing about what is stored; what was
//! found before stands, and it is tried again.

use super::Shared;
use crate::object::{Digest, Set};
use crate::repository::Repository;
use crate::repository::journal::JournalError;
use crate::repository::layout::{PackName, journal_key, pack_key};
use crate::repository::record::{Body, Commit, PackRef, Record};
use crate::repository::verify::{Fault, check_pack, packs_by_set};
use crate::retry::chain;
use crate::status::verification::Damaged;
use crate::status::{Board, Outcome, Role, Run};
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

/// The packs that the newest backup does not need are read in so many turns.
const ROUNDS: u64 = 7;

/// Looks whether a verification is due, as long as the daemon runs.
pub(super) async fn run(shared: Shared, stop: CancellationToken) {
    let work = async {
        let Some(repository) = shared.beats.repository().await else { return };
        loop {
            if may_read(&shared.board) && shared.board.read().verify.is_due(crate::clock::now()) {
                verify(&shared, &repository).await;
            }
            tokio::time::sleep(shared.settings.storage.poll_interval).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// The objects that were found damaged, by their keys.
pub(super) fn damaged(board: &Board) -> BTreeSet<String> {
    board.read().verify.damaged.into_iter().map(|damaged| damaged.object).collect()
}

fn may_read(board: &Board) -> bool {
    let snapshot = board.read();
    let role = matches!(snapshot.role, Some(Role::Primary | Role::Passive));
    role && snapshot.frozen.is_none() && !snapshot.promotion.running && snapshot.newest.is_some()
}

async fn verify(shared: &Shared, repository: &Repository) {
    let (at, begun) = (crate::clock::now(), crate::clock::monotonic());
    shared.board.update(|s| {
        s.verify.running_since = Some(at);
        s.verify.last_attempt_at = Some(at);
    });
    let result = read(&shared.board, repository).await;
    let every = shared.settings.objectives.verify_every;
    let (now, seconds) = (crate::clock::now(), (crate::clock::monotonic() - begun).as_secs_f64());
    let run = |failed: usize, message: String| Run {
        what: "verify".to_owned(),
        at,
        seconds,
        outcome: Outcome::Failed,
        backup: None,
        changed: 0,
        failed: failed as u64,
        message,
    };
    match result {
        Ok(Read { packs, bytes, damaged }) => {
            tracing::info!(packs, bytes, damaged = damaged.len(), seconds, "verification");
            for Damaged { object, why, backups, oldest, newest, .. } in &damaged {
                tracing::error!(object, why, backups, oldest, newest, "a stored object is damaged");
            }
            shared.board.update(|s| {
                if let Some(first) = damaged.first() {
                    let message = format!("{}: {}", first.object, first.why);
                    s.add_run(run(damaged.len(), message));
                }
                (s.verify.packs, s.verify.bytes) = (packs, bytes);
                s.verify.read(damaged, every, now);
            });
        }
        Err(why) => {
            tracing::warn!(why, "the stored backups could not be verified");
            shared.board.update(|s| {
                s.add_run(run(0, why.clone()));
                s.verify.failed(why, every, now);
            });
        }
    }
}

/// What one verification read.
#[derive(Default)]
struct Read {
    packs: u64,
    bytes: u64,
    damaged: Vec<Damaged>,
}

/// A pack and the backups that need it.
struct Needed {
    set: Set,
    reference: PackRef,
    by: NeededBy,
}

#[derive(Clone, Default)]
struct NeededBy {
    newest_usable: bool,
    backups: u64,
    oldest: String,
    newest: String,
}

async fn read(board: &Board, repository: &Repository) -> Result<Read, String> {
    let (round, known) = (board.read().verify.rounds % ROUNDS, damaged(board));
    let mut read = Read::default();
    let needed = needed(board, repository, &mut read.damaged).await?;
    for (name, Needed { set, reference, by }) in needed {
        if !(by.newest_usable || turn(&name) == round || known.contains(&pack_key(&name))) {
            continue;
        }
        go_on(board)?;
        let fault = check_pack(&repository.packs, set, &reference).await;
        read.packs += 1;
        read.bytes += reference.length;
        if let Some(fault) = fault.map_err(|error| chain(&error))? {
            note(&mut read.damaged, fault, by);
        }
    }
    Ok(read)
}

/// All packs that a backup of the repository needs. A commit that is not any more what the walk has
/// read is damage, too.
async fn needed(
    board: &Board,
    repository: &Repository,
    damaged: &mut Vec<Damaged>,
) -> Result<BTreeMap<PackName, Needed>, String> {
    let (backups, usable) = {
        let journal = repository.journal.lock().await;
        let view = journal.view();
        (view.backups.clone(), view.usable.as_ref().map(|usable| usable.mark.slot))
    };
    let mut needed = BTreeMap::new();
    for backup in &backups {
        go_on(board)?;
        let newest_usable = Some(backup.slot) == usable;
        // Taken anew each time: nobody else waits longer than for one small read.
        let stored = repository.journal.lock().await.backup(backup.slot).await;
        match stored.as_ref().map(|stored| stored.as_ref().map(|(record, _)| &**record)) {
            Ok(Some(Record { body: Body::Commit(commit), .. })) => {
                add(&mut needed, commit, &backup.id, newest_usable);
            }
            Ok(_) => {}
            Err(JournalError::Frozen(frozen)) => {
                let why = frozen.message.clone();
                let object = journal_key(backup.slot);
                // No reader that begins now gets past it.
                let by = NeededBy::one(&backup.id, true);
                note(damaged, Fault { object, why, missing_key: false }, by);
            }
            Err(error) => return Err(chain(error)),
        }
    }
    Ok(needed)
}

impl NeededBy {
    fn one(id: &str, newest_usable: bool) -> Self {
        Self { newest_usable, backups: 1, oldest: id.to_owned(), newest: id.to_owned() }
    }
}

/// Backups come oldest first.
fn add(needed: &mut BTreeMap<PackName, Needed>, commit: &Commit, id: &str, newest_usable: bool) {
    for (set, reference) in packs_by_set(commit) {
        let needed = needed.entry(reference.name.clone()).or_insert_with(|| {
            let by = NeededBy { backups: 0, ..NeededBy::one(id, false) };
            Needed { set, reference: reference.clone(), by }
        });
        needed.by.backups += 1;
        needed.by.newest_usable |= newest_usable;
        id.clone_into(&mut needed.by.newest);
    }
}

/// In which round a pack that the newest backup does not need is read. Its name says it, so that
/// nothing is to be remembered and packs that come and go change nothing for the others.
fn turn(name: &PackName) -> u64 {
    let Digest(bytes) = Digest::of(name.to_string().as_bytes());
    u64::from(bytes[0]) % ROUNDS
}

fn note(damaged: &mut Vec<Damaged>, fault: Fault, by: NeededBy) {
    let Fault { object, why, missing_key } = fault;
    let NeededBy { newest_usable: in_newest, backups, oldest, newest } = by;
    damaged.push(Damaged { object, why, missing_key, in_newest, backups, oldest, newest });
}

/// A promotion needs the storage for itself.
fn go_on(board: &Board) -> Result<(), String> {
    if may_read(board) { Ok(()) } else { Err("stopped: this hub has other work now".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pack_has_its_turn() {
        let mut packs = [0; 7];
        for number in 0..700 {
            let turn = turn(&PackName::new(1, 3, ulid::Ulid(number)));
            packs[usize::try_from(turn).unwrap()] += 1;
        }
        assert!(packs.iter().all(|packs| (50..200).contains(packs)), "{packs:?}");
    }
}
