//! Pure: where two objects differ, as paths, and where two backups do, as keys.
//!
//! Objects are compared as raw JSON: numbers by their digits, strings by their meaning, fields in any
//! order. An owner reference names its owner by a UID that each hub gives anew, so the UID is no
//! difference. Values are never told, only where they stand.

use crate::json::{Fields, Text};
use crate::object::{Digest, ObjectKey, Set};
use crate::repository::contents::{Contents, Entry};
use serde_json::value::RawValue;
use std::collections::HashSet;

/// Paths that are named of an object; how many more there are is counted.
pub const MAX_PATHS: usize = 8;
/// Below that depth values are compared by their text: a hostile object must not exhaust the stack.
const MAX_DEPTH: usize = 64;

/// `spec.rules[2].verbs`, `metadata.labels["a.b/c"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    pub named: Vec<String>,
    pub more: usize,
}

impl Paths {
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    fn add(&mut self, path: &str) {
        if self.named.len() < MAX_PATHS {
            self.named.push(path.to_owned());
        } else {
            self.more += 1;
        }
    }
}

/// `spec.a, spec.b and 3 more`
impl std::fmt::Display for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.named.join(", "))?;
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

/// Where `after` is not what `before` is, in the order of `before`.
pub fn paths(before: &RawValue, after: &RawValue) -> Paths {
    let mut found = Paths::default();
    compare(before, after, &mut String::new(), 0, &mut found);
    found
}

fn compare(
    before: &RawValue,
    after: &RawValue,
    path: &mut String,
    depth: usize,
    found: &mut Paths,
) {
    if before.get() == after.get() {
        return;
    }
    let first = |raw: &RawValue| raw.get().bytes().next();
    match (first(before), first(after)) {
        (Some(b'{'), Some(b'{')) if depth < MAX_DEPTH => {
            if let (Some(before), Some(after)) = (fields(before), fields(after)) {
                return compare_fields(&before, &after, path, depth, found);
            }
        }
        (Some(b'['), Some(b'[')) if depth < MAX_DEPTH => {
            if let (Some(before), Some(after)) = (items(before), items(after))
                && before.len() == after.len()
            {
                for (index, (before, after)) in before.into_iter().zip(after).enumerate() {
                    within(path, &format!("[{index}]"), |path| {
                        compare(before, after, path, depth + 1, found);
                    });
                }
                return;
            }
        }
        (Some(b'"'), Some(b'"')) => {
            let text = |raw| serde_json::from_str::<Text<'_>>(raw).map(|Text(text)| text);
            if let (Ok(before), Ok(after)) = (text(before.get()), text(after.get()))
                && before == after
            {
                return;
            }
        }
        _ => {}
    }
    found.add(path);
}

fn items(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

/// None: not an object, or a key stands in it twice, so that readers may disagree about it.
fn fields(raw: &RawValue) -> Option<Fields<'_>> {
    let fields = Fields::read(raw).ok()?;
    let mut names = HashSet::with_capacity(fields.0.len());
    fields.0.iter().all(|field| names.insert(&*field.name)).then_some(())?;
    Some(fields)
}

fn compare_fields(
    before: &Fields<'_>,
    after: &Fields<'_>,
    path: &mut String,
    depth: usize,
    found: &mut Paths,
) {
    let is_owner = path.starts_with("metadata.ownerReferences[");
    for field in &before.0 {
        let other = after.0.iter().find(|other| other.name == field.name);
        within(path, &step(&field.name), |path| match other {
            _ if is_owner && field.name == "uid" => {}
            Some(other) => compare(field.value, other.value, path, depth + 1, found),
            None if is_nothing(field.value) => {}
            None => found.add(path),
        });
    }
    for field in after.0.iter().filter(|field| !is_nothing(field.value)) {
        if !before.0.iter().any(|other| other.name == field.name) {
            within(path, &step(&field.name), |path| found.add(path));
        }
    }
}

/// A map that was emptied and one that is not there are the same to an API server.
fn is_nothing(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "{}" | "[]")
}

fn step(name: &str) -> String {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { format!(".{name}") } else { format!("[{name:?}]") }
}

fn within(path: &mut String, step: &str, inner: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(if length == 0 { step.trim_start_matches('.') } else { step });
    inner(path);
    path.truncate(length);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    Added,
    Removed,
    Changed,
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed => "changed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: ObjectKey,
    pub change: Change,
    /// Where it is, or was.
    pub set: Set,
    /// The set that it came from, when it is another one.
    pub moved_from: Option<Set>,
    pub before: Option<Digest>,
    pub after: Option<Digest>,
    /// Of what changed, once both objects were read.
    pub paths: Paths,
}

/// What of `wanted` is not the same in both, sorted by key.
pub fn contents(
    before: &Contents,
    after: &Contents,
    wanted: impl Fn(&ObjectKey) -> bool,
) -> Vec<Difference> {
    let gone = before.entries.iter().filter(|(key, _)| !after.entries.contains_key(key));
    let gone = gone.map(|(key, entry)| difference(key, Some(entry), None));
    let here = after.entries.iter().filter_map(|(key, entry)| {
        let old = before.entries.get(key);
        let same = old.is_some_and(|old| old.digest == entry.digest && old.set == entry.set);
        (!same).then(|| difference(key, old, Some(entry)))
    });
    let mut found: Vec<_> = gone.chain(here).flatten().filter(|found| wanted(&found.key)).collect();
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    found
}

