//! Pure: owner references from one hub to another.
//!
//! A reference names its owner by UID, and UIDs differ between hubs. A reference with a UID that
//! does not exist here gets the object deleted by the garbage collector within milliseconds (also
//! when an owner of that name exists), so a reference is written with the owner's UID on this hub
//! or not at all.

use super::kinds::Kinds;
use crate::object::{ObjectKey, group_of};
use crate::repository::contents::{Contents, Owner};
use std::collections::HashMap;

/// Finds the object of a backup that an owner reference of the same backup means.
pub struct OwnerIndex<'a> {
    by_uid: HashMap<&'a str, &'a ObjectKey>,
}

impl<'a> OwnerIndex<'a> {
    pub fn new(contents: &'a Contents) -> Self {
        let mut wanted: HashMap<&str, Option<&ObjectKey>> = HashMap::new();
        for entry in contents.entries.values() {
            wanted.extend(entry.owners.iter().map(|owner| (&*owner.uid, None)));
        }
        for (key, entry) in &contents.entries {
            if let Some(found) = wanted.get_mut(&*entry.uid) {
                // The smaller key, so that two objects with one UID do not make the result random.
                *found = Some(found.map_or(key, |other| other.min(key)));
            }
        }
        let by_uid = wanted.into_iter().filter_map(|(uid, key)| Some((uid, key?))).collect();
        Self { by_uid }
    }

    /// None: no object of the backup has that UID, or it is not the one that the reference
    /// describes (the garbage collector looks at group, namespace and name as well).
    pub fn find(&self, owned: &ObjectKey, reference: &Owner) -> Option<&'a ObjectKey> {
        let key = *self.by_uid.get(&*reference.uid)?;
        let scope_fits = key.namespace().is_empty() || key.namespace() == owned.namespace();
        let fits =
            key.group() == group_of(&reference.api_version) && key.name() == &*reference.name;
        (scope_fits && fits && key != owned).then_some(key)
    }
}

/// The key under which an owner would stand on this hub, for an owner that the backup lacks.
/// None: this hub does not serve the kind, or no such object can exist.
pub fn key_on_hub(owned: &ObjectKey, reference: &Owner, kinds: &Kinds) -> Option<ObjectKey> {
    let kind = kinds.kind(group_of(&reference.api_version), &reference.kind)?;
    let namespace = if kind.namespaced { owned.namespace() } else { "" };
    if kind.namespaced && namespace.is_empty() {
        return None;
    }
    ObjectKey::new(&kind.group, &kind.resource, namespace, &reference.name).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{contents, key, kind};
    use super::*;

    fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Owner {
        Owner {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
        }
    }

    #[test]
    fn an_owner_is_found_by_uid_and_only_if_the_rest_fits() {
        // `testing::contents` makes the key the UID.
        let contents = contents(&[
            ("x.io/things//t", &[]),
            ("x.io/parts/ns/a", &[]),
            ("x.io/parts/other/c", &[]),
            ("/configmaps/ns/owned", &["x.io/things//t", "x.io/parts/ns/a", "x.io/parts/other/c"]),
        ]);
        let index = OwnerIndex::new(&contents);
        for (api_version, name, uid, found) in [
            ("x.io/v1", "t", "x.io/things//t", Some("x.io/things//t")),
            ("x.io/v1beta1", "a", "x.io/parts/ns/a", Some("x.io/parts/ns/a")),
            ("x.io/v1", "b", "x.io/parts/ns/a", None),
            ("y.io/v1", "a", "x.io/parts/ns/a", None),
            ("x.io/v1", "c", "x.io/parts/other/c", None),
            ("x.io/v1", "t", "unknown", None),
        ] {
            let owner = owner(api_version, "Any", name, uid);
            let expected = found.map(key);
            assert_eq!(
                index.find(&key("/configmaps/ns/owned"), &owner),
                expected.as_ref(),
                "{uid} {name}"
            );
        }
    }

    #[test]
    fn an_owner_outside_the_backup_is_looked_for_where_the_hub_serves_its_kind() {
        let kinds = Kinds::new(vec![
            kind("x.io", "Thing", "things", false),
            kind("", "Secret", "secrets", true),
        ]);
        for (owned, api_version, owner_kind, expected) in [
            ("/configmaps/ns/a", "x.io/v1", "Thing", Some("x.io/things//o")),
            ("/configmaps/ns/a", "v1", "Secret", Some("/secrets/ns/o")),
            ("x.io/things//a", "v1", "Secret", None),
            ("/configmaps/ns/a", "x.io/v1", "Unknown", None),
        ] {
            let owner = owner(api_version, owner_kind, "o", "u");
            assert_eq!(
                key_on_hub(&key(owned), &owner, &kinds),
                expected.map(key),
                "{owned} {owner_kind}"
            );
        }
    }
}
