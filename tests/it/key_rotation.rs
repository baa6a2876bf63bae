//! The pair changes its key: first the file on every hub, then `understudy key rotate` on the primary.
//! From then on the newest backup needs the new key alone, and whoever lacks it says so and stops.

use crate::harness::daemon::{Daemon, cli_on, new_key};
use crate::harness::hub::Hub;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, eventually, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, in_sync, journal, until_condition, until_role,
    until_silent,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;
use understudy::object::{Digest, Set};
use understudy::repository::journal::{Journal, JournalError, Writer};
use understudy::repository::keys::Keys;
use understudy::repository::layout::PackName;
use understudy::repository::record::{
    Body, Commit, Cut, HubId, Level, PackRef, RepoError, Retire, SetContents,
};
use understudy::repository::storage::Storage;
use understudy::{clock, config, observe};

fn keys(files: &[&Path]) -> Result<Arc<Keys>> {
    let files: Vec<_> = files.iter().map(|file| file.to_path_buf()).collect();
    Ok(Arc::new(Keys::load(&files, &[])?))
}

/// Ends with `code` and says all of `told`, wherever.
fn ended(output: &Output, code: i32, told: &[&str]) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in told {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    printed
}

/// A pair that runs under the old key, and both key files.
struct Rotation {
    scene: Scene,
    old: PathBuf,
    new: PathBuf,
    first: Daemon,
    second: Daemon,
}

impl Rotation {
    async fn begin() -> Result<Self> {
        let scene = Scene::set(1).await?;
        let (old, new) = (scene.key.clone(), scene.scratch.path().join("new"));
        new_key(&new)?;
        let (first, second) = scene.running().await?;
        Ok(Self { scene, old, new, first, second })
    }

    async fn restart_first(&mut self, keys: &[&Path]) -> Result<()> {
        self.first.kill9();
        self.scene.first.set("encryption.keyFiles", json!(keys));
        self.first = self.scene.start_first().await?;
        until_role(&mut self.first, "primary").await.map(drop)
    }

    async fn restart_second(&mut self, keys: &[&Path]) -> Result<()> {
        self.second.kill9();
        self.scene.second.set("encryption.keyFiles", json!(keys));
        self.second = self.scene.start_second().await?;
        Ok(())
    }

    fn on_first(&self, args: &[&str]) -> Result<Output> {
        cli_on(&self.scene.pair.primary, &self.scene.first_file()?, args)
    }

    /// State and number of backups of each key, as the storage alone tells them.
    fn key_list(&self) -> Result<Vec<(String, u64)>> {
        let output = self.on_first(&["key", "list", "-o", "json"])?;
        let list: Value = serde_json::from_str(&ended(&output, 0, &[]))?;
        let items = list["items"].as_array().ok_or("no items")?.iter();
        let item = |one: &Value| {
            (one["state"].as_str().unwrap_or_default().to_owned(), one["backups"].as_u64())
        };
        Ok(items.map(item).map(|(state, backups)| (state, backups.unwrap_or_default())).collect())
    }

    /// Packs of the newest backup that these keys do not open.
    fn unopened(&self, keys: &Keys) -> Result<Vec<String>> {
        let records = journal(&self.scene.repository)?;
        let commit = records.iter().rfind(|r| r.kind == "Commit").ok_or("no backup")?;
        let mut unopened = vec![];
        for set in Set::ALL {
            let levels = commit.body["sets"][set.to_string()]["levels"].as_array();
            let packs = levels.into_iter().flatten().filter_map(|level| level["packs"].as_array());
            for pack in packs.flatten() {
                let name = pack["name"].as_str().ok_or("no name")?.to_owned();
                let file = File::open(self.scene.repository.join("packs").join(&name))?;
                if keys.open(file).is_err() {
                    unopened.push(name);
                }
            }
        }
        Ok(unopened)
    }

    /// Another backup, and the standby holds it.
    async fn goes_on(&mut self) -> Result<()> {
        let id = self.scene.backup(&mut self.first).await?;
        let holds = |seen: &Value| (status::restored(seen) == Some(&id)).then_some(());
        self.second.until(DEADLINE, "the standby to hold the backup", holds).await
    }

