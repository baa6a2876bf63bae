//! Pure: what stands in one slot of the journal, and how it is written down.
//!
//! A record is one line of JSON, then one line with the MAC over those very bytes: no canonical form
//! is needed, and `head -1 | jq` reads it. The bytes count, never a re-encoding of them.

use super::drill::Drills;
use super::keys::{Keys, MacError};
use super::layout::{Mark, PackName, Repo};
use crate::object::{Digest, GroupResource, Set};
use crate::status::Frozen;
use jiff::Timestamp;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Prefixes keep a MAC for one kind of object from ever standing under another.
const RECORD_DOMAIN: &[u8] = b"record\n";
const REPO_DOMAIN: &[u8] = b"repo\n";
const BEAT_DOMAIN: &[u8] = b"beat\n";
const CHECKPOINT_DOMAIN: &[u8] = b"checkpoint\n";

/// Features that a reader must understand to read this journal. None so far.
const KNOWN_FEATURES: [&str; 0] = [];

/// A hub is its configured name plus the UID of its `kube-system` namespace: a cluster that was
/// rebuilt under the old name is another hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubId {
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub repository: String,
    pub slot: u64,
    pub epoch: u64,
    /// Slot of the `Open` under which it was written; 0 before one (`Init`, `Term`, `Open`).
    pub incarnation: u64,
    pub hub: HubId,
    /// One logical attempt to append; tells our own record from another's after a lost answer.
    pub nonce: String,
    /// The last valid record before this one; none before `Init`.
    pub prev: Option<Mark>,
    /// Id of the key of the MAC.
    pub key: String,
    /// Version of the program.
    pub writer: String,
    /// The writer's wall clock: for people, never for decisions.
    pub at: Timestamp,
    /// Features without which this record must not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Body {
    /// The first record of a repository.
    Init,
    /// A hub takes ownership: the fence, and the point of no return of a promotion.
    Term {
        /// Id of the request that asked for it.
        request: String,
        /// Junk that an operator's term passes by, each slot by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skips: Vec<Mark>,
    },
    /// One run of the daemon begins to write; earlier ones of this term are void.
    Open,
    Commit(Commit),
    /// Activation is done; from here the term may commit backups.
    Activated {
        /// Objects that could not be restored, as `resource.group ns/name: reason`, shortened.
        failed: Vec<String>,
    },
    /// A suspect backup is in order.
    Ack {
        slot: u64,
    },
    /// The holder gives the term up, for the hub of this name: nothing but a `Term` follows.
    Handover {
        to: String,
    },
    Retire(Retire),
    /// From here on records are authenticated by this key alone.
    Rekey {
        to: String,
    },
}

/// Backups that are no longer offered, and packs that may be deleted once this is old enough: one
/// record, so that no crash lies between the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retire {
    /// Slots of their commits.
    pub backups: Vec<u64>,
    /// What nothing needs any more, and what no commit ever named.
    pub packs: Vec<PackName>,
    /// The packs of every `Retire` up to this slot are deleted; 0: none are.
    pub swept: u64,
}

impl Body {
    pub fn name(&self) -> &'static str {
        match self {
            Body::Init => "Init",
            Body::Term { .. } => "Term",
            Body::Open => "Open",
            Body::Commit(_) => "Commit",
            Body::Activated { .. } => "Activated",
            Body::Ack { .. } => "Ack",
            Body::Handover { .. } => "Handover",
            Body::Retire(_) => "Retire",
            Body::Rekey { .. } => "Rekey",
        }
    }
}

/// A backup: three sets at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    pub sets: BTreeMap<Set, SetContents>,
    pub cut: Cut,
    /// Digest of the selection and cleaning rules: under other rules nothing is "unchanged".
    pub rules: Digest,
    /// Why standbys must not apply it without an acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<String>,
    /// Kinds (or whole groups, `*`) that could not be listed; their objects are those of their last
    /// complete listing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<GroupResource>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The revision at which every kind was listed.
    pub revision: String,
    /// Kinds that do not share the store and were listed at a revision of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart: Vec<GroupResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SetContents {
    /// Oldest first; the newest line of a key wins. The first is the base.
    pub levels: Vec<Level>,
    #[serde(deserialize_with = "count")]
    pub objects: u64,
    /// Added, changed and removed against the backup before.
    #[serde(deserialize_with = "count")]
    pub changed: u64,
    /// Objects by kind.
    pub kinds: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    pub packs: Vec<PackRef>,
}

/// Authenticates a pack to the byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRef {
    pub name: PackName,
    /// Of the sealed file, in bytes.
    #[serde(deserialize_with = "count")]
    pub length: u64,
    /// Of the sealed file.
    pub sha256: Digest,
    /// Lines after the header.
    #[serde(deserialize_with = "count")]
    pub lines: u64,
}

