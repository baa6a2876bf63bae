//! Someone deleted it: an object comes back out of a backup, as it was and linked to what is there,
//! by the commands of the guide; and everything that stands in the way stays as it is.

use crate::canary;
use crate::harness::bare::Api;
use crate::harness::hub::Hub;
use crate::harness::{Result, daemon, eventually};
use crate::scene::{DEADLINE, Scene, in_sync, restore_writes, until_role};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;

const GUIDE: &str = include_str!("../../docs/guides/restore-one-object.md");
/// The backup of which the guide tells.
const GUIDE_ID: &str = "20261120-173000-42";
const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const NAMESPACES: &str = "/api/v1/namespaces";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";

fn policies(namespace: &str) -> String {
    format!("/apis/policy.open-cluster-management.io/v1/namespaces/{namespace}/policies")
}

fn maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

struct Shell<'a> {
    hub: &'a Hub,
    config: PathBuf,
}

impl Shell<'_> {
    fn run(&self, args: &[&str]) -> Result<Output> {
        let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("the path is not UTF-8");
        let (config, kubeconfig) = (path(&self.config)?, path(&self.hub.kubeconfig)?);
        daemon::cli(&[args, &["-c", &config, "--kubeconfig", &kubeconfig]].concat())
    }

    #[track_caller]
    fn ends(&self, code: i32, args: &[&str]) -> (String, String) {
        let output = self.run(args).expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (told, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{told}\n{error}");
        (told, error)
    }
}

/// A namespace with a policy that owns a config map, a role, and the fleet's clusters.
async fn furnish(api: &Api) -> Result<()> {
    api.post(NAMESPACES, &json!({"metadata": {"name": "team-a", "labels": {"team": "a"}}})).await?;
    let policy = json!({
        "apiVersion": "policy.open-cluster-management.io/v1", "kind": "Policy",
        "metadata": {"name": "limits", "annotations": {"note": "é \"quoted\""}},
        "spec": {"disabled": false, "remediationAction": "enforce", "policy-templates": []},
    });
    let policy = api.post(&policies("team-a"), &policy).await?;
    let reference = json!({
        "apiVersion": policy["apiVersion"], "kind": "Policy", "name": "limits",
        "uid": policy["metadata"]["uid"],
    });
    let owned = json!({
        "metadata": {"name": "owned", "labels": {BACKUP_LABEL: ""}, "ownerReferences": [reference]},
        "data": {"k": "v"},
    });
    api.post(&maps("team-a"), &owned).await?;
    let role = json!({"metadata": {"name": "test:viewer"}, "rules": []});
    api.post(ROLES, &role).await?;
    Ok(())
}

async fn set() -> Result<Scene> {
    let mut scene = Scene::set(2).await?;
    let roles = json!([{"group": "rbac.authorization.k8s.io", "name": "test:*"}]);
    scene.first.set("sets.resources.include", roles);
    scene.second.set("passive.fullCheck", json!("1s"));
    furnish(&scene.pair.primary.api()?).await?;
    Ok(scene)
}

/// Without what a hub gives an object anew.
fn content(mut object: Value) -> Value {
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        object["metadata"].as_object_mut().expect("it has metadata").remove(field);
    }
    object
}

async fn delete(api: &Api, path: &str) -> Result<()> {
    api.send(http::Method::DELETE, path, "application/json", bytes::Bytes::new()).await?;
    let gone = async || api.find(path).await.ok()?.is_none().then_some(());
    eventually(DEADLINE, &format!("{path} to be gone"), gone).await
}