    /// The file comes first everywhere; until then the change is refused.
    async fn prepare(&mut self) -> Result<()> {
        let (old, new) = (self.old.clone(), self.new.clone());
        ended(&self.on_first(&["key", "rotate"])?, 5, &["already"]);
        self.restart_first(&[&new, &old]).await?;
        self.goes_on().await?;
        assert_eq!(self.unopened(&*keys(&[&old])?)?, Vec::<String>::new(), "the old key seals");
        let states: Vec<_> = self.key_list()?.into_iter().map(|(state, _)| state).collect();
        assert_eq!(states, ["next", "current"]);
        eventually(SOON, "the refusal that names the standby", async || {
            let output = self.on_first(&["key", "rotate"]).ok()?;
            ended(&output, 5, &[]);
            String::from_utf8_lossy(&output.stderr).contains(SECOND).then_some(())
        })
        .await?;
        let on_second = cli_on(
            &self.scene.pair.passive,
            &self.scene.second_file()?,
            &["key", "rotate", "--force"],
        )?;
        ended(&on_second, 5, &["not the primary"]);

        // In whatever order: the journal says which one is used.
        self.restart_second(&[&old, &new]).await?;
        let id = keys(&[&new])?.id().to_owned();
        let known = |seen: &Value| {
            let peer = seen["peers"].as_array()?.iter().find(|peer| peer["hub"] == SECOND)?;
            peer["keys"].as_array()?.iter().any(|key| *key == *id).then_some(())
        };
        self.first.until(SOON, "the heartbeat that names the new key", known).await
    }

