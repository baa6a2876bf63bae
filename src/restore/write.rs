//! One object onto the hub: POST when it is known to be absent, PUT at the resourceVersion of our
//! last write when it is known to be there, and a GET only when the server says that we were wrong.
//!
//! A guarded JSON Patch computed from the object last applied belongs in front of the PUT, so that
//! what local controllers added stays; until then a changed object is replaced as a whole.

use super::body::{Parts, Stamp};
use super::execute::How;
use super::hub::{self, Hub, Metadata};
use super::known::{ADOPTED_LABEL, DIGEST_ANNOTATION, Known, Mark, PAIR_LABEL, Standing};
use super::once;
use super::policy::Policy;
use super::report::Done;
use crate::kube_client::KubeError;
use crate::object::{ObjectKey, Set};
use crate::repository::contents::Entry;
use crate::retry::{self, Class};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// POST and PUT in turn, when somebody else creates and deletes the object all the while.
const MAX_STEPS: usize = 8;
/// Of a message of the API server in a reason.
const MAX_MESSAGE: usize = 300;

pub(super) struct Job<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) entry: &'a Entry,
    pub(super) object: Box<RawValue>,
    pub(super) known: Option<Known>,
    /// UID on the source hub → UID here, of the owners that can be linked.
    pub(super) links: HashMap<&'a str, String>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Written(Done, Known),
    /// Exists, is not ours, and no rule adopts it.
    Kept(Known),
    Refused(String),
    /// May work in a later pass.
    Later(String),
    /// The same as `Later`, and the server did not answer at all.
    Unanswered(String),
    Failed(String),
}

enum Step {
    Post(Standing),
    Put(Standing, Box<str>),
    Look,
}

pub(super) async fn write<'a>(
    hub: &Hub<'_>,
    policy: &Policy,
    job: Job<'a>,
) -> (&'a ObjectKey, Outcome) {
    let outcome = match hub.how() {
        How::Sync => steps(hub, policy, &job).await,
        How::Once | How::Rehearsal => once::write(hub, &job).await,
    };
    (job.key, outcome)
}

