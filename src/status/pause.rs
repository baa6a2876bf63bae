//! Pure: what this hub does by itself (backups on a primary, syncs on a passive hub), paused by an
//! operator: since when, until when and why.
//!
//! A pause belongs to the term in which it was asked for. Whatever began the next term, nobody paused
//! that: a promoted hub never begins with a pause from before.

use super::problem::{Problem, Reason, warning};
use super::words::clock;
use super::{Role, Snapshot};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// None: until it is resumed.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub until: Option<Timestamp>,
    /// In the words of who asked for it.
    pub reason: String,
    /// The term that it belongs to.
    #[schemars(with = "i64")]
    pub epoch: u64,
}

impl Pause {
    /// How much of it is left. Never more than was asked for, also if the clock was set back since.
    pub fn left(&self, now: Timestamp) -> Option<SignedDuration> {
        let until = self.until?;
        Some(until.duration_since(now).min(until.duration_since(self.since)))
    }

    /// `paused until 19:30Z`
    pub fn sentence(&self, now: Timestamp) -> String {
        match self.until {
            Some(until) => format!("paused until {}", clock(until, now)),
            None => "paused until somebody resumes it".to_owned(),
        }
    }
}

pub(super) fn problem(snapshot: &Snapshot, now: Timestamp) -> Option<Problem> {
    let pause = snapshot.pause.as_ref()?;
    let (reason, what, command) = match snapshot.role? {
        Role::Primary => (Reason::BackupPaused, "schedule of backups", "backup"),
        Role::Passive => (Reason::SyncPaused, "following of the primary", "sync"),
        Role::Promoting | Role::Fenced => return None,
    };
    let (since, paused) = (clock(pause.since, now), pause.sentence(now));
    let message = format!("the {what} is {paused}, since {since}: {}", pause.reason);
    Some(warning(reason, message, Some(format!("understudy {command} resume"))))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, ago, now};
    use super::*;

    fn pause(until: Option<Timestamp>) -> Pause {
        Pause { since: ago(600), until, reason: "maintenance".to_owned(), epoch: 7 }
    }

    #[test]
    fn no_more_is_left_than_was_asked_for() {
        let hour = pause(Some(ago(600 - 3600)));
        let year = SignedDuration::from_hours(24 * 365);
        for (at, left) in [
            (now(), 3000),
            (now() + SignedDuration::from_mins(50), 0),
            (now() + year, 3000 - year.as_secs()),
            (now() - year, 3600),
        ] {
            assert_eq!(hour.left(at), Some(SignedDuration::from_secs(left)), "{at}");
        }
        assert_eq!(pause(None).left(now()), None);
    }

    #[test]
    fn it_says_until_when_and_why_and_how_it_ends() {
        let told = |mut snapshot: Snapshot, until| {
            snapshot.pause = Some(pause(until));
            problem(&snapshot, now()).map(|problem| {
                let hint = problem.hint.unwrap_or_default();
                format!("{}: {} -> {hint}", problem.reason, problem.message)
            })
        };
        assert_eq!(
            told(samples::primary(), Some(ago(-3600))).unwrap(),
            "BackupPaused: the schedule of backups is paused until 18:37Z, since 17:27Z: maintenance \
             -> understudy backup resume"
        );
        assert_eq!(
            told(samples::passive(), None).unwrap(),
            "SyncPaused: the following of the primary is paused until somebody resumes it, since \
             17:27Z: maintenance -> understudy sync resume"
        );
        assert_eq!(told(samples::fenced(), None), None);
    }
}
