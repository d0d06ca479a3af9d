//! What every family of the catalogue must be.

use super::*;
use std::collections::HashSet;

fn is_name(name: &str) -> bool {
    let tail = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(tail)
}

#[test]
fn every_family_has_one_name_a_help_and_the_suffix_of_its_kind_and_unit() {
    let mut seen = HashSet::new();
    for family in families() {
        let name = family.name;
        assert!(seen.insert(name), "{name} is declared twice");
        if family.stability.is_foreign() {
            continue;
        }
        assert!(is_name(name), "{name} is no metric name");
        assert!(family.help.ends_with('.') && family.help.len() > 20, "{name}: help is no sentence");
        assert_eq!(family.kind == Kind::Counter, name.ends_with("_total"), "{name}: suffix of a counter");
        assert_eq!(family.kind == Kind::Info, name.ends_with("_info"), "{name}: suffix of an info");
        let base = name.strip_suffix("_total").unwrap_or(name);
        assert!(base.ends_with(family.unit), "{name} does not end in its unit {}", family.unit);
        for suffix in ["_seconds", "_bytes"] {
            assert!(!base.ends_with(suffix) || suffix[1..] == *family.unit, "{name} hides its unit");
        }
        let mut labels = HashSet::new();
        for label in family.labels {
            assert!(is_name(label) && *label != "le" && labels.insert(label), "{name}: label {label}");
        }
    }
    let mut bases = HashSet::new();
    for family in families() {
        let name = family.name;
        let base = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
        assert!(bases.insert(base), "{base} would name two families in OpenMetrics");
    }
}

#[test]
fn the_text_of_each_bound_is_its_value_and_bounds_rise() {
    let all = [database::DURATION, database::ROWS, database::PHASE, database::QUERIES];
    for bounds in [http::DURATION, http::SIZE, own::SCRAPE].into_iter().chain(all) {
        assert_eq!(bounds.values.len(), bounds.text.len());
        for (value, text) in bounds.values.iter().zip(bounds.text) {
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
            assert!(text.contains(['.', 'e']), "{text} is no canonical OpenMetrics float");
        }
        assert!(bounds.values.is_sorted_by(|a, b| a < b));
    }
}

#[test]
fn duration_bounds_contain_those_of_rustok_and_of_the_semantic_conventions() {
    let rustok = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let otel = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    for bound in rustok.iter().chain(&otel) {
        assert!(http::DURATION.values.contains(bound), "{bound} is missing");
    }
}

#[test]
fn bounds_of_the_database_contain_those_of_rustok_and_of_the_semantic_conventions() {
    let rustok = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
    let otel = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
    for bound in rustok.iter().chain(&otel) {
        assert!(database::DURATION.values.contains(bound), "{bound} is missing");
    }
}

/// Words of PromQL with what stands between them.
fn tokens(expression: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => rest[1..].find('"').expect("the quote ends") + 2,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        tokens.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    tokens
}

/// The family that a sample's name belongs to.
fn family_of(sample: &str) -> Option<&'static Family<'static>> {
    let part = |name| sample.strip_prefix(name).is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end));
    families().find(|family| if family.kind == Kind::Histogram { part(family.name) } else { sample == family.name })
}

#[test]
fn the_dashboard_names_only_families_and_labels_of_the_catalogue() {
    let board = include_str!("../../../grafana/dashboards/rustok-overview.json");
    let board: serde_json::Value = serde_json::from_str(board).unwrap();
    let (mut ids, mut places, mut expressions) = (HashSet::new(), Vec::new(), 0);
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id comes twice: {panel}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|at| panel["gridPos"][at].as_u64().unwrap());
        let overlaps = |(a, b, c, d): &(u64, u64, u64, u64)| x < a + c && *a < x + w && y < b + d && *b < y + h;
        assert!(x + w <= 24 && !places.iter().any(overlaps), "{} has no place of its own", panel["title"]);
        places.push((x, y, w, h));
        for target in panel["targets"].as_array().unwrap() {
            check_expression(target["expr"].as_str().unwrap());
            expressions += 1;
        }
    }
    assert!(expressions >= 40, "{expressions}");
}

fn check_expression(expression: &str) {
    let tokens = tokens(expression);
    let named: Vec<_> = tokens.iter().filter_map(|token| family_of(token)).collect();
    assert!(!named.is_empty(), "no family: {expression}");
    let has = |label: &str| ["job", "le"].contains(&label) || named.iter().any(|family| family.labels.contains(&label));
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1).copied().unwrap_or_default();
        if token.starts_with("rustok_") || next == "{" {
            assert!(family_of(token).is_some(), "{token} is no family: {expression}");
        }
        if *token == "by" || *token == "on" {
            let labels = tokens[at + 2..].iter().take_while(|token| **token != ")").filter(|token| **token != ",");
            labels.for_each(|label| assert!(has(label), "{label} is no label: {expression}"));
        }
        if ["=", "!"].contains(&next) && *token != "!" {
            assert!(has(token), "{token} is no label: {expression}");
        }
    }
}