    async fn rotate(&mut self) -> Result<()> {
        let (old, new) = (self.old.clone(), self.new.clone());
        let before = journal(&self.scene.repository)?.len();
        ended(&self.on_first(&["key", "rotate"])?, 0, &[keys(&[&new])?.id()]);
        eventually(DEADLINE, "a backup after the change", async || {
            let records = journal(&self.scene.repository).ok()?;
            let later = records.get(before..)?;
            (later.first()?.kind == "Rekey" && later.last()?.kind == "Commit").then_some(())
        })
        .await?;
        self.second.until(DEADLINE, "the standby to follow", in_sync).await?;
        assert_eq!(self.unopened(&*keys(&[&new])?)?, Vec::<String>::new());
        assert!(!self.unopened(&*keys(&[&old])?)?.is_empty(), "the old key opens them still");
        let list = self.key_list()?;
        assert_eq!(list[0].0, "current", "{list:?}");
        assert_eq!(list[1].0, "opensOnly", "{list:?}");
        assert!(list[0].1 >= 1 && list[1].1 >= 2, "{list:?}");
        ended(&self.on_first(&["key", "rotate"])?, 5, &["already"]);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pair_changes_its_key() -> Result<()> {
    let mut pair = Rotation::begin().await?;
    let (old, new) = (pair.old.clone(), pair.new.clone());
    pair.prepare().await?;
    pair.rotate().await?;

    // A standby that lacks the key says which, and goes on once it has it.
    pair.restart_second(&[&old]).await?;
    let passive = &pair.scene.pair.passive;
    let id = keys(&[&new])?.id().to_owned();
    for condition in ["Ready", "KeysAvailable"] {
        let message = until_condition(passive, SECOND, condition, "False", "KeyMissing").await?;
        assert!(message.contains(&id), "{message}");
    }
    assert!(pair.second.http_get("/").await?.1.contains(&id), "the page names the key");
    let file = pair.scene.second_file()?;
    for verb in [&["backup", "verify"][..], &["key", "list"]] {
        ended(&cli_on(passive, &file, verb)?, 12, &[&id]);
    }
    pair.restart_second(&[&new, &old]).await?;
    pair.goes_on().await?;

    // The newest backup needs no older key, and neither does a start.
    pair.restart_second(&[&new]).await?;
    pair.goes_on().await?;
    pair.first.kill9();
    until_silent(&mut pair.second).await?;
    pair.second.promote(DEADLINE).await?;
    until_role(&mut pair.second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then_some(());
    pair.second.until(DEADLINE, "the first own backup", own).await
}

/// Forced, for a hub that is to be left out. It hears the others no more, and says that this is not
/// their silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_left_out_freezes_and_calls_nobody_silent() -> Result<()> {
    let mut pair = Rotation::begin().await?;
    let (old, new) = (pair.old.clone(), pair.new.clone());
    pair.restart_first(&[&new, &old]).await?;
    eventually(SOON, "the forced change", async || {
        // Refused until the heartbeats are read.
        let output = pair.on_first(&["key", "rotate", "--force"]).ok()?;
        output.status.success().then_some(())
    })
    .await?;
    let id = keys(&[&new])?.id().to_owned();
    until_condition(&pair.scene.pair.passive, SECOND, "Ready", "False", "KeyMissing").await?;
    // Some beats later than it would count as silent by what could be read.
    let unread = |seen: &Value| {
        let deadline: Timestamp = seen["peers"][0]["deadlineAt"].as_str()?.parse().ok()?;
        let unread = seen["keys"]["unread"][FIRST] == *id
            && clock::now() > deadline + Duration::from_secs(3);
        unread.then(|| seen.clone())
    };
    let seen = pair.second.until(DEADLINE, "heartbeats that cannot be read", unread).await?;
    assert!(!status::primary_is_silent(&seen), "{}", seen["peers"]);
    pair.second.signal("USR1")?;
    crate::scene::until_refused(&mut pair.second, "KeyMissing").await?;
    pair.scene.backup(&mut pair.first).await.map(drop)
}

/// A repository in a folder, without daemons.
struct Place {
    storage: Storage,
    scratch: Scratch,
    writer: Writer,
}

impl Place {
    async fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let folder = scratch.path().join("repository");
        fs::create_dir(&folder)?;
        for name in ["k1", "k2"] {
            new_key(&scratch.path().join(name))?;
        }
        let place = crate::harness::config::Config::new("eu-1", "primary", Path::new("k1"))?;
        let file = place.with_directory(&folder).write(&scratch.path().join("hub.yaml"))?;
        let settings = config::load(&file, std::iter::empty())?;
        let storage = Storage::open(&settings.storage.location, observe::nobody()).await?;
        let hub = HubId { name: "eu-1".to_owned(), uid: "uid-1".to_owned() };
        Ok(Self { storage, scratch, writer: Writer { hub, epoch: 1, incarnation: 0 } })
    }

    fn keys(&self, names: &[&str]) -> Result<Arc<Keys>> {
        let files: Vec<_> = names.iter().map(|name| self.scratch.path().join(name)).collect();
        keys(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>())
    }

    /// Read to its head, as a hub does that holds these keys.
    async fn open(&self, keys: &Arc<Keys>) -> std::result::Result<Journal, JournalError> {
        let opened = Journal::open(self.storage.clone(), keys.clone(), None).await?;
        let mut journal = opened.expect("there is a repository");
        journal.resume(None).await?;
        journal.refresh().await?;
        Ok(journal)
    }

    async fn append(&self, journal: &mut Journal, body: Body) -> Result<u64> {
        Ok(journal.append(&self.writer, body, |_| Ok(())).await?)
    }

    async fn without_checkpoints(&self) -> Result<()> {
        for entry in self.storage.list("checkpoints/", None).await? {
            self.storage.delete(&entry.key).await?;
        }
        Ok(())
    }
}

fn commit(pack: &PackName) -> Body {
    let packs = vec![PackRef { name: pack.clone(), length: 1, sha256: Digest([0; 32]), lines: 1 }];
    let contents = SetContents { levels: vec![Level { packs }], ..SetContents::default() };
    Body::Commit(Commit {
        sets: [(Set::Resources, contents)].into(),
        cut: Cut { revision: "1".to_owned(), apart: vec![] },
        rules: Digest([0; 32]),
        suspect: None,
        partial: vec![],
    })
}

#[tokio::test]
async fn without_the_first_key_a_hub_begins_at_what_was_left_under_the_new_one() -> Result<()> {
    let mut place = Place::new().await?;
    let (old, both, new) = (place.keys(&["k1"])?, place.keys(&["k2", "k1"])?, place.keys(&["k2"])?);
    let mut journal = Journal::create(place.storage.clone(), old.clone(), clock::random()).await?;
    let init = Writer { epoch: 0, ..place.writer.clone() };
    journal.append(&init, Body::Init, |_| Ok(())).await?;
    let term = Body::Term { request: "initial".to_owned(), skips: vec![] };
    place.append(&mut journal, term).await?;
    place.writer.incarnation = place.append(&mut journal, Body::Open).await?;
    let [one, two] = [1, 2].map(|number| PackName::new(1, 3, ulid::Ulid(number)));
    let first = place.append(&mut journal, commit(&one)).await?;

    let mut journal = place.open(&both).await?;
    assert_eq!(both.id(), old.id(), "the new file comes first, the journal is under the old key");
    assert_eq!(journal.view().sets_under_older_keys(), [].into());
    place.append(&mut journal, Body::Rekey { to: new.id().to_owned() }).await?;
    assert_eq!(both.id(), new.id());
    assert_eq!(journal.view().sets_under_older_keys(), [Set::Resources].into());
    place.append(&mut journal, commit(&two)).await?;
    assert_eq!(journal.view().sets_under_older_keys(), [].into());
    let retire = Retire { backups: vec![first], packs: vec![one], swept: 0 };
    place.append(&mut journal, Body::Retire(retire)).await?;
    assert_eq!(journal.view().backups_that_need(old.id()), Vec::<u64>::new());

    // The old file is gone.
    let mut alone = place.open(&new).await?;
    assert_eq!(alone.view(), journal.view());
    place.append(&mut alone, commit(&two)).await?;
    // Whoever has nothing else reads to the change and no further.
    let frozen = place.open(&old).await?.view().frozen.clone().ok_or("not frozen")?;
    assert_eq!(frozen.reason, "KeyMissing");
    assert!(frozen.message.contains(new.id()), "{}", frozen.message);

    // Should the checkpoint be lost, it says what is missing; the next `Open` leaves one again.
    place.without_checkpoints().await?;
    let error = place.open(&new).await.err();
    assert!(matches!(error, Some(JournalError::Repo(RepoError::UnknownKey { .. }))), "{error:?}");
    let mut journal = place.open(&both).await?;
    place.append(&mut journal, Body::Open).await?;
    assert_eq!(place.open(&new).await?.view(), journal.view());
    Ok(())
}

/// A suspect backup stays in the storage until somebody has looked at it.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_backup_reaches_the_standby_once_it_is_acknowledged() -> Result<()> {
    let mut scene = Scene::set(1).await?;
    let (mut first, mut second) = scene.running().await?;
    let usable = status::newest(&second.status().await?).ok_or("no backup")?.to_owned();
    first.kill9();
    let slot = append_suspect(&scene).await?;
    let newest = |seen: &Value| {
        (seen["newest"]["slot"] == slot).then(|| status::newest(seen).map(str::to_owned))?
    };
    let suspect = second.until(SOON, "the suspect backup", newest).await?;

