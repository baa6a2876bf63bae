//! What goes wrong between a hub's API server and its backup (F34, F35, F36, F38). Whatever it is,
//! the backup that comes out holds exactly what the hub holds, or there is none.

use crate::harness::bare::{Api, Post};
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::faultd::Faultd;
use crate::harness::faultd::fault::{Fault, Rule, Side, When};
use crate::harness::hub::{Hub, HubOptions, NAMESPACE};
use crate::harness::kinds::is_established;
use crate::harness::{Failure, Result, eventually, kinds, pair, status};
use crate::stage::{CONNECTIONS, DEADLINE, Repository};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use understudy::object::{Kind, ObjectKey};
use understudy::repository::chain::Backup;
use understudy::repository::journal::Journal;
use understudy::repository::packs::PackStore;

/// More than a page.
const MAPS: usize = 520;
const COLLECTION: &str = "/api/v1/namespaces/maps/configmaps";
/// As the fault proxy names the lists of all of them.
const LISTS: &str = "v1/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A hub with its daemon, and a fault proxy between them.
struct Source {
    hub: Hub,
    api: Api,
    faultd: Faultd,
    daemon: Daemon,
    journal: Journal,
    packs: PackStore,
    changes: u32,
    repository: Repository,
    // Keeps the port of its daemon.
    _config: Config,
}

impl Source {
    async fn start(test: &str, options: HubOptions) -> Result<Self> {
        let hub = Hub::start("primary", options).await?;
        pair::prepare(&hub).await?;
        let api = hub.api()?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "maps"}});
        api.post("/api/v1/namespaces", &namespace).await?;
        let posts = (0..MAPS).map(|n| {
            let body = serde_json::to_vec(&map(&format!("map-{n:04}")))?.into();
            Ok(Post { path: COLLECTION.to_owned(), body })
        });
        api.post_all(&posts.collect::<Result<Vec<_>>>()?, CONNECTIONS).await?;

        let repository = Repository::new(test).await?;
        let config = repository
            .config("eu-1", "primary")?
            .with("kubernetes.requestTimeout", json!("3s"))
            // The proxy makes a connection for each request: kinds that play no part cost time.
            .with("sets.exclude", json!([{"group": ["apps", "batch", "autoscaling", "*.k8s.io"]}]));
        let file: PathBuf = config.write(&repository.folder().join("primary.yaml"))?;
        let (faultd, kubeconfig) = hub.faultd().await?;
        let mut daemon = Daemon::start(&file, &kubeconfig, NAMESPACE)?;
        daemon.wait_live().await?;
        let first = |seen: &Value| status::newest(seen).map(|_| ());
        daemon.until(DEADLINE, "the first backup", first).await?;
        let (journal, packs) = repository.open(&file).await?;
        Ok(Self {
            hub,
            api,
            faultd,
            daemon,
            journal,
            packs,
            changes: 0,
            repository,
            _config: config,
        })
    }

    /// Something that the next backup must hold.
    async fn change(&mut self) -> Result<()> {
        self.changes += 1;
        let change = json!({"data": {"change": self.changes.to_string()}});
        self.api.merge_patch(&format!("{COLLECTION}/map-0300"), &change).await?;
        Ok(())
    }

    /// Asks for a backup and does not wait for it.
    async fn begin(&mut self) -> Result<Arc<Backup>> {
        let newest = self.journal.refresh().await?.newest.clone().ok_or("there is no backup")?;
        self.daemon.signal("USR2")?;
        Ok(newest)
    }

    async fn newer(&mut self, than: &Backup) -> Result<Arc<Backup>> {
        let journal = &mut self.journal;
        let newer = eventually(DEADLINE, "the next backup", async || {
            let newest = journal.refresh().await.ok()?.newest.clone()?;
            (newest.mark != than.mark).then_some(newest)
        })
        .await;
        let tail = self.daemon.log_text()?;
        let tail: Vec<&str> = tail.lines().rev().take(20).collect();
        newer.map_err(|error| format!("{error}\n{}", tail.join("\n")).into())
    }

    async fn backup(&mut self) -> Result<Arc<Backup>> {
        let before = self.begin().await?;
        self.newer(&before).await
    }

    /// Identity and revision of each object of the kind: in the backup, and on the hub. They agree where
    /// each change was one of the content.
    async fn compare(&self, backup: &Arc<Backup>, kind: &Kind, what: &str) -> Result<()> {
        let opened = self.packs.open(backup.clone(), None).await?;
        let entries = opened.contents.entries.iter();
        let ours = entries.filter(|(key, _)| key.group_resource() == kind.group_resource());
        let held: BTreeMap<ObjectKey, String> =
            ours.map(|(key, entry)| (key.clone(), entry.resource_version.to_string())).collect();
        let mut there = BTreeMap::new();
        for object in self.api.list(kind).await? {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            if object["metadata"]["labels"]["cluster.open-cluster-management.io/backup"].is_string()
                || !kind.group.is_empty()
            {
                let key =
                    ObjectKey::new(&kind.group, &kind.resource, text("namespace"), text("name"))?;
                there.insert(key, text("resourceVersion").to_owned());
            }
        }
        assert!(!there.is_empty(), "{what}: the test compares nothing");
        assert_eq!(held.len(), there.len(), "{what}: {}", kind.resource);
        assert_eq!(held, there, "{what}");
        Ok(())
    }
}

