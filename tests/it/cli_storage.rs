//! The commands that need nothing but the storage and the key: with both clusters dead they describe
//! and verify every backup, give single objects back, and name what is damaged.

use crate::harness::Result;
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli, cli_on, new_key};
use crate::harness::pair::Pair;
use crate::harness::scratch::Scratch;
use crate::scene::{DEADLINE, files};
use crate::storage::{Mode, Server, write_credentials};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use understudy::object::{Digest, ObjectKey, Set};
use understudy::repository::chain::SUMMARIES;
use understudy::repository::journal::{Journal, Writer};
use understudy::repository::keys::Keys;
use understudy::repository::layout::{FORMAT, Mark, PackName};
use understudy::repository::pack::{self, Gone, Header, Line, ObjectLine};
use understudy::repository::packs::PackStore;
use understudy::repository::record::{
    Body, Commit, Cut, HubId, Level, PackRef, Record, SetContents, encode,
};
use understudy::repository::storage::Storage;
use understudy::{clock, config, observe};

const PASSWORD: &str = "aHVudGVyMiBpcyBteSBwYXNzd29yZA==";

/// A repository in a folder, and the file that names it. No daemon, no cluster.
struct Place {
    folder: PathBuf,
    file: PathBuf,
    keys: Arc<Keys>,
    /// Seals the packs.
    sealer: Arc<Keys>,
    storage: Storage,
    config: Config,
    scratch: Scratch,
}

impl Place {
    async fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let (key, folder) = (scratch.path().join("key"), scratch.path().join("repository"));
        new_key(&key)?;
        fs::create_dir(&folder)?;
        let config = Config::new("eu-1", "primary", &key)?.with_directory(&folder);
        let file = config.write(&scratch.path().join("hub.yaml"))?;
        let settings = config::load(&file, std::iter::empty())?;
        let keys = Arc::new(Keys::load(&[key], &[])?);
        let storage = Storage::open(&settings.storage.location, observe::nobody()).await?;
        let sealer = keys.clone();
        Ok(Self { folder, file, keys, sealer, storage, config, scratch })
    }

    /// The repository with its first term; who writes there.
    async fn begin(&self) -> Result<(Journal, Writer)> {
        let (storage, keys) = (self.storage.clone(), self.keys.clone());
        let mut journal = Journal::create(storage, keys, clock::random()).await?;
        let hub = HubId { name: "eu-1".to_owned(), uid: "uid-1".to_owned() };
        let mut writer = Writer { hub, epoch: 0, incarnation: 0 };
        journal.append(&writer, Body::Init, |_| Ok(())).await?;
        writer.epoch = 1;
        let term = Body::Term { request: "initial".to_owned(), skips: vec![] };
        journal.append(&writer, term, |_| Ok(())).await?;
        writer.incarnation = journal.append(&writer, Body::Open, |_| Ok(())).await?;
        Ok((journal, writer))
    }

    /// Two backups, the second a delta; their slots.
    async fn two_backups(&self) -> Result<[u64; 2]> {
        let (mut journal, writer) = self.begin().await?;
        let cache = self.scratch.path().join("cache");
        let (storage, keys) = (self.storage.clone(), self.keys.clone());
        let packs = PackStore::new(storage, keys, journal.repository(), cache)?;
        let seal = async |set, index, lines: Vec<Line<'_>>| -> Result<PackRef> {
            let header = Header {
                format: FORMAT,
                repository: journal.repository().to_owned(),
                epoch: 1,
                set,
                index,
                revision: "5".to_owned(),
            };
            let mut pack = pack::Writer::new(&header, &self.sealer)?;
            for line in lines {
                pack.push(line)?;
            }
            let name = PackName::new(1, writer.incarnation, ulid::Ulid::from(clock::random()));
            Ok(packs.put(&name, pack.finish()?).await?)
        };
        let (login, [site, other, policy]) = (secret()?, objects()?);
        let credentials = seal(Set::Credentials, 0, vec![line(&login)]).await?;
        let base = seal(Set::Resources, 0, vec![line(&site), line(&other), line(&policy)]).await?;
        let gone = Line::Gone { key: site.0.clone(), gone: Gone::Deleted };
        let delta = seal(Set::Resources, 0, vec![gone]).await?;

        let set = |levels: Vec<&PackRef>, kinds: &[(&str, u64)]| SetContents {
            levels: levels.into_iter().map(|p| Level { packs: vec![p.clone()] }).collect(),
            objects: kinds.iter().map(|(_, count)| count).sum(),
            changed: 1,
            kinds: kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
        };
        let policies = "policies.policy.open-cluster-management.io";
        let mut slots = [0; 2];
        for (slot, resources) in slots.iter_mut().zip([
            set(vec![&base], &[("configmaps", 2), (policies, 1)]),
            set(vec![&base, &delta], &[("configmaps", 1), (policies, 1)]),
        ]) {
            let credentials = set(vec![&credentials], &[("secrets", 1)]);
            let sets = [(Set::Credentials, credentials), (Set::Resources, resources)];
            let body = Body::Commit(commit(sets.into()));
            *slot = journal.append(&writer, body, |_| Ok(())).await?;
        }
        Ok(slots)
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let file = self.file.to_str().ok_or("the path is not UTF-8")?;
        cli(&[args, &["-c", file]].concat())
    }

    /// Ends well; what it printed.
    fn done(&self, args: &[&str]) -> Result<String> {
        ended(&self.run(args)?, 0, &[])
    }

    fn json(&self, args: &[&str], code: i32) -> Result<Value> {
        let output = self.run(&[args, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str(&ended(&output, code, &[])?)?)
    }
}

