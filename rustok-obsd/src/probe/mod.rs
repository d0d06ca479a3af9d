//! Kernel programs: what this kernel allows, loading, attaching, health of each probe.
//!
//! All attaching sits here, so that a newer aya changes one room. The rest of the daemon sees [`Programs`], their maps
//! and a [`ProbeBoard`].

mod bpf;
pub mod btf;
pub mod detach;
pub mod host;
pub mod host_types;
pub mod kernel;
pub mod loader;
pub mod offsets;
pub mod stats;
pub mod status;
pub mod uprobe;

pub use detach::Detacher;
pub use host::{HostCounts, HostPrograms, HostSettings};
pub use kernel::Kernel;
pub use loader::{LoadError, Loaded, Programs, Settings, TargetMaps};
pub use status::{ProbeBoard, ProbeStatus, State};
