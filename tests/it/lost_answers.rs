//! The normal failure of a storage: a record was written and nobody heard so (F04), or it was not and
//! still arrives (F05). Whatever is lost, a record that was acknowledged stands once, and one that
//! was not is nowhere, unless its writer died.
//!
//! `UNDERSTUDY_CAMPAIGN` is the number of seeds, for a longer run.

use crate::actors::{Actor, Front, commit, rounds};
use crate::harness::faultd::fault::{Fault, Rule, When, draw};
use crate::harness::s3::S3;
use crate::harness::{Failure, Result, eventually};
use crate::scene::SOON;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::time::Duration;
use understudy::repository::journal::JournalError;
use understudy::repository::record::Body;
use understudy::retry::chain;

const SEEDS: u64 = 16;
/// Journals at once: most of a round is waiting.
const AT_ONCE: usize = 8;
const BACKUPS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn f04_a_record_whose_answer_was_lost_is_found_as_our_own() -> Result<()> {
    let front = Front::new().await?;
    let seeds = rounds(SEEDS)?;
    let lost: Vec<usize> = stream::iter(0..seeds)
        .map(|seed| told(seed, applied_and_dropped(&front, seed)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let lost: usize = lost.iter().sum();
    println!("F04: {seeds} seeds, {lost} answers lost");
    assert!(lost as u64 >= seeds, "with {lost} lost answers the test proves little");
    Ok(())
}

/// Half of all answers to a create are lost, and some reads fail as well. How many were lost.
async fn applied_and_dropped(front: &Front, seed: u64) -> Result<usize> {
    let prefix = S3::prefix("f04");
    let journal = format!("{prefix}journal/");
    let chance = |percent, salt| When::Chance { percent, seed: seed ^ salt };
    let rules = [
        ("PUT", Fault::ApplyThenDrop, chance(50, 0)),
        ("PUT", Fault::ApplyThen { status: 500, body: String::new() }, chance(20, 1 << 40)),
        ("GET", Fault::FailBefore, chance(15, 2 << 40)),
    ];
    for (method, fault, when) in rules {
        front.faultd.add(Rule { fault, method, key: journal.clone(), when });
    }
    let mut hub = front.actor("eu-1", &prefix).await?;
    insist(&mut hub, &Body::Init).await?;
    until_read(&mut hub).await?;
    hub.writer.epoch = 1;
    insist(&mut hub, &Body::Term { request: "initial".to_owned(), skips: vec![] }).await?;
    hub.writer.incarnation = insist(&mut hub, &Body::Open).await?;
    for _ in 0..BACKUPS {
        let pack = hub.put_pack().await?;
        insist(&mut hub, &Body::Commit(commit(vec![pack]))).await?;
    }
    let acknowledged = hub.told.len();
    let evidence = front.judge(&prefix, hub.told).await?;
    let records = evidence.stored.keys().filter(|key| key.starts_with("journal/")).count();
    assert_eq!(records, acknowledged, "an append that failed has written, or one wrote twice");
    let lost = |fault: &Option<Fault>| {
        matches!(fault, Some(Fault::ApplyThenDrop | Fault::ApplyThen { .. }))
    };
    Ok(evidence.history.iter().filter(|exchange| lost(&exchange.fault)).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn f05_a_write_that_arrives_late_is_ours_or_comes_to_nothing() -> Result<()> {
    let front = Front::new().await?;
    let seeds = rounds(SEEDS)?;
    let held: Vec<(usize, usize)> = stream::iter(0..seeds)
        .map(|seed| told(seed, held_and_delivered(&front, seed)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let (held, late) = held.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    println!("F05: {seeds} seeds, {held} writes held, {late} of them came first all the same");
    assert!(held as u64 >= seeds, "with {held} held writes the test proves little");
    Ok(())
}

/// Half of all creates are held; in every third round the writer dies while it waits; another hub
/// takes the next term meanwhile. How many were held, and how many of those were accepted.
async fn held_and_delivered(front: &Front, seed: u64) -> Result<(usize, usize)> {
    let prefix = S3::prefix("f05");
    let mut first = front.primary("eu-1", &prefix).await?;
    let mut second = front.actor("eu-2", &prefix).await?;
    let time = Duration::from_millis(1 + draw(seed, 100) % 600);
    for (n, time) in [(0, time), (1, time / 8)] {
        let when = When::Chance { percent: 40, seed: seed ^ (n << 40) };
        let key = format!("{prefix}journal/");
        front.faultd.add(Rule { fault: Fault::Hold(time), method: "PUT", key, when });
    }
    let dies = seed.is_multiple_of(3);
    let life = Duration::from_millis(draw(seed, 101) % 300);
    let writes = async {
        for _ in 0..BACKUPS {
            let pack = first.put_pack().await?;
            match first.append(Body::Commit(commit(vec![pack]))).await {
                Ok(_) => {}
                Err(JournalError::NotAllowed { .. }) => break,
                Err(error) => return Err(Failure::from(chain(&error))),
            }
        }
        Ok(())
    };
    let writes = async {
        let life = if dies { life } else { Duration::from_mins(5) };
        // Over time is death: the future is dropped where it stands.
        tokio::time::timeout(life, writes).await.unwrap_or(Ok(()))
    };
    let takes = async {
        tokio::time::sleep(Duration::from_millis(draw(seed, 102) % 200)).await;
        second.promote().await?;
        second.open().await?;
        second.backup().await?;
        Ok::<_, Failure>(())
    };
    tokio::try_join!(writes, takes)?;
    let acknowledged = [first.told, second.told].concat();
    let count = acknowledged.len();
    let evidence = front.judge(&prefix, acknowledged).await?;
    let records = evidence.stored.keys().filter(|key| key.starts_with("journal/")).count();
    if dies {
        assert!((count..=count + 1).contains(&records), "{records} records, {count} told");
    } else {
        assert_eq!(records, count, "a record that nobody was told of");
    }
    let held = || {
        evidence.history.iter().filter(|exchange| matches!(exchange.fault, Some(Fault::Hold(_))))
    };
    let accepted = held().filter(|exchange| {
        let answers = exchange.deliveries.iter().filter_map(|delivery| delivery.answer.as_ref());
        answers.into_iter().any(|(_, answer)| answer.is_success())
    });
    Ok((held().count(), accepted.count()))
}

/// The order that matters most, without chance: the writer dies while its write is held, another hub
/// takes the term in that very slot, and then the write arrives.
#[tokio::test(flavor = "multi_thread")]
async fn f05_what_a_dead_writer_sent_does_not_displace_a_term() -> Result<()> {
    let front = Front::new().await?;
    let prefix = S3::prefix("f05-term");
    let mut first = front.primary("eu-1", &prefix).await?;
    let mut second = front.actor("eu-2", &prefix).await?;
    let pack = first.put_pack().await?;
    let held = Fault::Hold(Duration::from_secs(2));
    for (fault, when) in [(held, When::Nth(1)), (Fault::FailBefore, When::Always)] {
        let key = format!("{prefix}journal/");
        front.faultd.add(Rule { fault, method: "PUT", key, when });
    }
    let held = async || {
        let sent = front.faultd.history(&prefix);
        sent.iter().any(|exchange| matches!(exchange.fault, Some(Fault::Hold(_)))).then_some(())
    };
    tokio::select! {
        ended = first.append(Body::Commit(commit(vec![pack]))) => {
            return Err(format!("it ended while its write was held: {ended:?}").into());
        }
        seen = eventually(SOON, "the write to be held", held) => seen?,
    }
    front.faultd.heal(&prefix);
    let term = second.promote().await?;
    let acknowledged = [first.told, second.told].concat();
    let evidence = front.judge(&prefix, acknowledged).await?;
    let late = evidence.history.iter().find(|one| matches!(one.fault, Some(Fault::Hold(_))));
    let late = late.ok_or("nothing was held")?;
    assert_eq!(late.key, format!("{prefix}journal/{term:020}"), "they met in one slot");
    let answer = late.deliveries.first().and_then(|delivery| delivery.answer.as_ref());
    assert_eq!(answer.map(|(_, answer)| answer.status), Some(412));
    Ok(())
}

/// As the daemon does at its next look: an append that failed for certain is made again.
async fn insist(hub: &mut Actor, body: &Body) -> Result<u64> {
    loop {
        match hub.append(body.clone()).await {
            Ok(slot) => return Ok(slot),
            Err(JournalError::Storage(_)) => {}
            Err(error) => return Err(chain(&error).into()),
        }
    }
}

async fn until_read(hub: &mut Actor) -> Result<()> {
    eventually(SOON, "the journal to be read", async || {
        hub.journal.refresh().await.ok().map(|_| ())
    })
    .await
}

async fn told<T>(seed: u64, round: impl Future<Output = Result<T>>) -> Result<T> {
    round.await.map_err(|error| format!("seed {seed}: {error}").into())
}
