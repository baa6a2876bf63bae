//! Pure: whether an object of this hub is, byte for byte, what a backup holds.
//!
//! The same object reads the same from two API servers of one version: the fields in the same order,
//! the defaults filled in already. So its digest answers for most of a hub without a look into a pack.
//! It never says yes to what differs; a no says nothing (another version of the API server, a status, a
//! field of a local controller), and [`super::drift`] has the last word.

use super::known::Mark;
use crate::capture::clean;
use crate::json::{Fields, Writer};
use crate::object::{Digest, Kind};
use crate::repository::contents::{Entry, Owner};
use serde_json::value::RawValue;

/// `kind` at the version at which `live` was read.
pub(super) fn holds(live: &RawValue, kind: &Kind, mark: Mark, entry: &Entry) -> bool {
    // What was made inert, or lacks an owner, is not what the backup holds.
    if kind.version != *entry.version || mark.inert.is_some() || mark.stripped > 0 {
        return false;
    }
    let Ok(cleaned) = clean::as_it_stands(live, kind, false) else { return false };
    let digest = match &*entry.owners {
        [] => Digest::of(&cleaned),
        owners => match with_owners(&cleaned, owners) {
            Ok(Some(object)) => Digest::of(&object),
            Ok(None) | Err(_) => return false,
        },
    };
    digest == entry.digest
}

/// The object with the UIDs that its owners had where it was captured: here they have others.
fn with_owners(object: &[u8], owners: &[Owner]) -> serde_json::Result<Option<Vec<u8>>> {
    let mut out = Writer::with_capacity(object.len());
    let mut done = false;
    out.open(b'{');
    for field in &serde_json::from_slice::<Fields<'_>>(object)?.0 {
        if field.name != "metadata" {
            out.field(field);
            continue;
        }
        out.key(field.key);
        out.open(b'{');
        for field in &Fields::read(field.value)?.0 {
            if field.name != "ownerReferences" {
                out.field(field);
                continue;
            }
            let references: Vec<Fields<'_>> = serde_json::from_str(field.value.get())?;
            if references.len() != owners.len() {
                return Ok(None);
            }
            out.key(field.key);
            out.open(b'[');
            for (reference, owner) in references.iter().zip(owners) {
                out.next();
                out.open(b'{');
                for field in &reference.0 {
                    out.key(field.key);
                    match &*field.name {
                        "uid" => out.text(&owner.uid),
                        _ => out.raw(field.value),
                    }
                }
                out.close(b'}');
            }
            out.close(b']');
            done = true;
        }
        out.close(b'}');
    }
    out.close(b'}');
    Ok(done.then(|| out.finish()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::kind;
    use super::*;
    use crate::object::Set;

    fn entry(stored: &str, version: &str, owners: &[&str]) -> Entry {
        let owner = |uid: &&str| Owner {
            api_version: "x.io/v1".into(),
            kind: "Thing".into(),
            name: "o".into(),
            uid: (*uid).into(),
        };
        Entry {
            set: Set::Resources,
            version: version.into(),
            digest: Digest::of(stored.as_bytes()),
            pack: 0,
            uid: "there".into(),
            resource_version: "1".into(),
            owners: owners.iter().map(owner).collect(),
        }
    }

    const STORED: &str = r#"{"apiVersion":"x.io/v1","kind":"Part","metadata":{"labels":{"a":"1"},"name":"p","namespace":"ns"},"spec":{"n":1.0}}"#;
    const OWNED: &str = r#"{"apiVersion":"x.io/v1","kind":"Part","metadata":{"name":"p","namespace":"ns","ownerReferences":[{"apiVersion":"x.io/v1","kind":"Thing","name":"o","uid":"there"}]},"spec":{}}"#;

    fn check(case: &str, live: &str, mark: &str, entry: &Entry, expected: bool) {
        let live = RawValue::from_string(live.to_owned()).unwrap();
        let parts = kind("x.io", "Part", "parts", true);
        let mark = Mark::parse(&format!("{}{mark}", entry.digest.short())).unwrap();
        assert_eq!(holds(&live, &parts, mark, entry), expected, "{case}");
    }

    #[test]
    fn what_was_written_and_left_alone_is_the_same() {
        let stored = entry(STORED, "v1", &[]);
        let live = r#"{"apiVersion":"x.io/v1","kind":"Part","metadata":{"annotations":{"understudy.dev/digest":"d"},"creationTimestamp":"t","generation":3,"labels":{"a":"1","understudy.dev/pair":"eu"},"managedFields":[{}],"name":"p","namespace":"ns","resourceVersion":"9","uid":"u"},"spec":{"n":1.0},"status":{"s":1}}"#;
        check("as written", live, "", &stored, true);
        check("from the activation set", live, "-a", &stored, true);
        for (case, from, to) in [
            ("a value", r#""n":1.0"#, r#""n":2.0"#),
            ("more", r#""n":1.0"#, r#""n":1.0,"m":1"#),
            ("less", r#""n":1.0"#, ""),
            ("a label", r#""a":"1""#, r#""a":"2""#),
            ("an annotation", r#""annotations":{"#, r#""annotations":{"b":"2","#),
            ("a finalizer", r#""generation":3"#, r#""finalizers":["f"]"#),
        ] {
            let changed = live.replace(from, to);
            assert_ne!(changed, live);
            check(case, &changed, "", &stored, false);
        }
        check("inert", live, "-i00000001", &stored, false);
        check("read at another version", live, "", &entry(STORED, "v1beta1", &[]), false);
        check("no object", "[]", "", &stored, false);
    }

    #[test]
    fn owners_have_other_uids_here() {
        let live = OWNED.replace("there", "here");
        check("one owner", &live, "", &entry(OWNED, "v1", &["there"]), true);
        check("as it is stored", OWNED, "", &entry(OWNED, "v1", &["there"]), true);
        check("left out", &live, "-s1", &entry(OWNED, "v1", &["there"]), false);
        check(
            "another owner",
            &live.replace("\"o\"", "\"p\""),
            "",
            &entry(OWNED, "v1", &["there"]),
            false,
        );
        check("two in the backup", &live, "", &entry(OWNED, "v1", &["there", "too"]), false);
        let none = r#"{"metadata":{"name":"p","namespace":"ns"},"spec":{}}"#;
        check("none here", none, "", &entry(OWNED, "v1", &["there"]), false);
    }
}
