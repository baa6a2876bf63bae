//! One object onto the hub as its plan says: created where nothing was, replaced at the
//! resourceVersion that the plan saw. Whatever else is found there stays.

use crate::capture::clean;
use crate::differ;
use crate::kube_client::KubeError;
use crate::object::{Kind, ObjectKey, group_of};
use crate::restore::body::{Parts, Stamp};
use crate::restore::hub::{self, Hub, Metadata};
use crate::restore::known::{Known, Mark, Standing};
use crate::restore::report::Done;
use crate::restore::write::{Job, Outcome, failure};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

pub(in crate::restore) async fn write(hub: &Hub<'_>, job: &Job<'_>) -> Outcome {
    let Job { key, entry, object, known, links, inert: _, applied: _, served: _ } = job;
    let parts = match Parts::of(key, object) {
        Ok(parts) => parts,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let uids: Vec<_> = parts.owners().map(|owner| links.get(&*owner.uid).cloned()).collect();
    let stripped = uids.iter().filter(|uid| uid.is_none()).count();
    let mark = Mark::new(&entry.digest, entry.set, stripped);
    let version = known.as_ref().map(|known| &*known.resource_version);
    let (how, done) = match version {
        None => (hub::Write::Create, Done::Created),
        Some(_) => (hub::Write::Replace, Done::Updated),
    };
    let body = Bytes::from(parts.render(Stamp::Nobodys, mark, &uids, version));
    let error = match hub.write(how, key, &entry.version, body).await {
        Ok(found) => return written(done, mark, found),
        Err(error) => error,
    };
    let Some(why) = moved(&error, done) else { return failure(&error, key, entry.set) };
    // An answer that was lost on its way looks like this, too: then the object is what we sent.
    match hub.get(key, &entry.version).await {
        Ok(body) => match is_written(key, &entry.version, object, &body) {
            Some(found) => written(done, mark, found),
            None => Outcome::Failed(why.to_owned()),
        },
        Err(error) if error.is_not_found() => Outcome::Failed(why.to_owned()),
        Err(error) => failure(&error, key, entry.set),
    }
}

/// It may be written again in the same run, to be linked to an owner that came later.
fn written(done: Done, mark: Mark, found: Metadata) -> Outcome {
    let Metadata { uid, resource_version, .. } = found;
    let (standing, mark) = (Standing::Adopted, Some(mark));
    Outcome::Written(done, Known { standing, mark, uid, resource_version })
}

/// Whether the hub is not any more what the plan saw.
fn moved(error: &KubeError, done: Done) -> Option<&'static str> {
    match (error.code()?, done) {
        (409, Done::Created) if error.reason() == "AlreadyExists" => {
            Some("somebody else made it since the plan, it stays as it is")
        }
        (409, Done::Updated) => Some("somebody changed it since the plan, it stays as it is"),
        (404, Done::Updated) => Some("somebody deleted it since the plan"),
        _ => None,
    }
}

fn is_written(key: &ObjectKey, version: &str, object: &RawValue, body: &[u8]) -> Option<Metadata> {
    let live: &RawValue = serde_json::from_slice(body).ok()?;
    let found: hub::Object = serde_json::from_str(live.get()).ok()?;
    let cleaned = cleaned(key, version, object, live)?;
    let same =
        found.metadata.deletion_timestamp.is_none() && differ::paths(object, &cleaned).is_empty();
    same.then_some(found.metadata)
}

/// The live object in the form in which a backup would hold it.
fn cleaned(
    key: &ObjectKey,
    version: &str,
    object: &RawValue,
    live: &RawValue,
) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Top<'a> {
        #[serde(borrow)]
        api_version: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow, default)]
        status: Option<&'a RawValue>,
    }
    let top: Top<'_> = serde_json::from_str(object.get()).ok()?;
    let kind = Kind {
        group: group_of(&top.api_version).to_owned(),
        version: version.to_owned(),
        kind: top.kind.into_owned(),
        resource: key.resource().to_owned(),
        categories: vec![],
        namespaced: !key.namespace().is_empty(),
    };
    let cleaned = clean::as_it_stands(live, &kind, top.status.is_some()).ok()?;
    serde_json::from_slice(&cleaned).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_client::ApiError;
    use crate::restore::testing::key;

    #[test]
    fn a_hub_that_moved_is_told_from_other_errors() {
        for (code, reason, done, expected) in [
            (409, "AlreadyExists", Done::Created, true),
            (409, "Conflict", Done::Created, false),
            (409, "Conflict", Done::Updated, true),
            (404, "NotFound", Done::Updated, true),
            (404, "NotFound", Done::Created, false),
            (422, "Invalid", Done::Updated, false),
        ] {
            let error = KubeError::Api(Box::new(ApiError {
                verb: "create",
                path: String::new(),
                code,
                reason: reason.to_owned(),
                message: String::new(),
                causes: vec![],
                webhook: false,
                full: false,
                retry_after: None,
            }));
            assert_eq!(moved(&error, done).is_some(), expected, "{code} {reason} {done:?}");
        }
    }

    #[test]
    fn an_object_that_was_written_after_all_is_known_again() {
        let object = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"ns"},"data":{"k":"v"}}"#;
        let object = RawValue::from_string(object.to_owned()).unwrap();
        let live = |data: &str, more: &str| {
            format!(
                r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"a","namespace":"ns","uid":"u","resourceVersion":"7","managedFields":[]{more}}},"data":{data}}}"#
            )
        };
        for (data, more, expected) in [
            (r#"{"k":"v"}"#, "", Some("7")),
            (r#"{"k":"w"}"#, "", None),
            (r#"{"k":"v"}"#, r#","deletionTimestamp":"2026-11-20T17:00:00Z""#, None),
        ] {
            let found =
                is_written(&key("/configmaps/ns/a"), "v1", &object, live(data, more).as_bytes());
            assert_eq!(
                found.as_ref().map(|found| &*found.resource_version),
                expected,
                "{data}{more}"
            );
        }
    }
}
