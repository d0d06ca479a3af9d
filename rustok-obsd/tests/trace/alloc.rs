//! What an offer allocates.

use crate::{addresses, exchange};
use rustok_obsd::config::{Endpoint, Sampler, Traces};
use rustok_obsd::route::{Route, Source};
use rustok_obsd::trace::{TargetKey, Tracing};
use std::time::Duration;

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;

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
        let before = test_support::allocations();
        for _ in 0..2000 {
            std::hint::black_box(offer());
        }
        assert_eq!(test_support::allocations() - before, 0, "{sampler:?}");
        tracing.shutdown(Duration::ZERO);
    }
}
