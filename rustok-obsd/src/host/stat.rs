//! Counts of the kernel since boot.
//!
//! Reads: `/proc/stat` (fs/proc/stat.c). Yields: interrupts, context switches, forks, boot time, processes running and blocked;
//! soft interrupts by vector where asked for. Costs: one file; its length grows with the CPUs and interrupts.

use super::family::{counter, gauge};
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its families, with the line of each.
const LINES: [(&[u8], Family<'static>); 6] = [
    (b"intr", counter("node_intr_total", &[], "Total number of interrupts serviced.")),
    (b"ctxt", counter("node_context_switches_total", &[], "Total number of context switches.")),
    (b"processes", counter("node_forks_total", &[], "Total number of forks.")),
    (b"btime", gauge("node_boot_time_seconds", &[], "Node boot time, in unixtime.")),
    (b"procs_running", gauge("node_procs_running", &[], "Number of processes in runnable state.")),
    (b"procs_blocked", gauge("node_procs_blocked", &[], "Number of processes blocked waiting for I/O to complete.")),
];

const SOFTIRQS: Family<'static> = counter("node_softirqs_total", &["vector"], "Number of softirq calls.");

/// Vectors in the order of the line `softirq` (include/linux/interrupt.h).
const VECTORS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu"];

/// Its families.
pub const FAMILIES: &[Family<'static>] =
    &[LINES[0].1, LINES[1].1, LINES[2].1, LINES[3].1, LINES[4].1, LINES[5].1, SOFTIRQS];

struct Stat {
    file: KeptFile,
    softirq: bool,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Stat { file: settings.kept_procfs("stat"), softirq: settings.options.stat_softirq })
}

impl Collector for Stat {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        // Lines of CPUs come first and are another collector's.
        for line in text::lines(self.file.read()?) {
            let mut words = text::words(line);
            let name = words.next().unwrap_or_default();
            if let Some((_, family)) = LINES.iter().find(|(line, _)| *line == name) {
                if let Some(value) = words.next().and_then(text::u64) {
                    out.family(family).put([], value);
                }
            } else if self.softirq && name == b"softirq" {
                let mut samples = out.family(&SOFTIRQS);
                for (vector, count) in VECTORS.iter().zip(words.skip(1)) {
                    if let Some(count) = text::u64(count) {
                        samples.put([*vector], count);
                    }
                }
            }
        }
        Ok(())
    }
}
