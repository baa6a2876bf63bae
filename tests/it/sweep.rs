//! Who may sweep, and what a sweep leaves alone: the library against a repository in a folder. A hub
//! that does not hold the term writes and deletes nothing, whatever it was told before.

use crate::harness::Result;
use crate::harness::config::Config;
use crate::harness::daemon::new_key;
use crate::harness::scratch::Scratch;
use crate::scene::{DEADLINE, journal, stored};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use understudy::backup::sweeper::{self, SweepError, Swept, Wish};
use understudy::config::settings::Retention;
use understudy::object::{Digest, Set};
use understudy::repository::Repository;
use understudy::repository::journal::{Journal, Writer};
use understudy::repository::keys::Keys;
use understudy::repository::layout::{PackName, pack_key};
use understudy::repository::packs::PackStore;
use understudy::repository::record::{Body, Commit, Cut, HubId, Level, PackRef, SetContents};
use understudy::repository::storage::Storage;
use understudy::{clock, config, observe};

/// No rule keeps anything, and nothing waits.
const AT_ONCE: Retention = Retention {
    keep_for: None,
    keep_last: 1,
    keep_daily: 0,
    keep_weekly: 0,
    keep_monthly: 0,
    sweep_after: Duration::ZERO,
    sweep_interval: Duration::ZERO,
};

struct Place {
    repository: Repository,
    writer: Writer,
    folder: PathBuf,
    _scratch: Scratch,
}

impl Place {
    /// The first term is opened.
    async fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let (key, folder) = (scratch.path().join("key"), scratch.path().join("repository"));
        new_key(&key)?;
        std::fs::create_dir(&folder)?;
        let config = Config::new("eu-1", "primary", &key)?.with_directory(&folder);
        let file = config.write(&scratch.path().join("hub.yaml"))?;
        let settings = config::load(&file, std::iter::empty())?;
        let keys = Arc::new(Keys::load(&[key], &[])?);
        let storage = Storage::open(&settings.storage.location, observe::nobody()).await?;
        let mut journal = Journal::create(storage.clone(), keys.clone(), clock::random()).await?;
        let id = journal.repository().to_owned();
        let mut writer = Writer { hub: hub("eu-1"), epoch: 0, incarnation: 0 };
        journal.append(&writer, Body::Init, |_| Ok(())).await?;
        writer.epoch = 1;
        journal.append(&writer, term(), |_| Ok(())).await?;
        writer.incarnation = journal.append(&writer, Body::Open, |_| Ok(())).await?;
        let cache = scratch.path().join("cache");
        let packs = PackStore::new(storage.clone(), keys.clone(), &id, cache)?;
        let repository = Repository { storage, keys, id, packs, journal: Mutex::new(journal) };
        Ok(Self { repository, writer, folder, _scratch: scratch })
    }

    /// Somebody else's handle of the same journal.
    async fn journal(&self) -> Result<Journal> {
        let Repository { storage, keys, .. } = &self.repository;
        let journal = Journal::open(storage.clone(), keys.clone(), None).await?;
        Ok(journal.ok_or("there is no repository")?)
    }

    async fn append(&self, body: Body) -> Result<u64> {
        Ok(self.repository.journal.lock().await.append(&self.writer, body, |_| Ok(())).await?)
    }

    /// Stores a pack of this content under a new name of the writer.
    async fn pack(&self, (epoch, incarnation): (u64, u64)) -> Result<PackName> {
        let name = PackName::new(epoch, incarnation, ulid::Ulid::from(clock::random()));
        self.repository.storage.create(&pack_key(&name), Bytes::from_static(b"sealed")).await?;
        Ok(name)
    }

    /// So many backups, each with one pack that no other has.
    async fn backups(&self, count: usize) -> Result<Vec<PackName>> {
        let mut packs = vec![];
        for _ in 0..count {
            let name = self.pack((1, self.writer.incarnation)).await?;
            self.append(Body::Commit(commit(&name))).await?;
            packs.push(name);
        }
        Ok(packs)
    }

    async fn sweep(&self, rules: &Retention) -> (Swept, std::result::Result<(), SweepError>) {
        let (utc, cancel) = (jiff::tz::TimeZone::UTC, CancellationToken::new());
        let mut done = Swept::default();
        let wish = Wish::Rules;
        let swept =
            sweeper::sweep(&self.repository, &self.writer, &wish, rules, &utc, &cancel, &mut done);
        let result = swept.await;
        (done, result)
    }

    async fn swept(&self, rules: &Retention) -> Result<Swept> {
        let (done, result) = self.sweep(rules).await;
        result?;
        Ok(done)
    }

    fn packs(&self) -> Result<BTreeSet<String>> {
        let paths = crate::scene::files(&self.folder.join("packs"))?;
        let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(paths.into_iter().filter_map(name).collect())
    }

    fn retires(&self) -> Result<usize> {
        Ok(journal(&self.folder)?.iter().filter(|record| record.kind == "Retire").count())
    }
}

