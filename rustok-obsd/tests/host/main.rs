//! The collectors of the host against node_exporter: its fixture tree with its expected output, and itself, live.

mod allocations;
mod btrfs;
mod filesystem;
mod fixture;
mod live;
mod namespace;
mod network;
mod otel;
mod textfile;

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;
