//! Writes `docs/METRICS.md` from the catalogue; a test compares the committed file.

use super::{Bounds, CATALOGUE, Family, Kind, Origin, Stability, database, http, own};
use crate::host::COLLECTORS;
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
            let (origin, stability) = (origin(family.origin), stability(family.stability));
            let _ = writeln!(text, "{} {origin} | {stability} |", row(family));
        }
    }
    host(&mut text);
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

/// The first columns of a family's row.
fn row(family: &Family<'_>) -> String {
    let Family { name, help, labels, .. } = family;
    let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}` | {} | {} | {} |", kind(family.kind), labels.join(", "), help.replace('|', "\\|"))
}

/// The collectors of the host.
fn host(text: &mut String) {
    text.push_str(
        "\n## The host, node_exporter's names\n\n\
         Read from the kernel; names, types, labels and HELP texts are those of node_exporter 1.12. `collector.enable` and \
         `collector.disable` (`--collector.NAME`, `--no-collector.NAME`) switch a collector. Families whose names the kernel \
         or the hardware gives are not listed. `otel` is none of node_exporter's: it tells the host by OpenTelemetry's semantic \
         conventions (1.44, in development), by the names that their compatibility specification gives for Prometheus.\n",
    );
    for entry in COLLECTORS {
        let state = if entry.default { "on" } else { "off" };
        let _ = write!(text, "\n### `{}` ({state} by default)\n\n", entry.name);
        if entry.families.is_empty() {
            text.push_str("All its names come from the kernel.\n");
            continue;
        }
        text.push_str("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n");
        for family in entry.families {
            let _ = writeln!(text, "{}", row(family));
        }
    }
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
