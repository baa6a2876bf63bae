//! Pure: whether an object of this hub still holds what a backup says.
//!
//! An API server adds to what it is given (defaults, what controllers write), so the question is not
//! whether both are equal: everything that the backup names must stand there with the same value.
//! Lists are compared place by place. What a hub answers for itself is left out: identity, `status`,
//! finalizers (a controller that has done its work takes its own away) and owner references (the plan
//! links those).

use crate::json::{Fields, Text};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Neither in the object nor in `metadata` below it.
const NOT_COMPARED: [&str; 3] = ["apiVersion", "kind", "status"];
/// Of `metadata`.
const COMPARED_METADATA: [&str; 2] = ["labels", "annotations"];
/// A path is for people; deeper than this it tells nothing more.
const MAX_DEPTH: usize = 128;

/// The first place (`spec.replicas`) where the live object does not hold what is desired; it is named
/// without its value, which may be a secret. `None`: it holds all of it.
pub fn find(desired: &RawValue, live: &RawValue) -> Result<Option<String>, serde_json::Error> {
    let (mut desired, live) = (map(desired)?, map(live)?);
    desired.retain(|name, _| !NOT_COMPARED.contains(&&**name));
    let metadata = desired.remove("metadata");
    if let Some(path) = fields(&desired, &live, 0)? {
        return Ok(Some(path));
    }
    let (Some(desired), Some(live)) = (metadata, live.get("metadata")) else { return Ok(None) };
    let mut desired = map(desired)?;
    desired.retain(|name, _| COMPARED_METADATA.contains(&&**name));
    Ok(fields(&desired, &map(live)?, 0)?.map(|path| join("metadata", &path)))
}

/// Of a name that stands twice the last one counts, as for an API server.
type Map<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn map(object: &RawValue) -> Result<Map<'_>, serde_json::Error> {
    Ok(Fields::read(object)?.0.into_iter().map(|field| (field.name, field.value)).collect())
}

fn fields(
    desired: &Map<'_>,
    live: &Map<'_>,
    depth: usize,
) -> Result<Option<String>, serde_json::Error> {
    for (name, desired) in desired {
        if let Some(path) = value(desired, live.get(name).copied(), depth)? {
            return Ok(Some(join(name, &path)));
        }
    }
    Ok(None)
}

/// The path below this place, empty for the place itself.
fn value(
    desired: &RawValue,
    live: Option<&RawValue>,
    depth: usize,
) -> Result<Option<String>, serde_json::Error> {
    let here = || Ok(Some(String::new()));
    let Some(live) = live else {
        // What is empty an API server may leave out.
        return if matches!(desired.get(), "null" | "{}" | "[]") { Ok(None) } else { here() };
    };
    if desired.get() == live.get() {
        return Ok(None);
    }
    if depth == MAX_DEPTH {
        return here();
    }
    match (desired.get().as_bytes().first(), live.get().as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => fields(&map(desired)?, &map(live)?, depth + 1),
        (Some(b'['), Some(b'[')) => list(desired, live, depth),
        (Some(b'"'), Some(b'"')) => {
            let Text(desired) = serde_json::from_str(desired.get())?;
            let Text(live) = serde_json::from_str(live.get())?;
            if desired == live { Ok(None) } else { here() }
        }
        _ => here(),
    }
}

fn list(
    desired: &RawValue,
    live: &RawValue,
    depth: usize,
) -> Result<Option<String>, serde_json::Error> {
    let desired: Vec<&RawValue> = serde_json::from_str(desired.get())?;
    let live: Vec<&RawValue> = serde_json::from_str(live.get())?;
    if desired.len() != live.len() {
        return Ok(Some(String::new()));
    }
    for (index, (desired, live)) in desired.into_iter().zip(live).enumerate() {
        if let Some(path) = value(desired, Some(live), depth + 1)? {
            return Ok(Some(join(&index.to_string(), &path)));
        }
    }
    Ok(None)
}

fn join(name: &str, below: &str) -> String {
    if below.is_empty() { name.to_owned() } else { format!("{name}.{below}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, desired: &str, live: &str, expected: Option<&str>) {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let found = find(&raw(desired), &raw(live)).unwrap();
        assert_eq!(found.as_deref(), expected, "{name}");
    }

    #[test]
    fn what_the_backup_names_must_stand_there() {
        let object = r#"{"apiVersion":"v1","kind":"A","metadata":{"name":"x","labels":{"a":"1"}},"spec":{"n":1.0,"list":[{"a":1}],"text":"ü","none":null,"empty":{}}}"#;
        for (name, live, expected) in [
            ("the same", object, None),
            (
                "with additions",
                r#"{"kind":"A","metadata":{"uid":"u","labels":{"b":"2","a":"1"},"annotations":{"c":"3"}},"spec":{"text":"\u00fc","n":1.0,"list":[{"a":1,"default":true}],"more":1},"status":{}}"#,
                None,
            ),
            (
                "another value",
                r#"{"metadata":{"labels":{"a":"1"}},"spec":{"n":2.0,"list":[{"a":1}],"text":"ü"}}"#,
                Some("spec.n"),
            ),
            (
                "a value is gone",
                r#"{"metadata":{"labels":{"a":"1"}},"spec":{"n":1.0,"list":[{"a":1}]}}"#,
                Some("spec.text"),
            ),
            (
                "in a list",
                r#"{"metadata":{"labels":{"a":"1"}},"spec":{"n":1.0,"list":[{"a":2}],"text":"ü"}}"#,
                Some("spec.list.0.a"),
            ),
            (
                "a longer list",
                r#"{"metadata":{"labels":{"a":"1"}},"spec":{"n":1.0,"list":[{"a":1},{}],"text":"ü"}}"#,
                Some("spec.list"),
            ),
            (
                "another label",
                r#"{"metadata":{"labels":{"a":"2"}},"spec":{"n":1.0,"list":[{"a":1}],"text":"ü"}}"#,
                Some("metadata.labels.a"),
            ),
            ("no content", r#"{"metadata":{"labels":{"a":"1"}}}"#, Some("spec")),
            (
                "another type",
                r#"{"metadata":{"labels":{"a":"1"}},"spec":{"n":"1.0","list":[{"a":1}],"text":"ü"}}"#,
                Some("spec.n"),
            ),
        ] {
            check(name, object, live, expected);
        }
    }

    #[test]
    fn what_a_hub_answers_for_itself_is_left_out() {
        check(
            "identity, status, finalizers, owners",
            r#"{"apiVersion":"g/v1","metadata":{"name":"x","finalizers":["f"],"ownerReferences":[{"uid":"o"}],"labels":{},"annotations":null},"status":{"a":1}}"#,
            r#"{"apiVersion":"g/v2","metadata":{"name":"y"},"status":{"a":2}}"#,
            None,
        );
        check("a name that stands twice", r#"{"d":{"a":1,"a":2}}"#, r#"{"d":{"a":2}}"#, None);
        check("depth has an end", &nested("1"), &nested("2"), Some(&["a"; 129].join(".")));
    }

    fn nested(leaf: &str) -> String {
        (0..200).fold(leaf.to_owned(), |inner, _| format!(r#"{{"a":{inner}}}"#))
    }
}
