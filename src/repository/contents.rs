//! Pure: what a backup holds, without the objects themselves: identity, digest, owners and the pack
//! in which the object's newest line stands. About 200 bytes an object, so that a plan over a whole
//! fleet fits into memory while the objects stay sealed on disk.

use super::pack::Gone;
use crate::object::{Digest, ObjectKey, Set};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub entries: HashMap<ObjectKey, Entry>,
    /// What left the backup since the oldest of its levels, and why.
    pub gone: HashMap<ObjectKey, Gone>,
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
