//! Dashboard and alert rules name only metrics and labels that an instance really exports.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::world::{NOW_MS, World};
use crate::scoring::ScoringParams;

const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/dashboards/mangrove.json");
/// Labels that Prometheus itself adds.
const ADDED: [&str; 2] = ["instance", "job"];
/// Metrics that Prometheus itself makes.
const MADE: [&str; 1] = ["up"];
/// Words of its language that stand where a metric's name could.
const WORDS: [&str; 24] = [
    "sum",
    "max",
    "min",
    "by",
    "rate",
    "increase",
    "deriv",
    "histogram_quantile",
    "time",
    "absent",
    "max_over_time",
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "group_left",
    "avg",
    "count",
    "topk",
    "without",
    "label_values",
    "bool",
    "offset",
];

/// Labels by metric, as exported.
type Exported = BTreeMap<String, BTreeSet<String>>;

/// An instance that has done a bit of everything.
fn exported() -> Exported {
    let mut world = World::running(ScoringParams::default());
    for amount in 1..40 {
        world.pay("u", &format!(r#"{{"user_id":"u","amount":{amount},"merchant":"m"}}"#), NOW_MS);
    }
    world.pay("u", "no payment", NOW_MS);
    world.run();
    world.model.set(Some(world.train()));
    let leads: Vec<_> = world.tasks.all().into_values().filter_map(|task| task.inputs.first().copied()).collect();
    world.health.input_ends(&leads.iter().map(|(of, next)| (*of, next + 7)).collect::<Vec<_>>());
    world.get("/v1/health");
    let text = world.get("/metrics").text().to_owned();
    let mut exported = Exported::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            exported.entry(family.split(' ').next().unwrap_or_default().to_owned()).or_default();
            continue;
        }
        let Some(sample) = line.strip_prefix("mangrove_").map(|_| line) else { continue };
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        let labels = sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        exported.entry(name.to_owned()).or_default().extend(names);
    }
    exported
}

/// What an expression names: metrics with the labels they are matched by, and labels that it groups by.
#[derive(Debug, Default, PartialEq)]
struct Named {
    metrics: Vec<(String, Vec<String>)>,
    grouped: Vec<String>,
}

/// Enough of the language to find names in it.
fn named(expression: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expression;
    let mut grouping = false;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '"' || c == '[' || c == '{') {
        // A number with a unit is no name.
        let part_of_number = rest[..at].ends_with(|c: char| c.is_ascii_digit());
        rest = &rest[at..];
        match rest.as_bytes()[0] {
            b'"' => rest = rest[1..].split_once('"').map_or("", |(_, after)| after),
            b'[' => rest = rest.split_once(']').map_or("", |(_, after)| after),
            b'{' => {
                let (matchers, after) = rest[1..].split_once('}').expect("a closed matcher");
                let labels =
                    matchers.split(',').map(|matcher| matcher.split(['=', '!']).next().unwrap_or_default().trim().to_owned());
                let (_, of) = named.metrics.last_mut().expect("a metric in front of its matchers");
                of.extend(labels.filter(|label| !label.is_empty()));
                rest = after;
            }
            _ => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                rest = after;
                if part_of_number {
                    continue;
                }
                if word == "by" {
                    grouping = true;
                } else if grouping {
                    named.grouped.push(word.to_owned());
                    grouping = !after.trim_start().starts_with(')');
                } else if !WORDS.contains(&word) {
                    named.metrics.push((word.to_owned(), Vec::new()));
                }
            }
        }
    }
    named
}

fn check(expression: &str, exported: &Exported) {
    let Named { metrics, grouped } = named(expression);
    assert!(!metrics.is_empty(), "names no metric: {expression}");
    let mut known: BTreeSet<&str> = ADDED.into();
    for (metric, labels) in &metrics {
        if MADE.contains(&metric.as_str()) {
            continue;
        }
        let has = exported.get(metric).unwrap_or_else(|| panic!("no instance exports {metric}: {expression}"));
        known.extend(has.iter().map(String::as_str));
        for label in labels.iter().filter(|label| !ADDED.contains(&label.as_str())) {
            assert!(has.contains(label), "{metric} has no label {label}: {expression}");
        }
    }
    for label in grouped {
        assert!(known.contains(label.as_str()), "none of these has a label {label}: {expression}");
    }
}

/// The values of these keys, however deep.
fn values<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    other => values(other, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| values(item, key, found)),
        _ => {}
    }
}

/// The expressions of the rules: what follows `expr:`, folded or not.
fn rules() -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = RULES.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim_start().strip_prefix("expr:") else { continue };
        let depth = line.len() - line.trim_start().len();
        let mut text = expression.trim().trim_start_matches(">-").to_owned();
        while let Some(more) = lines.next_if(|more| more.len() - more.trim_start().len() > depth) {
            text = format!("{text} {}", more.trim());
        }
        found.push(text);
    }
    found
}

#[test]
fn every_rule_is_about_metrics_that_there_are() {
    let (exported, rules) = (exported(), rules());
    assert_eq!(rules.len(), RULES.matches("- alert:").count());
    rules.iter().for_each(|rule| check(rule, &exported));
}

#[test]
fn every_panel_is_about_metrics_that_there_are() {
    let exported = exported();
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut expressions = Vec::new();
    values(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 30, "{}", expressions.len());
    expressions.iter().for_each(|expression| check(expression, &exported));
    let mut queries = Vec::new();
    values(&dashboard["templating"], "query", &mut queries);
    assert!(queries.contains(&"label_values(mangrove_build_info, instance)") && exported.contains_key("mangrove_build_info"));
    // A legend names a label by which its expression groups, or one of the metric itself.
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (legend, expression) = (target["legendFormat"].as_str().unwrap_or(""), target["expr"].as_str().unwrap_or(""));
            let Named { metrics, grouped } = named(expression);
            for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label) {
                let own = grouped.is_empty()
                    && metrics.iter().any(|(name, _)| exported[name].contains(label) || ADDED.contains(&label));
                assert!(own || grouped.iter().any(|grouped| grouped == label), "{label}: {expression}");
            }
        }
    }
}

#[test]
fn names_are_found_in_expressions() {
    let found = named(r#"sum by (le, a) (rate(m_bucket{b=~"x|y{",c!="z"}[5m])) / 2e3 > time() - 14 * 86400 and n == 0"#);
    assert_eq!(found.grouped, ["le", "a"]);
    assert_eq!(found.metrics, [("m_bucket".to_owned(), vec!["b".to_owned(), "c".to_owned()]), ("n".to_owned(), Vec::new())]);
    let exported = Exported::from([("m".to_owned(), BTreeSet::from(["a".to_owned()]))]);
    check("sum by (a, instance) (m{a=\"1\"})", &exported);
    for wrong in ["sum(missing)", "sum(m{b=\"1\"})", "sum by (b) (m)"] {
        assert!(std::panic::catch_unwind(|| check(wrong, &exported)).is_err(), "{wrong}");
    }
}
