//! The host's kernel events against what the kernel itself tells: `wait4`, inodes, run counts of the programs.
//!
//! Reads: events of the running kernel, as root. Yields: a skip where it allows no BPF. Costs: some seconds.

mod cgroups;
mod helper;
mod overflow;
mod processes;
mod watch;

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;
