//! A daemon that may not read other users' processes.

use rustok_obsd::config::Config;
use std::os::unix::process::CommandExt as _;
use test_support::{Scraped, skip};

/// `nobody`.
const NOBODY: u32 = 65_534;

#[test]
fn what_another_user_may_not_read_is_counted_and_the_rest_is_told() {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return skip("unreadable processes", "only root can become another user");
    }
    let text = super::inner("unreadable::inner", |command| {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    });
    let body = text.split("BEGIN\n").nth(1).unwrap().split("END\n").next().unwrap();
    let scraped = Scraped::parse(body).unwrap();
    let total = |name: &str| scraped.sum(name, &[]).unwrap();
    let outer = std::fs::read_to_string("/proc/self/comm").unwrap();
    let group = [("groupname", outer.trim())];
    assert!(scraped.sum("namedprocess_namegroup_num_procs", &group).unwrap() >= 2.0);
    // Anybody may read times and memory; but not what goes to disks.
    assert!(total("namedprocess_namegroup_cpu_seconds_total") > 0.0);
    assert!(scraped.sum("namedprocess_namegroup_memory_bytes", &group).unwrap() > 1e6);
    assert!(total("namedprocess_scrape_partial_errors") >= 1.0);
    assert_eq!((total("namedprocess_scrape_errors"), total("namedprocess_scrape_procread_errors")), (0.0, 0.0));
}

#[test]
#[ignore = "runs as another user, started by the test above"]
fn inner() {
    println!("BEGIN\n{}END\n", super::Stage::new(&Config::default()).text());
}
