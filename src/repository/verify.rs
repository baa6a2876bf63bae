//! Reads backups as a whole and tells what of them is damaged: every byte of every pack is fetched,
//! authenticated, decrypted and counted, and the counts by kind are compared with the commit.
//!
//! Backups share packs. Checked oldest first, each pack is fetched once as long as a backup continues
//! the one before it. Pack by pack ([`check_pack`]) it takes no more memory than one, and says as much
//! about the storage: a commit authenticates every byte of its packs. What may go wrong: a pack that several backups name is damaged; each of them is
//! then damaged, and says so by that pack's name. An unreachable storage is no finding, but an error.

use super::chain::Backup;
use super::contents::Contents;
use super::layout::{PackName, journal_key, pack_key};
use super::packs::{Opened, PackStore, PacksError};
use super::record::{Commit, PackRef};
use crate::object::{Digest, Set};
use crate::retry::chain;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error as _;
use std::sync::Arc;

/// What is wrong with one stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its key, such as `packs/…` or `journal/…`.
    pub object: String,
    pub why: String,
    /// Not damage: it is sealed for a key that we do not hold.
    pub missing_key: bool,
}

pub struct Verifier {
    packs: PackStore,
    before: Option<Opened>,
    /// Packs that were looked at one by one.
    looked: HashMap<PackName, Option<Fault>>,
}

impl Verifier {
    /// With a cache that nobody else uses: it holds the packs of one backup at a time.
    pub fn new(packs: PackStore) -> Self {
        Self { packs, before: None, looked: HashMap::new() }
    }

    /// No fault: all of the backup can be restored. Backups are best given oldest first.
    pub async fn check(&mut self, backup: &Arc<Backup>) -> Result<Vec<Fault>, PacksError> {
        match self.packs.open(backup.clone(), self.before.take()).await {
            Ok(opened) => {
                let faults = miscounted(&opened.contents, backup).into_iter().collect();
                self.before = Some(opened);
                Ok(faults)
            }
            Err(error) if error.is_damage() => self.faults(backup, &error).await,
            Err(error) => Err(error),
        }
    }

    /// Only the packs in `wanted`, one by one. How many of this backup's they are, and their faults.
    pub async fn check_some(
        &mut self,
        backup: &Backup,
        wanted: &HashSet<PackName>,
    ) -> Result<(usize, Vec<Fault>), PacksError> {
        let packs = packs_by_set(&backup.commit);
        let packs = packs.filter(|(_, reference)| wanted.contains(&reference.name)).collect();
        self.look_at_all(packs).await
    }

    async fn look_at_all(
        &mut self,
        packs: Vec<(Set, &PackRef)>,
    ) -> Result<(usize, Vec<Fault>), PacksError> {
        let mut faults = vec![];
        self.packs.tally().begin("reading", "packs", Some(packs.len()));
        for (set, reference) in &packs {
            faults.extend(self.look_at(*set, reference).await?);
            self.packs.tally().add(1);
        }
        Ok((packs.len(), faults))
    }

    /// Each pack once, however many backups need it.
    async fn look_at(
        &mut self,
        set: Set,
        reference: &PackRef,
    ) -> Result<Option<Fault>, PacksError> {
        if !self.looked.contains_key(&reference.name) {
            let fault = check_pack(&self.packs, set, reference).await?;
            self.looked.insert(reference.name.clone(), fault);
        }
        Ok(self.looked.get(&reference.name).cloned().flatten())
    }

    /// Opening ends at the first damage; this names all of it.
    async fn faults(
        &mut self,
        backup: &Backup,
        first: &PacksError,
    ) -> Result<Vec<Fault>, PacksError> {
        let (_, mut faults) = self.look_at_all(packs_by_set(&backup.commit).collect()).await?;
        if faults.is_empty() {
            // Each pack is what was committed, but together they are not the backup.
            faults.push(of_commit(backup, chain(first)));
        }
        Ok(faults)
    }
}

/// A share of the packs, rounded up. The seed decides which.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub fn sample(packs: &BTreeSet<PackName>, share: f64, seed: u128) -> HashSet<PackName> {
    let wanted = (packs.len() as f64 * share).ceil() as usize;
    let mut drawn: Vec<&PackName> = packs.iter().collect();
    drawn.sort_by_key(|name| Digest::of(format!("{seed} {name}").as_bytes()).0);
    drawn.into_iter().take(wanted).cloned().collect()
}

/// What is wrong with one pack, if anything.
pub async fn check_pack(
    packs: &PackStore,
    set: Set,
    reference: &PackRef,
) -> Result<Option<Fault>, PacksError> {
    match packs.check(reference, set).await {
        Ok(()) => Ok(None),
        Err(error) if error.is_damage() => Ok(Some(of_pack(&reference.name, &error))),
        Err(error) => Err(error),
    }
}

