//! Loads the kernel programs and attaches the socket backend.
//!
//! Reads: the embedded object, [`Kernel`]. Yields: [`Programs`]: links that keep the probes alive, the maps, the ring.
//! Costs: 0.1 s at start; kernel memory for the maps, most of it the socket map and the ring.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{RawTracePoint, links::FdLink},
    sys::{Stats, enable_stats},
};
use rustok_obsd_ebpf::{COUNTERS, Counter};
use thiserror::Error;

use super::{
    kernel::Kernel,
    offsets::Offsets,
    stats::{ProgramFacts, ProgramTable},
    status::{ProbeBoard, State},
    uprobe::UprobePrograms,
};

/// The object that `cargo xtask build-ebpf` made, if it was there when the daemon was built.
#[cfg(has_ebpf_object)]
pub static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ebpf.o")));
/// The object that `cargo xtask build-ebpf` made, if it was there when the daemon was built.
#[cfg(not(has_ebpf_object))]
pub static OBJECT: Option<&[u8]> = None;

/// Why there are no kernel programs.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Built without.
    #[error("this rustok-obsd was built without kernel programs; run `cargo xtask build-ebpf` and build it again")]
    NoObject,
    /// The kernel or the permissions forbid them.
    #[error("{0}")]
    Refused(String),
    /// The object does not fit.
    #[error("loading the kernel programs: {source}{hint}")]
    Load {
        /// Why.
        source: Box<aya::EbpfError>,
        /// What to do.
        hint: &'static str,
    },
    /// The object contradicts itself.
    #[error("the kernel object cannot be read: {reason}; run `cargo xtask build-ebpf` and build rustok-obsd again")]
    Object {
        /// Why.
        reason: String,
    },
    /// A map or program is not in the object.
    #[error(
        "the kernel object has no {what} {name}: it is of another version; run `cargo xtask build-ebpf` and build rustok-obsd again"
    )]
    Absent {
        /// Map or program.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A map is of another type.
    #[error("map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
}

/// Sizes and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the ring, a power of two.
    pub ring_bytes: u32,
    /// Sockets followed at a time.
    pub sockets: u32,
    /// Most payload bytes of one receive, below [`rustok_obsd_ebpf::MAX_PAYLOAD`].
    pub receive_limit: u32,
    /// Most payload bytes of one send, below [`rustok_obsd_ebpf::MAX_PAYLOAD`].
    pub send_limit: u32,
    /// Most bytes of a statement, in a call or in what a client sends, below [`rustok_obsd_ebpf::MAX_STATEMENT`].
    pub statement_limit: u32,
    /// Let the kernel count and time the programs (`BPF_ENABLE_STATS`): two clock readings a run.
    pub run_stats: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ring_bytes: 4 << 20,
            sockets: 16_384,
            receive_limit: 8191,
            send_limit: 2048,
            statement_limit: 16_383,
            run_stats: true,
        }
    }
}

/// Consecutive transfers may take this many times the bound of one.
const BURST: u32 = 4;
/// The daemon is woken when this part of the ring is used.
const WAKEUP_PART: u64 = 16;

/// The loaded programs. Dropping it detaches the kernel's own hooks.
pub struct Programs {
    links: Vec<FdLink>,
    /// What is attached to targets.
    pub uprobes: Arc<UprobePrograms>,
    facts: ProgramFacts,
    _stats: Option<OwnedFd>,
    // Keeps what the programs are made of.
    _ebpf: Ebpf,
}

/// Whom the programs follow. One thread writes these maps.
pub struct TargetMaps {
    /// Followed processes, by tgid: [`rustok_obsd_ebpf::Target::words`].
    pub targets: HashMap<MapData, u32, [u64; 2]>,
    /// Children that the programs ever followed, by the tgid of their target.
    pub forked: HashMap<MapData, u32, u64>,
    /// Of those, how many they follow no more.
    pub released: HashMap<MapData, u32, u64>,
    /// Ports on which targets listen.
    pub ports: HashMap<MapData, u16, u8>,
    /// Where functions hold statements: words of [`rustok_obsd_ebpf::PlaceKey`] and [`rustok_obsd_ebpf::Layout`].
    pub layouts: HashMap<MapData, [u64; 2], u64>,
}

/// What loading yields.
pub struct Loaded {
    /// Keeps the programs alive.
    pub programs: Programs,
    /// For the capture thread.
    pub capture: CaptureMaps,
    /// For the thread that finds targets.
    pub targets: TargetMaps,
    /// For who reports.
    pub counts: Counts,
}

/// What the capture thread takes of the programs.
pub struct CaptureMaps {
    /// The records.
    pub ring: RingBuf<MapData>,
    /// Verdicts on connections, by id.
    pub verdicts: HashMap<MapData, u64, u32>,
    /// Followed sockets, by address.
    pub sockets: HashMap<MapData, u64, SocketWords>,
}

