//! Pure: the untyped tree → [`File`], with all that does not fit.
//!
//! A typed reader stops at the first error. So what does not fit is noted, taken out of the tree, and
//! the tree is read again, until it fits.

use super::errors::{ConfigError, did_you_mean};
use super::file::File;
use super::schema::{entries, keys, schema};
use super::tree::{self, Tree, join};
use serde_json::Value;
use serde_path_to_error::Segment;
use std::collections::{BTreeSet, HashMap};

/// Errors told of one file. Whoever has more has another problem than the fifty-first.
const MAX_ERRORS: usize = 50;

/// None: there are so many errors, or such a one, that nothing more can be said of the file.
pub(super) fn read(tree: &mut Tree, errors: &mut Vec<ConfigError>) -> Option<File> {
    let mut value = std::mem::take(&mut tree.value);
    lists_in_place_of_maps(&mut value, &schema(), "", &mut |key| {
        let (what, place) = ("expected a map of keys, found a list".to_owned(), tree.place(&key));
        errors.push(ConfigError { place, key, what, hint: "write key: value".to_owned() });
    });
    tree.value = value;
    let mut taken_out = TakenOut::default();
    // Each round takes one node out of the tree or gives one variable its type.
    let rounds = MAX_ERRORS + tree.untyped.len();
    for _ in 0..rounds {
        let error = match serde_path_to_error::deserialize::<_, File>(&tree.value) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let mut segments: Vec<Segment> = error.path().iter().cloned().collect();
        if let Some(key) = unknown_key(&message)
            && !matches!(segments.last(), Some(Segment::Map { key: last }) if last == key)
        {
            segments.push(Segment::Map { key: key.to_owned() });
        }
        let path = taken_out.as_written(&segments);
        if let Some(text) = tree.untyped.remove(&path)
            && let Some(value) = typed_variable(&text, &message)
            && let Some(node) = node(&mut tree.value, &segments)
        {
            *node = value;
            continue;
        }
        // A rule whose only key was mistyped is not also a rule without keys.
        let told = errors.iter().any(|error| error.key == path || is_below(&error.key, &path));
        if !told {
            let (what, hint) = explain(&message);
            errors.push(ConfigError { place: tree.place(&path), key: path, what, hint });
        }
        if !taken_out.take(&mut tree.value, &segments) {
            break;
        }
    }
    None
}

/// Derived readers take a list for a map, its entries for the keys in their order. Nobody means that;
/// such a list is told of and emptied of its meaning.
fn lists_in_place_of_maps(
    value: &mut Value,
    schema: &Value,
    path: &str,
    found: &mut impl FnMut(String),
) {
    match value {
        Value::Array(list) => match entries(schema) {
            Some(schema) => {
                for (index, entry) in list.iter_mut().enumerate() {
                    lists_in_place_of_maps(entry, schema, &format!("{path}[{index}]"), found);
                }
            }
            None if keys(schema).next().is_some() => {
                found(path.to_owned());
                *value = Value::Object(serde_json::Map::new());
            }
            None => {}
        },
        Value::Object(map) => {
            for (key, schema) in keys(schema) {
                if let Some(below) = map.get_mut(key) {
                    lists_in_place_of_maps(below, schema, &join(path, key), found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether one key stands below another: `hub.name` below `hub`, `a[0]` below `a`, all below the file.
pub(super) fn is_below(key: &str, above: &str) -> bool {
    match key.strip_prefix(above) {
        Some(rest) if above.is_empty() => !rest.is_empty(),
        Some(rest) => rest.starts_with(['.', '[']),
        None => false,
    }
}

/// What was taken out of lists, so that the entries behind it are still called by the numbers that
/// they have in the file.
#[derive(Default)]
struct TakenOut(HashMap<String, BTreeSet<usize>>);

impl TakenOut {
    /// `storage.s3.bucket`, `sets.resources.include[0]`
    fn as_written(&self, segments: &[Segment]) -> String {
        segments.iter().fold(String::new(), |path, segment| match segment {
            Segment::Seq { index } => format!("{path}[{}]", self.index_as_written(&path, *index)),
            Segment::Map { key } => join(&path, key),
            Segment::Enum { variant } => join(&path, variant),
            Segment::Unknown => path,
        })
    }

    fn index_as_written(&self, list: &str, index: usize) -> usize {
        let gone = self.0.get(list);
        let left = (0..).filter(|written| !gone.is_some_and(|gone| gone.contains(written)));
        left.take(index + 1).last().unwrap_or(index)
    }

    /// Takes the node out; false where there is none left to take.
    fn take(&mut self, value: &mut Value, segments: &[Segment]) -> bool {
        let Some((end, above)) = segments.split_last() else { return false };
        match (node(value, above), end) {
            (Some(Value::Object(map)), Segment::Map { key }) if map.contains_key(key) => {
                map.remove(key);
                true
            }
            (Some(Value::Array(list)), Segment::Seq { index }) if *index < list.len() => {
                list.remove(*index);
                let path = self.as_written(above);
                let written = self.index_as_written(&path, *index);
                self.0.entry(path).or_default().insert(written);
                true
            }
            _ => self.take(value, above),
        }
    }
}

/// The text of a variable as what the key wants instead of text.
fn typed_variable(text: &str, message: &str) -> Option<Value> {
    let wanted = message.strip_prefix("invalid type: string")?;
    let value = tree::scalar(text)?;
    if wanted.contains("expected a sequence") && !value.is_array() {
        return Some(Value::Array(vec![Value::String(text.to_owned())]));
    }
    (!value.is_string()).then_some(value)
}

fn unknown_key(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

/// What is wrong and what would be right, from the reader's message.
fn explain(message: &str) -> (String, String) {
    if let Some(key) = unknown_key(message) {
        let known = message.split('`').skip(3).step_by(2);
        return ("unknown key".to_owned(), did_you_mean(key, known));
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let word = rest.split('`').next().unwrap_or_default();
        let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
        return (format!("{word:?} is not known here"), format!("write {}", known.join(" or ")));
    }
    let Some((found, wanted)) = message.split_once(", expected ") else {
        return (message.to_owned(), String::new());
    };
    let wanted = if wanted.starts_with("struct ") { "a map of keys" } else { wanted };
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let hint = match wanted {
        "a duration" => "write it with its unit, such as 30s, 5m or 1h",
        // YAML reads y, no and on as truth values, 1e3 as a number.
        "a string" | "path string" => "put it in quotes",
        name if name.starts_with("a name ") => "put it in quotes",
        _ => "",
    };
    (format!("expected {wanted}, found {found}"), hint.to_owned())
}

fn node<'v>(value: &'v mut Value, segments: &[Segment]) -> Option<&'v mut Value> {
    segments.iter().try_fold(value, |value, segment| match (value, segment) {
        (Value::Array(list), Segment::Seq { index }) => list.get_mut(*index),
        (Value::Object(map), Segment::Map { key }) => map.get_mut(key),
        _ => None,
    })
}
