//! Pure: variables such as `UNDERSTUDY_STORAGE__S3__BUCKET` put over the file: two underscores a
//! level, letters in any case.
//!
//! What may go wrong: a name that looks like ours and is not. A Service called `understudy` makes
//! Kubernetes set `UNDERSTUDY_SERVICE_HOST` and `UNDERSTUDY_PORT` in every pod beside it, hence only
//! names with a double underscore, or the name of a top-level key, are taken for overrides.

use super::errors::{ConfigError, Place, did_you_mean};
use super::schema::{keys, schema};
use super::tree::{Tree, join};
use serde_json::{Map, Value};

const PREFIX: &str = "UNDERSTUDY_";

/// Puts the overrides into the tree, as text; gives back what is wrong with their names.
pub(super) fn apply(
    tree: &mut Tree,
    env: impl Iterator<Item = (String, String)>,
) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let schema = schema();
    let mut overrides: Vec<(String, String)> = env.collect();
    overrides.sort();
    for (variable, text) in overrides {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let is_top_level = keys(&schema).any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !name.contains("__") && !is_top_level {
            continue;
        }
        match find(&schema, name) {
            Ok(path) => put(tree, &path, variable, text),
            Err((key, hint)) => errors.push(ConfigError {
                place: Place::Variable(variable),
                key,
                what: "there is no such key".to_owned(),
                hint,
            }),
        }
    }
    errors
}

fn find(mut schema: &Value, name: &str) -> Result<Vec<String>, (String, String)> {
    let mut path = Vec::new();
    for part in name.split("__") {
        let found = keys(schema).find(|(key, _)| key.eq_ignore_ascii_case(part));
        let Some((key, below)) = found else {
            let hint = did_you_mean(part, keys(schema).map(|(key, _)| key));
            path.push(part.to_lowercase());
            return Err((path.join("."), hint));
        };
        path.push(key.to_owned());
        schema = below;
    }
    Ok(path)
}

fn put(tree: &mut Tree, path: &[String], variable: String, text: String) {
    let mut value = &mut tree.value;
    let mut key = String::new();
    for part in path {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        let Value::Object(map) = value else { return };
        value = map.entry(part.clone()).or_insert(Value::Null);
        key = join(&key, part);
    }
    *value = Value::String(text.clone());
    let below = format!("{key}[");
    tree.places.retain(|place, _| !place.starts_with(&below));
    tree.places.insert(key.clone(), Place::Variable(variable));
    tree.untyped.insert(key, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, env: &[(&str, &str)]) -> (String, Vec<String>) {
        let mut tree = Tree::parse(file).unwrap();
        let env = env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let errors = apply(&mut tree, env);
        let told = errors.into_iter().map(|error| format!("{}: {}", error.key, error.hint));
        (tree.value.to_string(), told.collect())
    }

    #[test]
    fn a_variable_replaces_and_adds_keys() {
        let (value, errors) = check(
            "storage: {s3: {bucket: a}}\n",
            &[
                ("UNDERSTUDY_STORAGE__S3__BUCKET", "b"),
                ("UNDERSTUDY_STORAGE__S3__PATHSTYLE", "true"),
                ("UNDERSTUDY_HUB__INITIALROLE", "passive"),
                ("UNDERSTUDY_PRESETS", "[ocm]"),
                ("HUB__NAME", "x"),
            ],
        );
        assert_eq!(
            value,
            r#"{"hub":{"initialRole":"passive"},"presets":"[ocm]","storage":{"s3":{"bucket":"b","pathStyle":"true"}}}"#
        );
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_left_alone() {
        let env = [
            ("UNDERSTUDY_SERVICE_HOST", "10.0.0.1"),
            ("UNDERSTUDY_PORT", "tcp://10.0.0.1:8080"),
            ("UNDERSTUDY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(check("", &env), ("{}".to_owned(), vec![]));
    }

    #[test]
    fn a_name_that_is_no_key_is_told() {
        let env = [("UNDERSTUDY_STORAGE__S3__BUKET", "b"), ("UNDERSTUDY_HUB__NAME__X", "y")];
        let (_, errors) = check("", &env);
        assert_eq!(errors, ["hub.name.x: ", "storage.s3.buket: did you mean bucket?"]);
    }
}
