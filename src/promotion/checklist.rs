//! Pure: the preconditions of a promotion, each with what speaks for or against it and what helps.

use super::machine::Fence;
use crate::status::handover::HandedOver;
use crate::status::words::full;
use crate::status::{Check, PRIMARY_SILENT, REHEARSED, RehearsalFacts, SERVED};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known when the list is made.
#[derive(Clone, Debug)]
pub struct Known {
    pub hub: String,
    /// Where its `Hub` resource stands.
    pub namespace: String,
    pub storage_up: bool,
    pub fence: Fence,
    /// Id of the newest usable backup in the storage.
    pub newest: Option<String>,
    /// Id of the newest backup that was fetched, verified and opened here in full.
    pub opened: Option<String>,
    /// Why the newest could not be opened.
    pub damaged: Option<String>,
    /// Age of the newest usable backup by the storage's own clock. `None`: not known.
    pub data_age: Option<Duration>,
    pub max_data_age: Duration,
    /// The backup from which the request wants to start.
    pub expected: Option<String>,
    pub primary: String,
    /// It gave its term up.
    pub handed: Option<HandedOver>,
    /// How long the primary's heartbeat has not changed, by this hub's own clock.
    pub silent_for: Duration,
    pub primary_silence: Duration,
    /// The key, not held here, under which the primary shows signs of life.
    pub unread_key: Option<String>,
    /// Objects of the newest backup whose kind this hub does not serve, by kind.
    pub waiting: BTreeMap<String, u64>,
    pub rehearsal: RehearsalFacts,
    /// The operator vouches for the primary's death, with a reason.
    pub forced: bool,
}

/// Of the hub that handed over: what it starts from is itself.
pub fn taking_back(known: &Known) -> Vec<Check> {
    vec![storage(known), fence(known), silence(known)]
}

/// All of them, in the order in which people read them; nothing is left out when one fails.
pub fn checklist(known: &Known) -> Vec<Check> {
    let mut list = vec![storage(known), fence(known), backup(known), age(known)];
    list.extend(expected(known));
    list.extend([served(&known.waiting), rehearsed(&known.rehearsal), silence(known)]);
    list
}

fn check(name: &str, reason: &str, ok: bool, why: String, hint: Option<String>) -> Check {
    Check { name: name.to_owned(), reason: reason.to_owned(), ok, why, hint: hint.filter(|_| !ok) }
}

fn storage(known: &Known) -> Check {
    let why = if known.storage_up { "the storage answers" } else { "the storage does not answer" };
    check(
        "storage reachable",
        "StorageUnavailable",
        known.storage_up,
        why.to_owned(),
        Some("see the condition StorageAvailable".to_owned()),
    )
}

fn fence(known: &Known) -> Check {
    let (ok, why) = match &known.fence {
        Fence::Proven => (true, "a superseded primary is refused by the storage itself".to_owned()),
        Fence::Unfenced => {
            (true, "the storage cannot fence, and storage.allowUnfenced is set".to_owned())
        }
        Fence::NotProbed => (true, "not proven yet; it is before the term is taken".to_owned()),
        Fence::Refuted(why) => (false, format!("the storage cannot fence: {why}")),
    };
    let hint = "use a storage with an atomic conditional create, or set storage.allowUnfenced: true after the primary's machines are off";
    check("storage fences", "StorageNotAtomic", ok, why, Some(hint.to_owned()))
}

fn backup(known: &Known) -> Check {
    let hint = Some("wait for the first sync, or see the condition Synced".to_owned());
    let (ok, why) = match (&known.newest, &known.opened, &known.damaged) {
        (None, _, _) => (false, "there is no backup to promote from".to_owned()),
        (Some(newest), _, Some(damaged)) => {
            (false, format!("the newest backup {newest} cannot be opened: {damaged}"))
        }
        (Some(newest), None, None) => {
            (false, format!("the backup {newest} has not been opened here yet"))
        }
        (Some(_), Some(opened), None) => {
            (true, format!("the backup {opened} opens: every byte of it was verified"))
        }
    };
    check("newest backup opens", "NoBackup", ok, why, hint)
}

