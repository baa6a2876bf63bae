//! Pure: the bytes that are written for an object: as they stand in the pack, with our mark, with
//! owner references of this hub, and without what only an API server may set.
//!
//! Only the top level, `metadata` and three maps below it are taken apart, and only down to raw
//! pieces: numbers, escapes, unknown fields and repeated keys elsewhere reach the server byte for
//! byte. What an object says about its own identity must be what its key says, else a body could
//! name an object that no rule has looked at.

use super::known::{ADOPTED_LABEL, DIGEST_ANNOTATION, Mark, OUR_PREFIX, PAIR_LABEL};
use crate::object::ObjectKey;
use crate::repository::contents::Owner;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Fields of `metadata` that belong to one hub. Capture drops them; a backup is not trusted to.
const SERVER_FIELDS: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

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
    Ours { pair: &'a str },
    Adopted { pair: &'a str },
}

/// An object of a backup, taken apart as far as writing needs it.
pub struct Parts<'a> {
    top: Pairs<'a>,
    metadata: Pairs<'a>,
    labels: Pairs<'a>,
    annotations: Pairs<'a>,
    owners: Vec<(Owner, Pairs<'a>)>,
}

impl<'a> Parts<'a> {
    /// Refuses what is not an object, what names another object than `key`, and what repeats a
    /// field of which we read one (two readers could disagree about which one counts).
    pub fn of(key: &ObjectKey, object: &'a RawValue) -> Result<Self, BodyError> {
        let top = Pairs::read(object, "the object")?;
        let metadata = top.one("metadata")?.ok_or(BodyError::Malformed("metadata"))?;
        let metadata = Pairs::read(metadata, "metadata")?;

        let name = metadata.text("name")?;
        let namespace = metadata.text("namespace")?;
        let api_version = top.text("apiVersion")?.unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if name.as_deref() != Some(key.name()) {
            return Err(BodyError::OtherIdentity("name"));
        }
        if namespace.as_deref().unwrap_or_default() != key.namespace() {
            return Err(BodyError::OtherIdentity("namespace"));
        }
        if group != key.group() {
            return Err(BodyError::OtherIdentity("group"));
        }
        let is_secret = key.group().is_empty() && key.resource() == "secrets";
        if is_secret && top.text("type")?.as_deref() == Some("kubernetes.io/service-account-token")
        {
            return Err(BodyError::ServiceAccountToken);
        }

        Ok(Self {
            labels: metadata.map("labels")?,
            annotations: metadata.map("annotations")?,
            owners: owners(&metadata)?,
            top,
            metadata,
        })
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
        let mut out = Writer { bytes: Vec::with_capacity(self.size() + 256) };
        out.object(self.top.0.iter(), |out, name, value| {
            if name == "metadata" {
                self.render_metadata(out, stamp, mark, live_uids, resource_version);
            } else {
                out.raw(value);
            }
        });
        out.bytes
    }

    fn size(&self) -> usize {
        self.top.0.iter().map(|pair| pair.key.get().len() + pair.value.get().len() + 2).sum()
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
        let kept = self.metadata.0.iter().filter(|pair| {
            !SERVER_FIELDS.contains(&&*pair.name) && !replaced.contains(&&*pair.name)
        });
        out.object(kept, |out, _, value| out.raw(value));
        out.reopen();

        let label = match stamp {
            Stamp::Ours { pair } => (PAIR_LABEL, pair),
            Stamp::Adopted { pair } => (ADOPTED_LABEL, pair),
        };
        out.field("labels");
        out.map(&self.labels, label);
        out.field("annotations");
        out.map(&self.annotations, (DIGEST_ANNOTATION, &mark.to_string()));

        let linked = self
            .owners
            .iter()
            .zip(live_uids)
            .filter_map(|((_, raw), uid)| Some((raw, uid.as_ref()?)));
        let mut linked = linked.peekable();
        if linked.peek().is_some() {
            out.field("ownerReferences");
            out.bytes.push(b'[');
            for (position, (raw, uid)) in linked.enumerate() {
                if position > 0 {
                    out.bytes.push(b',');
                }
                out.object(raw.0.iter().filter(|pair| pair.name != "uid"), |out, _, value| {
                    out.raw(value);
                });
                out.reopen();
                out.field("uid");
                out.text(uid);
                out.bytes.push(b'}');
            }
            out.bytes.push(b']');
        }
        if let Some(version) = resource_version {
            out.field("resourceVersion");
            out.text(version);
        }
        out.bytes.push(b'}');
    }
}

fn owners<'a>(metadata: &Pairs<'a>) -> Result<Vec<(Owner, Pairs<'a>)>, BodyError> {
    const WHAT: &str = "metadata.ownerReferences";
    let Some(raw) = metadata.one("ownerReferences")?.filter(|raw| raw.get() != "null") else {
        return Ok(Vec::new());
    };
    let references: Vec<&'a RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| BodyError::Malformed(WHAT))?;
    references
        .into_iter()
        .map(|reference| {
            let pairs = Pairs::read(reference, WHAT)?;
            let part = |name| -> Result<Box<str>, BodyError> {
                Ok(pairs.text(name)?.ok_or(BodyError::Malformed(WHAT))?.into())
            };
            let owner = Owner {
                api_version: part("apiVersion")?,
                kind: part("kind")?,
                name: part("name")?,
                uid: part("uid")?,
            };
            Ok((owner, pairs))
        })
        .collect()
}

