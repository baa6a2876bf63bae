//! Pure: how fast long work goes, and when it will be done.
//!
//! The rate is that of the last seconds, as work goes in waves: the first objects wait for new kinds,
//! and a busy server slows down. At the beginning, and while nothing moves, no time is told: a wrong one
//! is worse than none.

use super::Work;
use crate::status::words::{count, span};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// What the rate is measured over.
const WINDOW: Duration = Duration::from_secs(15);
/// Looks are kept no closer than this, however often somebody looks.
const STEP: Duration = Duration::from_millis(500);
/// Nothing is foretold from less.
const TRUSTED: Duration = Duration::from_secs(3);
/// What would take longer is not foretold.
const FORETOLD: f64 = 24.0 * 3600.0;

/// What a hub does while objects are written to it.
pub const RESTORING: &str = "restoring";

/// How far work is, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// `restoring`
    pub doing: String,
    /// `objects`
    pub what: String,
    pub done: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// None: it cannot be told yet, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_seconds: Option<u64>,
}

impl Progress {
    /// Objects are written; what comes before and after that is not counted with them.
    pub fn restores(&self) -> bool {
        self.doing == RESTORING
    }
}

/// `restoring 1,200 of 20,000 objects, 38s left`
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { doing, what, done, total, left_seconds } = self;
        write!(f, "{doing} {}", count(*done))?;
        if let Some(total) = total {
            write!(f, " of {}", count(*total))?;
        }
        write!(f, " {what}")?;
        left_seconds.map_or(Ok(()), |left| write!(f, ", {} left", span(left)))
    }
}

/// Follows one piece of work after another.
#[derive(Debug, Default)]
pub struct Pace {
    doing: &'static str,
    /// When how much was done, oldest first.
    looks: VecDeque<(Instant, u64)>,
}

impl Pace {
    pub fn look(&mut self, work: Work, now: Instant) -> Progress {
        let Work { doing, what, done, total } = work;
        let fell = self.looks.back().is_some_and(|(_, before)| done < *before);
        if self.doing != doing || fell {
            (self.doing, self.looks) = (doing, VecDeque::new());
        }
        if self.looks.back().is_none_or(|(at, _)| now.duration_since(*at) >= STEP) {
            self.looks.push_back((now, done));
        }
        // One look stays that is as old as the window.
        while self.looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.looks.pop_front();
        }
        let left_seconds = total.and_then(|total| self.left(total.saturating_sub(done), done, now));
        Progress { doing: doing.to_owned(), what: what.to_owned(), done, total, left_seconds }
    }

    /// Whole seconds, rounded up.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn left(&self, more: u64, done: u64, now: Instant) -> Option<u64> {
        let (since, before) = self.looks.front()?;
        let (took, moved) = (now.duration_since(*since), done - before);
        if took < TRUSTED || moved == 0 {
            return None;
        }
        let left = more as f64 * took.as_secs_f64() / moved as f64;
        (left <= FORETOLD).then_some(left.ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn work(done: u64, total: Option<u64>) -> Work {
        Work { doing: "restoring", what: "objects", done, total }
    }

    /// What the last of these looks (seconds, done) tells of the rest.
    fn check(name: &str, total: Option<u64>, looks: &[(f64, u64)], expected: Option<u64>) {
        let (mut pace, start) = (Pace::default(), clock::monotonic());
        let mut told = None;
        for (seconds, done) in looks {
            let now = start + Duration::from_secs_f64(*seconds);
            told = pace.look(work(*done, total), now).left_seconds;
        }
        assert_eq!(told, expected, "{name}");
    }

    #[test]
    fn the_rest_is_told_from_the_rate_of_the_last_seconds() {
        let all = Some(20_000);
        check("at the beginning", all, &[(0.0, 0), (0.1, 900)], None);
        check("too early to tell", all, &[(0.0, 0), (2.9, 1_200)], None);
        check("after a few seconds", all, &[(0.0, 0), (4.0, 2_000)], Some(36));
        check("rounded up", Some(10), &[(0.0, 0), (7.0, 9)], Some(1));
        check("all done", all, &[(0.0, 0), (40.0, 20_000)], Some(0));
        check("nobody knows how much", None, &[(0.0, 0), (10.0, 1_000)], None);
        check("nothing moves", all, &[(0.0, 500), (20.0, 500)], None);
        check("more than was foretold", Some(10), &[(0.0, 0), (5.0, 20)], Some(0));
        check("more than a day", Some(1_000_000), &[(0.0, 0), (10.0, 1)], None);
        let stalled: Vec<_> =
            (0..30_u32).map(|s| (f64::from(s), 100.min(10 * u64::from(s)))).collect();
        check("it has come to a stop", Some(1_000), &stalled, None);
        // 10 a second, then 100: only the latter counts.
        let faster: Vec<_> = (0..60_u32)
            .map(|s| (f64::from(s), u64::from(if s < 30 { 10 * s } else { 300 + 100 * (s - 30) })))
            .collect();
        check("it has become faster", Some(13_200), &faster, Some(100));
    }

    #[test]
    fn many_looks_cost_nothing_and_change_nothing() {
        let (mut pace, start) = (Pace::default(), clock::monotonic());
        for look in 0..10_000_u64 {
            let now = start + Duration::from_millis(10 * look);
            let left = pace.look(work(look, Some(20_000)), now).left_seconds;
            let seconds = (20_000 - look).div_ceil(100);
            assert!(
                left.is_none_or(|left| left.abs_diff(seconds) <= 1)
                    && left.is_some() == (look >= 300),
                "{look}: {left:?}"
            );
        }
        assert!(pace.looks.len() <= 32, "{}", pace.looks.len());
    }

    #[test]
    fn other_work_is_measured_anew() {
        let (mut pace, start) = (Pace::default(), clock::monotonic());
        pace.look(work(0, Some(10)), start);
        let later = start + Duration::from_secs(10);
        let fetching = Work { doing: "fetching", ..work(9, Some(10)) };
        assert_eq!(pace.look(fetching, later).left_seconds, None);
        let anew = Work { done: 1, ..fetching };
        let now = later + Duration::from_secs(10);
        assert_eq!(pace.look(anew, now).left_seconds, None);
        let now = now + Duration::from_secs(4);
        assert_eq!(pace.look(Work { done: 5, ..fetching }, now).left_seconds, Some(5));
    }

    #[test]
    fn it_is_told_in_a_line() {
        let told = |total, left_seconds| {
            let Work { doing, what, done, .. } = work(1_200, None);
            let (doing, what) = (doing.to_owned(), what.to_owned());
            Progress { doing, what, done, total, left_seconds }.to_string()
        };
        assert_eq!(told(Some(20_000), Some(38)), "restoring 1,200 of 20,000 objects, 38s left");
        assert_eq!(told(Some(20_000), None), "restoring 1,200 of 20,000 objects");
        assert_eq!(told(None, None), "restoring 1,200 objects");
    }
}
