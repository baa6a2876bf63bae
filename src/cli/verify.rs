//! `understudy backup verify`: reads backups as a restore would, and writes nothing.

use super::exit::{Code, Failure};
use super::progress;
use super::render_backup::{self, Verified};
use super::stored::{Stored, show};
use super::{Global, run};
use crate::repository::layout::PackName;
use crate::repository::verify::{Fault, Verifier, sample};
use std::collections::{BTreeSet, HashSet};

/// Damaged objects that the error names; the table names all.
const NAMED: usize = 5;

/// One backup, or all; in full, or a share of the packs.
pub(super) async fn verify(
    global: &Global,
    id: &str,
    all: bool,
    share: Option<f64>,
) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let (mut stored, slots) = if all {
        // All of the journal, too, not what a checkpoint says of it.
        let stored = Stored::whole(&settings).await?;
        let slots = stored.view().ledger.offered.keys().copied().collect();
        (stored, slots)
    } else {
        let stored = Stored::expect(&settings).await?;
        let slot = stored.find(id).await?.backup.mark.slot;
        (stored, vec![slot])
    };
    let wanted = match share {
        Some(share) => Some(drawn(&stored, &slots, share).await?),
        None => None,
    };
    let (packs, _cache) = stored.packs()?;
    let tally = packs.tally().clone();
    let mut verifier = Verifier::new(packs);
    let mut results = Vec::with_capacity(slots.len());
    for (index, slot) in slots.iter().enumerate() {
        let Some(found) = stored.committed(*slot).await? else { continue };
        let backup = &found.backup;
        progress::say(
            global,
            &format!("verifying {} of {}: {}", index + 1, slots.len(), backup.id()),
        );
        let check = async {
            match &wanted {
                Some(wanted) => verifier.check_some(backup, wanted).await,
                None => Ok((backup.commit.packs().count(), verifier.check(backup).await?)),
            }
        };
        let (read, faults) = progress::follow(global, &tally, check).await?;
        if !faults.is_empty() && stored.is_retired(*slot).await? {
            let message = format!("the backup {} was retired while it was read", backup.id());
            if !all {
                return Err(Failure::new(Code::Failed, message));
            }
            eprintln!("{message}");
            continue;
        }
        results.push(Verified::of(backup, read, faults));
    }
    results.reverse();
    show(render_backup::verified(&results, global.output))?;
    stored.complete()?;
    sound(&results)
}

/// The packs to be read, drawn from those of all these backups.
async fn drawn(stored: &Stored, slots: &[u64], share: f64) -> Result<HashSet<PackName>, Failure> {
    let mut packs = BTreeSet::new();
    for slot in slots {
        let Some(found) = stored.committed(*slot).await? else { continue };
        packs.extend(found.backup.commit.packs().map(|pack| pack.name.clone()));
    }
    Ok(sample(&packs, share, crate::clock::random()))
}

fn sound(results: &[Verified]) -> Result<(), Failure> {
    let broken = results.iter().filter(|one| !one.faults.is_empty()).count();
    if broken == 0 {
        return Ok(());
    }
    let faults = || results.iter().flat_map(|one| &one.faults);
    let objects: BTreeSet<&str> = faults().map(|fault| fault.object.as_str()).collect();
    let mut named: Vec<&str> = objects.iter().copied().take(NAMED).collect();
    if objects.len() > NAMED {
        named.push("…");
    }
    let (named, all) = (named.join(", "), results.len());
    if faults().all(|fault: &Fault| fault.missing_key) {
        let message = format!("no key opens {broken} of {all} backups: {named}");
        return Err(Failure::new(Code::KeyMissing, message)
            .with_hint("add the key file that they were sealed with to encryption.keyFiles"));
    }
    let message = format!("{broken} of {all} backups cannot be restored in full: {named}");
    Err(Failure::new(Code::Damaged, message).with_hint(
        "restore these objects from the storage's own versions; on the primary, `understudy backup run` \
         takes a backup that does not need them",
    ))
}
