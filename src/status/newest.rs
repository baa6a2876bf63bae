//! Pure: what the newest backup says about itself: that it lost too much, or lacks something.

use super::problem::{Problem, Reason, warning};
use super::{Role, Snapshot};

/// For whoever looks at it, worst first.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<Problem> {
    let Some(newest) = &snapshot.newest else { return Vec::new() };
    let mut found = Vec::new();
    found.extend(newest.suspect.as_ref().map(|why| suspect(snapshot, &newest.id, why)));
    if !newest.partial.is_empty() {
        found.push(warning(
            Reason::BackupPartial,
            format!("backup {} carries over {}", newest.id, newest.partial.join(", ")),
            Some("see that these kinds can be listed on the primary".to_owned()),
        ));
    }
    found
}

/// The newest backup lost too much: the primary says what to do, the standby why it does not follow.
fn suspect(snapshot: &Snapshot, id: &str, why: &str) -> Problem {
    let kept = snapshot.usable().map_or("nothing", |usable| &usable.id);
    let ack = format!("understudy backup ack {id}");
    if snapshot.role == Some(Role::Passive) {
        let primary = snapshot.holder.as_deref().unwrap_or("the primary");
        let hint = format!("if it is in order, on {primary}: {ack}");
        let message = format!("this hub keeps to {kept} and does not apply backup {id}: {why}");
        return warning(Reason::ShrinkRefused, message, Some(hint));
    }
    let hint = format!(
        "look at it: understudy backup describe {id}; if it is in order: {ack}; else bring back what \
         is missing"
    );
    let message = format!("backup {id} is suspect, standbys keep to {kept}: {why}");
    warning(Reason::BackupSuspect, message, Some(hint))
}
