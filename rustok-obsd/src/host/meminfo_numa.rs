//! Memory by node of NUMA.
//!
//! Reads: `/sys/devices/system/node/nodeN/{meminfo,numastat}` (drivers/base/node.c). Yields: `node_memory_numa_FIELD`. Costs: a
//! folder and two files per node; allocates, off by default.

use super::{Bag, CollectError, Collector, Context, Settings, read_once, text};
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;
use std::fs;
use std::path::PathBuf;

/// Its families have names that the kernel gives.
pub const FAMILIES: &[Family<'static>] = &[];

struct MemoryInfoNuma {
    folder: PathBuf,
    buffer: Vec<u8>,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let folder = settings.sysfs("devices/system/node");
    Box::new(MemoryInfoNuma { folder, buffer: Vec::new(), bag: Bag::default() })
}

impl MemoryInfoNuma {
    fn put(&mut self, kind: Kind, field: &str, node: &str, value: u64) {
        let help = format!("Memory information field {field}.");
        self.bag.put(&format!("node_memory_numa_{field}"), kind, &help, &[("node", node)], value);
    }

    fn node(&mut self, number: u32) -> Result<(), CollectError> {
        let folder = self.folder.join(format!("node{number}"));
        let node = number.to_string();
        let mut buffer = std::mem::take(&mut self.buffer);
        read_once(&folder.join("meminfo"), &mut buffer)?;
        // `Node 0 Active(anon):  123 kB`
        for line in text::lines(&buffer).filter_map(text::utf8) {
            let mut words = line.split_ascii_whitespace().skip(2);
            let (Some(field), Some(value)) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()))
            else {
                continue;
            };
            let field = field.trim_end_matches(':').replace('(', "_").replace(')', "");
            let factor = if words.next() == Some("kB") { 1024 } else { 1 };
            self.put(Kind::Gauge, &field, &node, value.saturating_mul(factor));
        }
        read_once(&folder.join("numastat"), &mut buffer)?;
        for (field, rest) in text::fields(&buffer) {
            if let (Some(field), Some(value)) = (text::utf8(field), text::u64(rest)) {
                self.put(Kind::Counter, &format!("{field}_total"), &node, value);
            }
        }
        self.buffer = buffer;
        Ok(())
    }
}

impl Collector for MemoryInfoNuma {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let entries = fs::read_dir(&self.folder).map_err(|error| CollectError::read(&self.folder, error))?;
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok();
        let mut nodes: Vec<u32> = entries.flatten().filter_map(number).collect();
        nodes.sort_unstable();
        let result = nodes.into_iter().try_for_each(|node| self.node(node));
        self.bag.write(out);
        result
    }
}
