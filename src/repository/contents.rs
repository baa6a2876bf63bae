//! Pure: what a backup holds, without the objects themselves: identity, digest, owners and the pack
//! in which the object's newest line stands. About 200 bytes an object, so that a plan over a whole
//! fleet fits into memory while the objects stay sealed on disk.

use super::pack::Gone;
use crate::object::{Digest, ObjectKey, Set};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub entries: HashMap<ObjectKey, Entry>,
    /// What left each set since the oldest of its levels, and why: the newest line of such a key.
    pub gone: BTreeMap<Set, HashMap<ObjectKey, Gone>>,
}

impl Contents {
    /// Why a key left the backup, over all sets. They are not ordered in time against each other, so
    /// the word that keeps an object on a standby is heard before the words that take it away.
    pub fn why_gone(&self) -> HashMap<ObjectKey, Gone> {
        let mut why: HashMap<ObjectKey, Gone> = HashMap::new();
        for (key, gone) in self.gone.values().flatten() {
            if *gone == Gone::Deselected || !why.contains_key(key) {
                why.insert(key.clone(), *gone);
            }
        }
        why
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub set: Set,
    /// The version it was read at, such as `v1beta1`.
    pub version: Box<str>,
    /// Of the cleaned object as it stands in the pack.
    pub digest: Digest,
    /// Index into the packs of the opened backup.
    pub pack: u32,
    /// UID on the hub that it was read from.
    pub uid: Box<str>,
    /// resourceVersion on the hub that it was read from.
    pub resource_version: Box<str>,
    /// `metadata.ownerReferences` of the object.
    pub owners: Box<[Owner]>,
}

/// An owner reference, as far as identity goes. The plural of the kind is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    #[serde(rename = "apiVersion")]
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deselected_from_one_set_is_not_taken_for_deleted_because_of_another() {
        use Gone::{Deleted, Deselected, Moved};
        let key = ObjectKey::new("", "configmaps", "ns", "a").unwrap();
        for (lines, expected) in [
            (&[(Set::Resources, Deleted)][..], Deleted),
            (&[(Set::Credentials, Deselected), (Set::Activation, Moved)], Deselected),
            (&[(Set::Credentials, Moved), (Set::Activation, Deselected)], Deselected),
            (&[(Set::Credentials, Deleted), (Set::Resources, Deselected)], Deselected),
        ] {
            let mut contents = Contents::default();
            for (set, gone) in lines {
                contents.gone.entry(*set).or_default().insert(key.clone(), *gone);
            }
            assert_eq!(contents.why_gone(), [(key.clone(), expected)].into(), "{lines:?}");
        }
    }
}
