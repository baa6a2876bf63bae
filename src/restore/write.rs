//! One object onto the hub: POST when it is known to be absent, a guarded JSON Patch when it stands as
//! we left it, and where the server says that we were wrong (or nobody knows what was left) a GET, a
//! full comparison, and a PUT at the resourceVersion that was compared.

use super::body::{Parts, Stamp};
use super::conflict::Conflict;
use super::execute::How;
use super::hub::{self, Hub, Metadata};
use super::known::{ADOPTED_LABEL, Known, Mark, PAIR_LABEL, Standing};
use super::once;
use super::overlay::overlay;
use super::patch::{Guard, digest_patch, patch, status_patch};
use super::policy::Policy;
use super::report::Done;
use super::transform::Inert;
use crate::kube_client::KubeError;
use crate::object::{Kind, ObjectKey, Set};
use crate::repository::contents::Entry;
use crate::retry::{self, Class};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// POST and PUT in turn, when somebody else creates and deletes the object all the while.
const MAX_STEPS: usize = 8;
/// Of a message of the API server in a reason.
const MAX_MESSAGE: usize = 300;

pub(super) struct Job<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) entry: &'a Entry,
    /// The tag of the patch that makes it inert.
    pub(super) inert: Option<u32>,
    pub(super) object: Box<RawValue>,
    /// The form that was written last, if it can still be read.
    pub(super) applied: Option<Box<RawValue>>,
    pub(super) known: Option<Known>,
    /// UID on the source hub → UID here, of the owners that can be linked.
    pub(super) links: HashMap<&'a str, String>,
    /// The kind as this hub serves it, at the version that it prefers.
    pub(super) served: Option<&'a Kind>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Written(Done, Known),
    /// Exists, is not ours, and no rule adopts it.
    Kept(Known),
    Refused(String),
    /// Deleted, to be created again in a later pass.
    Gone(String),
    /// May work in a later pass.
    Later(String),
    /// The same as `Later`, and the server did not answer at all.
    Unanswered(String),
    /// Nor would any other write work now.
    Full(String),
    Failed(String),
}

impl Outcome {
    /// Nothing is left to a later pass.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Self::Written(..) | Self::Kept(_) | Self::Refused(_) | Self::Failed(_) => true,
            Self::Gone(_) | Self::Later(_) | Self::Unanswered(_) | Self::Full(_) => false,
        }
    }
}

#[derive(Debug)]
enum Step {
    Post,
    Patch(Standing, Bytes),
    Look,
    /// With the UID of what is replaced.
    Put(Standing, Bytes, Box<str>),
}

/// An object with its owners linked, ready to be rendered.
struct Form<'a> {
    parts: Parts<'a>,
    uids: Vec<Option<String>>,
    mark: Mark,
    pair: &'a str,
}

impl Form<'_> {
    fn render(&self, standing: Standing, version: Option<&str>) -> Vec<u8> {
        let pair = self.pair;
        let stamp = match standing {
            Standing::Adopted => Stamp::Adopted { pair },
            Standing::Ours | Standing::Foreign => Stamp::Ours { pair },
        };
        self.parts.render(stamp, self.mark, &self.uids, version)
    }
}

pub(super) async fn write<'a>(
    hub: &Hub<'_>,
    policy: &Policy,
    job: Job<'a>,
) -> (&'a ObjectKey, Outcome) {
    if hub.how() == How::Once {
        return (job.key, once::write(hub, &job).await);
    }
    let made = as_it_stands(policy, &job.object, job.inert);
    let parts = made.as_ref().map_err(Clone::clone).and_then(|made| parts(job.key, made));
    let outcome = match parts {
        Err(why) => Outcome::Refused(why),
        Ok(parts) => {
            let uids = linked(&parts, &job.links);
            let mark = Mark::new(&job.entry.digest, job.entry.set, stripped(&uids));
            let mark = mark.made_inert(job.inert);
            let mut form = Form { parts, uids, mark, pair: &policy.pair };
            // Nothing stands there in a dry run to which a status could be given.
            let keeps = !hub.is_dry_run() && policy.keeps_status(job.key);
            let status = form.parts.status().filter(|_| keeps);
            if status.is_some() {
                form.mark = mark.unfinished();
            }
            let outcome = steps(hub, policy, &job, &mut form).await;
            match (outcome, status) {
                (Outcome::Written(done, known), Some(status)) => {
                    let version = job.version(form.parts.converted());
                    match finish(hub, job.key, version, &known.uid, status, mark).await {
                        Ok(Metadata { uid, resource_version, .. }) => {
                            let mark = Some(mark);
                            Outcome::Written(done, Known { mark, uid, resource_version, ..known })
                        }
                        Err(error) => failure(&error, job.key, job.entry.set),
                    }
                }
                (outcome, _) => outcome,
            }
        }
    };
    (job.key, outcome)
}

