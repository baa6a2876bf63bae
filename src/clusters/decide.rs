//! Pure: what an activation does about one cluster, and how it stands.
//!
//! The same function tells the state while the activation acts and later, while nothing is done any
//! more but looking: what it would do is then left out.

use super::token::{Token, choose};
use crate::status::clusters::{Line, Reach};
use jiff::Timestamp;

/// A `ManagedCluster` of the backup, as it stands on this hub.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub name: String,
    /// `spec.hubAcceptsClient`
    pub accepted: bool,
    /// This hub stopped accepting it when it was fenced: the marker that says so.
    pub closed: Option<String>,
    /// Restored or adopted, and not somebody else's of the same name.
    pub ours: bool,
    pub availability: Availability,
    /// Of its API server, the first that is named.
    pub url: Option<String>,
}

/// The condition `ManagedClusterConditionAvailable`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    True,
    /// `Unknown` or `False`, with its reason.
    No(String),
    #[default]
    NeverSeen,
}

/// Whose `auto-import-secret` stands in the cluster's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    None,
    /// It carries the label of those that a restore makes.
    Ours,
    Users,
}

/// What is to be done, and how it stands then.
pub struct Step<'a> {
    /// Accept it again, as this marker says.
    pub open: Option<&'a str>,
    /// Have it imported, from this address with this token.
    pub import: Option<(&'a str, &'a Token)>,
    pub line: Line,
}

/// `was_primary`: this hub was one before, so that what its conditions say may be of that time.
pub fn decide<'a>(
    cluster: &'a Cluster,
    tokens: &'a [Token],
    import: Import,
    was_primary: bool,
    now: Timestamp,
) -> Step<'a> {
    let name = &*cluster.name;
    let step = |state, why: String, next: String| Step {
        open: cluster.closed.as_deref(),
        import: None,
        line: Line { cluster: name.to_owned(), state, why, next },
    };
    if !cluster.ours && cluster.closed.is_none() {
        let why = "it was on this hub before, is not Understudy's and is left alone".to_owned();
        let state = if cluster.availability == Availability::True {
            Reach::Available
        } else {
            Reach::Pending
        };
        return step(state, why, format!("kubectl describe managedcluster {name}"));
    }
    if !cluster.accepted && cluster.closed.is_none() {
        let why = "the primary had not accepted it either".to_owned();
        return step(Reach::Unreachable, why, accept(name));
    }
    if cluster.availability == Availability::True && !was_primary {
        return step(Reach::Available, String::new(), String::new());
    }
    if import == Import::Users {
        let why = "a user's own auto-import-secret stands there and is left alone".to_owned();
        let next = format!("kubectl -n {name} describe secret auto-import-secret");
        return step(Reach::Pending, said(&cluster.availability, why), next);
    }
    let Some(url) = &cluster.url else {
        let why =
            "spec.managedClusterClientConfigs names no API server: it comes by itself or not \
                   at all"
                .to_owned();
        return step(Reach::Unreachable, said(&cluster.availability, why), by_hand(name));
    };
    let Some(token) = choose(tokens, now) else {
        let why = "there is no token of a managed service account for it".to_owned();
        return step(Reach::Unreachable, said(&cluster.availability, why), by_hand(name));
    };
    let (state, until, next) = match token.expires {
        Some(at) if at <= now => {
            (Reach::Unreachable, format!(", which expired at {at}"), by_hand(name))
        }
        Some(at) => (Reach::Pending, format!(", good until {at}"), watch(name)),
        None => (Reach::Pending, String::new(), watch(name)),
    };
    let why = format!("it is imported with the token {}{until}", token.secret);
    Step { import: Some((url, token)), ..step(state, said(&cluster.availability, why), next) }
}

fn said(availability: &Availability, why: String) -> String {
    match availability {
        Availability::No(reason) if !reason.is_empty() => format!("{why}; the hub says {reason}"),
        Availability::No(_) | Availability::NeverSeen | Availability::True => why,
    }
}

