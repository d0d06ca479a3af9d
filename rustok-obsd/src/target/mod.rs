//! Finds the processes to observe and what is in their binaries.
//!
//! Reads: `/proc` and executables. Yields: [`Target`]s with the file offsets for uprobes and the place of Tokio's task
//! id; axum's routes out of a running process. Costs: one analysis per executable ([`BinaryCache`]), nothing per event
//! but a look-up. Nothing here needs eBPF, and nothing writes to a process.

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
pub mod inside;
pub mod maps;
pub mod memory;
mod places;
pub mod points;
pub mod presence;
mod procfs;
pub mod report;
pub mod route_cache;
mod rust_strings;
pub mod selector;
pub mod statement_layout;
pub mod symbols;
mod tls;
pub mod tokio_slot;
mod tokio_spawn;
mod unwind;

use std::sync::Arc;

use serde::Serialize;

pub use axum_routes::{RouteError, RouteTable};
pub use binary::Binary;
pub use binary_cache::BinaryCache;
pub use budget::{Budget, Limits, TooCostly};
pub use calibrate::{Calibrator, Progress};
pub use code::agrees_with_memory;
pub use debug_file::Distrust;
pub use discovery::{Process, ProcessKey, Scan, ScanError, Scanner};
pub use executable::{BinaryError, Executable, FileIdentity, Owner};
pub use memory::{Memory, MemoryError, ProcessMemory};
pub use points::{CustomPoint, Library, ProbePoint, ProbeSet};
pub use presence::{Absence, Doubt, Place, Presence, RefusedPlace};
pub use report::BinaryReport;
pub use route_cache::{RouteCache, RouteCacheStats};
pub use rust_strings::Libc;
pub use selector::{Rule, RuleError, Selector};
pub use tokio_slot::TaskSlot;

/// A process to observe and what is in its binary.
#[derive(Debug, Clone)]
pub struct Target {
    /// The process.
    pub process: Process,
    /// Its executable, open: uprobes are attached through it, per file, once for all its processes.
    pub executable: Arc<Executable>,
    /// What is in the executable.
    pub binary: Arc<Binary>,
}

impl Target {
    /// Analyses the process's executable, or takes the analysis from the cache.
    ///
    /// # Errors
    /// [`BinaryError`] where the executable cannot be opened, mostly because the process has ended.
    pub fn new(process: Process, cache: &BinaryCache) -> Result<Self, BinaryError> {
        let executable = Arc::new(Executable::open(&process.exe_file)?);
        let binary = cache.get(&executable, &process.root);
        Ok(Self { process, executable, binary })
    }

    /// What `/status` and the log tell of the target.
    #[must_use]
    pub fn info(&self) -> TargetInfo {
        let Self { process, binary, executable: _ } = self;
        TargetInfo {
            pid: process.key.pid,
            exe: process.exe.display().to_string(),
            exe_deleted: process.exe_deleted,
            service_name: process.service_name(),
            service_version: process.service_version().map(str::to_owned),
            cgroup: process.cgroup.clone(),
            rustc: binary.rustc.clone(),
            libraries: binary.libraries.iter().map(|(library, version)| (library.name(), version.clone())).collect(),
            probes: binary.probes.iter().map(|(point, presence)| (point.path(), presence.to_string())).collect(),
            task_slot: binary.task_slot.to_string(),
        }
    }
}

/// A target for people; holds neither arguments nor environment, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetInfo {
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub exe: String,
    /// The executable's file was removed or replaced.
    pub exe_deleted: bool,
    /// `service.name`.
    pub service_name: String,
    /// `service.version`.
    pub service_version: Option<String>,
    /// Control group.
    pub cgroup: String,
    /// Compiler.
    pub rustc: Option<String>,
    /// Libraries that matter, with versions where known.
    pub libraries: Vec<(&'static str, Option<String>)>,
    /// Each probe point: where it is, or why it is not.
    pub probes: Vec<(&'static str, String)>,
    /// Tokio's task id: where it is, or why it is not.
    pub task_slot: String,
}
