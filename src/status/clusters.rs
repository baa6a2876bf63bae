//! Pure: the clusters that this hub manages since its promotion, and until when those of the other hub
//! could be brought here.

use super::problem::{Problem, Reason, warning};
use super::words::{clock, count, plural};
use super::{Role, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Of [`ClusterFacts::named`].
pub const MAX_NAMED: usize = 20;
/// Of [`ClusterFacts::ends`].
pub const MAX_ENDS: usize = 20;
/// Whoever is told so long before can still have the tokens renewed.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Once nobody waits for them any more, clusters that are not there are looked at this often.
const SELDOM: SignedDuration = SignedDuration::from_mins(1);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterFacts {
    /// The term whose activation this is about; 0: none.
    pub term: u64,
    pub available: u64,
    pub pending: u64,
    pub unreachable: u64,
    pub looked_at: Option<Timestamp>,
    /// How long the promotion waits for them. Nothing else does.
    pub until: Option<Timestamp>,
    /// They were waited for, and not all have come.
    pub late: bool,
    /// Why they could not be looked at.
    pub error: Option<String>,
    /// The first that are not available, unreachable ones in front.
    pub named: Vec<Line>,
    /// Until when the tokens of the newest backup reach their clusters: the first to end.
    pub ends: Vec<Timestamp>,
    /// Of these, how many are less than a week away.
    pub soon: usize,
}

/// How a cluster stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub cluster: String,
    pub state: Reach,
    /// Why it is not available.
    pub why: String,
    /// The command that leads on.
    pub next: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// It does not come by itself.
    Unreachable,
    /// It is on its way.
    Pending,
    Available,
}

impl Reach {
    pub const ALL: [Reach; 3] = [Reach::Available, Reach::Pending, Reach::Unreachable];

    pub fn name(self) -> &'static str {
        match self {
            Reach::Available => "available",
            Reach::Pending => "pending",
            Reach::Unreachable => "unreachable",
        }
    }
}

impl ClusterFacts {
    /// What a look found.
    pub fn seen(&mut self, lines: &[Line], now: Timestamp) {
        let of = |state| lines.iter().filter(|line| line.state == state).count() as u64;
        (self.available, self.pending) = (of(Reach::Available), of(Reach::Pending));
        self.unreachable = of(Reach::Unreachable);
        self.looked(None, now);
        let absent = lines.iter().filter(|line| line.state != Reach::Available);
        self.named = absent.cloned().collect();
        self.named.sort_by(|a, b| (a.state, &a.cluster).cmp(&(b.state, &b.cluster)));
        self.named.truncate(MAX_NAMED);
    }

    /// `error`: why it found nothing.
    pub fn looked(&mut self, error: Option<String>, now: Timestamp) {
        let absent = self.absent() > 0 || error.is_some();
        self.late = absent && self.until.is_some_and(|until| until <= now);
        (self.looked_at, self.error) = (Some(now), error);
    }

    /// How many tokens end soon, as of now.
    pub fn ending(&self, now: Timestamp) -> usize {
        let soon = now.checked_add(SOON).unwrap_or(now);
        self.ends.iter().filter(|end| **end < soon).count()
    }

    pub fn count(&self, state: Reach) -> u64 {
        match state {
            Reach::Available => self.available,
            Reach::Pending => self.pending,
            Reach::Unreachable => self.unreachable,
        }
    }

    pub fn all(&self) -> u64 {
        self.available + self.absent()
    }

    fn absent(&self) -> u64 {
        self.pending + self.unreachable
    }

    /// Whether it is time to look again. `epoch`: the term that this hub holds.
    pub fn look_is_due(&self, epoch: u64, now: Timestamp) -> bool {
        let Some(until) = self.until.filter(|_| self.term == epoch && epoch > 0) else {
            return false;
        };
        if now < until {
            return true;
        }
        let absent = self.absent() > 0 || self.error.is_some() || self.looked_at.is_none();
        let seldom = self.looked_at.is_none_or(|at| now.duration_since(at).abs() >= SELDOM);
        absent && (seldom || !self.late)
    }

    pub fn sentence(&self) -> String {
        let states = Reach::ALL.into_iter().filter(|state| self.count(*state) > 0);
        let states: Vec<_> =
            states.map(|state| format!("{} {}", count(self.count(state)), state.name())).collect();
        let all = plural(usize::try_from(self.all()).unwrap_or(usize::MAX), "cluster", "clusters");
        match &*states {
            [] => all,
            states => format!("{all}: {}", states.join(", ")),
        }
    }
}

/// What the promotion of the term that this hub holds has to say of clusters.
pub fn of_this_term(snapshot: &Snapshot) -> Option<&ClusterFacts> {
    let holds = matches!(snapshot.role, Some(Role::Primary | Role::Promoting));
    let facts = &*snapshot.clusters;
    (holds && facts.term > 0 && facts.term == snapshot.epoch && facts.until.is_some())
        .then_some(facts)
}

