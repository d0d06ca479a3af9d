//! What the programs and maps cost, as the kernel counts it.
//!
//! Reads: `bpf_prog_info` of our programs, keys of the small maps, `/proc/self/fdinfo` for map memory. Yields: the
//! `rustok_obsd_ebpf_*` and `rustok_obsd_probe_state` families. Costs: two system calls a program and one an entry, when
//! scraped.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};

use super::{
    host::HostPrograms,
    loader::{Counts, Programs},
    status::ProbeBoard,
};
use crate::{
    contract::own,
    exposition::{Collect, Encoder, Value},
};

/// A map as it was created.
#[derive(Debug)]
pub(super) struct MapFacts {
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

/// Facts of all maps of an object, before they are handed out.
pub(super) fn map_facts(ebpf: &Ebpf, object: &str) -> Vec<MapFacts> {
    let mut facts: Vec<MapFacts> = ebpf
        .maps()
        .filter_map(|(name, map)| {
            let data = data(map)?;
            let fd = data.fd().as_fd().try_clone_to_owned().ok()?;
            let max_entries = data.info().ok()?.max_entries();
            Some(MapFacts { name: map_name(object, name), max_entries, fd })
        })
        .collect();
    facts.sort_by(|a, b| a.name.cmp(&b.name));
    facts
}

/// Maps of an object's sections (`.rodata`) have the same name in every object: theirs are told with it.
fn map_name(object: &str, name: &str) -> String {
    if name.starts_with('.') { format!("{object}{name}") } else { name.to_owned() }
}

const fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) | Map::Array(data) => {
            Some(data)
        }
        _ => None,
    }
}

/// Kernel memory of a map: `memlock` of `/proc/self/fdinfo/FD` (kernel/bpf/syscall.c, `bpf_map_show_fdinfo`).
fn memory(fd: &OwnedFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

impl Programs {
    /// Entries of the maps whose use is worth knowing.
    fn map_entries(&self) -> [(&'static str, Option<u64>); 3] {
        let count = |keys: usize| u64::try_from(keys).unwrap_or(u64::MAX);
        let sockets = self
            .ebpf
            .map("SOCKETS")
            .and_then(|map| HashMap::<&MapData, u64, [u64; SOCKET_STATE_WORDS]>::try_from(map).ok())
            .map(|map| count(map.keys().count()));
        [
            ("PORTS", Some(count(self.ports.keys().count()))),
            ("SOCKETS", sockets),
            ("TARGETS", Some(count(self.targets.keys().count()))),
        ]
    }
}

/// Size of the programs' `SocketState` in words.
const SOCKET_STATE_WORDS: usize = 7;

/// The source of the families.
pub struct ProbeCollector {
    programs: Option<Arc<Mutex<Programs>>>,
    host: Option<Arc<Mutex<HostPrograms>>>,
    counts: Option<Arc<Counts>>,
    board: ProbeBoard,
    own: Arc<own::SelfMetrics>,
}

impl ProbeCollector {
    /// Of programs that may not be there.
    #[must_use]
    pub const fn new(
        programs: Option<Arc<Mutex<Programs>>>,
        counts: Option<Arc<Counts>>,
        board: ProbeBoard,
        own: Arc<own::SelfMetrics>,
    ) -> Self {
        Self { programs, host: None, counts, board, own }
    }

    /// The same, with the programs of the whole host.
    #[must_use]
    pub fn with_host(self, host: Option<Arc<Mutex<HostPrograms>>>) -> Self {
        Self { host, ..self }
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
        // The lock is held by whoever attaches a probe, for some ms: the numbers are read under it, written after it.
        let (mut programs, entries) = match &self.programs {
            Some(programs) => {
                let programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
                (programs.program_stats(), programs.map_entries().to_vec())
            }
            None => Default::default(),
        };
        let host = self.host.as_ref().map(|host| host.lock().unwrap_or_else(PoisonError::into_inner));
        let mut facts = Vec::new();
        if let Some(host) = host {
            programs.extend(host.program_stats());
            facts.extend(host.maps.iter().map(MapFacts::read));
        }
        let mut samples = out.family(&own::EBPF_PROGRAM_RUNS);
        for program in &programs {
            samples.put([program.name.as_str()], program.runs);
        }
        let mut samples = out.family(&own::EBPF_PROGRAM_RUN_SECONDS);
        for program in &programs {
            let ns = u64::try_from(program.run_time.as_nanos()).unwrap_or(u64::MAX);
            samples.put([program.name.as_str()], Value::Nanos(ns));
        }
        let mut samples = out.family(&own::EBPF_MAP_ENTRIES);
        for (name, entries) in entries {
            if let Some(entries) = entries {
                samples.put([name], entries);
            }
        }
        if let Some(programs) = &self.programs {
            let programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
            facts.extend(programs.maps.iter().map(MapFacts::read));
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
