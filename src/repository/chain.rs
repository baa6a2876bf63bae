//! Pure: which records of the journal are valid, the same for every reader.
//!
//! A [`View`] is what a reader knows after walking slots upward; [`View::step`] moves it by one slot.
//! No two readers of the same slots can disagree about who holds the term: that is the fence.
//!
//! What may go wrong: junk, a key that we lack, a newer format. Each freezes the view: what stands
//! beyond is not looked at, except a `Term` that names every junk slot with its digest (an operator
//! was there).

use super::layout::{Mark, PackName};
use super::ledger::Ledger;
use super::record::{Body, Commit, Found, HubId, PackRef, Record};
use crate::object::{Digest, Set};
use crate::status::{BackupSummary, Frozen, SetSummary};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many backups a view remembers by their summaries; older ones are read from their slots.
pub const SUMMARIES: usize = 1_000;

/// So many suspect backups can be acknowledged, the newest; a view holds each as a whole.
const SUSPECTS: usize = 16;

/// The reason of a freeze that an operator's term may pass by.
const JUNK: &str = "JunkRecord";

/// Everything that the walked part of a journal says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The last slot that was walked; 0: none.
    pub head: u64,
    /// The last valid record.
    pub last: Option<Mark>,
    /// Ids of the keys, by the slots of the records that named them: `Init`, and each `Rekey`. The
    /// last one authenticates the next record.
    pub keys: BTreeMap<u64, String>,
    /// The highest term; 0: none yet.
    pub epoch: u64,
    pub holder: Option<HubId>,
    /// When and where the term began.
    pub term: Option<Term>,
    /// Slot of the current `Open`; 0: none in this term.
    pub incarnation: u64,
    /// Backups may be committed in this term.
    pub activated: bool,
    /// The holder gave the term up.
    #[serde(default)]
    pub handed: Option<Handed>,
    /// Hubs that held a term once and hold none now.
    #[serde(rename = "superseded")]
    pub former: Vec<Former>,
    /// Ids of the requests that became a term, each with its epoch.
    pub requests: BTreeMap<String, u64>,
    pub newest: Option<Arc<Backup>>,
    /// Newest backup that a standby may apply.
    pub usable: Option<Arc<Backup>>,
    /// Newest usable backup below the current term: what a promotion starts from.
    pub base: Option<Arc<Backup>>,
    /// Newer than the newest usable one, and to be acknowledged; oldest first.
    pub suspects: Vec<Arc<Backup>>,
    /// Slot of the last backup that was acknowledged; 0: none was. What was there before is no measure
    /// for what comes after it.
    #[serde(default)]
    pub acknowledged: u64,
    /// The newest that are offered, oldest first.
    pub backups: Vec<BackupSummary>,
    pub ledger: Ledger,
    /// Slots that hold something, but nothing of ours.
    pub junk: Vec<Mark>,
    pub frozen: Option<Frozen>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    pub slot: u64,
    pub at: jiff::Timestamp,
    pub request: String,
    /// The term before was given up.
    #[serde(default)]
    pub after: Option<Handed>,
    /// The hub held the term before, too: it took back what it had handed over.
    #[serde(default)]
    pub again: bool,
}

/// A term that its holder gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// Name of the hub that it is for; empty: any of the pair.
    pub to: String,
    pub at: jiff::Timestamp,
}

impl Handed {
    pub fn is_for(&self, hub: &str) -> bool {
        self.to.is_empty() || self.to == hub
    }
}

/// A hub that held a term, and how that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    #[serde(flatten)]
    pub hub: HubId,
    /// Of the term of another hub that followed.
    #[serde(default)]
    pub epoch: u64,
    /// It gave its term up. Otherwise it was superseded.
    #[serde(default)]
    pub handed_over: bool,
    /// Slot of the newest backup at that time, if it was its own.
    #[serde(default)]
    pub backup: Option<u64>,
}

/// A committed backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    pub mark: Mark,
    pub epoch: u64,
    pub hub: HubId,
    pub at: jiff::Timestamp,
    pub commit: Commit,
}

