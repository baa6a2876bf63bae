//! A promotion asked for by an annotation on the own `Hub`.
//!
//! An annotation, not a spec: reconcilers from Git revert edits of a spec and leave foreign
//! annotations alone.
//! Its value must be the hub's own name, so that a copied or restored object cannot promote another
//! hub. It is handled once: recorded in the status, then removed under the condition that it is
//! still the same.

use super::{FIELD_MANAGER, Hub, HubError};
use crate::status::words::plural;
use serde_json::json;

pub const PROMOTE: &str = "understudy.dev/promote";
pub const PROMOTE_REASON: &str = "understudy.dev/promote-reason";

/// A reason is shown in many places.
const MAX_REASON: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The value as it stands, for the record.
    pub value: String,
    /// The primary need not be silent.
    pub forced: bool,
    pub reason: Option<String>,
}

/// Refused before it is a request; the value is to be removed all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the annotation {PROMOTE} names {value:?}, this hub is {hub}")]
    OtherHub { value: String, hub: String },
    #[error(
        "the annotation {PROMOTE} has the unknown suffix {suffix:?}; only !primary-is-dead is known"
    )]
    Suffix { suffix: String },
    #[error("{PROMOTE}={hub}!primary-is-dead needs the annotation {PROMOTE_REASON}")]
    NoReason { hub: String },
    #[error(
        "the annotation {PROMOTE_REASON} is longer than {}",
        plural(MAX_REASON, "byte", "bytes")
    )]
    LongReason,
}

impl Malformed {
    /// The command that would work.
    pub fn hint(&self, namespace: &str, hub: &str) -> String {
        let command = format!("kubectl -n {namespace} annotate hubs.understudy.dev {hub}");
        match self {
            Malformed::OtherHub { .. } => format!("{command} {PROMOTE}={hub}"),
            Malformed::Suffix { .. } | Malformed::NoReason { .. } | Malformed::LongReason => {
                format!("{command} {PROMOTE_REASON}='why' '{PROMOTE}={hub}!primary-is-dead'")
            }
        }
    }
}

/// None: nobody asks.
pub fn promotion_request(hub: &Hub) -> Option<Result<Request, Malformed>> {
    let annotations = hub.metadata.annotations.as_ref()?;
    let value = annotations.get(PROMOTE)?;
    let name = hub.metadata.name.as_deref().unwrap_or_default();
    let reason = annotations.get(PROMOTE_REASON).map(|reason| reason.trim().to_owned());
    Some(parse(name, value, reason.filter(|reason| !reason.is_empty())))
}

fn parse(hub: &str, value: &str, reason: Option<String>) -> Result<Request, Malformed> {
    let (name, suffix) = match value.split_once('!') {
        Some((name, suffix)) => (name, Some(suffix)),
        None => (value, None),
    };
    if name != hub {
        // Bounded: an annotation may hold 256 KiB, and this text goes into an Event.
        let value = value.chars().take(100).collect();
        return Err(Malformed::OtherHub { value, hub: hub.to_owned() });
    }
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(Malformed::LongReason);
    }
    let forced = match suffix {
        None => false,
        Some("primary-is-dead") if reason.is_none() => {
            return Err(Malformed::NoReason { hub: hub.to_owned() });
        }
        Some("primary-is-dead") => true,
        Some(suffix) => {
            return Err(Malformed::Suffix { suffix: suffix.chars().take(100).collect() });
        }
    };
    Ok(Request { value: value.to_owned(), forced, reason })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleared {
    Done,
    /// It is no longer the one that was handled: another request stands there, or none.
    Changed,
}

/// A promotion's annotations, the one that asks first.
pub const PROMOTION: [&str; 2] = [PROMOTE, PROMOTE_REASON];

