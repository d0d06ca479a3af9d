//! Finds the processes to observe and what is in their binaries.
//!
//! Reads: `/proc` and executables. Yields: [`Target`]s with the file offsets for uprobes and the place of Tokio's task
//! id; axum's routes out of a running process. Costs: one analysis per executable ([`BinaryCache`]), nothing per event
//! but a look-up. Nothing here needs eBPF, and nothing writes to a process. What may hang
//! because a process wants it to goes through [`Reader`].

pub mod axum_routes;
pub mod binary;
mod binary_cache;
pub mod budget;
pub mod calibrate;
pub mod code;
mod debug_file;
pub mod discovery;
pub mod elf;
#[cfg(test)]
mod elf_fixture;
pub mod environment;
pub mod executable;
mod helper_parent;
pub mod inside;
pub mod maps;
pub mod memory;
pub mod memory_helper;
mod mounts;
mod observed;
mod places;
pub mod points;
pub mod presence;
mod procfs;
pub mod reader;
pub mod report;
pub mod route_cache;
mod rust_strings;
pub mod selector;
pub mod spender;
pub mod statement_layout;
pub mod symbols;
mod tls;
pub mod tokio_slot;
mod tokio_spawn;
pub mod trust;
mod unwind;

pub use axum_routes::{RouteError, RouteTable};
pub use binary::Binary;
pub use binary_cache::BinaryCache;
pub use budget::{Budget, Limits, TooCostly};
pub use calibrate::{Calibrator, Progress};
pub use code::agrees_with_memory;
pub use debug_file::Distrust;
pub use discovery::{Process, ProcessKey, Scan, ScanError, Scanner, Suspect};
pub use executable::{BinaryError, Executable, FileIdentity, FileNode, Owner};
pub use memory::{Memory, MemoryError, ProcessMemory};
pub use memory_helper::Helpers;
pub use observed::{Target, TargetInfo};
pub use points::{CustomPoint, Library, ProbePoint, ProbeSet};
pub use presence::{Absence, Doubt, Place, Presence, RefusedPlace};
pub use reader::{InProcess, Reader};
pub use report::BinaryReport;
pub use route_cache::{Lookup, RouteCache, RouteCacheStats};
pub use rust_strings::Libc;
pub use selector::{Rule, RuleError, Selector};
pub use spender::Spender;
pub use tokio_slot::TaskSlot;
pub use trust::{Trust, UnknownUser, UserNumbers};
