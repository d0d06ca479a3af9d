//! Soft interrupts by CPU.
//!
//! Reads: `/proc/softirqs` (fs/proc/softirqs.c). Yields: `node_softirqs_functions_total`. Costs: one file of ten lines, with a
//! column per possible CPU.

use super::family::counter;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its family.
pub const FAMILIES: &[Family<'static>] =
    &[counter("node_softirqs_functions_total", &["cpu", "type"], "Softirq counts per CPU.")];

struct SoftIrqs(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(SoftIrqs(settings.kept_procfs("softirqs")))
}

impl Collector for SoftIrqs {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut lines = text::lines(self.0.read()?);
        let head = lines.next().unwrap_or_default();
        let mut samples = out.family(&FAMILIES[0]);
        for line in lines {
            let mut words = text::words(line);
            let Some(name) = words.next().and_then(|word| text::utf8(word)?.strip_suffix(':')) else { continue };
            for (cpu, number) in super::interrupts::cpus(head).zip(words) {
                if let Some(number) = text::u64(number) {
                    samples.put([cpu, name], number);
                }
            }
        }
        Ok(())
    }
}
