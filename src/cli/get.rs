//! `understudy backup get`: one object out of a backup, for the day when somebody deleted it.
//!
//! The whole backup is fetched and authenticated first, as always: a single object is not worth less.

use super::exit::{Code, Failure};
use super::find::{self, Found, Wanted};
use super::render_object::{self, Shown};
use super::stored::{Stored, progress, show};
use super::{Global, run};
use crate::object::{GroupResource, ObjectKey};
use crate::repository::packs::{Opened, PackStore, PacksError};
use crate::status::words::plural;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

/// What was found and, if it is one object, its bytes.
type Looked = (Found, Option<Box<RawValue>>);

pub(super) async fn get(
    global: &Global,
    id: &str,
    wanted: Wanted,
    show_secret_data: bool,
) -> Result<(), Failure> {
    let mut stored = Stored::expect(&run::settings(global)?).await?;
    let backup = stored.find(id).await?.backup;
    let slot = backup.mark.slot;
    let (id, (packs, _cache)) = (backup.id(), stored.packs()?);
    let count = plural(backup.commit.packs().count(), "pack", "packs");
    progress(global, &format!("opening {id}: {count}"));
    let opened = match packs.open(backup, None).await {
        Err(PacksError::Missing { .. }) if stored.is_retired(slot).await? => {
            let message = format!("the backup {id} was retired while it was read");
            return Err(Failure::new(Code::Failed, message)
                .with_hint("what is left is shown by: understudy backup list"));
        }
        opened => opened?,
    };
    let searched = wanted.clone();
    let thread = tokio::task::spawn_blocking(move || look(&packs, &opened, &searched));
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

fn look(packs: &PackStore, opened: &Opened, wanted: &Wanted) -> Result<Looked, PacksError> {
    let entries = &opened.contents.entries;
    let held: BTreeSet<GroupResource> = entries.keys().map(ObjectKey::group_resource).collect();
    let mut kinds: BTreeSet<_> =
        held.iter().filter(|kind| find::is_plural(&wanted.kind, kind)).cloned().collect();
    if kinds.is_empty() {
        // Only the objects themselves know what their kind is called in the singular.
        let named = kind_names(packs, opened)?;
        let is_meant =
            |(kind, name): &(GroupResource, String)| find::is_kind(&wanted.kind, kind, name);
        kinds = named.into_iter().filter(is_meant).map(|(kind, _)| kind).collect();
    }
    let found = find::find(entries.keys(), &kinds, wanted);
    let Found::One(key) = &found else { return Ok((found, None)) };
    let mut object = None;
    if let Some(entry) = entries.get(key) {
        packs.objects(opened, entry.pack, |there, raw| {
            if there != *key {
                return ControlFlow::Continue(());
            }
            object = Some(raw.to_owned());
            ControlFlow::Break(())
        })?;
    }
    Ok((found, object))
}

/// What the kinds of the backup are called in the singular: read from one object of each.
fn kind_names(
    packs: &PackStore,
    opened: &Opened,
) -> Result<Vec<(GroupResource, String)>, PacksError> {
    #[derive(serde::Deserialize)]
    struct Head {
        kind: String,
    }
    let samples: HashMap<GroupResource, (&ObjectKey, u32)> = opened
        .contents
        .entries
        .iter()
        .map(|(key, entry)| (key.group_resource(), (key, entry.pack)))
        .collect();
    let mut by_pack: BTreeMap<u32, BTreeSet<&ObjectKey>> = BTreeMap::new();
    for (key, pack) in samples.into_values() {
        by_pack.entry(pack).or_default().insert(key);
    }
    let mut names = vec![];
    for (pack, mut wanted) in by_pack {
        packs.objects(opened, pack, |key, raw| {
            if wanted.remove(&key)
                && let Ok(head) = serde_json::from_str::<Head>(raw.get())
            {
                names.push((key.group_resource(), head.kind));
            }
            if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    Ok(names)
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