impl Backup {
    pub fn of(record: &Record, commit: &Commit, mark: Mark) -> Self {
        Self {
            mark,
            epoch: record.epoch,
            hub: record.hub.clone(),
            at: record.at,
            commit: commit.clone(),
        }
    }

    pub fn id(&self) -> String {
        super::layout::backup_id(self.at, self.mark.slot)
    }

    pub fn summary(&self, packs_before: &[&PackName]) -> BackupSummary {
        BackupSummary {
            id: self.id(),
            slot: self.mark.slot,
            epoch: self.epoch,
            hub: self.hub.name.clone(),
            at: self.at,
            sets: self
                .commit
                .sets
                .iter()
                .map(|(set, contents)| {
                    let bytes =
                        contents.levels.iter().flat_map(|l| &l.packs).map(|p| p.length).sum();
                    (
                        *set,
                        SetSummary { objects: contents.objects, bytes, changed: contents.changed },
                    )
                })
                .collect(),
            suspect: self.commit.suspect.clone(),
            partial: self.commit.partial.iter().map(ToString::to_string).collect(),
            packs_written: self.commit.packs().filter(|p| !packs_before.contains(&&p.name)).count(),
        }
    }
}

/// Why an authentic record does not count. Nothing of it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void(pub &'static str);

impl View {
    /// Moves the view by the content of slot `head + 1`. `Ok(Some(void))`: walked, but it counts for
    /// nothing. A frozen view stays where it is unless the record is a `Term` that passes the junk by.
    pub fn step(&mut self, found: Found, sha256: Digest) -> Option<Void> {
        let mark = Mark { slot: self.head + 1, sha256 };
        self.head = mark.slot;
        match found {
            Found::Record(record) => self.record(&record, mark),
            Found::Junk { why } => {
                self.freeze_on_junk(mark, &why);
                None
            }
            // A pair changes its key by a record under the old one, so nobody of the pair wrote this.
            Found::UnknownKey { key } if self.key().is_some_and(|ours| ours != key) => {
                self.freeze_on_junk(mark, &format!("it names the key {key}, which no Rekey names"));
                None
            }
            Found::UnknownKey { key } => {
                self.freeze_without(&key);
                None
            }
            Found::Newer { why } => {
                self.freeze(
                    "UnknownRecord",
                    format!("slot {} was written by a newer version: {why}", mark.slot),
                    "upgrade this hub's understudy".to_owned(),
                );
                None
            }
        }
    }

    fn record(&mut self, record: &Record, mark: Mark) -> Option<Void> {
        if self.frozen.is_some() {
            if !self.passes_junk(record) {
                return Some(Void("it stands beyond junk"));
            }
            self.frozen = None;
            self.junk.clear();
        }
        if record.prev != self.last {
            self.freeze_on_junk(mark, "it does not continue the chain of records");
            return None;
        }
        if self.key().is_some_and(|key| key != record.key) {
            self.freeze_on_junk(mark, &format!("the key {} does not authenticate it", record.key));
            return None;
        }
        if let Some(void) = self.voids(record) {
            return Some(void);
        }
        self.apply(record, mark);
        self.last = Some(mark);
        None
    }

    /// The junk that froze the view, which a `Term` that names all of it passes by. Empty: nothing
    /// froze it, or something else, which no term helps against.
    pub fn passable(&self) -> &[Mark] {
        let junk_alone = self.frozen.as_ref().is_some_and(|frozen| frozen.reason == JUNK);
        if junk_alone { &self.junk } else { &[] }
    }

    /// An operator's term names every junk slot and its digest, and continues the chain before it.
    fn passes_junk(&self, record: &Record) -> bool {
        let junk = self.passable();
        matches!(&record.body, Body::Term { skips, .. } if !junk.is_empty() && *skips == junk)
            && record.epoch == self.epoch + 1
            && record.prev == self.last
    }

