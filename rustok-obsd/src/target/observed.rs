//! A process to observe: its executable, what is in it, and on which functions probes may be placed.
//!
//! Reads: the executable, once per file; `/proc/PID/maps`; the first bytes of each function in the process' memory. Yields:
//! [`Target`]. Costs: the analysis ([`BinaryCache`]), then two system calls. May take for ever, where a file or the memory of
//! the process does not answer: callers do it aside ([`crate::aside`]).

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::binary::Binary;
use super::binary_cache::BinaryCache;
use super::code::agrees_with_memory;
use super::discovery::Process;
use super::executable::{BinaryError, Executable, FileIdentity};
use super::maps::{self, Mapping};
use super::memory::Memory;
use super::mounts::Mounts;
use super::points::{Library, ProbePoint};
use super::presence::Place;
use super::reader::Reader;
use super::tokio_slot::TaskSlot;
use super::trust::Trust;

/// A process to observe and what is in its binary.
#[derive(Debug, Clone)]
pub struct Target {
    /// The process.
    pub process: Process,
    /// Its executable, open: uprobes are attached through it, per file, once for all its processes. `None` where it could
    /// not be read in time.
    pub executable: Option<Arc<Executable>>,
    /// What is in the executable.
    pub binary: Arc<Binary>,
    /// Why no uprobes are placed on it.
    pub sockets_only: Option<String>,
    /// That passes.
    passes: bool,
    /// Where the process has its code.
    mappings: Arc<[Mapping]>,
    /// File offsets of functions that are not the same in the process' memory.
    altered: Arc<[u64]>,
}

impl Target {
    /// Analyses the process's executable, or takes the analysis from the cache.
    ///
    /// # Errors
    /// [`BinaryError`] where the executable cannot be opened, mostly because the process has ended.
    pub fn new(
        process: Process,
        cache: &BinaryCache,
        trust: &Trust,
        procfs: &Path,
        reader: &Reader,
    ) -> Result<Self, BinaryError> {
        let executable = match Executable::of_process(&process.exe_file, Mounts::of(procfs, process.key.pid))? {
            Ok(executable) => executable,
            Err(unasked) => return Ok(Self::unread(process, &format!("its executable: {unasked}"))),
        };
        let binary = cache.get(&executable, &process.root);
        let sockets_only = trust.judge(executable.owner(), &process.trusted_owners).err();
        let mappings: Arc<[Mapping]> = maps::executable(procfs, process.key.pid).into();
        let mut target = Self {
            process,
            executable: Some(Arc::new(executable)),
            binary,
            sockets_only: sockets_only.map(|distrust| distrust.to_string()),
            passes: false,
            mappings,
            altered: Arc::default(),
        };
        if target.sockets_only.is_none() {
            let compared = target.clone();
            let answer = reader.ask(target.process.key.pid, move |memory| compared.compare(memory));
            // The reader has a bound of its own; without an answer no place is taken for good.
            match answer.map(|answer| answer.recv()) {
                Ok(Ok(altered)) => target.altered = altered.into(),
                Ok(Err(_)) => target = target.without_uprobes("its memory does not answer").passing(),
                Err(refused) => target = target.without_uprobes(&refused.to_string()).passing(),
            }
        }
        Ok(target)
    }

    /// A target whose executable was not read, for this reason.
    #[must_use]
    pub fn unread(process: Process, reason: &str) -> Self {
        Self {
            process,
            executable: None,
            binary: Arc::new(Binary::analyse_bytes(&[], None, super::Limits::default())),
            sockets_only: Some(reason.to_owned()),
            passes: false,
            mappings: Arc::default(),
            altered: Arc::default(),
        }
    }

    /// The same target, observed at its sockets alone.
    #[must_use]
    pub fn without_uprobes(self, reason: &str) -> Self {
        Self { sockets_only: Some(reason.to_owned()), ..self }
    }

    /// The same target; it is to be looked at again later.
    #[must_use]
    pub fn passing(self) -> Self {
        Self { passes: true, ..self }
    }

    /// Whether it is to be looked at again, since what prevents its uprobes passes.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        self.passes
    }

    /// The executable's file.
    #[must_use]
    pub fn file(&self) -> Option<FileIdentity> {
        self.executable.as_ref().map(|executable| executable.identity())
    }

    /// File offsets of the functions of a probe point that a probe can be placed on.
    #[must_use]
    pub fn places(&self, point: ProbePoint) -> Vec<u64> {
        if self.sockets_only.is_some() {
            return Vec::new();
        }
        let offsets = self.binary.places(point).iter().map(|place| place.file_offset);
        offsets.filter(|offset| !self.altered.contains(offset)).collect()
    }

    /// Why there are no [`Self::places`], or where they are.
    #[must_use]
    pub fn presence_of(&self, point: ProbePoint) -> String {
        match &self.sockets_only {
            Some(reason) => format!("absent: {reason}"),
            None if self.places(point).is_empty() && !self.binary.places(point).is_empty() => {
                "absent: the code in the memory of the process is another one than in its file".to_owned()
            }
            None => self.binary.presence_of(point),
        }
    }

    /// Whether a library is linked in.
    #[must_use]
    pub fn has(&self, library: Library) -> bool {
        self.binary.has(library)
    }

    /// Where Tokio keeps the task's id.
    #[must_use]
    pub fn task_slot(&self) -> TaskSlot {
        match &self.sockets_only {
            Some(reason) => TaskSlot::Absent { reason: reason.clone() },
            None => self.binary.task_slot.clone(),
        }
    }

    /// The address of a file offset in the process.
    #[must_use]
    pub fn address(&self, file_offset: u64) -> Option<u64> {
        maps::address(&self.mappings, self.file()?.inode, file_offset)
    }

    /// File offsets whose bytes in memory are not those of the file: the process changed its own code, or maps another
    /// file there.
    fn compare<M: Memory + ?Sized>(&self, memory: &M) -> Vec<u64> {
        let places: Vec<&Place> = self.binary.probes.iter().flat_map(|(point, _)| self.binary.places(*point)).collect();
        let same = |place: &Place| {
            let Some(address) = self.address(place.file_offset) else { return false };
            let mut bytes = vec![0; place.code.len()];
            memory.read(address, &mut bytes).is_ok() && agrees_with_memory(&place.code, &bytes)
        };
        places.into_iter().filter(|place| !same(place)).map(|place| place.file_offset).collect()
    }

    /// What `/status` and the log tell of the target.
    #[must_use]
    pub fn info(&self) -> TargetInfo {
        let Self { process, binary, .. } = self;
        TargetInfo {
            pid: process.key.pid,
            exe: process.exe.display().to_string(),
            exe_deleted: process.exe_deleted,
            service_name: process.service_name(),
            service_version: process.service_version().map(str::to_owned),
            cgroup: process.cgroup.clone(),
            sockets_only: self.sockets_only.clone(),
            rustc: binary.rustc.clone(),
            libraries: binary.libraries.iter().map(|(library, version)| (library.name(), version.clone())).collect(),
            probes: binary.probes.iter().map(|(point, _)| (point.path(), self.presence_of(*point))).collect(),
            task_slot: self.task_slot().to_string(),
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
    /// Why no uprobes are placed on it; absent where they may be.
    pub sockets_only: Option<String>,
    /// Compiler.
    pub rustc: Option<String>,
    /// Libraries that matter, with versions where known.
    pub libraries: Vec<(&'static str, Option<String>)>,
    /// Each probe point: where it is, or why it is not.
    pub probes: Vec<(&'static str, String)>,
    /// Tokio's task id: where it is, or why it is not.
    pub task_slot: String,
}