/// The packs of a commit with their sets, oldest level first.
pub fn packs_by_set(commit: &Commit) -> impl Iterator<Item = (Set, &PackRef)> {
    commit.sets.iter().flat_map(|(set, contents)| {
        contents.levels.iter().flat_map(|level| &level.packs).map(|pack| (*set, pack))
    })
}

fn of_pack(name: &PackName, error: &PacksError) -> Fault {
    let why = match (error, error.source()) {
        (PacksError::Missing { .. }, _) => "it is not in the storage".to_owned(),
        (_, Some(source)) => chain(source),
        (_, None) => chain(error),
    };
    Fault { object: pack_key(name), why, missing_key: error.is_missing_key() }
}

fn of_commit(backup: &Backup, why: String) -> Fault {
    Fault { object: journal_key(backup.mark.slot), why, missing_key: false }
}

/// The first kind of which there are more or fewer objects than the commit says.
fn miscounted(contents: &Contents, backup: &Backup) -> Option<Fault> {
    let mut found: BTreeMap<(Set, String), u64> = BTreeMap::new();
    for (key, entry) in &contents.entries {
        *found.entry((entry.set, key.group_resource().to_string())).or_default() += 1;
    }
    let said: BTreeMap<(Set, String), u64> = backup
        .commit
        .sets
        .iter()
        .flat_map(|(set, contents)| {
            contents.kinds.iter().map(|(kind, count)| ((*set, kind.clone()), *count))
        })
        .collect();
    let count = |of: &BTreeMap<_, u64>, kind| of.get(kind).copied().unwrap_or_default();
    let kind =
        found.keys().chain(said.keys()).find(|kind| count(&found, kind) != count(&said, kind))?;
    let (set, name) = kind;
    let (found, said) = (count(&found, kind), count(&said, kind));
    let why = format!("{set} holds {found} {name}, the commit says {said}");
    Some(of_commit(backup, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectKey;
    use crate::repository::contents::Entry;
    use crate::repository::layout::Mark;
    use crate::repository::record::{Cut, HubId, SetContents};

    fn backup(kinds: &[(&str, u64)]) -> Backup {
        let kinds: BTreeMap<_, _> = kinds.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
        let objects = kinds.values().sum();
        let contents = SetContents { levels: vec![], objects, changed: 0, kinds };
        Backup {
            mark: Mark { slot: 7, sha256: Digest([0; 32]) },
            epoch: 1,
            hub: HubId { name: "a".to_owned(), uid: "u".to_owned() },
            at: "2026-11-20T17:30:07Z".parse().unwrap(),
            commit: Commit {
                sets: [(Set::Resources, contents)].into(),
                cut: Cut { revision: "1".to_owned(), apart: vec![] },
                rules: Digest([0; 32]),
                suspect: None,
                partial: vec![],
            },
        }
    }

    #[test]
    fn a_sample_is_a_share_rounded_up_and_another_one_with_each_seed() {
        let name = |number| PackName::new(1, 3, ulid::Ulid(number));
        let packs: BTreeSet<PackName> = (0..40).map(name).collect();
        for (share, expected) in [(0.05, 2), (0.001, 1), (1.0, 40), (0.51, 21)] {
            assert_eq!(sample(&packs, share, 7).len(), expected, "{share}");
        }
        assert_eq!(sample(&packs, 0.3, 7), sample(&packs, 0.3, 7));
        assert_ne!(sample(&packs, 0.3, 7), sample(&packs, 0.3, 8));
        assert!(sample(&BTreeSet::new(), 0.3, 7).is_empty());
    }

    #[test]
    fn a_kind_with_another_count_than_committed_is_a_fault_of_the_commit() {
        let mut contents = Contents::default();
        for name in ["x", "y"] {
            let entry = Entry {
                set: Set::Resources,
                version: "v1".into(),
                digest: Digest([0; 32]),
                pack: 0,
                uid: "u".into(),
                resource_version: "1".into(),
                owners: [].into(),
            };
            contents
                .entries
                .insert(ObjectKey::new("apps", "deployments", "ns", name).unwrap(), entry);
        }
        let check = |kinds: &[(&str, u64)]| miscounted(&contents, &backup(kinds)).map(|f| f.why);
        assert_eq!(check(&[("deployments.apps", 2)]), None);
        let why = "resources holds 2 deployments.apps, the commit says 1";
        assert_eq!(check(&[("deployments.apps", 1)]).as_deref(), Some(why));
        let why = "resources holds 0 configmaps, the commit says 1";
        assert_eq!(check(&[("configmaps", 1), ("deployments.apps", 2)]).as_deref(), Some(why));
    }
}
