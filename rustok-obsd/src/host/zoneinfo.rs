//! Pages of each zone of memory.
//!
//! Reads: `/proc/zoneinfo` (mm/vmstat.c). Yields: `node_zoneinfo_*`. Costs: one file, which grows with nodes and CPUs.

use super::family::{counter, gauge};
use super::named::Named;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;

const LABELS: &[&str] = &["node", "zone"];

macro_rules! fields {
    ($($field:literal $kind:ident $name:literal $help:literal,)+) => {
        /// Fields in the order of the families.
        const FIELDS: &[&str] = &[$($field,)+];
        /// Its families, but for `node_zoneinfo_protection_N`, whose number the kernel gives.
        pub const FAMILIES: &[Family<'static>] = &[$($kind($name, LABELS, $help),)+];
    };
}

fields! {
    "nr_free_pages" gauge "node_zoneinfo_nr_free_pages" "Total number of free pages in the zone",
    "min" gauge "node_zoneinfo_min_pages" "Zone watermark pages_min",
    "low" gauge "node_zoneinfo_low_pages" "Zone watermark pages_low",
    "high" gauge "node_zoneinfo_high_pages" "Zone watermark pages_high",
    "scanned" gauge "node_zoneinfo_scanned_pages" "Pages scanned since last reclaim",
    "spanned" gauge "node_zoneinfo_spanned_pages" "Total pages spanned by the zone, including holes",
    "present" gauge "node_zoneinfo_present_pages" "Physical pages existing within the zone",
    "managed" gauge "node_zoneinfo_managed_pages" "Present pages managed by the buddy system",
    "nr_active_anon" gauge "node_zoneinfo_nr_active_anon_pages" "Number of anonymous pages recently more used",
    "nr_inactive_anon" gauge "node_zoneinfo_nr_inactive_anon_pages" "Number of anonymous pages recently less used",
    "nr_isolated_anon" gauge "node_zoneinfo_nr_isolated_anon_pages" "Temporary isolated pages from anon lru",
    "nr_anon_pages" gauge "node_zoneinfo_nr_anon_pages" "Number of anonymous pages currently used by the system",
    "nr_anon_transparent_hugepages" gauge "node_zoneinfo_nr_anon_transparent_hugepages" "Number of anonymous transparent huge pages currently used by the system",
    "nr_active_file" gauge "node_zoneinfo_nr_active_file_pages" "Number of active pages with file-backing",
    "nr_inactive_file" gauge "node_zoneinfo_nr_inactive_file_pages" "Number of inactive pages with file-backing",
    "nr_isolated_file" gauge "node_zoneinfo_nr_isolated_file_pages" "Temporary isolated pages from file lru",
    "nr_file_pages" gauge "node_zoneinfo_nr_file_pages" "Number of file pages",
    "nr_slab_reclaimable" gauge "node_zoneinfo_nr_slab_reclaimable_pages" "Number of reclaimable slab pages",
    "nr_slab_unreclaimable" gauge "node_zoneinfo_nr_slab_unreclaimable_pages" "Number of unreclaimable slab pages",
    "nr_mlock_stack" gauge "node_zoneinfo_nr_mlock_stack_pages" "mlock()ed pages found and moved off LRU",
    "nr_kernel_stack" gauge "node_zoneinfo_nr_kernel_stacks" "Number of kernel stacks",
    "nr_mapped" gauge "node_zoneinfo_nr_mapped_pages" "Number of mapped pages",
    "nr_dirty" gauge "node_zoneinfo_nr_dirty_pages" "Number of dirty pages",
    "nr_writeback" gauge "node_zoneinfo_nr_writeback_pages" "Number of writeback pages",
    "nr_unevictable" gauge "node_zoneinfo_nr_unevictable_pages" "Number of unevictable pages",
    "nr_shmem" gauge "node_zoneinfo_nr_shmem_pages" "Number of shmem pages (included tmpfs/GEM pages)",
    "nr_dirtied" counter "node_zoneinfo_nr_dirtied_total" "Page dirtyings since bootup",
    "nr_written" counter "node_zoneinfo_nr_written_total" "Page writings since bootup",
    "numa_hit" counter "node_zoneinfo_numa_hit_total" "Allocated in intended node",
    "numa_miss" counter "node_zoneinfo_numa_miss_total" "Allocated in non intended node",
    "numa_foreign" counter "node_zoneinfo_numa_foreign_total" "Was intended here, hit elsewhere",
    "numa_interleave" counter "node_zoneinfo_numa_interleave_total" "Interleaver preferred this zone",
    "numa_local" counter "node_zoneinfo_numa_local_total" "Allocation from local node",
    "numa_other" counter "node_zoneinfo_numa_other_total" "Allocation from other node",
}

struct Zone {
    node: String,
    zone: String,
    values: [Option<u64>; FIELDS.len()],
    protection: Vec<u64>,
}

struct ZoneInfo {
    file: KeptFile,
    protection: Vec<Named>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(ZoneInfo { file: settings.kept_procfs("zoneinfo"), protection: Vec::new() })
}

fn zones(content: &[u8]) -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    for line in text::lines(content).filter_map(text::utf8) {
        if let Some((node, zone)) = line.strip_prefix("Node ").and_then(|line| line.split_once(", zone ")) {
            let (node, zone) = (node.trim().to_owned(), zone.trim().to_owned());
            zones.push(Zone { node, zone, values: [None; FIELDS.len()], protection: Vec::new() });
            continue;
        }
        let Some(zone) = zones.last_mut() else { continue };
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { continue };
        if name == "protection:" {
            let number = |word: &str| word.trim_matches(['(', ')', ',']).parse().ok();
            zone.protection = words.filter_map(number).collect();
        } else if let Some(at) = FIELDS.iter().position(|field| *field == name) {
            zone.values[at] = words.next().and_then(|word| word.parse().ok());
        }
    }
    zones
}

impl Collector for ZoneInfo {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let zones = zones(self.file.read()?);
        for (at, family) in FAMILIES.iter().enumerate() {
            let mut samples = out.family(family);
            for zone in &zones {
                if let Some(value) = zone.values[at] {
                    samples.put([zone.node.as_str(), &zone.zone], value);
                }
            }
        }
        let most = zones.iter().map(|zone| zone.protection.len()).max().unwrap_or(0);
        for at in self.protection.len()..most {
            let help = format!("Protection array {at}. field");
            self.protection.push(Named::new(&format!("node_zoneinfo_protection_{at}"), help));
        }
        for (at, named) in self.protection.iter().enumerate() {
            let family = named.family(Kind::Gauge, LABELS);
            let mut samples = out.family(&family);
            for zone in &zones {
                if let Some(pages) = zone.protection.get(at) {
                    samples.put([zone.node.as_str(), &zone.zone], *pages);
                }
            }
        }
        Ok(())
    }
}
