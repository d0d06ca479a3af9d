//! Controllers of cgroups.
//!
//! Reads: `/proc/cgroups` (kernel/cgroup/cgroup-v1.c). Yields: `node_cgroups_cgroups`, `node_cgroups_enabled`. Costs: one small
//! file.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its families, the column of each; both have the same help in node_exporter.
const COLUMNS: [(usize, Family<'static>); 2] = [
    (2, gauge("node_cgroups_cgroups", &["subsys_name"], "Current cgroup number of the subsystem.")),
    (3, gauge("node_cgroups_enabled", &["subsys_name"], "Current cgroup number of the subsystem.")),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[COLUMNS[0].1, COLUMNS[1].1];

struct Cgroups(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Cgroups(settings.kept_procfs("cgroups")))
}

impl Collector for Cgroups {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let content = self.0.read()?;
        for (column, family) in &COLUMNS {
            let mut samples = out.family(family);
            for line in text::lines(content).filter(|line| !line.starts_with(b"#")) {
                let name = text::words(line).next().and_then(text::utf8);
                if let (Some(name), Some(value)) = (name, text::words(line).nth(*column).and_then(text::u64)) {
                    samples.put([name], value);
                }
            }
        }
        Ok(())
    }
}
