//! Pure: makes an object inert by a JSON merge patch (RFC 7396), and tells what gives it back what it was.
//!
//! A passive hub holds inert what would act. The backup keeps the object as it is; what stands on the
//! passive hub carries the annotation [`MARKER`] with the reverse patch, so that whoever reads it there
//! can read it as it was, even when it was not woken. Metadata beyond labels and annotations is not
//! touched, but for finalizers: an inert object has none, because nothing was made for it here that
//! would have to be cleaned up, and nothing must be when it is deleted here.
//!
//! A merge patch cannot say `null`: what holds one where it would have to be given back is refused.

use super::conflict::agrees;
use crate::capture::rules::Globs;
use crate::json::{Field, Fields, Writer};
use crate::object::{Digest, Kind, OWN_PREFIX, ObjectKey};
use serde::de::Error as _;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// On an object that is inert: what must be merged into it to get the original back.
pub const MARKER: &str = "understudy.dev/inert";

/// Maps of `metadata` to which others add: in these, single entries come and go.
const SHARED_MAPS: [&str; 2] = ["annotations", "labels"];
const FINALIZERS: &str = "finalizers";

/// Everything that is named must agree. The first rule that agrees counts.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformRule {
    /// API group; the core group is `""`.
    group: Option<Globs>,
    /// As in a manifest: `CronJob`.
    kind: Option<Globs>,
    /// A category of the kind, of those that its CRD names.
    category: Option<Globs>,
    namespace: Option<Globs>,
    name: Option<Globs>,
    /// A JSON merge patch, such as `{spec: {suspend: true}}`. With `{}` the object stays as it is.
    pub(super) patch: Patch,
}

impl TransformRule {
    pub fn matches(&self, kind: &Kind, key: &ObjectKey) -> bool {
        let among = |globs: &Globs| kind.categories.iter().any(|category| globs.matches(category));
        self.may_match(key)
            && agrees(self.kind.as_ref(), &kind.kind)
            && self.category.as_ref().is_none_or(among)
    }

    /// Whether it could match an object of which the kind is not known.
    pub(super) fn may_match(&self, key: &ObjectKey) -> bool {
        agrees(self.group.as_ref(), key.group())
            && agrees(self.namespace.as_ref(), key.namespace())
            && agrees(self.name.as_ref(), key.name())
    }

    pub fn names_nothing(&self) -> bool {
        let Self { group, kind, category, namespace, name, patch: _ } = self;
        let names = [group, kind, category, namespace, name];
        names.iter().all(|globs| globs.is_none())
    }

    /// The annotation would show what the Secret keeps.
    pub fn reaches_secrets(&self) -> bool {
        agrees(self.group.as_ref(), "")
            && agrees(self.kind.as_ref(), "Secret")
            && self.category.is_none()
            && !self.patch.is_empty()
    }
}

/// What makes an object inert.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Patch {
    /// None: nothing.
    merge: Option<Box<RawValue>>,
    tag: u32,
}

impl Patch {
    pub(super) fn is_empty(&self) -> bool {
        self.merge.is_none()
    }

    /// Tells one patch from another, in the mark of what it made inert.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// The object as it stands on a passive hub.
    pub fn apply(&self, object: &RawValue) -> Result<Inert, TransformError> {
        let Some(patch) = &self.merge else {
            return Ok(Inert { object: object.to_owned(), reverse: "{}".to_owned() });
        };
        let reverse = reverse(object, patch, Place::Object)?;
        Ok(Inert { object: merged(Some(object), patch)?, reverse: reverse.get().to_owned() })
    }
}

impl TryFrom<Map<String, Value>> for Patch {
    type Error = String;

    fn try_from(mut patch: Map<String, Value>) -> Result<Self, String> {
        may_touch(&patch)?;
        if patch.is_empty() {
            return Ok(Self { merge: None, tag: 0 });
        }
        let metadata = patch.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        metadata[FINALIZERS] = Value::Null;
        let merge = to_raw_value(&patch).expect("a value becomes JSON in memory");
        let first = Digest::of(merge.get().as_bytes()).0;
        let tag = u32::from_be_bytes(*first.first_chunk().expect("a digest has 32 bytes"));
        Ok(Self { merge: Some(merge), tag })
    }
}

