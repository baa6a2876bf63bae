//! Pure: the names of everything that stands in a repository.

use crate::object::Digest;
use std::fmt;

/// Created once: repository id, format version, suite.
pub const REPO: &str = "repo";
pub const JOURNAL: &str = "journal/";
pub const PACKS: &str = "packs/";
pub const BEATS: &str = "beats/";
pub const CHECKPOINTS: &str = "checkpoints/";

/// The version of all that is written. A reader refuses what it does not know.
pub const FORMAT: u32 = 1;

/// Nothing in the journal is larger (RFC: `repository.md` §1), so a reader never takes more.
pub const RECORD_LIMIT: u64 = 64 * 1024;

/// A pack stays far below this; a larger one is not ours.
pub const PACK_LIMIT: u64 = 256 * 1024 * 1024;

/// Slots are numbered from here, rising by one, never reused.
pub const FIRST_SLOT: u64 = 1;

pub fn journal_key(slot: u64) -> String {
    format!("{JOURNAL}{slot:020}")
}

/// The slot of a key below `journal/`; `None` for everything that we would not have written.
pub fn slot_of_key(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(JOURNAL)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

pub fn pack_key(name: &PackName) -> String {
    format!("{PACKS}{name}")
}

/// The pack of a key below `packs/`; `None` for everything that we would not have written.
pub fn pack_of_key(key: &str) -> Option<PackName> {
    PackName::try_from(key.strip_prefix(PACKS)?.to_owned()).ok()
}

pub fn checkpoint_key(slot: u64) -> String {
    format!("{CHECKPOINTS}{slot:020}")
}

pub fn beat_key(hub: &str) -> String {
    format!("{BEATS}{hub}")
}

/// `<epoch>-<incarnation>-<ulid>`: random, so it is never used twice, and it tells who wrote it.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct PackName(String);

impl PackName {
    pub fn new(epoch: u64, incarnation: u64, unique: ulid::Ulid) -> Self {
        Self(format!("{epoch}-{incarnation}-{unique}"))
    }

    /// Epoch and incarnation of who wrote it.
    pub fn writer(&self) -> (u64, u64) {
        let mut numbers = self.0.split('-').map_while(|part| part.parse().ok());
        (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
    }
}

impl TryFrom<String> for PackName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let number = |text: &str| text.parse::<u64>().is_ok_and(|n| n.to_string() == text);
        match name.split('-').collect::<Vec<_>>()[..] {
            [epoch, incarnation, unique]
                if number(epoch)
                    && number(incarnation)
                    && ulid::Ulid::from_string(unique).is_ok_and(|u| u.to_string() == unique) =>
            {
                Ok(Self(name))
            }
            _ => Err(format!("{name:?} is not the name of a pack (epoch-incarnation-ulid)")),
        }
    }
}

impl From<PackName> for String {
    fn from(name: PackName) -> Self {
        name.0
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The content of [`REPO`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Repo {
    pub format: u32,
    /// Random; every record and pack carries it, so nothing can be carried over from elsewhere.
    pub repository: String,
    /// The algorithms, as one word for people.
    pub suite: String,
    /// Id of the key that authenticates this object.
    pub key: String,
}

/// A place in the journal and the digest of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    pub slot: u64,
    pub sha256: Digest,
}

/// The id of a backup: when (UTC, for people) and the slot of its commit (which alone is enough).
pub fn backup_id(at: jiff::Timestamp, slot: u64) -> String {
    format!("{}-{slot}", at.strftime("%Y%m%d-%H%M%S"))
}

/// Reads `20261120-173007-42` or `42`.
pub fn slot_of_backup_id(id: &str) -> Option<u64> {
    id.rsplit('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_key_reads_back_and_nothing_else_does() {
        assert_eq!(journal_key(42), "journal/00000000000000000042");
        assert_eq!(slot_of_key(&journal_key(42)), Some(42));
        for odd in [
            "journal/42",
            "journal/0000000000000000004x",
            "packs/00000000000000000042",
            "journal/99999999999999999999",
        ] {
            assert_eq!(slot_of_key(odd), None, "{odd}");
        }
    }

    #[test]
    fn only_names_that_we_write_are_pack_names() {
        let name = PackName::new(3, 17, ulid::Ulid::from_parts(1, 2));
        assert_eq!(name.writer(), (3, 17));
        assert_eq!(pack_of_key(&pack_key(&name)), Some(name.clone()));
        assert_eq!(PackName::try_from(name.to_string()), Ok(name));
        for odd in [
            "",
            "../../etc",
            "1-2",
            "1-2-3",
            "01-2-0000000001000000000000000A",
            "1-2-0000000001000000000000000a",
            "1-2-0000000001000000000000000A/x",
        ] {
            assert!(PackName::try_from(odd.to_owned()).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_backup_id_is_time_and_slot() {
        let at = "2026-11-20T17:30:07Z".parse().unwrap();
        assert_eq!(backup_id(at, 42), "20261120-173007-42");
        assert_eq!(slot_of_backup_id("20261120-173007-42"), Some(42));
        assert_eq!(slot_of_backup_id("42"), Some(42));
        assert_eq!(slot_of_backup_id("latest"), None);
    }
}
