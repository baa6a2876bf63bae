//! `understudy explain`: where one object of this hub belongs, and by which rule.

use super::exit::{Code, Failure};
use super::find::{self, Wanted};
use super::render_explain::{self, Explained, Standby};
use super::stored::show;
use super::{Global, run};
use crate::capture::candidates::{self, BEING_DELETED, NamespaceLabels};
use crate::capture::clean;
use crate::capture::cut;
use crate::capture::select::Verdict;
use crate::capture::select::explain::Explanation;
use crate::capture::survey::Survey;
use crate::config::errors::nearest;
use crate::kube_client;
use crate::object::{Kind, ObjectKey};
use crate::restore::policy::Policy;
use bytes::Bytes;
use http::Request;
use serde_json::value::RawValue;

/// Objects of one name in several namespaces that a person still reads.
const NAMED_ALIKE: &str = "6";

pub(super) async fn explain(global: &Global, wanted: Wanted) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let client = run::client(global).await?;
    let selection = settings.selection.with_own_namespace(&global.home());
    let survey = Survey::of(client.clone(), &selection).await?;
    let kind = kind(&survey, &wanted)?;
    let object = match (&wanted.namespace, kind.namespaced) {
        (Some(_), false) => {
            let message = format!("{} are not in namespaces", kind.group_resource());
            return Err(Failure::new(Code::Usage, message).with_hint(command(
                kind,
                "",
                &wanted.name,
            )));
        }
        (None, true) => find_in_any_namespace(&client, kind, &wanted).await?,
        (namespace, _) => {
            let namespace = namespace.as_deref().unwrap_or_default();
            let key = ObjectKey::new(&kind.group, &kind.resource, namespace, &wanted.name)
                .map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
            get(&client, &key.url_path(&kind.version))
                .await?
                .ok_or_else(|| nothing(kind, &wanted))?
        }
    };
    let object: &RawValue = serde_json::from_slice(&object).map_err(unreadable)?;
    let head = clean::head(object).map_err(unreadable)?;
    let key = ObjectKey::new(&kind.group, &kind.resource, &head.namespace, &head.name)
        .map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    let namespaces = labels_of_namespace(&client, &head.namespace).await?;
    let rules = survey.selection.for_kind(kind);
    let explanation = if head.being_deleted {
        Explanation {
            verdict: Verdict::Out { rule: BEING_DELETED.to_owned() },
            reason: "a standby deletes it too, if it holds it".to_owned(),
            others: vec![],
        }
    } else {
        rules.explain(&candidates::candidate(kind, &head, &namespaces))
    };
    let policy = Policy::new(&settings.hub.pair, &global.home(), &settings.restore);
    let standby = Standby::of(&explanation.verdict, &key, kind, &policy);
    let keeps_status = survey.selection.keeps_status(kind);
    let explained = Explained { key: &key, kind, explanation: &explanation, keeps_status, standby };
    show(render_explain::explained(&explained, global.output))
}

/// The one kind that is meant.
fn kind<'s>(survey: &'s Survey, wanted: &Wanted) -> Result<&'s Kind, Failure> {
    let word = &wanted.kind;
    let kinds = || survey.kinds.iter();
    // The core group has no name to put behind the dot: `events` is exactly one of two kinds.
    if let Some(exact) = kinds().find(|kind| kind.group_resource().to_string() == *word) {
        return Ok(exact);
    }
    let is_meant = |kind: &&Kind| {
        find::is_plural(word, &kind.group_resource())
            || find::is_kind(word, &kind.group_resource(), &kind.kind)
    };
    let meant: Vec<&Kind> = kinds().filter(is_meant).collect();
    let namespace = wanted.namespace.as_deref().unwrap_or_default();
    match &*meant {
        [one] => Ok(one),
        [] => {
            let names: Vec<String> = kinds()
                .flat_map(|kind| {
                    [kind.group_resource().to_string(), kind.resource.clone(), kind.kind.clone()]
                })
                .collect();
            let unread = survey.failed_groups.iter();
            let unread: Vec<_> = unread.map(|group| format!("; {group} cannot be read")).collect();
            let unread = unread.concat();
            let message =
                format!("this hub serves no kind {word} of which objects can be made{unread}");
            let failure = Failure::new(Code::Failed, message);
            Err(match nearest(word, names.iter().map(String::as_str)) {
                Some(near) => failure.with_hint(format!("did you mean {near}?")),
                None => failure.with_hint("all kinds are shown by: kubectl api-resources"),
            })
        }
        several => {
            let commands = several.iter().map(|kind| command(kind, namespace, &wanted.name));
            let message = format!("{} kinds of this hub are called {word}", several.len());
            Err(Failure::new(Code::Usage, message)
                .with_hint(commands.collect::<Vec<_>>().join("\n  ")))
        }
    }
}

/// None: there is no such object.
async fn get(client: &kube::Client, path: &str) -> Result<Option<Bytes>, Failure> {
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    match kube_client::raw(client, request).await {
        Ok(response) => Ok(Some(response.body)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The object of that name, if there is one only.
async fn find_in_any_namespace(
    client: &kube::Client,
    kind: &Kind,
    wanted: &Wanted,
) -> Result<Bytes, Failure> {
    let named = format!("metadata.name={}", wanted.name);
    let query = [("fieldSelector", &*named), ("limit", NAMED_ALIKE)];
    let page = kube_client::list_page(client, &kind.list_path(), &query).await;
    let page = page.map_err(Failure::from)?;
    match &*cut::items(&page, kind)
        .map_err(|error| Failure::new(Code::Failed, error.to_string()))?
    {
        [] => Err(nothing(kind, wanted)),
        [one] => Ok(Bytes::copy_from_slice(one.get().as_bytes())),
        several => {
            let heads = several.iter().filter_map(|item| clean::head(item).ok());
            let commands = heads.map(|head| command(kind, &head.namespace, &head.name));
            let message = format!("{wanted} is not one object of this hub");
            Err(Failure::new(Code::Usage, message)
                .with_hint(commands.collect::<Vec<_>>().join("\n  ")))
        }
    }
}

async fn labels_of_namespace(
    client: &kube::Client,
    namespace: &str,
) -> Result<NamespaceLabels, Failure> {
    if namespace.is_empty() {
        return Ok(NamespaceLabels::new());
    }
    let key = ObjectKey::new("", "namespaces", "", namespace)
        .map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    let Some(found) = get(client, &key.url_path("v1")).await? else {
        return Ok(NamespaceLabels::new());
    };
    let found: &RawValue = serde_json::from_slice(&found).map_err(unreadable)?;
    Ok([candidates::labels_of(clean::head(found).map_err(unreadable)?)].into())
}

fn nothing(kind: &Kind, wanted: &Wanted) -> Failure {
    let place = match &wanted.namespace {
        Some(namespace) => format!(" -n {namespace}"),
        None if kind.namespaced => " -A".to_owned(),
        None => String::new(),
    };
    // The rules look at labels and types: nothing can be said of an object that is not there.
    Failure::new(Code::Failed, format!("this hub has no {wanted}")).with_hint(format!(
        "what is there is shown by: kubectl get {}{place}",
        kind.group_resource()
    ))
}

fn command(kind: &Kind, namespace: &str, name: &str) -> String {
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("understudy explain {} {namespace}{slash}{name}", kind.group_resource())
}

/// The cause is left out: it could quote a Secret.
fn unreadable(_: serde_json::Error) -> Failure {
    Failure::new(Code::Failed, "the API server's answer is not an object")
}