    /// Why the record would not count here.
    pub fn voids(&self, record: &Record) -> Option<Void> {
        let holds = self.holder.as_ref() == Some(&record.hub) && record.epoch == self.epoch;
        let current = holds && record.incarnation == self.incarnation && self.incarnation != 0;
        let (counts, otherwise) = match &record.body {
            Body::Init => (self.last.is_none(), "a repository is initialised once"),
            _ if self.last.is_none() => (false, "the repository is not initialised"),
            Body::Term { .. } => (record.epoch == self.epoch + 1, "its epoch is not the next one"),
            _ if self.handed.is_some() => (false, "the term is handed over"),
            Body::Open => (holds, "its hub does not hold the term"),
            _ if !current => (false, "its writer is not the current one of the term"),
            Body::Commit(_) if !self.activated => (false, "the term is not activated"),
            Body::Commit(commit) => {
                (!self.ledger.names_condemned(commit), "it names a condemned pack")
            }
            Body::Ack { slot } => (
                self.suspects.iter().any(|suspect| suspect.mark.slot == *slot),
                "it acknowledges none of the newest suspect backups",
            ),
            Body::Retire(retire) => {
                let refused = self.ledger.refuses(retire, &self.protected());
                (refused.is_none(), refused.unwrap_or_default())
            }
            Body::Activated { .. } | Body::Handover { .. } | Body::Rekey { .. } => (true, ""),
        };
        (!counts).then_some(Void(otherwise))
    }

    /// Slots of the backups that stay whatever the rules say: the newest, what a standby may use, and
    /// what the term started from until it has a backup of its own.
    pub fn protected(&self) -> Vec<u64> {
        let own = |newest: &&Arc<Backup>| newest.epoch == self.epoch;
        let base = self.base.iter().filter(|_| self.newest.as_ref().is_none_or(|n| !own(&n)));
        self.newest.iter().chain(&self.usable).chain(base).map(|b| b.mark.slot).collect()
    }

    fn apply(&mut self, record: &Record, mark: Mark) {
        match &record.body {
            Body::Init => {
                self.keys.insert(mark.slot, record.key.clone());
            }
            Body::Term { request, skips: _ } => {
                let after = self.handed.take();
                let before = self.holder.replace(record.hub.clone());
                let again = before.as_ref() == Some(&record.hub);
                if let Some(hub) = before.filter(|_| !again) {
                    let own = self.newest.as_ref().filter(|newest| newest.hub == hub);
                    let backup = own.map(|own| own.mark.slot);
                    let (epoch, handed_over) = (record.epoch, after.is_some());
                    self.former.push(Former { hub, epoch, handed_over, backup });
                }
                self.former.retain(|former| former.hub != record.hub);
                self.epoch = record.epoch;
                self.incarnation = 0;
                // There is nothing to activate from before the first term.
                self.activated = record.epoch == 1;
                self.requests.insert(request.clone(), record.epoch);
                let (slot, at, request) = (mark.slot, record.at, request.clone());
                self.term = Some(Term { slot, at, request, after, again });
                self.base.clone_from(&self.usable);
            }
            Body::Open => self.incarnation = mark.slot,
            Body::Activated { failed: _ } => self.activated = true,
            Body::Commit(commit) => self.commit(record, commit, mark),
            Body::Ack { slot } => self.acknowledge(*slot),
            Body::Handover { to } => {
                self.handed = Some(Handed { to: to.clone(), at: record.at });
            }
            Body::Retire(retire) => {
                self.ledger.retire(mark.slot, retire);
                self.backups.retain(|backup| self.ledger.offered.contains_key(&backup.slot));
                self.suspects.retain(|b| self.ledger.offered.contains_key(&b.mark.slot));
            }
            Body::Rekey { to } => {
                self.keys.insert(mark.slot, to.clone());
            }
        }
    }

    fn commit(&mut self, record: &Record, commit: &Commit, mark: Mark) {
        let backup = Arc::new(Backup::of(record, commit, mark));
        let before: Vec<_> =
            self.newest.iter().flat_map(|b| b.commit.packs()).map(|p| &p.name).collect();
        let summary = backup.summary(&before);
        self.backups.push(summary);
        if self.backups.len() > SUMMARIES {
            self.backups.remove(0);
        }
        self.ledger.commit(mark.slot, record.at, commit);
        if commit.suspect.is_none() {
            self.usable = Some(backup.clone());
            self.suspects.clear();
        } else {
            self.suspects.push(backup.clone());
            if self.suspects.len() > SUSPECTS {
                self.suspects.remove(0);
            }
        }
        self.newest = Some(backup);
    }