/// The commands of the guide, one after another, for the objects of this test.
async fn guide(shell: &Shell<'_>, api: &Api, id: &str) -> Result<()> {
    let plan = shell.config.with_file_name("plan.json");
    let plan = plan.to_str().ok_or("the path is not UTF-8")?;
    let commands = GUIDE.lines().filter_map(|line| line.strip_prefix("understudy "));
    let mut ran = 0;
    for command in commands {
        let command = command.replace(GUIDE_ID, id).replace("plan.json", plan);
        let mut args: Vec<&str> = command.split(' ').collect();
        if args.contains(&"--existing") {
            let change = json!({"spec": {"disabled": true}});
            api.merge_patch(&format!("{}/limits", policies("team-a")), &change).await?;
        }
        if args.starts_with(&["restore", "run"]) && !args.contains(&"--dry-run") {
            shell.ends(7, &args);
            args.push("--yes");
        }
        shell.ends(0, &args);
        ran += 1;
    }
    assert_eq!(ran, 9, "the guide has other commands");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_object_comes_back_by_the_commands_of_the_guide() -> Result<()> {
    let scene = set().await?;
    let (hub, api) = (&scene.pair.primary, scene.pair.primary.api()?);
    let mut daemon = scene.start_first().await?;
    until_role(&mut daemon, "primary").await?;
    let id = scene.backup(&mut daemon).await?;
    let shell = Shell { hub, config: scene.first_file()? };
    let policy = format!("{}/limits", policies("team-a"));
    let owned = format!("{}/owned", maps("team-a"));
    let (old, old_owned) = (api.get_json(&policy).await?, api.get_json(&owned).await?);
    let (same, _) = shell.ends(0, &["backup", "diff", &id, "--exit-code", "-n", "team-a"]);
    assert!(same.starts_with("No differences"), "{same}");

    delete(&api, &policy).await?;
    let collected = async || api.find(&owned).await.ok()?.is_none().then_some(());
    eventually(DEADLINE, "the garbage collector", collected).await?;
    let before = restore_writes(hub)?;
    let (told, _) = shell.ends(8, &["backup", "diff", &id, "--exit-code", "-n", "team-a"]);
    assert!(
        told.contains("removed") && told.contains("limits") && told.contains("owned"),
        "{told}"
    );
    let select = ["--backup", &id, "-n", "team-a"];
    let rehearse = [&["restore", "run", "--dry-run", "server", "-o", "json"], &select[..]].concat();
    let (told, _) = shell.ends(0, &rehearse);
    let report: Value = serde_json::from_str(&told)?;
    assert_eq!(
        (&report["kind"], &report["counts"]["created"]),
        (&json!("RestoreReport"), &json!(2))
    );
    shell.ends(0, &[&["restore", "run", "--dry-run", "client"], &select[..]].concat());
    assert_eq!(restore_writes(hub)?, before, "a rehearsal writes nothing");
    assert!(hub.audit_writes(|event| event.dry_run)?.len() >= 2, "the API server was asked");
    assert!(api.find(&policy).await?.is_none());

    guide(&shell, &api, &id).await?;
    let (new, new_owned) = (api.get_json(&policy).await?, api.get_json(&owned).await?);
    assert_eq!(content(new.clone()), content(old.clone()));
    assert_ne!(new["metadata"]["uid"], old["metadata"]["uid"]);
    let uid = &new_owned["metadata"]["ownerReferences"][0]["uid"];
    assert_eq!(*uid, new["metadata"]["uid"]);
    let mut relinked = content(old_owned);
    relinked["metadata"]["ownerReferences"][0]["uid"] = uid.clone();
    assert_eq!(content(new_owned), relinked);
    let mapped = api.get_json(&format!("{}/owned", maps("team-a-yesterday"))).await?;
    let there = api.get_json(&format!("{}/limits", policies("team-a-yesterday"))).await?;
    assert_eq!(mapped["metadata"]["ownerReferences"][0]["uid"], there["metadata"]["uid"]);
    let space = api.get_json(&format!("{NAMESPACES}/team-a-yesterday")).await?;
    assert_eq!(space["metadata"]["labels"]["team"], "a");
    for object in [&mapped, &there, &space] {
        assert!(!object.to_string().contains("understudy.dev"), "{object}");
    }
    scene.backup(&mut daemon).await?;
    let (told, _) = shell.ends(0, &["backup", "diff", &id, "latest", "--summary", "-o", "json"]);
    let told: Value = serde_json::from_str(&told)?;
    let kinds = &told["kinds"]["policies.policy.open-cluster-management.io"];
    assert_eq!(kinds["added"], 1, "what was restored is captured as any other: {told}");
    Ok(())
}

/// Of a Secret that differs it is told where, if asked for, and never what stands there.
async fn only_places_of_secrets_are_told(shell: &Shell<'_>, api: &Api, id: &str) -> Result<()> {
    let secrets = canary::items().into_iter().filter(|item| item.kind.resource == "secrets");
    for item in secrets {
        let path = item.key.url_path(&item.kind.version);
        api.merge_patch(&path, &json!({"data": {"more": "eA=="}})).await?;
        for args in [
            &["backup", "diff", id, "--show-secrets"][..],
            &["restore", "plan", "--backup", id, "--existing", "update"],
            &["restore", "plan", "--backup", id, "-o", "json"],
            &["restore", "run", "--backup", id, "--existing", "update", "--dry-run", "server"],
        ] {
            let (told, error) = shell.ends(0, &[args, &["--name", item.key.name()]].concat());
            let shown = format!("{told}{error}");
            assert!(shown.contains("data.more"), "{shown}");
            assert_eq!(canary::form_in(shown.as_bytes()), None, "{args:?}");
        }
        let (told, _) = shell.ends(0, &["backup", "diff", id, "--name", item.key.name()]);
        assert!(told.contains("→") && !told.contains("data"), "{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_stays_and_each_refusal_has_its_number() -> Result<()> {
    let scene = set().await?;
    let (hub, api) = (&scene.pair.primary, scene.pair.primary.api()?);
    let mut daemon = scene.start_first().await?;
    until_role(&mut daemon, "primary").await?;
    let id = scene.backup(&mut daemon).await?;
    let shell = Shell { hub, config: scene.first_file()? };
    let policy = format!("{}/limits", policies("team-a"));
    let wanted = ["--backup", &id, "--include", "Policy", "-n", "team-a", "--name", "limits"];
    let with = |first: &[&'static str], last: &[&'static str]| -> Vec<String> {
        [first, &wanted, last].concat().into_iter().map(str::to_owned).collect()
    };
    let ends = |code, args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        shell.ends(code, &args)
    };

    // It exists and differs.
    api.merge_patch(&policy, &json!({"spec": {"disabled": true}})).await?;
    let (told, _) = ends(0, with(&["restore", "plan"], &[]));
    assert!(told.contains("keep") && told.contains("spec.disabled"), "{told}");
    let before = restore_writes(hub)?;
    let (_, error) = ends(5, with(&["restore", "run", "--yes"], &[]));
    assert!(error.contains("--existing update"), "{error}");

    // A plan that does not hold any more.
    let file = scene.scratch.path().join("kept.json");
    let file = file.to_str().ok_or("the path is not UTF-8")?;
    let mut plan = with(&["restore", "plan", "--existing", "update", "--out"], &[]);
    plan.insert(5, file.to_owned());
    ends(0, plan);
    api.merge_patch(&policy, &json!({"spec": {"remediationAction": "inform"}})).await?;
    let (_, error) = shell.ends(5, &["restore", "run", "--plan", file, "--yes"]);
    assert!(error.contains("limits") && error.contains("was changed since"), "{error}");
    assert_eq!(restore_writes(hub)?, before, "nothing was written");
    ends(0, with(&["restore", "run", "--existing", "update", "--yes"], &[]));
    let spec = &api.get_json(&policy).await?["spec"];
    assert_eq!((&spec["disabled"], &spec["remediationAction"]), (&json!(false), &json!("enforce")));
    let (_, error) = ends(0, with(&["restore", "run", "--yes"], &[]));
    assert!(error.contains("as in the backup"), "{error}");

    // What this hub does not accept, and what failed among others.
    delete(&api, &format!("{ROLES}/test:viewer")).await?;
    let roles = ["restore", "run", "--backup", &id, "--include", "ClusterRole", "--yes"];
    let (_, error) = shell.ends(5, &roles);
    assert!(error.contains("passive.allowKinds"), "{error}");
    let nowhere = with(&["restore", "run", "--yes"], &["--namespace-map", "team-a=nowhere"]);
    let (told, error) = ends(3, nowhere);
    assert!(told.contains("FAILED") && told.contains("limits"), "{told}");
    assert!(error.contains("1 policies.policy.open-cluster-management.io"), "{error}");

    only_places_of_secrets_are_told(&shell, &api, &id).await?;

    // Nothing of that; and the activation set.
    shell.ends(1, &["restore", "plan", "--backup", &id, "--name", "never-was"]);
    shell.ends(2, &["restore", "plan", "--backup", &id, "--include", "Unheard"]);
    let cluster = format!("{CLUSTERS}/cluster-0001");
    let finalizers = json!({"metadata": {"finalizers": null}});
    api.merge_patch(&cluster, &finalizers).await?;
    delete(&api, &cluster).await?;
    let clusters = ["restore", "run", "--backup", &id, "--include", "ManagedCluster", "--yes"];
    let (_, error) = shell.ends(1, &clusters);
    assert!(error.contains("--set activation"), "{error}");
    let clusters = [&clusters[..], &["--set", "activation"]].concat();
    let (_, error) = shell.ends(5, &clusters);
    assert!(error.contains("--activate") && api.find(&cluster).await?.is_none(), "{error}");
    shell.ends(0, &[&clusters[..], &["--activate"]].concat());
    assert!(api.find(&cluster).await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_keeps_what_its_sync_keeps_and_takes_the_rest_as_nobodys() -> Result<()> {
    let scene = set().await?;
    let (mut first, mut second) = scene.running().await?;
    let hub = &scene.pair.passive;
    let api = hub.api()?;
    let shell = Shell { hub, config: scene.second_file()? };
    delete(&api, &format!("{}/limits", policies("team-a"))).await?;
    let all_refused = async || {
        // Until the heartbeat tells the role.
        let output = shell.run(&["restore", "plan", "-n", "team-a", "-o", "json"]).ok()?;
        let plan: Value = serde_json::from_slice(&output.stdout).ok()?;
        let steps = plan["steps"].as_array()?;
        let refused = |step: &Value| step["act"] == "refuse";
        (!steps.is_empty() && steps.iter().all(refused)).then_some(())
    };
    eventually(DEADLINE, "the sync's objects to be refused", all_refused).await?;
    let (_, error) = shell.ends(5, &["restore", "run", "-n", "team-a", "--yes"]);
    assert!(error.contains("restore it on the primary"), "{error}");
    let (_, error) = shell.ends(5, &["restore", "plan", "--set", "activation"]);
    assert!(error.contains("understudy.dev/promote=eu-2"), "{error}");

    let map = ["restore", "run", "-n", "team-a", "--namespace-map", "team-a=team-b", "--yes"];
    shell.ends(0, &map);
    let path = format!("{}/owned", maps("team-b"));
    let restored = api.get_json(&path).await?;
    let policy = api.get_json(&format!("{}/limits", policies("team-b"))).await?;
    assert_eq!(restored["metadata"]["ownerReferences"][0]["uid"], policy["metadata"]["uid"]);
    assert!(!restored.to_string().contains("understudy.dev"), "{restored}");

    // Full checks pass over it, and put back by themselves what was deleted here.
    let back = async || api.find(&format!("{}/limits", policies("team-a"))).await.ok()?.map(|_| ());
    eventually(DEADLINE, "the sync to put it back", back).await?;
    scene.pair.primary.api()?.post(NAMESPACES, &json!({"metadata": {"name": "later"}})).await?;
    scene.backup(&mut first).await?;
    second.until(DEADLINE, "the standby to hold the backup", in_sync).await?;
    assert_eq!(api.get_json(&path).await?, restored, "it is left alone");
    Ok(())
}