fn difference(
    key: &ObjectKey,
    before: Option<&Entry>,
    after: Option<&Entry>,
) -> Option<Difference> {
    let (change, set) = match (before, after) {
        (None, None) => return None,
        (None, Some(after)) => (Change::Added, after.set),
        (Some(before), None) => (Change::Removed, before.set),
        (Some(_), Some(after)) => (Change::Changed, after.set),
    };
    Some(Difference {
        key: key.clone(),
        change,
        set,
        moved_from: before.map(|before| before.set).filter(|before| *before != set),
        before: before.map(|entry| entry.digest),
        after: after.map(|entry| entry.digest),
        paths: Paths::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, expected: &str) {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(paths(&raw(before), &raw(after)).to_string(), expected, "{before} {after}");
    }

    #[test]
    fn a_difference_is_told_by_its_path() {
        check(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, "");
        check(r#"{"a":{"b":[1,2]}}"#, r#"{"a":{"b":[1,3]}}"#, "a.b[1]");
        check(r#"{"a":{"b":[1,2]}}"#, r#"{"a":{"b":[1]}}"#, "a.b");
        check(r#"{"a":1}"#, r#"{"b":1}"#, "a, b");
        check(r#"{"a":null,"m":{}}"#, r#"{"l":[]}"#, "");
        check(r#"{"a":"\u00e9"}"#, r#"{"a":"é"}"#, "");
        check(r#"{"a":"1"}"#, r#"{"a":1}"#, "a");
        check(
            r#"{"metadata":{"labels":{"a.b/c":"1"}}}"#,
            r#"{"metadata":{"labels":{"a.b/c":"2"}}}"#,
            r#"metadata.labels["a.b/c"]"#,
        );
        // Through f64 these would be the same.
        check(r#"{"n":12345678901234567890123}"#, r#"{"n":12345678901234567890124}"#, "n");
        check(r#"{"n":1.0}"#, r#"{"n":1}"#, "n");
        check(r#"{"x":{"a":1,"a":2}}"#, r#"{"x":{"a":2,"a":2}}"#, "x");
    }

    #[test]
    fn the_uid_of_an_owner_is_no_difference_and_its_name_is() {
        let owned = |name: &str, uid: &str| {
            format!(
                r#"{{"metadata":{{"uid":"{uid}","ownerReferences":[{{"name":"{name}","uid":"{uid}"}}]}}}}"#
            )
        };
        check(&owned("a", "1"), &owned("a", "1"), "");
        check(&owned("a", "1"), &owned("a", "2"), "metadata.uid");
        check(&owned("a", "1"), &owned("b", "1"), "metadata.ownerReferences[0].name");
    }

    #[test]
    fn many_paths_are_counted_and_deep_objects_end() {
        let object = |value: &str| {
            let fields: Vec<String> = (0..20).map(|n| format!(r#""f{n}":{value}"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        check(&object("1"), &object("2"), "f0, f1, f2, f3, f4, f5, f6, f7 and 12 more");
        let deep = |value: &str| format!("{}{value}{}", "[".repeat(100), "]".repeat(100));
        check(&deep("1"), &deep("2"), &"[0]".repeat(MAX_DEPTH));
    }

    fn entry(set: Set, content: &str) -> Entry {
        Entry {
            set,
            version: "v1".into(),
            digest: Digest::of(content.as_bytes()),
            pack: 0,
            uid: "u".into(),
            resource_version: "1".into(),
            owners: Box::default(),
        }
    }

    #[test]
    fn two_backups_differ_in_what_is_added_removed_changed_or_moved() {
        use Set::{Activation, Credentials, Resources};
        let of = |entries: &[(&str, Set, &str)]| Contents {
            entries: entries
                .iter()
                .map(|(name, set, content)| {
                    (ObjectKey::new("", "configmaps", "ns", name).unwrap(), entry(*set, content))
                })
                .collect(),
            ..Contents::default()
        };
        let before = of(&[
            ("same", Resources, "a"),
            ("changed", Resources, "a"),
            ("moved", Resources, "a"),
            ("removed", Credentials, "a"),
            ("unwanted", Resources, "a"),
        ]);
        let after = of(&[
            ("same", Resources, "a"),
            ("changed", Resources, "b"),
            ("moved", Activation, "a"),
            ("added", Resources, "a"),
        ]);
        let found = contents(&before, &after, |key| key.name() != "unwanted");
        let found: Vec<_> =
            found.iter().map(|d| (d.key.name(), d.change, d.set, d.moved_from)).collect();
        assert_eq!(
            found,
            [
                ("added", Change::Added, Resources, None),
                ("changed", Change::Changed, Resources, None),
                ("moved", Change::Changed, Activation, Some(Resources)),
                ("removed", Change::Removed, Credentials, None),
            ]
        );
    }
}
