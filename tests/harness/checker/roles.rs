//! Pure: judges what hubs did in their roles, from the proxies before the storage and the API server of
//! each of them, which share one order, and from the journal.
//!
//! It sees I5, I6 and I12 to I14. A term begins when the storage said that its record stands; it ends for
//! others when theirs does, and for its holder when it was shown that one.

use super::{Evidence, Found, Record, Violation, journal, text, valid_of, walk};
use crate::harness::faultd::fault::is_effect;
use crate::harness::faultd::history::Exchange;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Writes that may be on their way while a hub reads that its term has ended.
const ON_THEIR_WAY: usize = 64;

/// What one hub did since the history of the evidence began.
#[derive(Clone)]
pub struct Acts {
    pub hub: String,
    pub storage: Vec<Exchange>,
    pub api: Vec<Exchange>,
    /// Its promotions as it tells them: the epoch, and the backup that it started from.
    pub bases: BTreeSet<(u64, String)>,
}

/// A valid `Term`. Moments are 0 for what stood before the history began.
struct Term {
    slot: u64,
    epoch: u64,
    hub: String,
    since: u64,
    /// When its `Activated` was first on its way; of the first term, with the term.
    activated: Option<u64>,
    /// When its `Handover` was.
    handed_over: Option<u64>,
}

/// `held_back`: resources of the activation set, as they stand in paths.
pub fn check(evidence: &Evidence, acts: &[Acts], held_back: &[&str]) -> Vec<Violation> {
    let mut found = Found(vec![]);
    let journal = journal(evidence, &mut Found(vec![]));
    let valid = walk(&journal, &mut Found(vec![]));
    let terms = terms(evidence, &journal, &valid);
    requests_become_one_term(&journal, &valid, &mut found);
    for hub in acts {
        bases(hub, &journal, &valid, &terms, &mut found);
        acts_in_own_terms(evidence, hub, &terms, &mut found);
        writes(evidence, hub, &terms, held_back, &mut found);
    }
    found.0
}

fn terms(
    evidence: &Evidence,
    journal: &BTreeMap<u64, (Record, String)>,
    valid: &BTreeSet<u64>,
) -> Vec<Term> {
    let of = |kind, epoch| {
        let mut records = valid_of(journal, valid, kind);
        records.find(|(_, record)| record.epoch == epoch).map(|(slot, _)| slot)
    };
    let all = valid_of(journal, valid, "Term").map(|(slot, record)| {
        let (epoch, hub, since) = (record.epoch, record.hub.clone(), stood(evidence, slot));
        let sent = |slot| super::first_sent(evidence, slot).unwrap_or(0);
        let activated = of("Activated", epoch).map(sent).or((epoch == 1).then_some(since));
        Term { slot, epoch, hub, since, activated, handed_over: of("Handover", epoch).map(sent) }
    });
    all.collect()
}

/// When the storage had said that the record in this slot stands, or at least was asked to.
fn stood(evidence: &Evidence, slot: u64) -> u64 {
    let key = format!("{}journal/{slot:020}", evidence.prefix);
    let puts = evidence.history.iter().filter(|one| one.method == "PUT" && one.key == key);
    let deliveries = puts.flat_map(|put| &put.deliveries);
    let moments = deliveries.filter_map(|delivery| match &delivery.answer {
        Some((moment, answer)) => answer.is_success().then_some(*moment),
        None => Some(delivery.sent),
    });
    moments.min().unwrap_or(0)
}

fn requests_become_one_term(
    journal: &BTreeMap<u64, (Record, String)>,
    valid: &BTreeSet<u64>,
    found: &mut Found,
) {
    let mut granted = BTreeMap::new();
    for (slot, record) in valid_of(journal, valid, "Term") {
        let request = text(&record.body["request"]);
        if let Some(other) = granted.insert(request.clone(), slot) {
            found.add("I14", format!("the request {request} stands in {other} and in {slot}"));
        }
    }
}

/// A hub starts from the newest usable backup below its term, but for one that takes back its own.
fn bases(
    hub: &Acts,
    journal: &BTreeMap<u64, (Record, String)>,
    valid: &BTreeSet<u64>,
    terms: &[Term],
    found: &mut Found,
) {
    for (epoch, base) in &hub.bases {
        let own = terms.iter().position(|term| term.epoch == *epoch && term.hub == hub.hub);
        let Some(own) = own else {
            found.add("I5", format!("{} tells of a term {epoch} that is not its own", hub.hub));
            continue;
        };
        let again = own > 0 && terms[own - 1].hub == hub.hub;
        let below = |(slot, _): &(u64, &Record)| *slot < terms[own].slot;
        let acknowledged: BTreeSet<u64> = valid_of(journal, valid, "Ack")
            .filter(below)
            .filter_map(|(_, record)| record.body["slot"].as_u64())
            .collect();
        let usable = valid_of(journal, valid, "Commit").filter(below).filter(|(slot, record)| {
            record.body["suspect"] == Value::Null || acknowledged.contains(slot)
        });
        let newest = usable.map(|(slot, _)| slot).last();
        let told = base.rsplit('-').next().and_then(|slot| slot.parse().ok());
        if !again && newest != told {
            let what = format!("{} started the term {epoch} from {base}, not {newest:?}", hub.hub);
            found.add("I6", what);
        }
    }
}

