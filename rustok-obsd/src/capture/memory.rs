//! Memory of the capture thread's stores: room for new connections, and what goes back to the system.
//!
//! Reads: the budgets' figures. Yields: connections given up, memory returned. Costs: once a second some additions; rarely,
//! on a thread of its own, a walk of the allocator over its free memory.

use std::time::{Duration, Instant};

use rustok_obsd_ebpf::SocketOpen;

use super::connections::Connection;
use super::pipeline::{Pipeline, monotonic_ns};
use crate::contract::own::Problem;

/// So much less in use than at the last peak is worth a walk.
const LARGE: u64 = 4 << 20;
/// Between two walks.
const SELDOM: Duration = Duration::from_secs(60);

/// When memory goes back to the system: the allocator keeps what was freed.
#[derive(Debug, Default)]
pub(super) struct Trim {
    peak: u64,
    last: Option<Instant>,
}

impl Trim {
    /// So many bytes are in use now; tells whether it is time.
    fn is_due(&mut self, used: u64, now: Instant) -> bool {
        self.peak = self.peak.max(used);
        let early = self.last.is_some_and(|last| now.saturating_duration_since(last) < SELDOM);
        if early || self.peak - used < LARGE {
            return false;
        }
        (self.peak, self.last) = (used, Some(now));
        true
    }
}

impl Pipeline {
    /// Registers what is kept of targets with the daemon's own metrics.
    pub(super) fn register_stores(&self) {
        let Self { own, databases, shared, wire, connections, outputs, .. } = self;
        own.stores.add(databases.meters().chain(shared.meters()).chain(wire.meters()).chain(outputs.meters()));
        own.stores.add([connections.meter()]);
    }

    /// Gives up connections where there are too many: those idle longest of the target that has most, so that one that
    /// opens many does not cost another one its own.
    #[cold]
    pub(super) fn make_room(&mut self) {
        let excess = self.connections.len().saturating_sub(self.most_connections);
        let mut room = if excess > 0 { excess + self.most_connections / 16 } else { 0 };
        while room > 0 {
            let Some(owner) = self.connections.busiest() else { return };
            let given_up = self.connections.oldest(owner, room.min(self.most_connections / 16 + 1));
            room = room.saturating_sub(given_up.len().max(1));
            for conn in given_up {
                if let Some(connection) = self.connections.close(conn) {
                    self.own.problems.add(Problem::Evicted, 1);
                    self.connections.count_eviction();
                    if let Some(verdicts) = &mut self.verdicts {
                        verdicts.forget(connection.sock(), conn);
                    }
                    self.end(connection, monotonic_ns(), false);
                }
            }
        }
    }

    /// What a target has counts for this user, who is not trusted.
    pub(super) fn join(&mut self, tgid: u32, user: Option<u32>) {
        self.connections.join(tgid, user);
        self.databases.join(tgid, user);
        self.shared.join(tgid, user);
        self.wire.join(tgid, user);
        self.outputs.parking.join(tgid, user);
    }

    /// A connection gives its place to another of the same socket.
    pub(super) fn replaced(&mut self, before: Connection, open: &SocketOpen) {
        // The kernel forgot the socket for others (LRU), and it is used again: nobody closed it.
        let closed = !before.is_resumed(open);
        if !closed {
            self.own.problems.add(Problem::Evicted, 1);
        }
        self.end(before, open.time_ns, closed);
    }

    /// Gives the room of waves back to the allocator, and from there to the system.
    pub(super) fn give_back(&mut self) {
        self.wire.sweep();
        self.connections.shrink();
        if self.trim.is_due(self.own.stores.used(), Instant::now()) {
            // It may take milliseconds, and nobody waits for it.
            let walk = || {
                #[cfg(target_env = "gnu")]
                // SAFETY: takes no pointer; the allocator locks itself.
                unsafe {
                    libc::malloc_trim(0);
                }
            };
            if let Err(error) = std::thread::Builder::new().name("trim".into()).spawn(walk) {
                tracing::debug!("memory stays with the allocator: no thread can be started: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_after_a_large_release_and_seldom() {
        let (mut trim, start) = (Trim::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!trim.is_due(10 << 20, at(0)) && !trim.is_due(7 << 20, at(1)), "little was released");
        assert!(trim.is_due(5 << 20, at(2)), "from the peak on");
        assert!(!trim.is_due(20 << 20, at(3)) && !trim.is_due(0, at(30)), "too soon");
        assert!(trim.is_due(0, at(63)) && !trim.is_due(0, at(200)), "once");
    }
}
