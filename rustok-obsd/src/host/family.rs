//! Families by node_exporter's names, types and HELP texts.

use crate::contract::{Family, Kind, Origin, Stability};

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit: "", help, labels, origin: Origin::Kernel, stability: Stability::NodeExporter }
}

/// A counter.
#[must_use]
pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family<'static> {
    family(name, Kind::Counter, labels, help)
}

/// A gauge.
#[must_use]
pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family<'static> {
    family(name, Kind::Gauge, labels, help)
}

/// Untyped: node_exporter does not say what it is.
#[must_use]
pub const fn untyped(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family<'static> {
    family(name, Kind::Untyped, labels, help)
}
