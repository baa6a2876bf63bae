//! A drill tries on the passive hub all that a promotion would write there, and changes nothing; what it
//! found outlives the process, and a promotion does not wait for it.

use crate::harness::bare::Api;
use crate::harness::compare::snapshot;
use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::hub::{AuditEvent, DAEMON_USER, Hub};
use crate::harness::{Result, eventually, kinds, status};
use crate::scene::{
    DEADLINE, FIRST, SECOND, SOON, Scene, files, hub_path, in_sync, metric, restore_writes,
    until_condition, until_event, until_role,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokio::net::TcpListener;
use understudy::object::{Kind, ObjectKey, Set};

const JOBS: &str = "/apis/batch/v1/namespaces/team/cronjobs";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const SUCCESS: &str = "understudy_drill_last_success_timestamp_seconds";
const DURATION: &str = "understudy_drill_last_duration_seconds";
const DUE: &str = "understudy_drill_deadline_timestamp_seconds";

/// A job that is inert on the second hub, beside the fleet.
async fn set() -> Result<Scene> {
    let mut scene = Scene::set(2).await?;
    let rules = json!([{"kind": "CronJob", "patch": {"spec": {"suspend": true}}}]);
    for config in [&mut scene.first, &mut scene.second] {
        config.set("sets", json!({"resources": {"include": [{"group": "batch"}]}}));
        config.set("passive.transforms", rules.clone());
    }
    let api = scene.pair.primary.api()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    api.post("/api/v1/namespaces", &namespace).await?;
    api.post(JOBS, &job("nightly")).await?;
    Ok(scene)
}

fn job(name: &str) -> Value {
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]});
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": {"spec": pod}}}},
    })
}