    // No backup of its own: that would be the newest usable one.
    scene.first.set("schedule.onStart", json!(false));
    let mut first = scene.start_first().await?;
    until_role(&mut first, "primary").await?;
    let ack = |hub: &Hub, file: PathBuf, id: &str| cli_on(hub, &file, &["backup", "ack", id]);
    let (hub, file) = (&scene.pair.primary, scene.first_file()?);
    ended(&ack(hub, file.clone(), &usable)?, 5, &["acknowledges none"]);
    ended(&ack(&scene.pair.passive, scene.second_file()?, &suspect)?, 5, &["not the primary"]);
    assert_eq!(status::restored(&second.status().await?), Some(&*usable));
    ended(&ack(hub, file, &suspect)?, 0, &[&slot.to_string()]);
    let holds = |seen: &Value| (status::restored(seen) == Some(&suspect)).then_some(());
    second.until(DEADLINE, "the acknowledged backup", holds).await
}

/// The newest backup again, as a primary would write it that found too little on its hub.
async fn append_suspect(scene: &Scene) -> Result<u64> {
    let settings = config::load(&scene.first_file()?, std::iter::empty())?;
    let storage = Storage::open(&settings.storage.location, observe::nobody()).await?;
    let opened = Journal::open(storage, keys(&[&scene.key])?, None).await?;
    let mut journal = opened.ok_or("no repository")?;
    let view = journal.refresh().await?.clone();
    let newest = view.newest.ok_or("no backup")?;
    let suspect = Commit { suspect: Some("it shrank".to_owned()), ..newest.commit.clone() };
    let hub = view.holder.ok_or("no holder")?;
    let writer = Writer { hub, epoch: view.epoch, incarnation: view.incarnation };
    Ok(journal.append(&writer, Body::Commit(suspect), |_| Ok(())).await?)
}
