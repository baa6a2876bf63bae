//! Sealed packs on their way out: named, put and read back, a few at once, in their order.

use super::BackupError;
use super::sealer::RunHeader;
use crate::object::Set;
use crate::repository::layout::PackName;
use crate::repository::pack::Sealed;
use crate::repository::packs::PackStore;
use crate::repository::record::PackRef;
use futures::{StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Uploads at once; each holds a sealed pack in memory.
const UPLOADS: usize = 2;

/// The packs of one level for each set that has any.
pub(super) type Levels = BTreeMap<Set, Vec<PackRef>>;

/// Uploads what comes in until there is nothing more.
pub(super) async fn upload(
    store: &PackStore,
    header: &RunHeader,
    packs: mpsc::Receiver<(Set, Sealed)>,
) -> Result<Levels, BackupError> {
    let stream = futures::stream::unfold(packs, |mut packs| async {
        packs.recv().await.map(|pack| (pack, packs))
    });
    let uploaded: Vec<(Set, PackRef)> = stream
        .map(|(set, sealed)| async move {
            let milliseconds =
                u64::try_from(crate::clock::now().as_millisecond()).unwrap_or_default();
            let unique = ulid::Ulid::from_parts(milliseconds, crate::clock::random());
            let name = PackName::new(header.epoch, header.incarnation, unique);
            store.put(&name, sealed).await.map(|reference| (set, reference))
        })
        .buffered(UPLOADS)
        .try_collect()
        .await?;
    let mut levels = Levels::new();
    for (set, reference) in uploaded {
        levels.entry(set).or_default().push(reference);
    }
    Ok(levels)
}