/// The object of a backup as it stands on the hub, with what gives it back if it is inert.
type Made<'o> = (Cow<'o, RawValue>, Option<String>);

fn as_it_stands<'o>(
    policy: &Policy,
    object: &'o RawValue,
    inert: Option<u32>,
) -> Result<Made<'o>, String> {
    let Some(tag) = inert else { return Ok((Cow::Borrowed(object), None)) };
    let patch = policy.patch(tag).ok_or("no rule of this hub makes it inert as it was planned")?;
    let Inert { object, reverse } = patch.apply(object).map_err(|error| error.to_string())?;
    Ok((Cow::Owned(object), Some(reverse)))
}

fn parts<'m>(key: &ObjectKey, (object, reverse): &'m Made<'_>) -> Result<Parts<'m>, String> {
    let mut parts = Parts::of(key, object).map_err(|error| error.to_string())?;
    if let Some(reverse) = reverse {
        parts.mark_inert(reverse);
    }
    Ok(parts)
}

fn linked(parts: &Parts<'_>, links: &HashMap<&str, String>) -> Vec<Option<String>> {
    parts.owners().map(|owner| links.get(&*owner.uid).cloned()).collect()
}

fn stripped(uids: &[Option<String>]) -> usize {
    uids.iter().filter(|uid| uid.is_none()).count()
}

impl<'a> Job<'a> {
    /// At which it is written.
    fn version(&self, converted: bool) -> &'a str {
        let served = self.served.filter(|_| converted).map(|kind| &*kind.version);
        served.unwrap_or(&self.entry.version)
    }
}

/// The status of an object is written by a request of its own, and only once, since controllers of
/// this hub write it too. Until it is there the object carries no content's mark; so a run that ends
/// in between is noticed, and does not have to be remembered.
async fn finish(
    hub: &Hub<'_>,
    key: &ObjectKey,
    version: &str,
    uid: &str,
    status: &RawValue,
    mark: Mark,
) -> Result<Metadata, KubeError> {
    let patch = status_patch(uid, status).into();
    match hub.write(hub::Write::PatchStatus, key, version, patch).await {
        // Without such a subresource the status came with the object.
        Err(error) if !error.is_not_found() => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let patch = digest_patch(uid, &mark.to_string()).into();
    hub.write(hub::Write::Patch, key, version, patch).await
}

async fn steps(hub: &Hub<'_>, policy: &Policy, job: &Job<'_>, form: &mut Form<'_>) -> Outcome {
    let (key, mut version) = (job.key, &*job.entry.version);
    let mut step = first_step(policy, job, form);
    for _ in 0..MAX_STEPS {
        let (how, body, standing, done) = match &step {
            Step::Post => {
                let body = Bytes::from(form.render(Standing::Ours, None));
                (hub::Write::Create, body, Standing::Ours, Done::Created)
            }
            Step::Patch(standing, patch) => {
                (hub::Write::Patch, patch.clone(), *standing, Done::Updated)
            }
            Step::Put(standing, body, _) => {
                let adopting = *standing == Standing::Adopted && job.known.is_none();
                let done = if adopting { Done::Adopted } else { Done::Updated };
                (hub::Write::Replace, body.clone(), *standing, done)
            }
            Step::Look => match hub.get(key, version).await {
                Ok(live) => match compare(policy, job, form, &live) {
                    Compared::Write(standing, body, uid) => {
                        step = Step::Put(standing, body, uid);
                        continue;
                    }
                    Compared::Over(outcome) => return outcome,
                },
                Err(error) if error.is_not_found() => {
                    step = Step::Post;
                    continue;
                }
                Err(error) => return failure(&error, key, job.entry.set),
            },
        };
        let answer = if *version == *job.entry.version {
            hub.write(how, key, version, body).await
        } else {
            hub.write_converted(how, key, version, body).await
        };
        match answer {
            Ok(Metadata { uid, resource_version, .. }) => {
                let known = Known { standing, mark: Some(form.mark), uid, resource_version };
                return Outcome::Written(done, known);
            }
            Err(error) if let Some(uid) = to_recreate(&error, &step, policy, key) => {
                let deleted = hub.delete(key, version, orphaning(uid)).await;
                let (mark, uid, resource_version) = (Some(form.mark), uid.into(), Box::default());
                return match deleted {
                    Err(error) if !error.is_not_found() => failure(&error, key, job.entry.set),
                    // It still stands there, so its creation cannot be tried.
                    Ok(_) if hub.is_dry_run() => {
                        let known = Known { standing, mark, uid, resource_version };
                        Outcome::Written(done, known)
                    }
                    Ok(_) | Err(_) => Outcome::Gone("it is created anew".to_owned()),
                };
            }
            Err(error) if let Some(served) = other_version(&error, &step, job, version) => {
                version = served;
                form.parts.convert(api_version(key, served));
            }
            Err(error) => match next_step(&error, &step) {
                Some(next) => step = next,
                None => return failure(&error, key, job.entry.set),
            },
        }
    }
    Outcome::Later("somebody else changed it at every attempt".to_owned())
}

/// Where the version that the primary served is not served here, the object is written as one of the
/// version that is: all that a server does itself for kinds without a conversion webhook.
fn other_version<'a>(
    error: &KubeError,
    step: &Step,
    job: &Job<'a>,
    version: &str,
) -> Option<&'a str> {
    let first = matches!(step, Step::Post) && *version == *job.entry.version;
    let served = job.served.filter(|kind| first && error.is_not_found() && kind.version != version);
    served.map(|kind| &*kind.version)
}

