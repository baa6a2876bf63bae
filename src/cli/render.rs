//! Pure: how results and errors look on a terminal and as JSON.
//!
//! Tables are like those of kubectl: no borders, so that `awk` and eyes read them alike. JSON carries
//! `apiVersion` and `kind`; fields may be added, never renamed.

use super::exit::Failure;
use crate::http::API_VERSION;
use crate::object::Set;
use crate::status::BackupSummary;
use crate::status::words::{age_of, bytes, count};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// A column: its heading, and whether it holds numbers.
pub type Column = (&'static str, Align);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Lines without trailing spaces, ending in a line break; only a heading when there are no rows.
pub fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|(heading, _)| *heading));
    for row in rows {
        // A cell is a line: what others wrote must not break the table or drive the terminal.
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for (column, (_, align)) in table.column_iter_mut().zip(columns) {
        // Two spaces between columns.
        column.set_padding((0, 2));
        if *align == Align::Right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Control characters become spaces: an object's name or a server's error may hold escape codes.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    body: T,
}

/// `body` (a struct or a map) under `apiVersion` and `kind`.
pub fn envelope(kind: &str, body: impl Serialize) -> Result<String, serde_json::Error> {
    pretty(&Envelope { api_version: API_VERSION, kind, body })
}

/// For a document that names its kind itself.
pub fn pretty(document: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}

/// Newest first, as given.
pub fn backup_list(
    backups: &[BackupSummary],
    output: Output,
    now: Timestamp,
) -> Result<String, serde_json::Error> {
    match output {
        Output::Table if backups.is_empty() => Ok("No backups.\n".to_owned()),
        Output::Table => Ok(table(&BACKUP_COLUMNS, backups.iter().map(|b| backup_row(b, now)))),
        Output::Json => envelope("BackupList", serde_json::json!({ "items": backups })),
    }
}

const BACKUP_COLUMNS: [Column; 10] = [
    ("BACKUP", Align::Left),
    ("AGE", Align::Right),
    ("HUB", Align::Left),
    ("EPOCH", Align::Right),
    ("CREDENTIALS", Align::Right),
    ("RESOURCES", Align::Right),
    ("ACTIVATION", Align::Right),
    ("CHANGED", Align::Right),
    ("SIZE", Align::Right),
    ("STATE", Align::Left),
];

fn backup_row(backup: &BackupSummary, now: Timestamp) -> Vec<String> {
    let objects = |set| {
        backup.sets.get(&set).map_or_else(|| "-".to_owned(), |summary| count(summary.objects))
    };
    let sum = |value: fn(&crate::status::SetSummary) -> u64| backup.sets.values().map(value).sum();
    let state = match (&backup.suspect, backup.partial.len()) {
        (Some(why), _) => format!("suspect: {why}"),
        (None, 0) => "complete".to_owned(),
        (None, kinds) => format!("partial: {kinds} kinds carried over"),
    };
    vec![
        backup.id.clone(),
        age_of(backup.at, now),
        backup.hub.clone(),
        backup.epoch.to_string(),
        objects(Set::Credentials),
        objects(Set::Resources),
        objects(Set::Activation),
        count(sum(|summary| summary.changed)),
        bytes(sum(|summary| summary.bytes)),
        state,
    ]
}

/// For standard error, without the last line break. JSON is one line.
pub fn failure(failure: &Failure, output: Output) -> String {
    let Failure { code, message, hint } = failure;
    match output {
        Output::Json => serde_json::json!({
            "code": *code as u8, "reason": code.reason(), "message": message, "hint": hint,
        })
        .to_string(),
        Output::Table => {
            let hint = hint.as_ref().map_or(String::new(), |hint| format!("\n  {hint}"));
            format!("error: {message}{hint}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Code;
    use crate::status::samples::{backup, now};

    #[test]
    fn a_table_has_no_borders_and_aligns_numbers() {
        let columns = [("NAME", Align::Left), ("COUNT", Align::Right), ("NOTE", Align::Left)];
        let rows = [
            vec!["a".into(), "7".into(), "x\u{1b}[31m\ny".into()],
            vec!["longer".into(), "29,387".into(), String::new()],
        ];
        assert_eq!(
            table(&columns, rows),
            "NAME     COUNT  NOTE\na            7  x [31m y\nlonger  29,387\n"
        );
    }

    #[test]
    fn backups_are_listed_with_their_state() {
        let mut second = backup("20261120-170000-41", "eu-1", 7, 2232);
        second.partial = vec!["apps".to_owned()];
        let mut third = backup("20261120-163000-40", "eu-1", 7, 4032);
        third.suspect = Some("resources shrank by 40 %".to_owned());
        let list = [backup("20261120-173000-42", "eu-1", 7, 432), second, third];
        assert_eq!(
            backup_list(&list, Output::Table, now()).unwrap(),
            "\
BACKUP              AGE  HUB   EPOCH  CREDENTIALS  RESOURCES  ACTIVATION  CHANGED       SIZE  STATE
20261120-173000-42   7m  eu-1      7       29,387     14,886      51,422       15  103.6 MiB  complete
20261120-170000-41  37m  eu-1      7       29,387     14,886      51,422       15  103.6 MiB  partial: 1 kinds carried over
20261120-163000-40   1h  eu-1      7       29,387     14,886      51,422       15  103.6 MiB  suspect: resources shrank by 40 %
"
        );
        assert_eq!(backup_list(&[], Output::Table, now()).unwrap(), "No backups.\n");
        let json = backup_list(&list[..1], Output::Json, now()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["apiVersion"], "understudy.dev/v1");
        assert_eq!(value["kind"], "BackupList");
        assert_eq!(value["items"][0]["sets"]["credentials"]["objects"], 29_387);
    }

    #[test]
    fn an_error_is_one_line_of_json_or_a_sentence_with_the_command() {
        let crd = Failure::new(Code::KubernetesUnreachable, "the \"CRD\" is\nmissing")
            .with_hint("understudy crd | kubectl apply -f -");
        let json: serde_json::Value = serde_json::from_str(&failure(&crd, Output::Json)).unwrap();
        assert_eq!(json["code"], 14);
        assert_eq!(json["reason"], "KubernetesUnreachable");
        assert_eq!(json["hint"], "understudy crd | kubectl apply -f -");
        assert!(!failure(&crd, Output::Json).contains('\n'));
        assert_eq!(
            failure(&crd, Output::Table),
            "error: the \"CRD\" is\nmissing\n  understudy crd | kubectl apply -f -"
        );
    }
}
