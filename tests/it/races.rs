//! Hubs that all want the same journal at once, on a real S3 server: they promote themselves, write
//! and die without regard for each other. Every slot has one winner, and nothing acknowledged is lost.
//!
//! `UNDERSTUDY_CAMPAIGN` is the number of rounds, for a longer run.

use crate::actors::{Actor, Front, commit, rounds};
use crate::harness::Result;
use crate::harness::checker::{Acknowledged, Evidence};
use crate::harness::faultd::fault::draw;
use crate::harness::s3::S3;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use understudy::repository::journal::JournalError;
use understudy::repository::record::Body;
use understudy::repository::storage::Storage;
use understudy::retry::chain;

const ROUNDS: u64 = 30;
const AT_ONCE: usize = 4;
/// What each writer tries to do in a round.
const STEPS: u64 = 10;
/// What the proxy sees of all writers during a step of one, about.
const LIFE: u64 = 300;

/// What the rounds came to. Too little of any of it, and the test proves little.
#[derive(Debug, Default)]
struct Tally {
    slots: usize,
    /// Slots for which several records were sent.
    contested: usize,
    acknowledged: usize,
    /// Records that stand although their writer died before it was told.
    unheard: usize,
    terms: usize,
    crashes: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_one_wins_each_slot_and_no_acknowledged_record_is_lost() -> Result<()> {
    let front = Front::new().await?;
    let rounds = rounds(ROUNDS)?;
    let tallies: Vec<Tally> = stream::iter(0..rounds)
        .map(|seed| {
            let round = round(&front, seed);
            async move { round.await.map_err(|error| format!("seed {seed}: {error}")) }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let all = tallies.iter().fold(Tally::default(), |all, one| Tally {
        slots: all.slots + one.slots,
        contested: all.contested + one.contested,
        acknowledged: all.acknowledged + one.acknowledged,
        unheard: all.unheard + one.unheard,
        terms: all.terms + one.terms,
        crashes: all.crashes + one.crashes,
    });
    println!("races: {rounds} rounds, {all:?}");
    for (what, count, enough) in [
        ("contested slots", all.contested, rounds),
        ("terms", all.terms, rounds),
        ("crashes", all.crashes, rounds),
        ("records of the dead", all.unheard, rounds / 10),
    ] {
        assert!(count as u64 >= enough, "{what}: only {count} in {rounds} rounds");
    }
    Ok(())
}

async fn round(front: &Front, seed: u64) -> Result<Tally> {
    let prefix = S3::prefix("races");
    let writers = 2 + draw(seed, 0) % 3;
    let lives = (0..writers).map(|n| {
        let prefix = &prefix;
        async move {
            let storage = front.storage(prefix).await?;
            live(front, &format!("hub-{n}"), &storage, draw(seed, 1 + n)).await
        }
    });
    let lives = try_join_all(lives).await?;
    let crashes = lives.iter().map(|(_, crashes)| crashes).sum();
    let told: Vec<Acknowledged> = lives.into_iter().flat_map(|(told, _)| told).collect();
    let (acknowledged, terms) = (told.len(), told.iter().filter(|one| one.kind == "Term").count());
    let evidence = front.judge(&prefix, told).await?;
    let slots = slots(&evidence);
    for (slot, (winners, _)) in &slots {
        assert_eq!(*winners, 1, "seed {seed}: {slot} has {winners} winners");
    }
    let contested = slots.values().filter(|(_, bodies)| bodies.len() > 1).count();
    let unheard = slots.len() - acknowledged;
    Ok(Tally { slots: slots.len(), contested, acknowledged, unheard, terms, crashes })
}

/// One hub: what it was told, and how often it died.
async fn live(
    front: &Front,
    name: &str,
    storage: &Storage,
    seed: u64,
) -> Result<(Vec<Acknowledged>, usize)> {
    let (mut told, mut crashes) = (vec![], 0);
    let mut actor = None;
    for step in 0..STEPS {
        let dice = draw(seed, step);
        let mut hub = match actor.take() {
            Some(hub) => hub,
            None => front.actor_on(name, storage.clone()).await?,
        };
        // Every third step may end in the middle of anything.
        let life = dice.is_multiple_of(3).then_some(dice / 3 % LIFE);
        tokio::select! {
            done = act(&mut hub, dice / 100) => {
                done.map_err(|error| format!("{name}, step {step}: {error}"))?;
                actor = Some(hub);
                continue;
            }
            () = death(front, life) => crashes += 1,
        }
        // Its step was dropped where it stood. What it was told before holds all the same.
        told.append(&mut hub.told);
    }
    told.extend(actor.into_iter().flat_map(|hub| hub.told));
    Ok((told, crashes))
}

/// Comes when the proxy has seen so much more, however fast the machine is.
async fn death(front: &Front, life: Option<u64>) {
    let Some(life) = life else { return std::future::pending().await };
    let end = front.faultd.moment() + life;
    while front.faultd.moment() < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One step of a hub that respects nobody; that it is not allowed is no error.
async fn act(hub: &mut Actor, dice: u64) -> Result<()> {
    let fresh = hub.journal.refresh().await?.last.is_none();
    let done = match dice % 6 {
        _ if fresh => {
            hub.writer.epoch = 0;
            hub.append(Body::Init).await
        }
        0 | 1 => hub.promote().await,
        2 => hub.open().await,
        _ if hub.writer.incarnation == 0 => hub.open().await,
        _ => {
            let pack = hub.put_pack().await?;
            hub.append(Body::Commit(commit(vec![pack]))).await
        }
    };
    match done {
        Ok(_) | Err(JournalError::NotAllowed { .. }) => Ok(()),
        Err(error) => Err(chain(&error).into()),
    }
}

/// Of every slot: how many creators the server told that they had won, and the digests of all that
/// was sent to it.
fn slots(evidence: &Evidence) -> BTreeMap<&str, (usize, BTreeSet<String>)> {
    let mut slots = BTreeMap::<&str, (usize, BTreeSet<String>)>::new();
    let journal = format!("{}journal/", evidence.prefix);
    let puts = evidence.history.iter().filter(|exchange| exchange.method == "PUT");
    for put in puts.filter(|put| put.key.starts_with(&journal)) {
        let (winners, bodies) = slots.entry(&put.key).or_default();
        bodies.insert(put.sent.sha256.to_string());
        let answers = put.deliveries.iter().filter_map(|delivery| delivery.answer.as_ref());
        *winners += answers.filter(|(_, answer)| answer.is_success()).count();
    }
    slots
}