/// A JSON object as its raw pieces, in order, repeated keys and spelling of the keys kept.
#[derive(Default)]
struct Pairs<'a>(Vec<Pair<'a>>);

struct Pair<'a> {
    /// As written, with its quotes.
    key: &'a RawValue,
    /// As meant.
    name: Cow<'a, str>,
    value: &'a RawValue,
}

impl<'a> Pairs<'a> {
    fn read(raw: &'a RawValue, what: &'static str) -> Result<Self, BodyError> {
        serde_json::from_str(raw.get()).map_err(|_| BodyError::Malformed(what))
    }

    fn one(&self, name: &'static str) -> Result<Option<&'a RawValue>, BodyError> {
        let mut found = self.0.iter().filter(|pair| pair.name == name);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(BodyError::Repeated(name)),
            (found, None) => Ok(found.map(|pair| pair.value)),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, BodyError> {
        let Some(raw) = self.one(name)? else { return Ok(None) };
        let text: Option<Text<'a>> =
            serde_json::from_str(raw.get()).map_err(|_| BodyError::Malformed(name))?;
        Ok(text.map(|Text(text)| text))
    }

    /// An absent or `null` map is an empty one.
    fn map(&self, name: &'static str) -> Result<Self, BodyError> {
        match self.one(name)? {
            Some(raw) if raw.get() != "null" => Self::read(raw, name),
            _ => Ok(Self::default()),
        }
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                    let Text(name) =
                        serde_json::from_str(key.get()).map_err(serde::de::Error::custom)?;
                    pairs.push(Pair { key, name, value });
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn object<'p, 'a: 'p>(
        &mut self,
        pairs: impl Iterator<Item = &'p Pair<'a>>,
        value: impl Fn(&mut Self, &str, &RawValue),
    ) {
        self.bytes.push(b'{');
        for (position, pair) in pairs.enumerate() {
            if position > 0 {
                self.bytes.push(b',');
            }
            self.raw(pair.key);
            self.bytes.push(b':');
            value(self, &pair.name, pair.value);
        }
        self.bytes.push(b'}');
    }

    /// Takes the closing brace of the last object away, so that fields can be added to it.
    fn reopen(&mut self) {
        self.bytes.pop();
    }

    fn field(&mut self, name: &str) {
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.text(name);
        self.bytes.push(b':');
    }

    /// A map without what is ours, and with one entry of ours.
    fn map(&mut self, pairs: &Pairs<'_>, (name, value): (&str, &str)) {
        let kept = pairs.0.iter().filter(|pair| !pair.name.starts_with(OUR_PREFIX));
        self.object(kept, |out, _, value| out.raw(value));
        self.reopen();
        self.field(name);
        self.text(value);
        self.bytes.push(b'}');
    }

    fn raw(&mut self, raw: &RawValue) {
        self.bytes.extend_from_slice(raw.get().as_bytes());
    }

    fn text(&mut self, text: &str) {
        serde_json::to_writer(&mut self.bytes, text).expect("a string becomes JSON in memory");
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
