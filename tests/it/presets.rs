//! Each shipped preset sorts the objects of its product as `tests/presets/NAME.txt` says: the kinds come
//! from the discovery of a real API server, and what is in which set from a backup. All products stand
//! on one hub, so that a preset that reaches for what is another's is noticed.

use crate::harness::bare::Api;
use crate::harness::hub::{Hub, HubOptions};
use crate::harness::{Result, kinds, pair};
use crate::stage::{Repository, start_primary};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use understudy::config::preset;
use understudy::object::{Kind, ObjectKey, Set};

/// Presets that know kinds of each other.
const RELATED: [[&str; 2]; 3] = [["ocm", "acm"], ["acm", "argocd"], ["rancher", "capi"]];
const TOGETHER: [&str; 3] = ["ocm", "argocd", "capi"];

#[tokio::test]
async fn each_preset_sorts_the_objects_of_its_product() -> Result<()> {
    let tables = tables()?;
    let hub = Hub::start("primary", HubOptions { audit: false, ..HubOptions::default() }).await?;
    pair::install_understudy(&hub).await?;
    let host = populate(&hub.api()?, &tables).await?;
    for name in preset::names() {
        let (sets, held_host) = back_up(&hub, &[name], &host).await?;
        let mut expected = tables[name].clone();
        if name == "acm" {
            let of_ocm = tables["ocm"].iter().map(|(row, set)| (row.clone(), set.clone()));
            expected = of_ocm.chain(expected).collect();
            let held_host = held_host.ok_or("the host is not in the backup")?;
            assert_eq!(held_host["status"], provisioned()["status"]);
        }
        assert_eq!(wrong(&sets, &expected), Vec::<String>::new(), "preset {name}");
        for (other, table) in &tables {
            let related = |[a, b]: &[&str; 2]| [(*a, *b), (*b, *a)].contains(&(name, *other));
            if *other == name || RELATED.iter().any(related) {
                continue;
            }
            let foreign = table.keys().filter(|row| !expected.contains_key(*row)).map(Row::key);
            let taken: Vec<_> = foreign.filter(|key| is_taken(&sets, key)).collect();
            assert_eq!(taken, [], "preset {name} takes what is of {other}");
        }
    }
    let (sets, _) = back_up(&hub, &TOGETHER, &host).await?;
    for name in TOGETHER {
        let wrong = wrong(&sets, &tables[name]);
        assert_eq!(wrong, Vec::<String>::new(), "preset {name} among {TOGETHER:?}");
    }
    Ok(())
}

/// Namespaces come along whatever the preset.
fn is_taken(sets: &Sets, key: &ObjectKey) -> bool {
    sets.contains_key(key) && key.resource() != "namespaces"
}

/// An object as a table tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    group: String,
    kind: String,
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    secret_type: Option<String>,
    categories: BTreeSet<String>,
}

type Table = BTreeMap<Row, String>;

impl Row {
    /// `group/Kind namespace/name key=value …`; `type=` and `category=` are no labels.
    fn parse(object: &str) -> Option<Self> {
        let mut words = object.split_whitespace();
        let kind = words.next()?;
        let (group, kind) = kind.rsplit_once('/').unwrap_or(("", kind));
        let place = words.next()?;
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let [group, kind, namespace, name] = [group, kind, namespace, name].map(str::to_owned);
        let (labels, secret_type, categories) = (BTreeMap::new(), None, BTreeSet::new());
        let mut row = Self { group, kind, namespace, name, labels, secret_type, categories };
        for word in words {
            let (key, value) = word.split_once('=')?;
            match key {
                "type" => row.secret_type = Some(value.to_owned()),
                "category" => _ = row.categories.insert(value.to_owned()),
                _ => _ = row.labels.insert(key.to_owned(), value.to_owned()),
            }
        }
        Some(row)
    }

    fn kind(&self) -> Kind {
        Kind {
            group: self.group.clone(),
            version: "v1".to_owned(),
            kind: self.kind.clone(),
            resource: plural(&self.kind.to_lowercase()),
            namespaced: !self.namespace.is_empty(),
            categories: self.categories.iter().cloned().collect(),
        }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.group, &self.kind().resource, &self.namespace, &self.name)
            .expect("the tables hold valid names")
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "apiVersion": self.kind().api_version(), "kind": self.kind,
            "metadata": {"name": self.name, "labels": self.labels},
        });
        if let Some(secret_type) = &self.secret_type {
            body["type"] = secret_type.as_str().into();
        }
        if self.kind == "Deployment" {
            let labels = json!({"app": "a"});
            let containers = json!([{"name": "a", "image": "a"}]);
            body["spec"] = json!({"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": containers},
            }});
        }
        body
    }
}

/// As the authors of CRDs form it, for all kinds of the tables.
fn plural(kind: &str) -> String {
    let ends = |endings: &[&str]| endings.iter().any(|ending| kind.ends_with(ending));
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if ends(&["ss", "ch", "x"]) => format!("{kind}es"),
        None if ends(&["s"]) => kind.to_owned(),
        None => format!("{kind}s"),
    }
}

