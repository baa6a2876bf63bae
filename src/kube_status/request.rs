//! A promotion asked for by an annotation on the own `Hub`.
//!
//! An annotation, not a spec: reconcilers from Git revert edits of a spec and leave foreign
//! annotations alone.
//! Its value must be the hub's own name, so that a copied or restored object cannot promote another
//! hub. It is handled once: recorded in the status, then removed under the condition that it is
//! still the same. People write the name; the command line writes an [`Order`] in its place.

use super::{FIELD_MANAGER, Hub, HubError};
use crate::status::Guards;
use crate::status::words::{full, plural};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub const PROMOTE: &str = "understudy.dev/promote";
pub const PROMOTE_REASON: &str = "understudy.dev/promote-reason";
const PRIMARY_IS_DEAD: &str = "primary-is-dead";

/// A reason is shown in many places.
const MAX_REASON: usize = 500;

/// An order has some hundred bytes.
const MAX_ORDER: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The primary need not be silent; why.
    pub forced: Option<String>,
    pub named: Option<Named>,
    pub guards: Guards,
}

/// By the id the one who asked finds what became of it; with the epoch it is for one term alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Named {
    pub id: String,
    pub expected_epoch: u64,
}

/// The value of [`PROMOTE`] as the command line writes it, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    pub hub: String,
    pub request: Named,
    /// Why the primary need not be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_is_dead: Option<String>,
    #[serde(default)]
    pub guards: Guards,
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
    #[error("the annotation {PROMOTE} is no order of the command line: {why}")]
    Unreadable { why: String },
    #[error("the same request has promoted this hub before, at {finished}")]
    Replayed { finished: String },
}

