//! What somebody else changed of the objects that we restored: found at each full check, and written
//! again or only told, as the configuration says.

use crate::config::settings::Drift;
use crate::object::ObjectKey;
use crate::repository::contents::Contents;
use crate::restore::recheck;
use crate::restore::{Kinds, Restored, Source};
use crate::retry;
use crate::status::DriftFacts;
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// Full checks in a row that found an object changed, after which somebody else is at work on it.
const CONTESTED: u32 = 3;
/// Objects that the status and the log name.
const MAX_NAMED: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Watch {
    found: HashMap<ObjectKey, Found>,
}

#[derive(Debug)]
struct Found {
    path: String,
    /// Full checks in a row.
    times: u32,
}

impl Watch {
    /// Compares what may have changed since `before`, and marks in `live` what shall be written again.
    #[allow(clippy::too_many_arguments)] // one call site
    pub(super) async fn look(
        &mut self,
        policy: Drift,
        client: &kube::Client,
        cancel: &CancellationToken,
        (contents, source, kinds): (&Contents, &Source, &Kinds),
        before: Option<&Restored>,
        live: &mut Restored,
    ) {
        let mut unsure = recheck::unsure(contents, live, before);
        // What was only told is not written, so nothing but a look can tell that it is gone.
        let told = self.found.keys().filter(|key| live.get(key).is_some());
        unsure.extend(told.cloned());
        let unsure = unsure.into_iter().collect();
        let compared = recheck::compare(client, cancel, contents, source, kinds, unsure).await;
        let drifted = match compared {
            Ok(drifted) => drifted,
            Err(error) => {
                let error = retry::chain(&*error);
                tracing::warn!(error, "what was restored could not be compared with the backup");
                return;
            }
        };
        let mut found = HashMap::new();
        for recheck::Drift { key, path } in drifted {
            let times = self.found.get(&key).map_or(1, |before| before.times + 1);
            if found.len() < MAX_NAMED {
                tracing::warn!(object = %key, path, ?policy, "somebody changed what was restored");
            }
            if policy == Drift::Correct
                && let Some(known) = live.objects.get_mut(&key)
            {
                // As if it could not be read: the plan writes it again.
                known.mark = None;
            }
            found.insert(key, Found { path, times });
        }
        self.found = found;
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
