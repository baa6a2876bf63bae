//! `understudy storage usage` and `ls`: what stands in the storage and how much room it takes.

use super::exit::Failure;
use super::progress;
use super::render_storage::{self, Kept, Usage};
use super::stored::{self, Stored, show};
use super::{Global, run};
use crate::object::Set;
use crate::repository::chain::SUMMARIES;
use crate::repository::layout::pack_key;
use crate::repository::verify::packs_by_set;
use crate::status::words::plural;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::HashMap;

/// Commits read at once.
const READS: usize = 32;

/// Needs no key: names and sizes are no secret.
pub(super) async fn ls(global: &Global, prefix: &str) -> Result<(), Failure> {
    let storage = stored::storage(&run::settings(global)?).await?;
    // Whoever types `journal` means the folder.
    let folder = prefix.trim_end_matches('/');
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    progress::say(global, &format!("listing {}{prefix}", storage.location()));
    let entries = storage.list(&prefix, None).await?;
    show(render_storage::keys(&entries, global.output))
}

pub(super) async fn usage(global: &Global) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let storage = stored::storage(&settings).await?;
    progress::say(global, &format!("listing {}", storage.location()));
    // Listed first: a pack that is written meanwhile must not look as if no backup named it.
    let entries = storage.list("", None).await?;
    let now = crate::clock::now();
    let location = storage.location().to_owned();
    let Some(stored) = Stored::read(storage, stored::keys(&settings)?).await? else {
        let usage = Usage::of(&entries, &HashMap::new(), Kept { all: true, ..Kept::default() });
        return show(render_storage::usage(&location, &usage, global.output, now));
    };
    let backups = &stored.view().backups;
    let count = plural(backups.len(), "backup", "backups");
    progress::say(global, &format!("reading the commits of {count}"));
    let commits: Vec<HashMap<String, Set>> = stream::iter(backups.iter().map(|b| b.slot))
        .map(|slot| named_packs(&stored, slot))
        .buffer_unordered(READS)
        .try_collect()
        .await?;
    let kept = Kept {
        backups: backups.len(),
        newest: backups.last().cloned(),
        oldest: backups.first().cloned(),
        // Then there may be older ones, whose packs are not known here.
        all: backups.len() < SUMMARIES,
    };
    let named = commits.into_iter().flatten().collect();
    let usage = Usage::of(&entries, &named, kept);
    show(render_storage::usage(&location, &usage, global.output, now))?;
    stored.complete()
}

/// The packs that a backup names, by their keys.
async fn named_packs(stored: &Stored, slot: u64) -> Result<HashMap<String, Set>, Failure> {
    let Some(found) = stored.committed(slot).await? else { return Ok(HashMap::new()) };
    let packs = packs_by_set(&found.backup.commit);
    Ok(packs.map(|(set, pack)| (pack_key(&pack.name), set)).collect())
}
