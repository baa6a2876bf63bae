//! Pure: the content of a pack: a header line, then one line an object, as NDJSON → zstd → age.
//!
//! `age -d -i pair.key PACK | zstd -d | jq` reads a pack with stock tools: a recovery property in
//! itself. Whatever a reader meets here was authenticated by the commit (length and SHA-256); the
//! limits hold all the same, because a holder of the key may be out of its mind.

use super::contents::Owner;
use super::keys::Keys;
use super::layout::FORMAT;
use super::record::PackRef;
use crate::object::{Digest, ObjectKey, Set, not_a_path_part};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;

/// Level 1 is twice as fast as 3 for one or two per cent of size (measured on hub objects).
const ZSTD_LEVEL: i32 = 1;

/// A decoder never allocates a larger window: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// An object has at most 1.5 MiB in etcd, but its JSON may have six times as many bytes (the API
/// server escapes `<` to `\u003c`). A writer refuses what a reader would not take.
const LINE_LIMIT: usize = 20 * 1024 * 1024;

/// Plain bytes after which a writer should begin a new pack, for the first packs of a level: about
/// 4 to 8 MiB sealed.
const PLAIN_TARGET: usize = 16 * 1024 * 1024;

/// After so many packs of a level the next ones are twice as large.
const PACKS_OF_A_SIZE: u32 = 8;

/// Packs grow to 128 MiB of plain lines: a level of 5 GiB has 56 of them, so that a commit that names
/// them all stays small, and a sealed pack fits into memory.
const DOUBLINGS: u32 = 3;

/// No writer puts more plain bytes into a pack: it closes one with the line that fills it, and leaves
/// room for the header. A bomb ends here, whatever its commit says of it.
const PLAIN_LIMIT: usize = (PLAIN_TARGET << DOUBLINGS) + 2 * LINE_LIMIT;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub format: u32,
    pub repository: String,
    pub epoch: u64,
    pub set: Set,
    /// Place of the pack within its level.
    pub index: u32,
    /// Revision of the cut.
    pub revision: String,
}

/// Why a key of the backup before is not in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gone {
    Deleted,
    /// It still exists on the primary, but the rules no longer select it.
    Deselected,
    /// It is in another set now.
    Moved,
}

/// One line after the header.
#[derive(Debug)]
pub enum Line<'a> {
    Object(ObjectLine<'a>),
    Gone { key: ObjectKey, gone: Gone },
}

#[derive(Debug)]
pub struct ObjectLine<'a> {
    pub key: ObjectKey,
    /// The version it was read at, such as `v1beta1`.
    pub version: Cow<'a, str>,
    pub uid: Cow<'a, str>,
    pub resource_version: Cow<'a, str>,
    /// Cleaned, complete, as valid JSON without a line end.
    pub object: &'a RawValue,
}

/// A line as it is written. One struct, because a raw value does not pass through serde's enums.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    key: ObjectKey,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    resource_version: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    object: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
}

impl<'a> Line<'a> {
    pub fn key(&self) -> &ObjectKey {
        match self {
            Line::Object(ObjectLine { key, .. }) | Line::Gone { key, .. } => key,
        }
    }

