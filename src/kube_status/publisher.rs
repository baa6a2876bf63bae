//! Writes the status of the own `Hub`: at once when a state changed, seldom when only figures did.
//!
//! One publisher a process. A promotion calls [`Publisher::publish`] itself before it acts, because
//! its request and its phase must be durable first; the loop that follows the board calls the same
//! function, so there is one place that knows the resourceVersion.

use super::{Hub, HubError, HubStatus, Published, ensure, publish};
use crate::status::Snapshot;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

/// Figures (runs, sets, times) are written at most this often.
pub const FIGURES_EVERY: SignedDuration = SignedDuration::from_secs(30);
/// When nothing changes, a report still comes this often, so that a silent daemon is noticed.
pub const REPORT_EVERY: SignedDuration = SignedDuration::from_mins(2);

/// Whether the new status is worth a write now.
pub fn must_write(
    old: Option<&HubStatus>,
    new: &HubStatus,
    last_write: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let (Some(old), Some(last_write)) = (old, last_write) else { return true };
    let waited = now.duration_since(last_write);
    // A clock that was set back must not silence the report.
    if states(old) != states(new) || waited >= REPORT_EVERY || waited.is_negative() {
        return true;
    }
    figures(old) != figures(new) && waited >= FIGURES_EVERY
}

/// What is written at once: states and what a restart reads back.
fn states(status: &HubStatus) -> impl PartialEq + use<'_> {
    let conditions: Vec<_> =
        status.conditions.iter().map(|c| (&c.kind, &c.status, &c.reason)).collect();
    let HubStatus { role, epoch, promotion, handover, pause, answers, watermark, .. } = status;
    (role, epoch, promotion, handover, pause, answers, watermark, conditions)
}

/// What changes with the work, without what changes with the clock alone.
fn figures(status: &HubStatus) -> HubStatus {
    let mut quiet = HubStatus { reported_at: None, facts: None, ..status.clone() };
    if let Some(peer) = &mut quiet.peer {
        peer.last_heartbeat = None;
    }
    quiet
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Written,
    /// Nothing worth a write.
    Kept,
    /// Another process wrote this status. Nothing was overwritten yet; the next write goes upon what
    /// stands there now, since which of two daemons ends is for the journal to say.
    OtherWriter,
}

pub struct Publisher {
    client: kube::Client,
    namespace: String,
    name: String,
    last: Mutex<Last>,
}

struct Last {
    hub: Hub,
    written_at: Option<Timestamp>,
    /// `reportedAt` of a write whose answer may have been lost: it is ours if it stands there.
    attempted: Option<Timestamp>,
}

impl Last {
    /// Whether the status was written by neither this process nor by nobody.
    fn is_foreign(&self, current: &Hub) -> bool {
        let reported = |hub: &Hub| hub.status.as_ref().and_then(|status| status.reported_at);
        let found = reported(current);
        found.is_some() && found != reported(&self.hub) && found != self.attempted
    }
}

impl Publisher {
    /// `hub` as [`ensure`] gave it.
    pub fn new(client: kube::Client, namespace: String, name: String, hub: Hub) -> Self {
        let last = Last { hub, written_at: None, attempted: None };
        Self { client, namespace, name, last: Mutex::new(last) }
    }

    /// Returns once the status is durable or was not worth a write. A changed promotion or
    /// watermark is always worth one.
    pub async fn publish(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Outcome, HubError> {
        /// Annotations come and go beside our writes; more often than this is another writer.
        const ATTEMPTS: usize = 3;
        let mut last = self.last.lock().await;
        for _ in 0..ATTEMPTS {
            let before = last.hub.status.as_ref();
            let status = HubStatus::of(snapshot, before, last.hub.metadata.generation, now);
            if !must_write(before, &status, last.written_at, now) {
                return Ok(Outcome::Kept);
            }
            let version = last.hub.metadata.resource_version.clone().unwrap_or_default();
            last.attempted = status.reported_at;
            let Self { client, namespace, name, last: _ } = self;
            match publish(client, namespace, name, &status, &version).await? {
                Published::Done(hub) => {
                    *last = Last { hub: *hub, written_at: Some(now), attempted: None };
                    return Ok(Outcome::Written);
                }
                Published::Conflict | Published::Gone => {
                    let current = ensure(client, namespace, name).await?;
                    let foreign = last.is_foreign(&current);
                    last.hub = current;
                    if foreign {
                        return Ok(Outcome::OtherWriter);
                    }
                }
            }
        }
        Ok(Outcome::OtherWriter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{self, ago, now, run};
    use crate::status::{Outcome as RunOutcome, Watermark};

    fn check(change: impl FnOnce(&mut Snapshot), seconds_after: i64, expected: bool) {
        let mut snapshot = samples::passive();
        let written = ago(seconds_after);
        let old = HubStatus::of(&snapshot, None, Some(1), written);
        change(&mut snapshot);
        let new = HubStatus::of(&snapshot, Some(&old), Some(1), now());
        assert_eq!(must_write(Some(&old), &new, Some(written), now()), expected);
    }

    #[test]
    fn a_state_is_written_at_once() {
        check(|s| s.storage.up = Some(false), 1, true);
        check(|s| s.role = Some(crate::status::Role::Fenced), 1, true);
        check(|s| s.epoch = 8, 1, true);
        check(|s| s.promotion.phase = Some("Requested".to_owned()), 1, true);
        check(|s| s.watermark = Some(Watermark { slot: 43, digest: "1".to_owned() }), 1, true);
    }

    #[test]
    fn figures_wait_half_a_minute() {
        let another = |s: &mut Snapshot| s.add_run(run("sync", 1, RunOutcome::Unchanged, 0));
        check(another, 29, false);
        check(another, 30, true);
    }

    #[test]
    fn what_only_the_clock_moves_waits_for_the_report() {
        let moved = |s: &mut Snapshot| {
            s.loops.insert("sync".to_owned(), now());
            s.peers[0].heartbeat_at = now();
            s.storage.latency_seconds = Some(0.5);
        };
        check(moved, 60, false);
        check(|_| {}, 119, false);
        check(moved, 120, true);
        check(|_| {}, 120, true);
    }

    #[test]
    fn the_first_write_and_a_clock_set_back_are_written() {
        let status = HubStatus::of(&samples::passive(), None, None, now());
        assert!(must_write(None, &status, None, now()));
        assert!(must_write(Some(&status), &status, None, now()));
        assert!(must_write(Some(&status), &status, Some(ago(-5)), now()));
        assert!(!must_write(Some(&status), &status, Some(ago(5)), now()));
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_not_another_writer() {
        let hub = |at: Option<Timestamp>| {
            let mut hub = Hub::new("eu-2", super::super::HubFields {});
            hub.status = at.map(|at| HubStatus { reported_at: Some(at), ..HubStatus::default() });
            hub
        };
        let last = Last { hub: hub(Some(ago(30))), written_at: None, attempted: Some(ago(5)) };
        for (found, foreign) in
            [(Some(ago(30)), false), (Some(ago(5)), false), (None, false), (Some(ago(4)), true)]
        {
            assert_eq!(last.is_foreign(&hub(found)), foreign, "{found:?}");
        }
    }
}
