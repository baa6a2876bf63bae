//! Pure: the page at `/`, for the person who was woken up: what this hub is, whether it is well, what
//! to do, then the figures.
//!
//! No script, no outside asset, at most 50 kB; words carry every state, colour only repeats them, so
//! it can be read in the dark, on paper and without colours. Everything is escaped by the template.

mod surroundings;

use crate::object::Set;
use crate::status::clusters::of_this_term;
use crate::status::problem::{Problem, Severity, promote_command};
use crate::status::verdict::{Level, verdict};
use crate::status::words::{age_of, bytes, count, full, moment, span_of};
use crate::status::{Check, Outcome, PRIMARY_SILENT, Role, Snapshot};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("page.css");
/// Seconds between two reloads.
const REFRESH: u32 = 15;
/// Without a tick of any loop for so long, what is shown is called stale.
const STALE_SECONDS: u64 = 60;
/// Of lists that could grow with the number of hubs.
const MAX_PEERS: usize = 20;
const MAX_CHECKS: usize = 20;

pub fn page(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let role = snapshot.role.map_or("starting", Role::name);
    let state = if snapshot.frozen.is_some() { "frozen" } else { role };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="refresh" content=(REFRESH);
                title { (snapshot.hub) " · " (state.to_uppercase()) " · Understudy" }
                style { (PreEscaped(STYLE)) }
            }
            body class=(state) {
                (banner(snapshot, state, now))
                main {
                    (the_verdict(snapshot, now))
                    (the_promotion(snapshot, now))
                    (the_clusters(snapshot, now))
                    div.columns {
                        (checklist(snapshot))
                        (pair(snapshot, now))
                    }
                    (sets(snapshot, now))
                    (runs(snapshot, now))
                    (surroundings::surroundings(snapshot, now))
                }
                (footer(snapshot))
            }
        }
    }
}

fn banner(snapshot: &Snapshot, state: &str, now: Timestamp) -> Markup {
    let last = snapshot.loops.values().max().copied();
    let is_stale =
        last.is_none_or(|at| crate::status::words::seconds_between(at, now) > STALE_SECONDS);
    html! {
        header {
            div.inner {
                div.who {
                    h1 { (snapshot.hub) }
                    span.role { (state.to_uppercase()) }
                    @if snapshot.epoch > 0 { span.epoch { "epoch " (snapshot.epoch) } }
                }
                div.when {
                    span { "pair " b { (snapshot.pair) } }
                    span { (full(now)) }
                    @match last {
                        Some(at) if is_stale => b.stale { "STALE: data read " (age_of(at, now)) " ago" },
                        Some(at) => span { "data read " (age_of(at, now)) " ago" },
                        None => span { "nothing read yet" },
                    }
                }
            }
        }
    }
}

fn the_verdict(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let verdict = verdict(snapshot, now);
    let (level, word) = match verdict.level {
        Level::Good => ("good", "✔"),
        Level::Attention => ("attention", "!"),
        Level::Bad => ("bad", "✘"),
    };
    html! {
        section class={"verdict " (level)} {
            h2 { span.mark aria-hidden="true" { (word) } (verdict.headline) }
            @for sentence in &verdict.sentences { p { (sentence) } }
        }
        @if !verdict.problems.is_empty() {
            section.todo {
                h2 { "What to do" }
                ol {
                    @for problem in &verdict.problems { (a_problem(problem)) }
                }
            }
        }
    }
}

fn a_problem(problem: &Problem) -> Markup {
    let (class, word) = match problem.severity {
        Severity::Critical => ("bad", "critical"),
        Severity::Warning => ("attention", "warning"),
    };
    html! {
        li {
            p {
                span class={"tag " (class)} { (word) }
                " " b { (problem.reason.word()) } " "
                (problem.message)
            }
            @if let Some(hint) = &problem.hint { (a_hint(hint)) }
        }
    }
}

/// A command stands in a box of its own, so that it can be copied whole; words before it stay words.
fn a_hint(hint: &str) -> Markup {
    let command = ["kubectl ", "understudy "].iter().filter_map(|start| hint.find(start)).min();
    let (words, command) = match command {
        Some(at) if at == 0 || hint[..at].ends_with(": ") => hint.split_at(at),
        Some(_) | None => (hint, ""),
    };
    html! {
        @if !words.is_empty() { p.hint { (words.trim_end()) } }
        @if !command.is_empty() { pre { code { (command) } } }
    }
}

