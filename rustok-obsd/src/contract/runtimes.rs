//! Families of the daemon about the container runtimes that it asks.
//!
//! Reads: [`Runtimes`]. Yields: state and requests of each socket, and how many containers are known. Costs: nothing between
//! scrapes.

use super::own::own;
use super::{Family, Kind};
use crate::container::runtime::{Outcome, Runtimes, State};
use crate::exposition::{Collect, Encoder};

/// Every family of this file.
pub const FAMILIES: &[Family<'static>] = &[STATE, INFO, REQUESTS, KNOWN, OVERFLOW, LABELS_DROPPED];

const STATE: Family<'static> = own(
    "rustok_obsd_runtime_state",
    Kind::Gauge,
    "",
    &["socket", "api", "state"],
    "1 for the state that the connection to each container runtime is in; /status has the reason.",
);

const INFO: Family<'static> = own(
    "rustok_obsd_runtime_info",
    Kind::Info,
    "",
    &["socket", "runtime", "version"],
    "What answers on each socket of a container runtime.",
);

const REQUESTS: Family<'static> = own(
    "rustok_obsd_runtime_requests_total",
    Kind::Counter,
    "",
    &["socket", "outcome"],
    "Requests to container runtimes.",
);

const KNOWN: Family<'static> =
    own("rustok_obsd_runtime_containers", Kind::Gauge, "", &[], "Containers that a runtime has told of.");

const OVERFLOW: Family<'static> = own(
    "rustok_obsd_runtime_containers_overflow_total",
    Kind::Counter,
    "",
    &[],
    "Containers that are named by their id alone because too many were told of.",
);

const LABELS_DROPPED: Family<'static> = own(
    "rustok_obsd_runtime_labels_dropped_total",
    Kind::Counter,
    "",
    &[],
    "Labels of containers that were too large to be kept.",
);

impl Collect for Runtimes {
    fn collect(&self, out: &mut Encoder<'_>) {
        let sockets = || self.sources().iter().map(|source| (source, source.socket().display().to_string()));
        let mut samples = out.family(&STATE);
        for (source, socket) in sockets() {
            let now = source.report().state;
            for state in State::ALL {
                samples.put([socket.as_str(), source.api().label(), state.label()], u64::from(state == now));
            }
        }
        let mut samples = out.family(&INFO);
        for (source, socket) in sockets() {
            let report = source.report();
            if let Some(kind) = report.kind {
                samples.put([socket.as_str(), kind.label(), report.version.as_str()], 1_u64);
            }
        }
        let mut samples = out.family(&REQUESTS);
        for (source, socket) in sockets() {
            for outcome in Outcome::ALL {
                samples.put([socket.as_str(), outcome.label()], source.requests(outcome));
            }
        }
        out.family(&KNOWN).put([], self.len() as u64);
        out.family(&OVERFLOW).put([], self.overflow());
        out.family(&LABELS_DROPPED).put([], self.labels_dropped());
    }
}
