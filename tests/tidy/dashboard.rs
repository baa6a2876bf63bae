//! dashboards/understudy.json keeps the rules of Grafana's dashboard linter, as far as text can show them, and
//! our own: every query is one of metrics that there are, on the hubs that were chosen.

use super::check;
use super::monitoring::{documented, list, metrics, read, text, unknown};
use serde_json::Value;
use std::collections::BTreeSet;

const ROWS: [&str; 6] = ["Verdict", "Backups", "Standby", "Storage", "Failover history", "Daemon"];
const DATASOURCE: &str = "${datasource}";
/// Of every selector: what was chosen at the top.
const CHOSEN: [&str; 4] =
    [r#"job=~"$job""#, r#"instance=~"$instance""#, r#"pair=~"$pair""#, r#"hub=~"$hub""#];

fn dashboard() -> Value {
    let file = "dashboards/understudy.json";
    serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row")
}

#[test]
fn it_is_provisioned_and_asks_what_to_show() {
    let dashboard = dashboard();
    assert_eq!(dashboard["editable"], false, "it comes from a file, and changes there");
    assert_eq!(dashboard["uid"], "understudy", "links keep their target");
    let variables = list(&dashboard["templating"]["list"]);
    let names: Vec<_> = variables.iter().map(|variable| text(&variable["name"])).collect();
    assert_eq!(names, ["datasource", "job", "pair", "hub", "instance"]);
    assert_eq!(variables[0]["type"], "datasource");
    assert_eq!(variables[0]["query"], "prometheus");
    assert_eq!(variables[0]["label"], "Data source");
    for variable in &variables[1..] {
        let name = text(&variable["name"]);
        assert_eq!((text(&variable["label"]), text(&variable["type"])), (name, "query"));
        assert_eq!(variable["datasource"]["uid"], DATASOURCE, "{name}");
        assert_eq!(variable["refresh"], 2, "{name}: read again when the time range changes");
        assert_eq!((&variable["multi"], &variable["includeAll"]), (&true.into(), &true.into()));
        // The labels of targets need not be there.
        let all = if ["job", "instance"].contains(&name) { ".+" } else { ".*" };
        assert_eq!(variable["allValue"], all, "{name}");
        assert!(unknown(text(&variable["query"]["query"]), &documented()).is_empty(), "{name}");
    }
    let rows = list(&dashboard["panels"]).iter().filter(|panel| panel["type"] == "row");
    assert_eq!(rows.map(|row| text(&row["title"])).collect::<Vec<_>>(), ROWS);
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let (mut violations, mut ids, mut titles) = (vec![], BTreeSet::new(), 0);
    for panel in panels(&dashboard) {
        let title = text(&panel["title"]);
        let mut must = |holds: bool, what: &str| {
            if !holds {
                violations.push(format!("{title:?}: {what}"));
            }
        };
        titles += 1;
        must(!title.is_empty(), "no title");
        must(text(&panel["description"]).len() > 10, "no description");
        must(panel["datasource"]["uid"] == DATASOURCE, "another data source");
        must(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "no unit");
        must(ids.insert(panel["id"].to_string()), "its id is taken");
        let place = &panel["gridPos"];
        let sum = place["x"].as_u64().zip(place["w"].as_u64()).map(|(x, w)| x + w);
        must(sum.is_some_and(|end| end <= 24), "it does not fit");
        let targets = list(&panel["targets"]);
        must(!targets.is_empty(), "no query");
        for target in targets {
            must(target["datasource"]["uid"] == DATASOURCE, "a query of another data source");
        }
    }
    assert!(titles > 30, "only {titles} panels were found");
    check("a panel has title, description, unit and place", &violations);
}

/// Where the metric stands, what follows it, and what stands before it.
fn uses<'a>(expression: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.match_indices(name).filter_map(move |(at, _)| {
        let (before, after) = (&expression[..at], &expression[at + name.len()..]);
        (!before.ends_with(part) && !after.starts_with(part)).then_some((before, after))
    })
}

/// What the linter says of one query.
fn faults(expression: &str) -> Vec<String> {
    let mut faults = unknown(expression, &documented());
    let alerts = expression.contains("ALERTS{");
    if metrics(expression).is_empty() && !alerts {
        faults.push("no metric".to_owned());
    }
    for name in metrics(expression) {
        for (before, after) in uses(expression, name) {
            let selector = after.strip_prefix('{').and_then(|rest| rest.split('}').next());
            let selector = selector.unwrap_or_default();
            let missing = CHOSEN.iter().filter(|wanted| !selector.contains(**wanted));
            faults.extend(missing.map(|wanted| format!("{name} lacks {wanted}")));
            let counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|e| name.ends_with(e));
            let rated = ["rate(", "increase("].iter().any(|function| before.ends_with(function));
            if counter && !rated {
                faults.push(format!("{name} is a counter, and not its rate"));
            }
            if rated && !after.contains("}[$__rate_interval]") {
                faults.push(format!("{name} is rated over a time of its own"));
            }
        }
    }
    faults
}

#[test]
fn every_query_reads_what_there_is_of_the_hubs_that_were_chosen() {
    let dashboard = dashboard();
    let annotations = list(&dashboard["annotations"]["list"]).iter().map(|a| text(&a["expr"]));
    let targets = panels(&dashboard).flat_map(|panel| list(&panel["targets"]));
    let expressions = targets.map(|target| text(&target["expr"])).chain(annotations);
    let faults = expressions.flat_map(|expression| {
        faults(expression).into_iter().map(move |f| format!("{f}: {expression}"))
    });
    check("a query reads metrics of docs/reference/metrics.md", &faults.collect::<Vec<_>>());
}

#[test]
fn the_linter_finds_what_it_looks_for() {
    let chosen = CHOSEN.join(",");
    for (expression, fault) in [
        ("up".to_owned(), "no metric"),
        ("understudy_epoch".to_owned(), "understudy_epoch lacks job"),
        (format!("understudy_nothing{{{chosen}}}"), "understudy_nothing"),
        (format!("understudy_sync_runs_total{{{chosen}}}"), "is a counter, and not its rate"),
        (format!("rate(understudy_sync_runs_total{{{chosen}}}[5m])"), "over a time of its own"),
    ] {
        let found = faults(&expression);
        assert!(found.iter().any(|found| found.contains(fault)), "{expression}: {found:?}");
    }
    let right = format!("increase(understudy_sync_runs_total{{{chosen}}}[$__rate_interval])");
    assert_eq!(faults(&right), Vec::<String>::new());
}