/// The steps in the order in which an operator was told them.
const STEPS: [(&str, &str); 6] = [
    ("Requested", "request recorded"),
    ("TermHeld", "term taken, old primary fenced"),
    ("CaughtUp", "newest backup restored"),
    ("Activating", "activation running"),
    ("Activated", "activation finished"),
    ("Primary", "own schedule started"),
];

fn the_promotion(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let facts = &snapshot.promotion;
    if snapshot.role != Some(Role::Promoting) {
        return html! {};
    }
    let phase = facts.phase.as_deref().unwrap_or(STEPS[0].0);
    let reached = STEPS.iter().position(|(name, _)| *name == phase).unwrap_or(0);
    html! {
        section {
            h2 {
                "Promotion"
                @if let Some(at) = facts.started_at { small { "since " (moment(at, now)) } }
            }
            ol.steps {
                @for (index, (_, words)) in STEPS.iter().enumerate() {
                    @if index < reached {
                        li.done { span.mark { "✔" } (words) span.sr { " done" } }
                    } @else if index == reached {
                        li.now { span.mark { "▶" } span { (words) ", now" } }
                    } @else {
                        li.later { span.mark { "·" } (words) span.sr { " later" } }
                    }
                }
            }
        }
    }
}

fn the_clusters(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let Some(facts) = of_this_term(snapshot) else { return html! {} };
    html! {
        section {
            h2 {
                "Clusters taken over"
                @if let Some(at) = facts.looked_at { small { "as of " (moment(at, now)) } }
            }
            p { (facts.sentence()) }
        }
    }
}

fn checklist(snapshot: &Snapshot) -> Markup {
    let checks = &snapshot.promotion.checklist;
    if snapshot.role != Some(Role::Passive) || checks.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Could it be promoted now?" }
            ul.checks {
                @for check in checks.iter().take(MAX_CHECKS) { (a_check(check)) }
            }
            p.hint { "Promote this hub with:" }
            pre { code { (promote_command(snapshot, false)) } }
            @if checks.iter().any(|check| check.name == PRIMARY_SILENT && !check.ok) {
                p.hint { "Although the primary is alive:" }
                pre { code { (promote_command(snapshot, true)) } }
            }
        }
    }
}

/// That the primary is alive keeps a standby from being promoted, but it is no flaw of the standby.
fn a_check(check: &Check) -> Markup {
    let (class, mark, word) = match (check.ok, check.name == PRIMARY_SILENT) {
        (false, false) if !check.refuses() => {
            ("no", "✘", " – a warning, nothing is refused for it")
        }
        (true, _) => ("ok", "✔", ""),
        (false, true) => ("waits", "○", " not yet"),
        (false, false) => ("no", "✘", " not met"),
    };
    html! {
        li class=(class) {
            span.mark { (mark) }
            div {
                b { (check.name) } (word)
                span.why { (check.why) }
                @if let Some(hint) = check.hint.as_ref().filter(|_| !check.ok) { (a_hint(hint)) }
            }
        }
    }
}

fn pair(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let own = match snapshot.role {
        Some(Role::Passive) => snapshot.sync.restored.as_ref(),
        Some(Role::Primary | Role::Promoting) => snapshot.newest.as_ref(),
        // What a fenced hub holds is in nobody's backup.
        Some(Role::Fenced) | None => None,
    };
    html! {
        section {
            h2 { "The pair" }
            div.scroll { table {
                thead { tr { th { "Hub" } th { "Role" } th.number { "Epoch" } th { "Heartbeat" } th { "Holds backup" } } }
                tbody {
                    tr {
                        td { b { (snapshot.hub) } small.under { "this hub" } }
                        td { (role_tag(snapshot.role)) }
                        td.number { (snapshot.epoch) }
                        td { "–" }
                        td { (or_dash(own.map(|backup| backup.id.as_str()))) }
                    }
                    @for peer in snapshot.peers.iter().take(MAX_PEERS) {
                        tr {
                            td { b { (peer.hub) } }
                            td { (role_tag(peer.role)) }
                            td.number { (peer.epoch.map_or("–".to_owned(), |epoch| epoch.to_string())) }
                            td {
                                @if peer.silent { span.tag.bad { "silent" } " " }
                                (age_of(peer.heartbeat_at, now)) " ago"
                            }
                            td { (or_dash(peer.backup.as_deref())) }
                        }
                    }
                }
            } }
            @if snapshot.peers.is_empty() { p.hint { "No other hub was seen in this repository." } }
        }
    }
}

