//! Pure: what is known to stand on this hub, and the mark on an object that tells it.
//!
//! Every object that we write carries the label [`PAIR_LABEL`] and the annotation
//! [`DIGEST_ANNOTATION`], so the whole of [`Restored`] can be read again from the hub after a
//! restart. An object that was adopted carries [`ADOPTED_LABEL`] in place of the pair label: the
//! label is what makes an object ours to delete, and an adopted one never is.

use crate::object::{Digest, ObjectKey, Set};
use std::collections::HashMap;
use std::fmt;

pub const PAIR_LABEL: &str = "understudy.dev/pair";
pub const ADOPTED_LABEL: &str = "understudy.dev/adopted";
pub const DIGEST_ANNOTATION: &str = "understudy.dev/digest";

/// The value of the digest annotation: which content was written, and in which form.
///
/// `0123456789abcdef`, then `-s2` when two owner references had to be left out, then `-a` when the
/// object came from the activation set, then `-i01234567` when that patch made it inert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The first 64 bits of the digest: what [`Digest::short`] prints.
    pub short: u64,
    /// How many owner references were left out because their owner was not there.
    pub stripped: u16,
    /// Such an object is never deleted from a passive hub: it manages clusters.
    pub activation: bool,
    /// The tag of the patch that made it inert.
    pub inert: Option<u32>,
}

impl Mark {
    pub fn new(digest: &Digest, set: Set, stripped: usize) -> Self {
        let first = digest.0.first_chunk().expect("a digest has 32 bytes");
        Self {
            short: u64::from_be_bytes(*first),
            stripped: u16::try_from(stripped).unwrap_or(u16::MAX),
            activation: set == Set::Activation,
            inert: None,
        }
    }

    #[must_use]
    pub fn made_inert(self, inert: Option<u32>) -> Self {
        Self { inert, ..self }
    }

    /// None: not a mark of this version; the object is then written again.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let short = parts.next().filter(|hex| hex.len() == 16)?;
        let short = u64::from_str_radix(short, 16).ok()?;
        let mut mark = Self { short, stripped: 0, activation: false, inert: None };
        for part in parts {
            if let Some(count) = part.strip_prefix('s') {
                mark.stripped = count.parse().ok()?;
            } else if let Some(tag) = part.strip_prefix('i') {
                mark.inert = Some(u32::from_str_radix(tag, 16).ok()?);
            } else if part == "a" {
                mark.activation = true;
            } else {
                return None;
            }
        }
        Some(mark)
    }

    /// Of an object whose `status` is still to be written, or that does not hold what was written: no
    /// content's mark.
    #[must_use]
    pub fn unfinished(self) -> Self {
        Self { short: 0, ..self }
    }

    pub fn same_content(self, digest: &Digest) -> bool {
        self.short == Self::new(digest, Set::Resources, 0).short
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.short)?;
        if self.stripped > 0 {
            write!(f, "-s{}", self.stripped)?;
        }
        if self.activation {
            f.write_str("-a")?;
        }
        if let Some(tag) = self.inert {
            write!(f, "-i{tag:08x}")?;
        }
        Ok(())
    }
}

/// Whose the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Carries our label.
    Ours,
    /// Taken over by rule. Written, never deleted.
    Adopted,
    /// Somebody else's, found when we tried to create it. Neither written nor deleted.
    Foreign,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub standing: Standing,
    /// What we wrote last; of a foreign object, what we would have written. None: unreadable.
    pub mark: Option<Mark>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
}

/// What is known to stand on this hub. Kept in memory over syncs, read from the hub at start.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub objects: HashMap<ObjectKey, Known>,
}

impl Restored {
    pub fn get(&self, key: &ObjectKey) -> Option<&Known> {
        self.objects.get(key)
    }

    /// The UID that an owner reference to this object has to carry here.
    pub fn uid(&self, key: &ObjectKey) -> Option<&str> {
        self.objects.get(key).map(|known| &*known.uid)
    }

    pub fn ours(&self) -> impl Iterator<Item = (&ObjectKey, &Known)> {
        self.objects.iter().filter(|(_, known)| known.standing == Standing::Ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_what_it_writes_and_starts_with_the_short_digest() {
        let digest = Digest::of(b"x");
        for (set, stripped, inert, suffix) in [
            (Set::Resources, 0, None, ""),
            (Set::Credentials, 2, None, "-s2"),
            (Set::Activation, 0, None, "-a"),
            (Set::Activation, 1, None, "-s1-a"),
            (Set::Resources, 0, Some(0xab), "-i000000ab"),
            (Set::Resources, 3, Some(0xffff_ffff), "-s3-iffffffff"),
        ] {
            let mark = Mark::new(&digest, set, stripped).made_inert(inert);
            assert_eq!(mark.to_string(), format!("{}{suffix}", digest.short()));
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
            assert!(mark.same_content(&digest));
            assert!(!mark.same_content(&Digest::of(b"y")));
        }
    }

    #[test]
    fn what_is_not_a_mark_is_not_taken_for_one() {
        for text in [
            "",
            "abc",
            "0123456789abcdeg",
            "0123456789abcdef-x",
            "0123456789abcdef-s",
            "0123456789abcdef-i",
        ] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }
}
