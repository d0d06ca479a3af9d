//! What the pipeline holds of memory when targets fill whatever they can fill: not how long something takes, but that it
//! stays within the unit's `MemoryMax=`, and goes back.
//!
//! Part one: a target asks 100 000 statements, each long and none twice (`RUSTOK_OBSD_FLOOD=1000000` makes it a million, in
//! about ten minutes). Part two: forty targets of three users that are not
//! trusted, and four of trusted ones, fill all stores at once, while what they did is scraped. Part three: they end.
//! The process is the pipeline alone: the daemon's other rooms come on top ([`REST`]).

#[path = "../tests/flood/hog.rs"]
mod hog;
#[path = "../tests/capture/traffic.rs"]
#[expect(dead_code, reason = "tests look at more of it")]
mod traffic;

use hog::Hog;
use rustok_obsd::budget::Store;
use rustok_obsd::capture::Command;
use rustok_obsd::config::{Config, Endpoint};
use rustok_obsd::contract::database::Settings;
use rustok_obsd::contract::recorder::{Behind, Limits, TargetKey};
use rustok_obsd::exposition::{Exposition, Format, Part, Scrape};
use rustok_obsd::trace::Tracing;
use std::time::{Duration, Instant};
use traffic::{Queries, Traffic};

/// What the daemon has beside the pipeline: its programs' maps, collectors, the HTTP server and a scrape in the making, and
/// the analysis of a binary; MiB.
const REST: i64 = 96;
/// What may be left when all targets have ended, MiB, beside their series: these stay until another one wants their room.
const LEFT: i64 = 32;

/// MiB of a line of `/proc/self/status`.
fn status(line: &str) -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB"));
    value.and_then(|value| value.trim().parse::<i64>().ok()).expect("a number of kB") / 1024
}

/// The most that was resident since the last call.
fn peak() -> i64 {
    let most = status("VmHWM:");
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is forgotten");
    most
}

/// Scrapes as Prometheus does: yields the bytes of the answer.
fn scrape(exposition: &Exposition) -> usize {
    exposition.render(&Scrape::default(), Format::Text, true).body.len()
}

fn main() {
    // `cargo test --benches` builds and starts it too.
    if std::env::args().any(|argument| argument == "--test") || !std::env::args().any(|argument| argument == "--bench")
    {
        return;
    }
    let unit = include_str!("../../deploy/systemd/rustok-obsd.service");
    let most = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M')?.parse::<i64>().ok());
    let most = most.expect("a number of MiB");
    let config = Config::default();
    let limits = Limits { server_series: config.routes.limit * 8, ..Limits::default() };
    let settings =
        Settings { statements: config.database.statements, requests: config.routes.limit * 4, ..Settings::default() };
    // Nobody takes the spans: the queue fills.
    let mut traces = config.traces.clone();
    traces.endpoint = Some(Endpoint { url: "http://127.0.0.1:9".into(), exact: false });
    traces.schedule_delay = Duration::from_secs(3600);
    let tracing = Tracing::start(&traces).expect("a tracer").expect("enabled");
    let mut good = Traffic::sized(Queries::Tls, config.capture.sockets, limits, settings, Some(tracing.tracer()));
    let exposition = Exposition::new();
    exposition.register(Part::App, good.metrics.clone());
    exposition.register(Part::App, good.database.clone());
    exposition.register(Part::App, good.own.clone());
    good.prepare(1000);
    good.run();
    let start = status("VmRSS:");
    peak();
    println!("before: {start} MiB");

    // Unless the environment says otherwise.
    let asks = std::env::var("RUSTOK_OBSD_FLOOD").ok().and_then(|asks| asks.parse().ok()).unwrap_or(100_000);
    good.add_target(5_000_000, TargetKey(2), "asks", Behind::Stranger(1000));
    let mut hog = Hog::new(5_000_000, &mut good);
    let began = Instant::now();
    for number in 0..asks {
        hog.ask(&mut good, number);
        if number % 1000 == 0 {
            good.pipeline.obey();
        }
    }
    let after = peak();
    println!("{asks} unique long statements in {:?}: {} MiB more at most", began.elapsed(), after - start);
    assert!(after - start < 64, "a single target made the pipeline hold {} MiB more", after - start);

    let mut hogs: Vec<Hog> = (0..44u32)
        .map(|number| {
            let behind = if number < 40 { Behind::Stranger(1000 + number % 3) } else { Behind::Trusted };
            let tgid = 6_000_000 + number;
            good.add_target(tgid, TargetKey(100 + number), &format!("hog{number}"), behind);
            Hog::new(tgid, &mut good)
        })
        .collect();
    let (mut bytes, floods) = (0, asks.min(1000));
    for number in 0..floods {
        for hog in &mut hogs {
            hog.label(&mut good, number);
        }
        good.pipeline.obey();
    }
    for number in 0..floods {
        for hog in &mut hogs {
            hog.flood(&mut good, number);
        }
        good.pipeline.obey();
        if number % 100 == 0 {
            good.run();
            bytes = bytes.max(scrape(&exposition));
        }
    }
    bytes = bytes.max(scrape(&exposition));
    let full = peak();
    for store in Store::ALL {
        println!("{:12} {:?}", store.name(), good.own.stores.read(*store));
    }
    let used = good.own.stores.used() >> 20;
    println!(
        "all stores at once: {} MiB more at most, {used} MiB by the budgets; a scrape has {bytes} bytes",
        full - start
    );
    // Accounts are bounded by the requests under way, and neither route is read here.
    let others = [Store::Accounts, Store::Paths, Store::Parked];
    for store in Store::ALL.iter().filter(|store| !others.contains(store)) {
        let reading = good.own.stores.read(*store);
        assert!(reading.used <= reading.limit, "{store:?}: {reading:?}");
        assert!(reading.refused + reading.evicted > 0, "{store:?} was never full: {reading:?}");
    }
    assert!(full - start + REST <= most, "{} MiB and {REST} for the rest are more than {most}", full - start);

    good.command(Command::Remove { tgid: 5_000_000, key: TargetKey(2) });
    good.pipeline.obey();
    for number in 0..44 {
        good.command(Command::Remove { tgid: 6_000_000 + number, key: TargetKey(100 + number) });
        good.pipeline.obey();
    }
    drop(hogs);
    // The allocator's free memory goes back once a minute at most.
    let until = Instant::now() + Duration::from_secs(150);
    let left = loop {
        good.pipeline.obey();
        let series = good.own.stores.read(Store::Series).used >> 20;
        let left = status("VmRSS:") - start - series as i64;
        if left <= LEFT || Instant::now() > until {
            break left;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let used = good.own.stores.used() >> 20;
    println!("after their end: {left} MiB more than before, beside series; {used} MiB with them by the budgets");
    assert!(left <= LEFT, "{left} MiB are left");
}
