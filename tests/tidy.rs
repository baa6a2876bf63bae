//! The house rules that a test can keep. Each violation is told with its file and line.
//!
//! The rules look at text, not at syntax: they are meant to remind, and a line that has to break one
//! is a reason to think twice, not to write around it.

#[path = "tidy/dashboard.rs"]
mod dashboard;
#[path = "tidy/monitoring.rs"]
mod monitoring;

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
struct Source {
    /// Relative to the top level, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// Its lines by number, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.map(|(number, line)| (number, without_comment(line)))
    }

    /// Its code before the tests.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.lines().position(|line| line.trim() == "#[cfg(test)]");
        let tests = if self.is_test() { Some(0) } else { tests };
        self.code().take(tests.unwrap_or(usize::MAX))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("/tests.rs")
    }
}

/// Cuts at `//` outside of a string literal that begins on the line.
fn without_comment(line: &str) -> &str {
    let (mut in_string, mut escaped) = (false, false);
    for (at, letter) in line.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            '/' if !in_string && line[at..].starts_with("//") => return &line[..at],
            _ => {}
        }
    }
    line
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` whose names end so.
fn files(folder: &str, ending: &str) -> Vec<Source> {
    let mut folders = vec![top().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("a folder is readable").path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let text = fs::read_to_string(&path).expect("a source is text");
                let path = path
                    .strip_prefix(top())
                    .expect("it was found below")
                    .to_string_lossy()
                    .replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let found = files("src", ".rs");
    assert!(found.len() > 10, "the sources were not found");
    found
}

#[track_caller]
fn check(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}\n", violations.join("\n  "));
}

/// Lines of production code that hold one of the words, in files other than the allowed ones (files,
/// or folders with a slash at the end).
fn only_in(allowed: &[&str], words: &[&str]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources() {
        let within = |place: &&str| {
            source.path == **place || (place.ends_with('/') && source.path.starts_with(*place))
        };
        if allowed.iter().any(within) {
            continue;
        }
        for (number, line) in source.production() {
            if let Some(word) = words.iter().find(|word| holds_word(line, word)) {
                violations.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    violations
}

/// Whether the word stands in the line and is not the end or the beginning of a longer name.
fn holds_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let begins_as_name = word.starts_with(part_of_name);
    let ends_as_name = word.ends_with(part_of_name);
    line.match_indices(word).any(|(at, _)| {
        let longer_before = begins_as_name && line[..at].ends_with(part_of_name);
        let longer_behind = ends_as_name && line[at + word.len()..].starts_with(part_of_name);
        !longer_before && !longer_behind
    })
}

#[test]
fn every_file_begins_with_what_it_is() {
    let mut violations = Vec::new();
    for source in sources().into_iter().chain(files("tests", ".rs")) {
        let first = source.text.lines().next().unwrap_or_default();
        let words = first.trim_start_matches("//!").split_whitespace().count();
        if !first.starts_with("//! ") || words < 3 {
            violations.push(format!("{}:1: {first:?}", source.path));
        }
    }
    check("a file begins with //! and a sentence", &violations);
}

#[test]
fn a_pure_file_decides_and_touches_nothing() {
    const TOUCHING: &[&str] = &[
        "async",
        ".await",
        "tokio::",
        "kube::",
        "aws_",
        "reqwest",
        "std::fs",
        "std::env",
        "std::net::Tcp",
        "std::process",
        "std::thread",
        "fs::",
        "env::var",
        "clock::",
        "Timestamp::now",
        "Instant::now",
        "SystemTime",
        "Utc::now",
        "Local::now",
        "rand::",
        "rand",
        "Ulid::new",
    ];
    let mut pure = 0;
    let mut violations = Vec::new();
    for source in sources().into_iter().filter(|source| source.text.starts_with("//! Pure:")) {
        pure += 1;
        for (number, line) in source.production() {
            if let Some(word) = TOUCHING.iter().find(|word| holds_word(line, word)) {
                violations.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    assert!(pure > 5, "no file says that it is pure");
    check("a file that begins with //! Pure: decides and touches nothing", &violations);
}

#[test]
fn only_the_daemon_spawns() {
    let words =
        ["tokio::spawn", "tokio::task::spawn", "task::spawn(", "thread::spawn", "thread::Builder"];
    check("only daemon.rs spawns", &only_in(&["src/daemon.rs", "src/daemon/"], &words));
}

#[test]
fn only_the_s3_storage_names_the_sdk() {
    let words = [
        "aws_sdk_s3",
        "aws_config",
        "aws_smithy_http_client",
        "aws_smithy_types",
        "aws_smithy_runtime",
        "aws_types",
        "aws_credential_types",
    ];
    // The log filter names the SDK's crates as targets.
    let allowed = ["src/repository/storage/s3.rs", "src/repository/storage/s3/", "src/logging.rs"];
    check("only storage/s3.rs names the SDK", &only_in(&allowed, &words));
}

#[test]
fn only_the_retry_loop_names_backoff() {
    check("only retry.rs names backoff", &only_in(&["src/retry.rs"], &["backoff::"]));
}

#[test]
fn only_the_clock_reads_the_time() {
    let words = [
        "Timestamp::now",
        "Zoned::now",
        "Instant::now",
        "SystemTime::now",
        "Utc::now",
        "Local::now",
    ];
    check("only clock.rs reads the time", &only_in(&["src/clock.rs"], &words));
}

#[test]
fn only_the_schedule_names_chrono_and_cron() {
    check(
        "only schedule.rs names chrono and cron",
        &only_in(&["src/schedule.rs"], &["chrono::", "cron::"]),
    );
}

#[test]
fn only_few_places_read_files_and_environment() {
    let environment = only_in(
        &["src/config/", "src/main.rs", "src/cli/"],
        &["env::var", "env::vars", "env::var_os", "env::vars_os"],
    );
    check("only config/ and the command line read the environment", &environment);
    // Beside the configuration: the directory storage, the cache of packs and of the journal, keys, and the key file
    // that `key new` writes.
    let files = only_in(
        &[
            "src/config/",
            "src/main.rs",
            "src/cli/",
            "src/repository/storage/",
            "src/repository/packs.rs",
            "src/repository/checkpoint.rs",
            "src/repository/keys.rs",
            "src/kube_client.rs",
        ],
        &["std::fs", "tokio::fs", "fs::read", "fs::write", "File::open", "File::create"],
    );
    check("files are read and written in few places", &files);
}

#[test]
fn files_and_functions_are_readable_in_one_go() {
    const MAX_LINES: usize = 500;
    let mut violations = Vec::new();
    for source in sources() {
        let lines = if source.is_test() { 0 } else { source.production().count() };
        if lines > MAX_LINES {
            violations.push(format!(
                "{}:{lines}: more than {MAX_LINES} lines before its tests",
                source.path
            ));
        }
    }
    check("a file is readable in one go: split it", &violations);
}

#[test]
fn nothing_panics_on_input() {
    let words = [".unwrap()", "todo!", "unimplemented!", "panic!", "dbg!", ".expect(\"\")"];
    // Samples are compiled for tests alone.
    let samples = ["src/status/samples.rs"];
    check("no panic on input, nothing left to do", &only_in(&samples, &words));
}

#[test]
fn no_macro_and_no_lint_is_switched_off_for_a_whole_file() {
    let words = ["macro_rules!", "#![allow", "#![expect"];
    check("no macro of our own; a lint is switched off where it is wrong", &only_in(&[], &words));
}

#[test]
fn no_code_is_commented_out() {
    let ends = [";", "{", "}", "),", ")?;"];
    let mut violations = Vec::new();
    for source in sources().into_iter().chain(files("tests", ".rs")) {
        for (index, line) in source.text.lines().enumerate() {
            let Some(comment) = line.trim().strip_prefix("// ") else { continue };
            let begins = ["let ", "use ", "fn ", "pub ", "if ", "for ", "match ", "return ", "} "];
            let is_code = begins.iter().any(|begin| comment.starts_with(begin))
                && ends.iter().any(|end| comment.ends_with(end));
            if is_code {
                violations.push(format!("{}:{}: {comment}", source.path, index + 1));
            }
        }
    }
    check("code that is not used is deleted, not commented out", &violations);
}

#[test]
fn the_shipped_configuration_parses() {
    for source in files("config", ".yaml") {
        let path = top().join(&source.path);
        if source.path.starts_with("config/presets/") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let preset = understudy::config::preset::load(&name);
            assert!(
                preset.is_some(),
                "{}:1: it is not shipped in src/config/preset.rs",
                source.path
            );
            for other in [format!("docs/presets/{name}.md"), format!("tests/presets/{name}.txt")] {
                assert!(top().join(&other).exists(), "{}:1: {other} does not exist", source.path);
            }
        } else if let Err(errors) = understudy::config::load(&path, std::iter::empty()) {
            panic!("{errors}");
        }
    }
    for name in understudy::config::preset::names() {
        let file = format!("config/presets/{name}.yaml");
        assert!(top().join(&file).exists(), "the preset {name} is not in {file}");
    }
}

#[test]
fn the_examples_differ_in_name_and_role_only() {
    let lines = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(top().join("config").join(name)).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let (primary, passive) = (lines("primary.yaml"), lines("passive.yaml"));
    assert_eq!(
        primary.len(),
        passive.len(),
        "config/passive.yaml has other lines than primary.yaml"
    );
    let differing = primary.iter().zip(&passive).filter(|(primary, passive)| primary != passive);
    let keys: Vec<&str> =
        differing.map(|(line, _)| line.split(':').next().unwrap().trim()).collect();
    assert_eq!(keys, ["name", "initialRole"], "config/passive.yaml differs from primary.yaml");
}

#[test]
fn the_top_level_holds_what_a_newcomer_expects() {
    const KNOWN: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "config",
        "dashboards",
        "deploy",
        "docs",
        "src",
        "target",
        "tests",
    ];
    let names = fs::read_dir(top()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let strangers: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !KNOWN.contains(&name.as_str())).collect();
    check("what is new at the top level belongs into one of its folders", &strangers);
}

#[test]
fn the_rules_themselves_see_what_they_are_meant_to_see() {
    for (line, word, expected) in [
        ("let x = tokio::spawn(y);", "tokio::spawn", true),
        ("let x = my_tokio::spawn(y);", "tokio::spawn", false),
        ("tokio::spawner()", "tokio::spawn", false),
        ("x.await?", ".await", true),
        ("use aws_sdk_s3::Client;", "aws_sdk_s3", true),
        ("use aws_lc_rs::digest;", "aws_sdk_s3", false),
        ("async move {", "async", true),
        ("is_async", "async", false),
        ("kube::Client", "kube::", true),
    ] {
        assert_eq!(holds_word(line, word), expected, "{word} in {line}");
    }
    for (line, code) in [
        ("a // b", "a "),
        ("//! b", ""),
        ("\"https://x\" // b", "\"https://x\" "),
        (r#""\"//" // b"#, r#""\"//" "#),
    ] {
        assert_eq!(without_comment(line), code);
    }
}