/// Of all presets: the objects with the set of each, or why it is in none.
fn tables() -> Result<BTreeMap<&'static str, Table>> {
    let mut tables = BTreeMap::new();
    for name in preset::names() {
        let file = format!("{}/tests/presets/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let mut table = Table::new();
        for line in std::fs::read_to_string(&file)?.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let row = line.split_once(" | ").and_then(|(row, set)| Some((Row::parse(row)?, set)));
            let (row, set) = row.ok_or_else(|| format!("{file}: {line}"))?;
            table.insert(row, set.trim_end_matches(" inert").to_owned());
        }
        tables.insert(name, table);
    }
    Ok(tables)
}

/// Makes all kinds and all objects of the tables. The key of the host that has a status.
async fn populate(api: &Api, tables: &BTreeMap<&str, Table>) -> Result<ObjectKey> {
    const BUILT_IN: [&str; 4] = ["", "apps", "apiextensions.k8s.io", "rbac.authorization.k8s.io"];
    let rows: BTreeSet<&Row> = tables.values().flat_map(BTreeMap::keys).collect();
    let keys: BTreeSet<ObjectKey> = rows.iter().map(|row| row.key()).collect();
    assert_eq!(keys.len(), rows.len(), "two tables tell the same object in two ways");
    let mut kinds: BTreeMap<_, Kind> = BTreeMap::new();
    for row in rows.iter().filter(|row| !BUILT_IN.contains(&&*row.group)) {
        let kind = kinds.entry(row.kind().group_resource()).or_insert_with(|| row.kind());
        assert_eq!(kind.namespaced, row.kind().namespaced, "{row:?}");
        kind.categories.extend(row.categories.iter().cloned());
        kind.categories.sort();
        kind.categories.dedup();
    }
    kinds::define(api, &kinds.into_values().collect::<Vec<_>>()).await?;

    let explicit = rows.iter().filter(|row| row.kind == "Namespace");
    let explicit: BTreeSet<&str> = explicit.map(|row| &*row.name).collect();
    let implicit: BTreeSet<&str> = rows.iter().map(|row| &*row.namespace).collect();
    for name in implicit.difference(&explicit).filter(|name| !name.is_empty()) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        api.post("/api/v1/namespaces", &body).await?;
    }
    let (namespaces, others): (Vec<&Row>, Vec<&Row>) =
        rows.into_iter().partition(|row| row.kind == "Namespace");
    let mut host = None;
    for row in namespaces.into_iter().chain(others) {
        let key = row.key();
        if row.group == "apiextensions.k8s.io" {
            // It was made for the objects of its kind.
            let labels = json!({"metadata": {"labels": row.labels}});
            api.merge_patch(&key.url_path("v1"), &labels).await?;
            continue;
        }
        api.post(&key.collection_path("v1"), &row.body()).await?;
        if row.kind == "BareMetalHost" && row.name == "labelled" {
            api.merge_patch(&format!("{}/status", key.url_path("v1")), &provisioned()).await?;
            host = Some(key);
        }
    }
    Ok(host.ok_or("no host is labelled")?)
}

fn provisioned() -> Value {
    json!({"status": {"provisioning": {"state": "provisioned"}}})
}

type Sets = BTreeMap<ObjectKey, Set>;

/// What the first backup of a daemon with these presets holds, in a repository of its own: the set of
/// each object, and the host as it stands there.
async fn back_up(hub: &Hub, presets: &[&str], host: &ObjectKey) -> Result<(Sets, Option<Value>)> {
    let name = presets.join("-");
    let repository = Repository::new(&format!("presets-{name}")).await?;
    let config = repository.config(&name, "primary")?.with("presets", json!(presets));
    let file = config.write(&repository.folder().join("primary.yaml"))?;
    let _daemon = start_primary(hub, &file).await?;
    let (mut journal, packs) = repository.open(&file).await?;
    let backup = journal.refresh().await?.newest.clone().ok_or("there is no backup")?;
    let opened = packs.open(backup, None).await?;
    let entries = &opened.contents.entries;
    let sets = entries.iter().map(|(key, entry)| (key.clone(), entry.set)).collect();
    let mut found = None;
    if let Some(entry) = entries.get(host) {
        packs.objects(&opened, entry.pack, |key, object| {
            if key == *host {
                found = Some(serde_json::from_str(object.get()));
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok((sets, found.transpose()?))
}

/// Where the backup and a table disagree.
fn wrong(sets: &Sets, table: &Table) -> Vec<String> {
    let disagreement = |(row, expected): (&Row, &String)| {
        let found = sets.get(&row.key()).map(|set| set.name());
        let wanted = Set::ALL.iter().map(|set| set.name()).find(|set| set == expected);
        (found != wanted).then(|| format!("{}: {found:?}, not {expected}", row.key()))
    };
    table.iter().filter_map(disagreement).collect()
}
