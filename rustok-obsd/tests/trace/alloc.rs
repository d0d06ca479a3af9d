//! What an offer allocates.

use crate::{addresses, exchange};
use rustok_obsd::config::{Endpoint, Sampler, Traces};
use rustok_obsd::route::{Route, Source};
use rustok_obsd::trace::{TargetKey, Tracing};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller guarantees.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller guarantees.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn offers_allocate_nothing_in_steady_state_sampled_or_not_queued_or_full() {
    for sampler in [Sampler::AlwaysOff, Sampler::AlwaysOn] {
        let settings = Traces {
            endpoint: Some(Endpoint { url: "http://127.0.0.1:1".into(), exact: false }),
            schedule_delay: Duration::from_secs(60),
            queue_size: 1000,
            batch_size: 1000,
            sampler,
            ..Traces::default()
        };
        let tracing = Tracing::start(&settings).unwrap().unwrap();
        let mut tracer = tracing.tracer();
        let route = Route { template: "/api/orders/{id}".into(), source: Source::Axum };
        let mut offer = || tracer.offer(TargetKey(1), &exchange(), Some(&route), addresses());
        offer();
        let before = ALLOCATIONS.get();
        for _ in 0..2000 {
            std::hint::black_box(offer());
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{sampler:?}");
        tracing.shutdown(Duration::ZERO);
    }
}
