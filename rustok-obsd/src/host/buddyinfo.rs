//! Free blocks of memory by size.
//!
//! Reads: `/proc/buddyinfo` (mm/vmstat.c). Yields: `node_buddyinfo_blocks`. Costs: one small file.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its family.
pub const FAMILIES: &[Family<'static>] =
    &[gauge("node_buddyinfo_blocks", &["node", "zone", "size"], "Count of free blocks according to size.")];

struct BuddyInfo(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(BuddyInfo(settings.kept_procfs("buddyinfo")))
}

impl Collector for BuddyInfo {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut samples = out.family(&FAMILIES[0]);
        // `Node 0, zone  Normal  4381 1093 …`
        for line in text::lines(self.0.read()?).filter_map(text::utf8) {
            let mut words = line.split_ascii_whitespace();
            let node = words.nth(1).unwrap_or_default().trim_end_matches(',');
            let Some(zone) = words.nth(1) else { continue };
            for (size, count) in words.enumerate() {
                if let Some(count) = text::u64(count.as_bytes()) {
                    samples.put([node, zone, itoa::Buffer::new().format(size)], count);
                }
            }
        }
        Ok(())
    }
}
