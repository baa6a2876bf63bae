//! `understudy backup get`: one object out of a backup, for the day when somebody deleted it.
//!
//! The whole backup is fetched and authenticated first, as always: a single object is not worth less.

use super::exit::{Code, Failure};
use super::find::{self, Found, Wanted};
use super::opened::{self, Open};
use super::render_object::{self, Shown};
use super::stored::{Stored, show};
use super::{Global, run};
use crate::object::{GroupResource, ObjectKey};
use crate::repository::packs::PacksError;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// What was found and, if it is one object, its bytes.
type Looked = (Found, Option<Box<RawValue>>);

pub(super) async fn get(
    global: &Global,
    id: &str,
    wanted: Wanted,
    show_secret_data: bool,
) -> Result<(), Failure> {
    let mut stored = Stored::expect(&run::settings(global)?).await?;
    let open = opened::open(&mut stored, global, id).await?;
    let id = open.id();
    let searched = wanted.clone();
    let thread = tokio::task::spawn_blocking(move || look(&open, &searched));
    let (found, object) = thread.await.map_err(|_| PacksError::Thread)??;
    let (Found::One(key), Some(object)) = (&found, object) else {
        return Err(not_one(found, &wanted, &id));
    };
    let Shown { text, masked } =
        render_object::object(key, &object, global.output, show_secret_data)
            .map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    show(Ok::<_, String>(text))?;
    if masked {
        eprintln!("secret data is masked; --show-secret-data prints it");
    }
    stored.complete()
}

fn look(open: &Open, wanted: &Wanted) -> Result<Looked, PacksError> {
    let entries = &open.contents().entries;
    let held: BTreeSet<GroupResource> = entries.keys().map(ObjectKey::group_resource).collect();
    let mut kinds: BTreeSet<_> =
        held.iter().filter(|kind| find::is_plural(&wanted.kind, kind)).cloned().collect();
    if kinds.is_empty() {
        let is_meant =
            |(kind, name): &(GroupResource, String)| find::is_kind(&wanted.kind, kind, name);
        kinds = open.kind_names()?.into_iter().filter(is_meant).map(|(kind, _)| kind).collect();
    }
    let found = find::find(entries.keys(), &kinds, wanted);
    let Found::One(key) = &found else { return Ok((found, None)) };
    let mut object = None;
    open.read([key].into_iter(), |_, raw| object = Some(raw.to_owned()))?;
    Ok((found, object))
}

fn not_one(found: Found, wanted: &Wanted, id: &str) -> Failure {
    match found {
        // Its entry was there a moment ago.
        Found::One(key) => Failure::new(Code::Failed, format!("failed to find {key} in its pack")),
        Found::Several(keys) => {
            let commands: Vec<_> = keys.iter().map(|key| command(id, key)).collect();
            let message = format!("{wanted} is not one object of {id}, but {}", keys.len());
            Failure::new(Code::Usage, message).with_hint(commands.join("\n  "))
        }
        Found::Nothing { near } => {
            let failure = Failure::new(Code::Failed, format!("the backup {id} holds no {wanted}"));
            if near.is_empty() {
                return failure.with_hint(format!(
                    "kinds and their counts are shown by: understudy backup describe {id}"
                ));
            }
            failure.with_hint(format!("did you mean {}?", near.join(", ")))
        }
    }
}

fn command(id: &str, key: &ObjectKey) -> String {
    let slash = if key.namespace().is_empty() { "" } else { "/" };
    format!(
        "understudy backup get {id} {} {}{slash}{}",
        key.group_resource(),
        key.namespace(),
        key.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_means_several_objects_is_shown_the_command_for_each() {
        let key = |namespace: &str| ObjectKey::new("apps", "deployments", namespace, "x").unwrap();
        let wanted = Wanted::new("deployment".to_owned(), "x");
        let failure = not_one(Found::Several(vec![key("a"), key("b")]), &wanted, "42");
        assert_eq!(failure.code, Code::Usage);
        assert_eq!(failure.message, "deployment x is not one object of 42, but 2");
        assert_eq!(
            failure.hint.as_deref(),
            Some(
                "understudy backup get 42 deployments.apps a/x\n  understudy backup get 42 deployments.apps b/x"
            )
        );
    }
}