    fn encode(self) -> serde_json::Result<Vec<u8>> {
        let written = match self {
            Line::Object(ObjectLine { key, version, uid, resource_version, object }) => Written {
                key,
                version: Some(version),
                uid: Some(uid),
                resource_version: Some(resource_version),
                object: Some(object),
                gone: None,
            },
            Line::Gone { key, gone } => Written {
                key,
                version: None,
                uid: None,
                resource_version: None,
                object: None,
                gone: Some(gone),
            },
        };
        let mut bytes = serde_json::to_vec(&written)?;
        // Between tokens a raw object may hold line ends (inside strings JSON forbids them).
        bytes.iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = b' ');
        Ok(bytes)
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        match serde_json::from_slice::<Written<'a>>(bytes).ok()? {
            Written {
                key,
                version: Some(version),
                uid: Some(uid),
                resource_version: Some(resource_version),
                object: Some(object),
                gone: None,
            } if !version.is_empty() && not_a_path_part(&version).is_none() => {
                Some(Line::Object(ObjectLine { key, version, uid, resource_version, object }))
            }
            Written {
                key,
                version: None,
                uid: None,
                resource_version: None,
                object: None,
                gone: Some(gone),
            } => Some(Line::Gone { key, gone }),
            _ => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("it has {found} bytes, the commit says {expected}")]
    Length { found: u64, expected: u64 },
    #[error("its SHA-256 is not the one that the commit names")]
    Sha256,
    #[error("failed to decrypt it")]
    Decrypt(#[source] age::DecryptError),
    #[error("failed to read it")]
    Read(#[source] std::io::Error),
    #[error("line {line} is longer than {LINE_LIMIT} bytes")]
    LineTooLong { line: u64 },
    #[error("it unpacks to more than {PLAIN_LIMIT} bytes")]
    TooMuch,
    #[error("line {line} is not a line of a pack")]
    Line { line: u64 },
    #[error("its header is of another pack")]
    Header,
    #[error("it has {found} lines, the commit says {expected}")]
    Lines { found: u64, expected: u64 },
    #[error("it has more than the {expected} lines of the commit")]
    MoreLines { expected: u64 },
}

/// Seals lines into one pack in memory.
pub struct Writer {
    output: zstd::Encoder<'static, age::stream::StreamWriter<Vec<u8>>>,
    lines: u64,
    plain: usize,
    target: usize,
}

/// A finished pack.
pub struct Sealed {
    pub bytes: Vec<u8>,
    pub sha256: Digest,
    pub lines: u64,
}

impl Writer {
    /// Fails only as writing to memory fails.
    pub fn new(header: &Header, keys: &Keys) -> std::io::Result<Self> {
        let sealer = keys.seal(Vec::new())?;
        let output = zstd::Encoder::new(sealer, ZSTD_LEVEL)?;
        let mut writer = Self { output, lines: 0, plain: 0, target: plain_target(header.index) };
        serde_json::to_writer(&mut writer.output, header)?;
        writer.output.write_all(b"\n")?;
        Ok(writer)
    }

    pub fn push(&mut self, line: Line<'_>) -> std::io::Result<()> {
        let bytes = line.encode()?;
        if bytes.len() >= LINE_LIMIT {
            let why = format!("a line of {} bytes is longer than {LINE_LIMIT}", bytes.len());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        self.plain += bytes.len() + 1;
        self.lines += 1;
        self.output.write_all(&bytes)?;
        self.output.write_all(b"\n")
    }

    pub fn is_full(&self) -> bool {
        self.plain >= self.target
    }

    pub fn finish(self) -> std::io::Result<Sealed> {
        let bytes = self.output.finish()?.finish()?;
        Ok(Sealed { sha256: Digest::of(&bytes), bytes, lines: self.lines })
    }
}

/// The plain size at which the pack at this place in its level is full.
pub fn plain_target(index: u32) -> usize {
    PLAIN_TARGET << (index / PACKS_OF_A_SIZE).min(DOUBLINGS)
}

/// Whether these are the bytes that the commit names.
pub fn verify(bytes: &[u8], expected: &PackRef) -> Result<(), PackError> {
    let found = bytes.len() as u64;
    if found != expected.length {
        return Err(PackError::Length { found, expected: expected.length });
    }
    if Digest::of(bytes) != expected.sha256 {
        return Err(PackError::Sha256);
    }
    Ok(())
}

/// Opens a pack and hands each of its lines to `each`, in order, until it breaks. Everything that was
/// read is checked: bytes, decryption, header, form and number of the lines.
pub fn read(
    bytes: &[u8],
    expected: &PackRef,
    repository: &str,
    set: Set,
    keys: &Keys,
    mut each: impl FnMut(Line<'_>) -> ControlFlow<()>,
) -> Result<(), PackError> {
    verify(bytes, expected)?;
    let opened = keys.open(bytes).map_err(PackError::Decrypt)?;
    let mut plain = zstd::Decoder::new(opened).map_err(PackError::Read)?;
    plain.window_log_max(WINDOW_LOG_MAX).map_err(PackError::Read)?;
    let mut plain = BufReader::with_capacity(64 * 1024, plain);
    let mut line = Vec::new();
    let (mut number, mut size) = (0, 0);
    while read_line(&mut plain, &mut line, number + 1)? {
        number += 1;
        size += line.len() + 1;
        if size > PLAIN_LIMIT {
            return Err(PackError::TooMuch);
        }
        if number == 1 {
            let header: Header = serde_json::from_slice(&line).map_err(|_| PackError::Header)?;
            if header.format != FORMAT || header.repository != repository || header.set != set {
                return Err(PackError::Header);
            }
            continue;
        }
        if number - 1 > expected.lines {
            return Err(PackError::MoreLines { expected: expected.lines });
        }
        let line = Line::decode(&line).ok_or(PackError::Line { line: number })?;
        if each(line).is_break() {
            return Ok(());
        }
    }
    let found = u64::saturating_sub(number, 1);
    if number == 0 || found != expected.lines {
        return Err(PackError::Lines { found, expected: expected.lines });
    }
    Ok(())
}

/// Reads one line without its end. `false`: there is none left.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>, number: u64) -> Result<bool, PackError> {
    line.clear();
    let limit = LINE_LIMIT as u64 + 1;
    from.take(limit).read_until(b'\n', line).map_err(PackError::Read)?;
    match line.pop() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if line.len() >= LINE_LIMIT => Err(PackError::LineTooLong { line: number }),
        Some(_) => Err(PackError::Line { line: number }),
    }
}

/// The owner references of a raw object.
pub fn owners(object: &RawValue) -> Box<[Owner]> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default, rename = "ownerReferences")]
        owner_references: Option<Box<[Owner]>>,
    }
    serde_json::from_str::<Head>(object.get())
        .ok()
        .and_then(|head| head.metadata.owner_references)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::new_keys;
    use super::super::layout::PackName;
    use super::*;

    fn sealed(keys: &Keys) -> (Vec<u8>, PackRef) {
        let header = Header {
            format: FORMAT,
            repository: "r".to_owned(),
            epoch: 1,
            set: Set::Resources,
            index: 0,
            revision: "5".to_owned(),
        };
        let mut writer = Writer::new(&header, keys).unwrap();
        let object =
            RawValue::from_string(r#"{"a":1.0,"a":12345678901234567890,"n":null}"#.to_owned())
                .unwrap();
        writer
            .push(Line::Object(ObjectLine {
                key: ObjectKey::new("", "configmaps", "ns", "x").unwrap(),
                version: "v1".into(),
                uid: "u".into(),
                resource_version: "7".into(),
                object: &object,
            }))
            .unwrap();
        let key = ObjectKey::new("", "configmaps", "ns", "y").unwrap();
        writer.push(Line::Gone { key, gone: Gone::Deleted }).unwrap();
        let Sealed { bytes, sha256, lines } = writer.finish().unwrap();
        let name = PackName::new(1, 1, ulid::Ulid::nil());
        let expected = PackRef { name, length: bytes.len() as u64, sha256, lines };
        (bytes, expected)
    }

    fn lines(
        bytes: &[u8],
        expected: &PackRef,
        repository: &str,
        set: Set,
        keys: &Keys,
    ) -> Result<Vec<String>, PackError> {
        let mut lines = vec![];
        read(bytes, expected, repository, set, keys, |line| {
            lines.push(match line {
                Line::Object(object) => format!("{} {}", object.key, object.object.get()),
                Line::Gone { key, gone } => format!("{key} {gone:?}"),
            });
            ControlFlow::Continue(())
        })
        .map(|()| lines)
    }

    #[test]
    fn a_pack_gives_every_byte_of_its_objects_back() {
        let keys = new_keys();
        let (bytes, expected) = sealed(&keys);
        assert_eq!(
            lines(&bytes, &expected, "r", Set::Resources, &keys).unwrap(),
            [
                r#"configmaps ns/x {"a":1.0,"a":12345678901234567890,"n":null}"#,
                "configmaps ns/y Deleted"
            ]
        );
    }

    #[test]
    fn a_pack_is_refused_when_anything_about_it_is_not_as_committed() {
        let keys = new_keys();
        let (bytes, expected) = sealed(&keys);
        let with = |change: &dyn Fn(&mut PackRef)| {
            let mut expected = expected.clone();
            change(&mut expected);
            lines(&bytes, &expected, "r", Set::Resources, &keys).unwrap_err()
        };
        assert!(matches!(with(&|e| e.length += 1), PackError::Length { .. }));
        assert!(matches!(with(&|e| e.sha256 = Digest([0; 32])), PackError::Sha256));
        assert!(matches!(with(&|e| e.lines += 1), PackError::Lines { .. }));
        assert!(matches!(
            lines(&bytes, &expected, "other", Set::Resources, &keys),
            Err(PackError::Header)
        ));
        assert!(matches!(
            lines(&bytes, &expected, "r", Set::Activation, &keys),
            Err(PackError::Header)
        ));
        assert!(matches!(
            lines(&bytes, &expected, "r", Set::Resources, &new_keys()),
            Err(PackError::Decrypt(_))
        ));
    }

    /// The commit's SHA-256 notices any change; this is what the seal alone notices.
    #[test]
    fn the_seal_alone_notices_every_flipped_byte_and_truncation() {
        let keys = new_keys();
        let (bytes, expected) = sealed(&keys);
        let reseal = |bytes: &[u8]| PackRef {
            length: bytes.len() as u64,
            sha256: Digest::of(bytes),
            ..expected.clone()
        };
        let mut silent = vec![];
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            if lines(&damaged, &reseal(&damaged), "r", Set::Resources, &keys).is_ok() {
                silent.push(at);
            }
            assert!(
                lines(&bytes[..at], &reseal(&bytes[..at]), "r", Set::Resources, &keys).is_err(),
                "{at}"
            );
        }
        assert_eq!(silent, [] as [usize; 0]);
    }

    #[test]
    fn a_version_that_could_leave_its_path_makes_no_line() {
        let read = |version| {
            let key = r#"{"key":["","configmaps","ns","x"],"version":"#;
            let line =
                format!(r#"{key}"{version}","uid":"u","resourceVersion":"7","object":{{}}}}"#);
            Line::decode(line.as_bytes()).is_some()
        };
        assert!(read("v1beta1"));
        for version in ["", ".", "..", "v1/namespaces/other", "v1%2F", "v1\\n"] {
            assert!(!read(version), "{version}");
        }
    }

    #[test]
    fn packs_grow_with_their_level_up_to_a_limit() {
        let mib = |index| plain_target(index) / (1024 * 1024);
        assert_eq!([0, 7, 8, 16, 24, u32::MAX].map(mib), [16, 16, 32, 64, 128, 128]);
    }

    #[test]
    fn owners_are_read_from_the_raw_object() {
        let raw = |text: &str| owners(&RawValue::from_string(text.to_owned()).unwrap()).len();
        assert_eq!(
            raw(
                r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"n","uid":"u","controller":true}]}}"#
            ),
            1
        );
        assert_eq!(raw(r#"{"metadata":{"ownerReferences":null}}"#), 0);
        assert_eq!(raw("{}"), 0);
    }
}
