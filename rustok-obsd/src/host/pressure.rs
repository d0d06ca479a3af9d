//! Time that tasks waited for a resource (pressure stall information).
//!
//! Reads: `/proc/pressure/{cpu,io,memory,irq}` (Documentation/accounting/psi.rst). Yields: `node_pressure_*`. Costs: four small
//! files. A kernel without it, or with it switched off (`psi=0`), has no data.

use super::family::counter;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};
use std::io;

/// File, families of its lines `some` and `full`. All CPUs cannot wait for a CPU.
const RESOURCES: [(&str, Option<Family<'static>>, Option<Family<'static>>); 4] = [
    (
        "cpu",
        Some(counter(
            "node_pressure_cpu_waiting_seconds_total",
            &[],
            "Total time in seconds that processes have waited for CPU time",
        )),
        None,
    ),
    (
        "io",
        Some(counter(
            "node_pressure_io_waiting_seconds_total",
            &[],
            "Total time in seconds that processes have waited due to IO congestion",
        )),
        Some(counter(
            "node_pressure_io_stalled_seconds_total",
            &[],
            "Total time in seconds no process could make progress due to IO congestion",
        )),
    ),
    (
        "memory",
        Some(counter(
            "node_pressure_memory_waiting_seconds_total",
            &[],
            "Total time in seconds that processes have waited for memory",
        )),
        Some(counter(
            "node_pressure_memory_stalled_seconds_total",
            &[],
            "Total time in seconds no process could make progress due to memory congestion",
        )),
    ),
    (
        "irq",
        None,
        Some(counter(
            "node_pressure_irq_stalled_seconds_total",
            &[],
            "Total time in seconds no process could make progress due to IRQ congestion",
        )),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [const { counter("", &[], "") }; 6];
    let (mut at, mut resource) = (0, 0);
    while resource < RESOURCES.len() {
        if let Some(family) = RESOURCES[resource].1 {
            families[at] = family;
            at += 1;
        }
        if let Some(family) = RESOURCES[resource].2 {
            families[at] = family;
            at += 1;
        }
        resource += 1;
    }
    families
};

struct Pressure([KeptFile; RESOURCES.len()]);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Pressure(RESOURCES.map(|(file, ..)| KeptFile::new(settings.procfs("pressure").join(file)))))
}

impl Collector for Pressure {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut any = false;
        for (file, (_, some, full)) in self.0.iter_mut().zip(&RESOURCES) {
            let text = match file.read_raw() {
                Ok(text) => text,
                // Not built in, off, or too old for this resource.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => continue,
                Err(error) => return Err(CollectError::read(file.path(), error)),
            };
            any = true;
            for line in text::lines(text) {
                let mut words = text::words(line);
                let family = match words.next() {
                    Some(b"some") => some,
                    Some(b"full") => full,
                    _ => continue,
                };
                let total = words.find_map(|word| word.strip_prefix(b"total=")).and_then(text::u64);
                if let (Some(family), Some(total)) = (family, total) {
                    out.family(family).put([], Value::Nanos(total.saturating_mul(1000)));
                }
            }
        }
        if any {
            Ok(())
        } else {
            Err(CollectError::NoData("the kernel has no pressure stall information, or psi=0".into()))
        }
    }
}
