//! Many cgroups: a thousand made and removed under scrape, five thousand at once.

use crate::cgroups::{Cgroups, scrape, scrape_within};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use test_support::skip;

/// One at a time: memory is measured.
static ALONE: Mutex<()> = Mutex::new(());

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

#[test]
fn a_thousand_come_and_go_and_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cgroups = match Cgroups::new("churn") {
        Ok(cgroups) => cgroups,
        Err(reason) => return skip("a_thousand_come_and_go_and_leave_nothing", reason),
    };
    let containers = cgroups.containers(|_| ());
    let empty = scrape(&containers);
    let own = |scraped: &test_support::Scraped, name: &str| scraped.sum(name, &[]).unwrap();
    let watches = |scraped: &test_support::Scraped| {
        scraped.sum("rustok_obsd_container_watches", &[("state", "present")]).unwrap()
    };
    let mut sizes = Vec::new();
    for round in 0..6 {
        let start = Instant::now();
        for number in 0..1000 {
            cgroups.make(&format!("{round}-{number}"));
            if number % 250 == 0 {
                scrape(&containers);
            }
        }
        let full = scrape(&containers);
        assert_eq!(own(&full, "rustok_obsd_containers"), own(&empty, "rustok_obsd_containers") + 1000.0);
        for number in 0..1000 {
            cgroups.remove(&format!("{round}-{number}"));
            if number % 250 == 0 {
                scrape(&containers);
            }
        }
        let left = scrape(&containers);
        assert_eq!(own(&left, "rustok_obsd_containers"), own(&empty, "rustok_obsd_containers"));
        sizes.push(resident());
        println!("round {round}: {:?}, {} KiB", start.elapsed(), resident() / 1024);
    }
    let left = scrape(&containers);
    // Other tests make and remove cgroups meanwhile, which are watched though not told.
    assert!(watches(&left) < watches(&empty) + 200.0, "{} after {}", watches(&left), watches(&empty));
    assert!(own(&left, "rustok_obsd_container_open_files") < own(&empty, "rustok_obsd_container_open_files") + 50.0);
    let (early, late) = (sizes[1], sizes[5]);
    assert!(late < early + (8 << 20), "from {early} to {late} bytes: {sizes:?}");
}

#[test]
fn five_thousand_are_told_in_time_or_counted() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cgroups = match Cgroups::new("many") {
        Ok(cgroups) => cgroups,
        Err(reason) => return skip("five_thousand_are_told_in_time_or_counted", reason),
    };
    (0..5000).for_each(|number| drop(cgroups.make(&number.to_string())));
    let containers = cgroups.containers(|options| options.limit = 6000);
    let start = Instant::now();
    // The machine may be busy with other tests.
    let first = scrape_within(&containers, Duration::from_secs(200));
    let took = start.elapsed();
    let start = Instant::now();
    let second = scrape_within(&containers, Duration::from_secs(200));
    println!("first scrape {took:?}, then {:?}; parsing included", start.elapsed());
    let told = |scraped: &test_support::Scraped| scraped.families["container_memory_rss"].samples.len();
    assert_eq!((told(&first), told(&second)), (5002, 5002));
    // Far too little time: the answer comes, and what is missing is counted.
    // How much that is the machine knows: from nothing upwards.
    let mut before = 0.0;
    let late = (0..20).find_map(|power| {
        let time = Duration::from_micros(500 << power);
        let late = scrape_within(&containers, time);
        let sum = late.sum("rustok_obsd_containers_skipped_total", &[("reason", "deadline")]).unwrap();
        let skipped = sum - std::mem::replace(&mut before, sum);
        let count = late.families.get("container_memory_rss").map_or(0, |family| family.samples.len());
        println!("with {time:?}: {count} told, {skipped} skipped");
        assert_eq!(count as f64 + skipped, 5002.0);
        (skipped > 0.0 && count > 0).then_some(late)
    });
    let late = late.expect("some are told and some are not");
    // Beyond the budget of open files they are opened each time.
    assert!(late.sum("rustok_obsd_container_open_files", &[]).unwrap() <= 12_000.0);
}
