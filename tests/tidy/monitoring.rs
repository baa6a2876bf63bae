//! Alerts, runbooks, dashboard and metrics know each other: what one names, the other has.

use super::{check, files, top};
use clap::Parser as _;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use understudy::cli::Cli;

/// A file of the repository.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What must be a list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// What is missing is empty.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The rules of dashboards/alerts.yaml with the group of each.
fn rules() -> Vec<(String, Value)> {
    let file = yaml("dashboards/alerts.yaml");
    let mut rules = vec![];
    for group in list(&file["groups"]) {
        let name = text(&group["name"]);
        rules.extend(list(&group["rules"]).iter().map(|r| (name.to_owned(), r.clone())));
    }
    assert!(rules.len() > 25, "the rules were not found");
    rules
}

fn alerts() -> Vec<Value> {
    rules().into_iter().map(|(_, rule)| rule).filter(|rule| rule["alert"].is_string()).collect()
}

/// The names in the tables of docs/reference/metrics.md, which a test compares with running daemons.
pub(super) fn documented() -> BTreeSet<String> {
    let text = read("docs/reference/metrics.md");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let ours = cells.filter(|name| name.starts_with("understudy_") || name.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// What looks like a metric or a recorded series of ours in an expression.
pub(super) fn metrics(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words
        .filter(|word| {
            ["understudy_", "process_", "understudy:"].iter().any(|p| word.starts_with(p))
        })
        .collect()
}

/// The metrics in an expression that no daemon shows.
pub(super) fn unknown(expression: &str, known: &BTreeSet<String>) -> Vec<String> {
    let family = |name: &str| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| name.strip_suffix(end).is_some_and(|family| known.contains(family)))
    };
    let found = metrics(expression).into_iter();
    found.filter(|name| !known.contains(*name) && !family(name)).map(str::to_owned).collect()
}

#[test]
fn every_alert_says_what_is_wrong_how_bad_and_what_to_do() {
    let mut violations = vec![];
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert["alert"]).to_owned();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                violations.push(format!("{name}: {what}"));
            }
        };
        must(names.insert(name.clone()), "there are two of this name");
        must(name.starts_with("Understudy"), "its name says of what it is");
        let severity = text(&alert["labels"]["severity"]);
        must(["critical", "warning", "info"].contains(&severity), "no severity");
        let annotations = &alert["annotations"];
        must(text(&annotations["summary"]).len() > 20, "no summary");
        must(text(&annotations["description"]).len() > 40, "no description");
        let url = text(&annotations["runbook_url"]);
        must(url.ends_with(&format!("/docs/runbooks/{name}.md")), "another runbook_url");
        let page = fs::read_to_string(top().join(format!("docs/runbooks/{name}.md")));
        let page = page.unwrap_or_default();
        must(
            page.starts_with(&format!("# {name}\n\nSeverity: {severity}.")),
            "no page, or another one",
        );
        for heading in ["Meaning", "Impact", "Diagnosis", "Mitigation"] {
            must(page.contains(&format!("\n## {heading}\n")), heading);
        }
        must(page.contains("```sh\n"), "no command to copy");
        let after = alert["for"].as_str().unwrap_or("at once");
        let row = format!("| [{name}](runbooks/{name}.md) | {severity} | {after} |");
        must(read("docs/alerts.md").contains(&row), "not in docs/alerts.md, or otherwise");
    }
    for page in files("docs/runbooks", ".md") {
        let name = page.path.trim_start_matches("docs/runbooks/").trim_end_matches(".md");
        if !names.contains(name) {
            violations.push(format!("{}: there is no such alert", page.path));
        }
    }
    check("an alert has severity, summary, description and a runbook", &violations);
}

#[test]
fn every_rule_reads_metrics_that_there_are() {
    let rules = rules();
    let mut violations = vec![];
    for (group, rule) in &rules {
        // A rule may read what its own group records: the order of groups is not fixed.
        let mut known = documented();
        let own = rules.iter().filter(|(of, _)| of == group);
        known.extend(own.filter_map(|(_, rule)| Some(rule["record"].as_str()?.to_owned())));
        let expression = text(&rule["expr"]);
        let unknown = unknown(expression, &known);
        violations.extend(unknown.iter().map(|name| format!("{rule}: {name}")));
    }
    check("a rule reads metrics of docs/reference/metrics.md", &violations);
}

#[test]
fn every_alert_fires_in_a_unit_test_and_is_quiet_in_one() {
    let tests = yaml("tests/alerts/tests.yaml");
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for test in list(&tests["tests"]) {
        for case in list(&test["alert_rule_test"]) {
            let none = list(&case["exp_alerts"]).is_empty();
            let name = text(&case["alertname"]).to_owned();
            if none { &mut quiet } else { &mut fires }.insert(name);
        }
    }
    let mut violations = vec![];
    for alert in alerts() {
        let name = text(&alert["alert"]);
        if !fires.contains(name) || !quiet.contains(name) {
            violations.push(format!(
                "{name}: fires {}, quiet {}",
                fires.contains(name),
                quiet.contains(name)
            ));
        }
    }
    check("an alert has a test in which it fires and one in which it does not", &violations);
}

#[test]
fn what_is_written_about_alerts_names_those_there_are() {
    let alerts = alerts();
    let names: BTreeSet<_> = alerts.iter().map(|alert| text(&alert["alert"])).collect();
    let (mut violations, mut found) = (vec![], 0);
    let pages = files("docs/runbooks", ".md").into_iter();
    for page in pages.chain(files("docs", "alerts.md")) {
        // With a dot behind it, it may be the beginning of several.
        for word in page.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.') {
            let name = word.trim_end_matches(".md").trim_end_matches('.');
            if name.len() > "Understudy".len() && name.starts_with("Understudy") {
                found += 1;
                let begins =
                    word.ends_with('.') && names.iter().any(|known| known.starts_with(name));
                if !names.contains(name) && !begins {
                    violations.push(format!("{}: {name}", page.path));
                }
            }
        }
    }
    assert!(found > 60, "only {found} names were found");
    check("a name of an alert in the documentation is one", &violations);
}

/// The commands in the `sh` blocks of a page.
fn commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.flat_map(str::lines).filter(|line| line.starts_with("understudy ")).collect()
}

#[test]
fn the_commands_of_the_runbooks_exist() {
    let (mut violations, mut found) = (vec![], 0);
    for page in files("docs/runbooks", ".md") {
        for line in commands(&page.text) {
            found += 1;
            let line = line.split(" > ").next().unwrap_or(line);
            // What stands in quotes is one word.
            let mut words = vec![];
            for (at, part) in line.split('"').enumerate() {
                match at % 2 {
                    0 => words.extend(part.split_whitespace()),
                    _ => words.push(part),
                }
            }
            if let Err(error) = Cli::try_parse_from(words) {
                violations.push(format!("{}: {line}: {error}", page.path));
            }
        }
    }
    assert!(found > 40, "only {found} commands were found");
    check("a command in a runbook is one of the program", &violations);
}
