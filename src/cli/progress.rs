//! How far a command is, on standard error: a bar on a terminal, now and then a line elsewhere, or a
//! line of JSON for programs.

use super::Global;
use super::render::Output;
use crate::clock;
use crate::progress::pace::Progress;
use crate::progress::{Tally, watch};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Between two drawings of a bar.
const DRAWN: Duration = Duration::from_millis(100);
/// Between two lines, and before the first one: what is quick needs none.
const LINES: Duration = Duration::from_secs(5);
const JSON_LINES: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    #[default]
    Auto,
    /// Lines
    Plain,
    /// A line of JSON each second
    Json,
    None,
}

/// What a mode comes to on this terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bar,
    Lines,
    Json,
    Nothing,
}

fn form(mode: Mode, output: Output, terminal: bool) -> Form {
    match (mode, output, terminal) {
        // A program that reads the result takes what is on standard error for an error.
        (Mode::None, _, _) | (Mode::Auto, Output::Json, _) => Form::Nothing,
        (Mode::Json, _, _) => Form::Json,
        (Mode::Auto, Output::Table, true) => Form::Bar,
        (Mode::Plain, _, _) | (Mode::Auto, Output::Table, false) => Form::Lines,
    }
}

fn form_of(global: &Global) -> Form {
    form(global.progress, global.output, std::io::stderr().is_terminal())
}

/// What the command does from now on.
pub(super) fn say(global: &Global, line: &str) {
    match form_of(global) {
        Form::Bar | Form::Lines => eprintln!("{line}"),
        Form::Json | Form::Nothing => {}
    }
}

/// Does the work, and tells of it if it takes its time.
pub(super) async fn follow<T>(global: &Global, tally: &Tally, work: impl Future<Output = T>) -> T {
    match form_of(global) {
        Form::Nothing => work.await,
        Form::Bar => {
            let bar = ProgressBar::hidden();
            let done = watch(tally, DRAWN, work, |progress| draw(&bar, &progress)).await;
            bar.finish_and_clear();
            done
        }
        Form::Lines => {
            let mut last = clock::monotonic();
            watch(tally, LINES / 10, work, |progress| {
                if is_time(&mut last, clock::monotonic()) {
                    eprintln!("{progress}");
                }
            })
            .await
        }
        Form::Json => {
            watch(tally, JSON_LINES, work, |progress| eprintln!("{}", json(&progress))).await
        }
    }
}

fn is_time(last: &mut Instant, now: Instant) -> bool {
    let due = now.duration_since(*last) >= LINES;
    if due {
        *last = now;
    }
    due
}

/// Nothing can be said of the template but that it is one of these two.
fn draw(bar: &ProgressBar, progress: &Progress) {
    if bar.is_hidden() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
    }
    let template = if progress.total.is_some() { "[{bar:24}] {msg}" } else { "{spinner} {msg}" };
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_length(progress.total.unwrap_or_default());
    bar.set_position(progress.done);
    bar.set_message(progress.to_string());
    bar.tick();
}

fn json(progress: &Progress) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        api_version: &'static str,
        kind: &'static str,
        #[serde(flatten)]
        progress: &'a Progress,
    }
    let line = Line { api_version: "understudy.dev/v1", kind: "Progress", progress };
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_for_a_terminal_and_words_are_for_people() {
        use Output::{Json, Table};
        for (mode, output, terminal, expected) in [
            (Mode::Auto, Table, true, Form::Bar),
            (Mode::Auto, Table, false, Form::Lines),
            (Mode::Auto, Json, true, Form::Nothing),
            (Mode::Auto, Json, false, Form::Nothing),
            (Mode::Plain, Table, true, Form::Lines),
            (Mode::Plain, Json, false, Form::Lines),
            (Mode::Json, Table, true, Form::Json),
            (Mode::Json, Json, false, Form::Json),
            (Mode::None, Table, true, Form::Nothing),
        ] {
            assert_eq!(form(mode, output, terminal), expected, "{mode:?} {output:?} {terminal}");
        }
    }

    #[test]
    fn a_program_reads_lines_of_json() {
        let progress = Progress {
            doing: "restoring".to_owned(),
            what: "objects".to_owned(),
            done: 1_200,
            total: Some(20_000),
            left_seconds: Some(38),
        };
        let expected = r#"{"apiVersion":"understudy.dev/v1","kind":"Progress","doing":"restoring","what":"objects","done":1200,"total":20000,"leftSeconds":38}"#;
        assert_eq!(json(&progress), expected);
    }
}