fn hub(name: &str) -> HubId {
    HubId { name: name.to_owned(), uid: format!("uid-{name}") }
}

fn term() -> Body {
    Body::Term { request: format!("{:x}", clock::random()), skips: vec![] }
}

fn commit(pack: &PackName) -> Commit {
    let pack = PackRef { name: pack.clone(), length: 6, sha256: Digest::of(b"sealed"), lines: 0 };
    let contents =
        SetContents { levels: vec![Level { packs: vec![pack] }], ..SetContents::default() };
    Commit {
        sets: [(Set::Resources, contents)].into(),
        cut: Cut { revision: "1".to_owned(), apart: vec![] },
        rules: Digest([0; 32]),
        suspect: None,
        partial: vec![],
    }
}

fn names(packs: &[PackName]) -> BTreeSet<String> {
    packs.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn what_is_condemned_in_one_sweep_is_deleted_in_a_later_one_and_told_in_the_next()
-> Result<()> {
    let place = Place::new().await?;
    let first = place.backups(5).await?;
    let slow = Retention { sweep_after: DEADLINE, ..AT_ONCE };
    let done = place.swept(&slow).await?;
    assert_eq!((done.retired, done.condemned, done.deleted), (2, 2, 0));
    assert_eq!(place.swept(&slow).await?, Swept::default(), "the delay is not over");
    assert_eq!(place.packs()?, names(&first));
    let done = place.swept(&AT_ONCE).await?;
    assert_eq!((done.retired, done.deleted, done.freed_bytes), (0, 2, 12));
    assert_eq!(place.packs()?, names(&first[2..]));
    assert_eq!(place.swept(&AT_ONCE).await?, Swept::default(), "nothing is deleted twice");
    assert_eq!(place.retires()?, 1, "no record only to say so");

    let condemned = async || -> Result<usize> {
        Ok(place.journal().await?.refresh().await?.ledger.condemned.len())
    };
    assert_eq!(condemned().await?, 2);
    place.backups(1).await?;
    place.swept(&AT_ONCE).await?;
    assert_eq!(condemned().await?, 1, "the new one; the others are forgotten");
    Ok(())
}

#[tokio::test]
async fn only_the_current_writer_of_the_term_sweeps() -> Result<()> {
    let cases = ["superseded", "an older incarnation", "handed over", "frozen"];
    // Without further backups there is no record that the journal would refuse: only deletes.
    for (case, further) in cases.into_iter().flat_map(|case| [(case, 0), (case, 2)]) {
        let place = Place::new().await?;
        place.backups(5).await?;
        // Two are condemned already; the further ones would be.
        let wait = Retention { sweep_after: DEADLINE, ..AT_ONCE };
        assert_eq!(place.swept(&wait).await?.condemned, 2, "{case}");
        place.backups(further).await?;
        let mut other = place.journal().await?;
        match case {
            "superseded" => {
                let writer = Writer { hub: hub("eu-2"), epoch: 2, incarnation: 0 };
                other.append(&writer, term(), |_| Ok(())).await?;
            }
            "an older incarnation" => {
                let writer = Writer { incarnation: 0, ..place.writer.clone() };
                other.append(&writer, Body::Open, |_| Ok(())).await?;
            }
            "handed over" => {
                let body = Body::Handover { to: "eu-2".to_owned() };
                other.append(&place.writer, body, |_| Ok(())).await?;
            }
            _ => {
                let head = other.refresh().await?.head;
                let path = understudy::repository::layout::journal_key(head + 1);
                std::fs::write(place.folder.join(path), "junk")?;
            }
        }
        let before = stored(&place.folder)?;
        let (done, result) = place.sweep(&AT_ONCE).await;
        assert!(result.is_err(), "{case}");
        assert_eq!(done, Swept::default(), "{case}");
        assert_eq!(stored(&place.folder)?.len(), before.len(), "{case}");
        assert!(stored(&place.folder)? == before, "{case}: something changed");
    }
    Ok(())
}

#[tokio::test]
async fn orphans_go_and_what_is_not_ours_stays() -> Result<()> {
    let place = Place::new().await?;
    let orphan = place.pack((1, 1)).await?;
    let kept = place.backups(1).await?;
    let current = place.pack((1, place.writer.incarnation)).await?;
    let foreign = ["README", "1-1-notes", "1-01-0000000001000000000000000A"];
    for name in foreign {
        std::fs::write(place.folder.join("packs").join(name), "not ours")?;
    }
    let young = Retention { sweep_after: DEADLINE, ..AT_ONCE };
    assert_eq!(place.swept(&young).await?, Swept::default(), "it is too young");
    assert_eq!(place.swept(&AT_ONCE).await?.condemned, 1);
    assert_eq!(place.swept(&AT_ONCE).await?.deleted, 1);
    let mut expected = names(&[current, kept[0].clone()]);
    expected.extend(foreign.map(str::to_owned));
    assert_eq!(place.packs()?, expected, "without {orphan}");
    Ok(())
}

/// Years of backups that retention was never applied to: more than one record holds.
#[tokio::test]
async fn a_first_sweep_of_a_long_history_fits_into_records() -> Result<()> {
    let place = Place::new().await?;
    let packs = place.backups(1_203).await?;
    let done = place.swept(&AT_ONCE).await?;
    assert_eq!((done.retired, done.condemned), (1_200, 1_200));
    assert_eq!(place.retires()?, 5);
    assert_eq!(place.swept(&AT_ONCE).await?.deleted, 1_200);
    assert_eq!(place.packs()?, names(&packs[1_200..]));
    let view = place.journal().await?.refresh().await?.clone();
    assert_eq!(view.ledger.offered.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_deletion_by_hand_is_all_or_nothing() -> Result<()> {
    let place = Place::new().await?;
    place.backups(6).await?;
    let view = place.journal().await?.refresh().await?.clone();
    let slots: Vec<u64> = view.ledger.offered.keys().copied().collect();
    let delete = async |named: &[u64]| {
        let mut done = Swept::default();
        let wish = Wish::Delete(named.iter().copied().collect());
        let (utc, cancel) = (jiff::tz::TimeZone::UTC, CancellationToken::new());
        let (repository, writer) = (&place.repository, &place.writer);
        sweeper::sweep(repository, writer, &wish, &AT_ONCE, &utc, &cancel, &mut done)
            .await
            .map(|()| done)
            .map_err(|error| error.to_string())
    };
    let refused = delete(&[slots[0], slots[5]]).await.unwrap_err();
    assert!(refused.contains("the last 3 always stay"), "{refused}");
    let refused = delete(&[slots[0], 1]).await.unwrap_err();
    assert!(refused.contains("there is no backup 1"), "{refused}");
    assert_eq!(place.retires()?, 0);
    let done = delete(&[slots[1]]).await?;
    assert_eq!((done.retired, done.condemned), (1, 1), "and not those that a rule would let go");
    Ok(())
}