fn map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"change": "0"},
        "metadata": {"name": name, "labels": {"cluster.open-cluster-management.io/backup": ""}},
    })
}

/// F34, F35, F36: what the API server answers in the midst of a run.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_answers_costs_an_attempt_and_nothing_else() -> Result<()> {
    let mut source = Source::start("answers", HubOptions::default()).await?;
    let answer = |status: u16, headers: &[(&'static str, String)], body: &str| Fault::Status {
        status,
        headers: headers.to_vec(),
        body: body.to_owned(),
    };
    let later = [("retry-after", "1".to_owned())];
    let older = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;
    let gone = r#"{"kind":"Status","status":"Failure","code":410,"reason":"Expired","metadata":{"resourceVersion":"7","continue":"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoibWFwcy9tYXAtMDUwMFx1MDAwMCJ9"}}"#;
    let attempts = "starting the cut again";
    for (name, fault, when, said) in [
        ("429 twice", answer(429, &later, ""), When::First(2), "failed, trying again"),
        ("503 between two pages", answer(503, &later, ""), When::Nth(2), "failed, trying again"),
        ("a lost connection", Fault::FailBefore, When::First(2), "failed, trying again"),
        ("half a page", Fault::Reset(Side::Answer, 2_000), When::Nth(1), "failed, trying again"),
        ("no answer", Fault::Stall, When::Nth(2), "failed, trying again"),
        ("a page of another revision", answer(200, &[], older), When::Nth(1), attempts),
        ("a second page of another revision", answer(200, &[], older), When::Nth(2), attempts),
        ("410 between two pages", answer(410, &[], gone), When::Nth(2), attempts),
        ("404 for a kind that is there", answer(404, &[], ""), When::Nth(1), attempts),
        ("a page that is none", answer(200, &[], "<html>"), When::Nth(1), attempts),
    ] {
        let (from, already) = (source.faultd.moment(), source.daemon.log_text()?.len());
        source.change().await?;
        source.faultd.add(Rule { fault, method: "GET", key: LISTS.to_owned(), when });
        let backup = source.backup().await?;
        let met = source.faultd.history(LISTS);
        assert!(met.iter().any(|e| e.received > from && e.fault.is_some()), "{name}: not met");
        source.faultd.heal("");
        assert!(source.daemon.log_text()?[already..].contains(said), "{name}");
        if name == "a page that is none" {
            let partial: Vec<_> = backup.commit.partial.iter().map(ToString::to_string).collect();
            assert_eq!(partial, ["configmaps"], "{name}");
            continue;
        }
        assert_eq!(backup.commit.partial, [], "{name}");
        assert_eq!(backup.commit.cut.apart, [], "{name}");
        source.compare(&backup, &kinds::named("ConfigMap"), name).await?;
    }
    Ok(())
}

/// Waits until the proxy holds a request for a list that began after `from`.
async fn until_held(source: &Source, lists: &str, from: u64) -> Result<()> {
    eventually(DEADLINE, &format!("a list of {lists} to be held"), async || {
        let seen = source.faultd.history(lists);
        seen.iter().any(|one| one.received > from && one.fault.is_some()).then_some(())
    })
    .await
}

fn hold(lists: &str, when: When, time: Duration) -> Rule {
    Rule { fault: Fault::Slow(time), method: "GET", key: lists.to_owned(), when }
}