/// What an operator runs: how it ended, what it printed, and what it said.
fn run(hub: &Hub, file: &Path, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = cli_on(hub, file, args)?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

fn on_second(scene: &Scene, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    run(&scene.pair.passive, &scene.second_file()?, args)
}

/// All that stands on the hub, to the resourceVersion.
async fn everything(api: &Api) -> Result<BTreeMap<ObjectKey, Value>> {
    let job = Kind {
        group: "batch".to_owned(),
        version: "v1".to_owned(),
        kind: "CronJob".to_owned(),
        resource: "cronjobs".to_owned(),
        namespaced: true,
        categories: vec![],
    };
    let mut all = snapshot(api, &[kinds::all(), vec![job.clone()]].concat()).await?;
    for kind in kinds::all().into_iter().chain([job]) {
        for object in api.list(&kind).await? {
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
            let (namespace, name) = (text("namespace"), text("name"));
            let key = ObjectKey::new(&kind.group, &kind.resource, namespace, name)?;
            all.insert(key, object["metadata"]["resourceVersion"].clone());
        }
    }
    Ok(all)
}

/// Dry runs of the daemon on the passive hub.
fn tried(scene: &Scene) -> Result<Vec<AuditEvent>> {
    scene.pair.passive.audit_writes(|event| event.dry_run && event.user == DAEMON_USER)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_tries_all_of_a_promotion_and_changes_nothing() -> Result<()> {
    let scene = set().await?;
    let (_first, mut second) = scene.running().await?;
    let hub = &scene.pair.passive;
    let rehearsed = |seen: &Value| {
        let facts = &seen["sync"]["rehearsal"];
        (facts["lastSuccessAt"].is_string() && facts["backup"] == seen["newest"]["id"])
            .then_some(())
    };
    second.until(DEADLINE, "a rehearsal", rehearsed).await?;
    // What wakes is in the rehearsal already.
    let wakes = |event: &AuditEvent| event.resource == "cronjobs" && event.name == "nightly";
    assert!(tried(&scene)?.iter().any(wakes));
    assert_eq!(metric(&second, SUCCESS).await?, Some(0.0), "never");
    assert!(metric(&second, DUE).await? > Some(0.0));

    let (code, _, said) = run(&scene.pair.primary, &scene.first_file()?, &["drill"])?;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("not passive"), "{said}");

    let (before, skip) = (everything(&hub.api()?).await?, tried(&scene)?.len());
    let writes = restore_writes(hub)?;
    let report = scene.repository.with_file_name("drill.json");
    let file = report.to_str().ok_or("the path is no text")?;
    let (code, printed, said) = on_second(&scene, &["drill", "--report", file])?;
    assert_eq!(code, Some(0), "{printed}{said}");
    assert!(printed.contains("would take everything"), "{printed}");
    let (code, _, _) = on_second(&scene, &["drill", "--report", file])?;
    assert_eq!(code, Some(2), "nothing is written over");

    // By the log of the API server, and by what stands there.
    assert_eq!(restore_writes(hub)?, writes);
    assert_eq!(everything(&hub.api()?).await?, before);
    scene.second_did_what_it_may()?;
    let of_drill = tried(&scene)?.split_off(skip);
    assert!(of_drill.iter().any(wakes), "{of_drill:?}");
    let keys = of_drill.iter().filter(|event| !wakes(event)).map(AuditEvent::key);
    let keys: BTreeSet<ObjectKey> = keys.collect::<Result<_>>()?;
    assert_eq!(keys.iter().collect::<BTreeSet<_>>(), scene.keys_of(Set::Activation));

    let written: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    assert_eq!((&written["kind"], &written["outcome"]), (&json!("Drill"), &json!("success")));
    let seen = second.status().await?;
    assert_eq!(written["backup"].as_str(), status::newest(&seen));
    assert_eq!(written["tried"], of_drill.len());
    is_shown(&scene, &second).await?;
    assert!(until_event(hub, "DrillCompleted").await?.contains("none would be refused"));
    outlives_the_process(&scene, second).await
}

async fn is_shown(scene: &Scene, second: &Daemon) -> Result<()> {
    eventually(SOON, "`understudy status` to tell it", async || {
        let (_, text, _) = on_second(scene, &["status"]).ok()?;
        (text.contains("Last drill ") && text.contains("drill in 8")).then_some(())
    })
    .await?;
    let (_, page) = second.http_get("/").await?;
    assert!(page.contains("Last drill ") && page.contains("Next drill"), "{page}");
    let now = understudy::clock::now().as_duration().as_secs_f64();
    let success = metric(second, SUCCESS).await?.ok_or("no success")?;
    let due = metric(second, DUE).await?.ok_or("no deadline")?;
    assert!(now - success < 600.0 && due - success > 89.0 * 86_400.0, "{success} {due}");
    assert!(metric(second, DURATION).await? > Some(0.0));
    Ok(())
}

/// With the `Hub` resource, and without it from the heartbeat: never 0, never later than before.
async fn outlives_the_process(scene: &Scene, second: Daemon) -> Result<()> {
    let (success, due) = (metric(&second, SUCCESS).await?, metric(&second, DUE).await?);
    let beat = || -> Result<Value> {
        let path = scene.repository.join("beats").join(SECOND);
        let text = std::fs::read_to_string(path)?;
        Ok(serde_json::from_str(text.lines().next().unwrap_or_default())?)
    };
    let stored = eventually(SOON, "the heartbeat to hold the drill", async || {
        let drills = beat().ok()?["drills"].take();
        drills["success"]["at"].is_string().then_some(drills)
    })
    .await?;
    assert!(!files(&scene.repository.join("beats"))?.is_empty());
    let mut second = second;
    for forgotten in [false, true] {
        second.signal("TERM")?;
        assert!(second.wait_exit(DEADLINE).await?.success());
        if forgotten {
            scene.pair.passive.api()?.delete(&hub_path(SECOND)).await?;
        }
        second = scene.start_second().await?;
        let shown = eventually(DEADLINE, "the drill to be known again", async || {
            let shown = metric(&second, SUCCESS).await.ok()??;
            Some((Some(shown), metric(&second, DUE).await.ok()?))
        })
        .await?;
        assert_eq!(shown, (success, due), "forgotten: {forgotten}");
        until_role(&mut second, "passive").await?;
        second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
        assert_eq!(beat()?["drills"], stored);
    }
    Ok(())
}

/// Of a webhook for new clusters; nobody answers at `url`.
fn hook(url: &str) -> Value {
    json!([{
        "name": "away.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "timeoutSeconds": 30, "failurePolicy": "Fail", "clientConfig": {"url": url},
        "rules": [{
            "apiGroups": ["cluster.open-cluster-management.io"], "apiVersions": ["*"],
            "operations": ["CREATE"], "resources": ["managedclusters"],
        }],
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_failed_keeps_the_last_success_and_a_promotion_ends_one_at_once() -> Result<()>
{
    let mut scene = set().await?;
    // The first one comes by itself.
    scene.second.set("objectives.drillEvery", json!("2s"));
    scene.second.set(
        "passive.transforms",
        json!([
            {"kind": "CronJob", "patch": {"spec": {"suspend": true}}},
        ]),
    );
    let (_first, mut second) = scene.running().await?;
    let hub = &scene.pair.passive;
    let drilled = |seen: &Value| seen["drill"]["success"]["at"].as_str().map(str::to_owned);
    second.until(DEADLINE, "a drill by the schedule", drilled).await?;

    let hooks = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "away"}, "webhooks": hook("https://127.0.0.1:1/"),
    });
    hub.api()?.post(HOOKS, &hooks).await?;
    let failed = |seen: &Value| {
        let last = &seen["drill"]["last"];
        let kinds = last["failed"].as_object()?;
        kinds.contains_key("managedclusters.cluster.open-cluster-management.io").then_some(())?;
        Some((last["at"].clone(), seen["drill"]["success"]["at"].as_str()?.to_owned()))
    };
    let (at, success) = second.until(DEADLINE, "a drill that failed", failed).await?;
    assert_ne!(at, json!(success));
    assert!(until_event(hub, "DrillFailed").await?.contains("managedclusters"));
    let (code, printed, said) = on_second(&scene, &["drill"])?;
    assert_eq!(code, Some(3), "{printed}{said}");
    assert!(printed.contains("NOT take") && printed.contains("managedclusters"), "{printed}");
    let kept = second.status().await?;
    assert_eq!(kept["drill"]["success"]["at"], json!(success), "the last that succeeded");
    // A warning, which refuses nothing.
    until_condition(hub, SECOND, "Promotable", "True", "Promotable").await?;

    // From being refused at once to no answer: none is taken in between.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let hooks = hook(&format!("https://{}/", silent.local_addr()?));
    hub.api()?.merge_patch(&format!("{HOOKS}/away"), &json!({"webhooks": hooks})).await?;
    let held = tokio::time::timeout(DEADLINE, silent.accept()).await??;
    let running = second.status().await?["drill"]["runningSince"].take();
    assert!(running.is_string(), "a drill hangs");
    let dead = ["promote", "--primary-is-dead", "--reason", "a drill runs", "--yes", "--no-wait"];
    let (code, _, said) = on_second(&scene, &dead)?;
    assert_eq!(code, Some(0), "{said}");
    let term = |seen: &Value| {
        let ended = seen["drill"]["runningSince"].is_null();
        (ended && status::epoch(seen) == 2).then(|| seen["drill"].clone())
    };
    let after = second.until(SOON, "the term, without the drill", term).await?;
    assert!(after["brokenOff"].is_string(), "{after}");
    assert_eq!(after["success"], kept["drill"]["success"]);
    hub.api()?.delete(&format!("{HOOKS}/away")).await?;
    drop((held, silent));
    until_role(&mut second, "primary").await?;
    let (code, _, said) = on_second(&scene, &["drill"])?;
    assert_eq!((code, said.contains(FIRST)), (Some(5), false), "{said}");
    assert_eq!(metric(&second, DUE).await?, None, "a primary has no drill due");
    Ok(())
}
