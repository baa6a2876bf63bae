//! Every kind of rule on a real hub: `explain` and `backup run --dry-run` say of each object what a
//! backup then does with it.

use crate::harness::bare::Api;
use crate::harness::config::Config;
use crate::harness::daemon::cli_on;
use crate::harness::hub::{Hub, HubOptions, PLAIN_TOKEN};
use crate::harness::{Result, pair};
use crate::stage::{Repository, start_primary};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use understudy::object::{ObjectKey, Set};

/// (kind, place, labels, where it belongs: set or `-`, beginning of the rule)
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// What `understudy` says of an object: its set, and the rule.
type Said = (Option<Set>, String);

/// The labels of a Secret tell its type as well. Namespaces stand before what is in them.
const OBJECTS: [Row; 45] = [
    ("Namespace", "team-a", "", "resources", "built-in: namespaces come along"),
    ("Namespace", "team-b", "held=", "resources", "built-in: namespaces come along"),
    ("Namespace", "shop-1", "", "resources", "built-in: namespaces come along"),
    ("Namespace", "blue", "env=prod", "resources", "built-in: namespaces come along"),
    ("Namespace", "scratch-1", "", "-", "sets.exclude[0] (namespace scratch-*)"),
    ("Namespace", "hidden-1", "", "-", "sets.resources.exclude[0]"),
    ("Namespace", "quiet", "understudy.dev/exclude=true", "-", "built-in: labelled understudy"),
    ("Namespace", "me", "", "-", "built-in: the namespace of the hub itself"),
    // What a rule can name.
    ("NetworkPolicy", "team-b/np", "", "resources", "sets.resources.include[0] (group net*ing"),
    ("Deployment", "team-b/web", "", "resources", "sets.resources.include[1] (kind Deployment)"),
    ("ConfigMap", "team-a/plain", "", "resources", "sets.resources.include[2]"),
    ("ConfigMap", "shop-1/plain", "", "resources", "sets.resources.include[3]"),
    ("ConfigMap", "blue/plain", "", "resources", "sets.resources.include[4]"),
    ("ConfigMap", "team-b/plain", "", "-", "no rule includes it"),
    ("ServiceAccount", "team-b/robot-1", "", "resources", "sets.resources.include[5]"),
    ("ServiceAccount", "team-b/human", "", "-", "no rule includes it"),
    ("ConfigMap", "team-b/web", "app=web", "resources", "sets.resources.include[6]"),
    ("ConfigMap", "team-b/web-tmp", "app=web transient=", "-", "no rule includes it"),
    ("Role", "team-b/reader", "", "resources", "sets.resources.include[7]"),
    ("Role", "team-b/reader-tmp", "", "-", "no rule includes it"),
    (
        "Secret",
        "team-b/login",
        "type=example.com/login",
        "credentials",
        "sets.credentials.include[1]",
    ),
    // Which set wins, and what its exclusions do.
    ("Secret", "team-b/gold", "tier=gold", "credentials", "sets.credentials.include[0]"),
    ("Secret", "team-b/public", "tier=gold public=", "resources", "sets.resources.include[8]"),
    ("Secret", "team-b/gold-draft", "tier=gold", "-", "sets.credentials.exclude[0]"),
    ("Secret", "team-b/held", "tier=gold held=", "activation", "sets.activation.include[0]"),
    ("ConfigMap", "team-a/held", "held=", "activation", "sets.activation.include[0]"),
    ("ConfigMap", "team-a/held-never", "held=", "-", "sets.activation.exclude[0]"),
    ("ConfigMap", "team-a/plain-out", "", "-", "sets.resources.exclude[1]"),
    ("ConfigMap", "team-a/never", "never=", "-", "sets.exclude[1] (labels never)"),
    ("ConfigMap", "scratch-1/plain", "held=", "-", "sets.exclude[0] (namespace scratch-*)"),
    // What no rule brings in again.
    ("Secret", "team-b/release", "type=helm.sh/release.v1 tier=tin", "-", "built-in: Helm release"),
    (
        "Secret",
        "team-a/token",
        "type=kubernetes.io/service-account-token held=",
        "-",
        "built-in: a service",
    ),
    ("ConfigMap", "quiet/plain", "held=", "-", "built-in: labelled understudy"),
    (
        "ConfigMap",
        "team-a/velero",
        "velero.io/exclude-from-backup=true",
        "-",
        "built-in: labelled velero",
    ),
    ("ConfigMap", "kube-system/theirs", "held=", "-", "built-in: kube-*"),
    ("ConfigMap", "understudy/own", "held=", "-", "built-in: Understudy's own namespace"),
    ("ConfigMap", "me/mine", "held=", "-", "built-in: the namespace of the hub itself"),
    ("ConfigMap", "team-a/going", "held=", "-", "built-in: what is being deleted"),
    ("Lease", "team-a/lease", "held=", "-", "built-in: leases"),
    // The preset beside them.
    ("ManagedCluster", "c1", "", "activation", "preset ocm: activation.include["),
    ("ManagedCluster", "me", "local-cluster=true", "-", "preset ocm: hubItself["),
    (
        "ConfigMap",
        "team-b/asked",
        "cluster.open-cluster-management.io/backup=",
        "credentials",
        "preset ocm: credentials.include[",
    ),
    ("Policy", "team-b/policy", "", "resources", "preset ocm: resources.include["),
    (
        "Policy",
        "team-b/replica",
        "policy.open-cluster-management.io/root-policy=x",
        "-",
        "preset ocm: exclude[",
    ),
    ("Policy", "team-b/policy-out", "", "-", "sets.resources.exclude[1]"),
];

