//! The race probe: does this storage, here and now, let exactly one creator win?
//!
//! Everything that keeps a superseded hub out rests on create-if-absent being atomic, and a check one
//! after the other proves nothing: a server that looks first and writes then answers it perfectly.
//! So many creators race for the same keys, each over its own connection, in the real prefix with its
//! real versioning, and what won is read back. What may go wrong: no answer is no verdict either;
//! it is an error, and the caller probes again.

use crate::repository::storage::{Created, Storage, StorageError};
use crate::retry::{Class, chain};
use bytes::Bytes;
use futures::future::join_all;

/// Enough for a server that looks before it writes to fail nearly always (198 of 200 races of two,
/// measured), also when it is so busy that most races meet it one after the other; few enough to be no
/// burden once a day.
const CREATORS: usize = 16;
const KEYS: usize = 32;

/// The racers' bodies are a line each; what comes back may not be more.
const MAX_BODY: u64 = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every race had exactly one winner, and the winner's bytes were read back.
    pub atomic: bool,
    /// A sentence for status and log.
    pub why: String,
}

/// Races under `probes/<nonce>/` and removes what it wrote. The nonce is random and new each time: a
/// key that existed before would prove nothing.
pub async fn race(storage: &Storage, nonce: &str) -> Result<Verdict, StorageError> {
    let racers = storage.separate(CREATORS);
    let keys: Vec<String> = (0..KEYS).map(|n| format!("probes/{nonce}/{n}")).collect();
    let verdict = race_for_all(&racers, &keys).await;
    for (key, deleted) in
        keys.iter().zip(join_all(keys.iter().map(|key| storage.delete(key))).await)
    {
        if let Err(error) = deleted {
            tracing::debug!(key, error = chain(&error), "a key of the race probe stays behind");
        }
    }
    verdict
}

async fn race_for_all(racers: &[Storage], keys: &[String]) -> Result<Verdict, StorageError> {
    // Opens every connection before the first race; otherwise the handshakes would line the
    // racers up. The keys do not exist yet, which each racer sees for itself.
    for found in
        join_all(racers.iter().zip(keys.iter().cycle()).map(|(r, k)| r.get(k, MAX_BODY))).await
    {
        if found?.is_some() {
            return Ok(refused("a key that was never used exists already".to_owned()));
        }
    }
    for (n, key) in keys.iter().enumerate() {
        let body = |racer: usize| Bytes::from(format!("racer {racer} for {key}\n"));
        let answers =
            join_all(racers.iter().enumerate().map(|(n, racer)| racer.create(key, body(n)))).await;
        let winner = match judge(answers)? {
            Ok(winner) => winner,
            Err(why) => return Ok(refused(why)),
        };
        // Over another connection than the winner's.
        let reader = &racers[(winner + 1 + n) % racers.len()];
        match reader.get(key, MAX_BODY).await? {
            Some(stored) if stored.bytes == body(winner) => {}
            Some(_) => {
                return Ok(refused(
                    "the only winner's bytes were overwritten by a creator that was told it had lost"
                        .to_owned(),
                ));
            }
            None => {
                return Ok(refused("what the only winner wrote cannot be read back".to_owned()));
            }
        }
    }
    let why = format!("{KEYS} races of {CREATORS} creators had exactly one winner each");
    Ok(Verdict { atomic: true, why })
}

/// The one winner of a race; or why the storage is not atomic; or the error that leaves it open.
fn judge(
    answers: Vec<Result<Created, StorageError>>,
) -> Result<Result<usize, String>, StorageError> {
    let mut winners = Vec::new();
    let mut open = None;
    for (racer, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(Created::Yes) => winners.push(racer),
            Ok(Created::Exists) => {}
            // A racer that is sent away because others race as well has not won.
            Err(error) if error.class() == Class::Conflict => open = open.or(Some(error)),
            Err(error) => open = Some(error),
        }
    }
    let lost_only = open.as_ref().is_none_or(|error| error.class() == Class::Conflict);
    match (winners.as_slice(), open) {
        // Two winners are proof, whatever became of the others.
        ([_, _, ..], _) => Ok(Err(format!(
            "{} of {CREATORS} creators of one key were told that they had won: the storage ignores \
             `If-None-Match: *`, or looks first and writes then; with it two hubs could be primary",
            winners.len()
        ))),
        ([winner], _) if lost_only => Ok(Ok(*winner)),
        (_, Some(error)) => Err(error),
        ([], None) => Ok(Err(format!(
            "all {CREATORS} creators of a new key were told that it existed already"
        ))),
        ([winner], None) => Ok(Ok(*winner)),
    }
}

fn refused(why: String) -> Verdict {
    Verdict { atomic: false, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::storage::Act;
    use crate::repository::storage::error::Answer;

    #[derive(Debug, PartialEq)]
    enum Is {
        WonBy(usize),
        NotAtomic,
        Open(Class),
    }

    fn failed(status: u16) -> StorageError {
        let act = Act { operation: "create", key: "k".into(), location: "l".into() };
        Answer::new(status, "", "").into_error(act)
    }

    #[test]
    fn a_race_is_won_lost_for_the_storage_or_open() {
        let yes = || Ok(Created::Yes);
        let no = || Ok(Created::Exists);
        let conflict = || Err(failed(409));
        let outage = || Err(failed(503));
        for (answers, expected) in [
            (vec![no(), yes(), no()], Is::WonBy(1)),
            (vec![conflict(), no(), yes()], Is::WonBy(2)),
            (vec![yes(), yes(), no()], Is::NotAtomic),
            (vec![yes(), yes(), outage()], Is::NotAtomic),
            (vec![no(), no(), no()], Is::NotAtomic),
            (vec![yes(), outage(), no()], Is::Open(Class::Transient)),
            (vec![yes(), outage(), conflict()], Is::Open(Class::Transient)),
            (vec![conflict(), outage(), no()], Is::Open(Class::Transient)),
            (vec![conflict(), conflict(), no()], Is::Open(Class::Conflict)),
        ] {
            let shown = format!("{answers:?}");
            let is = match judge(answers) {
                Ok(Ok(winner)) => Is::WonBy(winner),
                Ok(Err(_)) => Is::NotAtomic,
                Err(error) => Is::Open(error.class()),
            };
            assert_eq!(is, expected, "{shown}");
        }
    }
}
