//! What a passive hub would refuse of the activation set is known before any promotion (F46, F47): it
//! is tried there with a dry run, and none of it is written.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::{AuditEvent, DAEMON_USER};
use crate::harness::{Result, eventually, kinds, status};
use crate::scene::{
    DEADLINE, SECOND, SOON, Scene, until_condition, until_metric, until_role, until_silent,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use understudy::object::{ObjectKey, Set};
use understudy::status::REHEARSED;

const CLUSTERS: &str = "managedclusters.cluster.open-cluster-management.io";
const WORKS: &str = "manifestworks.work.open-cluster-management.io";
const DENIED: &str = "cluster-0001";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const FAILED: &str = "understudy_rehearsal_failed_objects";
const SUCCESS: &str = "understudy_rehearsal_last_success_timestamp_seconds";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_promotion_would_be_refused_is_told_before_it() -> Result<()> {
    let scene = Scene::set(2).await?;
    deny(&scene, true).await?;
    let (mut first, mut second) = scene.running().await?;

    denied_is_told(&scene, &mut second).await?;
    deny(&scene, false).await?;
    let clean = |seen: &Value| (check(seen)?["ok"] == true).then_some(());
    second.until(DEADLINE, "a clean rehearsal", clean).await?;
    until_metric(&second, FAILED, 0.0).await?;
    let success = crate::scene::metric(&second, SUCCESS).await?;
    assert!(success.is_some_and(|at| at > 0.0), "{success:?}");

    only_dry_runs_of_the_activation_set(&scene)?;
    only_what_changed_is_tried(&scene, &mut first, &mut second).await?;
    a_kind_that_is_not_served_is_told(&scene, &mut first, &mut second).await?;

    // In a disaster it keeps nobody from promoting.
    first.kill9();
    until_silent(&mut second).await?;
    assert!(scene.writes_to(&scene.pair.passive, Set::Activation)?.is_empty());
    second.promote(DEADLINE).await?;
    until_role(&mut second, "primary").await?;
    let written = scene.writes_to(&scene.pair.passive, Set::Activation)?;
    assert!(written.iter().any(|event| event.name == DENIED), "{written:?}");
    Ok(())
}

async fn denied_is_told(scene: &Scene, second: &mut Daemon) -> Result<()> {
    // The checklist follows the facts a turn later.
    let tried = |seen: &Value| {
        let why = check(seen)?["why"].as_str()?;
        why.contains(DENIED).then(|| seen.clone())
    };
    let seen = second.until(DEADLINE, "a rehearsal that failed", tried).await?;
    let facts = rehearsal(&seen);
    assert_eq!(facts["failed"], json!({CLUSTERS: 1}), "{facts}");
    assert_eq!(facts["named"].as_array().map(Vec::len), Some(1), "{facts}");
    let named = facts["named"][0].as_str().unwrap_or_default();
    assert!(named.contains(DENIED) && named.contains("not on this hub"), "{named}");
    assert!(facts["lastSuccessAt"].is_null() && facts["lastError"].is_null(), "{facts}");
    assert_eq!(facts["tried"], scene.keys_of(Set::Activation).len(), "all of it: {facts}");

    assert_eq!(check(&seen).ok_or("no check")?["ok"], false);
    until_metric(second, FAILED, 1.0).await?;
    until_metric(second, SUCCESS, 0.0).await?;
    // A warning: it makes the standby neither unready nor unfit for a promotion.
    until_metric(second, "understudy_standby_ready", 1.0).await?;
    until_condition(&scene.pair.passive, SECOND, "Promotable", "True", "Promotable").await?;
    let file = scene.second_file()?;
    eventually(SOON, "`understudy status` to tell it", async || {
        let output = cli_on(&scene.pair.passive, &file, &["status"]).ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        (text.contains("RehearsalFailed") && text.contains(DENIED)).then_some(())
    })
    .await?;
    let (_, page) = second.http_get("/").await?;
    assert!(page.contains(REHEARSED) && page.contains(DENIED), "{page}");
    Ok(())
}

fn only_dry_runs_of_the_activation_set(scene: &Scene) -> Result<()> {
    assert_eq!(scene.writes_to(&scene.pair.passive, Set::Activation)?.len(), 0);
    let tried: BTreeSet<ObjectKey> = rehearsed(scene)?.iter().map(key_of).collect::<Result<_>>()?;
    assert_eq!(tried.iter().collect::<BTreeSet<_>>(), scene.keys_of(Set::Activation));
    for key in scene.keys_of(Set::Activation) {
        let sent =
            rehearsed(scene)?.iter().filter(|event| key_of(event).is_ok_and(|k| k == *key)).count();
        assert!(sent == 1 || key.name() == DENIED, "{key} was tried {sent} times");
    }
    Ok(())
}

async fn only_what_changed_is_tried(
    scene: &Scene,
    first: &mut Daemon,
    second: &mut Daemon,
) -> Result<()> {
    let before = rehearsed(scene)?.len();
    let backup = scene.backup(first).await?;
    until_rehearsed(second, &backup).await?;
    assert_eq!(rehearsed(scene)?.len(), before, "nothing changed");

    let path = format!("{}/{DENIED}", kinds::named("ManagedCluster").list_path());
    let change = json!({"spec": {"leaseDurationSeconds": 90}});
    scene.pair.primary.api()?.merge_patch(&path, &change).await?;
    let backup = scene.backup(first).await?;
    until_rehearsed(second, &backup).await?;
    let sent = rehearsed(scene)?.split_off(before);
    let names: Vec<_> = sent.iter().map(|event| (&*event.resource, &*event.name)).collect();
    assert_eq!(names, [("managedclusters", DENIED)]);
    Ok(())
}

async fn a_kind_that_is_not_served_is_told(
    scene: &Scene,
    first: &mut Daemon,
    second: &mut Daemon,
) -> Result<()> {
    let api = scene.pair.passive.api()?;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    api.delete(&format!("{definitions}/{WORKS}")).await?;
    let path = kinds::named("ManifestWork").list_path();
    eventually(DEADLINE, "the kind to go", async || api.get(&path).await.is_err().then_some(()))
        .await?;
    let backup = scene.backup(first).await?;
    let seen = until_rehearsed(second, &backup).await?;
    let works = scene.keys_of(Set::Activation);
    let works = works.iter().filter(|key| key.resource() == "manifestworks").count();
    assert!(works > 0);
    assert_eq!(rehearsal(&seen)["failed"], json!({WORKS: works}), "{}", rehearsal(&seen));
    let named = &rehearsal(&seen)["named"][0];
    assert!(named.as_str().is_some_and(|named| named.contains("does not serve the kind")));
    Ok(())
}

async fn until_rehearsed(second: &mut Daemon, backup: &str) -> Result<Value> {
    let done = |seen: &Value| {
        let through = status::restored(seen) == Some(backup) && rehearsal(seen)["backup"] == backup;
        through.then(|| seen.clone())
    };
    second.until(DEADLINE, &format!("a rehearsal of {backup}"), done).await
}

fn rehearsal(seen: &Value) -> &Value {
    &seen["sync"]["rehearsal"]
}

fn check(seen: &Value) -> Option<&Value> {
    seen["promotion"]["checklist"].as_array()?.iter().find(|check| check["name"] == REHEARSED)
}

/// Dry runs of the daemon on the passive hub.
fn rehearsed(scene: &Scene) -> Result<Vec<AuditEvent>> {
    scene.pair.passive.audit_writes(|event| event.dry_run && event.user == DAEMON_USER)
}

fn key_of(event: &AuditEvent) -> Result<ObjectKey> {
    let AuditEvent { group, resource, namespace, name, .. } = event;
    Ok(ObjectKey::new(group, resource, namespace, name)?)
}

/// The passive hub refuses a cluster of this name, or does so no more.
async fn deny(scene: &Scene, denied: bool) -> Result<()> {
    let api = scene.pair.passive.api()?;
    if denied {
        let rule = json!({
            "apiGroups": ["cluster.open-cluster-management.io"], "apiVersions": ["*"],
            "operations": ["CREATE"], "resources": ["managedclusters"],
        });
        let expression = format!("object.metadata.name != '{DENIED}'");
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "deny"},
            "spec": {
                "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": expression, "message": "not on this hub"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "deny"},
            "spec": {"policyName": "deny", "validationActions": ["Deny"]},
        });
        api.post(POLICIES, &policy).await?;
        api.post(BINDINGS, &binding).await?;
    } else {
        api.delete(&format!("{BINDINGS}/deny")).await?;
        api.delete(&format!("{POLICIES}/deny")).await?;
    }
    let kind = kinds::named("ManagedCluster");
    let cluster = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": DENIED},
        "spec": {"hubAcceptsClient": true},
    });
    let path = format!("{}?dryRun=All", kind.list_path());
    eventually(SOON, "the policy to be in force, or not", async || {
        (api.post(&path, &cluster).await.is_err() == denied).then_some(())
    })
    .await
}