impl schemars::JsonSchema for Patch {
    fn schema_name() -> Cow<'static, str> {
        "Patch".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
}

/// Refuses what says which object it is, who owns it, and what is ours or the controllers'.
fn may_touch(patch: &Map<String, Value>) -> Result<(), String> {
    if let Some(name) =
        patch.keys().find(|name| matches!(&***name, "apiVersion" | "kind" | "status"))
    {
        return Err(format!("a transform may not touch {name}"));
    }
    let Some(metadata) = patch.get("metadata") else { return Ok(()) };
    let Value::Object(metadata) = metadata else {
        return Err("a transform may not replace metadata as a whole".to_owned());
    };
    for (name, map) in metadata {
        if !SHARED_MAPS.contains(&&**name) {
            return Err(format!("a transform may not touch metadata.{name}"));
        }
        let Value::Object(map) = map else {
            return Err(format!("a transform may not replace metadata.{name} as a whole"));
        };
        for (key, value) in map {
            if key.starts_with(OWN_PREFIX) {
                return Err(format!("a transform may not touch {key}, which is Understudy's own"));
            }
            if !matches!(value, Value::String(_) | Value::Null) {
                return Err(format!(
                    "metadata.{name}: the value of {key} must be a string or null"
                ));
            }
        }
    }
    Ok(())
}

/// An object as a passive hub holds it.
#[derive(Debug)]
pub struct Inert {
    pub object: Box<RawValue>,
    /// JSON: the value of [`MARKER`].
    pub reverse: String,
}

impl Inert {
    /// With its marker, as it must be found on the hub.
    pub fn marked(&self) -> Result<Box<RawValue>, TransformError> {
        let marker = serde_json::json!({"metadata": {"annotations": {MARKER: self.reverse}}});
        let marker = to_raw_value(&marker).expect("a value becomes JSON in memory");
        merged(Some(&self.object), &marker)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    #[error("it cannot be made inert: what the transform replaces holds a null")]
    Null,
    #[error("it cannot be made inert: a field stands there twice")]
    Repeated,
    #[error("it cannot be made inert: it cannot be read as JSON")]
    Malformed(#[source] serde_json::Error),
}

/// The object as it was before it was made inert. `None`: it is not inert. A marker that nobody of ours
/// can have written is an error, which quotes nothing of it.
pub fn original(object: &RawValue) -> Result<Option<Box<RawValue>>, serde_json::Error> {
    // Nearly always it is nowhere in it, and then nothing is taken apart.
    if !object.get().contains(MARKER) {
        return Ok(None);
    }
    let Some(metadata) = field(object, "metadata")? else { return Ok(None) };
    let Some(annotations) = field(metadata, "annotations")? else { return Ok(None) };
    let Some(marker) = field(annotations, MARKER)? else { return Ok(None) };
    let named = |name| -> Result<String, serde_json::Error> {
        let text = field(metadata, name)?.map(|raw| serde_json::from_str(raw.get())).transpose()?;
        Ok(text.unwrap_or_default())
    };
    let (namespace, name) = (named("namespace")?, named("name")?);
    let bad = || serde_json::Error::custom(format!("{namespace}/{name}: {MARKER} is no marker"));
    let text: String = serde_json::from_str(marker.get()).map_err(|_| bad())?;
    let mut patch: Map<String, Value> = serde_json::from_str(&text).map_err(|_| bad())?;
    let reverse: Box<RawValue> = serde_json::from_str(&text).map_err(|_| bad())?;
    if let Some(Value::Object(metadata)) = patch.get_mut("metadata") {
        metadata.remove(FINALIZERS);
    }
    may_touch(&patch).map_err(|_| bad())?;
    merged(Some(object), &reverse).map(Some).map_err(|_| bad())
}

fn field<'a>(object: &'a RawValue, name: &str) -> Result<Option<&'a RawValue>, serde_json::Error> {
    if !is_object(object) {
        return Ok(None);
    }
    let found = Fields::read(object)?.0.into_iter().rfind(|field| field.name == name);
    Ok(found.map(|field| field.value))
}

