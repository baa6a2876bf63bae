//! `understudy sync held`: what a passive hub does not delete before somebody has looked at it.

use super::exit::Failure;
use super::render::{Align, Column, Output, envelope, plain, table};
use super::stored::show;
use super::{Global, run};
use crate::status::held::HeldPrune;
use crate::status::words::count;
use crate::status::{Role, Snapshot};
use serde_json::json;

const COLUMNS: [Column; 3] =
    [("KIND", Align::Left), ("DELETIONS", Align::Right), ("FIRST", Align::Left)];

pub(super) async fn held(global: &Global) -> Result<(), Failure> {
    show(text(&run::seen(global).await?.snapshot, global.output))
}

fn text(snapshot: &Snapshot, output: Output) -> Result<String, serde_json::Error> {
    let sync = Some(&snapshot.sync).filter(|_| snapshot.role == Some(Role::Passive));
    let held = sync.and_then(|sync| sync.held.as_ref());
    let why = sync.and_then(|sync| sync.prune_held.as_deref());
    let going = sync.map_or(&[][..], |sync| &sync.going);
    if output == Output::Json {
        let command = held.map(HeldPrune::command);
        let body = json!({"held": held, "why": why, "command": command, "going": going});
        return envelope("HeldPrune", body);
    }
    let text = match (held, why) {
        (Some(held), why) => format!(
            "{}\nplan {}: {}\nThe log of the daemon names all of it. If it may go: {}\n",
            table(&COLUMNS, rows(held)),
            held.plan,
            plain(why.unwrap_or(&held.why)),
            held.command()
        ),
        (None, Some(why)) => format!("no plan is held; not deleted: {}\n", plain(why)),
        (None, None) => "nothing is held\n".to_owned(),
    };
    let line = |name: &String| format!("deleted, but finalizers keep it: {}\n", plain(name));
    Ok(text + &going.iter().map(line).collect::<String>())
}

fn rows(held: &HeldPrune) -> impl Iterator<Item = Vec<String>> {
    held.kinds.iter().map(|kind| {
        let more = if kind.deletions > kind.first.len() { " …" } else { "" };
        let first = format!("{}{more}", kind.first.join(" "));
        vec![kind.kind.clone(), count(kind.deletions as u64), first]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::held::HeldKind;
    use crate::status::samples;

    #[test]
    fn a_held_plan_is_shown_with_the_command_that_releases_it() {
        let mut snapshot = samples::passive();
        let shown = |snapshot: &Snapshot| text(snapshot, Output::Table).unwrap();
        assert_eq!(shown(&snapshot), "nothing is held\n");
        let why = "namespaces a: holds configmaps mine";
        snapshot.sync.prune_held = Some(why.to_owned());
        assert_eq!(shown(&snapshot), format!("no plan is held; not deleted: {why}\n"));
        let kind = |kind: &str, deletions, first: &[&str]| HeldKind {
            kind: kind.to_owned(),
            deletions,
            first: first.iter().map(|&name| name.to_owned()).collect(),
        };
        snapshot.sync.held = Some(HeldPrune {
            plan: "p1".to_owned(),
            why: why.to_owned(),
            deletions: 602,
            kinds: vec![kind("secrets", 600, &["a/b", "a/c"]), kind("namespaces", 2, &["a", "b"])],
        });
        let expected = "\
KIND        DELETIONS  FIRST
secrets           600  a/b a/c …
namespaces          2  a b

plan p1: namespaces a: holds configmaps mine
The log of the daemon names all of it. If it may go: understudy sync ack p1
";
        assert_eq!(shown(&snapshot), expected);
        let json = text(&snapshot, Output::Json).unwrap();
        assert!(json.contains(r#""command": "understudy sync ack p1""#), "{json}");
        snapshot.sync.going = vec!["/namespaces//c".to_owned()];
        let going = "deleted, but finalizers keep it: /namespaces//c\n";
        assert_eq!(shown(&snapshot), format!("{expected}{going}"));
        snapshot.role = Some(Role::Primary);
        assert_eq!(shown(&snapshot), "nothing is held\n", "of a time when it was passive");
    }
}
