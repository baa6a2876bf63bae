//! What changes on the primary reaches the passive hub, and nothing else there is touched.

use crate::canary;
use crate::harness::bare::Api;
use crate::harness::compare::{Place, compare, snapshot};
use crate::harness::daemon::Daemon;
use crate::harness::{Result, fleet, kinds};
use crate::scene::until_role;
use crate::stage::{self, CONNECTIONS, Stage};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use understudy::object::{Digest, ObjectKey, Set};

const CLUSTERS: usize = 8;
const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const TYPE_LABEL: &str = "cluster.open-cluster-management.io/type";
/// Of all packs of one backup in which seven objects changed.
const SMALL: usize = 16 * 1024;
/// Bytes: more than the credentials of all clusters.
const LARGE: u32 = 256 * 1024;

const SITE_0: &str = "/api/v1/namespaces/cluster-0000/configmaps/site";
const SITE_1: &str = "/api/v1/namespaces/cluster-0001/configmaps/site";
const LOGIN_1: &str = "/api/v1/namespaces/cluster-0001/secrets/console-login";
const SIGNING: &str = "/api/v1/namespaces/policies/secrets/signing-key";
const MOVES_IN: &str = "/api/v1/namespaces/cluster-0002/configmaps/moves-in";
const MOVES_OUT: &str =
    "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/policies/placements/moves-out";
const POLICY: &str =
    "/apis/policy.open-cluster-management.io/v1/namespaces/policies/policies/limit-ranges";

#[tokio::test]
async fn delta_reaches_the_passive() -> Result<()> {
    let stage = Stage::set("delta", |config| config).await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let mut items = fleet::demo(CLUSTERS, 7);
    items.extend(canary::items());
    fleet::populate(&source, &items, CONNECTIONS).await?;
    add_movers(&source).await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    assert!(target.find(MOVES_IN).await?.is_none(), "what is held back is not there");
    assert!(target.find(MOVES_OUT).await?.is_some());
    let first = stage.restore_writes(0)?.len();
    let before = stage.repository.stored().await?;
    let left = target.get_json(LOGIN_1).await?;

    change(&source).await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await?;

    let expected = [
        "create configmaps cluster-0002/moves-in",
        "create secrets policies/signing-key",
        "delete configmaps cluster-0000/site",
        "delete placements policies/moves-out",
        "patch configmaps cluster-0001/site",
        "patch policies policies/limit-ranges",
        "patch secrets cluster-0001/console-login",
    ];
    assert_eq!(stage.restore_writes(first)?, expected, "one write an object that changed");
    assert!(target.find(SITE_0).await?.is_none(), "a deleted object disappears");
    let site = target.get_json(SITE_1).await?;
    assert_eq!(site["data"], json!({"site": "rack 1"}), "a dropped field disappears");
    let deselected = target.get_json(LOGIN_1).await?;
    assert_eq!(deselected["metadata"]["uid"], left["metadata"]["uid"], "it stays");
    assert_eq!(deselected["data"], left["data"]);
    assert!(!deselected.to_string().contains("understudy.dev/pair"), "it is not ours any more");
    assert!(!deselected.to_string().contains("understudy.dev/digest"));

    let places = places(&items)?;
    let kinds = kinds::all();
    let (first_hub, second_hub) =
        tokio::try_join!(snapshot(&source, &kinds), snapshot(&target, &kinds))?;
    let place = |key: &ObjectKey| places.get(key).copied().unwrap_or(Place::Anywhere);
    assert_eq!(compare(&first_hub, &second_hub, place), []);

    let after = stage.repository.stored().await?;
    let new: Vec<_> =
        stage::packs(&after).into_iter().filter(|(name, _)| !before.contains_key(*name)).collect();
    let bytes: usize = new.iter().map(|(_, bytes)| bytes).sum();
    assert!(!new.is_empty() && bytes < SMALL, "{bytes} bytes in {new:?}");

    // What was given up is nobody's business any more, whatever becomes of it on the primary.
    source.delete(LOGIN_1).await?;
    let backup = stage.backup(&primary).await?;
    stage.synced(&mut passive, &backup).await?;
    assert!(target.find(LOGIN_1).await?.is_some());
    deselected_while_the_standby_was_away(&stage, primary, passive).await?;
    stage.passive_did_what_it_may(&items)
}

