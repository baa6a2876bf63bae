//! Pure: judges what happened to a repository, from the history of a fault proxy and what the storage
//! holds in the end. It reads the documented format by itself and shares no code with the program, so
//! that both must be wrong in the same way before a fault passes.
//!
//! It sees I1 to I4, I7 and I8 of the invariants; what hubs do in their roles is for [`roles`]. MACs are
//! not checked: nobody forges here.

pub mod roles;

use super::faultd::history::{Content, Exchange};
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use understudy::object::Digest;

#[derive(Clone)]
pub struct Evidence {
    /// Of the repository within the bucket; keys of the history begin with it.
    pub prefix: String,
    pub history: Vec<Exchange>,
    /// By the name behind the prefix.
    pub stored: BTreeMap<String, Bytes>,
    pub acknowledged: Vec<Acknowledged>,
}

/// A writer was told that its record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub slot: u64,
    pub epoch: u64,
    pub hub: String,
    pub kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A record as it stands in a slot or was sent to one.
struct Record {
    slot: u64,
    epoch: u64,
    incarnation: u64,
    hub: String,
    nonce: String,
    /// Slot and digest of the valid record before.
    prev: Option<(u64, String)>,
    kind: String,
    body: Value,
}

/// Every invariant that was broken, each by a sentence.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Found(vec![]);
    let journal = journal(evidence, &mut found);
    let valid = walk(&journal, &mut found);
    acknowledged_records_stay(evidence, &journal, &valid, &mut found);
    what_was_created_stays(evidence, &mut found);
    every_key_has_one_body(evidence, &mut found);
    every_attempt_has_one_body(evidence, &journal, &mut found);
    every_incarnation_has_one_writer(evidence, &mut found);
    packs_of_backups_exist(evidence, &journal, &valid, &mut found);
    only_condemned_packs_are_deleted(evidence, &journal, &valid, &mut found);
    found.0
}

struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, invariant: &'static str, what: impl Into<String>) {
        self.0.push(Violation { invariant, what: what.into() });
    }
}

fn journal(evidence: &Evidence, found: &mut Found) -> BTreeMap<u64, (Record, String)> {
    let mut journal = BTreeMap::new();
    for (name, bytes) in &evidence.stored {
        let Some(slot) = name.strip_prefix("journal/") else { continue };
        match (slot.parse::<u64>(), Record::parse(bytes)) {
            (Ok(slot), Some(record)) if record.slot == slot => {
                journal.insert(slot, (record, Digest::of(bytes).to_string()));
            }
            _ => found.add("I2", format!("{name} holds no record of that slot")),
        }
    }
    for (expected, slot) in (1_u64..).zip(journal.keys()) {
        if expected != *slot {
            found.add("I1", format!("slot {expected} is empty, but slot {slot} is not"));
            break;
        }
    }
    journal
}

/// The slots whose records count.
fn walk(journal: &BTreeMap<u64, (Record, String)>, found: &mut Found) -> BTreeSet<u64> {
    let mut valid = BTreeSet::new();
    let mut last: Option<(u64, String)> = None;
    let (mut epoch, mut holder, mut incarnation) = (0, String::new(), 0);
    let (mut activated, mut handed_over) = (false, false);
    for (slot, (record, digest)) in journal {
        if record.prev != last {
            found.add("I2", format!("slot {slot} does not continue the chain"));
        }
        if record.epoch < epoch {
            let old = record.epoch;
            found.add("I4", format!("slot {slot} is of epoch {old}, above the Term of {epoch}"));
        }
        let holds = record.epoch == epoch && record.hub == holder && !handed_over;
        let current = holds && record.incarnation == incarnation && incarnation != 0;
        let counts = match record.kind.as_str() {
            "Init" => last.is_none(),
            "Term" => last.is_some() && record.epoch == epoch + 1,
            "Open" => holds,
            "Commit" => current && activated,
            _ => current,
        };
        if !counts {
            if record.kind == "Term" {
                let next = epoch + 1;
                let is = record.epoch;
                found.add("I3", format!("the Term in slot {slot} is of epoch {is}, not {next}"));
            }
            continue;
        }
        match record.kind.as_str() {
            "Term" => {
                (epoch, holder, incarnation) = (record.epoch, record.hub.clone(), 0);
                (activated, handed_over) = (epoch == 1, false);
            }
            "Open" => incarnation = *slot,
            "Activated" => activated = true,
            "Handover" => handed_over = true,
            _ => {}
        }
        last = Some((*slot, digest.clone()));
        valid.insert(*slot);
    }
    valid
}