pub(super) fn problems(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(facts) = of_this_term(snapshot)
        && facts.late
    {
        found.push(incomplete(facts));
    }
    found.extend(expiring(&snapshot.clusters, now));
    found
}

fn incomplete(facts: &ClusterFacts) -> Problem {
    let hint = "understudy status names them, each with the next command".to_owned();
    let message = match &facts.error {
        Some(error) => format!("the clusters cannot be looked at: {error}"),
        None => format!("not all clusters have come: {}", facts.sentence()),
    };
    warning(Reason::ActivationIncomplete, message, Some(hint))
}

fn expiring(facts: &ClusterFacts, now: Timestamp) -> Option<Problem> {
    let (number, first) = (facts.soon, facts.ends.first()?);
    if number == 0 {
        return None;
    }
    let more = if number < MAX_ENDS { "" } else { " or more" };
    let tokens = plural(number, "cluster", "clusters");
    let verb = if *first <= now { "expired" } else { "expires" };
    let message = format!(
        "the tokens of {tokens}{more} in the newest backup end within 7 days, the first {verb} at {}: \
         a promoted hub could not import them",
        clock(*first, now)
    );
    let hint = "see on the primary why they are not renewed: kubectl get managedserviceaccounts -A";
    Some(warning(Reason::ImportCredentialExpiring, message, Some(hint.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, ago, now};
    use super::*;

    fn line(cluster: &str, state: Reach) -> Line {
        let text = String::new;
        Line { cluster: cluster.to_owned(), state, why: text(), next: text() }
    }

    #[test]
    fn those_who_do_not_come_by_themselves_are_named_first() {
        let mut facts = ClusterFacts::default();
        let lines = [
            line("c", Reach::Pending),
            line("a", Reach::Available),
            line("d", Reach::Unreachable),
            line("b", Reach::Unreachable),
        ];
        facts.seen(&lines, now());
        let named: Vec<_> = facts.named.iter().map(|line| &*line.cluster).collect();
        assert_eq!(named, ["b", "d", "c"]);
        assert_eq!(facts.sentence(), "4 clusters: 1 available, 1 pending, 2 unreachable");
    }

    #[test]
    fn clusters_are_looked_at_while_they_are_waited_for_and_until_all_have_come() {
        let facts = |until: i64, looked: i64, pending| ClusterFacts {
            term: 8,
            until: Some(ago(until)),
            looked_at: Some(ago(looked)),
            pending,
            ..ClusterFacts::default()
        };
        let late = |facts| ClusterFacts { late: true, ..facts };
        for (facts, epoch, due) in [
            (facts(-60, 1, 0), 8, true),
            (facts(-60, 1, 1), 9, false),
            (facts(10, 15, 1), 8, true),
            (late(facts(10, 1, 1)), 8, false),
            (late(facts(10, 70, 1)), 8, true),
            (facts(10, 70, 0), 8, false),
            (ClusterFacts::default(), 0, false),
        ] {
            assert_eq!(facts.look_is_due(epoch, now()), due, "{facts:?} in term {epoch}");
        }
    }

    #[test]
    fn what_has_not_come_in_time_and_what_ends_soon_is_a_problem() {
        let check = |until: i64, pending, ends: &[i64], expected: &[Reason]| {
            let mut snapshot = samples::primary();
            snapshot.clusters.term = snapshot.epoch;
            snapshot.clusters.until = Some(ago(until));
            snapshot.clusters.pending = pending;
            snapshot.clusters.looked(None, now());
            snapshot.clusters.ends = ends.iter().map(|days| ago(-days * 86_400)).collect();
            snapshot.clusters.soon = snapshot.clusters.ending(now());
            let found: Vec<_> = problems(&snapshot, now()).iter().map(|p| p.reason).collect();
            assert_eq!(found, expected, "{until} {pending} {ends:?}");
            snapshot.role = Some(Role::Passive);
            let found: Vec<_> = problems(&snapshot, now()).iter().map(|p| p.reason).collect();
            let expiring = expected.iter().filter(|r| **r == Reason::ImportCredentialExpiring);
            assert_eq!(found, expiring.copied().collect::<Vec<_>>(), "on a standby");
        };
        check(-60, 1, &[8], &[]);
        check(60, 0, &[], &[]);
        check(60, 1, &[], &[Reason::ActivationIncomplete]);
        check(-60, 1, &[6, 8], &[Reason::ImportCredentialExpiring]);
        check(60, 2, &[-1], &[Reason::ActivationIncomplete, Reason::ImportCredentialExpiring]);
    }
}
