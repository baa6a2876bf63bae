//! Pure: reads the head of a raw object, and writes it without what only its own hub may know.
//!
//! Objects are handled as raw JSON: numbers, unknown fields, the order of keys and duplicate keys
//! survive, because nothing is turned into a typed struct and back.

use crate::json::{Fields, Text, Writer};
use crate::object::{HUB_OWNED, Kind, OWN_PREFIX};
use crate::restore::transform;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The fields of an object that selection and change detection look at.
#[derive(Debug)]
pub struct Head<'a> {
    pub name: Cow<'a, str>,
    /// Empty for cluster-scoped objects.
    pub namespace: Cow<'a, str>,
    pub uid: Cow<'a, str>,
    pub resource_version: Cow<'a, str>,
    pub labels: Pairs<'a>,
    pub annotations: Pairs<'a>,
    pub being_deleted: bool,
    /// The top-level field `type`, if it is a string.
    pub r#type: Option<Cow<'a, str>>,
    /// Kind of the owner that controls it.
    pub controller_kind: Option<Cow<'a, str>>,
}

pub type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Reads the head of an item of a list.
pub fn head(object: &RawValue) -> Result<Head<'_>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Top<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
        #[serde(borrow, default)]
        r#type: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow, default)]
        namespace: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        uid: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        resource_version: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        labels: Option<Fields<'a, Text<'a>>>,
        #[serde(borrow, default)]
        annotations: Option<Fields<'a, Text<'a>>>,
        #[serde(default)]
        deletion_timestamp: Option<IgnoredAny>,
        #[serde(borrow, default)]
        owner_references: Option<Vec<Owner<'a>>>,
    }
    #[derive(Deserialize)]
    struct Owner<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(default)]
        controller: Option<bool>,
    }
    fn pairs<'a>(fields: Option<Fields<'a, Text<'a>>>) -> Pairs<'a> {
        let fields = fields.unwrap_or_default().0.into_iter();
        fields.map(|field| (field.name, field.value.0)).collect()
    }

    let Top { metadata, r#type } = serde_json::from_str(object.get())?;
    Ok(Head {
        name: metadata.name,
        namespace: metadata.namespace.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        labels: pairs(metadata.labels),
        annotations: pairs(metadata.annotations),
        being_deleted: metadata.deletion_timestamp.is_some(),
        r#type: r#type
            .and_then(|t| serde_json::from_str::<Text<'_>>(t.get()).ok())
            .map(|Text(t)| t),
        controller_kind: metadata
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| owner.kind),
    })
}

/// The object as it is stored: complete (`apiVersion` and `kind` first, which items of built-in
/// lists lack), without what its hub gave it and without what Understudy wrote into it. What is inert
/// is stored as it is when it is awake.
pub fn clean(
    object: &RawValue,
    kind: &Kind,
    keep_status: bool,
) -> Result<Vec<u8>, serde_json::Error> {
    let original = transform::original(object)?;
    as_it_stands(original.as_deref().unwrap_or(object), kind, keep_status)
}

/// The same, also of an inert object.
pub fn as_it_stands(
    object: &RawValue,
    kind: &Kind,
    keep_status: bool,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Writer::with_capacity(object.get().len());
    out.open(b'{');
    out.name("apiVersion");
    out.text(&kind.api_version());
    out.name("kind");
    out.text(&kind.kind);
    for field in &Fields::read(object)?.0 {
        match &*field.name {
            "apiVersion" | "kind" => {}
            "status" if !keep_status => {}
            "metadata" => {
                out.key(field.key);
                clean_metadata(field.value, &mut out)?;
            }
            _ => out.field(field),
        }
    }
    out.close(b'}');
    Ok(out.finish())
}

fn clean_metadata(metadata: &RawValue, out: &mut Writer) -> Result<(), serde_json::Error> {
    let fields = Fields::read(metadata)?;
    out.open(b'{');
    for field in fields.0.iter().filter(|field| !HUB_OWNED.contains(&&*field.name)) {
        let map: Option<Fields<'_>> = match &*field.name {
            "labels" | "annotations" => serde_json::from_str(field.value.get())?,
            _ => None,
        };
        let Some(map) = map.filter(|map| map.0.iter().any(|entry| is_ours(&entry.name))) else {
            out.field(field);
            continue;
        };
        let others: Vec<_> = map.0.iter().filter(|entry| !is_ours(&entry.name)).collect();
        // Where nothing else was in it, the map was ours too.
        if !others.is_empty() {
            out.key(field.key);
            out.open(b'{');
            for entry in others {
                out.field(entry);
            }
            out.close(b'}');
        }
    }
    out.close(b'}');
    Ok(())
}