/// RFC 7396. What is new stands before the first greater name: where names are sorted, they stay so.
fn merged(target: Option<&RawValue>, patch: &RawValue) -> Result<Box<RawValue>, TransformError> {
    if !is_object(patch) {
        return Ok(patch.to_owned());
    }
    let (old, patch) = (fields(target)?, fields(Some(patch))?);
    let mut out = Writer::with_capacity(target.map_or(0, |target| target.get().len()) + 64);
    let mut new: Vec<&Field<'_>> = patch.0.iter().collect();
    new.retain(|new| new.value.get() != "null" && find(&old, &new.name).is_none());
    new.sort_by(|a, b| b.name.cmp(&a.name));
    let add = |out: &mut Writer, field: &Field<'_>| -> Result<(), TransformError> {
        out.key(field.key);
        out.raw(&merged(None, field.value)?);
        Ok(())
    };
    out.open(b'{');
    for field in &old.0 {
        while let Some(first) = new.pop_if(|first| first.name < field.name) {
            add(&mut out, first)?;
        }
        match find(&patch, &field.name) {
            Some(value) if value.get() == "null" => {}
            Some(value) => {
                out.key(field.key);
                out.raw(&merged(Some(field.value), value)?);
            }
            None => out.field(field),
        }
    }
    while let Some(first) = new.pop() {
        add(&mut out, first)?;
    }
    out.close(b'}');
    let json = String::from_utf8(out.finish()).expect("pieces of JSON text are text");
    RawValue::from_string(json).map_err(TransformError::Malformed)
}

/// Where in an object a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Metadata,
    /// Others add entries to it, so that it is never taken away as a whole.
    SharedMap,
    Elsewhere,
}

impl Place {
    fn below(self, name: &str) -> Self {
        match self {
            Place::Object if name == "metadata" => Place::Metadata,
            Place::Metadata if SHARED_MAPS.contains(&name) => Place::SharedMap,
            Place::Object | Place::Metadata | Place::SharedMap | Place::Elsewhere => {
                Place::Elsewhere
            }
        }
    }
}

/// What must be merged into `target` with `patch` in it to have `target` again.
fn reverse(
    target: &RawValue,
    patch: &RawValue,
    place: Place,
) -> Result<Box<RawValue>, TransformError> {
    let (old, patch) = (fields(Some(target))?, fields(Some(patch))?);
    let mut out = Writer::with_capacity(64);
    out.open(b'{');
    for Field { key, name, value } in &patch.0 {
        let place = place.below(name);
        let back: Box<RawValue> = match find(&old, name) {
            None if value.get() == "null" => continue,
            None if place == Place::SharedMap => reverse(RawValue::NULL, value, place)?,
            None => RawValue::NULL.to_owned(),
            Some(old) if is_object(old) && is_object(value) => reverse(old, value, place)?,
            Some(old) if holds_null(old)? => return Err(TransformError::Null),
            Some(old) if old.get() == value.get() => continue,
            Some(old) => old.to_owned(),
        };
        if is_object(value) && back.get() == "{}" {
            continue;
        }
        out.key(key);
        out.raw(&back);
    }
    out.close(b'}');
    let json = String::from_utf8(out.finish()).expect("pieces of JSON text are text");
    RawValue::from_string(json).map_err(TransformError::Malformed)
}