/// The programs' state of a socket; its connection's id comes first.
pub type SocketWords = [u64; 7];

/// Counters of the programs.
pub struct Counts(PerCpuArray<MapData, u64>);

impl Programs {
    /// Loads `object` for `kernel`, attaches the tracepoints of the sock backend, and says on `board` what became of
    /// each.
    ///
    /// # Errors
    /// Nothing can be loaded; the rest of the daemon can go on without.
    pub fn load(
        object: Option<&[u8]>,
        kernel: &Kernel,
        settings: Settings,
        board: &ProbeBoard,
    ) -> Result<Loaded, LoadError> {
        let object = object.ok_or(LoadError::NoObject)?;
        if let Some(reason) = kernel.refusal() {
            return Err(LoadError::Refused(reason));
        }
        let offsets = kernel.offsets.as_ref().map_err(|reason| LoadError::Refused(reason.clone()))?;
        let mut ebpf = load(object, offsets, settings)?;

        let stats = settings.run_stats.then(run_stats).flatten();
        let table = ProgramTable::default();
        let facts = ProgramFacts::new(&ebpf, "", table.clone());
        let uprobes = Arc::new(UprobePrograms::new(object, &ebpf, table.clone())?);
        let mut links = Vec::new();
        for (name, usable) in &kernel.tracepoints {
            match usable.clone().and_then(|()| attach(&mut ebpf, name, name, &table)) {
                Ok(link) => {
                    links.push(link);
                    board.set(name, "", State::Attached, "");
                }
                Err(reason) => board.set(name, "", State::Failed, reason),
            }
        }
        // One of them shows what the kernel takes; the others are loaded when a target needs them.
        if let Some(error) = uprobes.load("axum_matched_path").err() {
            tracing::warn!("{error}");
        }
        let capture = CaptureMaps {
            ring: map(&mut ebpf, "EVENTS")?,
            verdicts: map(&mut ebpf, "VERDICTS")?,
            sockets: map(&mut ebpf, "SOCKETS")?,
        };
        let targets = TargetMaps {
            targets: map(&mut ebpf, "TARGETS")?,
            forked: map(&mut ebpf, "FORKED")?,
            released: map(&mut ebpf, "RELEASED")?,
            ports: map(&mut ebpf, "PORTS")?,
            layouts: map(&mut ebpf, "LAYOUTS")?,
        };
        let counts = Counts(map(&mut ebpf, "COUNTS")?);
        let programs = Self { links, uprobes, facts, _stats: stats, _ebpf: ebpf };
        Ok(Loaded { programs, capture, targets, counts })
    }

    /// What the programs cost, for who reports it.
    #[must_use]
    pub fn facts(&self) -> ProgramFacts {
        self.facts.clone()
    }

    /// Detaches the kernel's own hooks.
    pub fn detach(&mut self) {
        self.links.clear();
    }
}

impl Counts {
    /// Sum over the CPUs.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(&(counter as u32), 0).map_or(0, |values| values.iter().sum())
    }

    /// All of them by index.
    #[must_use]
    pub fn all(&self) -> [u64; COUNTERS as usize] {
        std::array::from_fn(|index| {
            u32::try_from(index)
                .ok()
                .and_then(|index| self.0.get(&index, 0).ok())
                .map_or(0, |values| values.iter().sum())
        })
    }
}