/// Below 2^53, where every reader of JSON reads integers alike; what fits into one record can then be
/// added up without overflow.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let count = u64::deserialize(deserializer)?;
    if count >= 1 << 53 {
        return Err(D::Error::custom(format_args!("{count} is too large for a count")));
    }
    Ok(count)
}

impl Commit {
    pub fn packs(&self) -> impl Iterator<Item = &PackRef> {
        self.sets.values().flat_map(|set| &set.levels).flat_map(|level| &level.packs)
    }
}

/// What was found in a slot.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Record(Box<Record>),
    /// Not written by a member of the pair, or not for this place.
    Junk {
        why: String,
    },
    /// Authenticated by a key that we do not hold.
    UnknownKey {
        key: String,
    },
    /// Authentic, but a newer program's.
    Newer {
        why: String,
    },
}

/// Which key authenticates what follows it.
#[derive(Deserialize)]
struct Head {
    key: String,
}

/// The bytes of a record. At most [`super::layout::RECORD_LIMIT`] by the limits on its parts.
pub fn encode(record: &Record, keys: &Keys) -> Vec<u8> {
    signed(serde_json::to_vec(record).expect("a record is plain data"), RECORD_DOMAIN, keys)
}

/// Reads what stands in `slot` of `repository`. Whether it is *valid* there, [`super::chain`] tells.
pub fn decode(bytes: &[u8], repository: &str, slot: u64, keys: &Keys) -> Found {
    let Some((line, mac)) = split(bytes) else {
        return Found::Junk { why: "it is not one line and its MAC".to_owned() };
    };
    let Ok(Head { key }) = serde_json::from_slice(line) else {
        return Found::Junk { why: "its first line is not a record".to_owned() };
    };
    match verify(line, mac, RECORD_DOMAIN, &key, keys) {
        Err(MacError::UnknownKey) => return Found::UnknownKey { key },
        Err(MacError::Wrong) => return Found::Junk { why: "its MAC is wrong".to_owned() },
        Ok(()) => {}
    }
    // From here on it is authentic: what cannot be read is newer than we are, not junk.
    let record: Record = match serde_json::from_slice(line) {
        Ok(record) => record,
        Err(error) => return Found::Newer { why: error.to_string() },
    };
    if let Some(feature) = record.requires.iter().find(|f| !KNOWN_FEATURES.contains(&f.as_str())) {
        return Found::Newer { why: format!("it requires the feature {feature:?}") };
    }
    if record.repository != repository {
        return Found::Junk { why: format!("it belongs to repository {}", record.repository) };
    }
    if record.slot != slot {
        return Found::Junk { why: format!("it was written for slot {}", record.slot) };
    }
    Found::Record(Box::new(record))
}

pub fn encode_repo(repo: &Repo, keys: &Keys) -> Vec<u8> {
    signed(serde_json::to_vec(repo).expect("it is plain data"), REPO_DOMAIN, keys)
}

/// The content of `repo`, or why it cannot be trusted.
pub fn decode_repo(bytes: &[u8], keys: &Keys) -> Result<Repo, RepoError> {
    let (line, mac) = split(bytes).ok_or(RepoError::Damaged)?;
    let repo: Repo = serde_json::from_slice(line).map_err(|_| RepoError::Damaged)?;
    match verify(line, mac, REPO_DOMAIN, &repo.key, keys) {
        Err(MacError::UnknownKey) => Err(RepoError::UnknownKey { key: repo.key }),
        Err(MacError::Wrong) => Err(RepoError::Damaged),
        Ok(()) if repo.format != super::layout::FORMAT => {
            Err(RepoError::Newer { format: repo.format })
        }
        Ok(()) => Ok(repo),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepoError {
    #[error("the object `repo` is damaged or was not written by a holder of the pair key")]
    Damaged,
    #[error("the object `repo` was written under the key {key}, which this hub does not hold")]
    UnknownKey { key: String },
    #[error(
        "the repository has format {format}, this program reads format {}",
        super::layout::FORMAT
    )]
    Newer { format: u32 },
}