fn accept(name: &str) -> String {
    format!(
        r#"kubectl patch managedcluster {name} --type merge -p '{{"spec":{{"hubAcceptsClient":true}}}}'"#
    )
}

fn watch(name: &str) -> String {
    format!("kubectl describe managedcluster {name}")
}

fn by_hand(name: &str) -> String {
    format!(
        r"kubectl -n {name} get secret {name}-import -o jsonpath='{{.data.import\.yaml}}' | base64 -d | kubectl --context {name} apply -f -"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-22T03:00:00Z";

    fn token(expires: &str) -> Token {
        let expires = Some(expires.parse().unwrap());
        Token { secret: "auto-import-account".to_owned(), made: None, expires, data: String::new() }
    }

    fn cluster(change: impl FnOnce(&mut Cluster)) -> Cluster {
        let url = Some("https://api.c1:6443".to_owned());
        let mut cluster = Cluster {
            name: "c1".to_owned(),
            accepted: true,
            ours: true,
            url,
            ..Cluster::default()
        };
        change(&mut cluster);
        cluster
    }

    #[test]
    fn what_is_done_about_a_cluster_follows_from_how_it_stands() {
        use Import::{None as Nobodys, Ours, Users};
        let good = [token("2026-12-01T00:00:00Z")];
        let old = [token("2026-11-01T00:00:00Z")];
        let plain = || cluster(|_| {});
        let available = || cluster(|c| c.availability = Availability::True);
        let marker = || Some("{}".to_owned());
        let closed = || cluster(|c| (c.accepted, c.closed) = (false, marker()));
        let lost = "ManagedClusterLeaseUpdateStopped".to_owned();
        for (cluster, tokens, import, was_primary, expected) in [
            (plain(), &good[..], Nobodys, false, (false, true, Reach::Pending, "good until")),
            (plain(), &good, Ours, false, (false, true, Reach::Pending, "good until")),
            (plain(), &good, Users, false, (false, false, Reach::Pending, "user's own")),
            (plain(), &old, Nobodys, false, (false, true, Reach::Unreachable, "expired at")),
            (plain(), &[], Nobodys, false, (false, false, Reach::Unreachable, "no token")),
            (available(), &good, Nobodys, false, (false, false, Reach::Available, "")),
            (available(), &good, Nobodys, true, (false, true, Reach::Pending, "good until")),
            (closed(), &good, Nobodys, true, (true, true, Reach::Pending, "good until")),
            (
                cluster(|c| (c.availability, c.closed) = (Availability::True, marker())),
                &good,
                Nobodys,
                false,
                (true, false, Reach::Available, ""),
            ),
            (
                cluster(|c| c.url = None),
                &good,
                Nobodys,
                false,
                (false, false, Reach::Unreachable, "names no API server"),
            ),
            (
                cluster(|c| c.accepted = false),
                &good,
                Nobodys,
                false,
                (false, false, Reach::Unreachable, "had not accepted"),
            ),
            (
                cluster(|c| c.ours = false),
                &good,
                Nobodys,
                false,
                (false, false, Reach::Pending, "left alone"),
            ),
            (
                cluster(|c| (c.ours, c.closed, c.accepted) = (false, marker(), false)),
                &good,
                Nobodys,
                true,
                (true, true, Reach::Pending, "good until"),
            ),
            (
                cluster(|c| c.availability = Availability::No(lost)),
                &good,
                Nobodys,
                false,
                (false, true, Reach::Pending, "the hub says ManagedClusterLeaseUpdateStopped"),
            ),
        ] {
            let step = decide(&cluster, tokens, import, was_primary, NOW.parse().unwrap());
            let found = (step.open.is_some(), step.import.is_some(), step.line.state);
            let (open, ordered, state, why) = expected;
            assert_eq!(found, (open, ordered, state), "{cluster:?} {import:?} {}", step.line.why);
            assert!(step.line.why.contains(why), "{why} is not in {}", step.line.why);
            let told = step.line.next.contains("c1") || state == Reach::Available;
            assert!(told, "what to do next: {}", step.line.next);
        }
    }
}