/// Ends with `code` and says all of `told` on standard error; what it printed.
fn ended(output: &Output, code: i32, told: &[&str]) -> Result<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8(output.stdout.clone())?;
    assert_eq!(output.status.code(), Some(code), "{error}\n{printed}");
    for text in told {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
    assert!(!error.contains(PASSWORD), "a secret in: {error}");
    Ok(printed)
}

fn commit(sets: BTreeMap<Set, SetContents>) -> Commit {
    Commit {
        sets,
        cut: Cut { revision: "5".to_owned(), apart: vec![] },
        rules: Digest([0; 32]),
        suspect: None,
        partial: vec![],
    }
}

type Object = (ObjectKey, Box<RawValue>);

fn object(group: &str, resource: &str, name: &str, value: &Value) -> Result<Object> {
    let raw = RawValue::from_string(value.to_string())?;
    Ok((ObjectKey::new(group, resource, "apps", name)?, raw))
}

fn secret() -> Result<Object> {
    let value = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "login", "namespace": "apps"}, "data": {"password": PASSWORD},
    });
    object("", "secrets", "login", &value)
}

fn objects() -> Result<[Object; 3]> {
    let map = |name: &str| {
        let metadata = json!({"name": name, "namespace": "apps"});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"on": "yes"}})
    };
    let group = "policy.open-cluster-management.io";
    let policy = json!({
        "apiVersion": format!("{group}/v1"), "kind": "Policy",
        "metadata": {"name": "limits", "namespace": "apps"}, "spec": {"disabled": false},
    });
    Ok([
        object("", "configmaps", "site", &map("site"))?,
        object("", "configmaps", "other", &map("other"))?,
        object(group, "policies", "limits", &policy)?,
    ])
}

fn line((key, object): &Object) -> Line<'_> {
    Line::Object(ObjectLine {
        key: key.clone(),
        version: "v1".into(),
        uid: "uid".into(),
        resource_version: "7".into(),
        object,
    })
}

