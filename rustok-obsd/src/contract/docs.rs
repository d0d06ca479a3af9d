//! Writes `docs/METRICS.md` from the catalogue; a test compares the committed file.

use super::{Bounds, CATALOGUE, Kind, Origin, Stability, database, http, own};
use std::fmt::Write as _;

/// The text of `docs/METRICS.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Generated from the catalogue in `rustok-obsd/src/contract` by \
         `RUSTOK_OBSD_BLESS=1 cargo test -p rustok-obsd --lib contract::docs`. Do not edit.\n\n\
         Names are those of the Prometheus text format 0.0.4. OpenMetrics names a counter's family without `_total` and \
         an info's without `_info`. A label without a value is left out where the semantic conventions say so \
         (`http_route` where none matched, `error_type` where nothing failed).\n",
    );
    for area in CATALOGUE {
        let _ = write!(
            text,
            "\n## {}\n\n| Name | Type | Labels | Meaning | Origin | Stability |\n|---|---|---|---|---|---|\n",
            area.title
        );
        for family in area.families {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} | {} |",
                family.name,
                kind(family.kind),
                labels.join(", "),
                family.help.replace('|', "\\|"),
                origin(family.origin),
                stability(family.stability),
            );
        }
    }
    text.push_str("\n## Buckets\n\n");
    for (name, bounds) in [
        ("HTTP durations, seconds", http::DURATION),
        ("HTTP sizes, bytes", http::SIZE),
        ("Database durations, seconds", database::DURATION),
        ("Rows", database::ROWS),
        ("Phases of a request, seconds", database::PHASE),
        ("Operations of a request", database::QUERIES),
        ("Scrapes, seconds", own::SCRAPE),
    ] {
        let _ = writeln!(text, "- {name}: {}", list(&bounds));
    }
    text
}

fn list(bounds: &Bounds) -> String {
    bounds.values.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Info => "info",
        other => other.text(),
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Ebpf => "eBPF",
        Origin::Own => "own",
        Origin::Kernel => "kernel",
    }
}

fn stability(stability: Stability) -> &'static str {
    match stability {
        Stability::Rustok => "published by RusToK",
        Stability::Stable => "stable semantic convention",
        Stability::Development => "development",
        Stability::NodeExporter => "as node_exporter 1.12",
        Stability::Cadvisor => "as cAdvisor 0.60",
        Stability::ProcessExporter => "as process-exporter 0.8",
        Stability::Prometheus => "Prometheus' client libraries",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_documentation_is_what_the_catalogue_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
        let wanted = super::markdown();
        if std::env::var_os("RUSTOK_OBSD_BLESS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == wanted,
            "docs/METRICS.md is out of date: run RUSTOK_OBSD_BLESS=1 cargo test -p rustok-obsd --lib contract::docs"
        );
    }
}
