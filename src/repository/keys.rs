//! Pair keys: what seals packs and authenticates records.
//!
//! One key file is an age X25519 identity in age's own file format, so stock `age` opens every pack.
//! The journal's MAC key is derived from it (HKDF-SHA-256 with a label of its own), so there is one
//! secret to look after. All keys open, one seals and authenticates: the one that the journal names
//! ([`Keys::use_current`]), which is the first in the files until another is read there.
//!
//! Nothing here can be printed: no `Debug`, no `Display`, and errors name files, never contents.

use crate::object::Digest;
use age::secrecy::ExposeSecret;
use aws_lc_rs::{hkdf, hmac};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Separates the journal's MAC key from every other use of the pair key.
const MAC_LABEL: &[u8] = b"understudy.dev journal mac v1";

pub struct Keys {
    /// Never empty.
    all: Vec<Key>,
    current: AtomicUsize,
    escrow: Vec<age::x25519::Recipient>,
}

struct Key {
    id: String,
    identity: age::x25519::Identity,
    mac: hmac::Key,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("failed to read the key file {path}; make one with: understudy key new --out {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "the key file {path} holds no age identity (a line AGE-SECRET-KEY-1…); make one with: understudy key new --out {path}"
    )]
    NoIdentity { path: PathBuf },
    #[error("the key file {path} holds more than one identity; put each into a file of its own")]
    Several { path: PathBuf },
    #[error("recipient {recipient:?} is not an age public key (age1…)")]
    Recipient { recipient: String },
    #[error("failed to write the key file {path}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// Why a MAC did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MacError {
    /// We do not hold the key that it names.
    UnknownKey,
    /// Not written by a holder of the key.
    Wrong,
}

