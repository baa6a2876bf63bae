//! Pure: the bytes that are written for an object: as they stand in the pack, with our mark, with
//! owner references of this hub, and without what only an API server may set.
//!
//! Only the top level, `metadata` and three maps below it are taken apart, and only down to raw
//! pieces: numbers, escapes, unknown fields and repeated keys elsewhere reach the server byte for
//! byte. What an object says about its own identity must be what its key says, else a body could
//! name an object that no rule has looked at.

use super::known::{ADOPTED_LABEL, DIGEST_ANNOTATION, Mark, PAIR_LABEL};
use super::transform::MARKER;
use crate::json::{Fields, Text, Writer};
use crate::object::{HUB_OWNED, OWN_PREFIX, ObjectKey, group_of};
use crate::repository::contents::Owner;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("failed to read the object as JSON: {0} is not of the expected form")]
    Malformed(&'static str),
    #[error("the object has {0} more than once")]
    Repeated(&'static str),
    #[error("the object's {0} is not what its key in the backup says")]
    OtherIdentity(&'static str),
    #[error("tokens of service accounts are made by the hub itself")]
    ServiceAccountToken,
}

/// How the object is marked as restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp<'a> {
    Ours {
        pair: &'a str,
    },
    Adopted {
        pair: &'a str,
    },
    /// Not at all: a person put it there.
    Nobodys,
}

/// An object of a backup, taken apart as far as writing needs it.
pub struct Parts<'a> {
    top: Fields<'a>,
    metadata: Fields<'a>,
    labels: Fields<'a>,
    annotations: Fields<'a>,
    owners: Vec<(Owner, Fields<'a>)>,
    /// In place of the one that the object says.
    api_version: Option<String>,
    /// What gives an inert object back what it was.
    reverse: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Refuses what is not an object, what names another object than `key`, and what repeats a
    /// field of which we read one (two readers could disagree about which one counts).
    pub fn of(key: &ObjectKey, object: &'a RawValue) -> Result<Self, BodyError> {
        let top = read(object, "the object")?;
        let metadata = one(&top, "metadata")?.ok_or(BodyError::Malformed("metadata"))?;
        let metadata = read(metadata, "metadata")?;

        let name = text(&metadata, "name")?;
        let namespace = text(&metadata, "namespace")?;
        let api_version = text(&top, "apiVersion")?.unwrap_or_default();
        if name.as_deref() != Some(key.name()) {
            return Err(BodyError::OtherIdentity("name"));
        }
        if namespace.as_deref().unwrap_or_default() != key.namespace() {
            return Err(BodyError::OtherIdentity("namespace"));
        }
        if group_of(&api_version) != key.group() {
            return Err(BodyError::OtherIdentity("group"));
        }
        let is_secret = key.group().is_empty() && key.resource() == "secrets";
        if is_secret
            && text(&top, "type")?.as_deref() == Some("kubernetes.io/service-account-token")
        {
            return Err(BodyError::ServiceAccountToken);
        }

        Ok(Self {
            labels: map(&metadata, "labels")?,
            annotations: map(&metadata, "annotations")?,
            owners: owners(&metadata)?,
            top,
            metadata,
            api_version: None,
            reverse: None,
        })
    }

    /// None: the backup holds none.
    pub fn status(&self) -> Option<&'a RawValue> {
        let field = self.top.0.iter().find(|field| field.name == "status");
        field.map(|field| field.value).filter(|status| status.get() != "null")
    }

    /// The `apiVersion` under which it is written, if that is not its own.
    pub fn converted(&self) -> bool {
        self.api_version.is_some()
    }

    /// Renders the object as one of another version of its kind.
    pub fn convert(&mut self, api_version: String) {
        self.api_version = Some(api_version);
    }

    /// Renders the object with the marker of one that is inert.
    pub fn mark_inert(&mut self, reverse: &'a str) {
        self.reverse = Some(reverse);
    }

    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.iter().map(|(owner, _)| owner)
    }

    /// The body. `live_uids` has one place for each of [`Parts::owners`]: the owner's UID on this
    /// hub, or None to leave the reference out. `resource_version` makes a PUT conditional.
    pub fn render(
        &self,
        stamp: Stamp<'_>,
        mark: Mark,
        live_uids: &[Option<String>],
        resource_version: Option<&str>,
    ) -> Vec<u8> {
        let mut out = Writer::with_capacity(self.size() + 256);
        out.open(b'{');
        for field in &self.top.0 {
            if field.name == "metadata" {
                out.key(field.key);
                self.render_metadata(&mut out, stamp, mark, live_uids, resource_version);
            } else if field.name == "apiVersion"
                && let Some(other) = &self.api_version
            {
                out.key(field.key);
                out.text(other);
            } else {
                out.field(field);
            }
        }
        out.close(b'}');
        out.finish()
    }

    fn size(&self) -> usize {
        self.top.0.iter().map(|field| field.key.get().len() + field.value.get().len() + 2).sum()
    }

    fn render_metadata(
        &self,
        out: &mut Writer,
        stamp: Stamp<'_>,
        mark: Mark,
        live_uids: &[Option<String>],
        resource_version: Option<&str>,
    ) {
        let replaced = ["labels", "annotations", "ownerReferences"];
        out.open(b'{');
        for field in &self.metadata.0 {
            if !HUB_OWNED.contains(&&*field.name) && !replaced.contains(&&*field.name) {
                out.field(field);
            }
        }
        let label = match stamp {
            Stamp::Ours { pair } => Some((PAIR_LABEL, pair)),
            Stamp::Adopted { pair } => Some((ADOPTED_LABEL, pair)),
            Stamp::Nobodys => None,
        };
        let mark = mark.to_string();
        let annotations = label.map(|_| (DIGEST_ANNOTATION, &*mark)).into_iter();
        let annotations = annotations.chain(self.reverse.map(|reverse| (MARKER, reverse)));
        render_map(out, "labels", &self.labels, label.into_iter());
        render_map(out, "annotations", &self.annotations, annotations);
        self.render_owners(out, live_uids);
        if let Some(version) = resource_version {
            out.name("resourceVersion");
            out.text(version);
        }
        out.close(b'}');
    }

    fn render_owners(&self, out: &mut Writer, live_uids: &[Option<String>]) {
        if live_uids.iter().all(Option::is_none) {
            return;
        }
        out.name("ownerReferences");
        out.open(b'[');
        for ((_, fields), uid) in self.owners.iter().zip(live_uids) {
            let Some(uid) = uid else { continue };
            out.next();
            out.open(b'{');
            fields.0.iter().filter(|field| field.name != "uid").for_each(|field| out.field(field));
            out.name("uid");
            out.text(uid);
            out.close(b'}');
        }
        out.close(b']');
    }
}

