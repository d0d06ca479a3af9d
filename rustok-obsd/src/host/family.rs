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

/// The families of a table, which is a constant array of tuples: `families_of!(TABLE, 2)` takes the third of each.
macro_rules! families_of {
    ($table:ident, $field:tt) => {
        &{
            let mut families = [$table[0].$field; $table.len()];
            let mut at = 0;
            while at < $table.len() {
                families[at] = $table[at].$field;
                at += 1;
            }
            families
        }
    };
}

pub(super) use families_of;
