//! Pure: the gauges about managed clusters.

use super::{Gauge, many, number, one, time};
use crate::status::Snapshot;
use crate::status::clusters::{Reach, of_this_term};

pub(super) fn clusters(snapshot: &Snapshot) -> Vec<Gauge> {
    let states = of_this_term(snapshot)
        .into_iter()
        .flat_map(|facts| Reach::ALL.map(|state| (state.name(), number(facts.count(state)))));
    let mut all = vec![many(
        "understudy_activation_clusters",
        "Clusters that this hub took over with its promotion, as they stand now.",
        "state",
        states,
    )];
    if let Some(first) = snapshot.clusters.ends.first() {
        all.push(one(
            "understudy_import_credential_earliest_expiry_timestamp_seconds",
            "When the first cluster can no longer be imported with the tokens of the newest backup.",
            time(Some(*first)),
        ));
    }
    all
}
