//! The collectors of the host against node_exporter: its fixture tree with its expected output, and itself, live.

mod btrfs;
mod filesystem;
mod fixture;