/// One in the middle, so that it is content and not an end.
fn flip(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(file, bytes)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backup_is_described_verified_and_gives_its_objects_back() -> Result<()> {
    let place = Place::new().await?;
    ended(&place.run(&["backup", "describe"])?, 1, &["no repository"])?;
    let [first, second] = place.two_backups().await?;
    let described = place.json(&["backup", "describe", "latest"], 0)?;
    let id = described["id"].as_str().unwrap_or_default().to_owned();
    assert_eq!((&described["kind"], &described["slot"]), (&"Backup".into(), &second.into()));
    assert_eq!(described["sets"]["resources"]["kinds"]["configmaps"], 1);
    let text = place.done(&["backup", "describe", &id])?;
    for part in [&id, "hub eu-1 (uid-1)", "epoch 1, incarnation 3", "packs/1-3-"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    let text = place.done(&["backup", "verify"])?;
    assert!(text.contains(&id) && text.contains("ok"), "{text}");
    let report = place.json(&["backup", "verify", "--all"], 0)?;
    let seen: Vec<_> = report["items"].as_array().into_iter().flatten().collect();
    assert_eq!(
        seen.iter().map(|one| one["slot"].as_u64()).collect::<Vec<_>>(),
        [Some(second), Some(first)]
    );
    assert!(report["sound"] == true && seen[1]["objects"] == 4, "{report}");

    let report = place.json(&["backup", "verify", "--sample", "1%"], 0)?;
    let one = &report["items"][0];
    assert_eq!((&one["packs"], &one["packsRead"]), (&3.into(), &1.into()), "{report}");
    let report = place.json(&["backup", "verify", "--all", "--sample", "100%"], 0)?;
    for one in report["items"].as_array().into_iter().flatten() {
        assert_eq!(one["packs"], one["packsRead"], "{report}");
    }
    ended(&place.run(&["backup", "verify", "--sample", "0%"])?, 2, &["above 0%"])?;

    // What the second no longer holds stands in the first.
    let first = first.to_string();
    let yaml = place.done(&["backup", "get", &first, "ConfigMap", "apps/site"])?;
    let got: Value = serde_saphyr::from_str(&yaml)?;
    assert_eq!((&got["metadata"]["name"], &got["data"]["on"]), (&"site".into(), &"yes".into()));
    let output = place.run(&["backup", "get", "latest", "configmaps", "apps/site"])?;
    let printed = ended(&output, 1, &["holds no configmaps apps/site"])?;
    assert!(printed.is_empty(), "{printed}");
    let output = place.run(&["backup", "get", "latest", "configmaps", "apps/othr"])?;
    ended(&output, 1, &["did you mean configmaps apps/other?"])?;
    let policies = "policies.policy.open-cluster-management.io";
    for kind in ["policy", "policies", policies] {
        let got = place.json(&["backup", "get", &id, kind, "limits"], 0)?;
        assert_eq!(got["kind"], "Policy", "{kind}");
    }
    ended(&place.run(&["backup", "get", "4711", "policy", "limits"])?, 1, &["4711", &id])?;
    let other = format!("20200101-000000-{second}");
    ended(&place.run(&["backup", "describe", &other])?, 1, &[&other, &id])?;
    ended(&place.run(&["backup", "describe", "newest"])?, 2, &["latest"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_a_secret_is_shown_only_when_asked_for() -> Result<()> {
    let place = Place::new().await?;
    place.two_backups().await?;
    let get = ["backup", "get", "latest", "secret", "apps/login"];
    for form in [&[][..], &["-o", "json"]] {
        let output = place.run(&[&get[..], form].concat())?;
        let printed = ended(&output, 0, &["--show-secret-data"])?;
        assert!(printed.contains("password") && !printed.contains(PASSWORD), "{printed}");
        let printed = place.done(&[&get[..], form, &["--show-secret-data"]].concat())?;
        assert!(printed.contains(PASSWORD), "{printed}");
    }
    for verb in [
        &["backup", "describe"][..],
        &["backup", "verify", "--all"],
        &["storage", "ls"],
        &["storage", "usage"],
        &["storage", "check"],
    ] {
        let printed = place.done(verb)?;
        assert!(!printed.contains(PASSWORD), "{verb:?}: {printed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_ends_with_13_and_the_name_of_what_is_damaged() -> Result<()> {
    let place = Place::new().await?;
    let [first, second] = place.two_backups().await?;
    let described = place.json(&["backup", "describe"], 0)?;
    let level = |level: usize| {
        let name = &described["sets"]["resources"]["levels"][level]["packs"][0]["name"];
        format!("packs/{}", name.as_str().unwrap_or_default())
    };
    let (base, delta) = (level(0), level(1));

    flip(&place.folder.join(&delta))?;
    let output = place.run(&["backup", "verify", "--all"])?;
    let printed = ended(&output, 13, &["1 of 2 backups", &delta])?;
    assert!(printed.contains("DAMAGED") && printed.contains("SHA-256"), "{printed}");
    ended(&place.run(&["backup", "verify", "--all", "--sample", "100%"])?, 13, &[&delta])?;
    let report = place.json(&["backup", "verify", "--all"], 13)?;
    assert_eq!(
        (&report["items"][0]["slot"], &report["items"][0]["sound"]),
        (&second.into(), &false.into())
    );
    assert_eq!(
        (&report["items"][1]["slot"], &report["items"][1]["sound"]),
        (&first.into(), &true.into())
    );
    place.done(&["backup", "verify", &first.to_string()])?;
    let get = ["backup", "get", "latest", "secret", "apps/login"];
    let printed = ended(&place.run(&get)?, 13, &["is damaged"])?;
    assert!(printed.is_empty(), "nothing of a damaged backup is shown: {printed}");
    place.done(&["backup", "describe"])?;
    let printed = ended(&place.run(&["storage", "check"])?, 4, &["1 of 6"])?;
    assert!(printed.contains("✗ newest backup"), "{printed}");

    fs::remove_file(place.folder.join(&base))?;
    let output = place.run(&["backup", "verify"])?;
    let printed = ended(&output, 13, &[&base, &delta])?;
    assert!(printed.contains("it is not in the storage"), "{printed}");
    let output = place.run(&["backup", "verify", "--all", "-o", "json"])?;
    let error: Value = serde_json::from_slice(&output.stderr)?;
    assert_eq!((&error["code"], &error["reason"]), (&13.into(), &"Damaged".into()));
    let usage = place.json(&["storage", "usage"], 0)?;
    assert_eq!(usage["packsMissing"], 1, "{usage}");

    flip(&place.folder.join(format!("journal/{second:020}")))?;
    for verb in [&["backup", "verify", "--all"][..], &["backup", "describe"], &["storage", "usage"]]
    {
        ended(&place.run(verb)?, 13, &[&format!("slot {second} ")])?;
    }
    let printed = ended(&place.run(&["storage", "check"])?, 4, &[])?;
    assert!(printed.contains(&format!("✗ repository     slot {second} ")), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_ends_with_12() -> Result<()> {
    let mut place = Place::new().await?;
    place.two_backups().await?;
    let other = place.scratch.path().join("other");
    new_key(&other)?;
    place.config.set("encryption.keyFiles", json!([other]));
    place.config.write(&place.file)?;
    for verb in [
        &["backup", "list"][..],
        &["backup", "describe"],
        &["backup", "verify", "--all"],
        &["backup", "get", "latest", "secret", "apps/login"],
        &["storage", "usage"],
    ] {
        let printed = ended(&place.run(verb)?, 12, &["does not hold"])?;
        assert!(printed.is_empty(), "{verb:?}: {printed}");
    }
    let printed = ended(&place.run(&["storage", "check"])?, 4, &[])?;
    assert!(printed.contains("✗ repository") && printed.contains("✔ atomic create"), "{printed}");
    place.done(&["storage", "ls"])?;

    // The journal can be read, but the packs were sealed for somebody else.
    let mut place = Place::new().await?;
    place.sealer = Arc::new(Keys::load(&[other], &[])?);
    place.two_backups().await?;
    place.done(&["backup", "describe"])?;
    let printed = ended(&place.run(&["backup", "verify"])?, 12, &["no key opens 1 of 1"])?;
    assert!(printed.contains("packs/") && !printed.contains("DAMAGED"), "{printed}");
    ended(&place.run(&["backup", "get", "latest", "secret", "apps/login"])?, 12, &["pack "])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_storage_tells_what_it_holds() -> Result<()> {
    let place = Place::new().await?;
    place.two_backups().await?;
    let stray = format!("packs/1-3-{}", ulid::Ulid::nil());
    fs::write(place.folder.join(&stray), [0; 1000])?;
    let usage = place.json(&["storage", "usage"], 0)?;
    assert_eq!((&usage["backups"], &usage["journal"]["count"]), (&2.into(), &5.into()));
    assert_eq!(usage["packs"]["resources"]["count"], 2, "each pack once: {usage}");
    assert_eq!(usage["packsUnreferenced"], json!({"count": 1, "bytes": 1000}));
    assert_eq!((&usage["packsMissing"], &usage["repo"]["count"]), (&0.into(), &1.into()));
    let text = place.done(&["storage", "usage"])?;
    let unnamed = text.lines().find(|line| line.starts_with("packs that no backup names"));
    assert!(unnamed.is_some_and(|line| line.ends_with("1   1000 B")), "{text}");

    let listed = place.done(&["storage", "ls"])?;
    for key in ["repo", "journal/00000000000000000005", &stray] {
        assert!(listed.lines().any(|line| line.ends_with(&format!("  {key}"))), "{key}: {listed}");
    }
    for folder in ["packs", "packs/"] {
        let listed = place.json(&["storage", "ls", folder], 0)?;
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(4), "{listed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_is_wrong_with_the_storage() -> Result<()> {
    let mut place = Place::new().await?;
    let printed = place.done(&["storage", "check"])?;
    assert!(printed.contains("✔ repository     there is none yet"), "{printed}");
    place.two_backups().await?;
    let before = crate::scene::stored(&place.folder)?;
    let checked = place.json(&["storage", "check"], 0)?;
    let names: Vec<_> = checked["checks"].as_array().into_iter().flatten().collect();
    let names: Vec<_> = names.iter().filter_map(|check| check["name"].as_str()).collect();
    let all =
        ["reachable", "writable", "clock skew", "atomic create", "repository", "newest backup"];
    assert_eq!((names, &checked["healthy"]), (all.to_vec(), &true.into()));
    assert_eq!(crate::scene::stored(&place.folder)?, before);
    let probes = place.json(&["storage", "ls", "probes"], 0)?;
    assert_eq!(probes["items"], json!([]), "probes are removed");

    let nowhere = place.scratch.path().join("nowhere");
    place.config.set("storage.directory", json!(nowhere));
    place.config.write(&place.file)?;
    let printed = ended(&place.run(&["storage", "check"])?, 10, &["reachable"])?;
    assert!(printed.contains("✗ reachable") && printed.contains("  -> "), "{printed}");
    for verb in [&["storage", "ls"][..], &["storage", "usage"], &["backup", "verify"]] {
        ended(&place.run(verb)?, 10, &[])?;
    }

    let (key, credentials) =
        (place.scratch.path().join("key"), place.scratch.path().join("credentials"));
    write_credentials(&credentials, "key", "secret");
    let write = |server: &Server| -> Result<PathBuf> {
        let s3 = json!({
            "endpoint": server.endpoint, "region": "us-east-1", "bucket": "hub-dr",
            "prefix": "pair/", "pathStyle": true,
        });
        let config = Config::new("eu-1", "primary", &key)?.with("storage.s3", s3);
        config.with("storage.credentialsFile", json!(credentials)).write(&place.file)
    };
    let server = Server::start(Mode::OneAtATime);
    write(&server)?;
    let printed = place.done(&["storage", "check"])?;
    assert!(printed.contains("s3://hub-dr/pair/") && !printed.contains('✗'), "{printed}");
    let server = Server::start(Mode::ConditionIgnored);
    write(&server)?;
    let printed = ended(&place.run(&["storage", "check"])?, 4, &[])?;
    assert!(printed.contains("✗ atomic create") && printed.contains("won"), "{printed}");
    assert!(printed.contains("✔ reachable") && printed.contains("✔ clock skew"), "{printed}");
    Ok(())
}

/// The view forgets what is older than a thousand backups; the chain of records does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_older_than_the_view_remembers_is_read_from_its_slot() -> Result<()> {
    let place = Place::new().await?;
    let (journal, writer) = place.begin().await?;
    let mut last = journal.view().last;
    let (open, mut void) = (writer.incarnation, 0);
    let mut slots = vec![];
    for slot in open + 1..open + 100 + SUMMARIES as u64 {
        // One of a writer that is not the current one: authentic, and it does not count.
        let counts = slot != open + 20;
        let record = Record {
            repository: journal.repository().to_owned(),
            slot,
            epoch: writer.epoch,
            incarnation: if counts { open } else { open - 1 },
            hub: writer.hub.clone(),
            nonce: format!("{slot}"),
            prev: last,
            key: place.keys.id().to_owned(),
            writer: "test".to_owned(),
            at: clock::now(),
            requires: vec![],
            body: Body::Commit(commit(BTreeMap::new())),
        };
        let bytes = encode(&record, &place.keys);
        fs::write(place.folder.join(format!("journal/{slot:020}")), &bytes)?;
        if counts {
            last = Some(Mark { slot, sha256: Digest::of(&bytes) });
            slots.push(slot);
        } else {
            void = slot;
        }
    }
    for slot in [slots[0], slots[18], slots[19], slots[50], slots[98], slots[slots.len() - 1]] {
        let described = place.json(&["backup", "describe", &slot.to_string()], 0)?;
        assert_eq!(described["slot"], slot);
    }
    for slot in [open, void] {
        ended(&place.run(&["backup", "describe", &slot.to_string()])?, 1, &["no backup"])?;
    }
    let verified = place.json(&["backup", "verify", "--all"], 0)?;
    assert_eq!(verified["items"].as_array().map(Vec::len), Some(slots.len()));
    let text = place.done(&["storage", "usage"])?;
    assert!(text.contains("1,000, and older ones"), "{text}");
    Ok(())
}

/// What a real daemon writes is what these commands expect, down to the counts by kind.
#[tokio::test(flavor = "multi_thread")]
async fn the_backup_of_a_daemon_is_sound_and_gives_a_secret_back() -> Result<()> {
    let (hub, place) = (&Pair::shared().await?.primary, Place::new().await?);
    let api = hub.api()?;
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "cli-storage"}})).await?;
    let labels = json!({"cluster.open-cluster-management.io/type": "aws"});
    let secret = json!({
        "metadata": {"name": "account", "labels": labels}, "data": {"password": PASSWORD},
    });
    api.post("/api/v1/namespaces/cli-storage/secrets", &secret).await?;
    let mut daemon = Daemon::start_on(hub, &place.file).await?;
    let newest = |seen: &Value| crate::harness::status::newest(seen).map(str::to_owned);
    let first = daemon.until(DEADLINE, "a first backup", newest).await?;
    api.delete("/api/v1/namespaces/cli-storage/secrets/account").await?;
    let made = cli_on(hub, &place.file, &["backup", "run"])?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    daemon.kill9();

    let report = place.json(&["backup", "verify", "--all"], 0)?;
    assert_eq!(report["items"].as_array().map(Vec::len), Some(2), "{report}");
    let get = |id, more: &[&str]| {
        place.run(&[&["backup", "get", id, "Secret", "cli-storage/account"], more].concat())
    };
    ended(&get("latest", &[])?, 1, &["holds no Secret cli-storage/account"])?;
    let printed = ended(&get(&first, &["--show-secret-data"])?, 0, &[])?;
    let got: Value = serde_saphyr::from_str(&printed)?;
    assert_eq!(got["data"]["password"], PASSWORD, "{printed}");
    let usage = place.json(&["storage", "usage"], 0)?;
    assert_eq!(
        (&usage["packsUnreferenced"]["count"], &usage["packsMissing"]),
        (&0.into(), &0.into())
    );
    let packs = usage["packs"].as_object().into_iter().flatten();
    let packs: u64 = packs.filter_map(|(_, room)| room["count"].as_u64()).sum();
    assert_eq!(packs, files(&place.folder.join("packs"))?.len() as u64, "{usage}");
    place.done(&["storage", "check"])?;
    Ok(())
}

/// The storage accepts and never answers; the command is waiting when the signal comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_command_ends_with_its_own_codes() -> Result<()> {
    let mut place = Place::new().await?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let credentials = place.scratch.path().join("credentials");
    write_credentials(&credentials, "key", "secret");
    let s3 = json!({
        "endpoint": format!("http://{}", listener.local_addr()?), "region": "us-east-1",
        "bucket": "hub-dr", "pathStyle": true,
    });
    place.config.remove("storage.directory");
    place.config.set("storage.s3", s3);
    place.config.set("storage.credentialsFile", json!(credentials));
    place.config.write(&place.file)?;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_understudy"));
        let mut child = command.args(["storage", "ls", "-c"]).arg(&place.file).spawn()?;
        let _connection = listener.accept()?;
        let pid = child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-s", signal, &pid]).status()?;
        assert!(sent.success());
        assert_eq!(child.wait()?.code(), Some(code), "SIG{signal}");
    }
    Ok(())
}