fn acknowledged_records_stay(
    evidence: &Evidence,
    journal: &BTreeMap<u64, (Record, String)>,
    valid: &BTreeSet<u64>,
    found: &mut Found,
) {
    let mut told = BTreeMap::new();
    for one in &evidence.acknowledged {
        let Acknowledged { slot, epoch, hub, kind } = one;
        if let Some(other) = told.insert(slot, one) {
            found.add("I2", format!("slot {slot} was acknowledged to {} and to {hub}", other.hub));
        }
        match journal.get(slot) {
            None => found.add("I1", format!("the acknowledged {kind} in slot {slot} is gone")),
            Some((record, _)) => {
                if (&record.hub, &record.epoch, record.kind.as_str()) != (hub, epoch, *kind) {
                    let there = format!("{} of {}", record.kind, record.hub);
                    let what = format!("slot {slot} holds {there}, not the {kind} of {hub}");
                    found.add("I1", what);
                } else if !valid.contains(slot) {
                    found.add("I1", format!("the acknowledged {kind} in slot {slot} is void"));
                }
            }
        }
    }
}

/// Once a creator won, the server shows every later reader those bytes, and nobody takes them away.
fn what_was_created_stays(evidence: &Evidence, found: &mut Found) {
    let mut created = BTreeMap::new();
    for (key, moment, content) in accepted(evidence) {
        created.entry(key).or_insert((moment, content.sha256));
    }
    for exchange in &evidence.history {
        let key = name(evidence, exchange);
        if exchange.method == "DELETE" && (key == "repo" || key.starts_with("journal/")) {
            found.add("I1", format!("{key} was deleted"));
        }
        let Some((since, digest)) = created.get(key).filter(|_| exchange.method == "GET") else {
            continue;
        };
        for delivery in exchange.deliveries.iter().filter(|delivery| delivery.sent > *since) {
            let Some((_, answer)) = &delivery.answer else { continue };
            let gone = answer.status == 404;
            if gone && !key.starts_with("packs/") {
                found.add("I1", format!("{key} was created and then not found"));
            }
            if answer.status == 200 && answer.content.sha256 != *digest {
                found.add("I2", format!("{key} changed after it was created"));
            }
        }
    }
}

fn every_key_has_one_body(evidence: &Evidence, found: &mut Found) {
    let mut winners: BTreeMap<&str, Vec<&Content>> = BTreeMap::new();
    for (key, _, content) in accepted(evidence) {
        winners.entry(key).or_default().push(content);
    }
    for (key, winners) in &winners {
        if winners.len() > 1 {
            found.add("I2", format!("{key} has {} winners", winners.len()));
        }
    }
    let puts = || evidence.history.iter().filter(|exchange| exchange.method == "PUT");
    for exchange in puts().filter(|exchange| !exchange.conditional) {
        let key = name(evidence, exchange);
        if is_written_once(key) {
            found.add("I2", format!("{key} was written without a condition"));
        }
    }
    for (key, bytes) in evidence.stored.iter().filter(|(key, _)| is_written_once(key)) {
        let mut sent = puts().filter(|exchange| name(evidence, exchange) == key).peekable();
        // What was there before the history began has no sender in it.
        if sent.peek().is_some() && !sent.any(|put| put.sent.sha256 == Digest::of(bytes)) {
            found.add("I2", format!("{key} holds what nobody sent"));
        }
    }
}