fn age(known: &Known) -> Check {
    let limit = humantime::format_duration(known.max_data_age);
    let (ok, why) = match known.data_age {
        None => (false, "the age of the newest backup is not known yet".to_owned()),
        Some(age) => {
            let age_text = humantime::format_duration(Duration::from_secs(age.as_secs()));
            (
                age <= known.max_data_age,
                format!("the newest backup is {age_text} old, at most {limit} is accepted"),
            )
        }
    };
    check(
        "data young enough",
        "DataTooOld",
        ok,
        why,
        Some(format!(
            "if older data is better than none: understudy promote --max-data-age {}",
            known.data_age.map_or_else(|| "TIME".to_owned(), above)
        )),
    )
}

/// The next full hour, so that the command still works when it has been typed.
fn above(age: Duration) -> String {
    format!("{}h", age.as_secs() / 3600 + 1)
}

fn expected(known: &Known) -> Option<Check> {
    let expected = known.expected.as_ref()?;
    let newest = known.newest.as_deref().unwrap_or("none");
    let ok = newest == expected;
    let why = if ok {
        format!("the newest backup is {expected}, as expected")
    } else {
        format!("the newest backup is {newest}, and not {expected}")
    };
    let hint = format!("understudy promote --expect-backup {newest}");
    Some(check("expected backup", "UnexpectedBackup", ok, why, Some(hint)))
}

/// A promotion that waited for a missing product would help nobody: its objects come as soon as the hub
/// serves their kind.
fn served(waiting: &BTreeMap<String, u64>) -> Check {
    const NAMED: usize = 5;
    let kinds = waiting.iter().take(NAMED).map(|(kind, n)| format!("{kind} ({n})"));
    let more = if waiting.len() > NAMED { ", …" } else { "" };
    let why = if waiting.is_empty() {
        "this hub serves every kind that was restored".to_owned()
    } else {
        let kinds: Vec<_> = kinds.collect();
        format!("this hub does not serve {}{more}", kinds.join(", "))
    };
    let hint = "install on this hub what defines these kinds, or allow their definitions in \
                passive.allowKinds; their objects come with the next sync, also after a promotion";
    check(SERVED, "CRDMissing", waiting.is_empty(), why, Some(hint.to_owned()))
}

/// What this hub does not take is named and refuses nothing: in a disaster most of a fleet is better
/// than none of it.
fn rehearsed(facts: &RehearsalFacts) -> Check {
    let hint = if facts.failed.is_empty() {
        "it is tried after the next sync"
    } else {
        "mend what refuses it on this hub; a promotion now would go on without these objects"
    };
    let mut why = facts.sentence();
    if let Some(first) = facts.named.first() {
        why = format!("{why}, such as {first}");
    }
    check(REHEARSED, "RehearsalFailed", facts.is_clean(), why, Some(hint.to_owned()))
}

