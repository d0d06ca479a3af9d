//! The capture thread: drains the ring into the pipeline.
//!
//! Reads: the ring. Yields: nothing of its own. Costs: see [`crate::capture::ring`].

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    capture::{Pipeline, ring::Ring},
    liveness::Beat,
};

/// At the end, the ring is drained for at most this long: a busy target never lets it run empty.
const LAST_LOOK: Duration = Duration::from_millis(300);
/// Without programs there is no ring, but there are commands.
const WITHOUT_RING: Duration = Duration::from_millis(200);

/// Runs until `stop`.
pub(super) fn run(ring: Option<Ring>, mut pipeline: Pipeline, stop: &AtomicBool, beat: Beat) {
    let Some(mut ring) = ring else {
        while !stop.load(Ordering::Relaxed) {
            beat.alive();
            pipeline.obey();
            std::thread::sleep(WITHOUT_RING);
        }
        return beat.done();
    };
    while !stop.load(Ordering::Relaxed) {
        beat.alive();
        pipeline.obey();
        if ring.drain_part(|entry| pipeline.take(entry)) {
            pipeline.caught_up();
            ring.wait();
        }
    }
    let end = Instant::now() + LAST_LOOK;
    pipeline.obey();
    while !ring.drain_part(|entry| pipeline.take(entry)) && Instant::now() < end {
        pipeline.obey();
    }
    pipeline.finish();
    beat.done();
}