    fn acknowledge(&mut self, slot: u64) {
        self.acknowledged = slot;
        if let Some(found) = self.suspects.iter().find(|suspect| suspect.mark.slot == slot) {
            let commit = Commit { suspect: None, ..found.commit.clone() };
            let backup = Arc::new(Backup { commit, ..(**found).clone() });
            if self.newest.as_ref().is_some_and(|newest| newest.mark.slot == slot) {
                self.newest = Some(backup.clone());
            }
            self.usable = Some(backup);
        }
        self.suspects.retain(|suspect| suspect.mark.slot > slot);
        if let Some(offered) = self.ledger.offered.get_mut(&slot) {
            offered.suspect = false;
        }
        if let Some(summary) = self.backups.iter_mut().find(|backup| backup.slot == slot) {
            summary.suspect = None;
        }
    }

    fn freeze_on_junk(&mut self, mark: Mark, why: &str) {
        self.junk.push(mark);
        self.freeze(
            JUNK,
            format!("slot {} of the journal cannot be trusted: {why}", mark.slot),
            format!(
                "look at the storage: who wrote {}? Only a forced promotion of a standby passes it by",
                super::layout::journal_key(mark.slot)
            ),
        );
    }

    /// A hub that lacks the key goes no further.
    pub fn freeze_without(&mut self, key: &str) {
        self.freeze(
            "KeyMissing",
            format!("the journal goes on under the key {key}, which this hub does not hold"),
            "add that key file to encryption.keyFiles on this hub and restart; where it is held, \
             `understudy key list` names it"
                .to_owned(),
        );
    }

    /// The first reason stays: it is the one to mend.
    fn freeze(&mut self, reason: &str, message: String, hint: String) {
        self.frozen.get_or_insert(Frozen { reason: reason.to_owned(), message, hint });
    }

    /// Id of the key that authenticates the next record; none before `Init`.
    pub fn key(&self) -> Option<&str> {
        self.keys.values().next_back().map(String::as_str)
    }

    /// Id of the key of the record in a slot above `Init`.
    pub fn key_of_record(&self, slot: u64) -> Option<&str> {
        self.keys.range(..slot).next_back().map(|(_, id)| id.as_str())
    }

    /// Id of the key that a pack is sealed under: that of the commit which named it first, since no
    /// run goes over a change of keys.
    pub fn key_of_pack(&self, pack: &PackName) -> Option<&str> {
        self.key_of_record(self.ledger.first_commit(pack)?)
    }

    /// Slots of the offered backups whose record or packs are under the key. A pack counts for every
    /// backup between the first and the last that name it.
    pub fn backups_that_need(&self, key: &str) -> Vec<u64> {
        let packs =
            self.ledger.spans().filter(|(first, _)| self.key_of_record(*first) == Some(key));
        let packs: Vec<_> = packs.collect();
        let needs = |slot: &u64| {
            self.key_of_record(*slot) == Some(key)
                || packs.iter().any(|(first, last)| (first..=last).contains(&slot))
        };
        self.ledger.offered.keys().copied().filter(needs).collect()
    }

    /// Sets of the newest backup that are not under the key of today alone. They are written anew, so
    /// that the newest backup needs no older key, and retention ages the others out.
    pub fn sets_under_older_keys(&self) -> BTreeSet<Set> {
        let sets = self.newest.iter().flat_map(|newest| &newest.commit.sets);
        let older = |pack: &PackRef| self.key_of_pack(&pack.name) != self.key();
        sets.filter(|(_, set)| set.levels.iter().flat_map(|level| &level.packs).any(older))
            .map(|(set, _)| *set)
            .collect()
    }

    pub fn is_holder(&self, hub: &HubId) -> bool {
        self.holder.as_ref() == Some(hub)
    }

