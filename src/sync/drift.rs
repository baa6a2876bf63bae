//! What somebody else changed of the objects that we restored: found at each full check, and written
//! again or only told, as the configuration says.

use crate::config::settings::Drift;
use crate::object::ObjectKey;
use crate::repository::contents::Contents;
use crate::restore::recheck::{self, Vouched};
use crate::restore::{Kinds, Mark, Policy, Restored, Source};
use crate::retry;
use crate::status::DriftFacts;
use std::collections::{HashMap, HashSet};
use tokio_util::sync::CancellationToken;

/// Full checks in a row that found an object changed, after which somebody else is at work on it.
const CONTESTED: u32 = 3;
/// Objects that the status and the log name.
const MAX_NAMED: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Watch {
    found: HashMap<ObjectKey, Found>,
    /// What could not be compared, or not yet.
    unseen: HashSet<ObjectKey>,
}

#[derive(Debug)]
struct Found {
    path: String,
    /// Full checks in a row.
    times: u32,
}

impl Watch {
    /// Compares what nothing vouches for, and marks in `live` what shall be written again.
    #[allow(clippy::too_many_arguments)] // one call site
    pub(super) async fn look(
        &mut self,
        drift: Drift,
        client: &kube::Client,
        cancel: &CancellationToken,
        (contents, source, kinds, policy): (&Contents, &Source, &Kinds, &Policy),
        vouched: Vouched<'_>,
        live: &mut Restored,
    ) {
        let unsure = self.unsure(contents, vouched, live);
        let keys = unsure.iter().cloned().collect();
        let written = |key: &ObjectKey, object| recheck::as_written(policy, live.get(key)?, object);
        let what = (contents, source, kinds);
        let compared = recheck::compare(client, cancel, what, &written, keys).await;
        let (drifted, unseen) = match compared {
            Ok(recheck::Compared { drifted, unseen }) => (drifted, unseen),
            Err(error) => {
                let error = retry::chain(&*error);
                tracing::warn!(error, "what was restored could not be compared with the backup");
                self.unseen = unsure;
                return;
            }
        };
        self.unseen = unseen;
        let mut found = HashMap::new();
        for recheck::Drift { key, path } in drifted {
            let times = self.found.get(&key).map_or(1, |before| before.times + 1);
            if found.len() < MAX_NAMED {
                tracing::warn!(object = %key, path, policy = ?drift, "somebody changed what was restored");
            }
            if drift == Drift::Correct
                && let Some(known) = live.objects.get_mut(&key)
            {
                // The plan writes it again.
                known.mark = known.mark.map(Mark::unfinished);
            }
            found.insert(key, Found { path, times });
        }
        self.found = found;
    }

    /// Leaves the comparison to the next look.
    pub(super) fn postpone(&mut self, contents: &Contents, vouched: Vouched<'_>, live: &Restored) {
        self.unseen = self.unsure(contents, vouched, live);
    }

    fn unsure(
        &self,
        contents: &Contents,
        vouched: Vouched<'_>,
        live: &Restored,
    ) -> HashSet<ObjectKey> {
        // What was only told is not written, so nothing but a look can tell that it is gone.
        let again = |key: &_| self.found.contains_key(key) || self.unseen.contains(key);
        recheck::unsure(contents, live, vouched, again)
    }

    pub(super) fn facts(&self, policy: Drift) -> DriftFacts {
        let mut contested: Vec<_> =
            self.found.iter().filter(|(_, found)| found.times >= CONTESTED).collect();
        contested.sort_unstable_by_key(|(key, _)| *key);
        let named = contested.iter().take(MAX_NAMED);
        DriftFacts {
            objects: self.found.len() as u64,
            corrected: policy == Drift::Correct,
            contested: named.map(|(key, found)| format!("{key} ({})", found.path)).collect(),
        }
    }
}
