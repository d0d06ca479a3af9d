//! The checks, in the order in which they run.
//!
//! Reads: the machine. Yields: [`CHECKS`]. Costs: as each says.

mod cgroup;
mod container;
mod daemon;

use crate::guest::{Guest, Verdict};

/// One check.
pub type Check = fn(&mut Guest) -> Result<(), Verdict>;

/// All of them, by name.
pub const CHECKS: &[(&str, Check)] = &[
    ("cgroup_v2_is_the_only_hierarchy", cgroup::v2_is_the_only_hierarchy),
    ("pressure_is_accounted", cgroup::pressure_is_accounted),
    ("a_disk_is_there", cgroup::a_disk_is_there),
    ("the_daemon_serves_metrics", daemon::serves_metrics),
    ("a_container_is_held_to_its_limits", container::is_held_to_its_limits),
    ("writes_of_a_container_are_counted", container::writes_are_counted),
    ("out_of_memory_in_a_container_is_counted", container::out_of_memory_is_counted),
];
