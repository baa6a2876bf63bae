//! Pure: when the next backup begins, by when one must have succeeded, and what a pause holds back.
//!
//! The schedule is in wall time, which may be set by hours or years in either direction, and a loop
//! may be asleep for as long. Whatever was missed meanwhile is one run. A run that is farther away
//! than the schedule could have it is left from a clock that was set back: nobody knows what was
//! missed, so one is due. What is a length of time, a wait or a pause, ends by the monotonic clock
//! too, so that no wall clock can make it longer.

use crate::schedule::Cron;
use crate::status::pause::Pause;
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

/// Clocks are corrected by seconds all the time.
const SLIGHT: Duration = Duration::from_mins(1);

pub(in crate::daemon) struct Due {
    cron: Cron,
    jitter: Duration,
    /// How long a backup may take.
    timeout: Duration,
    /// The next run by the schedule, with its jitter.
    slot: Timestamp,
    /// At once, whatever the schedule and a pause say.
    asked: bool,
    /// At once, unless there is a pause.
    wanted: bool,
    /// After a failure, ahead of the schedule.
    retry_at: Option<Instant>,
    pause: Option<Running>,
    /// When the last pause ended, until a deadline was counted from there.
    resumed: Option<Timestamp>,
    /// The last success, and the deadline after it.
    promised: Option<(Timestamp, Timestamp)>,
}

struct Running {
    pause: Pause,
    /// By the monotonic clock. None: by nobody but an operator.
    ends: Option<Instant>,
}

/// What a look found to have happened since the one before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Passed {
    /// The time of the pause is over.
    pub(in crate::daemon) resumed: bool,
    /// A run was due and is held back by the pause.
    pub(in crate::daemon) skipped: bool,
    pub(in crate::daemon) clock_set_back: bool,
}

impl Due {
    pub(in crate::daemon) fn new(
        cron: Cron,
        jitter: Duration,
        timeout: Duration,
        now: Timestamp,
    ) -> Self {
        let slot = cron.next_after(now);
        Self {
            cron,
            jitter,
            timeout,
            slot,
            asked: false,
            wanted: false,
            retry_at: None,
            pause: None,
            resumed: None,
            promised: None,
        }
    }

    /// Whatever the schedule and a pause say: somebody asks, or a promotion is not whole without it.
    pub(in crate::daemon) fn ask(&mut self) {
        self.asked = true;
    }

    /// Ahead of the schedule, but not against a pause.
    pub(in crate::daemon) fn want(&mut self) {
        self.wanted = true;
    }

    pub(in crate::daemon) fn failed(&mut self, monotonic: Instant, wait: Duration) {
        self.retry_at = Some(monotonic + wait);
    }

    /// To be called before anything is asked: follows the clocks.
    pub(in crate::daemon) fn look(&mut self, now: Timestamp, monotonic: Instant) -> Passed {
        let mut passed = Passed::default();
        let next = self.cron.next_after(now);
        if self.slot > later(self.cron.next_after(later(now, SLIGHT)), self.jitter) {
            self.slot = next;
            self.wanted = true;
            passed.clock_set_back = true;
        }
        if let Some(Running { pause, ends }) = &self.pause {
            let over = pause.until.is_some_and(|until| until <= now)
                || ends.is_some_and(|ends| ends <= monotonic);
            if over {
                self.resume(now);
                passed.resumed = true;
            } else if self.slot <= now {
                self.slot = next;
                self.wanted = true;
                passed.skipped = true;
            }
        }
        passed
    }

    pub(in crate::daemon) fn is_due(&self, now: Timestamp, monotonic: Instant) -> bool {
        let retry = self.retry_at.is_some_and(|at| at <= monotonic);
        self.asked || (self.pause.is_none() && (self.wanted || retry || self.slot <= now))
    }

    /// All that was missed or asked for is this run. The next one comes before the slot after its own
    /// has begun, whatever `random` is.
    pub(in crate::daemon) fn begins(&mut self, now: Timestamp, random: u128) {
        (self.asked, self.wanted, self.retry_at) = (false, false, None);
        let next = self.cron.next_after(now);
        let room = self.cron.next_after(next).duration_since(next);
        let limit = Duration::try_from(room).unwrap_or_default().min(self.jitter).as_millis();
        let jitter = u64::try_from(random % limit.max(1)).unwrap_or_default();
        self.slot = later(next, Duration::from_millis(jitter));
    }

    /// None: not before somebody asks for it.
    pub(in crate::daemon) fn next(&self, now: Timestamp, monotonic: Instant) -> Option<Timestamp> {
        let retry = self.retry_at.map(|at| later(now, at.saturating_duration_since(monotonic)));
        let at_once = (self.asked || self.wanted).then_some(now);
        let next = [at_once, retry].into_iter().flatten().fold(self.slot, Timestamp::min);
        match &self.pause {
            Some(Running { pause, .. }) if !self.asked => pause.until.map(|until| until.max(next)),
            Some(_) | None => Some(next),
        }
    }

    /// The second scheduled time after the last success, plus the time that a backup may take: none is
    /// on time that comes later. `success` is what it is counted from: in a term without a success the
    /// term's begin. None during a pause.
    pub(in crate::daemon) fn deadline(
        &mut self,
        success: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if self.pause.is_some() {
            return None;
        }
        if let Some((counted, deadline)) = self.promised
            && counted == success
        {
            return Some(deadline);
        }
        let from = self.resumed.take().map_or(success, |resumed| success.max(resumed));
        // A success in the future is one of a clock that was set back.
        let second = self.cron.next_after(self.cron.next_after(from.min(now)));
        let deadline = later(second, self.timeout);
        self.promised = Some((success, deadline));
        Some(deadline)
    }

    pub(in crate::daemon) fn pause(&mut self, pause: Pause, now: Timestamp, monotonic: Instant) {
        let left = pause.left(now).map(|left| Duration::try_from(left).unwrap_or_default());
        // Longer than the clock goes: as good as without an end.
        let ends = left.and_then(|left| monotonic.checked_add(left));
        self.pause = Some(Running { pause, ends });
    }

    /// What was held back meanwhile is due at once.
    pub(in crate::daemon) fn resume(&mut self, now: Timestamp) -> Option<Pause> {
        let Running { pause, .. } = self.pause.take()?;
        (self.resumed, self.promised) = (Some(now), None);
        Some(pause)
    }

    pub(in crate::daemon) fn paused(&self) -> Option<&Pause> {
        self.pause.as_ref().map(|running| &running.pause)
    }
}

fn later(at: Timestamp, time: Duration) -> Timestamp {
    at.checked_add(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
