//! Pure: a JSON Patch (RFC 6902) that turns the form of an object that we applied last into the new
//! one, on whatever became of it here meanwhile.
//!
//! The patch names only what differs between the two forms of ours, so what others added or changed
//! beside it stays. It begins with tests: the object is the one that we wrote (its UID), at the form
//! from which we start (our digest annotation), and its owners are those that we linked. Lists are
//! replaced as a whole. There is no patch (and the object is read first) where one could be wrong: a
//! key that stands twice, another version, a change in the owners. Others add to the finalizers, too: these
//! are replaced where they are exactly ours, as a further test.

use super::known::DIGEST_ANNOTATION;
use crate::json::{Fields, Writer};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Below that, what differs is replaced as a whole: hostile depth must not become ours.
pub(super) const MAX_DEPTH: usize = 32;
/// The API server takes 10,000.
const MAX_OPERATIONS: usize = 1000;
/// What others add to, so that replacing it as a whole could take something away from them.
pub(super) const SHARED_LISTS: [&str; 2] = ["/metadata/finalizers", "/metadata/ownerReferences"];
const FINALIZERS: &str = SHARED_LISTS[0];
/// Another version is another schema.
const TYPE: [&str; 2] = ["/apiVersion", "/kind"];

/// What must be so on the hub.
pub struct Guard<'a> {
    pub uid: &'a str,
    /// The value of our digest annotation.
    pub digest: &'a str,
    /// UIDs of the owner references that were written, in their order.
    pub owners: &'a [&'a str],
}

/// `old` and `new` as they are written, with our marks. None: it has to be done another way, also
/// where the patch would be larger than the object.
pub fn patch(guard: &Guard<'_>, old: &RawValue, new: &RawValue) -> Option<Vec<u8>> {
    let mut differ = Differ { out: Writer::with_capacity(512), operations: 0 };
    differ.out.open(b'[');
    differ.test("/metadata/uid", guard.uid);
    differ.test(&child("/metadata/annotations", DIGEST_ANNOTATION), guard.digest);
    for (place, uid) in guard.owners.iter().enumerate() {
        differ.test(&format!("/metadata/ownerReferences/{place}/uid"), uid);
    }
    differ.walk("", old, new, 0)?;
    differ.out.close(b']');
    let patch = differ.out.finish();
    (patch.len() <= new.get().len().max(512)).then_some(patch)
}

/// The whole of `status`, onto the object with this UID.
pub fn status_patch(uid: &str, status: &RawValue) -> Vec<u8> {
    one(uid, "/status", status)
}

/// Our digest annotation, onto the object with this UID.
pub fn digest_patch(uid: &str, digest: &str) -> Vec<u8> {
    let digest = serde_json::value::to_raw_value(digest).expect("a string becomes JSON in memory");
    one(uid, &child("/metadata/annotations", DIGEST_ANNOTATION), &digest)
}

fn one(uid: &str, path: &str, value: &RawValue) -> Vec<u8> {
    let out = Writer::with_capacity(value.get().len() + 256);
    let mut differ = Differ { out, operations: 0 };
    differ.out.open(b'[');
    differ.test("/metadata/uid", uid);
    differ.begin("add", path);
    differ.out.name("value");
    differ.out.raw(value);
    differ.out.close(b'}');
    differ.out.close(b']');
    differ.out.finish()
}

struct Differ {
    out: Writer,
    operations: usize,
}

impl Differ {
    fn walk(&mut self, path: &str, old: &RawValue, new: &RawValue, depth: usize) -> Option<()> {
        if old.get() == new.get() {
            return Some(());
        }
        if path == FINALIZERS {
            self.test_raw(path, old);
            return self.set(path, new);
        }
        if SHARED_LISTS.contains(&path) || TYPE.contains(&path) {
            return None;
        }
        let both = (depth < MAX_DEPTH).then(|| Some((object(old)?, object(new)?))).flatten();
        let Some((old, new_fields)) = both else { return self.set(path, new) };
        let (old, new) = (by_name(&old)?, by_name(&new_fields)?);
        for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
            let path = child(path, name);
            if path == FINALIZERS {
                self.test_raw(&path, value);
            } else if SHARED_LISTS.contains(&&*path) {
                return None;
            }
            self.operation("remove", &path)?;
            self.out.close(b'}');
        }
        // In their order, so that the same change is the same patch.
        for field in &new_fields.0 {
            let path = child(path, &field.name);
            match old.get(&*field.name) {
                Some(old) => self.walk(&path, old, field.value, depth + 1)?,
                // An API server takes what is not there for `null`.
                None if path == FINALIZERS => {
                    self.test_raw(&path, RawValue::NULL);
                    self.set(&path, field.value)?;
                }
                None if SHARED_LISTS.contains(&&*path) => return None,
                None => self.set(&path, field.value)?,
            }
        }
        Some(())
    }

    /// `add` also replaces what is there.
    fn set(&mut self, path: &str, value: &RawValue) -> Option<()> {
        self.operation("add", path)?;
        self.out.name("value");
        self.out.raw(value);
        self.out.close(b'}');
        Some(())
    }

    fn test(&mut self, path: &str, value: &str) {
        self.begin("test", path);
        self.out.name("value");
        self.out.text(value);
        self.out.close(b'}');
    }

    fn test_raw(&mut self, path: &str, value: &RawValue) {
        self.begin("test", path);
        self.out.name("value");
        self.out.raw(value);
        self.out.close(b'}');
    }

    fn operation(&mut self, name: &str, path: &str) -> Option<()> {
        self.operations += 1;
        self.begin(name, path);
        (self.operations <= MAX_OPERATIONS).then_some(())
    }

    fn begin(&mut self, name: &str, path: &str) {
        self.out.next();
        self.out.open(b'{');
        self.out.name("op");
        self.out.text(name);
        self.out.name("path");
        self.out.text(path);
    }
}