fn every_attempt_has_one_body(
    evidence: &Evidence,
    journal: &BTreeMap<u64, (Record, String)>,
    found: &mut Found,
) {
    let mut bodies = BTreeMap::new();
    for (record, digest) in sent_records(evidence) {
        let attempt = (record.slot, record.nonce.clone());
        if bodies.insert(attempt, digest).is_some_and(|other| other != digest) {
            found.add("I2", format!("slot {}: two bodies for one nonce", record.slot));
        }
    }
    let mut slots = BTreeMap::new();
    for (slot, (record, _)) in journal {
        if let Some(other) = slots.insert(&record.nonce, slot) {
            found.add("I2", format!("one attempt stands in the slots {other} and {slot}"));
        }
    }
}

fn every_incarnation_has_one_writer(evidence: &Evidence, found: &mut Found) {
    let mut writers = BTreeMap::new();
    for (record, _) in sent_records(evidence).filter(|(record, _)| record.incarnation != 0) {
        let Record { epoch, incarnation, hub, .. } = record;
        let other = writers.insert((epoch, incarnation), hub.clone());
        if let Some(other) = other.filter(|other| *other != hub) {
            found.add("I3", format!("incarnation {incarnation} of {epoch}: {other} and {hub}"));
        }
    }
}

fn packs_of_backups_exist(
    evidence: &Evidence,
    journal: &BTreeMap<u64, (Record, String)>,
    valid: &BTreeSet<u64>,
    found: &mut Found,
) {
    for (slot, record) in offered(journal, valid) {
        for (pack, length, sha256) in packs(record) {
            let key = format!("packs/{pack}");
            match evidence.stored.get(&key) {
                None => found.add("I7", format!("{key} of the backup {slot} is gone")),
                Some(bytes)
                    if bytes.len() as u64 != length || Digest::of(bytes).to_string() != sha256 =>
                {
                    found.add("I7", format!("{key} is not what the backup {slot} names"));
                }
                Some(_) => {}
            }
            let there = accepted(evidence).find(|(name, ..)| *name == key);
            if let (Some((_, there, _)), Some(named)) = (there, first_sent(evidence, slot))
                && there > named
            {
                found.add("I7", format!("slot {slot} named {key} before it was there"));
            }
        }
    }
}

fn only_condemned_packs_are_deleted(
    evidence: &Evidence,
    journal: &BTreeMap<u64, (Record, String)>,
    valid: &BTreeSet<u64>,
    found: &mut Found,
) {
    let condemned: BTreeMap<String, u64> = valid_of(journal, valid, "Retire")
        .flat_map(|(slot, record)| names(&record.body["packs"]).map(move |pack| (pack, slot)))
        .collect();
    for exchange in evidence.history.iter().filter(|exchange| exchange.method == "DELETE") {
        let Some(pack) = name(evidence, exchange).strip_prefix("packs/") else { continue };
        let since = condemned.get(pack).and_then(|slot| first_sent(evidence, *slot));
        if since.is_none_or(|since| exchange.received < since) {
            found.add("I8", format!("packs/{pack} was deleted and not condemned before"));
        }
    }
    for (slot, record) in offered(journal, valid) {
        for (pack, ..) in packs(record).filter(|(pack, ..)| condemned.contains_key(pack)) {
            found.add("I8", format!("packs/{pack} is condemned, the backup {slot} needs it"));
        }
    }
    for (slot, record) in valid_of(journal, valid, "Commit") {
        for (pack, ..) in packs(record) {
            if condemned.get(&pack).is_some_and(|condemned| *condemned < slot) {
                found.add("I8", format!("slot {slot} names the condemned packs/{pack}"));
            }
        }
    }
}

fn is_written_once(key: &str) -> bool {
    key == "repo" || key.starts_with("journal/") || key.starts_with("packs/")
}

fn name<'a>(evidence: &Evidence, exchange: &'a Exchange) -> &'a str {
    exchange.key.strip_prefix(&evidence.prefix).unwrap_or(&exchange.key)
}

