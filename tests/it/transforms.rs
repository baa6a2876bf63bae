//! What would act on a passive hub stands there inert, and is woken under an own term: by one patch an
//! object, and after everything else is there. An admission policy of the passive hub is the witness:
//! it would deny the daemon any write of an object that is awake.

use crate::harness::bare::Api;
use crate::harness::compare::{Place, compare, snapshot};
use crate::harness::daemon::{Daemon, cli};
use crate::harness::hub::{AuditEvent, DAEMON_TOKEN, Hub};
use crate::harness::{Result, eventually, kinds, status};
use crate::scene::{
    DEADLINE, SECOND, Scene, in_sync, journal, restore_writes, until_role, until_silent,
};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use understudy::object::Kind;

const JOBS: &str = "/apis/batch/v1/namespaces/team/cronjobs";
const ENGINES: &str = "/apis/acts.example/v1/namespaces/team/engines";
const FLEETS: &str = "/apis/acts.example/v1/namespaces/team/fleets";
const MARKER: &str = "understudy.dev/inert";
const PAUSED: &str = "acts.example/paused";

fn engines() -> Kind {
    kind("acts.example", "Engine", "engines")
}

fn kind(group: &str, kind: &str, resource: &str) -> Kind {
    Kind {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        resource: resource.to_owned(),
        namespaced: true,
        categories: vec![],
    }
}

fn all() -> [Kind; 3] {
    [kind("batch", "CronJob", "cronjobs"), engines(), kind("acts.example", "Fleet", "fleets")]
}

/// Jobs and engines, which act, and a fleet, which is held back and owns an engine.
async fn set(engines: usize) -> Result<Scene> {
    let mut scene = Scene::set(0).await?;
    let sets = json!({
        "activation": {"include": [{"kind": "Fleet"}]},
        "resources": {"include": [{"group": "batch"}, {"group": "acts.example"}]},
    });
    let rules = json!([
        {"group": "batch", "kind": "CronJob", "patch": {"spec": {"suspend": true}}},
        {"kind": "Engine", "patch": {
            "metadata": {"annotations": {PAUSED: "true"}}, "spec": {"paused": true, "fuel": null},
        }},
    ]);
    for config in [&mut scene.first, &mut scene.second] {
        config.set("sets", sets.clone());
        config.set("passive.transforms", rules.clone());
        config.set("passive.fullCheck", json!("1s"));
        config.set("passive.syncInterval", json!("1s"));
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    for hub in [&scene.pair.primary, &scene.pair.passive] {
        kinds::define(&hub.api()?, &all()[1..]).await?;
        // The second hub has it for the witness.
        hub.api()?.post("/api/v1/namespaces", &namespace).await?;
    }
    let api = scene.pair.primary.api()?;
    for (name, suspended) in [("nightly", false), ("asleep", true), ("stuck", false)] {
        api.post(JOBS, &job(name, suspended)).await?;
    }
    let fleet = json!({
        "apiVersion": "acts.example/v1", "kind": "Fleet", "metadata": {"name": "home"},
    });
    let fleet = api.post(FLEETS, &fleet).await?;
    for number in 0..engines {
        let owner = (number == 0).then_some(&fleet["metadata"]["uid"]);
        api.post(ENGINES, &engine(number, owner)).await?;
    }
    Ok(scene)
}

fn job(name: &str, suspended: bool) -> Value {
    let container = json!({"name": "a", "image": "a"});
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {
            "schedule": "@daily", "suspend": suspended,
            "jobTemplate": {"spec": {"template": pod}},
        },
    })
}

fn engine(number: usize, owner: Option<&Value>) -> Value {
    let owners = owner.map(|uid| {
        json!([{"apiVersion": "acts.example/v1", "kind": "Fleet", "name": "home", "uid": uid}])
    });
    json!({
        "apiVersion": "acts.example/v1", "kind": "Engine",
        "metadata": {
            "name": format!("engine-{number:03}"), "finalizers": ["acts.example/park"],
            // So large that a patch is worth it.
            "ownerReferences": owners, "annotations": {"acts.example/model": "T".repeat(500)},
        },
        "spec": {"fuel": {"litres": 40, "kinds": ["diesel"]}, "speed": 1.5},
    })
}

