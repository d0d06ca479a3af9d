//! A target that fills whatever it can fill: memory stays within the budgets, another target's counts stay right, and the
//! memory comes back when the first one has ended.

mod hog;
#[path = "../capture/traffic.rs"]
#[expect(dead_code, reason = "other tests look at more of it")]
mod traffic;

use hog::Hog;
use rustok_obsd::budget::Store;
use rustok_obsd::capture::Command;
use rustok_obsd::contract::recorder::{Behind, TargetKey};
use rustok_obsd::exposition::{Collect, Format, to_text};
use std::time::{Duration, Instant};
use test_support::Scraped;
use traffic::{Queries, Traffic};

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;

/// The process that floods; Linux gives no such number.
const HOG: u32 = 5_000_000;
const KEY: TargetKey = TargetKey(2);

/// What one target may make the stores hold: half of each budget, and what the tables of a recorder have room for.
fn bound() -> i64 {
    Store::ALL.iter().map(|store| store.limit() as i64 / 2).sum::<i64>()
}

fn scrape(source: &dyn Collect) -> Scraped {
    Scraped::parse(&to_text(source, Format::Text)).expect("an exposition")
}

#[test]
fn a_target_that_fills_every_store_stays_within_its_budgets_and_blinds_nobody() {
    let rounds = std::env::var("RUSTOK_OBSD_FLOOD").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2000);
    let mut good = Traffic::with(Queries::Tls);
    let mut requests = 0;
    let mut served = |good: &mut Traffic| {
        good.prepare(20);
        good.run();
        requests += 20;
        requests
    };
    served(&mut good);
    good.add_target(HOG, KEY, "hog", Behind::Stranger(1000));
    let mut hog = Hog::new(HOG, &mut good);
    test_support::held_anew();
    let (before, _) = test_support::held();
    for number in 0..rounds {
        hog.flood(&mut good, number);
        if number % 50 == 0 {
            served(&mut good);
        }
    }
    let requests = served(&mut good);
    let (now, most) = test_support::held();
    println!("{rounds} rounds: {} MiB held, {} MiB at most", (now - before) >> 20, (most - before) >> 20);
    assert!(most - before < bound(), "{} of {}", most - before, bound());
    for store in Store::ALL {
        let reading = good.own.stores.read(*store);
        println!("{:12} {reading:?}", store.name());
        assert!(reading.used <= reading.limit, "{store:?}: {reading:?}");
    }
    let reading = |store| good.own.stores.read(store);
    for store in [Store::Statements, Store::Prepared, Store::Operations, Store::Tasks, Store::Buffers] {
        assert!(reading(store).refused + reading(store).evicted > 0, "{store:?}: {:?}", reading(store));
    }
    assert!(reading(Store::Connections).evicted > 0, "{:?}", reading(Store::Connections));
    // The other target is counted right, to the last request and statement.
    let service = ("service_name", "shop");
    let http = scrape(&*good.metrics);
    assert_eq!(http.sum("http_server_request_duration_seconds_count", &[service]), Some(f64::from(requests)));
    let database = scrape(&*good.database);
    let calls = database.sum("rustok_obsd_statement_calls_total", &[service, ("fingerprint", "~other")]).unwrap_or(0.0);
    assert_eq!(calls, 0.0);
    assert_eq!(database.sum("rustok_obsd_statement_calls_total", &[service]), Some(f64::from(2 * requests)));
    let complete = [service, ("ending", "complete")];
    assert_eq!(database.sum("rustok_obsd_database_operations_total", &complete), Some(f64::from(2 * requests)));
    assert_eq!(
        database.sum("rustok_obsd_database_parents_total", &[("parent", "request")]),
        Some(f64::from(2 * requests))
    );
    // What was refused is shown.
    let own = scrape(&*good.own);
    let refused = own.sum("rustok_obsd_store_refused_total", &[("store", "statements")]).unwrap_or(0.0);
    let evicted = own.sum("rustok_obsd_store_evicted_total", &[("store", "statements")]).unwrap_or(0.0);
    assert!(refused + evicted > 0.0);
    // It ends, and what it held comes back.
    good.command(Command::Remove { tgid: HOG, key: KEY });
    let until = Instant::now() + Duration::from_secs(30);
    let kept = [Store::Statements, Store::Prepared, Store::Operations, Store::Tasks, Store::Requests, Store::Buffers];
    while kept.iter().map(|store| good.own.stores.read(*store).used).sum::<u64>() > 1 << 20 {
        assert!(Instant::now() < until, "{:?}", kept.map(|store| good.own.stores.read(store)));
        good.pipeline.obey();
        std::thread::sleep(Duration::from_millis(20));
    }
    let (after, _) = test_support::held();
    println!("{} KiB held after its end", (after - before) >> 10);
    assert!(after - before < 16 << 20, "{} bytes are left", after - before);
    served(&mut good);
}
