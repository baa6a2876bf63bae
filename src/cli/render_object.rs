//! Pure: one object as YAML or JSON, without its secrets.
//!
//! Masking goes by what a Secret may show rather than by what it hides, because annotations hold
//! copies of tokens, too; and it reaches Secrets that stand inside of other objects (works, policies).
//! Without anything to mask, JSON is the stored line, byte for byte.

use super::render::Output;
use crate::object::ObjectKey;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// In the place of a value. Not base64, so that no API server takes it for data.
const MASK: &str = "***";

/// Of a Secret, what tells no secret.
const OPEN_FIELDS: [&str; 5] = ["apiVersion", "kind", "type", "immutable", "metadata"];

#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    pub text: String,
    /// Something is not shown.
    pub masked: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("failed to read the object as JSON")]
    Json(#[from] serde_json::Error),
    #[error("failed to write the object as YAML: {0}")]
    Yaml(serde_saphyr::ser::Error),
}

pub fn object(
    key: &ObjectKey,
    raw: &RawValue,
    output: Output,
    show_secret_data: bool,
) -> Result<Shown, ObjectError> {
    let mut value: Value = serde_json::from_str(raw.get())?;
    let is_secret = key.group().is_empty() && key.resource() == "secrets";
    let masked = !show_secret_data && mask(&mut value, is_secret);
    let text = match output {
        Output::Table => serde_saphyr::to_string(&value).map_err(ObjectError::Yaml)?,
        Output::Json if masked => format!("{value}\n"),
        Output::Json => format!("{}\n", raw.get()),
    };
    Ok(Shown { text, masked })
}

