//! What an offer allocates.

use crate::{addresses, exchange, operation, statement};
use rustok_obsd::config::{Endpoint, Sampler, Traces};
use rustok_obsd::database::{Operation, Parent, Spent};
use rustok_obsd::exchange::Exchange;
use rustok_obsd::route::{Route, Source};
use rustok_obsd::trace::{TargetKey, Tracing};
use std::sync::Arc;
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
        let (statement, namespace) = (statement(), Arc::from("shop"));
        let spent = Spent { queries: 12, most_repeated: Some((&statement, 12)), ..Spent::default() };
        // A request as the pipeline offers it: decided at its first operation, with a wait, a query beside it, and one
        // that outlives it.
        let mut offer = || {
            let ids = tracer.begin(TargetKey(1), None);
            let child = Operation { parent_span: ids, namespace: Some(&namespace), ..operation(&statement) };
            tracer.offer_operation(TargetKey(1), &child);
            tracer.offer_operation(TargetKey(1), &Operation { parent: Parent::Linked(1), ..child });
            tracer.offer_operation(TargetKey(1), &Operation { parent: Parent::Unknown, ..child });
            let exchange = Exchange { ids: ids.into(), spent: Some(&spent), tenant: b"acme", ..exchange() };
            tracer.offer(TargetKey(1), &exchange, Some(&route), addresses())
        };
        offer();
        let before = test_support::allocations();
        for _ in 0..2000 {
            std::hint::black_box(offer());
        }
        assert_eq!(test_support::allocations() - before, 0, "{sampler:?}");
        tracing.shutdown(Duration::ZERO);
    }
}
