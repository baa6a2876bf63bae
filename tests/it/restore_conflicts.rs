//! An object that stands on the passive hub already and is not ours is kept, taken over or refused, by
//! rule. A field that cannot be changed is told, or the object is created again where a rule allows it.

use crate::harness::bare::Api;
use crate::harness::{Result, eventually};
use crate::stage::{DEADLINE, Stage};
use serde_json::{Value, json};

const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const MAPS: &str = "/api/v1/namespaces/team/configmaps";
const SECRETS: &str = "/api/v1/namespaces/team/secrets";

#[tokio::test]
async fn what_stands_in_the_way_is_treated_by_rule() -> Result<()> {
    let stage = Stage::set("conflicts", |config| {
        let rules = json!([
            {"kind": "ConfigMap", "name": "adopted", "policy": "adopt"},
            {"kind": "ConfigMap", "namespace": "team", "name": "refused", "policy": "refuse"},
        ]);
        config
            .with("passive.conflict", rules)
            .with("passive.recreate", json!(["secrets"]))
            .with("passive.syncInterval", json!("1s"))
    })
    .await?;
    let (source, target) = (stage.pair.primary.api()?, stage.pair.passive.api()?);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    for api in [&source, &target] {
        api.post("/api/v1/namespaces", &namespace).await?;
    }
    for name in ["kept", "adopted", "refused"] {
        source.post(MAPS, &map(name, &json!({"a": "primary"}))).await?;
        target.post(MAPS, &map(name, &json!({"local": "mine"}))).await?;
    }
    fixed(&source, "first").await?;
    let primary = stage.start_primary().await?;
    let mut passive = stage.start_passive().await?;
    for (name, data) in [
        ("kept", json!({"local": "mine"})),
        ("adopted", json!({"local": "mine", "a": "primary"})),
        ("refused", json!({"local": "mine"})),
    ] {
        let found = target.get_json(&format!("{MAPS}/{name}")).await?;
        assert_eq!(found["data"], data, "{name}");
        let labels = &found["metadata"]["labels"];
        assert_eq!(labels["understudy.dev/pair"], Value::Null, "{name}");
        assert_eq!(labels["understudy.dev/adopted"] == "test", name == "adopted", "{name}");
    }
    let failed = |count: u64| {
        move |seen: &Value| (seen["sync"]["failed"] == json!({"configmaps": count})).then_some(())
    };
    passive.until(DEADLINE, "the refused one to be told", failed(1)).await?;
    let log = passive.log_text()?;
    assert!(log.contains("passive.conflict refuses it"), "{log}");

    // What cannot be changed: on the primary it was deleted and made again, too.
    let before = target.get_json(&format!("{SECRETS}/fixed")).await?;
    let owned = target.get_json(&format!("{MAPS}/owned")).await?;
    assert_eq!(owned["metadata"]["ownerReferences"][0]["uid"], before["metadata"]["uid"]);
    for path in [format!("{MAPS}/fixed"), format!("{SECRETS}/fixed")] {
        source.delete(&path).await?;
    }
    let gone = async || source.find(&format!("{MAPS}/owned")).await.ok()?.is_none().then_some(());
    eventually(DEADLINE, "the garbage collector of the primary", gone).await?;
    fixed(&source, "second").await?;
    stage.backup(&primary).await?;
    passive.until(DEADLINE, "the fixed one to be told", failed(2)).await?;
    let kept = target.get_json(&format!("{MAPS}/fixed")).await?;
    assert_eq!(kept["data"], json!({"a": "first"}), "no rule lets it be created again");
    let log = passive.log_text()?;
    assert!(log.contains("configmaps team/fixed") && log.contains("422 Invalid"), "{log}");
    let renewed = target.get_json(&format!("{SECRETS}/fixed")).await?;
    assert_eq!(renewed["data"], json!({"a": "c2Vjb25k"}));
    assert_ne!(renewed["metadata"]["uid"], before["metadata"]["uid"], "created again");
    let linked = target.get_json(&format!("{MAPS}/owned")).await?;
    assert_eq!(linked["metadata"]["uid"], owned["metadata"]["uid"], "what it owns stayed");
    assert_eq!(linked["metadata"]["ownerReferences"][0]["uid"], renewed["metadata"]["uid"]);
    Ok(())
}

fn map(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": name, "labels": {BACKUP_LABEL: ""}},
    })
}

/// A Secret and a config map that nobody can change, and a config map that the Secret owns.
async fn fixed(source: &Api, value: &str) -> Result<()> {
    let mut fixed = map("fixed", &json!({"a": value}));
    fixed["immutable"] = true.into();
    source.post(MAPS, &fixed).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "immutable": true, "stringData": {"a": value},
        "metadata": {"name": "fixed", "labels": {BACKUP_LABEL: ""}},
    });
    let secret = source.post(SECRETS, &secret).await?;
    let mut owned = map("owned", &json!({"a": "b"}));
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Secret", "name": "fixed", "uid": secret["metadata"]["uid"],
    }]);
    source.post(MAPS, &owned).await?;
    Ok(())
}
