//! Pure: the keys of a pair: which files hold them, what each is for, and which backups need it.
//!
//! An age file does not say whose key opens it. But no run goes over a change of keys: so a pack is
//! sealed under the key of the commit that named it first, and the journal tells which that was.

use super::render::{Align, Column, Output, envelope, table};
use crate::repository::chain::View;
use crate::repository::layout;
use crate::status::words::count;
use serde::Serialize;
use serde_json::json;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRow {
    pub id: String,
    /// `None`: not held here.
    pub file: Option<String>,
    pub state: State,
    /// Backups that need it.
    pub backups: usize,
    /// Their ids.
    pub oldest: Option<String>,
    pub newest: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Seals packs and authenticates records.
    Current,
    /// It comes first, and the journal has not changed to it.
    Next,
    /// Opens older backups, no more.
    OpensOnly,
    /// Nothing needs it any more.
    Removable,
    /// The journal never was under it.
    Unused,
    Missing,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            State::Current => "current: seals and authenticates",
            State::Next => "next: `understudy key rotate` on the primary changes to it",
            State::OpensOnly => "opens only; keep it while backups need it",
            State::Removable => "not needed: the file may be removed, on every hub",
            State::Unused => "not in use",
            State::Missing => "MISSING: backups need it",
        }
    }
}

/// A row a key file, `held` with the id of each in their order, then those that are not held and
/// needed. `startable`: a hub can begin without the key of the repository's first record.
pub fn rows(held: &[(String, String)], view: &View, startable: bool) -> Vec<KeyRow> {
    let row = |id: &str, file: Option<&String>, state| {
        let needed = view.backups_that_need(id);
        let backup = |slot: Option<&u64>| {
            let offered = view.ledger.offered.get(slot?)?;
            Some(layout::backup_id(offered.at, *slot?))
        };
        KeyRow {
            id: id.to_owned(),
            file: file.cloned(),
            state,
            backups: needed.len(),
            oldest: backup(needed.first()),
            newest: backup(needed.last()),
        }
    };
    let state = |index: usize, id: &str| {
        let known = view.keys.values().any(|key| key == id);
        match view.key() {
            Some(current) if current == id => State::Current,
            Some(_) if index == 0 && !known => State::Next,
            Some(_) if !known => State::Unused,
            None if index == 0 => State::Next,
            None => State::Unused,
            Some(_) if startable && view.backups_that_need(id).is_empty() => State::Removable,
            Some(_) => State::OpensOnly,
        }
    };
    let files = held.iter().enumerate();
    let mut rows: Vec<_> =
        files.map(|(index, (id, file))| row(id, Some(file), state(index, id))).collect();
    let lacks = |id: &&String| {
        !held.iter().any(|(held, _)| held == *id)
            && (view.key() == Some(id) || !view.backups_that_need(id).is_empty())
    };
    rows.extend(view.keys.values().filter(lacks).map(|id| row(id, None, State::Missing)));
    rows
}

pub fn list(rows: &[KeyRow], output: Output) -> Result<String, serde_json::Error> {
    const COLUMNS: [Column; 6] = [
        ("KEY", Align::Left),
        ("FILE", Align::Left),
        ("BACKUPS", Align::Right),
        ("OLDEST", Align::Left),
        ("NEWEST", Align::Left),
        ("STATE", Align::Left),
    ];
    match output {
        Output::Json => envelope("KeyList", json!({ "items": rows })),
        Output::Table => {
            let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
            let cells = |row: &KeyRow| {
                vec![
                    row.id.clone(),
                    dash(&row.file),
                    count(row.backups as u64),
                    dash(&row.oldest),
                    dash(&row.newest),
                    row.state.words().to_owned(),
                ]
            };
            Ok(table(&COLUMNS, rows.iter().map(cells)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::chain::tests::{term, walk, walk_rekeyed};
    use crate::repository::keys::tests::{holding, new_keys};
    use crate::repository::layout::PackName;
    use crate::repository::record::tests::commit_of;
    use crate::repository::record::{Body, Retire};

    fn check(name: &str, held: &[&str], view: &View, startable: bool, expected: &[(State, usize)]) {
        let held: Vec<_> =
            held.iter().map(|id| ((*id).to_owned(), format!("/keys/{id}"))).collect();
        let rows = rows(&held, view, startable);
        let found: Vec<_> = rows.iter().map(|row| (row.state, row.backups)).collect();
        assert_eq!(found, expected, "{name}");
        let missing = |row: &&KeyRow| (row.state == State::Missing) != row.file.is_none();
        assert_eq!(rows.iter().find(missing), None, "{name}");
    }

    #[test]
    fn each_key_is_told_with_the_backups_that_need_it() {
        use State::{Current, Missing, Next, OpensOnly, Removable, Unused};
        let (old, new) = (new_keys(), new_keys());
        let both = holding(&[&old, &new]);
        let pack = |number| PackName::new(1, 3, ulid::Ulid(number));
        let commit = |numbers: &[u128]| {
            let packs: Vec<_> = numbers.iter().map(|number| pack(*number)).collect();
            (1, 3, "a", Body::Commit(commit_of(&packs)))
        };
        let start = vec![
            (0, 0, "a", Body::Init),
            (1, 0, "a", term()),
            (1, 0, "a", Body::Open),
            commit(&[1]),
            commit(&[1, 2]),
        ];
        let (before, _) = walk(&both, start.clone());
        let (k, n) = (old.id(), new.id());
        check("before the change", &[n, k], &before, true, &[(Next, 0), (Current, 2)]);
        check("behind it", &[k, n], &before, true, &[(Current, 2), (Unused, 0)]);
        check("no repository yet", &[n, k], &View::default(), false, &[(Next, 0), (Unused, 0)]);

        // The first backup after the change still holds a set under the old key, the second not.
        let rekeyed = |more| {
            let rekey = vec![(1, 3, "a", Body::Rekey { to: n.to_owned() })];
            let mut records = vec![];
            records.extend(start.clone());
            records.extend(rekey);
            records.extend::<Vec<_>>(more);
            // Under the new key alone from here on.
            walk_rekeyed(&[&old, &new], records)
        };
        let view = rekeyed(vec![commit(&[1, 3])]);
        assert_eq!(view.sets_under_older_keys().len(), 1);
        let view = rekeyed(vec![commit(&[1, 3]), commit(&[3])]);
        assert_eq!(view.sets_under_older_keys().len(), 0);
        check("after it", &[n, k], &view, true, &[(Current, 2), (OpensOnly, 3)]);
        check("the old one is gone", &[n], &view, true, &[(Current, 2), (Missing, 3)]);

        let retire = Retire { backups: vec![4, 5, 7], packs: vec![pack(1), pack(2)], swept: 0 };
        let retire = (1, 3, "a", Body::Retire(retire));
        let view = rekeyed(vec![commit(&[1, 3]), commit(&[3]), retire]);
        check("all old ones retired", &[n, k], &view, true, &[(Current, 1), (Removable, 0)]);
        check("no checkpoint", &[n, k], &view, false, &[(Current, 1), (OpensOnly, 0)]);
        check("removed", &[n], &view, true, &[(Current, 1)]);
        let text = list(&rows(&[], &view, true), Output::Table).unwrap();
        assert!(text.contains("MISSING") && text.contains(n), "{text}");
    }
}