/// The UID of an object of ours that has to be deleted, because a field cannot be changed and a rule
/// allows it.
fn to_recreate<'s>(
    error: &KubeError,
    step: &'s Step,
    policy: &Policy,
    key: &ObjectKey,
) -> Option<&'s str> {
    let (Step::Put(Standing::Ours, _, uid), KubeError::Api(answer)) = (step, error) else {
        return None;
    };
    // Of Secrets only the sort of the cause is known.
    let immutable = answer.causes.iter().any(|cause| {
        matches!(&*cause.reason, "FieldValueInvalid" | "FieldValueForbidden")
            && (cause.message.is_empty() || cause.message.contains("immutable"))
    });
    (answer.code == 422 && !answer.webhook && immutable && policy.recreates(key)).then_some(uid)
}

/// What it owns stays: the garbage collector takes the references to it out.
fn orphaning(uid: &str) -> Bytes {
    let options = serde_json::json!({
        "apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": {"uid": uid}, "propagationPolicy": "Orphan",
    });
    Bytes::from(options.to_string())
}

fn api_version(key: &ObjectKey, version: &str) -> String {
    if key.group().is_empty() { version.to_owned() } else { format!("{}/{version}", key.group()) }
}

fn first_step(policy: &Policy, job: &Job<'_>, form: &Form<'_>) -> Step {
    match &job.known {
        Some(known) if known.standing != Standing::Foreign => {
            match patch_from(policy, job, known, form) {
                Some(patch) => Step::Patch(known.standing, patch.into()),
                None => Step::Look,
            }
        }
        Some(_) | None => Step::Post,
    }
}

/// None: nobody knows for certain how the object was written last.
fn patch_from(policy: &Policy, job: &Job<'_>, known: &Known, form: &Form<'_>) -> Option<Vec<u8>> {
    let mark = known.mark.filter(|mark| *mark != form.mark)?;
    // The mark does not tell an old owner's UID from a new one, but the guard does.
    let old = match &job.applied {
        _ if mark.same_content(&job.entry.digest) => &job.object,
        applied => applied.as_ref()?,
    };
    let made = as_it_stands(policy, old, mark.inert).ok()?;
    let parts = parts(job.key, &made).ok()?;
    let uids = linked(&parts, &job.links);
    if stripped(&uids) != usize::from(mark.stripped) {
        return None;
    }
    let old = Form { parts, uids, mark, pair: form.pair };
    let owners: Vec<&str> = old.uids.iter().flatten().map(String::as_str).collect();
    let guard = Guard { uid: &known.uid, digest: &mark.to_string(), owners: &owners };
    let bodies = (old.render(known.standing, None), form.render(known.standing, None));
    patch(&guard, raw(&bodies.0)?, raw(&bodies.1)?)
}

fn raw(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}

