//! What the programs and maps cost, as the kernel counts it.
//!
//! Reads: `bpf_prog_info` of our programs, keys of the small maps, `/proc/self/fdinfo` for map memory. Yields: the
//! `rustok_obsd_ebpf_*` and `rustok_obsd_probe_state` families. Costs: two system calls a program and one an entry, when
//! scraped.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};

use super::loader::SocketWords;
use super::{
    bpf,
    loader::{Counts, map_data},
    status::ProbeBoard,
};
use crate::{
    contract::own,
    exposition::{Collect, Encoder, Value},
};

/// Runs of one program since it was loaded; zero where run statistics are off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Program.
    pub name: &'static str,
    /// Times it ran.
    pub runs: u64,
    /// Time it ran.
    pub run_time: Duration,
    /// Instructions that the verifier walked.
    pub verified_instructions: Option<u32>,
}

/// The loaded programs by name. Its lock is held for as long as a list is copied, never while a program is loaded or
/// attached.
#[derive(Clone, Debug, Default)]
pub(super) struct ProgramTable(Arc<Mutex<Vec<Loaded>>>);

/// A program's name and descriptor.
type Loaded = (&'static str, Arc<OwnedFd>);

impl ProgramTable {
    pub(super) fn add(&self, name: &'static str, program: Arc<OwnedFd>) {
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        programs.push((name, program));
        programs.sort_by_key(|(name, _)| *name);
    }

    fn stats(&self) -> Vec<ProgramStats> {
        let programs = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stats = programs.iter().filter_map(|(name, program)| {
            let info = bpf::program_info(program.as_fd()).ok()?;
            let bpf::ProgramInfo { runs, run_time, verified_instructions } = info;
            Some(ProgramStats { name, runs, run_time, verified_instructions })
        });
        stats.collect()
    }
}

/// A map as it was created.
#[derive(Debug)]
struct MapFacts {
    name: String,
    max_entries: u32,
    fd: OwnedFd,
}

impl MapFacts {
    /// Its name, its room and its memory of now.
    fn read(&self) -> (String, u64, Option<u64>) {
        (self.name.clone(), u64::from(self.max_entries), memory(&self.fd))
    }
}

/// What the programs and maps of one object cost, by descriptors of its own: whoever reports it waits for nobody.
#[derive(Clone)]
pub struct ProgramFacts {
    table: ProgramTable,
    maps: Arc<Vec<MapFacts>>,
    entries: Arc<Entries>,
}

/// Maps whose use is worth knowing.
struct Entries {
    sockets: Option<HashMap<MapData, u64, SocketWords>>,
    targets: Option<HashMap<MapData, u32, [u64; 2]>>,
    ports: Option<HashMap<MapData, u16, u8>>,
    layouts: Option<HashMap<MapData, [u64; 2], u64>>,
}

impl ProgramFacts {
    /// Of an object's maps, before they are handed out, and of the programs that are loaded from now on.
    pub(super) fn new(ebpf: &Ebpf, object: &str, table: ProgramTable) -> Self {
        let mut maps: Vec<MapFacts> = ebpf
            .maps()
            .filter_map(|(name, map)| {
                let data = map_data(map)?;
                let fd = data.fd().as_fd().try_clone_to_owned().ok()?;
                let max_entries = data.info().ok()?.max_entries();
                Some(MapFacts { name: map_name(object, name), max_entries, fd })
            })
            .collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        let entries = Entries {
            sockets: twin(ebpf, "SOCKETS"),
            targets: twin(ebpf, "TARGETS"),
            ports: twin(ebpf, "PORTS"),
            layouts: twin(ebpf, "LAYOUTS"),
        };
        Self { table, maps: Arc::new(maps), entries: Arc::new(entries) }
    }

    /// Runs of each loaded program, by name.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramStats> {
        self.table.stats()
    }

    fn entries(&self) -> [(&'static str, Option<u64>); 4] {
        fn count<K: aya::Pod, V: aya::Pod>(map: Option<&HashMap<MapData, K, V>>) -> Option<u64> {
            map.map(|map| u64::try_from(map.keys().count()).unwrap_or(u64::MAX))
        }
        let Entries { sockets, targets, ports, layouts } = &*self.entries;
        [
            ("LAYOUTS", count(layouts.as_ref())),
            ("PORTS", count(ports.as_ref())),
            ("SOCKETS", count(sockets.as_ref())),
            ("TARGETS", count(targets.as_ref())),
        ]
    }
}

/// Another handle of a map.
fn twin<K: aya::Pod, V: aya::Pod>(ebpf: &Ebpf, name: &str) -> Option<HashMap<MapData, K, V>> {
    let map = ebpf.map(name)?;
    let fd = map_data(map)?.fd().as_fd().try_clone_to_owned().ok()?;
    let data = MapData::from_fd(fd).ok()?;
    let map = if matches!(map, Map::LruHashMap(_)) { Map::LruHashMap(data) } else { Map::HashMap(data) };
    HashMap::try_from(map).ok()
}

/// Maps of an object's sections (`.rodata`) have the same name in every object: theirs are told with it.
fn map_name(object: &str, name: &str) -> String {
    if name.starts_with('.') { format!("{object}{name}") } else { name.to_owned() }
}

/// Kernel memory of a map: `memlock` of `/proc/self/fdinfo/FD` (kernel/bpf/syscall.c, `bpf_map_show_fdinfo`).
fn memory(fd: &OwnedFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

/// The source of the families.
pub struct ProbeCollector {
    programs: Option<ProgramFacts>,
    host: Option<ProgramFacts>,
    counts: Option<Arc<Counts>>,
    board: ProbeBoard,
    own: Arc<own::SelfMetrics>,
}

impl ProbeCollector {
    /// Of programs that may not be there: those that observe targets, and those of the whole host.
    #[must_use]
    pub const fn new(
        programs: Option<ProgramFacts>,
        host: Option<ProgramFacts>,
        counts: Option<Arc<Counts>>,
        board: ProbeBoard,
        own: Arc<own::SelfMetrics>,
    ) -> Self {
        Self { programs, host, counts, board, own }
    }

    /// Takes over what the programs count, so that it is scraped in one family with what the daemon counts.
    fn take_counts(&self) {
        use own::LossReason as To;
        use rustok_obsd_ebpf::Counter as From;
        let Some(counts) = &self.counts else { return };
        for (from, to) in [
            (From::RingFull, To::RingFull),
            (From::SocketMapFull, To::SocketMapFull),
            (From::Unreadable, To::PayloadUnreadable),
            (From::TaskUnreadable, To::TaskUnreadable),
            (From::SpawnUnreadable, To::SpawnUnreadable),
        ] {
            self.own.lost.raise_to(to, counts.get(from));
        }
        self.own.refusals.raise_to(own::Refusal::Child, counts.get(From::ChildRefused));
        self.own.skipped.raise_to(own::SkipReason::WouldBlock, counts.get(From::WouldBlock));
        self.own.skipped.raise_to(own::SkipReason::OtherSocket, counts.get(From::OtherSocket));
    }
}

impl Collect for ProbeCollector {
    fn collect(&self, out: &mut Encoder<'_>) {
        self.take_counts();
        let written = self.counts.as_ref().map_or(0, |counts| counts.get(rustok_obsd_ebpf::Counter::Submitted));
        out.family(&own::RECORDS_WAITING).put([], self.own.waiting(written));
        out.family(&own::RECOVERING).put([], u64::from(self.own.is_recovering()));
        let objects = || self.programs.iter().chain(&self.host);
        let programs: Vec<ProgramStats> = objects().flat_map(ProgramFacts::programs).collect();
        let facts: Vec<_> = objects().flat_map(|object| object.maps.iter().map(MapFacts::read)).collect();
        let mut samples = out.family(&own::EBPF_PROGRAM_RUNS);
        for program in &programs {
            samples.put([program.name], program.runs);
        }
        let mut samples = out.family(&own::EBPF_PROGRAM_RUN_SECONDS);
        for program in &programs {
            let ns = u64::try_from(program.run_time.as_nanos()).unwrap_or(u64::MAX);
            samples.put([program.name], Value::Nanos(ns));
        }
        let mut samples = out.family(&own::EBPF_MAP_ENTRIES);
        for (name, entries) in self.programs.iter().flat_map(ProgramFacts::entries) {
            if let Some(entries) = entries {
                samples.put([name], entries);
            }
        }
        if !facts.is_empty() {
            let mut samples = out.family(&own::EBPF_MAP_MAX_ENTRIES);
            for (name, max_entries, _) in &facts {
                samples.put([name.as_str()], *max_entries);
            }
            let mut samples = out.family(&own::EBPF_MAP_MEMORY);
            for (name, _, memory) in &facts {
                if let Some(memory) = memory {
                    samples.put([name.as_str()], *memory);
                }
            }
        }
        let mut samples = out.family(&own::PROBE_STATE);
        for probe in self.board.all() {
            samples.put([&probe.probe, &probe.target, probe.state.as_str(), &probe.reason], 1u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_two_objects_are_two_series() {
        assert_ne!(map_name("host", ".rodata"), map_name("", ".rodata"));
        assert_eq!([map_name("host", "HOST_EVENTS"), map_name("", ".rodata")], ["HOST_EVENTS", ".rodata"]);
    }
}