/// While the standby is away an object is given up, and what told of it becomes part of a new base:
/// merged first, then once more by a daemon that knows only what stands in the backup. The standby
/// does not take the object for deleted.
async fn deselected_while_the_standby_was_away(
    stage: &Stage,
    mut primary: Daemon,
    mut passive: Daemon,
) -> Result<()> {
    passive.kill9();
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let login = "/api/v1/namespaces/cluster-0003/secrets/console-login";
    let before = target.get_json(login).await?;
    assert!(before.to_string().contains("understudy.dev/pair"));
    let away = json!({"metadata": {"labels": {TYPE_LABEL: null}}});
    source.merge_patch(login, &away).await?;
    stage.backup(&primary).await?;
    assert!(credentials_levels(stage).await? > 1, "the set has no new base yet");

    source.post(collection(SIGNING), &noise("large", LARGE)).await?;
    stage.backup(&primary).await?;
    assert_eq!(credentials_levels(stage).await?, 1, "the levels became a base");
    primary.kill9();
    primary = stage.start_primary().await?;
    until_role(&mut primary, "primary").await?;
    source.post(collection(SIGNING), &noise("larger", 2 * LARGE)).await?;
    stage.backup(&primary).await?;
    assert_eq!(credentials_levels(stage).await?, 1, "and once more");

    let passive = stage.start_passive().await?;
    let left = target.get_json(login).await?;
    assert_eq!(left["metadata"]["uid"], before["metadata"]["uid"], "it stays");
    assert!(!left.to_string().contains("understudy.dev/pair"), "it is not ours any more");
    stage.canary_is_seen_nowhere(&[&primary, &passive]).await
}

/// A secret of so many bytes that do not compress.
fn noise(name: &str, bytes: u32) -> Value {
    let noise = (0..bytes / 32).flat_map(|n: u32| Digest::of(&n.to_le_bytes()).0).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "labels": {BACKUP_LABEL: ""}},
        "data": {"noise": ByteString(noise)},
    })
}

async fn credentials_levels(stage: &Stage) -> Result<usize> {
    let (mut journal, _) = stage.repository.open(&stage.primary_config).await?;
    let newest = journal.refresh().await?.newest.clone().ok_or("there is no backup")?;
    Ok(newest.commit.sets[&Set::Credentials].levels.len())
}

/// One object for each direction between what a passive hub holds and what is held back.
async fn add_movers(api: &Api) -> Result<()> {
    let held_back = json!({BACKUP_LABEL: "cluster-activation"});
    let metadata = json!({"name": "moves-in", "labels": held_back});
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    api.post(collection(MOVES_IN), &body).await?;
    let body = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1beta1", "kind": "Placement",
        "metadata": {"name": "moves-out"}, "spec": {"clusterSets": ["edge"]},
    });
    api.post(collection(MOVES_OUT), &body).await?;
    Ok(())
}

fn collection(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(collection, _)| collection)
}

async fn change(api: &Api) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "signing-key", "labels": {BACKUP_LABEL: ""}},
        "stringData": {"key": "not a real one"},
    });
    api.post(collection(SIGNING), &secret).await?;
    api.merge_patch(POLICY, &json!({"spec": {"remediationAction": "enforce"}})).await?;
    api.merge_patch(SITE_1, &json!({"data": {"contact": null}})).await?;
    api.delete(SITE_0).await?;
    let labels = |name: &str, value: Value| json!({"metadata": {"labels": {name: value}}});
    api.merge_patch(LOGIN_1, &labels(TYPE_LABEL, Value::Null)).await?;
    api.merge_patch(MOVES_IN, &labels(BACKUP_LABEL, "".into())).await?;
    api.merge_patch(MOVES_OUT, &labels(BACKUP_LABEL, "cluster-activation".into())).await?;
    Ok(())
}

/// Where each object has to be after the change.
fn places(items: &[fleet::Item]) -> Result<BTreeMap<ObjectKey, Place>> {
    let mut places = fleet::places_of_standby(items);
    let placements = ("cluster.open-cluster-management.io", "placements");
    for ((group, resource), namespace, name, place) in [
        (("", "configmaps"), "cluster-0000", "site", None),
        (("", "secrets"), "policies", "signing-key", Some(Place::Both)),
        (("", "configmaps"), "cluster-0002", "moves-in", Some(Place::Both)),
        (placements, "policies", "moves-out", Some(Place::FirstOnly)),
        // There, but no longer as on the primary.
        (("", "secrets"), "cluster-0001", "console-login", None),
    ] {
        let key = ObjectKey::new(group, resource, namespace, name)?;
        match place {
            Some(place) => places.insert(key, place),
            None => places.remove(&key),
        };
    }
    Ok(places)
}
