//! The checks, in the order in which they run.
//!
//! Reads: the machine. Yields: [`CHECKS`]. Costs: as each says.

mod cgroup;
mod churn;
mod container;
mod daemon;
mod events;
mod network;
mod node;
mod oom;
mod series;

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
    ("series_of_a_container_are_what_the_kernel_says", series::are_what_the_kernel_says),
    ("series_of_the_root_are_the_machine_s", series::of_the_root_are_the_machine_s),
    ("network_of_a_container_is_told", network::of_a_container_is_told),
    ("kernel_programs_are_attached", events::programs_are_attached),
    ("kernel_events_are_delivered", events::are_delivered),
    ("kernel_events_of_short_lives_are_counted", events::of_short_lives_are_counted),
    ("oom_is_told_of_a_container_that_lives", oom::is_told_of_a_container_that_lives),
    ("oom_is_told_of_a_container_that_is_gone", oom::is_told_of_a_container_that_is_gone),
    ("oom_is_told_of_a_container_that_no_scrape_saw", oom::is_told_of_a_container_that_no_scrape_saw),
    ("churn_of_containers_leaves_nothing_behind", churn::leaves_nothing_behind),
    ("node_collectors_succeed", node::collectors_succeed),
    ("node_values_are_the_kernel_s", node::values_are_the_kernel_s),
    ("node_cpu_time_is_the_kernel_s", node::cpu_time_is_the_kernel_s),
    ("processes_are_in_groups", node::processes_are_in_groups),
    ("the_daemon_tells_mounts_of_the_host", daemon::tells_mounts_of_the_host),
    ("the_daemon_is_well", daemon::is_well),
];