impl RepoError {
    /// What a daemon shows: it acts on nothing in such a repository.
    pub fn frozen(&self) -> Frozen {
        let (reason, hint) = match self {
            Self::Damaged => (
                "JunkRecord",
                "look at the storage: who wrote `repo`? Restore it from the storage's own versions",
            ),
            Self::UnknownKey { .. } => {
                ("KeyMissing", "add that key file to encryption.keyFiles on this hub and restart")
            }
            Self::Newer { .. } => ("UnknownRecord", "upgrade this hub's understudy"),
        };
        Frozen { reason: reason.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

/// The id that `repo` claims, when the key that would prove it is no longer held.
pub fn claimed_repo(bytes: &[u8]) -> Option<Repo> {
    serde_json::from_slice(split(bytes)?.0).ok()
}

/// `checkpoint` must name its key as `key`.
pub fn encode_checkpoint(checkpoint: &impl Serialize, keys: &Keys) -> Vec<u8> {
    signed(serde_json::to_vec(checkpoint).expect("it is plain data"), CHECKPOINT_DOMAIN, keys)
}

/// `None` for everything that was not written under one of the keys.
pub fn decode_checkpoint<T: serde::de::DeserializeOwned>(bytes: &[u8], keys: &Keys) -> Option<T> {
    let (line, mac) = split(bytes)?;
    let Head { key } = serde_json::from_slice(line).ok()?;
    verify(line, mac, CHECKPOINT_DOMAIN, &key, keys).ok()?;
    serde_json::from_slice(line).ok()
}

/// A sign of life. Information, never safety: silence is judged by its bytes not changing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    pub repository: String,
    pub hub: HubId,
    pub key: String,
    /// Ids of all keys that the hub holds.
    #[serde(default)]
    pub keys: Vec<String>,
    pub role: crate::status::Role,
    pub epoch: u64,
    pub incarnation: u64,
    /// Rises with every beat of one run.
    pub counter: u64,
    /// Random per run, so that a restart that begins to count anew changes the bytes too.
    pub run: String,
    pub interval_seconds: f64,
    /// Newest backup written (primary) or restored (passive).
    pub backup: Option<String>,
    /// A passive hub that could be promoted.
    pub ready: bool,
    /// What this hub found in its drills. None: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drills: Option<Drills>,
    pub at: Timestamp,
}

pub fn encode_beat(beat: &Beat, keys: &Keys) -> Vec<u8> {
    signed(serde_json::to_vec(beat).expect("it is plain data"), BEAT_DOMAIN, keys)
}

/// Why a heartbeat cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeatError {
    /// It names a key that we do not hold, so nobody can tell whether it is one.
    UnknownKey { key: String },
    /// Not an authentic beat of this repository.
    Junk,
}

pub fn decode_beat(bytes: &[u8], repository: &str, keys: &Keys) -> Result<Beat, BeatError> {
    let (line, mac) = split(bytes).ok_or(BeatError::Junk)?;
    let Head { key } = serde_json::from_slice(line).map_err(|_| BeatError::Junk)?;
    match verify(line, mac, BEAT_DOMAIN, &key, keys) {
        Ok(()) => {}
        // Whoever wrote it, it is shown: nothing but what an id looks like.
        Err(MacError::UnknownKey) if looks_like_id(&key) => {
            return Err(BeatError::UnknownKey { key });
        }
        Err(MacError::UnknownKey | MacError::Wrong) => return Err(BeatError::Junk),
    }
    let beat: Beat = serde_json::from_slice(line).map_err(|_| BeatError::Junk)?;
    if beat.repository == repository { Ok(beat) } else { Err(BeatError::Junk) }
}

/// 16 hexadecimal digits.
fn looks_like_id(key: &str) -> bool {
    key.len() == 16 && key.bytes().all(|b| b.is_ascii_hexdigit())
}

fn signed(mut line: Vec<u8>, domain: &[u8], keys: &Keys) -> Vec<u8> {
    let mac = keys.sign(&[domain, &line].concat());
    line.push(b'\n');
    line.extend_from_slice(mac.as_bytes());
    line.push(b'\n');
    line
}

/// Exactly two lines, each with its end.
fn split(bytes: &[u8]) -> Option<(&[u8], &str)> {
    let body = bytes.strip_suffix(b"\n")?;
    let at = body.iter().position(|b| *b == b'\n')?;
    let (line, mac) = (&body[..at], &body[at + 1..]);
    (!mac.contains(&b'\n')).then_some((line, std::str::from_utf8(mac).ok()?))
}

fn verify(line: &[u8], mac: &str, domain: &[u8], key: &str, keys: &Keys) -> Result<(), MacError> {
    keys.verify(key, &[domain, line].concat(), mac)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::keys::tests::new_keys;
    use super::*;

    pub(crate) fn record(
        keys: &Keys,
        slot: u64,
        epoch: u64,
        incarnation: u64,
        hub: &str,
        body: Body,
    ) -> Record {
        Record {
            repository: "repo-1".to_owned(),
            slot,
            epoch,
            incarnation,
            hub: HubId { name: hub.to_owned(), uid: format!("uid-{hub}") },
            nonce: format!("nonce-{slot}-{hub}"),
            prev: None,
            key: keys.id().to_owned(),
            writer: "test".to_owned(),
            at: "2026-11-20T17:30:07Z".parse().unwrap(),
            requires: vec![],
            body,
        }
    }

    /// A backup of one set and one level.
    pub(crate) fn commit_of(packs: &[PackName]) -> Commit {
        let reference = |name: &PackName| PackRef {
            name: name.clone(),
            length: 1,
            sha256: Digest([0; 32]),
            lines: 1,
        };
        let packs = packs.iter().map(reference).collect();
        let contents = SetContents { levels: vec![Level { packs }], ..SetContents::default() };
        Commit {
            sets: [(Set::Resources, contents)].into(),
            cut: Cut { revision: "1".to_owned(), apart: vec![] },
            rules: Digest([0; 32]),
            suspect: None,
            partial: vec![],
        }
    }

    #[test]
    fn a_heartbeat_that_cannot_be_read_says_whether_a_key_is_missing() {
        let (old, new) = (new_keys(), new_keys());
        let beat = Beat {
            repository: "r".to_owned(),
            hub: HubId { name: "a".to_owned(), uid: "u".to_owned() },
            key: new.id().to_owned(),
            keys: vec![new.id().to_owned()],
            role: crate::status::Role::Primary,
            epoch: 1,
            incarnation: 3,
            counter: 1,
            run: "x".to_owned(),
            interval_seconds: 1.0,
            backup: None,
            ready: false,
            drills: None,
            at: Timestamp::UNIX_EPOCH,
        };
        let bytes = encode_beat(&beat, &new);
        let unknown = BeatError::UnknownKey { key: new.id().to_owned() };
        assert_eq!(decode_beat(&bytes, "r", &old), Err(unknown));
        assert_eq!(decode_beat(&bytes, "other", &new), Err(BeatError::Junk));
        // It is shown to people: not whatever somebody wrote there.
        let odd = encode_beat(&Beat { key: "<b>0123456789a".to_owned(), ..beat.clone() }, &new);
        assert_eq!(decode_beat(&odd, "r", &old), Err(BeatError::Junk));
        // An older version names no keys.
        let mut plain = serde_json::to_value(&beat).unwrap();
        plain.as_object_mut().unwrap().remove("keys");
        let bytes = signed(serde_json::to_vec(&plain).unwrap(), BEAT_DOMAIN, &new);
        assert_eq!(decode_beat(&bytes, "r", &new), Ok(Beat { keys: vec![], ..beat }));
    }

    #[test]
    fn a_record_reads_back_where_it_was_written_and_nowhere_else() {
        let keys = new_keys();
        let open = record(&keys, 7, 2, 0, "a", Body::Open);
        let bytes = encode(&open, &keys);
        assert_eq!(decode(&bytes, "repo-1", 7, &keys), Found::Record(Box::new(open)));
        assert!(matches!(decode(&bytes, "repo-1", 8, &keys), Found::Junk { .. }));
        assert!(matches!(decode(&bytes, "repo-2", 7, &keys), Found::Junk { .. }));
        assert!(matches!(decode(&bytes, "repo-1", 7, &new_keys()), Found::UnknownKey { .. }));
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_of_a_record_is_noticed() {
        let keys = new_keys();
        let open = record(&keys, 7, 2, 0, "a", Body::Open);
        let bytes = encode(&open, &keys);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(!matches!(decode(&damaged, "repo-1", 7, &keys), Found::Record(_)), "byte {at}");
            assert!(
                !matches!(decode(&bytes[..at], "repo-1", 7, &keys), Found::Record(_)),
                "length {at}"
            );
        }
    }

    #[test]
    fn an_authentic_record_of_a_newer_program_is_not_junk() {
        let keys = new_keys();
        let mut newer = record(&keys, 7, 2, 0, "a", Body::Open);
        newer.requires = vec!["time-travel".to_owned()];
        assert!(matches!(decode(&encode(&newer, &keys), "repo-1", 7, &keys), Found::Newer { .. }));
    }

    #[test]
    fn a_mac_for_one_kind_of_object_does_not_hold_for_another() {
        let keys = new_keys();
        let repo = Repo {
            format: 1,
            repository: "r".to_owned(),
            suite: "s".to_owned(),
            key: keys.id().to_owned(),
        };
        let bytes = encode_repo(&repo, &keys);
        assert_eq!(decode_repo(&bytes, &keys), Ok(repo));
        assert!(matches!(decode(&bytes, "r", 1, &keys), Found::Junk { .. }));
    }
}
