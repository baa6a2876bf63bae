//! A secret string in captured objects is found nowhere but sealed in the backup (I19, F86): in no
//! stored byte, log, metric, status, event or output of a command, in none of the forms that text
//! takes on its way.

use crate::harness::daemon::{Daemon, cli_on};
use crate::harness::fleet::Item;
use crate::harness::hub::Hub;
use crate::harness::{Result, kinds};
use k8s_openapi::ByteString;
use serde_json::json;
use std::path::Path;
use understudy::object::{self, ObjectKey, Set};

/// Looks different in every form.
pub(crate) const SECRET: &str = r#"canary 7f3a9c51/in+the "coal" <mine> & ü"#;

const BACKUP_LABEL: &str = "cluster.open-cluster-management.io/backup";
const NAMESPACE: &str = "policies";
const POLICIES: &str = "policy.open-cluster-management.io";
/// What a hub shows of us.
const SHOWN: [&str; 2] = ["/apis/understudy.dev/v1alpha1/hubs", "/apis/events.k8s.io/v1/events"];
const PAGES: [&str; 4] = ["/", "/metrics", "/api/v1/status", "/api/v1/backups"];
const COMMANDS: [&[&str]; 5] = [
    &["status"],
    &["backup", "list"],
    &["backup", "list", "-o", "json"],
    &["backup", "describe", "latest"],
    &["storage", "ls"],
];

/// Objects of all three sets that hold the secret wherever one may stand. Part of each scene's fleet.
pub(crate) fn items() -> Vec<Item> {
    let text = json!({"a": SECRET, SECRET.replace(|c: char| !c.is_ascii_alphanumeric(), "."): "a"});
    [
        ("", "secrets", "canary", "", Set::Credentials, json!({"stringData": text})),
        ("", "configmaps", "canary", "", Set::Credentials, json!({"data": text})),
        (
            "",
            "configmaps",
            "canary-activates",
            "cluster-activation",
            Set::Activation,
            json!({"data": text}),
        ),
        (POLICIES, "policies", "canary", "", Set::Resources, json!({"spec": {"a": SECRET}})),
    ]
    .into_iter()
    .map(|(group, resource, name, label, set, mut body)| {
        let kind = kinds::all().into_iter().find(|k| k.group == group && k.resource == resource);
        let kind = kind.expect("the fleet has objects of this kind");
        body["apiVersion"] = kind.api_version().into();
        body["kind"] = kind.kind.clone().into();
        body["metadata"] = json!({
            "name": name, "namespace": NAMESPACE, "labels": {BACKUP_LABEL: label},
            "annotations": {"note": SECRET},
        });
        let key = ObjectKey::new(group, resource, NAMESPACE, name).expect("a plain name");
        Item { key, kind, body, set: Some(set), owner: None }
    })
    .collect()
}

/// Everything that somebody without the key can see at the end of a test: what is stored, by name; the
/// logs in a folder; and what hubs, daemons and commands tell.
pub(crate) async fn is_seen_nowhere<B: AsRef<[u8]>>(
    stored: impl IntoIterator<Item = (String, B)>,
    logs: &Path,
    hubs: &[(&Hub, &Path)],
    daemons: &[&Daemon],
) -> Result<()> {
    let look = |place: &str, bytes: &[u8]| match form_in(bytes) {
        Some(form) => Err(format!("{place} shows the canary ({form})")),
        None => Ok(()),
    };
    let mut sealed = 0;
    for (name, bytes) in stored {
        look(&name, bytes.as_ref())?;
        let is_pack = name.contains("packs/");
        assert!(!is_pack || bytes.as_ref().starts_with(b"age-encryption.org/v1"), "{name}");
        sealed += usize::from(is_pack);
    }
    assert!(sealed > 0, "there are packs in which it could stand");
    let logs = crate::scene::files(logs)?;
    let logs: Vec<_> =
        logs.iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    assert!(!logs.is_empty(), "there are logs in which it could stand");
    for log in logs {
        look(&log.display().to_string(), &std::fs::read(log)?)?;
    }
    for daemon in daemons {
        for page in PAGES {
            look(page, daemon.http_get(page).await?.1.as_bytes())?;
        }
    }
    for (hub, config) in hubs {
        let api = hub.api()?;
        for path in SHOWN {
            look(path, api.get_json(path).await?.to_string().as_bytes())?;
        }
        for command in COMMANDS {
            let output = cli_on(hub, config, command)?;
            look(&format!("{command:?}"), &[output.stdout, output.stderr].concat())?;
        }
    }
    // It can be found: the hub itself shows it, as it is and in base64.
    let api = hubs.first().ok_or("there is no hub")?.0.api()?;
    for item in items().iter().filter(|item| item.set != Some(Set::Activation)) {
        let path = item.key.url_path(&item.kind.version);
        let found = api.get_json(&path).await?.to_string();
        assert!(form_in(found.as_bytes()).is_some(), "{path} does not hold it");
    }
    Ok(())
}