impl Keys {
    pub fn load(files: &[PathBuf], recipients: &[String]) -> Result<Self, KeyError> {
        let keys = files.iter().map(|path| Key::load(path)).collect::<Result<Vec<_>, _>>()?;
        let escrow = recipients
            .iter()
            .map(|recipient| {
                age::x25519::Recipient::from_str(recipient)
                    .map_err(|_| KeyError::Recipient { recipient: recipient.clone() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { all: keys, current: AtomicUsize::new(0), escrow })
    }

    fn current(&self) -> &Key {
        self.all.get(self.current.load(Relaxed)).expect("settings hold at least one key file")
    }

    /// From here on this key seals and authenticates. `false`: it is none of ours.
    pub fn use_current(&self, id: &str) -> bool {
        let found = self.all.iter().position(|key| key.id == id);
        if let Some(at) = found {
            self.current.store(at, Relaxed);
        }
        found.is_some()
    }

    /// The ids of all, in the order of the files; the first is what a change of keys changes to.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|key| &*key.id)
    }

    /// Id of the key that seals and authenticates.
    pub fn id(&self) -> &str {
        &self.current().id
    }

    /// The MAC over one line, in hexadecimal.
    pub fn sign(&self, line: &[u8]) -> String {
        let tag = hmac::sign(&self.current().mac, line);
        Digest(tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")).to_string()
    }

    pub fn verify(&self, key_id: &str, line: &[u8], mac: &str) -> Result<(), MacError> {
        let key = self.all.iter().find(|key| key.id == key_id).ok_or(MacError::UnknownKey)?;
        let mac: Digest = mac.parse().map_err(|_| MacError::Wrong)?;
        hmac::verify(&key.mac, line, &mac.0).map_err(|_| MacError::Wrong)
    }

    /// Encrypts all that is written to it; call `finish` on it.
    pub fn seal<W: Write>(&self, output: W) -> std::io::Result<age::stream::StreamWriter<W>> {
        let own = self.current().identity.to_public();
        let recipients =
            std::iter::once(&own).chain(&self.escrow).map(|r| r as &dyn age::Recipient);
        age::Encryptor::with_recipients(recipients)
            .expect("there is at least one recipient, none is a passphrase")
            .wrap_output(output)
    }

    /// Decrypts with whichever of the keys fits; fails when none does.
    pub fn open<R: Read>(
        &self,
        input: R,
    ) -> Result<age::stream::StreamReader<R>, age::DecryptError> {
        let identities = self.all.iter().map(|key| &key.identity as &dyn age::Identity);
        age::Decryptor::new(input)?.decrypt(identities)
    }
}

impl Key {
    fn load(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        let mut lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(if text.contains("AGE-SECRET-KEY-1") {
                KeyError::Several { path: path.to_owned() }
            } else {
                KeyError::NoIdentity { path: path.to_owned() }
            });
        };
        let identity = age::x25519::Identity::from_str(line)
            .map_err(|_| KeyError::NoIdentity { path: path.to_owned() })?;
        Ok(Self::of(identity))
    }

    fn of(identity: age::x25519::Identity) -> Self {
        let id = Digest::of(identity.to_public().to_string().as_bytes()).short();
        let secret = identity.to_string();
        let mac = hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(secret.expose_secret().as_bytes())
            .expand(&[MAC_LABEL], hmac::HMAC_SHA256)
            .expect("32 bytes are within HKDF's limit")
            .into();
        Self { id, identity, mac }
    }
}

/// The content of a new key file, as `age-keygen` writes it, and its public key.
pub fn new_key_text(created: jiff::Timestamp) -> (String, String) {
    let identity = age::x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let secret = identity.to_string();
    (format!("# created: {created}\n# public key: {public}\n{}\n", secret.expose_secret()), public)
}

/// Makes a new key file, readable by its owner alone, and never overwrites one. Returns the public key.
pub fn create_key_file(path: &Path, created: jiff::Timestamp) -> Result<String, KeyError> {
    use std::os::unix::fs::OpenOptionsExt;
    let (text, public) = new_key_text(created);
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| KeyError::Write { path: path.to_owned(), source })?;
    Ok(public)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keys that no file holds.
    pub(crate) fn new_keys() -> Keys {
        of(vec![Key::of(age::x25519::Identity::generate())])
    }

    fn of(keys: Vec<Key>) -> Keys {
        Keys { all: keys, current: AtomicUsize::new(0), escrow: vec![] }
    }

    /// A hub that holds these keys, in this order.
    pub(crate) fn holding(keys: &[&Keys]) -> Keys {
        let copies = keys.iter().flat_map(|keys| &keys.all);
        of(copies.map(|key| Key::of(key.identity.clone())).collect())
    }

    #[test]
    fn the_current_key_alone_seals_and_all_of_them_open() {
        let (old, new) = (new_keys(), new_keys());
        let both = holding(&[&new, &old]);
        assert!(both.use_current(old.id()));
        let mut sealed = vec![];
        both.seal(&mut sealed).unwrap().finish().unwrap();
        assert!(old.open(&*sealed).is_ok() && both.open(&*sealed).is_ok());
        assert!(new.open(&*sealed).is_err());
        assert_eq!(old.verify(both.id(), b"line", &both.sign(b"line")), Ok(()));
        assert!(!both.use_current("0000"));
        assert_eq!(both.id(), old.id());
    }

    #[test]
    fn an_escrow_recipient_opens_packs_and_authenticates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            let public = create_key_file(&path, jiff::Timestamp::UNIX_EPOCH).unwrap();
            (path, public)
        };
        let ((pair, _), (escrow, recipient)) = (make("pair"), make("escrow"));
        let keys = Keys::load(&[pair], &[recipient]).unwrap();
        let escrow = Keys::load(&[escrow], &[]).unwrap();
        let mut sealed = vec![];
        keys.seal(&mut sealed).unwrap().finish().unwrap();
        assert!(escrow.open(&*sealed).is_ok());
        let forged = escrow.sign(b"line");
        assert_eq!(keys.verify(escrow.id(), b"line", &forged), Err(MacError::UnknownKey));
        assert_eq!(keys.verify(keys.id(), b"line", &forged), Err(MacError::Wrong));
        assert_eq!(
            escrow.verify(keys.id(), b"line", &keys.sign(b"line")),
            Err(MacError::UnknownKey)
        );
    }

    #[test]
    fn a_key_file_is_made_once_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.key");
        let public = create_key_file(&path, "2026-11-21T00:00:00Z".parse().unwrap()).unwrap();
        assert!(public.starts_with("age1"));
        let keys = Keys::load(std::slice::from_ref(&path), std::slice::from_ref(&public)).unwrap();
        let mac = keys.sign(b"line");
        assert_eq!(keys.verify(keys.id(), b"line", &mac), Ok(()));
        assert_eq!(keys.verify(keys.id(), b"lime", &mac), Err(MacError::Wrong));
        assert_eq!(keys.verify("0000", b"line", &mac), Err(MacError::UnknownKey));
        assert!(create_key_file(&path, "2026-11-21T00:00:00Z".parse().unwrap()).is_err());
    }

    #[test]
    fn a_key_that_is_missing_or_wrong_names_the_file_and_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.key");
        let message =
            |path: &PathBuf| Keys::load(std::slice::from_ref(path), &[]).err().unwrap().to_string();
        assert!(message(&path).contains("understudy key new --out"));
        std::fs::write(&path, "hello\n").unwrap();
        assert!(message(&path).contains("no age identity"));
    }
}
