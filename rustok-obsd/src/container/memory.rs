//! Memory of a cgroup.
//!
//! Reads: v1 `memory.{stat,usage_in_bytes,max_usage_in_bytes,failcnt,kmem.usage_in_bytes}`; v2
//! `memory.{stat,current,peak,swap.current,events}`. Yields: [`Memory`], by cAdvisor's formulas: the working set is usage
//! without inactive pages of files, and never below 0. Costs: five small files, of which `memory.stat` is the dearest.

use super::files::{Files, Reader, Source};
use crate::host::text;

/// Memory, bytes; what the kernel does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub usage: Option<u64>,
    /// Without pages that can go at once.
    pub working_set: Option<u64>,
    /// The most that `usage` was.
    pub peak: Option<u64>,
    /// Pages of files.
    pub cache: Option<u64>,
    /// Other pages.
    pub rss: Option<u64>,
    /// Mapped pages of files.
    pub mapped: Option<u64>,
    /// Swap.
    pub swap: Option<u64>,
    /// The kernel's.
    pub kernel: Option<u64>,
    /// Pages of files in use.
    pub active_file: Option<u64>,
    /// Pages of files not in use.
    pub inactive_file: Option<u64>,
    /// Changed, not written.
    pub dirty: Option<u64>,
    /// Being written.
    pub writeback: Option<u64>,
    /// Times that the limit was hit.
    pub failures: Option<u64>,
    /// Page faults, of itself and with its children.
    pub faults: Option<[u64; 2]>,
    /// Those with a read.
    pub major_faults: Option<[u64; 2]>,
    /// Pages looked at to be freed.
    pub scanned: Option<u64>,
    /// Pages freed.
    pub stolen: Option<u64>,
    /// Pages of files that came back.
    pub refault_file: Option<u64>,
    /// Other pages that came back.
    pub refault_anon: Option<u64>,
    /// Times throttled.
    pub events_high: Option<u64>,
    /// Times at the limit.
    pub events_max: Option<u64>,
}

impl Memory {
    /// Reads it.
    #[must_use]
    pub fn read(id: &str, files: &mut Files, reader: &mut Reader) -> Self {
        let v2 = reader.is_v2(Source::MemoryStat);
        let mut memory = match reader.read(id, files, Source::MemoryStat) {
            Some(text) if v2 => Self::of_v2(text),
            Some(text) => Self::of_v1(text),
            None => return Self::default(),
        };
        let number = |text: &[u8]| text::u64(text.trim_ascii());
        memory.usage = reader.read(id, files, Source::MemoryUsage).and_then(number);
        if v2 && memory.usage.is_none() {
            // The root has no memory.current.
            memory.usage = Some(memory.rss.unwrap_or_default() + memory.cache.unwrap_or_default());
        }
        memory.peak = reader.read(id, files, Source::MemoryPeak).and_then(number);
        if v2 {
            memory.failures = Some(0);
            memory.swap = reader.read(id, files, Source::MemorySwap).and_then(number);
            if let Some(text) = reader.read(id, files, Source::MemoryEvents) {
                for (name, value) in text::fields(text) {
                    match name {
                        b"high" => memory.events_high = text::u64(value),
                        b"max" => memory.events_max = text::u64(value),
                        _ => {}
                    }
                }
            }
        } else {
            memory.failures = reader.read(id, files, Source::MemoryFailures).and_then(number);
            memory.kernel = reader.read(id, files, Source::MemoryKernel).and_then(number);
        }
        memory.working_set = memory.usage.map(|usage| usage.saturating_sub(memory.inactive_file.unwrap_or_default()));
        memory
    }

    fn of_v1(text: &[u8]) -> Self {
        let (mut found, mut faults, mut major) = (Self::default(), [None; 2], [None; 2]);
        for (name, value) in text::fields(text) {
            let place = match name {
                b"pgfault" => &mut faults[0],
                b"total_pgfault" => &mut faults[1],
                b"pgmajfault" => &mut major[0],
                b"total_pgmajfault" => &mut major[1],
                b"total_cache" => &mut found.cache,
                b"total_rss" => &mut found.rss,
                b"total_mapped_file" => &mut found.mapped,
                b"total_swap" => &mut found.swap,
                b"total_active_file" => &mut found.active_file,
                b"total_inactive_file" => &mut found.inactive_file,
                b"total_dirty" => &mut found.dirty,
                b"total_writeback" => &mut found.writeback,
                b"total_workingset_refault_file" => &mut found.refault_file,
                b"total_workingset_refault_anon" => &mut found.refault_anon,
                _ => continue,
            };
            *place = text::u64(value);
        }
        found.faults = both(faults);
        found.major_faults = both(major);
        found
    }

    /// All of v2's values are with the children: both scopes are the same, as cAdvisor has it.
    fn of_v2(text: &[u8]) -> Self {
        let (mut found, mut faults, mut major) = (Self::default(), None, None);
        for (name, value) in text::fields(text) {
            let place = match name {
                b"pgfault" => &mut faults,
                b"pgmajfault" => &mut major,
                b"file" => &mut found.cache,
                b"anon" => &mut found.rss,
                b"file_mapped" => &mut found.mapped,
                b"kernel" => &mut found.kernel,
                b"active_file" => &mut found.active_file,
                b"inactive_file" => &mut found.inactive_file,
                b"file_dirty" => &mut found.dirty,
                b"file_writeback" => &mut found.writeback,
                b"pgscan" => &mut found.scanned,
                b"pgsteal" => &mut found.stolen,
                b"workingset_refault_file" => &mut found.refault_file,
                b"workingset_refault_anon" => &mut found.refault_anon,
                _ => continue,
            };
            *place = text::u64(value);
        }
        found.faults = both([faults; 2]);
        found.major_faults = both([major; 2]);
        found
    }
}

fn both([own, all]: [Option<u64>; 2]) -> Option<[u64; 2]> {
    Some([own?, all?])
}

/// Limits, bytes; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySpec {
    /// Whether there are limits at all.
    pub there: bool,
    /// Of memory.
    pub limit: u64,
    /// What is left to it.
    pub reservation: u64,
    /// Of memory and swap together in v1, of swap in v2.
    pub swap: u64,
}

/// What is beyond is no limit: the kernel rounds the greatest number in its own way.
const UNLIMITED: u64 = 1 << 62;

impl MemorySpec {
    /// Reads them.
    #[must_use]
    pub fn read(id: &str, files: &mut Files, reader: &mut Reader) -> Self {
        let limit = |text: Option<&[u8]>| {
            text.and_then(|text| text::u64(text.trim_ascii())).filter(|limit| *limit <= UNLIMITED).unwrap_or_default()
        };
        let first = reader.read(id, files, Source::MemoryLimit);
        let there = first.is_some();
        Self {
            there,
            limit: limit(first),
            reservation: limit(reader.read(id, files, Source::MemoryReservation)),
            swap: limit(reader.read(id, files, Source::MemorySwapLimit)),
        }
    }
}