/// Labels and annotations that do not go into a backup.
fn is_ours(name: &str) -> bool {
    name.starts_with(OWN_PREFIX) || name == LAST_APPLIED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, object: &str, expected: &str) {
        let kind = Kind {
            group: "g.example".to_owned(),
            version: "v1".to_owned(),
            kind: "Thing".to_owned(),
            resource: "things".to_owned(),
            namespaced: true,
            categories: Vec::new(),
        };
        let raw = RawValue::from_string(object.to_owned()).unwrap();
        let cleaned = clean(&raw, &kind, false).unwrap();
        assert_eq!(String::from_utf8(cleaned).unwrap(), expected, "{name}");
    }

    #[test]
    fn cleaning_takes_away_what_the_hub_gave_and_nothing_else() {
        check(
            "what the hub owns",
            r#"{"metadata":{"name":"x","uid":"u","resourceVersion":"1","generation":2,"creationTimestamp":"t","managedFields":[{}],"selfLink":"/","finalizers":["f"],"ownerReferences":[{"uid":"o"}],"unknown":1},"spec":{}}"#,
            r#"{"apiVersion":"g.example/v1","kind":"Thing","metadata":{"name":"x","finalizers":["f"],"ownerReferences":[{"uid":"o"}],"unknown":1},"spec":{}}"#,
        );
        check(
            "numbers, duplicate keys, nulls, escapes and the order of keys",
            r#"{"z":1.0,"a":1e3,"z":12345678901234567890123,"metadata":{"name":"x","labels":null,"annotations":{}},"n":null,"e":"\u0041\n"}"#,
            r#"{"apiVersion":"g.example/v1","kind":"Thing","z":1.0,"a":1e3,"z":12345678901234567890123,"metadata":{"name":"x","labels":null,"annotations":{}},"n":null,"e":"\u0041\n"}"#,
        );
        check(
            "apiVersion and kind come from discovery",
            r#"{"kind":"Thing","apiVersion":"g.example/v1","metadata":{"name":"x"}}"#,
            r#"{"apiVersion":"g.example/v1","kind":"Thing","metadata":{"name":"x"}}"#,
        );
        check(
            "ours among others",
            r#"{"metadata":{"name":"x","labels":{"a":"1","understudy.dev/pair":"p"},"annotations":{"understudy.dev/digest":"d","kubectl.kubernetes.io/last-applied-configuration":"{}"}}}"#,
            r#"{"apiVersion":"g.example/v1","kind":"Thing","metadata":{"name":"x","labels":{"a":"1"}}}"#,
        );
        check(
            "status goes unless it is asked for",
            r#"{"metadata":{"name":"x"},"status":{"a":1}}"#,
            r#"{"apiVersion":"g.example/v1","kind":"Thing","metadata":{"name":"x"}}"#,
        );
    }

    #[test]
    fn the_head_is_read_without_looking_at_the_rest() {
        let text = r#"{"type":"Opaque","metadata":{"name":"x","namespace":"n","uid":"u","resourceVersion":"7","labels":{"a\"b":"c"},"deletionTimestamp":"t","ownerReferences":[{"kind":"A"},{"kind":"B","controller":true}]}}"#;
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        let head = head(&raw).unwrap();
        assert_eq!(
            (&*head.name, &*head.namespace, &*head.uid, &*head.resource_version),
            ("x", "n", "u", "7")
        );
        assert_eq!(head.labels, [(Cow::from("a\"b"), Cow::from("c"))]);
        assert!(head.being_deleted);
        assert_eq!(head.controller_kind.as_deref(), Some("B"));
        assert_eq!(head.r#type.as_deref(), Some("Opaque"));
    }

    #[test]
    fn a_custom_type_field_is_no_secret_type() {
        let raw = RawValue::from_string(r#"{"type":{"a":1},"metadata":{"name":"x"}}"#.to_owned())
            .unwrap();
        assert_eq!(head(&raw).unwrap().r#type, None);
    }
}
