//! Caches of the network, by CPU.
//!
//! Reads: the files of `/proc/net/stat`, as iproute2's lnstat does. Yields: `node_lnstat_COLUMN_total`. Costs: a folder and a
//! file per cache; allocates, off by default.

use super::{Bag, CollectError, Collector, Context, Settings, read_once, text};
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;
use std::fs;
use std::path::PathBuf;

/// Its families have names that the kernel gives.
pub const FAMILIES: &[Family<'static>] = &[];

struct LnStat {
    folder: PathBuf,
    buffer: Vec<u8>,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(LnStat { folder: settings.procfs("net/stat"), buffer: Vec::new(), bag: Bag::default() })
}

impl Collector for LnStat {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let entries = fs::read_dir(&self.folder).map_err(|error| CollectError::read(&self.folder, error))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort_unstable();
        for path in files {
            let Some(cache) = path.file_name().and_then(|name| name.to_str()) else { continue };
            read_once(&path, &mut self.buffer)?;
            let mut lines = text::lines(&self.buffer);
            let head = lines.next().unwrap_or_default();
            for (cpu, line) in lines.enumerate() {
                let cpu = cpu.to_string();
                for (name, number) in text::words(head).filter_map(text::utf8).zip(text::words(line)) {
                    if let Some(number) = text::hex(number) {
                        let labels = [("subsystem", cache), ("cpu", &*cpu)];
                        let name = format!("node_lnstat_{name}_total");
                        self.bag.put(&name, Kind::Counter, "linux network cache stats", &labels, number);
                    }
                }
            }
        }
        self.bag.write(out);
        Ok(())
    }
}