/// A map without what is ours in it, and with these entries of ours; nothing for an empty map.
fn render_map<'o>(
    out: &mut Writer,
    name: &str,
    map: &Fields<'_>,
    ours: impl Iterator<Item = (&'o str, &'o str)>,
) {
    let mut ours = ours.peekable();
    let mut kept = map.0.iter().filter(|field| !field.name.starts_with(OWN_PREFIX)).peekable();
    if kept.peek().is_none() && ours.peek().is_none() {
        return;
    }
    out.name(name);
    out.open(b'{');
    kept.for_each(|field| out.field(field));
    for (ours, value) in ours {
        out.name(ours);
        out.text(value);
    }
    out.close(b'}');
}

fn owners<'a>(metadata: &Fields<'a>) -> Result<Vec<(Owner, Fields<'a>)>, BodyError> {
    const WHAT: &str = "metadata.ownerReferences";
    let Some(raw) = one(metadata, "ownerReferences")?.filter(|raw| raw.get() != "null") else {
        return Ok(Vec::new());
    };
    let references: Vec<&'a RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| BodyError::Malformed(WHAT))?;
    references
        .into_iter()
        .map(|reference| {
            let fields = read(reference, WHAT)?;
            let part = |name| -> Result<Box<str>, BodyError> {
                Ok(text(&fields, name)?.ok_or(BodyError::Malformed(WHAT))?.into())
            };
            let owner = Owner {
                api_version: part("apiVersion")?,
                kind: part("kind")?,
                name: part("name")?,
                uid: part("uid")?,
            };
            Ok((owner, fields))
        })
        .collect()
}

fn read<'a>(raw: &'a RawValue, what: &'static str) -> Result<Fields<'a>, BodyError> {
    Fields::read(raw).map_err(|_| BodyError::Malformed(what))
}

