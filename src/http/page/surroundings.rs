//! Pure: what stands around a hub: its storage and keys, what runs next, and what was tried.

use crate::status::drill::told;
use crate::status::words::{age_of, count, full, moment, span_of, until};
use crate::status::{DrillFacts, RehearsalFacts, Role, Snapshot};
use jiff::Timestamp;
use maud::{Markup, html};

pub(super) fn surroundings(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let storage = &snapshot.storage;
    html! {
        div.columns {
            section {
                h2 { "Storage" }
                dl {
                    dt { "Place" } dd.place { (storage.location) }
                    dt { "State" }
                    dd {
                        @match storage.up {
                            Some(true) => { span.tag.good { "available" } },
                            Some(false) => { span.tag.bad { "unavailable" } },
                            None => { "not tried yet" },
                        }
                        @if let Some(latency) = storage.latency_seconds.filter(|_| storage.up == Some(true)) { " " (span_of(latency)) }
                        @if let Some(at) = storage.last_probe_at { small { "probed " (age_of(at, now)) " ago" } }
                    }
                    dt { "Fencing" }
                    dd { (match storage.atomic_create {
                        Some(true) => "conditional writes hold",
                        Some(false) if storage.allow_unfenced => "NO: allowed by allowUnfenced",
                        Some(false) => "NO: conditional writes do not hold",
                        None => "not probed yet",
                    })
                    @if let Some(at) = storage.raced_at { small { "raced " (age_of(at, now)) " ago" } } }
                    @if let Some(skew) = storage.clock_skew_seconds {
                        dt { "Clock skew" } dd { (format!("{skew:.1}s")) }
                    }
                    dt { "Backups" }
                    dd {
                        (count(snapshot.backups_in_storage as u64))
                        @if let Some(at) = snapshot.oldest_backup_at { ", the oldest " (age_of(at, now)) " old" }
                    }
                    dt { "Verified" }
                    dd { (verified(snapshot, now)) }
                }
            }
            section {
                h2 { "Keys and next runs" }
                dl {
                    dt { "Keys" }
                    dd {
                        (snapshot.keys.known) " known"
                        @match snapshot.keys.newest_opens {
                            Some(true) => ", the newest backup opens",
                            Some(false) => { ", " b { "the newest backup does NOT open" } },
                            None => "",
                        }
                    }
                    @match snapshot.role {
                        Some(Role::Primary) => {
                            dt { "Next backup" }
                            dd { (next(snapshot.backup.next_run_at, now)) (paused(snapshot, now)) }
                            dt { "Due by" } dd { (snapshot.backup.deadline_at.map_or("–".to_owned(), full)) }
                        },
                        Some(Role::Passive) => {
                            dt { "Next sync" } dd { (next(snapshot.sync.next_run_at, now)) (paused(snapshot, now)) }
                            dt { "Due by" } dd { (snapshot.sync.deadline_at.map_or("–".to_owned(), full)) }
                            (tried(snapshot, now))
                        },
                        Some(Role::Promoting | Role::Fenced) | None => {},
                    }
                    @if let Some(at) = snapshot.role_since {
                        dt { "In this role" } dd { "since " (full(at)) small { (age_of(at, now)) } }
                    }
                    dt { "Running" } dd { "since " (full(snapshot.started_at)) small { (age_of(snapshot.started_at, now)) } }
                }
            }
        }
    }
}

/// What of a promotion was tried here.
fn tried(snapshot: &Snapshot, now: Timestamp) -> Markup {
    html! {
        dt { "Activation set" } dd { (rehearsed(&snapshot.sync.rehearsal, now)) }
        dt { "Next drill" } dd { (drill(&snapshot.drill, now)) }
    }
}

fn rehearsed(facts: &RehearsalFacts, now: Timestamp) -> String {
    let ago = facts.last_attempt_at.map(|at| format!(", {} ago", age_of(at, now)));
    format!("{}{}", facts.sentence(), ago.unwrap_or_default())
}

/// What the last one found stands in the verdict, and what to do beside it.
fn drill(facts: &DrillFacts, now: Timestamp) -> Markup {
    html! {
        @match facts.running_since {
            Some(at) => { "runs since " (moment(at, now)) },
            None => (next(facts.next_run_at, now)),
        }
        @if let Some(last) = &facts.last { small { "last: " (told(last)) } }
        @if let Some(why) = &facts.broken_off { small { (why) } }
    }
}

fn verified(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let facts = &snapshot.verify;
    html! {
        @match facts.last_success_at {
            Some(at) => { "found sound " (age_of(at, now)) " ago" },
            None => { "not found sound yet" },
        }
        @if facts.damaged_objects > 0 { " " span.tag.bad { (count(facts.damaged_objects)) " damaged" } }
        @if let Some(at) = facts.next_run_at { small { "next " (until(at, now)) } }
    }
}

/// Why stands among what to do.
fn paused(snapshot: &Snapshot, now: Timestamp) -> Markup {
    html! {
        @if let Some(pause) = &snapshot.pause {
            " " span.tag.attention { (pause.sentence(now)) }
        }
    }
}

fn next(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or("–".to_owned(), |at| until(at, now))
}
