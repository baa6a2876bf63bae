//! The checker of histories finds what it is there to find: a sound history is broken in every way
//! that it knows, and each time it names the invariant.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on ends its test")]

use crate::actors::Front;
use crate::harness::Result;
use crate::harness::checker::roles::{self, Acts};
use crate::harness::checker::{Evidence, check};
use crate::harness::faultd::history::{Content, Exchange};
use crate::harness::s3::S3;
use bytes::Bytes;
use serde_json::{Value, json};
use understudy::object::Digest;

type Break = fn(&mut Evidence);

const BREAKS: &[(&str, &str, Break)] = &[
    ("I1", "an acknowledged backup is gone", |e| {
        e.stored.remove(&slot_of(e, "Commit"));
    }),
    ("I1", "another record stands where one was acknowledged", |e| {
        e.acknowledged[3].hub = "eu-9".into();
    }),
    ("I1", "an acknowledged record is void", |e| {
        let slot = slot_of(e, "Open");
        rewrite(e, &slot, |record| record["hub"]["name"] = json!("eu-9"));
    }),
    ("I1", "a record was deleted", |e| {
        let slot = slot_of(e, "Commit");
        add(e, &slot, |exchange| exchange.method = "DELETE".into());
    }),
    ("I1", "a record is not found any more", |e| {
        let slot = slot_of(e, "Commit");
        add(e, &slot, |exchange| answer(exchange, "GET", 404));
    }),
    ("I2", "a slot changed after it was won", |e| {
        let slot = slot_of(e, "Commit");
        add(e, &slot, |exchange| answer(exchange, "GET", 200));
    }),
    ("I2", "a slot has two winners", |e| {
        let slot = slot_of(e, "Commit");
        add(e, &slot, |_| {});
    }),
    ("I2", "two writers were told that a slot is theirs", |e| {
        e.acknowledged.push(e.acknowledged[3].clone());
    }),
    ("I2", "a record was put without a condition", |e| {
        let slot = format!("{}{}", e.prefix, slot_of(e, "Commit"));
        let put = e.history.iter_mut().find(|one| one.key == slot && one.method == "PUT");
        put.unwrap().conditional = false;
    }),
    ("I2", "a slot holds what nobody sent", |e| {
        let slot = slot_of(e, "Commit");
        rewrite(e, &slot, |record| record["writer"] = json!("nobody"));
    }),
    ("I2", "one attempt was sent with two bodies", |e| {
        let slot = slot_of(e, "Commit");
        resend(e, &slot, |record| record["at"] = json!("2030-01-01T00:00:00Z"));
    }),
    ("I2", "one attempt stands in two slots", |e| {
        let nonce = record(e, &slot_of(e, "Commit"))["nonce"].clone();
        append(e, |record| record["nonce"] = nonce.clone());
    }),
    ("I2", "the chain is broken", |e| {
        append(e, |record| record["prev"]["slot"] = json!(1));
    }),
    ("I3", "a term skips an epoch", |e| {
        append(e, |record| {
            record["epoch"] = json!(7);
            record["body"] = json!({"kind": "Term", "request": "r"});
        });
    }),
    ("I3", "an incarnation has two writers", |e| {
        let slot = slot_of(e, "Commit");
        resend(e, &slot, |record| record["hub"]["name"] = json!("eu-9"));
    }),
    ("I4", "an older epoch stands above a term", |e| {
        append(e, |record| record["epoch"] = json!(1));
    }),
    ("I7", "a pack of a backup is gone", |e| {
        e.stored.remove(&pack(e));
    }),
    ("I7", "a pack of a backup is shorter", |e| {
        let pack = pack(e);
        let bytes = e.stored[&pack].clone();
        e.stored.insert(pack, bytes.slice(1..));
    }),
    ("I7", "a pack of a backup has another byte", |e| {
        let pack = pack(e);
        let mut bytes = e.stored[&pack].to_vec();
        bytes[9] ^= 1;
        e.stored.insert(pack, bytes.into());
    }),
    ("I7", "a pack came after the record that names it", |e| {
        let pack = format!("{}{}", e.prefix, pack(e));
        let put = e.history.iter_mut().find(|one| one.key == pack && one.method == "PUT");
        put.unwrap().deliveries[0].answer.as_mut().unwrap().0 = u64::MAX;
    }),
    ("I8", "a pack was deleted that nobody condemned", |e| {
        let pack = pack(e);
        add(e, &pack, |exchange| exchange.method = "DELETE".into());
    }),
    ("I8", "a pack is condemned that a backup needs", |e| {
        let name = pack(e).replace("packs/", "");
        append(e, |record| record["body"] = retire(&json!(1), &name));
    }),
    ("I8", "a condemned pack is named again", |e| {
        let commit = record(e, &slot_of(e, "Commit"));
        let name = pack(e).replace("packs/", "");
        append(e, |record| record["body"] = retire(&commit["slot"], &name));
        append(e, |record| record["body"] = commit["body"].clone());
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_history_is_found() -> Result<()> {
    let sound = sound().await?;
    for (invariant, name, damage) in BREAKS {
        let mut evidence = sound.clone();
        damage(&mut evidence);
        let found = check(&evidence);
        assert!(found.iter().any(|one| one.invariant == *invariant), "{name}: {found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_history_and_a_sweep_by_the_rules_are_not_accused() -> Result<()> {
    let mut evidence = sound().await?;
    assert_eq!(check(&evidence), []);
    let (slot, pack) = (slot_of(&evidence, "Commit"), pack(&evidence));
    let backup = record(&evidence, &slot)["slot"].clone();
    let name = pack.replace("packs/", "");
    append(&mut evidence, |record| record["body"] = retire(&backup, &name));
    add(&mut evidence, &pack, |exchange| exchange.method = "DELETE".into());
    evidence.stored.remove(&pack);
    assert_eq!(check(&evidence), []);
    Ok(())
}

type BreakRoles = fn(&mut Evidence, &mut [Acts; 2]);

const HELD_BACK: [&str; 1] = ["managedclusters"];
const CLUSTER: &str = "cluster.open-cluster-management.io/v1/managedclusters/one";
const SITE: &str = "v1/namespaces/one/configmaps/site";

const BREAKS_OF_ROLES: &[(&str, &str, BreakRoles)] = &[
    ("I5", "a pack of a term comes from another hub", |_, [first, second]| {
        let pack = first.storage.iter().find(|one| one.key.contains("/packs/1-")).unwrap();
        second.storage.push(pack.clone());
    }),
    ("I5", "a record of a term comes from another hub", |e, [first, second]| {
        let slot = format!("{}{}", e.prefix, slot_of(e, "Commit"));
        let mut puts = first.storage.iter().filter(|one| one.method == "PUT");
        let commit = puts.find(|one| one.key == slot).unwrap();
        second.storage.push(commit.clone());
    }),
    ("I5", "two hubs tell of one term", |e, [first, _]| {
        first.bases.insert((2, format!("20260101-000000-{}", slots(e, "Commit")[1])));
    }),
    ("I6", "a promotion starts from an older backup", |e, [_, second]| {
        second.bases.insert((2, format!("20260101-000000-{}", slots(e, "Commit")[0])));
    }),
    ("I12", "a hub activates before its term", |e, [_, second]| {
        second.api.push(write(e, CLUSTER, 1));
    }),
    ("I12", "a former primary activates", |e, [first, _]| {
        first.api.push(write(e, CLUSTER, u64::MAX));
    }),
    ("I13", "a primary restores", |e, [_, second]| {
        second.api.push(write(e, SITE, u64::MAX));
    }),
    ("I13", "a primary activates again", |e, [_, second]| {
        second.api.push(write(e, CLUSTER, u64::MAX));
    }),
    ("I14", "a request becomes two terms", |e, _| {
        append(e, |record| {
            record["epoch"] = json!(3);
            record["body"] = json!({"kind": "Term", "request": "eu-2-2"});
        });
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_role_is_found() -> Result<()> {
    let sound = sound().await?;
    for (invariant, name, damage) in BREAKS_OF_ROLES {
        let (mut evidence, mut acts) = (sound.clone(), acts(&sound));
        assert_eq!(roles::check(&evidence, &acts, &HELD_BACK), []);
        damage(&mut evidence, &mut acts);
        let found = roles::check(&evidence, &acts, &HELD_BACK);
        assert!(found.iter().any(|one| one.invariant == *invariant), "{name}: {found:?}");
    }
    Ok(())
}

/// What the two hubs of a sound history did; the second activates in time, and labels later.
fn acts(e: &Evidence) -> [Acts; 2] {
    let of = |name: &str, epoch: u64| Acts {
        hub: name.to_owned(),
        storage: {
            let by = |one: &&Exchange| {
                let name = one.key.strip_prefix(&e.prefix).unwrap();
                let record = one.sent.bytes.as_ref().and_then(|b| {
                    serde_json::from_slice::<Value>(b.split(|b| *b == b'\n').next()?).ok()
                });
                match record.filter(|_| one.method == "PUT" && name.starts_with("journal/")) {
                    Some(record) => record["epoch"] == epoch,
                    None => one.method == "GET" || name.starts_with(&format!("packs/{epoch}-")),
                }
            };
            e.history.iter().filter(by).cloned().collect()
        },
        api: vec![],
        bases: [].into(),
    };
    let (mut first, mut second) = (of("eu-1", 1), of("eu-2", 2));
    let stood = put(e, &format!("journal/{:020}", slots(e, "Term")[1])).deliveries[0]
        .answer
        .as_ref()
        .unwrap()
        .0;
    second.api.push(write(e, CLUSTER, stood + 1));
    second.bases.insert((2, format!("20260101-000000-{}", slots(e, "Commit")[1])));
    let mut label = write(e, CLUSTER, u64::MAX);
    let marks = json!({"metadata": {"uid": "u", "labels": {"understudy.dev/pair": "test"}}});
    label.sent = Content::of(&marks.to_string().into());
    first.api.push(label);
    [first, second]
}

/// A request to an API server that changes this.
fn write(evidence: &Evidence, key: &str, at: u64) -> Exchange {
    let mut write = put(evidence, &slot_of(evidence, "Commit"));
    (write.method, write.key, write.received) = ("PATCH".into(), key.into(), at);
    write.sent = Content::of(&Bytes::from_static(b"[]"));
    write
}

/// The numbers of the slots with such a record.
fn slots(evidence: &Evidence, kind: &str) -> Vec<u64> {
    let names = evidence.stored.keys().filter(|name| name.starts_with("journal/"));
    let records = names.map(|name| record(evidence, name)).filter(|r| r["body"]["kind"] == kind);
    records.map(|record| record["slot"].as_u64().unwrap()).collect()
}

/// A primary with two backups, superseded by a second with one.
async fn sound() -> Result<Evidence> {
    let front = Front::new().await?;
    let prefix = S3::prefix("histories");
    let mut first = front.primary("eu-1", &prefix).await?;
    let mut second = front.actor("eu-2", &prefix).await?;
    first.backup().await?;
    first.backup().await?;
    second.promote().await?;
    second.open().await?;
    second.backup().await?;
    assert!(first.backup().await.is_err(), "it is superseded");
    front.evidence(&prefix, [first.told, second.told].concat()).await
}

fn retire(backup: &Value, pack: &str) -> Value {
    json!({"kind": "Retire", "backups": [backup], "packs": [pack], "swept": 0})
}

fn record(evidence: &Evidence, name: &str) -> Value {
    let text = String::from_utf8_lossy(&evidence.stored[name]).into_owned();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

fn bytes(record: &Value) -> Bytes {
    format!("{record}\nmac\n").into()
}

/// The name of the first slot with such a record.
fn slot_of(evidence: &Evidence, kind: &str) -> String {
    let mut slots = evidence.stored.keys().filter(|name| name.starts_with("journal/"));
    slots.find(|name| record(evidence, name)["body"]["kind"] == kind).unwrap().clone()
}

/// The pack of the first backup.
fn pack(evidence: &Evidence) -> String {
    let commit = record(evidence, &slot_of(evidence, "Commit"));
    let pack = &commit["body"]["sets"]["resources"]["levels"][0]["packs"][0]["name"];
    format!("packs/{}", pack.as_str().unwrap())
}

fn rewrite(evidence: &mut Evidence, name: &str, change: impl Fn(&mut Value)) {
    let mut record = record(evidence, name);
    change(&mut record);
    evidence.stored.insert(name.to_owned(), bytes(&record));
}

/// A record in the next slot, by the writer of the last one, sent as it should be.
fn append(evidence: &mut Evidence, change: impl Fn(&mut Value)) {
    let last = evidence.stored.keys().rfind(|name| name.starts_with("journal/")).unwrap().clone();
    let mut record = record(evidence, &last);
    let slot = record["slot"].as_u64().unwrap();
    let sha256 = Digest::of(&evidence.stored[&last]).to_string();
    record["slot"] = json!(slot + 1);
    record["prev"] = json!({"slot": slot, "sha256": sha256});
    record["nonce"] = json!(format!("nonce-{slot}"));
    change(&mut record);
    let (name, bytes) = (format!("journal/{:020}", slot + 1), bytes(&record));
    evidence.stored.insert(name.clone(), bytes.clone());
    let mut sent = put(evidence, &last);
    sent.key = format!("{}{name}", evidence.prefix);
    sent.sent = Content::of(&bytes);
    sent.deliveries[0].content = Content::of(&bytes);
    later(evidence, &mut sent);
    evidence.history.push(sent);
}

/// The same request once more with another record, and refused.
fn resend(evidence: &mut Evidence, name: &str, change: impl Fn(&mut Value)) {
    let mut record = record(evidence, name);
    change(&mut record);
    add(evidence, name, |exchange| {
        exchange.sent = Content::of(&bytes(&record));
        exchange.deliveries[0].answer.as_mut().unwrap().1.status = 412;
    });
}

/// The request that made `name` once more, as `change` has it.
fn add(evidence: &mut Evidence, name: &str, change: impl Fn(&mut Exchange)) {
    let mut exchange = put(evidence, name);
    later(evidence, &mut exchange);
    change(&mut exchange);
    evidence.history.push(exchange);
}

fn put(evidence: &Evidence, name: &str) -> Exchange {
    let key = format!("{}{name}", evidence.prefix);
    let mut puts = evidence.history.iter().filter(|one| one.key == key && one.method == "PUT");
    puts.find(|one| one.deliveries[0].answer.as_ref().unwrap().1.is_success()).unwrap().clone()
}

fn later(evidence: &Evidence, exchange: &mut Exchange) {
    let last = evidence.history.iter().map(|one| one.received).max().unwrap() + 1_000;
    (exchange.number, exchange.received) = (last, last);
    exchange.deliveries[0].sent = last + 1;
    exchange.deliveries[0].answer.as_mut().unwrap().0 = last + 2;
}

fn answer(exchange: &mut Exchange, method: &str, status: u16) {
    exchange.method = method.into();
    exchange.deliveries[0].answer.as_mut().unwrap().1.status = status;
}
