//! Pure: which objects of a hub become restored ones once its own term has ended: those that its own
//! last backup holds, and that are the very same objects still.
//!
//! Only what carries our label is followed and pruned, and nothing on a hub that was primary does: its
//! objects were there before any backup. An object is told by its UID, so one that was deleted and
//! made anew since stays its maker's. That its content is the one of the backup is believed only of an
//! object whose resourceVersion is; all others are compared by the next sync.

use super::known::{Mark, Restored, Standing};
use super::policy::Policy;
use crate::object::ObjectKey;
use crate::repository::contents::Contents;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub key: ObjectKey,
    pub version: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub mark: Mark,
    /// Somebody wrote it since the backup.
    pub changed: bool,
}

/// In the order of their names. `own`: what the hub's own last backup holds; `live`: what stands there
/// now, of the same keys.
pub fn claims(own: &Contents, live: &Restored, policy: &Policy) -> Vec<Claim> {
    let mut claims: Vec<_> = own
        .entries
        .iter()
        .filter(|(key, _)| policy.refuses(key).is_none())
        .filter_map(|(key, entry)| {
            let known = live.get(key).filter(|known| known.standing == Standing::Foreign)?;
            let changed = known.resource_version != entry.resource_version;
            let mark = Mark::new(&entry.digest, entry.set, 0);
            (known.uid == entry.uid).then(|| Claim {
                key: key.clone(),
                version: entry.version.clone(),
                uid: known.uid.clone(),
                resource_version: known.resource_version.clone(),
                mark: if changed { mark.unfinished() } else { mark },
                changed,
            })
        })
        .collect();
    claims.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    claims
}

#[cfg(test)]
mod tests {
    use super::super::known::Known;
    use super::super::testing::{Case, contents, key};
    use super::*;
    use crate::object::Set;

    #[test]
    fn what_is_the_same_object_still_is_claimed_and_compared_if_it_was_written_since() {
        let objects: &[(&str, &[&str])] = &[
            ("/secrets/ns/same", &[]),
            ("/secrets/ns/written", &[]),
            ("/secrets/ns/anew", &[]),
            ("/secrets/ns/gone", &[]),
            ("/secrets/ns/ours", &[]),
            ("/secrets/understudy-system/key", &[]),
            ("act.io/clusters//c", &[]),
        ];
        let own = contents(objects);
        let mut live = Restored::default();
        for (key, entry) in own.entries.iter().filter(|(key, _)| key.name() != "gone") {
            let other = |is: &str, text: &str| -> Box<str> {
                if key.name() == is { "other".into() } else { text.into() }
            };
            let known = Known {
                standing: if key.name() == "ours" { Standing::Ours } else { Standing::Foreign },
                mark: None,
                uid: other("anew", &entry.uid),
                resource_version: other("written", &entry.resource_version),
            };
            live.objects.insert(key.clone(), known);
        }
        let found: Vec<_> = claims(&own, &live, &Case::default().policy)
            .into_iter()
            .map(|claim| {
                let digest = &own.entries[&claim.key].digest;
                let same = claim.mark.same_content(digest);
                (claim.key.name().to_owned(), claim.changed, same, claim.mark.activation)
            })
            .collect();
        let expected = [
            ("same", false, true, false),
            ("written", true, false, false),
            ("c", false, true, true),
        ];
        let expected = expected.map(|(name, a, b, c)| (name.to_owned(), a, b, c));
        assert_eq!(found, expected);
        assert_eq!(own.entries[&key("act.io/clusters//c")].set, Set::Activation);
    }
}
