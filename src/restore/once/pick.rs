//! Pure: what was chosen of a backup, as a small backup of its own, under the keys of this hub.

use super::rehome::Namespaces;
use crate::object::{BadKey, ObjectKey};
use crate::repository::contents::Contents;
use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub struct Picked {
    /// By the keys under which the objects stand on this hub.
    pub contents: Contents,
    /// Key in the backup → key on this hub.
    pub targets: HashMap<ObjectKey, ObjectKey>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PickError {
    #[error(transparent)]
    Key(#[from] BadKey),
    #[error("two objects would become {key}: {one}, and {other}")]
    Twice { key: ObjectKey, one: ObjectKey, other: ObjectKey },
    #[error("the backup does not hold {0}")]
    Absent(ObjectKey),
}

pub fn pick<'a>(
    contents: &Contents,
    chosen: impl Iterator<Item = &'a ObjectKey>,
    namespaces: &Namespaces,
) -> Result<Picked, PickError> {
    let mut picked = Picked::default();
    let mut origins: HashMap<ObjectKey, &ObjectKey> = HashMap::new();
    for key in chosen {
        let entry = contents.entries.get(key).ok_or_else(|| PickError::Absent(key.clone()))?;
        let target = namespaces.key(key)?;
        if let Some(other) = origins.insert(target.clone(), key) {
            let (one, other) = (key.min(other).clone(), key.max(other).clone());
            return Err(PickError::Twice { key: target, one, other });
        }
        picked.contents.entries.insert(target.clone(), namespaces.entry(entry));
        picked.targets.insert(key.clone(), target);
    }
    Ok(picked)
}

impl Picked {
    /// Leaves out what `stays` does not hold for, by the keys of this hub.
    pub fn retain(&mut self, stays: impl Fn(&ObjectKey) -> bool) {
        self.contents.entries.retain(|key, _| stays(key));
        self.targets.retain(|_, target| stays(target));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::testing::{contents, key};
    use std::collections::BTreeMap;

    #[test]
    fn what_was_chosen_stands_under_its_new_keys_and_no_two_under_one() {
        let contents = contents(&[
            ("/configmaps/a/x", &["/namespaces//a"]),
            ("/configmaps/b/x", &[]),
            ("/namespaces//a", &[]),
            ("x.io/things//t", &[]),
        ]);
        let map = Namespaces(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let chosen = ["/configmaps/a/x", "/namespaces//a", "x.io/things//t"].map(key);
        let picked = pick(&contents, chosen.iter(), &map).unwrap();
        let mut targets: Vec<_> = picked.targets.values().map(ToString::to_string).collect();
        targets.sort();
        assert_eq!(targets, ["configmaps b/x", "namespaces b", "things.x.io t"]);
        assert_eq!(picked.contents.entries.len(), 3);

        let both = ["/configmaps/a/x", "/configmaps/b/x"].map(key);
        let twice = pick(&contents, both.iter(), &map).unwrap_err();
        assert_eq!(
            twice.to_string(),
            "two objects would become configmaps b/x: configmaps a/x, and configmaps b/x"
        );
        let absent = [key("/configmaps/a/unheard")];
        let absent = pick(&contents, absent.iter(), &map).unwrap_err();
        assert!(matches!(absent, PickError::Absent(_)));
    }
}
