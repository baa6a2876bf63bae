//! Holds the model's walk against the product's, [`understudy::repository::chain::View::step`]: the
//! states are worth nothing if the model reads a journal otherwise than the hubs do.
//!
//! Every different journal that a search meets is read by both, and so is every short journal over an
//! alphabet of records, most of which no hub that keeps the rules would write.

use super::config::{Config, Weakness};
use super::record::{Kind, Record, SLOTS};
use super::walk::{self, Frozen, NOBODY, Reign};
use std::collections::BTreeSet;
use understudy::object::{Digest, Set};
use understudy::repository::chain::View;
use understudy::repository::layout::{Mark, PackName};
use understudy::repository::record::{
    self, Body, Commit, Cut, Found, HubId, Level, PackRef, Retire, SetContents,
};

const OLD_KEY: &str = "old";
const NEW_KEY: &str = "new";

/// Reads the journal with the product's walk, as a hub with the new key and as one without; panics
/// when it sees something else than the model. `false`: the model is not to read as the product does.
pub(crate) fn compare(config: &Config, log: &[Record; SLOTS], truth: &walk::View) -> bool {
    if config.weakness != Weakness::None {
        return false;
    }
    for has_new_key in [true, false] {
        let model = if has_new_key { *truth } else { walk::walk(config, log, None, has_new_key) };
        let mut view = View::default();
        for slot in 1..=usize::from(model.head) {
            step(config, log, slot, has_new_key, &mut view);
        }
        agree(log, &model, &view);
    }
    true
}

/// As the product's journal moves its view.
pub(crate) fn step(
    config: &Config,
    log: &[Record; SLOTS],
    slot: usize,
    has_new_key: bool,
    view: &mut View,
) {
    let record = &log[slot];
    let found = if record.rekeyed && !has_new_key {
        Found::UnknownKey { key: NEW_KEY.to_owned() }
    } else {
        found(config, log, slot, view)
    };
    view.step(found, digest(log, slot));
    if view.key() == Some(NEW_KEY) && !has_new_key {
        view.freeze_without(NEW_KEY);
    }
}

#[track_caller]
pub(crate) fn agree(log: &[Record; SLOTS], model: &walk::View, view: &View) {
    let slot = |mark: Option<Mark>| mark.map_or(0, |mark| mark.slot);
    let frozen = match model.frozen {
        Frozen::No => None,
        Frozen::Junk => Some("JunkRecord"),
        Frozen::Key => Some("KeyMissing"),
    };
    let handed = model.reign == Reign::HandedOver;
    let condemned: BTreeSet<_> = packs(model.condemned).collect();
    let junk: Vec<u64> = (0..16).filter(|slot| model.junk & (1 << slot) != 0).collect();
    let model = (
        (u64::from(model.head), u64::from(model.last), u64::from(model.epoch)),
        (model.hub != NOBODY).then(|| hub(model.hub)),
        (u64::from(model.term), u64::from(model.incarnation), model.reign != Reign::Taken, handed),
        (u64::from(model.newest), u64::from(model.usable), u64::from(model.base)),
        (junk, frozen, condemned, model.rekeyed),
    );
    let backup = |backup: &Option<std::sync::Arc<understudy::repository::chain::Backup>>| {
        backup.as_ref().map_or(0, |backup| backup.mark.slot)
    };
    let product = (
        (view.head, slot(view.last), view.epoch),
        view.holder.clone(),
        (
            view.term.as_ref().map_or(0, |term| term.slot),
            view.incarnation,
            view.activated || view.handed.is_some(),
            view.handed.is_some(),
        ),
        (backup(&view.newest), backup(&view.usable), backup(&view.base)),
        (
            view.junk.iter().map(|mark| mark.slot).collect(),
            view.frozen.as_ref().map(|frozen| &*frozen.reason),
            view.ledger.condemned.keys().cloned().collect(),
            view.key() == Some(NEW_KEY),
        ),
    );
    let written = || log.iter().filter(|r| r.kind != Kind::Nothing).collect::<Vec<_>>();
    assert_eq!(model, product, "the model and the product read {:#?} differently", written());
}

/// What the product, with all keys, would find in the slot.
fn found(config: &Config, log: &[Record; SLOTS], slot: usize, view: &View) -> Found {
    let record = &log[slot];
    let mark = |slot: usize| Mark { slot: slot as u64, sha256: digest(log, slot) };
    let body = match record.kind {
        Kind::Nothing | Kind::Junk => return Found::Junk { why: "it is junk".to_owned() },
        Kind::Init => Body::Init,
        Kind::Term => Body::Term {
            request: record.request.to_string(),
            skips: (1..16).filter(|slot| record.names & (1 << slot) != 0).map(mark).collect(),
        },
        Kind::Open => Body::Open,
        Kind::Activated => Body::Activated { failed: vec![] },
        Kind::Commit => Body::Commit(commit(record)),
        Kind::Handover => Body::Handover { to: "anybody".to_owned() },
        Kind::Rekey => Body::Rekey { to: NEW_KEY.to_owned() },
        Kind::Condemn => {
            let offered = |slot| view.ledger.offered.contains_key(&slot);
            let named = (0..).zip(log).filter(|(_, other)| other.names & record.names != 0);
            Body::Retire(Retire {
                backups: named.map(|(slot, _)| slot).filter(|slot| offered(*slot)).collect(),
                packs: packs(record.names).collect(),
                swept: 0,
            })
        }
    };
    let before_open = matches!(record.kind, Kind::Init | Kind::Term | Kind::Open);
    let incarnation = if before_open { 0 } else { u64::from(record.incarnation) };
    Found::Record(Box::new(record::Record {
        repository: "repository".to_owned(),
        slot: slot as u64,
        epoch: u64::from(record.epoch),
        incarnation,
        hub: hub(config.hub_of[usize::from(record.by)]),
        nonce: record.nonce.to_string(),
        prev: (record.prev != 0).then(|| mark(usize::from(record.prev))),
        key: if record.rekeyed { NEW_KEY } else { OLD_KEY }.to_owned(),
        writer: "model".to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        requires: vec![],
        body,
    }))
}

fn commit(record: &Record) -> Commit {
    let reference = |name| PackRef { name, length: 1, sha256: Digest([0; 32]), lines: 1 };
    let level = Level { packs: packs(record.names).map(reference).collect() };
    let contents = SetContents { levels: vec![level], ..SetContents::default() };
    Commit {
        sets: [(Set::Resources, contents)].into(),
        cut: Cut { revision: "1".to_owned(), apart: vec![] },
        rules: Digest([0; 32]),
        suspect: record.suspect.then(|| "it shrank".to_owned()),
        partial: vec![],
    }
}

fn packs(names: u16) -> impl Iterator<Item = PackName> {
    let bits = (0..16).filter(move |bit| names & (1 << bit) != 0);
    bits.map(|bit: u8| PackName::new(1, 1, ulid::Ulid(u128::from(bit))))
}

/// Different for every record in every slot; the walks only compare it.
pub(crate) fn digest(log: &[Record; SLOTS], slot: usize) -> Digest {
    let mut digest = [0; 32];
    digest[0] = u8::try_from(slot).expect("there are few slots");
    digest[8..16].copy_from_slice(&log[slot].word().to_be_bytes());
    Digest(digest)
}

fn hub(number: u8) -> HubId {
    let name = char::from(b'a' + number).to_string();
    HubId { uid: format!("uid-{name}"), name }
}
