//! Finds the processes to observe and what is in their binaries.
//!
//! Reads: `/proc` and executables. Yields: [`Target`]s with the file offsets for uprobes and the place of Tokio's task
//! id; axum's routes out of a running process. Costs: one analysis per executable ([`BinaryCache`]), nothing per event
//! but a look-up. Nothing here needs eBPF, and nothing writes to a process. What may hang
//! because a process wants it to goes through [`Reader`].

pub mod axum_routes;
pub mod binary;
mod binary_cache;
pub mod calibrate;
mod debug_file;
pub mod discovery;
pub mod elf;
#[cfg(test)]
mod elf_fixture;
pub mod environment;
pub mod maps;
pub mod memory;
pub mod memory_helper;
pub mod points;
mod procfs;
pub mod reader;
pub mod report;
pub mod route_cache;
pub mod selector;
pub mod statement_layout;
pub mod symbols;
mod tls;
pub mod tokio_slot;
mod tokio_spawn;

use std::sync::Arc;

use serde::Serialize;

pub use axum_routes::{RouteError, RouteTable};
pub use binary::{Absence, Binary, BinaryError, FileIdentity, Place, Presence};
pub use binary_cache::BinaryCache;
pub use calibrate::{Calibrator, Progress};
pub use discovery::{Process, ProcessKey, Scan, ScanError, Scanner};
pub use memory::{Memory, MemoryError, ProcessMemory};
pub use memory_helper::Helpers;
pub use points::{CustomPoint, Library, ProbePoint, ProbeSet};
pub use reader::{InProcess, Reader};
pub use report::BinaryReport;
pub use route_cache::{Lookup, RouteCache, RouteCacheStats};
pub use selector::{Rule, RuleError, Selector};
pub use tokio_slot::TaskSlot;

/// A process to observe and what is in its binary.
#[derive(Debug, Clone)]
pub struct Target {
    /// The process.
    pub process: Process,
    /// Its executable's file: uprobes are attached per file, once for all its processes.
    pub file: FileIdentity,
    /// What is in the executable.
    pub binary: Arc<Binary>,
}

impl Target {
    /// Analyses the process's executable, or takes the analysis from the cache.
    ///
    /// # Errors
    /// [`BinaryError`] where the executable cannot be read, mostly because the process has ended.
    pub fn new(process: Process, cache: &mut BinaryCache) -> Result<Self, BinaryError> {
        let (file, binary) = cache.get(&process.exe_file, &process.root)?;
        Ok(Self { process, file, binary })
    }

    /// What `/status` and the log tell of the target.
    #[must_use]
    pub fn info(&self) -> TargetInfo {
        let Self { process, binary, file: _ } = self;
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