/// Creations that the server said it had done: key, when it said so, and the bytes.
fn accepted(evidence: &Evidence) -> impl Iterator<Item = (&str, u64, &Content)> {
    let puts = evidence.history.iter().filter(|exchange| exchange.method == "PUT");
    let once = puts.filter(|exchange| is_written_once(name(evidence, exchange)));
    once.flat_map(|exchange| {
        exchange.deliveries.iter().filter_map(|delivery| {
            let (moment, answer) = delivery.answer.as_ref()?;
            answer.is_success().then(|| (name(evidence, exchange), *moment, &delivery.content))
        })
    })
}

fn sent_records(evidence: &Evidence) -> impl Iterator<Item = (Record, Digest)> {
    let puts = evidence.history.iter().filter(|exchange| {
        exchange.method == "PUT" && name(evidence, exchange).starts_with("journal/")
    });
    puts.filter_map(|put| Some((Record::parse(put.sent.bytes.as_ref()?)?, put.sent.sha256)))
}

/// When the record that stands in a slot was first on its way.
fn first_sent(evidence: &Evidence, slot: u64) -> Option<u64> {
    let key = format!("journal/{slot:020}");
    let sha256 = Digest::of(evidence.stored.get(&key)?);
    let mut sent = evidence.history.iter().filter(|exchange| {
        exchange.method == "PUT"
            && name(evidence, exchange) == key
            && exchange.sent.sha256 == sha256
    });
    sent.next().map(|exchange| exchange.received)
}

fn valid_of<'a>(
    journal: &'a BTreeMap<u64, (Record, String)>,
    valid: &'a BTreeSet<u64>,
    kind: &'a str,
) -> impl Iterator<Item = (u64, &'a Record)> {
    let records = journal.iter().filter(|(slot, _)| valid.contains(slot));
    records.map(|(slot, (record, _))| (*slot, record)).filter(move |(_, r)| r.kind == kind)
}

/// The backups that no `Retire` names.
fn offered<'a>(
    journal: &'a BTreeMap<u64, (Record, String)>,
    valid: &'a BTreeSet<u64>,
) -> impl Iterator<Item = (u64, &'a Record)> {
    let retired: BTreeSet<u64> = valid_of(journal, valid, "Retire")
        .flat_map(|(_, record)| numbers(&record.body["backups"]))
        .collect();
    valid_of(journal, valid, "Commit").filter(move |(slot, _)| !retired.contains(slot))
}

/// Name, length and SHA-256 of every pack that a commit names.
fn packs(commit: &Record) -> impl Iterator<Item = (String, u64, String)> {
    let sets = commit.body["sets"].as_object().into_iter().flat_map(|sets| sets.values());
    let levels = sets.flat_map(|set| set["levels"].as_array().into_iter().flatten());
    let packs = levels.flat_map(|level| level["packs"].as_array().into_iter().flatten());
    packs.map(|pack| {
        (text(&pack["name"]), pack["length"].as_u64().unwrap_or(0), text(&pack["sha256"]))
    })
}

fn numbers(list: &Value) -> impl Iterator<Item = u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64)
}

fn names(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().map(text)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Record {
    fn parse(bytes: &Bytes) -> Option<Self> {
        let line = bytes.split(|byte| *byte == b'\n').next()?;
        let value: Value = serde_json::from_slice(line).ok()?;
        let prev = &value["prev"];
        Some(Self {
            slot: value["slot"].as_u64()?,
            epoch: value["epoch"].as_u64()?,
            incarnation: value["incarnation"].as_u64()?,
            hub: value["hub"]["name"].as_str()?.to_owned(),
            nonce: value["nonce"].as_str()?.to_owned(),
            prev: prev["slot"].as_u64().map(|slot| (slot, text(&prev["sha256"]))),
            kind: value["body"]["kind"].as_str()?.to_owned(),
            body: value["body"].clone(),
        })
    }
}