/// F34, and F35 with it: between two pages of a kind the revision is compacted away in etcd, and then
/// the API server is killed and started again.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_store_between_two_pages() -> Result<()> {
    // Else it would answer from memory for a while.
    let from_etcd = vec!["--feature-gates=ListFromCacheSnapshot=false".to_owned()];
    let options = HubOptions { extra_apiserver: from_etcd, ..HubOptions::default() };
    let mut source = Source::start("compaction", options).await?;
    for what in ["compacted", "restarted"] {
        source.change().await?;
        let from = source.faultd.moment();
        source.faultd.add(hold(LISTS, When::Nth(2), Duration::from_secs(1)));
        let before = source.begin().await?;
        until_held(&source, LISTS, from).await?;
        // It moves on, and what was pinned is not the newest any more.
        source.change().await?;
        if what == "compacted" {
            source.hub.etcd()?.compact().await?;
        } else {
            source.hub.restart_apiserver().await?;
        }
        let backup = source.newer(&before).await?;
        source.faultd.heal("");
        assert_eq!(backup.commit.partial, [], "{what}");
        if what == "compacted" {
            source.compare(&backup, &kinds::named("ConfigMap"), what).await?;
            let said = "the cut again at a new revision";
            assert!(source.daemon.log_text()?.contains(said), "the page was there after all");
        } else {
            // Whether the change is in it depends on the moment; it is in the next one.
            let next = source.backup().await?;
            assert_eq!(next.commit.partial, [], "{what}");
            source.compare(&next, &kinds::named("ConfigMap"), what).await?;
        }
    }
    Ok(())
}

/// A kind that lives in an etcd of its own is told apart, and listed at its own revision.
#[tokio::test(flavor = "multi_thread")]
async fn a_kind_with_a_store_of_its_own_is_named() -> Result<()> {
    let options = HubOptions { own_store: Some("/configmaps"), ..HubOptions::default() };
    let mut source = Source::start("apart", options).await?;
    let said = "it has a store of its own";
    assert!(source.daemon.log_text()?.contains(said), "the log");
    for _ in 0..2 {
        source.change().await?;
        let backup = source.backup().await?;
        let apart: Vec<_> = backup.commit.cut.apart.iter().map(ToString::to_string).collect();
        assert_eq!(apart, ["configmaps"]);
        assert_eq!(backup.commit.partial, []);
        source.compare(&backup, &kinds::named("ConfigMap"), "apart").await?;
        let file = source.repository.folder().join("primary.yaml");
        let described = cli_on(&source.hub, &file, &["backup", "describe", &backup.id()])?;
        let text = String::from_utf8_lossy(&described.stdout).into_owned();
        assert!(text.contains("as they have a store of their own: configmaps"), "{text}");
    }
    Ok(())
}

const GROUP: &str = "demo.open-cluster-management.io";
const GADGETS: &str = "demo.open-cluster-management.io/";

/// The kind `Gadget`, served at these versions; stored at the first one.
fn gadgets(versions: &[&str]) -> Value {
    let schema = json!({"openAPIV3Schema":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(n, name)| json!({"name": name, "served": true, "storage": n == 0, "schema": schema}))
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("gadgets.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Cluster", "versions": versions,
            "names": {"kind": "Gadget", "listKind": "GadgetList", "plural": "gadgets",
                "singular": "gadget"},
        },
    })
}

/// With one object, which differs from that of every other time.
async fn define(api: &Api, versions: &[&str], time: usize) -> Result<()> {
    api.post(DEFINITIONS, &gadgets(versions)).await?;
    let path = format!("{DEFINITIONS}/gadgets.{GROUP}");
    eventually(DEADLINE, "the CRD to be established", async || {
        is_established(&api.get_json(&path).await.ok()?).then_some(())
    })
    .await?;
    let collection = format!("/apis/{GROUP}/{}/gadgets", versions[0]);
    eventually(DEADLINE, "gadgets to be listed", async || api.get(&collection).await.ok()).await?;
    let gadget = json!({
        "apiVersion": format!("{GROUP}/{}", versions[0]), "kind": "Gadget",
        "metadata": {"name": "one"}, "spec": {"time": time},
    });
    // An apply is not held for two seconds after the CRD, as a POST is.
    api.apply(&format!("{collection}/one"), gadget.to_string()).await
}

/// Deletes the definition and waits until it and its objects are gone.
async fn undefine(api: &Api) -> Result<()> {
    let path = format!("{DEFINITIONS}/gadgets.{GROUP}");
    api.delete(&path).await?;
    eventually(DEADLINE, "the CRD to be gone", async || {
        api.find(&path).await.ok()?.is_none().then_some(())
    })
    .await
}

fn gadget_kind(version: &str) -> Kind {
    Kind {
        group: GROUP.to_owned(),
        version: version.to_owned(),
        kind: "Gadget".to_owned(),
        resource: "gadgets".to_owned(),
        categories: vec![],
        namespaced: false,
    }
}

