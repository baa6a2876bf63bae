//! Pure: where older forms of objects stand, of which a newer line is known. What was applied to a hub
//! before is among them, and an update is computed from it.
//!
//! Nobody may rely on finding a form here: merging levels drops it, and a reader that starts anew only
//! knows what the packs of one backup still hold.

use super::contents::Entry;
use super::layout::PackName;
use super::record::PackRef;
use crate::object::{Digest, ObjectKey, Set};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Kept of one object: more changes than that between two restores are rare.
const MAX_FORMS: usize = 4;

#[derive(Default)]
pub(super) struct Older {
    packs: Vec<(Set, PackRef)>,
    numbers: HashMap<PackName, u32>,
    forms: HashMap<ObjectKey, Vec<Form>>,
}

/// A pack, and which forms are to be read there.
type Place<'a> = (&'a (Set, PackRef), HashMap<&'a ObjectKey, Digest>);

struct Form {
    digest: Digest,
    /// Index into `packs`.
    pack: u32,
}

impl Older {
    /// `pack`: where the entry's own number points to.
    pub(super) fn add(&mut self, key: ObjectKey, entry: &Entry, pack: &(Set, PackRef)) {
        let number = *self.numbers.entry(pack.1.name.clone()).or_insert_with(|| {
            self.packs.push(pack.clone());
            u32::try_from(self.packs.len() - 1).expect("a backup has fewer packs than that")
        });
        let forms = self.forms.entry(key).or_default();
        if forms.len() == MAX_FORMS {
            forms.remove(0);
        }
        forms.push(Form { digest: entry.digest, pack: number });
    }

    /// Forgets what is the newest form itself (a merge wrote it again).
    pub(super) fn retain_replaced(&mut self, entries: &HashMap<ObjectKey, Entry>) {
        self.forms.retain(|key, forms| {
            let Some(entry) = entries.get(key) else { return false };
            forms.retain(|form| form.digest != entry.digest);
            !forms.is_empty()
        });
    }

    /// The packs in which they stand.
    pub(super) fn packs(&self) -> BTreeSet<&PackName> {
        let forms = self.forms.values().flatten();
        forms.map(|form| &self.packs[form.pack as usize].1.name).collect()
    }

    /// By pack, the forms for which `wanted` is true.
    pub(super) fn find(&self, wanted: impl Fn(&ObjectKey, &Digest) -> bool) -> Vec<Place<'_>> {
        let mut found: BTreeMap<u32, HashMap<&ObjectKey, Digest>> = BTreeMap::new();
        for (key, forms) in &self.forms {
            if let Some(form) = forms.iter().rfind(|form| wanted(key, &form.digest)) {
                found.entry(form.pack).or_default().insert(key, form.digest);
            }
        }
        found.into_iter().map(|(pack, keys)| (&self.packs[pack as usize], keys)).collect()
    }
}
