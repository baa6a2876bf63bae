//! How far long work is: counted by whoever does it, read now and then by whoever shows it. Nobody
//! waits for that, and nothing depends on it.

pub mod pace;

use crate::clock;
use pace::{Pace, Progress};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is done at this moment, and how much of it. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Option<Work>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// `restoring`
    pub doing: &'static str,
    /// `objects`
    pub what: &'static str,
    pub done: u64,
    /// `None`: nobody knows.
    pub total: Option<u64>,
}

impl Tally {
    /// Work of another sort, or the same anew.
    pub fn begin(&self, doing: &'static str, what: &'static str, total: Option<usize>) {
        let total = total.map(|total| total as u64);
        self.change(|now| *now = Some(Work { doing, what, done: 0, total }));
    }

    /// Never more than there is: what is done once more counts once.
    pub fn add(&self, done: usize) {
        self.change(|now| {
            if let Some(Work { done: before, total, .. }) = now {
                *before = total.unwrap_or(u64::MAX).min(*before + done as u64);
            }
        });
    }

    pub fn end(&self) {
        self.change(|now| *now = None);
    }

    fn change(&self, change: impl FnOnce(&mut Option<Work>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> Option<Work> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does the work, and meanwhile shows again and again how far it is.
pub async fn watch<T>(
    tally: &Tally,
    every: Duration,
    work: impl Future<Output = T>,
    mut show: impl FnMut(Progress),
) -> T {
    let mut work = Box::pin(work);
    let mut pace = Pace::default();
    let mut looks = tokio::time::interval(every);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                tally.end();
                return done;
            }
            _ = looks.tick() => {
                if let Some(work) = tally.read() {
                    show(pace.look(work, clock::monotonic()));
                }
            }
        }
    }
}
