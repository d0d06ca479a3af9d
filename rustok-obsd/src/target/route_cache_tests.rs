//! The cache over maps of this process, and over memory that never answers.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::target::memory::{MemoryError, ProcessMemory};
use crate::target::reader::{Access, InProcess};

type Map = HashMap<u32, Arc<str>>;

fn map(routes: u32, prefix: &str) -> Map {
    (0..routes).map(|id| (id, format!("/{prefix}/{id}").into())).collect()
}

fn own() -> ProcessKey {
    ProcessKey { pid: std::process::id(), start_time: 1 }
}

fn address(map: &Map) -> u64 {
    std::ptr::from_ref(map) as u64
}

fn cache() -> RouteCache {
    RouteCache::new(Reader::new(InProcess))
}

/// The same when nothing is awaited.
fn settled(cache: &mut RouteCache, process: ProcessKey, map: u64, id: u32, now: Instant) -> Option<Arc<str>> {
    match cache.lookup(process, map, id, now) {
        Lookup::Known(path) => Some(path),
        Lookup::Unknown => None,
        Lookup::Awaited => {
            while cache.awaits(process, map) {
                cache.catch_up(now);
                std::thread::yield_now();
            }
            cache.path(process, map, id)
        }
    }
}

#[test]
fn a_router_is_read_once_and_found_again() {
    let (map, now) = (map(30, "a"), Instant::now());
    let (mut cache, address) = (cache(), address(&map));
    assert_eq!(cache.lookup(own(), address, 0, now), Lookup::Awaited);
    assert_eq!(cache.lookup(own(), address, 1, now), Lookup::Awaited, "one read serves both");
    for id in 0..30 {
        assert_eq!(settled(&mut cache, own(), address, id, now).as_deref(), Some(format!("/a/{id}").as_str()));
    }
    assert_eq!(cache.stats(), RouteCacheStats { reads: 1, ..RouteCacheStats::default() });
    let later = now + RECHECK;
    assert_eq!(cache.lookup(own(), address, 0, later), Lookup::Awaited, "it is checked before it is believed");
    assert_eq!(settled(&mut cache, own(), address, 0, later).as_deref(), Some("/a/0"));
    assert_eq!(cache.stats().reads, 1, "the same map is not read again");
}

#[test]
fn a_router_whose_memory_was_given_to_another_is_read_again() {
    let mut place = Box::new(map(30, "a"));
    let (mut cache, now, address) = (cache(), Instant::now(), address(&place));
    assert_eq!(settled(&mut cache, own(), address, 5, now).as_deref(), Some("/a/5"));
    *place = map(30, "b");
    assert_eq!(settled(&mut cache, own(), address, 5, now + RECHECK).as_deref(), Some("/b/5"));
    assert_eq!(cache.stats().changes, 1);
}

#[test]
fn an_unknown_id_and_an_unreadable_map_are_tried_again_ever_more_rarely() {
    let (map, start) = (map(3, "a"), Instant::now());
    let (mut cache, address) = (cache(), address(&map));
    for millisecond in 0..10_000 {
        let now = start + Duration::from_millis(millisecond);
        assert_eq!(settled(&mut cache, own(), address, 99, now), None);
        assert_eq!(settled(&mut cache, own(), 0x1000, 1, now), None);
    }
    // At 0, 1, 3 and 7 s, each of the two.
    assert_eq!((cache.stats().reads, cache.stats().failures, cache.stats().misses), (8, 4, 20_000));
    assert!(cache.last_error().unwrap().contains("not mapped"), "{:?}", cache.last_error());
}

#[test]
fn tables_are_bounded_and_an_ended_process_is_forgotten() {
    let (map, now) = (map(3, "a"), Instant::now());
    let (mut cache, address) = (cache(), address(&map));
    for start_time in 0..1000 {
        let process = ProcessKey { pid: std::process::id(), start_time };
        let now = now + Duration::from_millis(start_time);
        assert!(settled(&mut cache, process, address, 1, now).is_some());
    }
    assert_eq!((cache.len(), cache.stats().evictions), (MAX_TABLES, 1000 - MAX_TABLES as u64));
    cache.forget(std::process::id());
    assert!(cache.is_empty() && cache.shares.is_empty());
    assert_eq!((cache.bytes, cache.under_way), (0, 0));
}

#[test]
fn large_tables_are_dropped_before_they_fill_memory() {
    let maps: Vec<Map> = (0..4).map(|_| map(40_000, "large/route/with/a/long/path")).collect();
    let (mut cache, now) = (cache(), Instant::now());
    for map in &maps {
        assert!(settled(&mut cache, own(), address(map), 1, now).is_some());
        assert!(cache.bytes <= MAX_BYTES, "{}", cache.bytes);
    }
    assert!(cache.stats().evictions > 0);
}

