//! What else can happen between a hub and its storage, row by row of the catalogue: a backup is whole
//! or it is not there, a later one goes through, and nobody is fenced, promoted or emptied by mistake.

use crate::actors::{Front, storage_at};
use crate::harness::checker::{Evidence, check};
use crate::harness::faultd::fault::{Fault, Rule, Side, When};
use crate::harness::s3::{BUCKET, S3};
use crate::harness::{Failure, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::time::Duration;
use understudy::repository::journal::{Journal, JournalError};
use understudy::repository::probe;
use understudy::repository::storage::StorageError;
use understudy::retry::chain;

/// Cases at once: most of a case is waiting.
const AT_ONCE: usize = 8;
/// Backups that a case may need until one goes through.
const TRIES: usize = 30;

struct Case {
    row: &'static str,
    name: &'static str,
    method: &'static str,
    /// Below the prefix of the repository.
    key: &'static str,
    fault: Fault,
    when: When,
}

fn cases() -> Vec<Case> {
    let case = |row, name, (method, key), fault, when| Case { row, name, method, key, fault, when };
    let (put_pack, get_pack) = (("PUT", "packs/"), ("GET", "packs/"));
    let (put_record, get_record) = (("PUT", "journal/"), ("GET", "journal/"));
    let (once, twice) = (When::First(1), When::First(2));
    let storm = When::Chance { percent: 80, seed: 2 };
    let down = || Fault::FailBefore;
    let (request, answer) = (Side::Request, Side::Answer);
    vec![
        case("F01", "the storage is away for a pack", put_pack, down(), twice),
        case("F01", "the storage is away for the look at a pack", get_pack, down(), twice),
        case("F01", "the storage is away for a record", put_record, down(), twice),
        case("F01", "the storage is away for the look at the head", get_record, down(), twice),
        case("F01", "the storage is away for everything", ("", ""), down(), When::First(5)),
        case("F02", "most writes are sent away", ("PUT", ""), says(503, "SlowDown"), storm),
        case("F03", "a pack was stored, and the answer is 500", put_pack, applied(500), twice),
        case("F03", "a pack was stored, and nothing is heard", put_pack, lost(), twice),
        case("F04", "a proxy sends a record twice", put_record, Fault::Duplicate, When::Always),
        case("F04", "a record was stored, and the answer is 500", put_record, applied(500), twice),
        case("F06", "409 for a record", put_record, conflict(), When::First(3)),
        case("F06", "409 for a pack", put_pack, conflict(), When::First(3)),
        case("F15", "expired credentials", put_pack, says(403, "ExpiredToken"), once),
        case("F15", "clocks differ", put_pack, says(403, "RequestTimeTooSkewed"), once),
        case("F16", "no room for a pack", put_pack, says(403, "QuotaExceeded"), twice),
        case("F16", "no room for a record", put_record, says(507, "XMinioStorageFull"), twice),
        case("F17", "half a pack arrives", put_pack, Fault::Reset(request, 100), twice),
        case("F17", "nothing of a pack arrives", put_pack, Fault::Reset(request, 0), once),
        case("F17", "a pack is cut and declared so", put_pack, Fault::Truncate(request, 9), once),
        case("F17", "a pack is changed on its way", put_pack, Fault::Flip(request, 150), once),
        case("F17", "half a pack is read back", get_pack, Fault::Reset(answer, 100), twice),
        case("F17", "a pack reads shorter", get_pack, Fault::Truncate(answer, 100), once),
        case("F17", "a pack reads otherwise", get_pack, Fault::Flip(answer, 150), once),
        case("F17", "half a record arrives", put_record, Fault::Reset(request, 50), twice),
        case("F17", "a record is changed on its way", put_record, Fault::Flip(request, 9), once),
        case("F17", "the storage is slow", ("", ""), Fault::Slow(Duration::from_millis(50)), twice),
    ]
}

fn lost() -> Fault {
    Fault::ApplyThenDrop
}

fn applied(status: u16) -> Fault {
    Fault::ApplyThen { status, body: error("InternalError") }
}

fn conflict() -> Fault {
    says(409, "ConditionalRequestConflict")
}

fn says(status: u16, code: &str) -> Fault {
    Fault::Status { status, headers: vec![], body: error(code) }
}

fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_or_it_is_not_there() -> Result<()> {
    let front = Front::new().await?;
    stream::iter(cases())
        .map(|case| {
            let front = &front;
            async move {
                let done = backup_meets(front, &case).await;
                done.map_err(|error| Failure::from(format!("{} {}: {error}", case.row, case.name)))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

async fn backup_meets(front: &Front, case: &Case) -> Result<()> {
    let prefix = S3::prefix("faults");
    let mut hub = front.primary("eu-1", &prefix).await?;
    let Case { method, fault, when, .. } = case;
    let key = format!("{prefix}{}", case.key);
    front.faultd.add(Rule { fault: fault.clone(), method, key, when: *when });
    let mut errors = vec![];
    while let Err(error) = hub.backup().await {
        errors.push(chain(&*error));
        if errors.len() == TRIES {
            return Err(format!("no backup went through: {errors:?}").into());
        }
    }
    let acknowledged = hub.told.len();
    let evidence = front.judge(&prefix, hub.told).await?;
    let records = evidence.stored.keys().filter(|key| key.starts_with("journal/")).count();
    assert_eq!(records, acknowledged, "{}: a backup that failed is there: {errors:?}", case.name);
    let met = evidence.history.iter().filter(|exchange| exchange.fault.is_some()).count();
    assert!(met > 0, "{}: nothing happened", case.name);
    let deletes = evidence.history.iter().filter(|exchange| exchange.method == "DELETE").count();
    assert_eq!(deletes, 0, "{}: nothing is deleted to make room", case.name);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn f07_a_storage_that_never_sees_the_condition_is_found_out() -> Result<()> {
    let front = Front::new().await?;
    let prefix = S3::prefix("f07");
    let storage = front.storage(&prefix).await?;
    let verdict = probe::race(&storage, "sound").await?;
    assert!(verdict.atomic, "{verdict:?}");
    let fault = Fault::Strip("if-none-match");
    front.faultd.add(Rule { fault, method: "PUT", key: prefix.clone(), when: When::Always });
    let verdict = probe::race(&storage, "stripped").await?;
    assert!(!verdict.atomic && verdict.why.contains("16 of 16 creators"), "{verdict:?}");
    Ok(())
}

/// What is read late delays, and fences nobody: the refused create makes the hub look again.
#[tokio::test(flavor = "multi_thread")]
async fn f10_stale_reads_delay_and_mislead_nobody() -> Result<()> {
    // A proxy each, so that what is stale to one hub is what that hub saw.
    let front = Front::new().await?;
    let behind = front.s3.faultd().await?;
    let prefix = S3::prefix("f10");
    let mut first = front.primary("eu-1", &prefix).await?;
    let storage = storage_at(&behind.endpoint, front.s3, BUCKET, &prefix).await?;
    let mut second = front.actor_on("eu-2", storage).await?;
    second.journal.refresh().await?;
    let newest = first.backup().await?;
    let key = format!("{prefix}journal/");
    behind.add(Rule { fault: Fault::Stale, method: "GET", key, when: When::First(6) });
    assert!(second.journal.refresh().await?.head < newest, "it does not see the backup");
    let term = second.promote().await?;
    assert_eq!(term, newest + 1, "the backup is below the term");
    assert_eq!(second.journal.view().frozen, None);
    assert_eq!(second.journal.view().base.as_ref().map(|base| base.mark.slot), Some(newest));
    let refused = behind.history(&prefix).into_iter().filter(|one| {
        one.method == "PUT" && one.shown.as_ref().is_some_and(|(_, shown)| shown.status == 412)
    });
    assert!(refused.count() >= 1, "it has tried the stale slot");
    assert!(matches!(first.backup().await, Err(error) if chain(&*error).contains("not for")));
    front.judge(&prefix, [first.told, second.told].concat()).await?;
    Ok(())
}

/// One answer that cannot be is no reason to stop: the next one tells.
#[tokio::test(flavor = "multi_thread")]
async fn f10_one_odd_answer_freezes_nobody() -> Result<()> {
    let front = Front::new().await?;
    let prefix = S3::prefix("f10-odd");
    let mut hub = front.primary("eu-1", &prefix).await?;
    let newest = hub.backup().await?;
    let head = format!("{prefix}journal/{newest:020}");
    let body = "<Error><Code>NoSuchKey</Code></Error>".to_owned();
    let absent = Fault::Status { status: 404, headers: vec![], body };
    let when = When::First(2);
    front.faultd.add(Rule { fault: absent, method: "GET", key: head.clone(), when });
    let next = hub.backup().await?;
    assert_eq!(next, newest + 1, "the head was there");

    let flip = Fault::Flip(Side::Answer, 40);
    front.faultd.add(Rule { fault: flip, method: "GET", key: head, when });
    let mut reader = front.actor("eu-2", &prefix).await?;
    let view = reader.journal.refresh().await?;
    assert_eq!((view.head, view.frozen.as_ref()), (next, None), "the slot was read again");

    front
        .s3
        .client()
        .delete_object()
        .bucket(BUCKET)
        .key(format!("{prefix}journal/{next:020}"))
        .send()
        .await?;
    let refused = hub.backup().await.err().ok_or("a backup upon a record that is gone")?;
    assert!(chain(&*refused).contains("is gone"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_a_listing_that_lacks_keys_hides_no_record() -> Result<()> {
    let front = Front::new().await?;
    let prefix = S3::prefix("f11");
    let mut first = front.primary("eu-1", &prefix).await?;
    let newest = first.backup().await?;
    let fault = Fault::Omit(format!("{newest:020}"));
    front.faultd.add(Rule { fault, method: "LIST", key: prefix.clone(), when: When::Always });
    let storage = front.storage(&prefix).await?;
    let listed = storage.list("journal/", None).await?;
    assert!(listed.len() as u64 == newest - 1, "the listing lacks the newest: {listed:?}");
    let mut second = front.actor("eu-2", &prefix).await?;
    second.journal.look_for_holes().await?;
    let view = second.journal.refresh().await?;
    assert_eq!((view.head, view.frozen.as_ref()), (newest, None));
    second.promote().await?;
    front.judge(&prefix, [first.told, second.told].concat()).await?;
    Ok(())
}

/// Neither an empty repository nor a new bucket comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn f12_a_bucket_that_is_gone_is_no_empty_repository() -> Result<()> {
    const GONE: &str = "gone";
    let front = Front::new().await?;
    let client = front.s3.client();
    client.create_bucket().bucket(GONE).send().await?;
    let storage = storage_at(&front.faultd.endpoint, front.s3, GONE, "pair/").await?;
    let mut hub = front.actor_on("eu-1", storage.clone()).await?;
    hub.begin().await?;
    let newest = hub.backup().await?;
    for object in client.list_objects_v2().bucket(GONE).send().await?.contents() {
        let key = object.key().ok_or("an object without a key")?;
        client.delete_object().bucket(GONE).key(key).send().await?;
    }
    client.delete_bucket().bucket(GONE).send().await?;

    let missing =
        |error: &JournalError| matches!(error, JournalError::Storage(StorageError::Missing { .. }));
    let error = hub.journal.refresh().await.err().ok_or("it reads a bucket that is gone")?;
    assert!(missing(&error), "{}", chain(&error));
    let error = hub.backup().await.err().ok_or("it writes to a bucket that is gone")?;
    assert!(chain(&*error).contains("no such bucket"), "{}", chain(&*error));
    let reopened = Journal::open(storage.clone(), front.keys.clone(), None).await;
    assert!(reopened.is_err_and(|error| missing(&error)), "it is not taken for a new one");
    let created = Journal::create(storage, front.keys.clone(), 1).await;
    assert!(created.is_err_and(|error| missing(&error)), "nor made");
    assert_eq!(hub.journal.view().head, newest, "what was read stays");
    let buckets = client.list_buckets().send().await?;
    assert!(buckets.buckets().iter().all(|bucket| bucket.name() != Some(GONE)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_redirect_is_told_and_takes_no_signature_to_another_host() -> Result<()> {
    let front = Front::new().await?;
    let other = front.s3.faultd().await?;
    let prefix = S3::prefix("f18");
    let mut hub = front.primary("eu-1", &prefix).await?;
    for (status, code) in [(301, "PermanentRedirect"), (307, "TemporaryRedirect")] {
        let headers = vec![("location", format!("{}/{BUCKET}/", other.endpoint))];
        let fault = Fault::Status { status, headers, body: error(code) };
        front.faultd.add(Rule { fault, method: "", key: prefix.clone(), when: When::Always });
        let error = hub.backup().await.err().ok_or("it follows a redirect")?;
        assert!(chain(&*error).contains("the bucket lives elsewhere"), "{}", chain(&*error));
        front.faultd.heal(&prefix);
    }
    assert!(other.history("").is_empty(), "the other host was asked: {:?}", other.history(""));
    hub.backup().await?;
    front.judge(&prefix, hub.told).await?;
    Ok(())
}

/// The server dies in the midst of writes and comes back with its data: nothing told is lost.
#[tokio::test(flavor = "multi_thread")]
async fn f21_a_storage_that_is_killed_keeps_what_it_acknowledged() -> Result<()> {
    const KILLS: usize = 2;
    let front = Front::new().await?;
    let mut s3 = S3::start().await?;
    let storage = storage_at(&s3.endpoint, &s3, BUCKET, "pair/").await?;
    let mut hub = front.actor_on("eu-1", storage).await?;
    hub.begin().await?;
    for _ in 0..KILLS {
        let before = hub.told.len();
        let writes = async {
            while hub.told.len() < before + 5 {
                if let Err(error) = hub.backup().await
                    && !chain(&*error).contains("no definite answer")
                {
                    return Err(error);
                }
            }
            Ok(())
        };
        let kills = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            s3.kill();
            s3.restart().await
        };
        tokio::try_join!(writes, kills)?;
    }
    let (prefix, history) = ("pair/".to_owned(), vec![]);
    let stored = s3.stored(&prefix).await?;
    let acknowledged = hub.told;
    let records = stored.keys().filter(|key| key.starts_with("journal/")).count();
    assert_eq!(records, acknowledged.len());
    assert_eq!(check(&Evidence { prefix, history, stored, acknowledged }), []);
    Ok(())
}
