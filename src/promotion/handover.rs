//! Pure: whether a primary may give its term up, and whether the backup that it took for that is one
//! to give it up with.

use crate::status::{BackupSummary, Outcome, Peer, Role, Run};

/// Why the term cannot be handed over to this hub (none: to any) as things stand.
pub fn refuses(to: Option<&str>, me: &str, peers: &[Peer]) -> Option<String> {
    let Some(to) = to else {
        let reasons: Vec<_> = peers.iter().map(unfit).collect();
        if reasons.iter().any(Option::is_none) {
            return None;
        }
        let reasons: Vec<_> = reasons.into_iter().flatten().collect();
        return Some(if reasons.is_empty() {
            "no other hub of the pair has shown a sign of life".to_owned()
        } else {
            format!("no hub could take over: {}", reasons.join("; "))
        });
    };
    if to == me {
        return Some(format!("{me} is the primary itself"));
    }
    if let Some(peer) = peers.iter().find(|peer| peer.hub == to) {
        return unfit(peer);
    }
    let seen: Vec<_> = peers.iter().map(|peer| &*peer.hub).collect();
    let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
    Some(format!("no hub {to} has shown a sign of life; seen were: {seen}"))
}

/// Why this hub could not take over.
fn unfit(peer: &Peer) -> Option<String> {
    let Peer { hub, role, silent, ready, .. } = peer;
    match role {
        _ if *silent => Some(format!("{hub} is silent")),
        Some(Role::Passive) if *ready == Some(false) => {
            Some(format!("{hub} is not ready: `understudy status` there says why"))
        }
        Some(Role::Passive) => None,
        Some(role) => Some(format!("{hub} is {}", role.name())),
        None => Some(format!("{hub} does not say what it is")),
    }
}

/// Why the run that should have made the last backup did not. `newest`: what the journal then held.
pub fn refuses_backup(run: Option<&Run>, newest: Option<&BackupSummary>) -> Option<String> {
    let Some((run, newest)) = run.zip(newest) else {
        return Some("there is no last backup".to_owned());
    };
    if let Some(why) = &newest.suspect {
        let id = &newest.id;
        return Some(format!(
            "the last backup {id} is suspect, {why}; if it is in order: understudy backup ack {id}"
        ));
    }
    if run.outcome != Outcome::Success {
        let outcome = run.outcome.name();
        return Some(format!("the last backup is {outcome}: {}", run.message));
    }
    let own = run.backup.as_ref() == Some(&newest.id);
    (!own).then(|| format!("backup {} came after the last one", newest.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    #[test]
    fn a_term_is_handed_over_to_a_hub_that_can_take_it() {
        let peers = samples::primary().peers;
        let with = |change: &dyn Fn(&mut Peer)| {
            let mut peers = peers.clone();
            peers.retain(|peer| peer.hub == "eu-2");
            for peer in &mut peers {
                (peer.role, peer.ready, peer.silent) = (Some(Role::Passive), Some(true), false);
                change(peer);
            }
            peers
        };
        for (to, peers, expected) in [
            (Some("eu-2"), with(&|_| {}), None),
            (None, with(&|_| {}), None),
            (Some("eu-1"), with(&|_| {}), Some("eu-1 is the primary itself")),
            (
                Some("eu-3"),
                with(&|_| {}),
                Some("no hub eu-3 has shown a sign of life; seen were: eu-2"),
            ),
            (Some("eu-2"), with(&|p| p.silent = true), Some("eu-2 is silent")),
            (Some("eu-2"), with(&|p| p.role = Some(Role::Fenced)), Some("eu-2 is fenced")),
            (Some("eu-2"), with(&|p| p.ready = None), None),
            (
                None,
                with(&|p| p.ready = Some(false)),
                Some(
                    "no hub could take over: eu-2 is not ready: `understudy status` there says why",
                ),
            ),
            (None, vec![], Some("no other hub of the pair has shown a sign of life")),
        ] {
            assert_eq!(refuses(to, "eu-1", &peers).as_deref(), expected);
        }
    }

    #[test]
    fn the_last_backup_is_whole_in_order_and_the_newest() {
        let snapshot = samples::primary();
        let newest = snapshot.newest.clone().unwrap();
        let good = Run {
            what: "backup".to_owned(),
            at: newest.at,
            seconds: 1.0,
            outcome: Outcome::Success,
            backup: Some(newest.id.clone()),
            changed: 0,
            failed: 0,
            message: "m".to_owned(),
        };
        let id = &newest.id;
        let suspect = BackupSummary { suspect: Some("it shrank".to_owned()), ..newest.clone() };
        for (run, newest, expected) in [
            (good.clone(), &newest, None),
            (
                Run { outcome: Outcome::Partial, ..good.clone() },
                &newest,
                Some("the last backup is partial: m".to_owned()),
            ),
            (
                Run { outcome: Outcome::Failed, backup: None, ..good.clone() },
                &newest,
                Some("the last backup is failed: m".to_owned()),
            ),
            (
                good.clone(),
                &suspect,
                Some(format!(
                    "the last backup {id} is suspect, it shrank; if it is in order: understudy backup ack {id}"
                )),
            ),
            (
                Run { backup: Some("another".to_owned()), ..good.clone() },
                &newest,
                Some(format!("backup {id} came after the last one")),
            ),
        ] {
            assert_eq!(refuses_backup(Some(&run), Some(newest)), expected);
        }
        assert!(refuses_backup(None, Some(&newest)).is_some());
        assert!(refuses_backup(Some(&good), None).is_some());
    }
}