fn one<'a>(fields: &Fields<'a>, name: &'static str) -> Result<Option<&'a RawValue>, BodyError> {
    let mut found = fields.0.iter().filter(|field| field.name == name);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(BodyError::Repeated(name)),
        (found, None) => Ok(found.map(|field| field.value)),
    }
}

fn text<'a>(fields: &Fields<'a>, name: &'static str) -> Result<Option<Cow<'a, str>>, BodyError> {
    let Some(raw) = one(fields, name)? else { return Ok(None) };
    let text: Option<Text<'a>> =
        serde_json::from_str(raw.get()).map_err(|_| BodyError::Malformed(name))?;
    Ok(text.map(|Text(text)| text))
}

/// An absent or `null` map is an empty one.
fn map<'a>(fields: &Fields<'a>, name: &'static str) -> Result<Fields<'a>, BodyError> {
    match one(fields, name)? {
        Some(raw) if raw.get() != "null" => read(raw, name),
        _ => Ok(Fields::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::*;
    use crate::object::{Digest, Set};

    const MARK: &str = "ba7816bf8f01cfea";

    fn render(
        name: &str,
        object: &str,
        live: &[Option<&str>],
        version: Option<&str>,
    ) -> Result<String, String> {
        let raw: Box<RawValue> = serde_json::from_str(object).unwrap();
        let parts = Parts::of(&key(name), &raw).map_err(|error| error.to_string())?;
        let live: Vec<_> = live.iter().map(|uid| uid.map(str::to_owned)).collect();
        let mark = Mark::new(&Digest::of(b"abc"), Set::Resources, 0);
        let body = parts.render(Stamp::Ours { pair: "eu" }, mark, &live, version);
        Ok(String::from_utf8(body).unwrap())
    }

    fn check(object: &str, live: &[Option<&str>], version: Option<&str>, expected: &str) {
        let expected = expected.replace("MARK", &format!(r#""understudy.dev/digest":"{MARK}""#));
        assert_eq!(render("/configmaps/ns/a", object, live, version), Ok(expected));
    }

    #[test]
    fn all_other_bytes_stay_as_they_are() {
        check(
            r#"{"apiVersion":"v1","kind":"ConfigMap","x":[1.0,1e3,12345678901234567890,-0.0,1E+2],"d":{"a":1,"a":2,"\u0061":"\u00e9\/é"},"metadata":{"name":"a","namespace":"ns","odd":{"z":1.50,"z":[]},"labels":{"b":"2","a":"\u0031"},"annotations":{"t":"\n"}}}"#,
            &[],
            None,
            r#"{"apiVersion":"v1","kind":"ConfigMap","x":[1.0,1e3,12345678901234567890,-0.0,1E+2],"d":{"a":1,"a":2,"\u0061":"\u00e9\/é"},"metadata":{"name":"a","namespace":"ns","odd":{"z":1.50,"z":[]},"labels":{"b":"2","a":"\u0031","understudy.dev/pair":"eu"},"annotations":{"t":"\n",MARK}}}"#,
        );
    }

    #[test]
    fn what_is_ours_or_the_servers_is_replaced() {
        check(
            r#"{"apiVersion":"v1","metadata":{"uid":"evil","name":"a","resourceVersion":"7","namespace":"ns","managedFields":[],"deletionTimestamp":"x","labels":{"understudy.dev/pair":"other","a":"1"},"annotations":{"understudy.dev/digest":"x","understudy\u002edev/y":"x"},"finalizers":["f"]}}"#,
            &[],
            Some("42"),
            r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns","finalizers":["f"],"labels":{"a":"1","understudy.dev/pair":"eu"},"annotations":{MARK},"resourceVersion":"42"}}"#,
        );
    }

    #[test]
    fn what_a_person_restores_is_nobodys() {
        let object = |labels: &str| {
            format!(r#"{{"apiVersion":"v1","metadata":{{"name":"a","namespace":"ns"{labels}}}}}"#)
        };
        let mark = Mark::new(&Digest::of(b"abc"), Set::Resources, 0);
        for (labels, expected) in [
            ("", ""),
            (r#","labels":{},"annotations":null"#, ""),
            (r#","labels":{"understudy.dev/pair":"eu","a":"1"}"#, r#","labels":{"a":"1"}"#),
            (r#","annotations":{"understudy.dev/digest":"x"}"#, ""),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(&object(labels)).unwrap();
            let parts = Parts::of(&key("/configmaps/ns/a"), &raw).unwrap();
            let body = parts.render(Stamp::Nobodys, mark, &[], None);
            assert_eq!(String::from_utf8(body).unwrap(), object(expected));
        }
    }

    #[test]
    fn a_body_of_another_version_says_so() {
        let raw: Box<RawValue> = serde_json::from_str(
            r#"{"apiVersion":"x.io/v1beta1","kind":"T","metadata":{"name":"a","namespace":"ns"}}"#,
        )
        .unwrap();
        let mut parts = Parts::of(&key("x.io/things/ns/a"), &raw).unwrap();
        parts.convert("x.io/v1".to_owned());
        let mark = Mark::new(&Digest::of(b"abc"), Set::Resources, 0);
        let body = parts.render(Stamp::Ours { pair: "eu" }, mark, &[], None);
        let body = String::from_utf8(body).unwrap();
        assert!(body.starts_with(r#"{"apiVersion":"x.io/v1","kind":"T","#), "{body}");
    }

    #[test]
    fn absent_and_null_maps_become_maps() {
        for metadata in [
            r#""name":"a","namespace":"ns""#,
            r#""labels":null,"name":"a","annotations":null,"namespace":"ns","ownerReferences":null"#,
        ] {
            check(
                &format!(r#"{{"apiVersion":"v1","metadata":{{{metadata}}}}}"#),
                &[],
                None,
                r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns","labels":{"understudy.dev/pair":"eu"},"annotations":{MARK}}}"#,
            );
        }
    }

    #[test]
    fn owner_references_get_the_uid_of_this_hub_or_go() {
        let object = r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns","ownerReferences":[{"apiVersion":"v1","kind":"Secret","name":"s","uid":"there","controller":true,"odd":1.0},{"apiVersion":"x.io/v1","kind":"T","name":"t","uid":"gone"}]}}"#;
        let around = |owners: &str| {
            format!(
                r#"{{"apiVersion":"v1","metadata":{{"name":"a","namespace":"ns","labels":{{"understudy.dev/pair":"eu"}},"annotations":{{MARK}}{owners}}}}}"#
            )
        };
        let secret = r#"{"apiVersion":"v1","kind":"Secret","name":"s","controller":true,"odd":1.0,"uid":"here"}"#;
        let thing = r#"{"apiVersion":"x.io/v1","kind":"T","name":"t","uid":"here2"}"#;
        check(
            object,
            &[Some("here"), None],
            None,
            &around(&format!(r#","ownerReferences":[{secret}]"#)),
        );
        check(
            object,
            &[Some("here"), Some("here2")],
            None,
            &around(&format!(r#","ownerReferences":[{secret},{thing}]"#)),
        );
        check(object, &[None, None], None, &around(""));
    }

    #[test]
    fn a_body_that_is_not_the_object_of_its_key_is_refused() {
        for (key, object) in [
            ("/configmaps/ns/a", r#"{"apiVersion":"v1","metadata":{"name":"b","namespace":"ns"}}"#),
            (
                "/configmaps/ns/a",
                r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"kube-system"}}"#,
            ),
            (
                "/configmaps/ns/a",
                r#"{"apiVersion":"x.io/v1","metadata":{"name":"a","namespace":"ns"}}"#,
            ),
            (
                "/configmaps/ns/a",
                r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns","n\u0061me":"b"}}"#,
            ),
            (
                "/configmaps/ns/a",
                r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns"},"metadata":{}}"#,
            ),
            ("/configmaps/ns/a", r#"{"apiVersion":"v1","metadata":[]}"#),
            ("/configmaps/ns/a", r#"{"apiVersion":"v1"}"#),
            ("/configmaps/ns/a", "[]"),
            (
                "/configmaps/ns/a",
                r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns","labels":[]}}"#,
            ),
            (
                "/configmaps/ns/a",
                r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns","ownerReferences":[{"kind":"x"}]}}"#,
            ),
            (
                "/secrets/ns/a",
                r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns"},"type":"kubernetes.io/service-account-token"}"#,
            ),
        ] {
            assert!(render(key, object, &[], None).is_err(), "{object}");
        }
    }
}