/// What an error tells about the object. None: it tells about the request.
fn next_step(error: &KubeError, step: &Step) -> Option<Step> {
    match (step, error.code()?) {
        (Step::Post, 409) if error.reason() == "AlreadyExists" => Some(Step::Look),
        (Step::Patch(..) | Step::Put(..), 404) => Some(Step::Post),
        // A test that failed is answered like a value that is not allowed. If it is one, the PUT
        // will say so.
        (Step::Patch(..), 400 | 412 | 413 | 415 | 422) | (Step::Patch(..) | Step::Put(..), 409) => {
            Some(Step::Look)
        }
        (Step::Post | Step::Patch(..) | Step::Look | Step::Put(..), _) => None,
    }
}

#[derive(Debug)]
enum Compared {
    /// With the UID of what is there.
    Write(Standing, Bytes, Box<str>),
    Over(Outcome),
}

/// What to do with an object that exists although we thought it did not, or that is not as we left
/// it.
fn compare(policy: &Policy, job: &Job<'_>, form: &Form<'_>, live: &[u8]) -> Compared {
    let Ok(hub::Object { metadata }) = serde_json::from_slice(live) else {
        let why = "the API server's answer is no object".to_owned();
        return Compared::Over(Outcome::Later(why));
    };
    let standing = match standing(policy, job, &metadata) {
        Ok(standing) => standing,
        Err(outcome) => return Compared::Over(outcome),
    };
    let Metadata { uid, resource_version, .. } = metadata;
    let new = form.render(standing, None);
    match raw(live).zip(raw(&new)).and_then(|(live, new)| overlay(live, new)) {
        Some(overlaid) if overlaid.changes => Compared::Write(standing, overlaid.body.into(), uid),
        Some(_) => {
            let known = Known { standing, mark: Some(form.mark), uid, resource_version };
            Compared::Over(Outcome::Written(Done::Unchanged, known))
        }
        None => {
            let body = form.render(standing, Some(&resource_version));
            Compared::Write(standing, body.into(), uid)
        }
    }
}

/// Whose the object is. Err: it is not to be written now.
fn standing(policy: &Policy, job: &Job<'_>, found: &Metadata) -> Result<Standing, Outcome> {
    if found.deletion_timestamp.is_some() {
        return Err(Outcome::Later("it is being deleted on this hub".to_owned()));
    }
    let is_ours = |label| found.labels.get(label) == Some(&policy.pair);
    if is_ours(PAIR_LABEL) {
        return Ok(Standing::Ours);
    }
    if is_ours(ADOPTED_LABEL) {
        return Ok(Standing::Adopted);
    }
    match policy.conflict(job.key, job.served.map_or("", |kind| &kind.kind)) {
        Conflict::Adopt => Ok(Standing::Adopted),
        Conflict::Keep => {
            let (uid, resource_version) = (found.uid.clone(), found.resource_version.clone());
            let standing = Standing::Foreign;
            Err(Outcome::Kept(Known { standing, mark: None, uid, resource_version }))
        }
        Conflict::Refuse => Err(Outcome::Failed(
            "exists on this hub, is not ours, and passive.conflict refuses it".to_owned(),
        )),
    }
}