/// Whether anything was masked. The depth is bounded by the JSON reader's own limit.
fn mask(value: &mut Value, is_secret: bool) -> bool {
    match value {
        Value::Object(fields) if is_secret || names_a_secret(fields) => mask_secret(fields),
        Value::Object(fields) => {
            fields.values_mut().fold(false, |masked, value| mask(value, false) | masked)
        }
        Value::Array(items) => {
            items.iter_mut().fold(false, |masked, value| mask(value, false) | masked)
        }
        // A manifest can also stand in a string.
        Value::String(text) => {
            let hides = holds_a_secret(text);
            if hides {
                MASK.clone_into(text);
            }
            hides
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn names_a_secret(fields: &Map<String, Value>) -> bool {
    let is = |field: &str, value: &str| fields.get(field).is_some_and(|there| there == value);
    is("kind", "Secret")
        && (is("apiVersion", "v1")
            || fields.contains_key("data")
            || fields.contains_key("stringData"))
}

fn holds_a_secret(text: &str) -> bool {
    let plain: String =
        text.chars().filter(|c| !c.is_whitespace() && !"\"'\\".contains(*c)).collect();
    plain.contains("kind:Secret") && (plain.contains("data:") || plain.contains("stringData:"))
}

fn mask_secret(fields: &mut Map<String, Value>) -> bool {
    let mut masked = false;
    for (name, value) in fields {
        if name == "metadata" {
            if let Some(annotations) = value.get_mut("annotations") {
                masked |= hide(annotations);
            }
        } else if !OPEN_FIELDS.contains(&name.as_str()) {
            masked |= hide(value);
        }
    }
    masked
}

/// Keeps the names of a map, which tell what is there, and hides everything else.
fn hide(value: &mut Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(fields) => {
            let empty = fields.is_empty();
            fields.values_mut().for_each(|value| *value = MASK.into());
            !empty
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            *value = MASK.into();
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(resource: &str, value: &Value, output: Output, show_secret_data: bool) -> Shown {
        let key = ObjectKey::new("", resource, "ns", "x").unwrap();
        let raw = RawValue::from_string(value.to_string()).unwrap();
        object(&key, &raw, output, show_secret_data).unwrap()
    }

    /// `hidden` is never shown unless asked for, in whichever form; `open` always is.
    #[track_caller]
    fn check(resource: &str, value: &Value, hidden: &[&str], open: &[&str]) {
        for output in [Output::Table, Output::Json] {
            let masked = shown(resource, value, output, false);
            assert_eq!(masked.masked, !hidden.is_empty(), "{}", masked.text);
            for text in hidden {
                assert!(!masked.text.contains(text), "{text} in {}", masked.text);
            }
            let all = shown(resource, value, output, true);
            assert!(!all.masked);
            for text in hidden.iter().chain(open) {
                assert!(all.text.contains(text), "{text} not in {}", all.text);
            }
            for text in open {
                assert!(masked.text.contains(text), "{text} not in {}", masked.text);
            }
        }
    }

    fn secret() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "name": "login", "labels": {"app": "console"},
                "annotations": {"openshift.io/token-secret.value": "t0ken"},
            },
            "data": {"password": "aHVudGVyMg=="}, "stringData": {"user": "cm9vdA"},
            "later": ["n3w"],
        })
    }

    #[test]
    fn a_secret_shows_its_fields_and_none_of_its_values() {
        let hidden = ["aHVudGVyMg==", "cm9vdA", "t0ken", "n3w"];
        let open = ["login", "console", "Opaque", "password", "token-secret.value"];
        check("secrets", &secret(), &hidden, &open);
        let mut disguised = secret();
        disguised["kind"] = "ConfigMap".into();
        check("secrets", &disguised, &hidden, &["password"]);
        check(
            "secrets",
            &json!({"kind": "Secret", "metadata": {"name": "empty"}}),
            &[],
            &["empty"],
        );
    }

    #[test]
    fn a_secret_inside_of_another_object_is_masked_as_well() {
        let work = json!({"kind": "ManifestWork", "spec": {"workload": {"manifests": [
            {"kind": "ConfigMap", "data": {"colour": "blue"}}, secret(),
        ]}}});
        check("manifestworks", &work, &["aHVudGVyMg==", "t0ken"], &["blue", "password"]);
        let text = "apiVersion: v1\nkind: Secret\ndata:\n  a: aHVudGVyMg==\n";
        let map = json!({"kind": "ConfigMap", "data": {"manifest.yaml": text, "note": "kept"}});
        check("configmaps", &map, &["aHVudGVyMg=="], &["manifest.yaml", "kept"]);
        let map = json!({"kind": "ConfigMap", "data": {"manifest.json": secret().to_string()}});
        check("configmaps", &map, &["aHVudGVyMg=="], &["manifest.json"]);
    }

    #[test]
    fn json_without_a_secret_is_the_stored_line() {
        let line = r#"{"b":1.0,"a":12345678901234567890123,"a":"kind: Secretary"}"#;
        let key = ObjectKey::new("", "configmaps", "ns", "x").unwrap();
        let raw = RawValue::from_string(line.to_owned()).unwrap();
        let shown = object(&key, &raw, Output::Json, false).unwrap();
        assert_eq!(shown, Shown { text: format!("{line}\n"), masked: false });
    }

    #[test]
    fn yaml_reads_back_as_the_same_object() {
        let value = json!({
            "words": ["y", "yes", "no", "on", "null", "~", "1e3", "0x1f", "012", "1:30", "2026-11-20", "", " a ", "-", "a: b", "# c", "*x", "&y", "!z", "%d", "@e", "`f"],
            "lines": "one\n  two\n\nthree\n", "tab": "a\tb", "ends": "x\n\n", "quote": "it's \"so\"",
            "long": "word ".repeat(40), "wide": "ä → ∞", "control": "\u{1}\u{7f}\u{85}\u{2028}",
            "numbers": [0, -1, 1.5, 1e300, 18_446_744_073_709_551_615_u64], "flags": [true, false, null],
            "empty": {"map": {}, "list": []}, "a.b/c": {"on": "off"}, "1": 2,
        });
        let text = shown("configmaps", &value, Output::Table, false).text;
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }
}