    /// How the last term of a hub ended that holds none now.
    pub fn former(&self, hub: &HubId) -> Option<&Former> {
        self.former.iter().find(|former| former.hub == *hub)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::keys::Keys;
    use super::super::keys::tests::{holding, new_keys};
    use super::super::record::Retire;
    use super::super::record::tests::{commit_of, record};
    use super::*;

    fn commit() -> Body {
        Body::Commit(commit_of(&[]))
    }

    fn packs(numbers: &[u128]) -> Vec<PackName> {
        numbers.iter().map(|number| PackName::new(1, 3, ulid::Ulid(*number))).collect()
    }

    fn suspect() -> Body {
        Body::Commit(Commit { suspect: Some("it shrank".to_owned()), ..commit_of(&[]) })
    }

    pub(crate) fn term() -> Body {
        Body::Term { request: "r".to_owned(), skips: vec![] }
    }

    /// Walks records (epoch, incarnation, hub, body) from slot 1 on; each continues the chain.
    pub(crate) fn walk(
        keys: &Keys,
        records: Vec<(u64, u64, &str, Body)>,
    ) -> (View, Vec<Option<Void>>) {
        let mut view = View::default();
        let mut verdicts = vec![];
        for (epoch, incarnation, hub, body) in records {
            let slot = view.head + 1;
            let mut record = record(keys, slot, epoch, incarnation, hub, body);
            record.prev = view.last;
            verdicts.push(view.step(Found::Record(Box::new(record)), digest(slot)));
        }
        (view, verdicts)
    }

    /// The same over changes of keys: each record is under the one of its slot. The keys are told apart
    /// by the ids that `Rekey` names; the first one begins.
    pub(crate) fn walk_rekeyed(keys: &[&Keys], records: Vec<(u64, u64, &str, Body)>) -> View {
        let mut view = View::default();
        for (epoch, incarnation, hub, body) in records {
            let slot = view.head + 1;
            let key = keys.iter().find(|keys| Some(keys.id()) == view.key()).unwrap_or(&keys[0]);
            let mut record = record(key, slot, epoch, incarnation, hub, body);
            record.prev = view.last;
            let void = view.step(Found::Record(Box::new(record)), digest(slot));
            assert_eq!((void, &view.frozen), (None, &None), "slot {slot}");
        }
        view
    }

    pub(crate) fn digest(slot: u64) -> Digest {
        Digest::of(&slot.to_be_bytes())
    }

    /// All but the last record must count; whether the last does is the case.
    fn check(name: &str, records: Vec<(u64, u64, &str, Body)>, expected: Option<&str>) {
        let (view, mut verdicts) = walk(&new_keys(), records);
        let last = verdicts.pop().unwrap();
        assert!(verdicts.iter().all(Option::is_none), "{name}: {verdicts:?}");
        assert_eq!(last.map(|void| void.0), expected, "{name}");
        assert_eq!(view.frozen, None, "{name}");
    }

    #[test]
    fn records_count_only_from_the_current_writer_of_the_highest_term() {
        let start = || vec![(0, 0, "a", Body::Init), (1, 0, "a", term()), (1, 0, "a", Body::Open)];
        let with = |more: Vec<(u64, u64, &'static str, Body)>| [start(), more].concat();
        let writer = Some("its writer is not the current one of the term");
        check("a first backup", with(vec![(1, 3, "a", commit())]), None);
        check(
            "a second Init",
            with(vec![(0, 0, "a", Body::Init)]),
            Some("a repository is initialised once"),
        );
        check(
            "a Term before Init",
            vec![(1, 0, "a", term())],
            Some("the repository is not initialised"),
        );
        check(
            "a Term that repeats an epoch",
            with(vec![(1, 0, "b", term())]),
            Some("its epoch is not the next one"),
        );
        check(
            "a Term that skips an epoch",
            with(vec![(3, 0, "b", term())]),
            Some("its epoch is not the next one"),
        );
        check(
            "an Open of a stranger",
            with(vec![(1, 0, "b", Body::Open)]),
            Some("its hub does not hold the term"),
        );
        check("a Commit of a stranger", with(vec![(1, 3, "b", commit())]), writer);
        check("a Commit of no incarnation", with(vec![(1, 0, "a", commit())]), writer);
        check(
            "a Commit of an older incarnation",
            with(vec![(1, 0, "a", Body::Open), (1, 3, "a", commit())]),
            writer,
        );
        check(
            "a Commit of a superseded hub",
            with(vec![(2, 0, "b", term()), (1, 3, "a", commit())]),
            writer,
        );
        check(
            "an Open of a superseded hub",
            with(vec![(2, 0, "b", term()), (1, 0, "a", Body::Open)]),
            Some("its hub does not hold the term"),
        );
        let promoted = || with(vec![(2, 0, "b", term()), (2, 0, "b", Body::Open)]);
        check(
            "a Commit before Activated",
            [promoted(), vec![(2, 5, "b", commit())]].concat(),
            Some("the term is not activated"),
        );
        check(
            "a Commit after Activated",
            [
                promoted(),
                vec![(2, 5, "b", Body::Activated { failed: vec![] }), (2, 5, "b", commit())],
            ]
            .concat(),
            None,
        );
    }

    #[test]
    fn a_promotion_starts_from_the_newest_usable_backup_below_its_term() {
        let (view, _) = walk(
            &new_keys(),
            vec![
                (0, 0, "a", Body::Init),
                (1, 0, "a", term()),
                (1, 0, "a", Body::Open),
                (1, 3, "a", commit()),
                (1, 3, "a", suspect()),
                (2, 0, "b", term()),
                (2, 0, "b", Body::Open),
                (2, 7, "b", Body::Activated { failed: vec![] }),
                (2, 7, "b", commit()),
            ],
        );
        assert_eq!(view.base.as_ref().unwrap().mark.slot, 4);
        assert_eq!(view.usable.as_ref().unwrap().mark.slot, 9);
        let hub = HubId { name: "a".to_owned(), uid: "uid-a".to_owned() };
        let former = Former { hub, epoch: 2, handed_over: false, backup: Some(5) };
        assert_eq!(view.former, [former]);
        assert_eq!(view.backups.len(), 3);
    }

    #[test]
    fn after_a_handover_nothing_but_a_term_counts() {
        let handed = || {
            vec![
                (0, 0, "a", Body::Init),
                (1, 0, "a", term()),
                (1, 0, "a", Body::Open),
                (1, 3, "a", Body::Handover { to: "b".to_owned() }),
            ]
        };
        let with = |more: (u64, u64, &'static str, Body)| [handed(), vec![more]].concat();
        let over = Some("the term is handed over");
        check("a Commit", with((1, 3, "a", commit())), over);
        check("an Open", with((1, 0, "a", Body::Open)), over);
        check("a Rekey", with((1, 3, "a", Body::Rekey { to: "k".to_owned() })), over);
        check("the Term of the hub that it is for", with((2, 0, "b", term())), None);
        check("the Term of another hub", with((2, 0, "c", term())), None);
        check("the Term of the hub itself", with((2, 0, "a", term())), None);
    }

    #[test]
    fn how_a_term_ended_is_known_of_every_hub_that_held_one() {
        let handed = vec![
            (0, 0, "a", Body::Init),
            (1, 0, "a", term()),
            (1, 0, "a", Body::Open),
            (1, 3, "a", commit()),
            (1, 3, "a", Body::Handover { to: "b".to_owned() }),
        ];
        let after = |more: Vec<(u64, u64, &'static str, Body)>| {
            walk(&new_keys(), [handed.clone(), more].concat()).0
        };
        let ended = |view: &View, hub: &str| {
            let hub = HubId { name: hub.to_owned(), uid: format!("uid-{hub}") };
            view.former(&hub).map(|former| (former.epoch, former.handed_over, former.backup))
        };
        let view = after(vec![]);
        assert_eq!(ended(&view, "a"), None, "it still holds the term");
        let handed_to = view.handed.unwrap();
        assert!(handed_to.is_for("b") && !handed_to.is_for("c"));
        let to_any = Handed { to: String::new(), ..handed_to };
        assert!(to_any.is_for("b") && to_any.is_for("c"));

        let view = after(vec![(2, 0, "b", term())]);
        assert_eq!(ended(&view, "a"), Some((2, true, Some(4))));
        let begun = view.term.unwrap();
        assert_eq!(
            (begun.after.map(|handed| handed.to), begun.again),
            (Some("b".to_owned()), false)
        );

        let view = after(vec![(2, 0, "a", term())]);
        assert_eq!((ended(&view, "a"), view.handed), (None, None), "it took the term back");
        assert!(view.term.unwrap().again && !view.activated);

        let view = after(vec![(2, 0, "b", term()), (3, 0, "c", term())]);
        assert_eq!(ended(&view, "b"), Some((3, false, None)), "superseded without a backup");
        let view = after(vec![(2, 0, "b", term()), (3, 0, "a", term()), (4, 0, "b", term())]);
        assert_eq!(ended(&view, "a"), Some((4, false, Some(4))), "only the last end counts");
    }

    #[test]
    fn an_acknowledged_backup_is_usable_and_those_after_it_are_not_yet() {
        let start = || {
            vec![
                (0, 0, "a", Body::Init),
                (1, 0, "a", term()),
                (1, 0, "a", Body::Open),
                (1, 3, "a", commit()),
                (1, 3, "a", suspect()),
                (1, 3, "a", suspect()),
            ]
        };
        let ack = |slot| (1, 3, "a", Body::Ack { slot });
        let none = Some("it acknowledges none of the newest suspect backups");
        check("one that is not suspect", [start(), vec![ack(4)]].concat(), none);
        check("one twice", [start(), vec![ack(5), ack(5)]].concat(), none);
        check("an older one", [start(), vec![ack(6), ack(5)]].concat(), none);
        let (view, _) = walk(&new_keys(), [start(), vec![ack(5)]].concat());
        assert_eq!((view.usable.as_ref().unwrap().mark.slot, view.acknowledged), (5, 5));
        assert!(view.newest.as_ref().unwrap().commit.suspect.is_some());
        let suspect: Vec<_> = view.backups.iter().map(|backup| backup.suspect.is_some()).collect();
        assert_eq!(suspect, [false, false, true]);
        assert_eq!(view.ledger.offered.values().filter(|o| o.suspect).count(), 1);
        let (view, _) = walk(&new_keys(), [start(), vec![ack(5), ack(6)]].concat());
        assert_eq!((view.usable.as_ref(), view.acknowledged), (view.newest.as_ref(), 6));
        assert_eq!(view.newest.unwrap().commit.suspect, None);
    }

    #[test]
    fn a_retired_backup_is_gone_and_its_pack_is_never_named_again() {
        let commit = |numbers| Body::Commit(commit_of(&packs(numbers)));
        let retire = |backups: &[u64], numbers| {
            let retire = Retire { backups: backups.to_vec(), packs: packs(numbers), swept: 0 };
            (1, 3, "a", Body::Retire(retire))
        };
        let start = || {
            vec![
                (0, 0, "a", Body::Init),
                (1, 0, "a", term()),
                (1, 0, "a", Body::Open),
                (1, 3, "a", commit(&[1])),
                (1, 3, "a", commit(&[1, 2])),
                (1, 3, "a", commit(&[3])),
            ]
        };
        let with = |more| [start(), more].concat();
        check(
            "the newest",
            with(vec![retire(&[6], &[])]),
            Some("it retires a backup that must stay"),
        );
        check(
            "a pack in use",
            with(vec![retire(&[4], &[1])]),
            Some("it condemns a pack that a backup needs"),
        );
        check(
            "a Commit that names a condemned pack",
            with(vec![retire(&[4, 5], &[1, 2]), (1, 3, "a", commit(&[2]))]),
            Some("it names a condemned pack"),
        );
        let (view, _) = walk(&new_keys(), with(vec![retire(&[4, 5], &[1, 2])]));
        assert_eq!(view.backups.iter().map(|backup| backup.slot).collect::<Vec<_>>(), [6]);
        assert_eq!(view.ledger.condemned.len(), 2);
    }

    #[test]
    fn what_a_promotion_starts_from_stays_until_the_term_has_a_backup_of_its_own() {
        let promoted = || {
            vec![
                (0, 0, "a", Body::Init),
                (1, 0, "a", term()),
                (1, 0, "a", Body::Open),
                (1, 3, "a", commit()),
                (1, 3, "a", suspect()),
                (2, 0, "b", term()),
                (2, 0, "b", Body::Open),
                (2, 7, "b", Body::Ack { slot: 5 }),
            ]
        };
        let (mut view, _) = walk(&new_keys(), promoted());
        assert_eq!(view.protected(), [5, 5, 4]);
        let own = Backup { epoch: 2, ..(**view.newest.as_ref().unwrap()).clone() };
        view.newest = Some(Arc::new(own));
        assert_eq!(view.protected(), [5, 5]);
    }

    #[test]
    fn above_a_change_of_keys_the_old_one_does_not_authenticate() {
        let (old, new) = (new_keys(), new_keys());
        let start = || {
            vec![
                (0, 0, "a", Body::Init),
                (1, 0, "a", term()),
                (1, 0, "a", Body::Open),
                (1, 3, "a", Body::Rekey { to: new.id().to_owned() }),
            ]
        };
        let both = holding(&[&old, &new]);
        for (keys, frozen) in [(&old, Some("JunkRecord")), (&new, None)] {
            let (mut view, _) = walk(&both, start());
            let mut commit = record(keys, 5, 1, 3, "a", commit());
            commit.prev = view.last;
            view.step(Found::Record(Box::new(commit)), digest(5));
            assert_eq!(view.frozen.map(|frozen| frozen.reason).as_deref(), frozen);
        }
    }

    #[test]
    fn a_record_under_a_key_that_no_record_named_is_junk() {
        let (mut view, _) = walk(&new_keys(), vec![(0, 0, "a", Body::Init), (1, 0, "a", term())]);
        view.step(Found::UnknownKey { key: "k".to_owned() }, digest(3));
        assert_eq!(view.frozen.unwrap().reason, "JunkRecord");
        assert_eq!(view.junk.len(), 1);
    }

    #[test]
    fn junk_freezes_until_a_term_passes_it_by_name() {
        let keys = new_keys();
        let (mut view, _) = walk(
            &keys,
            vec![(0, 0, "a", Body::Init), (1, 0, "a", term()), (1, 0, "a", Body::Open)],
        );
        view.step(Found::Junk { why: "its MAC is wrong".to_owned() }, digest(4));
        assert_eq!(view.frozen.as_ref().unwrap().reason, "JunkRecord");
        let step = |view: &mut View, epoch, incarnation, hub, body| {
            let slot = view.head + 1;
            let mut record = record(&keys, slot, epoch, incarnation, hub, body);
            record.prev = view.last;
            view.step(Found::Record(Box::new(record)), digest(slot))
        };
        assert_eq!(step(&mut view, 1, 3, "a", commit()), Some(Void("it stands beyond junk")));
        assert_eq!(step(&mut view, 2, 0, "b", term()), Some(Void("it stands beyond junk")));
        let skips =
            |sha256| Body::Term { request: "r".to_owned(), skips: vec![Mark { slot: 4, sha256 }] };
        assert_eq!(
            step(&mut view, 2, 0, "b", skips(digest(5))),
            Some(Void("it stands beyond junk"))
        );
        assert_eq!(step(&mut view, 2, 0, "b", skips(digest(4))), None);
        assert_eq!((view.epoch, view.frozen.clone()), (2, None));
    }

    #[test]
    fn a_record_that_does_not_continue_the_chain_is_junk() {
        let keys = new_keys();
        let (mut view, _) = walk(&keys, vec![(0, 0, "a", Body::Init), (1, 0, "a", term())]);
        let mut open = record(&keys, 3, 1, 0, "a", Body::Open);
        open.prev = Some(Mark { slot: 1, sha256: digest(9) });
        view.step(Found::Record(Box::new(open)), digest(3));
        assert_eq!(view.frozen.unwrap().reason, "JunkRecord");
        assert_eq!(view.incarnation, 0);
    }

    #[test]
    fn what_cannot_be_read_freezes_with_its_own_reason() {
        for (found, reason) in [
            (Found::UnknownKey { key: "k".to_owned() }, "KeyMissing"),
            (Found::Newer { why: "w".to_owned() }, "UnknownRecord"),
        ] {
            let mut view = View::default();
            view.step(found, digest(1));
            assert_eq!(view.frozen.unwrap().reason, reason);
        }
    }
}