/// Removes these annotations if they still have the values that `seen` had.
pub async fn clear_annotations(
    client: &kube::Client,
    namespace: &str,
    seen: &Hub,
    annotations: &[&str],
) -> Result<Cleared, HubError> {
    let name = seen.metadata.name.as_deref().unwrap_or_default();
    let Some(patch) = removal(seen, annotations) else { return Ok(Cleared::Changed) };
    let failed =
        |source| HubError::Clear { namespace: namespace.to_owned(), name: name.to_owned(), source };
    let url = <Hub as kube::Resource>::url_path(&(), Some(namespace));
    let request = http::Request::patch(format!("{url}/{name}?fieldManager={FIELD_MANAGER}"))
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(|source| failed(kube::Error::HttpError(source)))?;
    match client.request::<Hub>(request).await {
        Ok(_) => Ok(Cleared::Done),
        // 422: the test of the patch failed; 409: a write came in between; 404: no object.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
            Ok(Cleared::Changed)
        }
        Err(source) => Err(failed(source)),
    }
}

fn removal(seen: &Hub, annotations: &[&str]) -> Option<serde_json::Value> {
    let present = seen.metadata.annotations.as_ref()?;
    let mut operations = vec![];
    for name in annotations {
        let Some(value) = present.get(*name) else { continue };
        let path = format!("/metadata/annotations/{}", name.replace('/', "~1"));
        operations.push(json!({"op": "test", "path": path, "value": value}));
        operations.push(json!({"op": "remove", "path": path}));
    }
    (!operations.is_empty()).then(|| operations.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_status::HubFields;
    use std::collections::BTreeMap;

    fn hub(annotations: &[(&str, &str)]) -> Hub {
        let mut hub = Hub::new("eu-2", HubFields {});
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        hub.metadata.annotations = Some(annotations);
        hub
    }

    fn check(annotations: &[(&str, &str)], expected: &str) {
        let found = match promotion_request(&hub(annotations)) {
            None => "none".to_owned(),
            Some(Ok(Request { value: _, forced, reason })) => format!("{forced} {reason:?}"),
            Some(Err(error)) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_own_name_promotes() {
        check(&[], "none");
        check(&[(PROMOTE_REASON, "x")], "none");
        check(&[(PROMOTE, "eu-2")], "false None");
        check(&[(PROMOTE, "eu-2"), (PROMOTE_REASON, " fire ")], r#"false Some("fire")"#);
        check(
            &[(PROMOTE, "eu-1")],
            r#"the annotation understudy.dev/promote names "eu-1", this hub is eu-2"#,
        );
        check(
            &[(PROMOTE, "")],
            r#"the annotation understudy.dev/promote names "", this hub is eu-2"#,
        );
        check(
            &[(PROMOTE, "eu-2 ")],
            r#"the annotation understudy.dev/promote names "eu-2 ", this hub is eu-2"#,
        );
    }

    #[test]
    fn a_forced_promotion_gives_its_reason() {
        check(
            &[(PROMOTE, "eu-2!primary-is-dead"), (PROMOTE_REASON, "fire")],
            r#"true Some("fire")"#,
        );
        let needs = "understudy.dev/promote=eu-2!primary-is-dead needs the annotation \
                     understudy.dev/promote-reason";
        check(&[(PROMOTE, "eu-2!primary-is-dead")], needs);
        check(&[(PROMOTE, "eu-2!primary-is-dead"), (PROMOTE_REASON, "  ")], needs);
        check(
            &[(PROMOTE, "eu-2!now"), (PROMOTE_REASON, "fire")],
            "the annotation understudy.dev/promote has the unknown suffix \"now\"; only \
             !primary-is-dead is known",
        );
        check(
            &[(PROMOTE, "eu-2!primary-is-dead"), (PROMOTE_REASON, &"x".repeat(501))],
            "the annotation understudy.dev/promote-reason is longer than 500 bytes",
        );
    }

    #[test]
    fn only_the_request_that_was_seen_is_removed() {
        assert_eq!(removal(&hub(&[]), &PROMOTION), None);
        assert_eq!(
            removal(&hub(&[(PROMOTE, "eu-2"), ("other", "x")]), &PROMOTION).unwrap().to_string(),
            r#"[{"op":"test","path":"/metadata/annotations/understudy.dev~1promote","value":"eu-2"},{"op":"remove","path":"/metadata/annotations/understudy.dev~1promote"}]"#
        );
        let both =
            removal(&hub(&[(PROMOTE, "eu-2"), (PROMOTE_REASON, "fire")]), &PROMOTION).unwrap();
        assert_eq!(both.as_array().unwrap().len(), 4);
    }
}
