//! Load averages.
//!
//! Reads: `/proc/loadavg` (fs/proc/loadavg.c). Yields: `node_load1`, `node_load5`, `node_load15`. Costs: one small file.

use super::{CollectError, Collector, Context, KeptFile, Settings, family::gauge, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    gauge("node_load1", &[], "1m load average."),
    gauge("node_load5", &[], "5m load average."),
    gauge("node_load15", &[], "15m load average."),
];

struct LoadAverage(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(LoadAverage(settings.kept_procfs("loadavg")))
}

impl Collector for LoadAverage {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let path = self.0.path().to_owned();
        let mut words = text::words(self.0.read()?);
        for family in FAMILIES {
            let load = words.next().and_then(text::f64);
            let load = load.ok_or_else(|| CollectError::format(&path, "does not begin with three numbers"))?;
            out.family(family).put([], load);
        }
        Ok(())
    }
}