impl Malformed {
    /// The command that would work.
    pub fn hint(&self, namespace: &str, hub: &str) -> String {
        let command = format!("kubectl -n {namespace} annotate hubs.understudy.dev {hub}");
        match self {
            Malformed::OtherHub { .. } | Malformed::Unreadable { .. } => {
                format!("{command} {PROMOTE}={hub}")
            }
            Malformed::Suffix { .. }
            | Malformed::NoReason { .. }
            | Malformed::LongReason
            | Malformed::Replayed { .. } => {
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
    if value.starts_with('{') {
        return Some(order(name, value).and_then(|request| first_time(hub, request)));
    }
    let reason = annotations.get(PROMOTE_REASON).map(|reason| reason.trim().to_owned());
    let parsed = parse(name, value, reason.filter(|reason| !reason.is_empty()));
    Some(parsed.and_then(|request| first_time(hub, request)))
}

/// Whoever applies what stood there once more, from Git or from a copy, vouches for nothing: an order
/// promotes once, and without one a forced promotion needs words that have not promoted before.
fn first_time(hub: &Hub, request: Request) -> Result<Request, Malformed> {
    let before = hub.status.as_ref().and_then(|status| status.promotion.as_ref());
    let Some((before, finished)) = before.and_then(|before| Some((before, before.finished_at?)))
    else {
        return Ok(request);
    };
    let replayed = match &request.named {
        Some(named) => before.request.as_ref() == Some(&named.id),
        None => request.forced.is_some() && request.forced == before.forced,
    };
    if replayed { Err(Malformed::Replayed { finished: full(finished) }) } else { Ok(request) }
}

fn order(hub: &str, text: &str) -> Result<Request, Malformed> {
    let unreadable = |why: String| Malformed::Unreadable { why };
    if text.len() > MAX_ORDER {
        return Err(unreadable(format!("it is longer than {MAX_ORDER} bytes")));
    }
    let order: Order = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    let Order { hub: named_hub, request, primary_is_dead, guards } = order;
    let forced = primary_is_dead.is_some();
    let value = if forced { format!("{named_hub}!{PRIMARY_IS_DEAD}") } else { named_hub };
    let reason = primary_is_dead.map(|reason| reason.trim().to_owned());
    let parsed = parse(hub, &value, reason.filter(|reason| !reason.is_empty()))?;
    Ok(Request { named: Some(request), guards, ..parsed })
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
        None => None,
        Some(PRIMARY_IS_DEAD) if reason.is_none() => {
            return Err(Malformed::NoReason { hub: hub.to_owned() });
        }
        Some(PRIMARY_IS_DEAD) => reason,
        Some(suffix) => {
            return Err(Malformed::Suffix { suffix: suffix.chars().take(100).collect() });
        }
    };
    Ok(Request { forced, ..Request::default() })
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
    use crate::kube_status::resource::{HubStatus, PromotionStatus};
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
            Some(Ok(Request { forced, .. })) => format!("{forced:?}"),
            Some(Err(error)) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_own_name_promotes() {
        check(&[], "none");
        check(&[(PROMOTE_REASON, "x")], "none");
        check(&[(PROMOTE, "eu-2")], "None");
        check(&[(PROMOTE, "eu-2"), (PROMOTE_REASON, " fire ")], "None");
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
        check(&[(PROMOTE, "eu-2!primary-is-dead"), (PROMOTE_REASON, "fire")], r#"Some("fire")"#);
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
    fn words_that_promoted_once_do_not_promote_again() {
        let forced = [(PROMOTE, "eu-2!primary-is-dead"), (PROMOTE_REASON, "fire")];
        let mut hub = hub(&forced);
        let asked = |hub: &Hub| promotion_request(hub).unwrap().map(|request| request.forced);
        let before = |forced: &str, finished: bool| PromotionStatus {
            forced: Some(forced.to_owned()),
            finished_at: finished.then_some(jiff::Timestamp::UNIX_EPOCH),
            ..PromotionStatus::default()
        };
        for (before, new) in [
            (before("fire", true), false),
            (before("fire", false), true),
            (before("flood", true), true),
        ] {
            hub.status =
                Some(HubStatus { promotion: Some(before.clone()), ..HubStatus::default() });
            assert_eq!(asked(&hub).is_ok(), new, "{before:?}");
        }
    }

    #[test]
    fn an_order_of_the_command_line_reads_back_and_is_for_one_hub() {
        let order = Order {
            hub: "eu-2".to_owned(),
            request: Named { id: "17".to_owned(), expected_epoch: 7 },
            primary_is_dead: Some("fire".to_owned()),
            guards: Guards { max_data_age_seconds: Some(60), expect_backup: Some("b".to_owned()) },
        };
        let text = serde_json::to_string(&order).unwrap();
        let found = promotion_request(&hub(&[(PROMOTE, &text)])).unwrap().unwrap();
        assert_eq!(found.named, Some(order.request.clone()));
        assert_eq!((found.forced.as_deref(), &found.guards), (Some("fire"), &order.guards));
        let mut after = hub(&[(PROMOTE, &text)]);
        let done = PromotionStatus {
            request: Some("17".to_owned()),
            finished_at: Some(jiff::Timestamp::UNIX_EPOCH),
            ..PromotionStatus::default()
        };
        after.status = Some(HubStatus { promotion: Some(done), ..HubStatus::default() });
        let found = promotion_request(&after).unwrap();
        assert!(matches!(found, Err(Malformed::Replayed { .. })), "{found:?}");
        let other = serde_json::to_string(&Order { hub: "eu-1".to_owned(), ..order.clone() });
        check(
            &[(PROMOTE, &other.unwrap())],
            "the annotation understudy.dev/promote names \"eu-1!primary-is-dead\", this hub is eu-2",
        );
        let wordless = Order { primary_is_dead: Some(" ".to_owned()), ..order };
        check(
            &[(PROMOTE, &serde_json::to_string(&wordless).unwrap())],
            "understudy.dev/promote=eu-2!primary-is-dead needs the annotation \
             understudy.dev/promote-reason",
        );
        for broken in ["{", r#"{"hub":"eu-2"}"#, &text.replace("guards", "wards")] {
            let found = promotion_request(&hub(&[(PROMOTE, broken)])).unwrap();
            assert!(matches!(found, Err(Malformed::Unreadable { .. })), "{broken}: {found:?}");
        }
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
