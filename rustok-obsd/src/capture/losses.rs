//! What was lost on the way from the kernel, and what can still be said then.
//!
//! Reads: the programs' counters, and what pairing counted. Yields: the daemon's own counters, the number of requests of
//! which nothing else is known, and for how long absence proves nothing. Costs: two system calls a batch of records.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustok_obsd_ebpf::{Counter, begins_request};

use super::pipeline::Pipeline;
use crate::contract::own::{LossReason, Problem};

/// How long a loss of records is taken to be felt once it lies behind: longer than most requests.
const LOSSY: Duration = Duration::from_secs(10);

impl Pipeline {
    /// Notes whether the ring refused records. What was refused is newer than what it holds, so that a look before each
    /// batch comes before the gap. Until requests of that time have ended, a route that was not told may have been lost:
    /// then the absence of one proves nothing.
    pub(super) fn look_for_losses(&mut self) {
        let Some(counts) = &self.counts else { return };
        let refused = counts.get(Counter::RingFull);
        // Counted right behind the refusal: a look may come between the two.
        let felt = refused != self.refused || self.lossy_until.is_some();
        let requests = if felt { counts.get(Counter::RequestRefused) } else { self.refused_requests };
        self.look_for_losses_of(refused, requests);
    }

    /// The same with what the programs count: records that the full ring refused, and requests among them.
    pub(super) fn look_for_losses_of(&mut self, refused: u64, requests: u64) {
        if requests != self.refused_requests {
            let more = requests.saturating_sub(std::mem::replace(&mut self.refused_requests, requests));
            self.outputs.recorder.requests_lost(more);
        }
        if refused != self.refused {
            self.refused = refused;
            self.doubtful = u64::MAX;
            self.gap_ahead = true;
            self.databases.doubt_transactions();
            self.lossy_until = Some(Instant::now() + LOSSY);
        } else if !self.gap_ahead && self.lossy_until.is_some_and(|until| until <= Instant::now()) {
            self.lossy_until = None;
        }
        self.databases.lossy = self.lossy_until.is_some();
        if !self.databases.lossy && !self.gap_ahead {
            self.own.recovered.store(self.refused, Ordering::Relaxed);
        }
    }

    /// The ring is empty: what it refused until the last look lies behind, and new requests are certain again.
    pub fn caught_up(&mut self) {
        if std::mem::take(&mut self.gap_ahead) {
            self.doubtful = self.shared.last_id();
            self.databases.doubt_transactions();
            self.lossy_until = Some(Instant::now() + LOSSY);
        }
    }

    /// Adds what pairing counted since the last time to the daemon's own metrics.
    pub(super) fn publish(&mut self) {
        self.publish_databases();
        let (now, told) = (self.shared.stats, std::mem::replace(&mut self.told, self.shared.stats));
        if now == told {
            return;
        }
        let problems = &self.own.problems;
        problems.add(Problem::UnmatchedResponse, now.unmatched_responses - told.unmatched_responses);
        problems.add(
            Problem::Malformed,
            now.malformed_requests + now.malformed_responses - told.malformed_requests - told.malformed_responses,
        );
        problems.add(Problem::HeadTooLong, now.truncated_heads - told.truncated_heads);
        problems.add(Problem::LostSync, now.lost_sync - told.lost_sync);
        let unmade = now.partial_requests + now.unread_requests - told.partial_requests - told.unread_requests;
        problems.add(Problem::PartialRequest, unmade);
        if self.lossy_until.is_some() {
            // Their begin was read, and the rest of their head lost.
            self.outputs.recorder.requests_lost(unmade);
        }
        problems.add(Problem::OtherProtocol, now.opaque_connections - told.opaque_connections);
        problems.add(Problem::PipelineTooDeep, now.pipeline_overflow - told.pipeline_overflow);
        problems.add(Problem::RouteUnassigned, now.unmatched_routes - told.unmatched_routes);
        self.own.lost_bytes.fetch_add(now.lost_bytes - told.lost_bytes, Ordering::Relaxed);
    }

    /// A record of a connection whose announcement was lost.
    #[cold]
    pub(super) fn on_stray(&mut self, data: &[u8], received: bool) {
        self.own.lost.add(LossReason::UnknownConnection, 1);
        if received && data.first_chunk().is_some_and(|start| begins_request(*start)) {
            self.outputs.recorder.requests_lost(1);
        }
    }
}