/// Sorts an error into "tried again in this run" and "not in this run".
pub(super) fn failure(error: &KubeError, key: &ObjectKey, set: Set) -> Outcome {
    let reason = describe(error, key, set);
    let answer = match error {
        KubeError::Api(answer) => answer,
        KubeError::Transport { .. } => return Outcome::Unanswered(reason),
        KubeError::TooLarge { .. } | KubeError::Unreadable { .. } => return Outcome::Later(reason),
    };
    if answer.full {
        return Outcome::Full(reason);
    }
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
    let caused = |reason| answer.causes.iter().any(|cause| cause.reason == reason);
    // What can be told where the message cannot.
    let told = match answer.code {
        _ if answer.full => ", its store is full",
        500.. if answer.webhook => ", an admission webhook is away",
        _ if answer.webhook => ", an admission webhook denied it",
        _ if caused("NamespaceTerminating") => ", its namespace is being deleted",
        _ if answer.message.contains("exceeded quota") => ", a quota is exceeded",
        413 => ", it is larger than the API server takes",
        _ => "",
    };
    text.push_str(told);
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
    use super::super::testing::{contents, key};
    use super::*;
    use crate::config::settings::RestorePolicy;
    use crate::kube_client::{ApiCause, ApiError};
    use crate::object::{Digest, GroupResource};

    /// What becomes of `live`, an object with these labels and this digest, when `data` is restored.
    fn check(name: &str, labels: &str, digest: &str, more: &str, data: &str, expected: &str) {
        let kind = GroupResource { group: "x.io".into(), resource: "sets".into() };
        let settings =
            RestorePolicy { adopt: vec![(kind, "default".into())], ..RestorePolicy::default() };
        let policy = Policy::new("eu", "understudy-system", &settings);
        let key = key(name);
        let (group, short) = (key.group(), key.name());
        let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        let namespace = key.namespace();
        let object = format!(
            r#"{{"apiVersion":"{version}","metadata":{{"name":"{short}","namespace":"{namespace}"}},"data":"{data}"}}"#
        );
        let object: Box<RawValue> = serde_json::from_str(&object).unwrap();
        let parts = Parts::of(&key, &object).unwrap();
        let mark = Mark::new(&Digest::of(b"x"), Set::Resources, 0);
        let form = Form { parts, uids: vec![], mark, pair: "eu" };
        let book = r#""managedFields":[]"#;
        let live = format!(
            r#"{{"apiVersion":"{version}","metadata":{{"name":"{short}","namespace":"{namespace}","uid":"u","resourceVersion":"7",{more}{book},"labels":{{{labels}}},"annotations":{{"understudy.dev/digest":"{digest}"}}}},"data":"same"}}"#
        );
        let contents = contents(&[(name, &[])]);
        let job = Job {
            key: &key,
            entry: &contents.entries[&key],
            inert: None,
            object: object.clone(),
            applied: None,
            known: None,
            links: HashMap::new(),
            served: None,
        };
        let found = match compare(&policy, &job, &form, live.as_bytes()) {
            Compared::Write(standing, body, _) => {
                assert!(String::from_utf8_lossy(&body).contains(r#""resourceVersion":"7""#));
                format!("write {standing:?}")
            }
            Compared::Over(Outcome::Written(done, _)) => done.name().to_owned(),
            Compared::Over(Outcome::Kept(_)) => "kept".to_owned(),
            Compared::Over(Outcome::Later(_)) => "later".to_owned(),
            Compared::Over(other) => format!("{other:?}"),
        };
        assert_eq!(found, expected, "{name} {labels} {digest} {data}");
    }

    #[test]
    fn what_exists_is_ours_adopted_or_kept_and_compared_in_full() {
        let same = &*Mark::new(&Digest::of(b"x"), Set::Resources, 0).to_string();
        let other = "0123456789abcdef";
        let (ours, others) = (r#""understudy.dev/pair":"eu""#, r#""understudy.dev/pair":"us""#);
        let adopted = r#""understudy.dev/adopted":"eu""#;
        let deleting = r#""deletionTimestamp":"2026-01-01T00:00:00Z","#;
        for (name, labels, digest, more, data, expected) in [
            ("/secrets/ns/a", ours, same, "", "same", "unchanged"),
            ("/secrets/ns/a", ours, same, "", "other", "write Ours"),
            ("/secrets/ns/a", ours, other, "", "same", "write Ours"),
            ("/secrets/ns/a", ours, same, deleting, "same", "later"),
            ("/secrets/ns/a", others, same, "", "same", "kept"),
            ("/secrets/ns/a", "", same, "", "same", "kept"),
            ("/secrets/ns/a", adopted, "", "", "same", "write Adopted"),
            ("x.io/sets/ns/default", "", "", "", "same", "write Adopted"),
            ("x.io/sets/ns/default", adopted, same, "", "same", "unchanged"),
            ("x.io/sets/ns/other", "", "", "", "same", "kept"),
        ] {
            check(name, labels, digest, more, data, expected);
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
            full: message.contains("space exceeded"),
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
    fn what_refused_it_is_told_where_the_message_is_not() {
        for (code, message, cause, told) in [
            (403, "admission webhook \"w\" denied", "", "an admission webhook denied it"),
            (500, "failed calling webhook \"w\"", "", "an admission webhook is away"),
            (403, "", "NamespaceTerminating", "its namespace is being deleted"),
            (403, "exceeded quota: q", "", "a quota is exceeded"),
            (413, "", "", "larger than the API server takes"),
            (500, "etcdserver: mvcc: database space exceeded", "", "its store is full"),
        ] {
            let mut error = refusal(code, message, cause, "");
            if let KubeError::Api(answer) = &mut error {
                answer.webhook = message.contains("webhook");
            }
            let text = describe(&error, &key("/configmaps/ns/a"), Set::Resources);
            assert!(text.contains(told) && !text.contains("\"w\""), "{text}");
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