/// Whether a merge patch that says this would lose a part of it. Lists are taken as they are.
fn holds_null(value: &RawValue) -> Result<bool, TransformError> {
    if !is_object(value) {
        return Ok(value.get() == "null");
    }
    fields(Some(value))?
        .0
        .iter()
        .try_fold(false, |held, field| Ok(held || holds_null(field.value)?))
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// None for what is no object, as the RFC has it.
fn fields(raw: Option<&RawValue>) -> Result<Fields<'_>, TransformError> {
    let Some(raw) = raw.filter(|raw| is_object(raw)) else { return Ok(Fields::default()) };
    let fields: Fields<'_> = Fields::read(raw).map_err(TransformError::Malformed)?;
    let mut names: Vec<&str> = fields.0.iter().map(|field| &*field.name).collect();
    names.sort_unstable();
    let repeated = names.windows(2).any(|pair| pair[0] == pair[1]);
    if repeated { Err(TransformError::Repeated) } else { Ok(fields) }
}

fn find<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a RawValue> {
    fields.0.iter().find(|field| field.name == name).map(|field| field.value)
}

#[cfg(test)]
mod tests {
    use super::super::body::{Parts, Stamp};
    use super::super::known::Mark;
    use super::super::testing::{key, kind};
    use super::*;
    use crate::capture::clean::clean;
    use crate::object::Set;
    use proptest::prelude::*;
    use serde_json::json;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    fn patch(patch: &Value) -> Result<Patch, String> {
        serde_json::from_value(patch.clone()).map_err(|error| error.to_string())
    }

    /// The object under a rule with this patch, and its reverse.
    fn check(patched: &str, object: &str, inert: &str, reverse: &str) {
        let patch: Patch = serde_json::from_str(patched).unwrap();
        let found = patch.apply(&raw(object)).unwrap();
        assert_eq!(found.object.get(), inert, "{patched} on {object}");
        assert_eq!(found.reverse, reverse, "{patched} on {object}");
    }

    #[test]
    fn an_object_is_made_inert_and_what_it_was_is_kept() {
        let suspend = r#"{"spec":{"suspend":true}}"#;
        check(
            suspend,
            r#"{"metadata":{"name":"a"},"spec":{"schedule":"@daily","suspend":false,"z":1.50}}"#,
            r#"{"metadata":{"name":"a"},"spec":{"schedule":"@daily","suspend":true,"z":1.50}}"#,
            r#"{"spec":{"suspend":false}}"#,
        );
        check(
            suspend,
            r#"{"metadata":{"finalizers":["f"],"name":"a"},"spec":{"schedule":"@daily","z":1e3}}"#,
            r#"{"metadata":{"name":"a"},"spec":{"schedule":"@daily","suspend":true,"z":1e3}}"#,
            r#"{"metadata":{"finalizers":["f"]},"spec":{"suspend":null}}"#,
        );
        check(
            suspend,
            r#"{"metadata":{"name":"a"},"spec":{"suspend":true}}"#,
            r#"{"metadata":{"name":"a"},"spec":{"suspend":true}}"#,
            "{}",
        );
        check(
            r#"{"operation":null,"spec":{"syncPolicy":{"automated":null}}}"#,
            r#"{"metadata":{},"operation":{"sync":{}},"spec":{"syncPolicy":{"automated":{"prune":true},"list":[null,1]}}}"#,
            r#"{"metadata":{},"spec":{"syncPolicy":{"list":[null,1]}}}"#,
            r#"{"operation":{"sync":{}},"spec":{"syncPolicy":{"automated":{"prune":true}}}}"#,
        );
        check(
            r#"{"metadata":{"annotations":{"x/paused":"true"}}}"#,
            r#"{"metadata":{"name":"a"}}"#,
            r#"{"metadata":{"annotations":{"x/paused":"true"},"name":"a"}}"#,
            r#"{"metadata":{"annotations":{"x/paused":null}}}"#,
        );
        check(
            r#"{"spec":{"a":{"b":1,"c":null}}}"#,
            r#"{"metadata":{},"spec":{"a":[1,{"x":null}]}}"#,
            r#"{"metadata":{},"spec":{"a":{"b":1}}}"#,
            r#"{"spec":{"a":[1,{"x":null}]}}"#,
        );
    }