fn load(object: &[u8], offsets: &Offsets, settings: Settings) -> Result<Ebpf, LoadError> {
    let Offsets {
        sk_protocol,
        sk_protocol_bits,
        sk_err,
        skc_state,
        skc_daddr,
        skc_rcv_saddr,
        skc_v6_daddr,
        skc_v6_rcv_saddr,
        skc_dport,
        skc_num,
        skc_family,
        skc_net,
        net_inum,
        task_tgid,
        task_thread_pointer,
    } = offsets;
    let Settings { ring_bytes, sockets, receive_limit, send_limit, statement_limit, run_stats: _ } = settings;
    // A message's head stands before its statement.
    let client_send_limit = (statement_limit + 256).min(rustok_obsd_ebpf::MAX_PAYLOAD as u32 - 1);
    let (receive_burst, send_burst) = (receive_limit * BURST, send_limit.max(client_send_limit) * BURST);
    let wakeup_bytes = u64::from(ring_bytes) / WAKEUP_PART;
    let mut loader = EbpfLoader::new();
    // No type of ours is relocated against the kernel's.
    loader.btf(None);
    loader
        .override_global("ABI_4", &rustok_obsd_ebpf::ABI, true)
        .override_global("SK_PROTOCOL", sk_protocol, true)
        .override_global("SK_PROTOCOL_BITS", sk_protocol_bits, true)
        .override_global("SK_ERR", sk_err, true)
        .override_global("SKC_STATE", skc_state, true)
        .override_global("SKC_DADDR", skc_daddr, true)
        .override_global("SKC_RCV_SADDR", skc_rcv_saddr, true)
        .override_global("SKC_V6_DADDR", skc_v6_daddr, true)
        .override_global("SKC_V6_RCV_SADDR", skc_v6_rcv_saddr, true)
        .override_global("SKC_DPORT", skc_dport, true)
        .override_global("SKC_NUM", skc_num, true)
        .override_global("SKC_FAMILY", skc_family, true)
        .override_global("SKC_NET", skc_net, true)
        .override_global("NET_INUM", net_inum, true)
        .override_global("TASK_TGID", task_tgid, true)
        .override_global("TASK_THREAD_POINTER", task_thread_pointer, true)
        .override_global("RECEIVE_LIMIT", &receive_limit, true)
        .override_global("SEND_LIMIT", &send_limit, true)
        .override_global("RECEIVE_BURST", &receive_burst, true)
        .override_global("SEND_BURST", &send_burst, true)
        .override_global("CLIENT_SEND_LIMIT", &client_send_limit, true)
        .override_global("STATEMENT_LIMIT", &statement_limit, true)
        .override_global("WAKEUP_BYTES", &wakeup_bytes, true)
        .map_max_entries("EVENTS", ring_bytes)
        // Which connections go when there are too many the daemon decides, by what each target and user has
        // (`capture/memory.rs`), so that the kernel, which takes what was used longest ago whosever it is, has to evict
        // sockets at most that nothing was sent or received on yet.
        .map_max_entries("SOCKETS", sockets.saturating_add(sockets / 2))
        .map_max_entries("SCRATCH", 2 * cpus())
        .load(object)
        .map_err(load_error)
}

/// CPUs that the kernel may number.
fn cpus() -> u32 {
    aya::util::nr_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1)
}

/// Lets the kernel count and time programs while the descriptor is open.
pub(super) fn run_stats() -> Option<OwnedFd> {
    enable_stats(Stats::RunTime)
        .inspect_err(|error| tracing::info!("run times of the kernel programs are not told: {error}; they need CAP_SYS_ADMIN, or `sysctl kernel.bpf_stats_enabled=1`"))
        .ok()
}

pub(super) fn load_error(source: aya::EbpfError) -> LoadError {
    let text = format!("{source:?}");
    let hint = if text.contains("EPERM") || text.contains("Operation not permitted") {
        "; the kernel refuses BPF to this process: run as root, or grant CAP_BPF and CAP_PERFMON, and see /proc/sys/kernel/unprivileged_bpf_disabled"
    } else if text.contains("Symbol") {
        "; the object is of another version: run `cargo xtask build-ebpf` and build rustok-obsd again"
    } else {
        ""
    };
    LoadError::Load { source: Box::new(source), hint }
}

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Absent { what: "map", name })
}

/// A map by its name, as its type.
pub(super) fn map<M: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, LoadError> {
    M::try_from(take(ebpf, name)?).map_err(|source| LoadError::Map { name, source })
}

/// The map itself, of the types that the objects have.
pub(super) const fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) | Map::Array(data) => {
            Some(data)
        }
        _ => None,
    }
}

/// Loads one raw tracepoint program and attaches it.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    name: &'static str,
    tracepoint: &str,
    table: &ProgramTable,
) -> Result<FdLink, String> {
    let program =
        ebpf.program_mut(name).ok_or(LoadError::Absent { what: "program", name }).map_err(|e| e.to_string())?;
    let program: &mut RawTracePoint = program.try_into().map_err(|error| format!("{error}"))?;
    program.load().map_err(|error| verifier_reason(&error))?;
    if let Some(fd) = program.fd().ok().and_then(|fd| fd.as_fd().try_clone_to_owned().ok()) {
        table.add(name, Arc::new(fd));
    }
    let id = program.attach(tracepoint).map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    Ok(link.into())
}

/// The last lines of the verifier's log tell why it refused a program.
fn verifier_reason(error: &aya::programs::ProgramError) -> String {
    if let aya::programs::ProgramError::LoadError { io_error, verifier_log } = error {
        return verifier_end(io_error, &verifier_log.to_string());
    }
    chain(error)
}

/// The same of a log.
pub(super) fn verifier_end(error: &std::io::Error, log: &str) -> String {
    let mut last: Vec<&str> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
    last.reverse();
    format!("the kernel's verifier refused the program: {error}: {}", last.join(" | "))
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
