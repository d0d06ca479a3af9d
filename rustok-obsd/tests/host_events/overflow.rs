//! A ring that is too small: what is told and what is lost is all there was.

use std::process::Command;

use rustok_obsd::contract::host_events::EventKind;

use crate::watch::{As, Watch};

#[test]
fn what_a_full_ring_refuses_is_counted_to_the_last_event() {
    let test = "what_a_full_ring_refuses_is_counted_to_the_last_event";
    let page = u32::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
    let Some(mut watch) = Watch::start(test, As::Now, page) else { return };
    // A shell that forks 3000 times: no exec, and nobody drains meanwhile.
    let status =
        Command::new("/bin/sh").args(["-c", "i=0; while [ $i -lt 3000 ]; do (:); i=$((i+1)); done"]).status().unwrap();
    assert!(status.success());
    watch.programs.detach();
    watch.events.drain();
    // Each run of a program is one event; the kernel counts them. Of `host_free` and `host_exit`, one for each thread.
    let stats = watch.programs.program_stats();
    let runs = |name: &str| stats.iter().find(|stats| stats.name == name).unwrap().runs;
    let all = |kind| watch.events.told(kind) + watch.events.lost(kind);
    let exits = all(EventKind::Exit);
    assert!(watch.events.lost(EventKind::Exit) > 0 && watch.events.told(EventKind::Exit) > 0);
    assert!((3001..=runs("host_exit")).contains(&exits), "{exits} of {}", runs("host_exit"));
    assert_eq!(all(EventKind::Exec), runs("host_exec"));
    assert_eq!(watch.events.lost(EventKind::Malformed), 0);
}