/// RFC 6901.
pub(super) fn child(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn object(raw: &RawValue) -> Option<Fields<'_>> {
    raw.get().starts_with('{').then(|| Fields::read(raw).ok()).flatten()
}

/// None: a name stands twice.
pub(super) fn by_name<'f, 'a>(fields: &'f Fields<'a>) -> Option<HashMap<&'f str, &'a RawValue>> {
    let map: HashMap<&str, &RawValue> =
        fields.0.iter().map(|field| (&*field.name, field.value)).collect();
    (map.len() == fields.0.len()).then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    const GUARD: Guard<'_> = Guard { uid: "u", digest: "d", owners: &["o"] };
    const TESTS: &str = concat!(
        r#"[{"op":"test","path":"/metadata/uid","value":"u"},"#,
        r#"{"op":"test","path":"/metadata/annotations/understudy.dev~1digest","value":"d"},"#,
        r#"{"op":"test","path":"/metadata/ownerReferences/0/uid","value":"o"}"#,
    );

    fn operations(old: &str, new: &str) -> Option<String> {
        let patch = String::from_utf8(patch(&GUARD, &raw(old), &raw(new))?).unwrap();
        let rest = patch.strip_prefix(TESTS).expect("the guards come first");
        Some(rest.strip_prefix(',').unwrap_or(rest).strip_suffix(']').unwrap().to_owned())
    }

    #[test]
    fn only_what_differs_is_named_and_as_it_is_written() {
        let set =
            |path: &str, value: &str| format!(r#"{{"op":"add","path":"{path}","value":{value}}}"#);
        let remove = |path: &str| format!(r#"{{"op":"remove","path":"{path}"}}"#);
        for (old, new, expected) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, String::new()),
            (r#"{"a":1}"#, r#"{"a":1.00000000000000000001}"#, set("/a", "1.00000000000000000001")),
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":1}}"#, remove("/a/c")),
            (r#"{"a":{"b":[1,{"c":2}]}}"#, r#"{"a":{"b":[1]}}"#, set("/a/b", "[1]")),
            (r#"{"a":{"b":1}}"#, r#"{"a":null}"#, set("/a", "null")),
            (r#"{"a":null}"#, r#"{"a":{"b":1}}"#, set("/a", r#"{"b":1}"#)),
            ("{}", r#"{"a":{"b":{"c":1}}}"#, set("/a", r#"{"b":{"c":1}}"#)),
            (r#"{"a/b~c":{"":1}}"#, r#"{"a/b~c":{"":2}}"#, set("/a~1b~0c/", "2")),
            (r#"{"\u0061":{"x":1}}"#, r#"{"a":{"x":2}}"#, set("/a/x", "2")),
            (r#"{"a":"\u00e9"}"#, r#"{"a":"\u00e8"}"#, set("/a", r#""\u00e8""#)),
        ] {
            assert_eq!(operations(old, new), Some(expected), "{old} {new}");
        }
    }

    #[test]
    fn finalizers_are_replaced_where_they_are_ours_alone() {
        let change = |old: &str, new: &str| operations(old, new).unwrap();
        let (none, one, two) = (
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"finalizers":["a"]}}"#,
            r#"{"metadata":{"finalizers":["b"]}}"#,
        );
        let test = |value: &str| {
            format!(r#"{{"op":"test","path":"/metadata/finalizers","value":{value}}}"#)
        };
        let add = |value: &str| {
            format!(r#"{{"op":"add","path":"/metadata/finalizers","value":{value}}}"#)
        };
        let remove = r#"{"op":"remove","path":"/metadata/finalizers"}"#;
        for (old, new, expected) in [
            (none, one, [test("null"), add(r#"["a"]"#)]),
            (one, two, [test(r#"["a"]"#), add(r#"["b"]"#)]),
            (one, none, [test(r#"["a"]"#), remove.to_owned()]),
        ] {
            assert_eq!(change(old, new), expected.join(","));
        }
    }

    #[test]
    fn where_a_patch_could_be_wrong_there_is_none() {
        let wide = |value: u32| {
            let fields: Vec<_> = (0..=1000).map(|n| format!(r#""f{n}":{value}"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        for (old, new) in [
            (r#"{"a":{"b":1,"b":2}}"#, r#"{"a":{"b":1}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"b":1,"\u0062":2}}"#),
            (r#"{"apiVersion":"x/v1"}"#, r#"{"apiVersion":"x/v2"}"#),
            (r#"{"metadata":{}}"#, r#"{"metadata":{"ownerReferences":[1]}}"#),
            (r#"{"metadata":{"ownerReferences":[1]}}"#, r#"{"metadata":{"ownerReferences":[2]}}"#),
            (&wide(1), &wide(2)),
        ] {
            assert!(operations(old, new).is_none(), "{old} {new}");
        }
        let (small, large) = ("x".repeat(300), "y".repeat(300));
        let old = format!(r#"{{"a":{{"{small}":1}}}}"#);
        let new = format!(r#"{{"a":{{"{large}":1}}}}"#);
        assert_eq!(operations(&old, &new), None, "larger than the object");
    }

    /// RFC 6902, as far as we use it.
    fn apply(object: &mut Value, patch: &[u8]) {
        let operations: Vec<Value> = serde_json::from_slice(patch).unwrap();
        for operation in operations {
            let place = operation["path"].as_str().unwrap();
            if operation["op"] == "test" {
                continue;
            }
            let (parent, last) = place.rsplit_once('/').unwrap();
            let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            let last = last.replace("~1", "/").replace("~0", "~");
            if operation["op"] == "remove" {
                assert!(parent.remove(&last).is_some(), "{place} is there");
            } else {
                parent.insert(last, operation["value"].clone());
            }
        }
    }

    /// A value of some shape out of a few names, so that two of them have much in common.
    fn value(seed: &mut u64, depth: u32) -> Value {
        let mut next = |below: u64| {
            *seed =
                seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (*seed >> 33) % below
        };
        match next(if depth == 0 { 2 } else { 6 }) {
            0 => json!(next(3)),
            1 => json!(["", "a/b", "~1"][usize::try_from(next(3)).unwrap()]),
            2 => json!([next(2), {"a": next(2)}]),
            _ => {
                let names = ["a", "b", "c/d", "~", ""];
                let fields = names.iter().filter_map(|name| {
                    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(97);
                    (*seed >> 40)
                        .is_multiple_of(2)
                        .then(|| ((*name).to_owned(), value(seed, depth - 1)))
                });
                Value::Object(fields.collect())
            }
        }
    }

    /// Puts a field of somebody else into every map.
    fn add_foreign(value: &mut Value) {
        if let Value::Object(map) = value {
            map.values_mut().for_each(add_foreign);
            map.insert("foreign".to_owned(), json!({"by": "others"}));
        }
    }

    /// Takes it out again.
    fn without_foreign(value: &mut Value) {
        if let Value::Object(map) = value {
            map.remove("foreign");
            map.values_mut().for_each(without_foreign);
        }
    }

    /// How many maps stand in both at the same place, all the way down.
    fn shared_maps(old: &Value, new: &Value) -> usize {
        let (Value::Object(old), Value::Object(new)) = (old, new) else { return 0 };
        let below = old.iter().filter_map(|(name, value)| Some(shared_maps(value, new.get(name)?)));
        1 + below.sum::<usize>()
    }

    fn foreign_fields(value: &Value) -> usize {
        let Value::Object(map) = value else { return 0 };
        let here = usize::from(map.contains_key("foreign"));
        here + map
            .iter()
            .filter(|(name, _)| *name != "foreign")
            .map(|(_, v)| foreign_fields(v))
            .sum::<usize>()
    }

    #[test]
    fn old_becomes_exactly_new_and_what_others_put_there_stays() {
        let mut seed = 7;
        let mut patches = 0;
        for _ in 0..5000 {
            let whole = |seed: &mut u64| json!({"m": value(seed, 4), "n": value(seed, 3)});
            let (old, new) = (whole(&mut seed), whole(&mut seed));
            let rendered = (raw(&old.to_string()), raw(&new.to_string()));
            let Some(patch) = patch(&GUARD, &rendered.0, &rendered.1) else { continue };
            patches += 1;

            let mut exact = old.clone();
            apply(&mut exact, &patch);
            assert_eq!(exact, new, "{old}");

            let mut live = old.clone();
            add_foreign(&mut live);
            apply(&mut live, &patch);
            assert_eq!(foreign_fields(&live), shared_maps(&old, &new), "{old} {new} {live}");
            without_foreign(&mut live);
            assert_eq!(live, new, "{old}");
        }
        assert!(patches > 1000, "{patches}");
    }
}
