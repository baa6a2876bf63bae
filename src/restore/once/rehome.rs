//! Pure: objects of one namespace under the name of another.
//!
//! The namespace itself, what stands in it, and owner references to it change their name. What an
//! object says about namespaces elsewhere (subjects of a role binding, URLs) stays: only its author
//! knows what it means.

use crate::json::{Fields, Text, Writer};
use crate::object::{BadKey, ObjectKey};
use crate::repository::contents::{Entry, Owner};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What an API server writes on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Old name → new name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(pub BTreeMap<String, String>);

impl Namespaces {
    /// What each key became.
    pub fn of_moves<'a>(moves: impl Iterator<Item = (&'a ObjectKey, &'a ObjectKey)>) -> Self {
        let place = |key: &ObjectKey| {
            if is_namespace(key) { key.name().to_owned() } else { key.namespace().to_owned() }
        };
        let moves = moves.map(|(from, to)| (place(from), place(to)));
        Self(moves.filter(|(from, to)| from != to).collect())
    }

    fn of(&self, namespace: &str) -> Option<&str> {
        self.0.get(namespace).map(String::as_str)
    }

    /// The key under which an object stands on this hub.
    pub fn key(&self, key: &ObjectKey) -> Result<ObjectKey, BadKey> {
        let is_namespace = is_namespace(key);
        let place = if is_namespace { key.name() } else { key.namespace() };
        match self.of(place) {
            Some(new) if is_namespace => ObjectKey::new(key.group(), key.resource(), "", new),
            Some(new) => ObjectKey::new(key.group(), key.resource(), new, key.name()),
            None => Ok(key.clone()),
        }
    }

    pub fn entry(&self, entry: &Entry) -> Entry {
        let owners = entry.owners.iter().map(|owner| {
            let name = if names_a_namespace(&owner.api_version, &owner.kind) {
                self.of(&owner.name).map(Into::into)
            } else {
                None
            };
            Owner { name: name.unwrap_or_else(|| owner.name.clone()), ..owner.clone() }
        });
        Entry { owners: owners.collect(), ..entry.clone() }
    }

    /// The object that stands under `key` in the backup. All other bytes stay as they are.
    pub fn object(
        &self,
        key: &ObjectKey,
        object: &RawValue,
    ) -> Result<Box<RawValue>, serde_json::Error> {
        let mut out = Writer::with_capacity(object.get().len() + 64);
        out.open(b'{');
        for field in &Fields::read(object)?.0 {
            if field.name == "metadata" {
                out.key(field.key);
                self.metadata(key, field.value, &mut out)?;
            } else {
                out.field(field);
            }
        }
        out.close(b'}');
        serde_json::from_slice(&out.finish())
    }

    fn metadata(
        &self,
        key: &ObjectKey,
        metadata: &RawValue,
        out: &mut Writer,
    ) -> Result<(), serde_json::Error> {
        let place = if is_namespace(key) { "name" } else { "namespace" };
        out.open(b'{');
        for field in &Fields::read(metadata)?.0 {
            if field.name == place {
                let Text(name) = serde_json::from_str(field.value.get())?;
                out.key(field.key);
                out.text(self.of(&name).unwrap_or(&name));
            } else if field.name == "ownerReferences" && field.value.get() != "null" {
                out.key(field.key);
                self.owners(field.value, out)?;
            } else if field.name == "labels" && field.value.get() != "null" && is_namespace(key) {
                out.key(field.key);
                self.renamed(field.value, out, |name| name == NAME_LABEL)?;
            } else {
                out.field(field);
            }
        }
        out.close(b'}');
        Ok(())
    }

    fn owners(&self, owners: &RawValue, out: &mut Writer) -> Result<(), serde_json::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reference<'a> {
            #[serde(borrow, default)]
            api_version: std::borrow::Cow<'a, str>,
            #[serde(borrow, default)]
            kind: std::borrow::Cow<'a, str>,
        }
        let owners: Vec<&RawValue> = serde_json::from_str(owners.get())?;
        out.open(b'[');
        for owner in owners {
            out.next();
            let Reference { api_version, kind } = serde_json::from_str(owner.get())?;
            let is_ours = names_a_namespace(&api_version, &kind);
            self.renamed(owner, out, |name| is_ours && name == "name")?;
        }
        out.close(b']');
        Ok(())
    }

    /// An object in which some fields hold the name of a namespace.
    fn renamed(
        &self,
        object: &RawValue,
        out: &mut Writer,
        holds_name: impl Fn(&str) -> bool,
    ) -> Result<(), serde_json::Error> {
        out.open(b'{');
        for field in &Fields::read(object)?.0 {
            if holds_name(&field.name) {
                let Text(name) = serde_json::from_str(field.value.get())?;
                out.key(field.key);
                out.text(self.of(&name).unwrap_or(&name));
            } else {
                out.field(field);
            }
        }
        out.close(b'}');
        Ok(())
    }
}

fn is_namespace(key: &ObjectKey) -> bool {
    key.group().is_empty() && key.resource() == "namespaces"
}

fn names_a_namespace(api_version: &str, kind: &str) -> bool {
    api_version == "v1" && kind == "Namespace"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::testing::key;

    fn check(name: &str, object: &str, new_name: &str, expected: &str) {
        let map = Namespaces(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let raw = RawValue::from_string(object.to_owned()).unwrap();
        assert_eq!(map.key(&key(name)).unwrap(), key(new_name));
        assert_eq!(map.object(&key(name), &raw).unwrap().get(), expected);
    }

    #[test]
    fn what_stands_in_a_namespace_moves_with_it_and_its_bytes_stay() {
        check(
            "/configmaps/a/x",
            r#"{"apiVersion":"v1","d":1.0,"metadata":{"name":"a","n\u0061mespace":"a","labels":{"kubernetes.io/metadata.name":"a"}},"spec":{"namespace":"a"}}"#,
            "/configmaps/b/x",
            r#"{"apiVersion":"v1","d":1.0,"metadata":{"name":"a","n\u0061mespace":"b","labels":{"kubernetes.io/metadata.name":"a"}},"spec":{"namespace":"a"}}"#,
        );
        check(
            "/namespaces//a",
            r#"{"metadata":{"name":"a","labels":{"kubernetes.io/metadata.name":"a","x":"a"}}}"#,
            "/namespaces//b",
            r#"{"metadata":{"name":"b","labels":{"kubernetes.io/metadata.name":"b","x":"a"}}}"#,
        );
        let other = r#"{"metadata":{"name":"a","namespace":"c"}}"#;
        check("/configmaps/c/a", other, "/configmaps/c/a", other);
        let cluster_scoped = r#"{"metadata":{"name":"a"}}"#;
        check("x.io/things//a", cluster_scoped, "x.io/things//a", cluster_scoped);
    }

    #[test]
    fn a_reference_to_the_namespace_is_renamed_and_others_are_not() {
        let object = |name: &str, namespace: &str| {
            format!(
                r#"{{"metadata":{{"namespace":"{namespace}","ownerReferences":[{{"apiVersion":"v1","kind":"Namespace","name":"{name}","uid":"u"}},{{"apiVersion":"x.io/v1","kind":"Namespace","name":"a","uid":"v"}}]}}}}"#
            )
        };
        check("/configmaps/a/x", &object("a", "a"), "/configmaps/b/x", &object("b", "b"));
    }
}
