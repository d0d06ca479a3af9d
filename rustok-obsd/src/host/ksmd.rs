//! Pages of memory that the kernel merged.
//!
//! Reads: `/sys/kernel/mm/ksm` (Documentation/admin-guide/mm/ksm.rst). Yields: `node_ksmd_*`. Costs: ten small files.

use super::family::{counter, gauge};
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};

const SLEEP: &str = "sleep_millisecs";

/// File, family.
const FILES: [(&str, Family<'static>); 10] = [
    ("full_scans", counter("node_ksmd_full_scans_total", &[], "How many times all mergeable areas have been scanned.")),
    (
        "merge_across_nodes",
        gauge("node_ksmd_merge_across_nodes", &[], "Specifies if pages from different NUMA nodes can be merged."),
    ),
    ("pages_shared", gauge("node_ksmd_pages_shared", &[], "How many shared pages are being used.")),
    (
        "pages_sharing",
        gauge("node_ksmd_pages_sharing", &[], "How many more sites are sharing them i.e. how much saved."),
    ),
    ("pages_to_scan", gauge("node_ksmd_pages_to_scan", &[], "How many pages to scan before ksmd goes to sleep.")),
    (
        "pages_unshared",
        gauge("node_ksmd_pages_unshared", &[], "How many pages unique but repeatedly checked for merging."),
    ),
    (
        "pages_volatile",
        gauge("node_ksmd_pages_volatile", &[], "How many pages changing too fast to be placed in a tree."),
    ),
    ("run", gauge("node_ksmd_run", &[], "The status of ksmd. stopped = 0, running = 1")),
    (SLEEP, gauge("node_ksmd_sleep_seconds", &[], "How many seconds ksmd should sleep before next scan.")),
    (
        "general_profit",
        gauge(
            "node_ksmd_general_profit_bytes",
            &[],
            "How effective is KSM. ksm_saved_pages * sizeof(page) - (all_rmap_items) * sizeof(rmap_item)",
        ),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [FILES[0].1; FILES.len()];
    let mut at = 0;
    while at < FILES.len() {
        families[at] = FILES[at].1;
        at += 1;
    }
    families
};

struct Ksmd([KeptFile; FILES.len()]);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Ksmd(FILES.map(|(file, _)| KeptFile::new(settings.sysfs("kernel/mm/ksm").join(file)))))
}

impl Collector for Ksmd {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let (mut any, mut absent) = (false, None);
        for (file, (name, family)) in self.0.iter_mut().zip(&FILES) {
            let text = match file.read() {
                Ok(text) => text.trim_ascii(),
                // Which files there are depends on the kernel's version and on NUMA.
                Err(error @ CollectError::NoData(_)) => {
                    absent = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            any = true;
            let number = text::u64(text).map(|number| match *name {
                SLEEP => Value::Nanos(number.saturating_mul(1_000_000)),
                _ => Value::U64(number),
            });
            // The profit may be a loss.
            if let Some(number) = number.or_else(|| text::i64(text).map(Value::I64)) {
                out.family(family).put([], number);
            }
        }
        match absent {
            Some(absent) if !any => Err(absent),
            _ => Ok(()),
        }
    }
}
