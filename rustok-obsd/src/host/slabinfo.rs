//! Caches of the kernel's allocator.
//!
//! Reads: `/proc/slabinfo` (mm/slab_common.c), which only root may. Yields: `node_slabinfo_*`. Costs: one file of some 200
//! lines, for which the kernel walks its caches.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::config::collector::{Collectors, Filter};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its families, in the order of the columns.
pub const FAMILIES: &[Family<'static>] = &[
    gauge("node_slabinfo_active_objects", &["slab"], "The number of objects that are currently active (i.e., in use)."),
    gauge(
        "node_slabinfo_objects",
        &["slab"],
        "The total number of allocated objects (i.e., objects that are both in use and not in use).",
    ),
    gauge("node_slabinfo_object_size_bytes", &["slab"], "The size of objects in this slab, in bytes."),
    gauge("node_slabinfo_objects_per_slab", &["slab"], "The number of objects stored in each slab."),
    gauge("node_slabinfo_pages_per_slab", &["slab"], "The number of pages allocated for each slab."),
];

struct SlabInfo {
    file: KeptFile,
    filter: Filter,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let options = &settings.options;
    let filter = Collectors::filter(&options.slabinfo_slabs_include, &options.slabinfo_slabs_exclude);
    Box::new(SlabInfo { file: settings.kept_procfs("slabinfo"), filter })
}

impl Collector for SlabInfo {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let path = self.file.path().to_owned();
        let mut lines = text::lines(self.file.read()?);
        let head = lines.next().unwrap_or_default();
        if !head.starts_with(b"slabinfo - version: 2.") {
            return Err(CollectError::format(&path, "is not of version 2"));
        }
        let slab = |line| {
            let mut words = text::words(line);
            let name = words.next().and_then(text::utf8).filter(|name| *name != "#" && self.filter.wants(name))?;
            let mut numbers = [0; FAMILIES.len()];
            for number in &mut numbers {
                *number = words.next().and_then(text::u64)?;
            }
            Some((name, numbers))
        };
        let slabs: Vec<(&str, [u64; FAMILIES.len()])> = lines.filter_map(slab).collect();
        for (at, family) in FAMILIES.iter().enumerate() {
            let mut samples = out.family(family);
            slabs.iter().for_each(|(name, numbers)| samples.put([*name], numbers[at]));
        }
        Ok(())
    }
}
