//! Memory.
//!
//! Reads: `/proc/meminfo` (fs/proc/meminfo.c). Yields: `node_memory_FIELD_bytes` for the fixed list of fields that
//! node_exporter has since 1.9, and the counts of huge pages. Costs: one file.

use super::{CollectError, Collector, Context, KeptFile, Settings, family::gauge, text};
use crate::contract::Family;
use crate::exposition::Encoder;

macro_rules! fields {
    (kilobytes: $($field:literal $name:literal,)+ counts: $($count:literal,)+) => {
        /// Field of the file, factor, family.
        const FIELDS: &[(&str, u64, Family<'static>)] = &[
            $(($field, 1024, gauge(
                concat!("node_memory_", $name, "_bytes"),
                &[],
                concat!("Memory information field ", $name, "_bytes."),
            )),)+
            $(($count, 1, gauge(
                concat!("node_memory_", $count),
                &[],
                concat!("Memory information field ", $count, "."),
            )),)+
        ];

        /// Its families.
        pub const FAMILIES: &[Family<'static>] = &{
            let mut families = [FIELDS[0].2; FIELDS.len()];
            let mut at = 0;
            while at < FIELDS.len() {
                families[at] = FIELDS[at].2;
                at += 1;
            }
            families
        };
    };
}

fields! {
    kilobytes:
    "MemTotal" "MemTotal", "MemFree" "MemFree", "MemAvailable" "MemAvailable", "Buffers" "Buffers", "Cached" "Cached",
    "SwapCached" "SwapCached", "Active" "Active", "Inactive" "Inactive", "Active(anon)" "Active_anon",
    "Inactive(anon)" "Inactive_anon", "Active(file)" "Active_file", "Inactive(file)" "Inactive_file",
    "Unevictable" "Unevictable", "Mlocked" "Mlocked", "SwapTotal" "SwapTotal", "SwapFree" "SwapFree", "Zswap" "Zswap",
    "Zswapped" "Zswapped", "Dirty" "Dirty", "Writeback" "Writeback", "AnonPages" "AnonPages", "Mapped" "Mapped",
    "Shmem" "Shmem", "Slab" "Slab", "SReclaimable" "SReclaimable", "SUnreclaim" "SUnreclaim",
    "KernelStack" "KernelStack", "PageTables" "PageTables", "NFS_Unstable" "NFS_Unstable", "Bounce" "Bounce",
    "WritebackTmp" "WritebackTmp", "CommitLimit" "CommitLimit", "Committed_AS" "Committed_AS",
    "VmallocTotal" "VmallocTotal", "VmallocUsed" "VmallocUsed", "VmallocChunk" "VmallocChunk", "Percpu" "Percpu",
    "HardwareCorrupted" "HardwareCorrupted", "AnonHugePages" "AnonHugePages", "ShmemHugePages" "ShmemHugePages",
    "ShmemPmdMapped" "ShmemPmdMapped", "CmaTotal" "CmaTotal", "CmaFree" "CmaFree", "Hugepagesize" "Hugepagesize",
    "DirectMap4k" "DirectMap4k", "DirectMap2M" "DirectMap2M", "DirectMap1G" "DirectMap1G",
    counts:
    "HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp",
}

struct MemoryInfo(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(MemoryInfo(settings.kept_procfs("meminfo")))
}

impl Collector for MemoryInfo {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        // The kernel's order and ours agree mostly: the search begins where the last one ended.
        let mut next = 0;
        for (name, rest) in text::fields(self.0.read()?) {
            let ahead = FIELDS[next..].iter().position(|(field, ..)| field.as_bytes() == name).map(|at| next + at);
            let found = ahead.or_else(|| FIELDS.iter().position(|(field, ..)| field.as_bytes() == name));
            let (Some(at), Some(value)) = (found, text::words(rest).next().and_then(text::u64)) else {
                continue;
            };
            let (_, factor, family) = &FIELDS[at];
            out.family(family).put([], value.saturating_mul(*factor));
            next = at + 1;
        }
        Ok(())
    }
}