/// On every hub.
const MADE_BY_THE_HUB: [Row; 2] = [
    ("ServiceAccount", "default/default", "", "-", "built-in: every namespace"),
    ("ConfigMap", "default/kube-root-ca.crt", "", "-", "built-in: the cluster's own"),
];

fn rules() -> Value {
    let config_map = |more: Value| {
        let mut rule = json!({"group": "", "kind": "ConfigMap"});
        rule.as_object_mut()
            .expect("it is one")
            .extend(more.as_object().cloned().expect("so is it"));
        rule
    };
    json!({
        "exclude": [{"namespace": "scratch-*"}, {"labels": "never"}],
        "activation": {"include": [{"labels": "held"}], "exclude": [{"name": "*-never"}]},
        "credentials": {
            "include": [
                {"group": "", "kind": "Secret", "labels": "tier in (gold,silver),!public"},
                {"secretType": "example.com/login"},
            ],
            "exclude": [{"name": "*-draft"}],
        },
        "resources": {
            "include": [
                {"group": "net*ing.k8s.io"},
                {"kind": "Deployment"},
                config_map(json!({"namespace": "team-a"})),
                config_map(json!({"namespace": "shop-*"})),
                config_map(json!({"namespaceLabels": "env=prod"})),
                {"group": "", "kind": "ServiceAccount", "name": "robot-*"},
                config_map(json!({"labels": "app in (shop,web),!transient"})),
                {"kind": "Role", "except": [{"name": "*-tmp"}]},
                {"group": "", "kind": "Secret", "labels": "tier"},
            ],
            "exclude": [{"kind": "Namespace", "name": "hidden-*"}, {"name": "*-out"}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_an_object_is_what_a_backup_does() -> Result<()> {
    let (hub, repository) = (hub().await?, Repository::new("selection").await?);
    let config = repository.config("eu-1", "primary")?.with("sets", rules());
    let file = config.write(&repository.folder().join("hub.yaml"))?;

    let said = dry_run(&hub, &file)?;
    for row in OBJECTS.iter().chain(&MADE_BY_THE_HUB) {
        let (kind, place, _, set, rule) = row;
        let key = key(kind, place)?;
        // Of a kind that no object is captured of, none is looked at.
        let explained = explain(&hub, &file, kind, place)?;
        let told = said.get(&key).unwrap_or(&explained.said);
        assert_eq!(told.0.map_or("-", Set::name), *set, "{key}: {}", told.1);
        assert!(told.1.starts_with(rule), "{key}: {}, not {rule}", told.1);
        assert_eq!(explained.said, *told, "{key}");
        assert_eq!(said.contains_key(&key), *kind != "Lease", "{key} is looked at");
        let standby = match (told.0, *kind) {
            (None, _) => "never-sees",
            (Some(_), "Role") => "refuses",
            (Some(Set::Activation), _) => "holds-back",
            (Some(Set::Credentials | Set::Resources), _) => "restores",
        };
        assert_eq!(explained.standby, standby, "{key}");
    }
    the_counts_agree(&hub, &file, &said)?;

    let mut primary = start_primary(&hub, &file).await?;
    primary.kill9();
    let (mut journal, packs) = repository.open(&file).await?;
    let backup = journal.refresh().await?.newest.clone().ok_or("there is no backup")?;
    let opened = packs.open(backup, None).await?;
    let entries = opened.contents.entries.iter();
    let held: BTreeMap<_, _> = entries.map(|(key, entry)| (key.clone(), entry.set)).collect();
    let foretold = said.into_iter().filter_map(|(key, (set, _))| Some((key, set?)));
    assert_eq!(foretold.collect::<BTreeMap<_, _>>(), held);
    Ok(())
}

/// A hub with an object for each row.
async fn hub() -> Result<Hub> {
    let hub = Hub::start("selection", HubOptions::default()).await?;
    pair::prepare(&hub).await?;
    let api = hub.api()?;
    for (kind, place, labels, ..) in OBJECTS {
        create(&api, kind, place, labels).await?;
    }
    let going = key("ConfigMap", "team-a/going")?.url_path("v1");
    api.merge_patch(&going, &json!({"metadata": {"finalizers": ["example.com/hold"]}})).await?;
    api.send(Method::DELETE, &going, "application/json", Bytes::new()).await?;
    Ok(hub)
}

/// (group, version, plural)
fn served(kind: &str) -> (&'static str, &'static str, &'static str) {
    match kind {
        "Namespace" => ("", "v1", "namespaces"),
        "ConfigMap" => ("", "v1", "configmaps"),
        "Secret" => ("", "v1", "secrets"),
        "ServiceAccount" => ("", "v1", "serviceaccounts"),
        "Deployment" => ("apps", "v1", "deployments"),
        "NetworkPolicy" => ("networking.k8s.io", "v1", "networkpolicies"),
        "Role" => ("rbac.authorization.k8s.io", "v1", "roles"),
        "Lease" => ("coordination.k8s.io", "v1", "leases"),
        "ManagedCluster" => ("cluster.open-cluster-management.io", "v1", "managedclusters"),
        "Policy" => ("policy.open-cluster-management.io", "v1", "policies"),
        kind => panic!("the table has no kind {kind}"),
    }
}

fn key(kind: &str, place: &str) -> Result<ObjectKey> {
    let (group, _, plural) = served(kind);
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    Ok(ObjectKey::new(group, plural, namespace, name)?)
}

async fn create(api: &Api, kind: &str, place: &str, words: &str) -> Result<()> {
    let (key, (group, version, _)) = (key(kind, place)?, served(kind));
    let api_version = if group.is_empty() { version.into() } else { format!("{group}/{version}") };
    let mut body = json!({"apiVersion": api_version, "kind": kind});
    let mut labels = json!({});
    for (label, value) in words.split_whitespace().filter_map(|word| word.split_once('=')) {
        if label == "type" { body["type"] = value.into() } else { labels[label] = value.into() }
    }
    body["metadata"] = json!({
        "name": key.name(), "labels": labels,
        "annotations": {"kubernetes.io/service-account.name": "default"},
    });
    match kind {
        "NetworkPolicy" => body["spec"] = json!({"podSelector": {}}),
        "Deployment" => {
            let (labels, containers) =
                (json!({"app": "web"}), json!([{"name": "c", "image": "i"}]));
            body["spec"] = json!({
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            });
        }
        _ => {}
    }
    api.post(&key.collection_path(version), &body).await?;
    Ok(())
}

fn done(output: &Output) -> Result<&str> {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    Ok(std::str::from_utf8(&output.stdout)?)
}

fn said(value: &Value) -> Result<Said> {
    let set = serde_json::from_value(value["set"].clone())?;
    Ok((set, value["rule"].as_str().ok_or("no rule")?.to_owned()))
}

/// What the dry run says of each object.
fn dry_run(hub: &Hub, file: &Path) -> Result<BTreeMap<ObjectKey, Said>> {
    let output = cli_on(hub, file, &["backup", "run", "--dry-run", "--objects", "-o", "json"])?;
    let mut all = BTreeMap::new();
    for line in done(&output)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let part = |name: &str| line["object"][name].as_str().unwrap_or_default();
        let (group, resource) = (part("group"), part("resource"));
        let key = ObjectKey::new(group, resource, part("namespace"), part("name"))?;
        assert!(all.insert(key, said(&line)?).is_none(), "it is told once: {line}");
    }
    Ok(all)
}

struct Explained {
    said: Said,
    standby: String,
}

fn explain(hub: &Hub, file: &Path, kind: &str, place: &str) -> Result<Explained> {
    let output = cli_on(hub, file, &["explain", kind, place, "-o", "json"])?;
    let explained: Value = serde_json::from_str(done(&output)?)?;
    assert_eq!(explained["kind"], "Explanation");
    let standby = explained["standby"]["does"].as_str().unwrap_or_default().to_owned();
    Ok(Explained { said: said(&explained)?, standby })
}

/// The dry run's counts are those of its objects.
fn the_counts_agree(hub: &Hub, file: &Path, objects: &BTreeMap<ObjectKey, Said>) -> Result<()> {
    let output = cli_on(hub, file, &["backup", "run", "--dry-run", "-o", "json"])?;
    let summary: Value = serde_json::from_str(done(&output)?)?;
    let mut counted: BTreeMap<(Said, String), u64> = BTreeMap::new();
    for (key, said) in objects {
        *counted.entry((said.clone(), key.group_resource().to_string())).or_default() += 1;
    }
    let items = summary["items"].as_array().ok_or("no items")?.iter().map(|item| {
        let kind: understudy::object::GroupResource = serde_json::from_value(item["kind"].clone())?;
        Ok(((said(item)?, kind.to_string()), item["objects"].as_u64().unwrap_or_default()))
    });
    assert_eq!(items.collect::<Result<BTreeMap<_, _>>>()?, counted);
    let unlisted = summary["unlisted"].as_array().ok_or("no kinds that are not listed")?;
    let leases = unlisted.iter().find(|kind| kind["kind"]["resource"] == "leases");
    assert!(leases.is_some_and(|kind| kind["rule"].as_str().is_some_and(|r| r.contains("leases"))));
    Ok(())
}

fn refused(output: &Output, code: i32, told: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    for text in told {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
}

/// No daemon, no storage, not even a key: these commands ask the hub alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_explained_is_refused_with_what_would_work() -> Result<()> {
    let hub = &pair::Pair::shared().await?.primary;
    let folder = tempfile::tempdir()?;
    let config = Config::new("eu-1", "primary", &folder.path().join("no-key"))?
        .with_directory(&folder.path().join("nowhere"))
        .with("passive.allowKinds", json!(["role.rbac.authorization.k8s.io"]))
        .with(
            "sets.resources.include",
            json!([{"kind": "Polcy"}, {"group": "", "name": "nobody-has-it"}]),
        );
    let file = config.write(&folder.path().join("hub.yaml"))?;
    let api = hub.api()?;
    for namespace in ["explain-a", "explain-b"] {
        create(&api, "Namespace", namespace, "").await?;
        create(&api, "ConfigMap", &format!("{namespace}/explained"), "").await?;
    }
    create(&api, "Secret", "explain-a/explained-once", "").await?;
    let ask = |args: &[&str]| cli_on(hub, &file, &[&["explain"], args].concat());

    let shown = ask(&["secret", "explained-once"])?;
    assert!(
        done(&shown)?.starts_with("secrets explain-a/explained-once\n\nset      not captured\n")
    );
    let command = |namespace: &str| format!("understudy explain configmaps {namespace}/explained");
    let both = [command("explain-a"), command("explain-b")];
    refused(&ask(&["configmap", "explained"])?, 2, &both.each_ref().map(String::as_str));
    refused(
        &ask(&["Event", "x/y"])?,
        2,
        &["explain events x/y", "explain events.events.k8s.io x/y"],
    );
    refused(&ask(&["events", "explain-a/y"])?, 1, &["kubectl get events -n explain-a"]);
    refused(&ask(&["secret", "nobody-has-it"])?, 1, &["kubectl get secrets -A"]);
    refused(
        &ask(&["managedcluster", "ns/c1"])?,
        2,
        &["explain managedclusters.cluster.open-cluster-management.io c1"],
    );
    refused(&ask(&["polices", "x/y"])?, 1, &["no kind polices", "did you mean policies?"]);

    let plain = folder.path().join("kubeconfig");
    hub.write_kubeconfig(&plain, PLAIN_TOKEN)?;
    let file_name = file.to_str().ok_or("the path is not UTF-8")?;
    let plain = plain.to_str().ok_or("the path is not UTF-8")?;
    for verb in [&["explain", "secret", "a/b"][..], &["backup", "run", "--dry-run"]] {
        let args = [verb, &["-c", file_name, "--kubeconfig", plain]].concat();
        refused(&crate::harness::daemon::cli(&args)?, 14, &["403", "read access"]);
    }

    let checked = cli_on(hub, &file, &["config", "check", "--hub", "-o", "json"])?;
    let checked: Value = serde_json::from_str(done(&checked)?)?;
    let warnings = json!([
        {"key": "sets.resources.include[0]", "what": "this hub serves no kind Polcy", "hint": "did you mean Policy?"},
        {"key": "sets.resources.include[1]", "what": "matches no object of this hub", "hint": ""},
        {"key": "passive.allowKinds[0]", "what": "this hub serves no kind role.rbac.authorization.k8s.io",
            "hint": "did you mean roles.rbac.authorization.k8s.io?"},
    ]);
    assert_eq!(checked["warnings"], warnings);
    let alone = cli_on(hub, &file, &["config", "check"])?;
    assert_eq!(done(&alone)?, "ok: hub eu-1 of the pair test\n");
    Ok(())
}
