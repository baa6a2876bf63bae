//! What can go wrong on the way to a server, and which requests it happens to.

use super::super::hub::NAMESPACE;
use super::history::Exchange;
use bytes::Bytes;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing reaches the server, the connection ends.
    FailBefore,
    /// The server acts, its answer is lost.
    ApplyThenDrop,
    /// Nothing reaches the server, and the client waits.
    Stall,
    /// The server acts, and the client waits.
    ApplyThenStall,
    /// The server acts, and the client is told something else.
    ApplyThen { status: u16, body: String },
    /// The connection ends at once, the request reaches the server so much later.
    Hold(Duration),
    /// The request is delivered twice and the second answer shown, as by a proxy that tries again.
    Duplicate,
    /// The body ends after so many bytes, and its length says so.
    Truncate(Side, usize),
    /// One bit of the byte at this place (counted round) is another one.
    Flip(Side, usize),
    /// The connection ends after so many bytes of the body.
    Reset(Side, usize),
    /// The first answer that was ever given to the same request, if there was one.
    Stale,
    /// A listing without the keys that hold this.
    Omit(String),
    /// The server is not asked.
    Status { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// Delivered so much later, and then answered.
    Slow(Duration),
    /// The server never sees this header; the rest is signed anew.
    Strip(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Answer,
}

/// The first rule that applies to a request decides. A rule counts the requests that match it.
#[derive(Clone, Debug)]
pub struct Rule {
    pub fault: Fault,
    /// `PUT`, `GET`, `DELETE`, `LIST`; empty: any; `CHANGE`: what changes more than heartbeats and
    /// probes; `WRITE`: what changes objects of a hub other than the daemon's own; `EFFECT`: what
    /// changes anything on a hub but its Events.
    pub method: &'static str,
    /// How the key begins (within the bucket); of a listing, the prefix that it asks for.
    pub key: String,
    pub when: When,
}

/// Which of the matching requests, counted from 1.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Always,
    Nth(u64),
    /// The first so many.
    First(u64),
    /// This one and all behind it.
    From(u64),
    /// So many of a hundred, the same ones for the same seed.
    Chance {
        percent: u64,
        seed: u64,
    },
}

#[derive(Default)]
pub(super) struct Rules(Vec<(Rule, u64)>);

impl Rules {
    pub(super) fn add(&mut self, rule: Rule) {
        self.0.push((rule, 0));
    }

    pub(super) fn heal(&mut self, prefix: &str) {
        self.0.retain(|(rule, _)| !rule.key.starts_with(prefix));
    }

    pub(super) fn choose(&mut self, exchange: &Exchange) -> Option<Fault> {
        let (method, key) = (&*exchange.method, &*exchange.key);
        let mut chosen = None;
        for (rule, matches) in &mut self.0 {
            let asked = match rule.method {
                "" => true,
                "CHANGE" => is_change(method, key),
                "WRITE" => is_write(method, key),
                "EFFECT" => is_effect(exchange),
                one => one == method,
            };
            if asked && key.starts_with(&rule.key) {
                *matches += 1;
                if chosen.is_none() && rule.when.holds(*matches) {
                    chosen = Some(rule.fault.clone());
                }
            }
        }
        chosen
    }
}

/// Of what a reader of the repository relies on.
pub fn is_change(method: &str, key: &str) -> bool {
    matches!(method, "PUT" | "DELETE") && !key.contains("/beats/") && !key.contains("/probes/")
}

/// Of an API server: what a restore does, beside the daemon's own state and questions.
pub fn is_write(method: &str, key: &str) -> bool {
    let own =
        ["understudy.dev/", "events.k8s.io/", "authorization.k8s.io/", "coordination.k8s.io/"];
    matches!(method, "POST" | "PUT" | "PATCH" | "DELETE")
        && !own.iter().any(|group| key.starts_with(group))
        && !key.starts_with(&format!("v1/namespaces/{NAMESPACE}/"))
}

/// Of an API server: whatever stays, be it the daemon's own state; questions and dry runs do not.
pub fn is_effect(exchange: &Exchange) -> bool {
    let passing = ["events.k8s.io/", "authorization.k8s.io/"];
    matches!(&*exchange.method, "POST" | "PUT" | "PATCH" | "DELETE")
        && !passing.iter().any(|group| exchange.key.starts_with(group))
        && !exchange.is_dry_run()
}

impl When {
    fn holds(self, number: u64) -> bool {
        match self {
            When::Always => true,
            When::Nth(nth) => number == nth,
            When::First(many) => number <= many,
            When::From(nth) => number >= nth,
            When::Chance { percent, seed } => draw(seed, number) % 100 < percent,
        }
    }
}

/// `SplitMix64`: the same number for the same seed and step, on every machine.
pub fn draw(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn flip(body: &Bytes, at: usize) -> Bytes {
    let mut bytes = body.to_vec();
    if !bytes.is_empty() {
        let at = at % bytes.len();
        bytes[at] ^= 1;
    }
    bytes.into()
}

/// A listing without the entries whose keys hold `needle`.
pub(super) fn omit(listing: &Bytes, needle: &str) -> Bytes {
    let text = String::from_utf8_lossy(listing);
    let mut parts = text.split("<Contents>");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entry, behind) = part.split_once("</Contents>").unwrap_or((part, ""));
        if !entry.contains(needle) {
            kept.extend(["<Contents>", entry, "</Contents>"]);
        }
        kept.push_str(behind);
    }
    kept.into()
}