#[test]
fn a_process_with_many_routers_pushes_out_its_own() {
    let (good, now) = (map(3, "good"), Instant::now());
    let (mut cache, quiet) = (cache(), ProcessKey { pid: std::process::id(), start_time: 7 });
    assert!(settled(&mut cache, quiet, address(&good), 1, now).is_some());
    let maps: Vec<Map> = (0..MAX_TABLES + 40).map(|_| map(1, "bad")).collect();
    for (map, later) in maps.iter().zip(0..) {
        // Slowly, so that no read is refused.
        let now = now + Duration::from_millis(50 * later);
        assert!(settled(&mut cache, own(), address(map), 0, now).is_some());
    }
    assert_eq!(cache.len(), MAX_TABLES);
    assert!(cache.stats().evictions >= 40);
    assert!(cache.entries.contains_key(&(quiet, address(&good))), "the other process keeps its table");
}

#[test]
fn a_process_that_shows_ever_new_routers_is_read_so_often_only() {
    let (mut cache, now) = (cache(), Instant::now());
    for page in 0..u64::from(MAX_READS) {
        assert_eq!(settled(&mut cache, own(), 8 * page, 1, now), None);
    }
    assert_eq!(cache.lookup(own(), 0x9000, 1, now), Lookup::Unknown);
    assert_eq!((cache.stats().reads, cache.stats().refusals), (u64::from(MAX_READS), 1));
    let good = map(3, "a");
    assert!(settled(&mut cache, own(), address(&good), 1, now + RECHECK).is_some(), "later it is read again");
}

/// Memory of this process, but that of process 1, which waits until the channel is closed.
struct Stuck(Mutex<Receiver<()>>);

struct StuckMemory<'a>(&'a Stuck, u32);

impl Access for Arc<Stuck> {
    fn memory(&self, pid: u32, _until: Instant) -> Box<dyn Memory + '_> {
        Box::new(StuckMemory(self, pid))
    }
}

impl Memory for StuckMemory<'_> {
    fn read_many(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<(), MemoryError> {
        if self.1 == 1 {
            let _ = self.0.0.lock().unwrap().recv();
            return Err(MemoryError::TimedOut { pid: 1 });
        }
        ProcessMemory::new(self.1).read_many(ranges, buf)
    }
}

#[test]
fn a_read_that_hangs_costs_its_own_process_its_routes_and_no_other() {
    let (release, stuck) = mpsc::sync_channel::<()>(16);
    let (good, now) = (map(3, "good"), Instant::now());
    let mut cache = RouteCache::new(Reader::new(Arc::new(Stuck(Mutex::new(stuck)))));
    let bad = ProcessKey { pid: 1, start_time: 1 };
    assert_eq!(cache.lookup(bad, 0x1_0000, 1, now), Lookup::Awaited);
    assert_eq!(settled(&mut cache, own(), address(&good), 1, now).as_deref(), Some("/good/1"));
    assert!(cache.awaits(bad, 0x1_0000));
    let later = now + PATIENCE;
    assert!(cache.catch_up(later), "it is given up");
    assert_eq!((cache.awaits(bad, 0x1_0000), cache.path(bad, 0x1_0000, 1)), (false, None));
    assert_eq!(cache.lookup(bad, 0x1_0000, 1, later), Lookup::Unknown, "not at once again");
    assert_eq!(cache.stats().timeouts, 1);
    // What comes after all is not believed.
    drop(release);
    assert!(!cache.catch_up(later));
    assert_eq!(cache.under_way, 0);
}

#[test]
fn a_check_that_does_not_end_takes_the_tables_names_away() {
    let good = map(3, "good");
    let (mut cache, now) = (cache(), Instant::now());
    assert!(settled(&mut cache, own(), address(&good), 1, now).is_some());
    assert_eq!(cache.lookup(own(), address(&good), 1, now + RECHECK), Lookup::Awaited);
    // Its answer is lost, as if the read hung.
    cache.answers = mpsc::sync_channel(1);
    assert!(cache.catch_up(now + RECHECK + PATIENCE));
    assert_eq!(cache.path(own(), address(&good), 1), None, "nobody knows whether it is the same table");
    assert_eq!((cache.bytes, cache.stats().timeouts), (0, 1));
}

#[test]
fn a_read_that_was_given_up_in_time_counts_as_a_timeout_and_not_as_a_failure() {
    let (release, stuck) = mpsc::sync_channel::<()>(16);
    drop(release);
    let mut cache = RouteCache::new(Reader::new(Arc::new(Stuck(Mutex::new(stuck)))));
    let bad = ProcessKey { pid: 1, start_time: 1 };
    assert_eq!(settled(&mut cache, bad, 0x1_0000, 1, Instant::now()), None);
    assert_eq!((cache.stats().timeouts, cache.stats().failures), (1, 0));
}