/// Records and packs of a term come from its holder alone.
fn acts_in_own_terms(evidence: &Evidence, hub: &Acts, terms: &[Term], found: &mut Found) {
    let puts = hub.storage.iter().filter(|one| one.method == "PUT");
    for put in puts {
        let name = super::name(evidence, put);
        let epoch = if let Some(pack) = name.strip_prefix("packs/") {
            pack.split('-').next().and_then(|epoch| epoch.parse().ok())
        } else if name.starts_with("journal/") {
            let record = put.sent.bytes.as_ref().and_then(Record::parse);
            let acts = |record: &Record| record.kind != "Term" && record.kind != "Init";
            record.filter(acts).map(|record| record.epoch)
        } else {
            None
        };
        let Some(epoch) = epoch else { continue };
        if !terms.iter().any(|term| term.epoch == epoch && term.hub == hub.hub) {
            found.add("I5", format!("{} wrote {name} in the term {epoch} of another", hub.hub));
        }
    }
}

/// What the hub wrote to its own cluster, by its newest term at that moment.
fn writes(evidence: &Evidence, hub: &Acts, terms: &[Term], held_back: &[&str], found: &mut Found) {
    let mut late = 0;
    for write in hub.api.iter().filter(|one| is_write(one) && !one.deliveries.is_empty()) {
        let at = write.received;
        let stands = || terms.iter().rev().filter(move |term| term.since <= at);
        let own = stands().find(|term| term.hub == hub.hub);
        let top = stands().next();
        let holds = own.map(|term| term.epoch) == top.map(|term| term.epoch);
        let past = |moment: Option<u64>| moment.is_some_and(|moment| moment <= at);
        let what = format!("{} {} by {}", write.method, write.key, hub.hub);
        if let Some(own) = own.filter(|own| holds && past(own.activated) && !past(own.handed_over))
        {
            found.add("I13", format!("{what}, which is primary in the term {}", own.epoch));
        }
        if !write.key.split('/').any(|part| held_back.contains(&part)) || is_label(write) {
            continue;
        }
        match (own, top) {
            (None, _) => found.add("I12", format!("{what}, which never had a term")),
            (Some(own), Some(top))
                if !holds && shown(evidence, hub, top).is_some_and(|s| s < at) =>
            {
                late += 1;
                if own.activated.is_some() || late > ON_THEIR_WAY {
                    found.add("I12", format!("{what}, although {} holds {}", top.hub, top.epoch));
                }
            }
            (Some(_), _) => {}
        }
    }
}

fn is_write(one: &Exchange) -> bool {
    is_effect(one) && crate::harness::faultd::fault::is_write(&one.method, &one.key)
}

/// A former primary marks what it held as its own; nothing of it becomes another.
fn is_label(write: &Exchange) -> bool {
    let body = write.sent.bytes.as_ref().and_then(|bytes| serde_json::from_slice(bytes).ok());
    let Some(Value::Object(body)) = body else { return false };
    let marks = |name: &str| {
        let map = body["metadata"][name].as_object();
        map.is_none_or(|map| map.keys().all(|key| key.starts_with("understudy.dev/")))
    };
    let fields = body.get("metadata").and_then(Value::as_object);
    let known = ["uid", "resourceVersion", "labels", "annotations"];
    write.method == "PATCH"
        && body.len() == 1
        && fields.is_some_and(|fields| fields.keys().all(|name| known.contains(&&**name)))
        && marks("labels")
        && marks("annotations")
}

/// When the hub was shown the record of this term.
fn shown(evidence: &Evidence, hub: &Acts, term: &Term) -> Option<u64> {
    let key = format!("{}journal/{:020}", evidence.prefix, term.slot);
    let reads = hub.storage.iter().filter(|one| one.method == "GET" && one.key == key);
    let shown = reads.filter_map(|read| read.shown.as_ref().filter(|(_, a)| a.is_success()));
    let first = shown.map(|(moment, _)| *moment).min();
    first.or((term.since == 0).then_some(0))
}
