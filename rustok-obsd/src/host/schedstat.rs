//! Time that the scheduler gave and that tasks waited for it.
//!
//! Reads: `/proc/schedstat` (Documentation/scheduler/sched-stats.rst). Yields: `node_schedstat_*`. Costs: one file, which grows
//! with the square of the CPUs' topology.

use super::family::counter;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    counter("node_schedstat_running_seconds_total", &["cpu"], "Number of seconds CPU spent running a process."),
    counter(
        "node_schedstat_waiting_seconds_total",
        &["cpu"],
        "Number of seconds spent by processing waiting for this CPU.",
    ),
    counter("node_schedstat_timeslices_total", &["cpu"], "Number of timeslices executed by CPU."),
];

/// The last three of the numbers that all versions have.
const SKIPPED: usize = 6;

struct SchedStat {
    file: KeptFile,
    /// CPU; running ns, waiting ns, time slices.
    cpus: Vec<(u64, [Value; 3])>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(SchedStat { file: settings.kept_procfs("schedstat"), cpus: Vec::new() })
}

impl Collector for SchedStat {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.cpus.clear();
        for line in text::lines(self.file.read()?) {
            let Some(line) = line.strip_prefix(b"cpu") else { continue };
            let mut numbers = text::words(line).map_while(text::u64);
            let Some(cpu) = numbers.next() else { continue };
            let mut numbers = numbers.skip(SKIPPED);
            if let (Some(running), Some(waiting), Some(slices)) = (numbers.next(), numbers.next(), numbers.next()) {
                self.cpus.push((cpu, [Value::Nanos(running), Value::Nanos(waiting), Value::U64(slices)]));
            }
        }
        for (at, family) in FAMILIES.iter().enumerate() {
            let mut samples = out.family(family);
            for (cpu, values) in &self.cpus {
                samples.put([itoa::Buffer::new().format(*cpu)], values[at]);
            }
        }
        Ok(())
    }
}