/// From when this returns, the daemon's writes of `name` (`*`: all) are denied where they are awake.
async fn deny_awake(hub: &Hub, name: &str) -> Result<String> {
    let policy = if name == "*" { "all" } else { name };
    let inert = "object.kind == 'CronJob' ? object.spec.?suspend.orValue(false) \
                 : object.spec.?paused.orValue(false)";
    let named =
        if name == "*" { "false".to_owned() } else { format!("object.metadata.name != '{name}'") };
    let expression = format!("request.userInfo.username != 'understudy' || {named} || ({inert})");
    let group = "/apis/admissionregistration.k8s.io/v1";
    let api = hub.api()?;
    let body = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": policy}, "spec": spec,
        })
    };
    let rule = json!({
        "apiGroups": ["batch", "acts.example"], "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"], "resources": ["cronjobs", "engines"],
    });
    let spec = json!({
        "matchConstraints": {"resourceRules": [rule]}, "failurePolicy": "Fail",
        "validations": [{"expression": expression, "message": "it is awake"}],
    });
    let policies = format!("{group}/validatingadmissionpolicies");
    api.post(&policies, &body("ValidatingAdmissionPolicy", spec)).await?;
    let spec = json!({"policyName": policy, "validationActions": ["Deny"]});
    let bindings = format!("{group}/validatingadmissionpolicybindings");
    api.post(&bindings, &body("ValidatingAdmissionPolicyBinding", spec)).await?;
    let probed = if name == "*" { "probe" } else { name };
    until_denied(hub, probed, true).await?;
    Ok(format!("{bindings}/{policy}"))
}

async fn allow(hub: &Hub, binding: &str, probed: &str) -> Result<()> {
    hub.api()?.delete(binding).await?;
    until_denied(hub, probed, false).await
}

/// The daemon's own user is asked, without a change.
async fn until_denied(hub: &Hub, name: &str, denied: bool) -> Result<()> {
    let (api, body) = (hub.api_as(DAEMON_TOKEN)?, Bytes::from(job(name, false).to_string()));
    let path = format!("{JOBS}?dryRun=All");
    eventually(DEADLINE, "the witness to be heard", async || {
        let answer = api.send(Method::POST, &path, "application/json", body.clone()).await.ok()?;
        (String::from_utf8_lossy(&answer.1).contains("it is awake") == denied).then_some(())
    })
    .await
}

fn marker(object: &Value) -> Option<Value> {
    serde_json::from_str(object["metadata"]["annotations"][MARKER].as_str()?).ok()
}

/// Writes of the daemon by object, in the order in which they came.
fn writes(hub: &Hub, resource: &str, skip: usize) -> Result<BTreeMap<String, Vec<String>>> {
    let mut writes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let events = hub.audit_writes(AuditEvent::is_restore_write)?;
    for event in events.into_iter().skip(skip).filter(|event| event.resource == resource) {
        writes.entry(event.name).or_default().push(format!("{} {}", event.verb, event.code));
    }
    Ok(writes)
}

/// Neither annotations nor anything else tells that they ever slept.
async fn awake_as_on_the_first(scene: &Scene) -> Result<Vec<String>> {
    let second = scene.pair.passive.api()?;
    let marked = snapshot(&second, &all()).await?.into_iter();
    let marked = marked.filter(|(_, object)| marker(object).is_some()).map(|(key, _)| key);
    let mut wrong: Vec<String> = marked.map(|key| format!("{key} is marked")).collect();
    let first = snapshot(&scene.pair.primary.api()?, &all()).await?;
    let second = snapshot(&second, &all()).await?;
    let differences = compare(&first, &second, |_| Place::Both);
    wrong.extend(differences.iter().map(ToString::to_string));
    Ok(wrong)
}