async fn steps(hub: &Hub<'_>, policy: &Policy, job: &Job<'_>) -> Outcome {
    let Job { key, entry, object, known, links } = job;
    let parts = match Parts::of(key, object) {
        Ok(parts) => parts,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let uids: Vec<_> = parts.owners().map(|owner| links.get(&*owner.uid).cloned()).collect();
    let stripped = uids.iter().filter(|uid| uid.is_none()).count();
    let mark = Mark::new(&entry.digest, entry.set, stripped);
    let render = |standing, version: Option<&str>| {
        let pair = &policy.pair;
        let stamp = if standing == Standing::Adopted {
            Stamp::Adopted { pair }
        } else {
            Stamp::Ours { pair }
        };
        Bytes::from(parts.render(stamp, mark, &uids, version))
    };
    // The mark does not tell an old owner's UID from a new one.
    let force = known.as_ref().is_some_and(|known| known.mark == Some(mark));

    let mut step = match known {
        Some(Known { standing, resource_version, .. }) if *standing != Standing::Foreign => {
            Step::Put(*standing, resource_version.clone())
        }
        _ => Step::Post(Standing::Ours),
    };
    for _ in 0..MAX_STEPS {
        let (answer, standing, done) = match step {
            Step::Post(standing) => {
                let body = render(standing, None);
                let answer = hub.write(hub::Write::Create, key, &entry.version, body);
                (answer.await, standing, Done::Created)
            }
            Step::Put(standing, version) => {
                let body = render(standing, Some(&version));
                let adopting = standing == Standing::Adopted && known.is_none();
                let done = if adopting { Done::Adopted } else { Done::Updated };
                let answer = hub.write(hub::Write::Replace, key, &entry.version, body);
                (answer.await, standing, done)
            }
            Step::Look => match hub.metadata(key, &entry.version).await {
                Ok(found) => match judge(policy, key, mark, force, found) {
                    Judged::Write(standing, version) => {
                        step = Step::Put(standing, version);
                        continue;
                    }
                    Judged::Over(outcome) => return outcome,
                },
                Err(error) => (Err(error), Standing::Ours, Done::Created),
            },
        };
        match answer {
            Ok(found) => {
                let Metadata { uid, resource_version, .. } = found;
                let known = Known { standing, mark: Some(mark), uid, resource_version };
                return Outcome::Written(done, known);
            }
            Err(error) => match next_step(&error, done) {
                Some(next) => step = next,
                None => return failure(&error, key, entry.set),
            },
        }
    }
    Outcome::Later("somebody else changed it at every attempt".to_owned())
}

/// What an error tells about the object. None: it tells about the request.
fn next_step(error: &KubeError, done: Done) -> Option<Step> {
    match (error.code()?, done) {
        (409, Done::Created) if error.reason() == "AlreadyExists" => Some(Step::Look),
        (409, Done::Updated | Done::Adopted) => Some(Step::Look),
        (404, Done::Updated | Done::Adopted) => Some(Step::Post(Standing::Ours)),
        _ => None,
    }
}

enum Judged {
    Write(Standing, Box<str>),
    Over(Outcome),
}

/// What to do with an object that exists although we thought it did not, or that changed since our
/// last write.
fn judge(policy: &Policy, key: &ObjectKey, mark: Mark, force: bool, found: Metadata) -> Judged {
    let Metadata { uid, resource_version, labels, annotations, deletion_timestamp, .. } = found;
    if deletion_timestamp.is_some() {
        return Judged::Over(Outcome::Later("it is being deleted on this hub".to_owned()));
    }
    let is_ours = |label| labels.get(label) == Some(&policy.pair);
    let standing = if is_ours(PAIR_LABEL) {
        Standing::Ours
    } else if is_ours(ADOPTED_LABEL) || policy.adopts(key) {
        Standing::Adopted
    } else {
        let known = Known { standing: Standing::Foreign, mark: None, uid, resource_version };
        return Judged::Over(Outcome::Kept(known));
    };
    let current = annotations.get(DIGEST_ANNOTATION).and_then(|text| Mark::parse(text));
    if current == Some(mark) && !force {
        let known = Known { standing, mark: current, uid, resource_version };
        return Judged::Over(Outcome::Written(Done::Unchanged, known));
    }
    Judged::Write(standing, resource_version)
}

/// Sorts an error into "tried again in this run" and "not in this run".
pub(super) fn failure(error: &KubeError, key: &ObjectKey, set: Set) -> Outcome {
    let reason = describe(error, key, set);
    let answer = match error {
        KubeError::Api(answer) => answer,
        KubeError::Transport { .. } => return Outcome::Unanswered(reason),
        KubeError::TooLarge { .. } | KubeError::Unreadable { .. } => return Outcome::Later(reason),
    };
    let terminating = answer.causes.iter().any(|cause| cause.reason == "NamespaceTerminating");
    // Of a 404 the namespace or the kind may still come.
    let may_come = matches!(error.class(), Class::Transient | Class::Conflict);
    if may_come || answer.code == 404 || answer.webhook || terminating {
        Outcome::Later(reason)
    } else {
        Outcome::Failed(reason)
    }
}

/// An API server repeats in its messages the values that it refuses; of what may be secret only
/// the reason and the paths of the fields are told.
pub(super) fn describe(error: &KubeError, key: &ObjectKey, set: Set) -> String {
    let answer = match error {
        KubeError::Api(answer) => answer,
        KubeError::Transport { .. } => return shortened(&retry::chain(error)),
        // What could not be read stands in the cause.
        KubeError::TooLarge { .. } | KubeError::Unreadable { .. } => return error.to_string(),
    };
    let mut text = format!("the API server answered {} {}", answer.code, answer.reason);
    let fields = answer.causes.iter().map(|cause| &*cause.field);
    let fields: Vec<&str> = fields.filter(|field| !field.is_empty()).collect();
    if !fields.is_empty() {
        text = format!("{text}, fields {}", fields.join(", "));
    }
    let secret = set == Set::Credentials || matches!(key.resource(), "secrets" | "configmaps");
    if !secret && !answer.message.is_empty() {
        text = format!("{text}: {}", answer.message);
    }
    shortened(&text)
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::*;
    use crate::config::settings::RestorePolicy;
    use crate::kube_client::{ApiCause, ApiError};
    use crate::object::{Digest, GroupResource};

    fn metadata(labels: &[(&str, &str)], digest: &str, deleting: bool) -> Metadata {
        Metadata {
            namespace: String::new(),
            name: "a".into(),
            uid: "u".into(),
            resource_version: "7".into(),
            deletion_timestamp: deleting.then(String::new),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            annotations: [(DIGEST_ANNOTATION.to_owned(), digest.to_owned())].into(),
        }
    }

    #[test]
    fn what_exists_is_ours_adopted_or_kept() {
        let kind = GroupResource { group: "x.io".into(), resource: "sets".into() };
        let settings = RestorePolicy { allow_kinds: vec![], adopt: vec![(kind, "default".into())] };
        let policy = Policy::new("eu", "understudy-system", &settings);
        let mark = Mark::new(&Digest::of(b"x"), Set::Resources, 0);
        let same = mark.to_string();
        let (ours, others) = ([(PAIR_LABEL, "eu")], [(PAIR_LABEL, "us")]);
        let adopted = [(ADOPTED_LABEL, "eu")];
        for (name, labels, digest, deleting, force, expected) in [
            ("/secrets/ns/a", &ours[..], &*same, false, false, "unchanged"),
            ("/secrets/ns/a", &ours, &same, false, true, "write ours"),
            ("/secrets/ns/a", &ours, "0123456789abcdef", false, false, "write ours"),
            ("/secrets/ns/a", &ours, "", false, false, "write ours"),
            ("/secrets/ns/a", &ours, &same, true, false, "later"),
            ("/secrets/ns/a", &others, &same, false, false, "kept"),
            ("/secrets/ns/a", &[], &same, false, false, "kept"),
            ("/secrets/ns/a", &adopted, "", false, false, "write adopted"),
            ("x.io/sets//default", &[], "", false, false, "write adopted"),
            ("x.io/sets//default", &adopted, &same, false, false, "unchanged"),
            ("x.io/sets//other", &[], "", false, false, "kept"),
        ] {
            let judged =
                judge(&policy, &key(name), mark, force, metadata(labels, digest, deleting));
            let found = match judged {
                Judged::Write(Standing::Ours, _) => "write ours",
                Judged::Write(Standing::Adopted, _) => "write adopted",
                Judged::Over(Outcome::Written(Done::Unchanged, _)) => "unchanged",
                Judged::Over(Outcome::Kept(_)) => "kept",
                Judged::Over(Outcome::Later(_)) => "later",
                Judged::Write(..) | Judged::Over(_) => "other",
            };
            assert_eq!(found, expected, "{name} {labels:?}");
        }
    }

    fn refusal(code: u16, message: &str, cause: &str, field: &str) -> KubeError {
        let cause =
            ApiCause { reason: cause.into(), field: field.into(), message: message.to_owned() };
        KubeError::Api(Box::new(ApiError {
            verb: "create",
            path: "/api/v1/secrets".to_owned(),
            code,
            reason: "Invalid".to_owned(),
            message: message.to_owned(),
            causes: vec![cause],
            webhook: message.contains("webhook"),
            retry_after: None,
        }))
    }

    #[test]
    fn an_error_never_repeats_what_may_be_secret() {
        for (name, set, told) in [
            ("/secrets/ns/a", Set::Resources, false),
            ("/configmaps/ns/a", Set::Resources, false),
            ("x.io/tokens/ns/a", Set::Credentials, false),
            ("x.io/things/ns/a", Set::Resources, true),
        ] {
            let error = refusal(422, "Invalid value: \"canary\"", "FieldValueInvalid", "data.key");
            let text = describe(&error, &key(name), set);
            assert_eq!(text.contains("canary"), told, "{text}");
            assert!(text.contains("data.key") && text.contains("Invalid"), "{text}");
        }
    }

    #[test]
    fn errors_are_sorted_into_later_and_failed() {
        for (code, message, cause, later) in [
            (404, "", "", true),
            (409, "", "", true),
            (403, "", "NamespaceTerminating", true),
            (403, "admission webhook \"w\" denied the request", "", true),
            (403, "user cannot create", "", false),
            (422, "", "FieldValueInvalid", false),
            (429, "", "", true),
            (503, "", "", true),
            (400, "", "", false),
            (413, "", "", false),
        ] {
            let error = refusal(code, message, cause, "");
            let outcome = failure(&error, &key("/secrets/ns/a"), Set::Resources);
            assert_eq!(matches!(outcome, Outcome::Later(_)), later, "{code} {message}");
        }
    }
}
