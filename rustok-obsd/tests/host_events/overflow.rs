//! Many events: a ring that is too small for them, and what they allocate.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustok_obsd::{
    contract::host_events::EventKind,
    events::{Event, Subscriber},
};
use test_support::allocations;

use crate::watch::{self, As, Watch};

/// A shell that forks so often, without exec.
fn fork(times: u32) {
    let script = format!("i=0; while [ $i -lt {times} ]; do (:); i=$((i+1)); done");
    let status = Command::new("/bin/sh").args(["-c", &script]).status().expect("a shell");
    assert!(status.success());
}

/// Counts events.
#[derive(Default)]
struct Count(AtomicU64);

impl Subscriber for Count {
    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_event_allocates_nothing() {
    let count = Arc::new(Count::default());
    let Some((programs, events)) = watch::load("an_event_allocates_nothing", As::Now, 1 << 20, Arc::clone(&count) as _)
    else {
        return;
    };
    fork(300);
    let before = allocations();
    let drained = events.drain();
    assert_eq!(allocations() - before, 0);
    assert!(drained >= 300 && count.0.load(Ordering::Relaxed) == drained as u64, "{drained}");
    drop(programs);
}

#[test]
fn what_a_full_ring_refuses_is_counted_to_the_last_event() {
    let test = "what_a_full_ring_refuses_is_counted_to_the_last_event";
    // SAFETY: no memory is passed.
    let page = u32::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
    let Some(mut watch) = Watch::start(test, As::Now, page) else { return };
    // Nobody drains meanwhile.
    fork(3000);
    watch.programs.detach();
    watch.events.drain();
    // Each run of a program is one event; the kernel counts them. Of `host_free` and `host_exit`, one for each thread.
    let stats = watch.programs.facts().programs();
    let runs = |name: &str| stats.iter().find(|stats| stats.name == name).unwrap().runs;
    let all = |kind| watch.events.told(kind) + watch.events.lost(kind);
    let exits = all(EventKind::Exit);
    assert!(watch.events.lost(EventKind::Exit) > 0 && watch.events.told(EventKind::Exit) > 0);
    assert!((3001..=runs("host_exit")).contains(&exits), "{exits} of {}", runs("host_exit"));
    assert_eq!(all(EventKind::Exec), runs("host_exec"));
    assert_eq!(watch.events.lost(EventKind::Malformed), 0);
}
