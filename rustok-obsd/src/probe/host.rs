//! Loads the kernel programs of the whole host and attaches them.
//!
//! Reads: the embedded object, [`Kernel`]. Yields: [`HostPrograms`]: links that keep the programs alive; the ring and the
//! counters. Costs: some ms at start; kernel memory for the ring.

use std::os::fd::OwnedFd;

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::links::FdLink,
};
use rustok_obsd_ebpf::host_event::{HOST_ABI, HOST_KINDS, HostKind};

use super::{
    host_types::{HOST_PROGRAMS, HostTypes, Use},
    kernel::Kernel,
    loader::{self, LoadError},
    stats::{ProgramFacts, ProgramTable},
    status::{ProbeBoard, State},
};

/// The object that `cargo xtask build-ebpf` made, if it was there when the daemon was built.
#[cfg(has_host_object)]
pub static HOST_OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/host.o")));
/// The object that `cargo xtask build-ebpf` made, if it was there when the daemon was built.
#[cfg(not(has_host_object))]
pub static HOST_OBJECT: Option<&[u8]> = None;

/// The daemon is woken when this part of the ring is used.
const WAKEUP_PART: u64 = 4;

/// Sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// Bytes of the ring: a power of two, and whole pages.
    pub ring_bytes: u32,
    /// Let the kernel count and time the programs (`BPF_ENABLE_STATS`): two clock readings a run.
    pub run_stats: bool,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self { ring_bytes: 256 << 10, run_stats: true }
    }
}

/// The loaded programs. Dropping it detaches them.
pub struct HostPrograms {
    links: Vec<FdLink>,
    facts: ProgramFacts,
    _stats: Option<OwnedFd>,
    // Keeps what the programs are made of.
    _ebpf: Ebpf,
}

/// What the programs count.
pub struct HostCounts(PerCpuArray<MapData, u64>);

impl HostPrograms {
    /// Loads `object` for `kernel`, attaches what this kernel has, and says on `board` what became of each.
    ///
    /// # Errors
    /// Nothing can be loaded or attached; the rest of the daemon can go on without.
    pub fn load(
        object: Option<&[u8]>,
        kernel: &Kernel,
        settings: HostSettings,
        board: &ProbeBoard,
    ) -> Result<(Self, RingBuf<MapData>, HostCounts), LoadError> {
        let loaded = Self::try_load(object, kernel, settings, board);
        if let Err(error) = &loaded {
            let known = board.all();
            for (program, _) in HOST_PROGRAMS {
                if !known.iter().any(|status| status.probe == *program) {
                    board.set(program, "", State::Failed, error.to_string());
                }
            }
        }
        loaded
    }

    fn try_load(
        object: Option<&[u8]>,
        kernel: &Kernel,
        settings: HostSettings,
        board: &ProbeBoard,
    ) -> Result<(Self, RingBuf<MapData>, HostCounts), LoadError> {
        let object = object.ok_or(LoadError::NoObject)?;
        if let Some(reason) = kernel.forbids() {
            return Err(LoadError::Refused(reason));
        }
        let types = kernel.host.as_ref().map_err(|reason| LoadError::Refused(reason.clone()))?;
        let mut ebpf = load(object, types, settings)?;
        let stats = settings.run_stats.then(loader::run_stats).flatten();
        let table = ProgramTable::default();
        let facts = ProgramFacts::new(&ebpf, "host", table.clone());
        let (mut links, mut refused) = (Vec::new(), None);
        for ((program, tracepoint), planned) in HOST_PROGRAMS.iter().zip(&types.programs) {
            let attached = match planned {
                Use::Attach => loader::attach(&mut ebpf, program, tracepoint.name, &table),
                Use::Missing(reason) => Err(reason.clone()),
                Use::LeaveOut(reason) => {
                    board.set(program, "", State::Disabled, reason.as_str());
                    continue;
                }
            };
            match attached {
                Ok(link) => {
                    links.push(link);
                    board.set(program, "", State::Attached, "");
                }
                Err(reason) => {
                    board.set(program, "", State::Failed, reason.as_str());
                    refused.get_or_insert(reason);
                }
            }
        }
        if let Some(reason) = refused.filter(|_| links.is_empty()) {
            return Err(LoadError::Refused(reason));
        }
        let ring = loader::map(&mut ebpf, "HOST_EVENTS")?;
        let counts = HostCounts(loader::map(&mut ebpf, "HOST_COUNTS")?);
        Ok((Self { links, facts, _stats: stats, _ebpf: ebpf }, ring, counts))
    }

    /// What the programs cost, for who reports it.
    #[must_use]
    pub fn facts(&self) -> ProgramFacts {
        self.facts.clone()
    }

    /// Detaches the programs: no record comes after this.
    pub fn detach(&mut self) {
        self.links.clear();
    }
}

impl HostCounts {
    /// Records of a kind that the full ring refused.
    #[must_use]
    pub fn lost(&self, kind: HostKind) -> u64 {
        self.sum(kind as u32 - 1)
    }

    /// Records of a kind that lack a field which could not be read.
    #[must_use]
    pub fn incomplete(&self, kind: HostKind) -> u64 {
        self.sum(HOST_KINDS + kind as u32 - 1)
    }

    fn sum(&self, index: u32) -> u64 {
        self.0.get(&index, 0).map_or(0, |values| values.iter().sum())
    }
}

fn load(object: &[u8], types: &HostTypes, settings: HostSettings) -> Result<Ebpf, LoadError> {
    let wakeup_bytes = u64::from(settings.ring_bytes) / WAKEUP_PART;
    let exit_tells_group_dead = u32::from(types.exit_tells_group_dead);
    let oom_at_exit = u32::from(!types.victim_is_task);
    let mut loader = EbpfLoader::new();
    // No type of ours is relocated against the kernel's.
    loader.btf(None);
    loader
        .override_global("HOST_ABI_1", &HOST_ABI, true)
        .override_global("EXIT_TELLS_GROUP_DEAD", &exit_tells_group_dead, true)
        .override_global("OOM_AT_EXIT", &oom_at_exit, true)
        .override_global("WAKEUP_BYTES", &wakeup_bytes, true)
        .map_max_entries("HOST_EVENTS", settings.ring_bytes);
    for (name, value) in &types.globals {
        loader.override_global(name, value, true);
    }
    loader.load(object).map_err(loader::load_error)
}
