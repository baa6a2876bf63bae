//! Holds the model's walk against the product's, [`understudy::repository::chain::View::step`]: the
//! states are worth nothing if the model reads a journal otherwise than the hubs do.
//!
//! Every different journal that a search meets is read by both, and so is every short journal over an
//! alphabet of records, most of which no hub that keeps the rules would write.

use super::config::{Config, Weakness};
use super::record::{Kind, Record, SLOTS};
use super::walk::{self, Frozen, NOBODY, Reign};
use std::collections::BTreeMap;
use understudy::object::Digest;
use understudy::repository::chain::View;
use understudy::repository::layout::Mark;
use understudy::repository::record::{self, Body, Commit, Cut, Found, HubId};

/// Reads the journal with the product's walk; panics when it sees something else than the model.
/// `false`: it holds a kind of record that the product does not know, or the model is not to read
/// it as the product does.
pub(crate) fn compare(config: &Config, log: &[Record; SLOTS], model: &walk::View) -> bool {
    if config.weakness != Weakness::None {
        return false;
    }
    let mut view = View::default();
    for slot in 1..=usize::from(model.head) {
        let Some(found) = found(config, log, slot) else { return false };
        view.step(found, digest(log, slot));
    }
    agree(log, model, &view);
    true
}

#[track_caller]
pub(crate) fn agree(log: &[Record; SLOTS], model: &walk::View, view: &View) {
    let slot = |mark: Option<Mark>| mark.map_or(0, |mark| mark.slot);
    let frozen = match model.frozen {
        Frozen::No => None,
        Frozen::Junk => Some("JunkRecord"),
        Frozen::Key => Some("KeyMissing"),
    };
    let junk: Vec<u64> = (0..16).filter(|slot| model.junk & (1 << slot) != 0).collect();
    let model = (
        (u64::from(model.head), u64::from(model.last), u64::from(model.epoch)),
        (model.hub != NOBODY).then(|| hub(model.hub)),
        (u64::from(model.term), u64::from(model.incarnation), model.reign != Reign::Taken),
        (u64::from(model.newest), u64::from(model.usable), u64::from(model.base)),
        (junk, frozen),
    );
    let backup = |backup: &Option<std::sync::Arc<understudy::repository::chain::Backup>>| {
        backup.as_ref().map_or(0, |backup| backup.mark.slot)
    };
    let product = (
        (view.head, slot(view.last), view.epoch),
        view.holder.clone(),
        (view.term.as_ref().map_or(0, |term| term.slot), view.incarnation, view.activated),
        (backup(&view.newest), backup(&view.usable), backup(&view.base)),
        (
            view.junk.iter().map(|mark| mark.slot).collect(),
            view.frozen.as_ref().map(|frozen| &*frozen.reason),
        ),
    );
    let written = || log.iter().filter(|r| r.kind != Kind::Nothing).collect::<Vec<_>>();
    assert_eq!(model, product, "the model and the product read {:#?} differently", written());
}

/// What the product would find in the slot; `None`: it does not know such records.
pub(crate) fn found(config: &Config, log: &[Record; SLOTS], slot: usize) -> Option<Found> {
    let record = &log[slot];
    if record.kind == Kind::Junk {
        return Some(Found::Junk { why: "it is junk".to_owned() });
    }
    if record.rekeyed {
        return None;
    }
    let mark = |slot: usize| Mark { slot: slot as u64, sha256: digest(log, slot) };
    let body = match record.kind {
        Kind::Init => Body::Init,
        Kind::Term => Body::Term {
            request: record.request.to_string(),
            skips: (1..16).filter(|slot| record.names & (1 << slot) != 0).map(mark).collect(),
        },
        Kind::Open => Body::Open,
        Kind::Activated => Body::Activated { failed: vec![] },
        Kind::Commit => Body::Commit(Commit {
            sets: BTreeMap::new(),
            cut: Cut { revision: "1".to_owned(), apart: vec![] },
            rules: Digest([0; 32]),
            suspect: record.suspect.then(|| "it shrank".to_owned()),
            partial: vec![],
        }),
        Kind::Nothing | Kind::Junk | Kind::Condemn | Kind::Handover | Kind::Rekey => return None,
    };
    let opened = matches!(record.kind, Kind::Activated | Kind::Commit);
    let incarnation = if opened { u64::from(record.incarnation) } else { 0 };
    Some(Found::Record(Box::new(record::Record {
        repository: "repository".to_owned(),
        slot: slot as u64,
        epoch: u64::from(record.epoch),
        incarnation,
        hub: hub(config.hub_of[usize::from(record.by)]),
        nonce: record.nonce.to_string(),
        prev: (record.prev != 0).then(|| mark(usize::from(record.prev))),
        key: "key".to_owned(),
        writer: "model".to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        requires: vec![],
        body,
    })))
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
