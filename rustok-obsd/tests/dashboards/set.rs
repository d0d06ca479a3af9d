//! One set of expressions, and what becomes of it.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use test_support::{Prometheus, Skip};

/// One expression.
pub struct Row {
    /// Where it stands in its dashboard.
    pub place: String,
    pub expression: String,
    /// Whether the original gave data on the reference machine.
    pub reference: bool,
}

/// The folder of the sets.
pub fn folder() -> Result<PathBuf, Skip> {
    let named = std::env::var_os("RUSTOK_OBSD_FIXTURES").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"));
    let folder = folder.join("dashboards");
    let missing = || Skip::new("the fixtures are absent; name their folder in RUSTOK_OBSD_FIXTURES");
    folder.is_dir().then_some(folder).ok_or_else(missing)
}

/// The expressions of a set that a Prometheus can read.
pub fn rows(folder: &Path, set: &str) -> Vec<Row> {
    let text = fs::read_to_string(folder.join(format!("{set}.promql.jsonl"))).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        let expression = text("expr_concrete_repaired").or_else(|| text("expr_concrete")).unwrap();
        // Alerts and other comparisons are empty where all is well.
        let reference = row["data_on_reference_vm"].as_bool().unwrap_or(false);
        (row["parses"] != false).then(|| Row { place: text("panel_or_rule").unwrap(), expression, reference })
    };
    text.lines().filter_map(row).collect()
}

/// Whether each expression returns data. What ` != 0` at the end leaves depends on the moment at which a Prometheus first
/// scraped (a page fault before, a packet since): there the values count, whatever they are.
pub fn evaluate(prometheus: &Prometheus, rows: &[Row]) -> Vec<bool> {
    let has = |expression: &str| prometheus.query(expression).as_array().is_some_and(|result| !result.is_empty());
    rows.iter().map(|row| has(row.expression.trim().trim_end_matches("!= 0"))).collect()
}

/// Prints one line of the table and yields what is missing.
pub fn report(set: &str, rows: &[Row], expected: &[bool], ours: &[bool], known: &[(&str, &str)]) -> Vec<String> {
    let mut missing = Vec::new();
    let count = |which: &[bool]| which.iter().filter(|has| **has).count();
    println!(
        "{set:<24} {:>4} expressions, {:>4} with data with the originals, {:>4} with us",
        rows.len(),
        count(expected),
        count(ours)
    );
    for ((row, expected), ours) in rows.iter().zip(expected).zip(ours) {
        if *expected && !ours {
            let reason = known.iter().find(|(part, _)| row.expression.contains(part)).map(|(_, reason)| *reason);
            println!("    {}: {}: {}", reason.unwrap_or("MISSING"), row.place, row.expression);
            if reason.is_none() {
                missing.push(format!("{set}: {}: {}", row.place, row.expression));
            }
        }
    }
    missing
}