impl Source {
    /// The versions and digests of the gadgets in a backup.
    async fn gadgets(&self, backup: &Arc<Backup>) -> Result<Vec<(String, String)>> {
        let opened = self.packs.open(backup.clone(), None).await?;
        let entries = opened.contents.entries.iter().filter(|(key, _)| key.group() == GROUP);
        Ok(entries.map(|(_, entry)| (entry.version.to_string(), entry.digest.short())).collect())
    }

    /// While the list of gadgets is held, `happens`; the backup that comes out.
    async fn meanwhile(
        &mut self,
        happens: impl AsyncFnOnce(&Api) -> Result<()>,
    ) -> Result<Arc<Backup>> {
        self.change().await?;
        let from = self.faultd.moment();
        self.faultd.add(hold(GADGETS, When::Nth(1), Duration::from_secs(2)));
        let before = self.begin().await?;
        until_held(self, GADGETS, from).await?;
        happens(&self.api).await?;
        let backup = self.newer(&before).await?;
        self.faultd.heal("");
        Ok(backup)
    }
}

/// F38: a CRD that goes, comes back or changes its versions between discovery and LIST.
#[tokio::test(flavor = "multi_thread")]
async fn f38_a_crd_that_changes_under_the_backup() -> Result<()> {
    let mut source = Source::start("crd", HubOptions::default()).await?;
    let path = format!("{DEFINITIONS}/gadgets.{GROUP}");
    define(&source.api, &["v1", "v2"], 1).await?;
    let backup = source.backup().await?;
    let [(version, digest)] = &source.gadgets(&backup).await?[..] else {
        panic!("there is one gadget")
    };
    assert_eq!(version, "v1", "the preferred version is v2, the stored one v1");

    // Now v2 is the only one: that is another line, although nobody touched the object.
    let only = gadgets(&["v2", "v1"])["spec"]["versions"].clone();
    let served = |n: usize, served: bool| {
        let mut versions = only.clone();
        versions[n]["served"] = json!(served);
        json!({"spec": {"versions": versions}})
    };
    let backup = source
        .meanwhile(async |api| {
            api.merge_patch(&path, &served(1, false)).await?;
            let old = format!("/apis/{GROUP}/v1/gadgets");
            eventually(DEADLINE, "v1 to be gone", async || {
                api.find(&old).await.ok()?.is_none().then_some(())
            })
            .await
        })
        .await?;
    assert_eq!(backup.commit.partial, [], "v1 is gone, v2 is there");
    let found = source.gadgets(&backup).await?;
    assert!(matches!(&found[..], [(v, d)] if v == "v2" && d != digest), "{found:?}");
    let backup = source.backup().await?;
    let changed: u64 = backup.commit.sets.values().map(|set| set.changed).sum();
    assert_eq!((changed, source.gadgets(&backup).await?), (0, found), "nothing changed since");

    let backup = source.meanwhile(undefine).await?;
    assert_eq!(backup.commit.partial, [], "it is gone");
    assert_eq!(source.gadgets(&backup).await?, [], "its objects count as deleted");

    define(&source.api, &["v1"], 2).await?;
    let backup = source.backup().await?;
    source.compare(&backup, &gadget_kind("v1"), "it came").await?;
    toggled(&mut source).await
}

/// It comes and goes in a loop. Each run ends, what else it holds is right, and so is the end.
async fn toggled(source: &mut Source) -> Result<()> {
    const BACKUPS: usize = 3;
    let stop = AtomicBool::new(false);
    source.faultd.add(hold(GADGETS, When::Always, Duration::from_millis(200)));
    let api = source.hub.api()?;
    let toggle = async {
        let mut turns = 0_usize;
        while !stop.load(Ordering::Relaxed) {
            undefine(&api).await?;
            define(&api, &[["v1"], ["v2"]][turns % 2], 3 + turns).await?;
            turns += 1;
        }
        Ok::<_, Failure>(turns)
    };
    let looking = async {
        let outcome = async {
            for _ in 0..BACKUPS {
                source.change().await?;
                let backup = source.backup().await?;
                source.compare(&backup, &kinds::named("ConfigMap"), "toggled").await?;
            }
            Ok::<_, Failure>(())
        }
        .await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    let (turns, backups) = tokio::join!(toggle, looking);
    backups?;
    let turns = turns?;
    assert!(turns >= 2, "it came and went {turns} times");
    source.faultd.heal("");
    source.change().await?;
    let backup = source.backup().await?;
    assert_eq!(backup.commit.partial, [], "in the end");
    let version = if turns % 2 == 1 { "v1" } else { "v2" };
    source.compare(&backup, &gadget_kind(version), "in the end").await
}