fn silence(known: &Known) -> Check {
    let Known { primary, silent_for, primary_silence, forced, hub, namespace, .. } = known;
    let for_us = |handed: &&HandedOver| handed.is_for(hub) || primary == hub;
    let handed = known.handed.as_ref().filter(for_us);
    let silent_enough = silent_for >= primary_silence && known.unread_key.is_none();
    let ok = *forced || handed.is_some() || silent_enough;
    let silent = humantime::format_duration(Duration::from_secs(silent_for.as_secs()));
    let needed = humantime::format_duration(*primary_silence);
    let why = if let Some(HandedOver { to: _, at, backup }) = handed {
        let backup = backup.as_ref().map_or(String::new(), |id| format!(", backup {id}"));
        format!("handed over by {primary} at {}{backup}", full(*at))
    } else if *forced {
        format!("{primary} is declared dead by the operator")
    } else if let Some(key) = &known.unread_key {
        format!(
            "the heartbeats of {primary} go on under the key {key}, which this hub does not hold: add \
             that key file to encryption.keyFiles here"
        )
    } else if ok {
        format!("{primary} has been silent for {silent}")
    } else {
        format!("{primary} showed a sign of life {silent} ago, it must be silent for {needed}")
    };
    let hint = format!(
        "if {primary} is surely dead: kubectl -n {namespace} annotate hubs.understudy.dev {hub} \
         understudy.dev/promote-reason='why' 'understudy.dev/promote={hub}!primary-is-dead'"
    );
    check(PRIMARY_SILENT, "PrimaryAlive", ok, why, Some(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(change: impl FnOnce(&mut Known)) -> Vec<String> {
        let mut known = Known {
            hub: "eu-2".to_owned(),
            namespace: "understudy".to_owned(),
            storage_up: true,
            fence: Fence::Proven,
            newest: Some("20261120-173007-42".to_owned()),
            opened: Some("20261120-173007-42".to_owned()),
            damaged: None,
            data_age: Some(Duration::from_mins(10)),
            max_data_age: Duration::from_hours(2),
            expected: None,
            primary: "eu-1".to_owned(),
            handed: None,
            silent_for: Duration::from_mins(2),
            primary_silence: Duration::from_mins(1),
            unread_key: None,
            waiting: BTreeMap::new(),
            rehearsal: RehearsalFacts {
                last_attempt_at: Some(jiff::Timestamp::UNIX_EPOCH),
                ..RehearsalFacts::default()
            },
            forced: false,
        };
        change(&mut known);
        let (list, warns) = (checklist(&known), [REHEARSED, SERVED]);
        assert!(list.iter().all(|check| !check.why.is_empty() && check.ok == check.hint.is_none()));
        assert!(
            list.iter()
                .all(|check| check.refuses() == (!check.ok && !warns.contains(&&*check.name)))
        );
        list.into_iter().filter(|check| !check.ok).map(|check| check.reason).collect()
    }

    #[test]
    fn each_precondition_fails_alone() {
        assert_eq!(failed(|_| {}), [] as [String; 0]);
        assert_eq!(failed(|k| k.storage_up = false), ["StorageUnavailable"]);
        assert_eq!(failed(|k| k.fence = Fence::NotProbed), [] as [String; 0]);
        assert_eq!(failed(|k| k.fence = Fence::Refuted("x".to_owned())), ["StorageNotAtomic"]);
        assert_eq!(failed(|k| k.newest = None), ["NoBackup"]);
        assert_eq!(failed(|k| k.opened = None), ["NoBackup"]);
        assert_eq!(failed(|k| k.damaged = Some("pack x".to_owned())), ["NoBackup"]);
        assert_eq!(failed(|k| k.data_age = None), ["DataTooOld"]);
        assert_eq!(failed(|k| k.data_age = Some(Duration::from_hours(3))), ["DataTooOld"]);
        let backup = |id: &str| Some(id.to_owned());
        assert_eq!(failed(|k| k.expected = k.newest.clone()), [] as [String; 0]);
        assert_eq!(failed(|k| k.expected = backup("20261120-173007-41")), ["UnexpectedBackup"]);
        assert_eq!(failed(|k| k.waiting = [("parts.x.io".to_owned(), 3)].into()), ["CRDMissing"]);
        assert_eq!(failed(|k| k.silent_for = Duration::from_secs(59)), ["PrimaryAlive"]);
        assert_eq!(failed(|k| k.unread_key = Some("k2".to_owned())), ["PrimaryAlive"]);
    }

    #[test]
    fn a_hand_over_stands_for_silence_and_for_nothing_else() {
        let handed = |to: &str| {
            let to = to.to_owned();
            Some(HandedOver { to, at: jiff::Timestamp::UNIX_EPOCH, backup: None })
        };
        let nothing: [String; 0] = [];
        for (to, refused) in
            [("eu-2", &nothing[..]), ("", &nothing), ("eu-3", &["PrimaryAlive".to_owned()])]
        {
            let found = failed(|k| (k.handed, k.silent_for) = (handed(to), Duration::ZERO));
            assert_eq!(found, refused, "to {to:?}");
        }
        let found = failed(|k| (k.handed, k.newest) = (handed("eu-2"), None));
        assert_eq!(found, ["NoBackup"]);
    }

    #[test]
    fn an_operator_can_vouch_for_the_primarys_death_and_for_nothing_else() {
        assert_eq!(
            failed(|k| {
                k.silent_for = Duration::ZERO;
                k.forced = true;
            }),
            [] as [String; 0]
        );
        assert_eq!(
            failed(|k| {
                k.damaged = Some("x".to_owned());
                k.forced = true;
            }),
            ["NoBackup"]
        );
    }
}
