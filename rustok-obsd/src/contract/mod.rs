//! The one catalogue of metrics: name, type, unit, labels, help and origin of every family, and their recorders.
//!
//! Reads: exchanges ([`recorder`]), database operations ([`database`]) and what the rooms say about themselves ([`own`]). Yields: [`Family`] constants from
//! which encoding, `docs/METRICS.md` ([`docs`]) and the tests derive. Costs: constants; see [`recorder`] for recording.

mod admit;
#[cfg(test)]
mod catalogue_tests;
pub mod database;
pub mod docs;
mod histogram;
pub mod host_events;
pub mod http;
mod http_collect;
mod list;
pub mod liveness;
pub mod own;
mod places;
pub mod recorder;
mod renew;
pub mod routing;
pub mod runtimes;
mod series;
pub mod server;
pub mod stores;
#[cfg(test)]
pub(crate) mod tests;

pub use series::HttpMetrics;

use crate::{container, process};

/// What a family's samples mean (OpenMetrics 1.0.0, section "Metric Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for a restart. Its name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
    /// Always 1; the labels are the information. Its name ends in `_info`. A gauge in text format 0.0.4.
    Info,
    /// Quantiles that somebody else computed, with sum and count; only passed on, never recorded.
    Summary,
    /// Nothing is promised: `untyped` in text format 0.0.4, `unknown` in OpenMetrics.
    Untyped,
}

impl Kind {
    /// The type's name in text format 0.0.4.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Info => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }
}

/// Where a family's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Observed by the kernel programs.
    Ebpf,
    /// The daemon about itself.
    Own,
    /// procfs, sysfs, cgroupfs, netlink or system calls.
    Kernel,
}

/// What a user may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Published by RusToK: its dashboards and alerts name it.
    Rustok,
    /// A stable OpenTelemetry semantic convention under its Prometheus name.
    Stable,
    /// May change between minor versions.
    Development,
    /// As node_exporter 1.12 has it, HELP and all.
    NodeExporter,
    /// As cAdvisor 0.60 has it.
    Cadvisor,
    /// As process-exporter 0.8 has it.
    ProcessExporter,
    /// As Prometheus' client libraries have it.
    Prometheus,
}

impl Stability {
    /// Whether name, type and help are those of another program, whose rules are not ours.
    #[must_use]
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::NodeExporter | Self::Cadvisor | Self::ProcessExporter | Self::Prometheus)
    }
}

/// One metric family. The catalogue holds constants; a collector may also make one at scrape time.
#[derive(Clone, Copy, Debug)]
pub struct Family<'a> {
    /// Name in text format 0.0.4, with `_total` or `_info` where the kind wants it.
    pub name: &'a str,
    /// Type.
    pub kind: Kind,
    /// Base unit (`seconds`, `bytes`), empty where there is none.
    pub unit: &'a str,
    /// One sentence.
    pub help: &'a str,
    /// Label names, in the order of the values given to the encoder (`le` of a histogram is not listed).
    pub labels: &'a [&'a str],
    /// Where the values come from.
    pub origin: Origin,
    /// What a user may rely on.
    pub stability: Stability,
}

/// A histogram's upper bounds without +Inf, each with the text of its `le` (canonical OpenMetrics numbers).
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Ascending.
    pub values: &'static [f64],
    /// `le` of each, such as `0.5`, `1.0`, `1e+06`.
    pub text: &'static [&'static str],
}

/// Makes [`Bounds`] from literals; a literal's own spelling is its `le`.
macro_rules! bounds {
    ($($value:literal)+) => {
        $crate::contract::Bounds { values: &[$($value),+], text: &[$(stringify!($value)),+] }
    };
}
pub(crate) use bounds;

/// One part of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Heading in the documentation.
    pub title: &'static str,
    /// Its families.
    pub families: &'static [Family<'static>],
}

/// Every family that the daemon can export.
pub const CATALOGUE: &[Area] = &[
    Area { title: "HTTP, RusToK's names", families: http::RUSTOK },
    Area { title: "HTTP, OpenTelemetry semantic conventions", families: http::OTEL },
    Area { title: "Database and errors, RusToK's names", families: database::RUSTOK },
    Area { title: "Database, OpenTelemetry semantic conventions", families: database::OTEL },
    Area { title: "Requests taken apart, and statements", families: database::REQUESTS },
    Area { title: "Groups of processes, process-exporter's names", families: process::families::NAMED },
    Area { title: "Groups of processes, what process-exporter lacks", families: process::families::OWN },
    Area {
        title: "Groups of processes, OpenTelemetry semantic conventions (process.otel_names)",
        families: process::otel::FAMILIES,
    },
    Area { title: "Processes of the targets", families: process::target::FAMILIES },
    Area { title: "The daemon's own process, as Prometheus' client libraries", families: process::families::ITSELF },
    Area { title: "The daemon itself", families: own::FAMILIES },
    Area { title: "The daemon itself: routes", families: routing::FAMILIES },
    Area { title: "The daemon itself: budgets", families: stores::FAMILIES },
    Area { title: "The daemon itself: databases", families: database::OWN },
    Area { title: "The daemon itself: its HTTP server", families: server::FAMILIES },
    Area { title: "Collectors of the host", families: crate::host::FAMILIES },
    Area { title: "The daemon itself: events of the host's kernel", families: host_events::FAMILIES },
    Area { title: "The daemon itself: its health", families: liveness::FAMILIES },
    Area { title: "Containers, cAdvisor's names", families: container::families::FAMILIES },
    Area { title: "The daemon itself: container runtimes", families: runtimes::FAMILIES },
    Area { title: "The daemon itself: containers", families: container::families::OWN },
];

/// Every family of [`CATALOGUE`].
pub fn families() -> impl Iterator<Item = &'static Family<'static>> {
    CATALOGUE.iter().flat_map(|area| area.families)
}
