//! Families of the daemon about its HTTP server: who is connected, how connections end, what is refused.
//!
//! Reads: additions of the server. Yields: every value of every label from the start. Costs: one relaxed atomic addition.

use super::own::{Counters, label_values, own};
use super::{Family, Kind};
use crate::exposition::{Collect, Encoder};
use std::sync::atomic::{AtomicU64, Ordering};

/// Every family of this file.
pub const FAMILIES: &[Family<'static>] = &[CONNECTIONS, ENDED, REFUSED];

/// Open connections.
pub const CONNECTIONS: Family<'static> = own(
    "rustok_obsd_server_connections",
    Kind::Gauge,
    "",
    &["peer"],
    "Open connections to the daemon's HTTP server, by where the peer is: on this host (local) or not (remote).",
);

/// Ended connections.
pub const ENDED: Family<'static> = own(
    "rustok_obsd_server_connections_ended_total",
    Kind::Counter,
    "",
    &["reason"],
    "Connections to the daemon's HTTP server by why they ended; evicted ones made room for another peer.",
);

/// Refused requests.
pub const REFUSED: Family<'static> = own(
    "rustok_obsd_server_requests_refused_total",
    Kind::Counter,
    "",
    &["reason"],
    "Requests that the daemon's HTTP server refused: by their Host, or because answers that nobody reads fill its memory.",
);

label_values! {
    /// `reason` of [`ENDED`].
    ConnectionEnd {
        /// In order, by either side.
        Closed = "closed",
        /// The first request's head did not come in time.
        HeadTimeout = "head_timeout",
        /// No further request came, or not its whole head.
        IdleTimeout = "idle_timeout",
        /// The client did not read its answer.
        Stalled = "stalled",
        /// The request was no HTTP/1, or its head too long.
        Malformed = "malformed",
        /// The connection broke.
        Broken = "broken",
        /// Made room before it had sent a whole request head.
        EvictedHeadless = "evicted_headless",
        /// Made room between two requests.
        EvictedIdle = "evicted_idle",
        /// Made room during an answer: its peer held more than its share.
        EvictedAnswering = "evicted_answering",
        /// Closed at once: all others were answering within their shares.
        Refused = "refused",
        /// Closed at once: its peer connects too often.
        TooOften = "too_often",
        /// The daemon ended.
        Shutdown = "shutdown",
    }
}

label_values! {
    /// `reason` of [`REFUSED`].
    Refusal {
        /// A name in `Host` that is not this server's (421).
        Host = "host",
        /// No `Host`, or several (400).
        NoHost = "no_host",
        /// Answers that their clients have not read yet fill their budget (503).
        AnswerBytes = "answer_bytes",
    }
}

/// The server's counters.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// Open connections: local, remote.
    pub open: [AtomicU64; 2],
    /// [`ENDED`].
    pub ended: Counters<ConnectionEnd>,
    /// [`REFUSED`].
    pub refused: Counters<Refusal>,
}

impl Collect for ServerMetrics {
    fn collect(&self, out: &mut Encoder<'_>) {
        let mut samples = out.family(&CONNECTIONS);
        for (open, peer) in self.open.iter().zip(["local", "remote"]) {
            samples.put([peer], open.load(Ordering::Relaxed));
        }
        self.ended.collect(&ENDED, out);
        self.refused.collect(&REFUSED, out);
    }
}