fn understudy(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let (config, kubeconfig) = (scene.second_file()?, &scene.pair.passive.kubeconfig);
    let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("the path is not UTF-8");
    let (config, kubeconfig) = (path(&config)?, path(kubeconfig)?);
    let output = cli(&[arguments, &["-c", &config, "--kubeconfig", &kubeconfig]].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{arguments:?}: {}: {error}{text}", output.status).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_acts_stands_inert_and_wakes_with_the_term() -> Result<()> {
    let scene = set(3).await?;
    let hub = &scene.pair.passive;
    let binding = deny_awake(hub, "*").await?;
    let (mut first, mut second) = scene.running().await?;
    let api = hub.api()?;
    stands_inert(&api).await?;
    let diff = understudy(&scene, &["backup", "diff", "latest", "-n", "team"])?;
    assert!(diff.contains("home"), "what is held back is not there: {diff}");
    let frightening = ["nightly", "spec", "annotations", "finalizers"];
    assert!(!frightening.iter().any(|word| diff.contains(word)), "{diff}");

    drift_is_corrected(&api).await?;
    changes_follow_inert(&scene, &mut first, &mut second).await?;
    let before = restore_writes(hub)?;
    second.kill9();
    let mut second = scene.start_second().await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    assert_eq!(restore_writes(hub)?, before, "what is inert is known again");
    let denied = hub.audit_writes(|event| event.is_restore_write() && event.code >= 400)?;
    assert!(denied.is_empty(), "nothing was ever written awake: {denied:?}");

    first.kill9();
    until_silent(&mut second).await?;
    let stuck = deny_awake(hub, "stuck").await?;
    allow(hub, &binding, "probe").await?;
    let before = restore_writes(hub)?;
    second.signal("USR1")?;
    until_role(&mut second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then_some(());
    second.until(DEADLINE, "the first own backup", own).await?;
    woke(&scene, before).await?;
    what_did_not_wake_is_stored_awake(&scene).await?;

    allow(hub, &stuck, "stuck").await?;
    let by_hand = ["restore", "run", "--backup", "latest", "--include", "CronJob", "-n", "team"];
    understudy(
        &scene,
        &[&by_hand[..], &["--name", "stuck", "--existing", "update", "--yes"]].concat(),
    )?;
    assert_eq!(awake_as_on_the_first(&scene).await?, Vec::<String>::new());
    Ok(())
}

async fn stands_inert(api: &Api) -> Result<()> {
    for (name, reverse) in [("nightly", json!({"spec": {"suspend": false}})), ("asleep", json!({}))]
    {
        let job = api.get_json(&format!("{JOBS}/{name}")).await?;
        assert_eq!((&job["spec"]["suspend"], marker(&job)), (&json!(true), Some(reverse)), "{job}");
    }
    let engine = api.get_json(&format!("{ENGINES}/engine-000")).await?;
    assert_eq!(engine["spec"], json!({"paused": true, "speed": 1.5}));
    let metadata = &engine["metadata"];
    assert_eq!(metadata["annotations"][PAUSED], "true");
    assert_eq!(
        (&metadata["finalizers"], &metadata["ownerReferences"]),
        (&Value::Null, &Value::Null)
    );
    let reverse = json!({
        "metadata": {"annotations": {PAUSED: null}, "finalizers": ["acts.example/park"]},
        "spec": {"fuel": {"litres": 40, "kinds": ["diesel"]}, "paused": null},
    });
    assert_eq!(marker(&engine), Some(reverse));
    assert_eq!(api.find(&format!("{FLEETS}/home")).await?, None, "it is held back");
    Ok(())
}

/// Somebody wakes an object by hand, and somebody takes its marker away.
async fn drift_is_corrected(api: &Api) -> Result<()> {
    let nightly = format!("{JOBS}/nightly");
    for change in
        [json!({"spec": {"suspend": false}}), json!({"metadata": {"annotations": {MARKER: null}}})]
    {
        api.merge_patch(&nightly, &change).await?;
        eventually(DEADLINE, "it to be inert again", async || {
            let job = api.get_json(&nightly).await.ok()?;
            let inert = job["spec"]["suspend"] == true
                && marker(&job) == Some(json!({"spec": {"suspend": false}}));
            inert.then_some(())
        })
        .await?;
    }
    Ok(())
}

/// A change, and a deletion that no finalizer holds up.
async fn changes_follow_inert(
    scene: &Scene,
    first: &mut Daemon,
    second: &mut Daemon,
) -> Result<()> {
    let (source, target) = (scene.pair.primary.api()?, scene.pair.passive.api()?);
    let engine = format!("{ENGINES}/engine-001");
    source.merge_patch(&engine, &json!({"spec": {"speed": 2.5, "fuel": {"litres": 50}}})).await?;
    let gone = format!("{ENGINES}/engine-002");
    source.delete(&gone).await?;
    source.merge_patch(&gone, &json!({"metadata": {"finalizers": null}})).await?;
    let before = restore_writes(&scene.pair.passive)?;
    let backup = scene.backup(first).await?;
    let held = |seen: &Value| (status::restored(seen) == Some(&*backup)).then_some(());
    second.until(DEADLINE, "the standby to hold the change", held).await?;
    let changed = target.get_json(&engine).await?;
    assert_eq!(changed["spec"], json!({"paused": true, "speed": 2.5}));
    let fuel = json!({"litres": 50, "kinds": ["diesel"]});
    assert_eq!(marker(&changed).map(|marker| marker["spec"]["fuel"].clone()), Some(fuel));
    assert_eq!(target.find(&gone).await?, None);
    let expected = [("engine-001", "patch 200"), ("engine-002", "delete 200")];
    let expected = expected.map(|(name, write)| (name.to_owned(), vec![write.to_owned()]));
    assert_eq!(writes(&scene.pair.passive, "engines", before)?, BTreeMap::from(expected));
    Ok(())
}

/// Each by one patch, the owner of one came before, and nothing was created that was there.
async fn woke(scene: &Scene, before: usize) -> Result<()> {
    let hub = &scene.pair.passive;
    let jobs = writes(hub, "cronjobs", before)?;
    let patched = vec!["patch 200".to_owned()];
    assert_eq!((&jobs["nightly"], &jobs["asleep"]), (&patched, &patched), "{jobs:?}");
    let engines = writes(hub, "engines", before)?;
    assert_eq!(engines["engine-001"], patched, "{engines:?}");
    assert!(!engines["engine-000"].iter().any(|write| write.starts_with("create")), "{engines:?}");
    let events = hub.audit_writes(AuditEvent::is_restore_write)?;
    let names: Vec<_> = events.iter().skip(before).map(|event| event.resource.as_str()).collect();
    let fleet = names.iter().position(|name| *name == "fleets");
    let woken = names.iter().position(|name| ["cronjobs", "engines"].contains(name));
    assert!(fleet < woken, "what was held back comes first: {names:?}");
    let stuck = [
        "cronjobs.batch team/stuck is marked",
        "cronjobs.batch team/stuck differs in /spec/suspend",
    ];
    assert_eq!(awake_as_on_the_first(scene).await?, stuck);
    Ok(())
}

async fn what_did_not_wake_is_stored_awake(scene: &Scene) -> Result<()> {
    let records = journal(&scene.repository)?;
    let activated = records.iter().find(|record| record.kind == "Activated" && record.epoch == 2);
    let failed = activated.ok_or("it is not activated")?.body["failed"].to_string();
    assert!(failed.contains("team/stuck") && failed.contains("it is awake"), "{failed}");
    let api = scene.pair.passive.api()?;
    let stuck = api.get_json(&format!("{JOBS}/stuck")).await?;
    assert_eq!((&stuck["spec"]["suspend"], marker(&stuck).is_some()), (&json!(true), true));
    for (name, suspended) in [("stuck", false), ("nightly", false), ("asleep", true)] {
        let place = format!("team/{name}");
        let stored =
            understudy(scene, &["backup", "get", "latest", "CronJob", &place, "-o", "json"])?;
        let stored: Value = serde_json::from_str(&stored)?;
        assert_eq!(stored["spec"]["suspend"], suspended, "{stored}");
        assert!(!stored.to_string().contains("understudy.dev"), "{stored}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_objects_wake_is_made_good() -> Result<()> {
    const MANY: usize = 150;
    let mut scene = set(MANY).await?;
    // One after another, so that the kill comes in between.
    scene.second.set("kubernetes.maxInFlight", json!(1));
    let (mut first, mut second) = scene.running().await?;
    first.kill9();
    until_silent(&mut second).await?;
    let (hub, before) = (&scene.pair.passive, restore_writes(&scene.pair.passive)?);
    second.signal("USR1")?;
    eventually(DEADLINE, "some to be awake", async || {
        (writes(hub, "engines", before).ok()?.len() > 5).then_some(())
    })
    .await?;
    second.kill9();
    let (api, engines) = (hub.api()?, [engines()]);
    let asleep = snapshot(&api, &engines).await?;
    let asleep: Vec<_> = asleep.into_iter().filter(|(_, o)| marker(o).is_some()).collect();
    assert!(!asleep.is_empty() && asleep.len() < MANY, "killed too late or too early");

    let mut second = scene.start_second().await?;
    until_role(&mut second, "primary").await?;
    let own = |seen: &Value| (seen["newest"]["hub"] == SECOND).then_some(());
    second.until(DEADLINE, "the first own backup", own).await?;
    assert_eq!(awake_as_on_the_first(&scene).await?, Vec::<String>::new());
    let mut woken = writes(hub, "engines", before)?;
    // It is linked to its owner, which no patch does; and the one in flight may have been sent twice.
    woken.remove("engine-000");
    let twice: Vec<_> = woken.iter().filter(|(_, writes)| writes.len() > 1).collect();
    assert!(twice.len() <= 1, "what was awake is left alone: {twice:?}");
    assert_eq!(woken.len(), MANY - 1);

    // A primary makes nothing inert.
    let after = restore_writes(hub)?;
    second.kill9();
    let mut second = scene.start_second().await?;
    until_role(&mut second, "primary").await?;
    assert_eq!(status::epoch(&second.status().await?), 2);
    assert_eq!(restore_writes(hub)?, after);
    Ok(())
}
