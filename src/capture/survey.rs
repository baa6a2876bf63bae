//! What a backup would do with the objects of a hub, one by one, without taking one: the same kinds,
//! the same revision, the same rules. Reads only, page by page, so memory does not grow with the hub.
//!
//! What may go wrong: a kind that cannot be listed is named, and the rest goes on, as in a backup.

use super::candidates::{self, BEING_DELETED, NamespaceLabels};
use super::clean;
use super::cut::{self, CutError};
use super::discovery::{self, Discovered};
use super::select::{Candidate, KindRules, Selection, Verdict};
use crate::kube_client::KubeError;
use crate::object::{GroupResource, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    #[error("failed to discover the kinds of this hub")]
    Discovery(#[source] KubeError),
    #[error(transparent)]
    Cut(#[from] CutError),
}

/// A hub whose kinds are known, and the selection that holds for it.
pub struct Survey {
    client: kube::Client,
    pub selection: Selection,
    pub kinds: Vec<Kind>,
    /// Groups that discovery could not read.
    pub failed_groups: BTreeSet<String>,
}

/// How a survey went.
#[derive(Debug, Default)]
pub struct Outcome {
    pub revision: String,
    /// Kinds of another store: each at a revision of its own.
    pub apart: BTreeSet<GroupResource>,
    /// Kinds that could not be listed to their end.
    pub failed: BTreeMap<GroupResource, KubeError>,
}

impl Survey {
    pub async fn of(client: kube::Client, selection: &Selection) -> Result<Self, SurveyError> {
        let Discovered { kinds, failed, versions: _ } =
            discovery::discover(&client).await.map_err(SurveyError::Discovery)?;
        let selection = candidates::without_the_hub_itself(&client, selection, &kinds).await?;
        Ok(Self { client, selection, kinds, failed_groups: failed })
    }

    /// Lists the kinds that are wanted, and hands on each object with its verdict until it is told to
    /// stop.
    pub async fn run(
        &self,
        wanted: impl Fn(&Kind) -> bool,
        mut take: impl FnMut(&Candidate<'_>, &Verdict) -> ControlFlow<()>,
    ) -> Result<Outcome, SurveyError> {
        let kinds: Vec<Kind> = self.kinds.iter().filter(|kind| wanted(kind)).cloned().collect();
        let proven: BTreeMap<_, _> = cut::prove(&self.client, &kinds).await?.into_iter().collect();
        let revision = cut::newest_revision(&self.client).await?;
        let namespaces = candidates::namespace_labels(&self.client, &revision).await?;
        let mut outcome = Outcome { revision, ..Outcome::default() };
        for kind in kinds {
            let rules = self.selection.for_kind(&kind);
            let shares = proven.get(&kind) == Some(&true);
            let pinned = shares.then_some(&*outcome.revision);
            let listed = cut::list(&self.client, &kind, pinned, |body| {
                std::future::ready(page(&kind, &rules, &namespaces, &body, &mut take))
            });
            match listed.await {
                Ok(()) => {}
                Err(CutError::Stopped) => return Ok(outcome),
                Err(CutError::List { kind, source }) => {
                    outcome.failed.insert(kind, source);
                }
                Err(error) => return Err(error.into()),
            }
            if !shares {
                outcome.apart.insert(kind.group_resource());
            }
        }
        Ok(outcome)
    }
}

fn page(
    kind: &Kind,
    rules: &KindRules,
    namespaces: &NamespaceLabels,
    body: &[u8],
    take: &mut impl FnMut(&Candidate<'_>, &Verdict) -> ControlFlow<()>,
) -> Result<(), CutError> {
    for item in cut::items(body, kind)? {
        let head = clean::head(item)
            .map_err(|source| CutError::Object { kind: kind.group_resource(), source })?;
        let candidate = candidates::candidate(kind, &head, namespaces);
        let verdict = if head.being_deleted {
            Verdict::Out { rule: BEING_DELETED.to_owned() }
        } else {
            rules.decide(&candidate)
        };
        if take(&candidate, &verdict).is_break() {
            return Err(CutError::Stopped);
        }
    }
    Ok(())
}