/// The form in which the secret stands there.
pub(crate) fn form_in(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    forms().into_iter().find(|(_, form)| text.contains(form)).map(|(name, _)| name)
}

fn forms() -> Vec<(String, String)> {
    let mut url = String::new();
    object::encode(&mut url, SECRET, b"");
    let json = serde_json::to_string(SECRET).expect("a string");
    let json = json.trim_matches('"').to_owned();
    // As Go writes it, and so every API server.
    let html = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let hex = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let mut forms = vec![
        ("raw".to_owned(), SECRET.to_owned()),
        ("form".to_owned(), url.replace("%20", "+")),
        ("URL".to_owned(), url),
        ("JSON in JSON".to_owned(), json.replace('\\', "\\\\").replace('"', "\\\"")),
        ("JSON".to_owned(), json),
        ("JSON of Go".to_owned(), html),
        ("hexadecimal in capitals".to_owned(), hex.to_uppercase()),
        ("hexadecimal".to_owned(), hex),
    ];
    for shift in 0..3 {
        let form = base64_behind(shift);
        forms.push((
            format!("base64 for URLs at {shift}"),
            form.replace('+', "-").replace('/', "_"),
        ));
        forms.push((format!("base64 at {shift}"), form));
    }
    forms
}

/// The middle part that base64 has in common whatever stands around, behind so many other bytes.
fn base64_behind(shift: usize) -> String {
    let bytes = [&b"xx"[..shift], SECRET.as_bytes()].concat();
    let whole = (bytes.len() * 8) / 6;
    let encoded = serde_json::to_value(ByteString(bytes)).expect("bytes");
    let encoded = encoded.as_str().expect("base64 is text");
    encoded[(shift * 8).div_ceil(6)..whole].to_owned()
}

#[test]
fn the_search_finds_every_form() {
    let base64 = |bytes: Vec<u8>| serde_json::to_string(&ByteString(bytes)).unwrap();
    for around in 0..4 {
        let (before, after) = ("é<\"".repeat(around), "&>".repeat(around));
        let inside = format!("{before}{SECRET}{after}");
        assert!(form_in(inside.as_bytes()).is_some());
        assert!(form_in(base64(inside.clone().into_bytes()).as_bytes()).is_some(), "{around}");
        let shifted = [&[0xff; 2][..around.min(2)], inside.as_bytes()].concat();
        assert!(form_in(base64(shifted).as_bytes()).is_some(), "{around}");
        let json = serde_json::to_string(&inside).unwrap();
        assert_eq!(form_in(json.as_bytes()).as_deref(), Some("JSON"));
        let twice = serde_json::to_string(&json).unwrap();
        assert_eq!(form_in(twice.as_bytes()).as_deref(), Some("JSON in JSON"));
    }
    for (name, form) in forms() {
        assert!(form_in(format!("x{form}y").as_bytes()).is_some(), "{name}");
    }
    assert_eq!(form_in(b"canary 7f3a9c51"), None);
}