    #[test]
    fn what_could_not_be_given_back_is_not_taken() {
        let patch = patch(&json!({"spec": {"a": 1}})).unwrap();
        for (object, expected) in [
            (r#"{"metadata":{},"spec":{"a":null}}"#, "holds a null"),
            (r#"{"metadata":{},"spec":{"a":{"b":{"c":null}}}}"#, "holds a null"),
            (r#"{"metadata":{},"spec":{"a":1,"\u0061":2}}"#, "stands there twice"),
            (r#"{"metadata":{},"metadata":{}}"#, "stands there twice"),
        ] {
            let error = patch.apply(&raw(object)).unwrap_err().to_string();
            assert!(error.contains(expected), "{object}: {error}");
        }
    }

    #[test]
    fn a_patch_may_not_touch_what_is_not_the_objects_own() {
        for (written, expected) in [
            (json!({"apiVersion": "v2"}), "touch apiVersion"),
            (json!({"kind": null}), "touch kind"),
            (json!({"status": {}}), "touch status"),
            (json!({"metadata": null}), "metadata as a whole"),
            (json!({"metadata": {"name": "b"}}), "touch metadata.name"),
            (json!({"metadata": {"namespace": "b"}}), "touch metadata.namespace"),
            (json!({"metadata": {"finalizers": []}}), "touch metadata.finalizers"),
            (json!({"metadata": {"ownerReferences": null}}), "touch metadata.ownerReferences"),
            (json!({"metadata": {"labels": null}}), "metadata.labels as a whole"),
            (json!({"metadata": {"labels": {"a": 1}}}), "must be a string"),
            (json!({"metadata": {"annotations": {MARKER: null}}}), "Understudy's own"),
            (json!({"metadata": {"labels": {"understudy.dev/pair": "x"}}}), "Understudy's own"),
            (json!([]), "expected a map"),
        ] {
            let error = patch(&written).unwrap_err();
            assert!(error.contains(expected), "{written}: {error}");
        }
        assert!(patch(&json!({})).unwrap().is_empty());
        let tag = |written: &Value| patch(written).unwrap().tag();
        let suspended = json!({"spec": {"suspend": true}});
        assert_eq!(tag(&suspended), tag(&suspended.clone()));
        assert_ne!(tag(&suspended), tag(&json!({"spec": {"suspend": false}})));
    }

    #[test]
    fn a_marker_that_nobody_of_ours_wrote_is_an_error_that_quotes_nothing() {
        let object = |marker: &str| {
            let annotations = json!({MARKER: marker});
            raw(&json!({"metadata": {"name": "a", "namespace": "ns", "annotations": annotations}})
                .to_string())
        };
        for marker in [
            "",
            "canary",
            "[]",
            "null",
            r#"{"kind":"Canary"}"#,
            r#"{"metadata":{"name":"canary"}}"#,
            r#"{"metadata":{"annotations":{"understudy.dev/digest":"canary"}}}"#,
            r#"{"metadata":null}"#,
            r#"{"spec":{"canary":1,"canary":2}}"#,
        ] {
            let error = original(&object(marker)).unwrap_err().to_string();
            assert!(error.contains("ns/a") && !error.contains("anary"), "{marker}: {error}");
        }
        let no_text = raw(r#"{"metadata":{"annotations":{"understudy.dev/inert":1}}}"#);
        assert!(original(&no_text).is_err());
        for text in [
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"annotations":{"a":"understudy.dev/inert"}}}"#,
            r#"{"metadata":{"annotations":null},"data":{"understudy.dev/inert":"{}"}}"#,
        ] {
            assert!(original(&raw(text)).unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn what_others_add_beside_an_inert_object_is_kept() {
        let text = concat!(
            r#"{"metadata":{"annotations":{"other":"1","paused":"true","#,
            r#""understudy.dev/inert":"{\"metadata\":{\"annotations\":{\"paused\":null}},\"spec\":{\"n\":3}}"},"#,
            r#""name":"a"},"spec":{"added":true,"n":0}}"#,
        );
        let found = original(&raw(text)).unwrap().unwrap();
        let found: Value = serde_json::from_str(found.get()).unwrap();
        assert_eq!(found["spec"], json!({"added": true, "n": 3}));
        assert_eq!(found["metadata"]["annotations"]["other"], "1");
        assert_eq!(found["metadata"]["annotations"].get("paused"), None);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            1 => Just(Value::Null),
            3 => (0..3_u32).prop_map(Value::from),
            3 => "[a-c]{0,1}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                4 => prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Never empty: an API server leaves an empty one out.
    fn names(value: &'static str) -> impl Strategy<Value = Option<Value>> {
        let map = prop::collection::btree_map("[a-c]/[xy]", value, 1..3);
        prop::option::of(map.prop_map(|map| {
            Value::Object(map.into_iter().map(|(name, text)| (name, text.into())).collect())
        }))
    }

    fn with(mut object: Value, parts: [(&str, Option<Value>); 3]) -> Value {
        for (name, value) in parts {
            if let (Some(value), Some(map)) = (value, object.as_object_mut()) {
                map.insert(name.to_owned(), value);
            }
        }
        object
    }

    /// As the RFC writes it down.
    fn reference(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut map = if let Value::Object(map) = target { map } else { Map::new() };
        for (name, value) in patch {
            let old = map.remove(name).unwrap_or_default();
            if !value.is_null() {
                map.insert(name.clone(), reference(old, value));
            }
        }
        Value::Object(map)
    }

    fn holds_null(value: &Value) -> bool {
        value.as_object().map_or(value.is_null(), |map| map.values().any(holds_null))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What a backup takes from an inert object is, byte for byte, what it takes from the awake one.
        #[test]
        fn an_inert_object_is_captured_as_it_was(
            (spec, more) in (value(), value()),
            (labels, annotations, owned) in (names("[vw]"), names("[vw]"), any::<bool>()),
            (patched, patched_labels, patched_annotations) in (value(), names("[wx]"), names("[wx]")),
        ) {
            let finalizers = owned.then(|| json!(["f"]));
            let metadata = with(json!({"name": "a", "namespace": "ns"}), [
                ("labels", labels), ("annotations", annotations), ("finalizers", finalizers),
            ]);
            let object = json!({
                "apiVersion": "x.io/v1", "kind": "Part",
                "metadata": metadata, "more": more, "spec": spec,
            });
            let patched = with(json!({"spec": patched}), [
                ("metadata", Some(with(json!({}), [
                    ("labels", patched_labels), ("annotations", patched_annotations), ("", None),
                ]))),
                ("", None), ("", None),
            ]);
            let written = raw(&object.to_string());
            let inert = match patch(&patched).unwrap().apply(&written) {
                Ok(inert) => inert,
                Err(error) => {
                    prop_assert!(matches!(error, TransformError::Null), "{error}");
                    prop_assert!(holds_null(&object));
                    return Ok(());
                }
            };
            let mut expected = reference(object, &patched);
            expected["metadata"].as_object_mut().unwrap().remove(FINALIZERS);
            let found: Value = serde_json::from_str(inert.object.get()).unwrap();
            prop_assert_eq!(found, expected);

            let mut parts = Parts::of(&key("x.io/parts/ns/a"), &inert.object).unwrap();
            parts.mark_inert(&inert.reverse);
            let mark = Mark::new(&Digest::of(b""), Set::Resources, 0);
            let stands = parts.render(Stamp::Ours { pair: "eu" }, mark, &[], None);
            let kind = kind("x.io", "Part", "parts", true);
            let cleaned = |object: &RawValue| {
                String::from_utf8(clean(object, &kind, false).unwrap()).unwrap()
            };
            // An API server sorts the names, as it did in the original.
            let stands: Value = serde_json::from_slice(&stands).unwrap();
            prop_assert_eq!(cleaned(&raw(&stands.to_string())), cleaned(&written));
        }
    }
}