fn role_tag(role: Option<Role>) -> Markup {
    let name = role.map_or("unknown", Role::name);
    html! { span class={"tag role-" (name)} { (name) } }
}

fn or_dash(text: Option<&str>) -> &str {
    text.unwrap_or("–")
}

fn sets(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let newest = snapshot.newest.as_ref();
    let restored = snapshot.sync.restored.as_ref();
    let passive = snapshot.role == Some(Role::Passive);
    html! {
        section {
            h2 { "Sets" @if let Some(newest) = newest { small { "newest backup " (moment(newest.at, now)) } } }
            div.scroll { table {
                thead { tr {
                    th { "Set" } th { "Newest in storage" }
                    @if passive { th { "On this hub" } th.number { "Data age" } }
                    th.number { "Objects" } th.number { "Changed" } th.number { "Size" }
                } }
                tbody {
                    @for set in Set::ALL {
                        @let summary = newest.and_then(|backup| backup.sets.get(&set));
                        tr {
                            td { b { (set.name()) } }
                            td { (or_dash(newest.map(|backup| backup.id.as_str()))) }
                            @if passive {
                                @if set == Set::Activation {
                                    td { "held back" small { "until a promotion" } }
                                } @else {
                                    td { (or_dash(restored.map(|backup| backup.id.as_str()))) }
                                }
                                @let held = if set == Set::Activation { snapshot.usable() } else { restored };
                                td.number { (held.map_or("–".to_owned(), |backup| age_of(backup.at, now))) }
                            }
                            td.number { (summary.map_or("–".to_owned(), |set| count(set.objects))) }
                            td.number { (summary.map_or("–".to_owned(), |set| count(set.changed))) }
                            td.number { (summary.map_or("–".to_owned(), |set| bytes(set.bytes))) }
                        }
                    }
                }
            } }
        }
    }
}

fn runs(snapshot: &Snapshot, now: Timestamp) -> Markup {
    html! {
        section {
            h2 { "Last runs" }
            @if snapshot.runs.is_empty() {
                p.hint { "None yet." }
            } @else {
                div.scroll { table {
                    thead { tr {
                        th { "Started" } th { "What" } th { "Outcome" } th { "Backup" }
                        th.number { "Took" } th.number { "Changed" } th.number { "Failed" }
                    } }
                    tbody {
                        @for run in snapshot.runs.iter().take(crate::status::MAX_RUNS) {
                            tr {
                                td { (moment(run.at, now)) }
                                td { (run.what) }
                                td { (outcome_tag(run.outcome)) @if !run.message.is_empty() { small { (shortened(&run.message)) } } }
                                td { (or_dash(run.backup.as_deref())) }
                                td.number { (span_of(run.seconds)) }
                                td.number { (count(run.changed)) }
                                td.number { (count(run.failed)) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

fn outcome_tag(outcome: Outcome) -> Markup {
    let class = match outcome {
        Outcome::Success | Outcome::Changed => "good",
        Outcome::Unchanged | Outcome::Skipped => "quiet",
        Outcome::Partial | Outcome::Refused => "attention",
        Outcome::Failed => "bad",
    };
    html! { span class={"tag " (class)} { (outcome.name()) } }
}

/// Twenty long errors would make the page larger than it may be.
fn shortened(message: &str) -> String {
    const MAX: usize = 160;
    if message.chars().count() <= MAX {
        return message.to_owned();
    }
    let mut text: String = message.chars().take(MAX).collect();
    text.push('…');
    text
}

fn footer(snapshot: &Snapshot) -> Markup {
    html! {
        footer {
            span { "Understudy " (snapshot.version) }
            @if !snapshot.config.hash.is_empty() { span { "configuration " (snapshot.config.hash) } }
            nav {
                a href="api/v1/status" { "status" }
                a href="api/v1/backups" { "backups" }
                a href="metrics" { "metrics" }
                a href="livez" { "livez" }
                a href="readyz" { "readyz" }
            }
        }
    }
}
