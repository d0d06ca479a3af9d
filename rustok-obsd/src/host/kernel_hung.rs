//! Tasks that hung.
//!
//! Reads: `/proc/sys/kernel/hung_task_detect_count` (kernel/hung_task.c, since Linux 6.13). Yields:
//! `node_kernel_hung_tasks_total`. Costs: one small file.

use super::family::counter;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its family.
pub const FAMILIES: &[Family<'static>] = &[counter(
    "node_kernel_hung_tasks_total",
    &[],
    "Total number of tasks that have been detected as hung since the system booted.",
)];

struct KernelHung(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(KernelHung(settings.kept_procfs("sys/kernel/hung_task_detect_count")))
}

impl Collector for KernelHung {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let count = text::u64(self.0.read()?.trim_ascii());
        out.family(&FAMILIES[0]).put([], count.ok_or_else(|| CollectError::format(self.0.path(), "is no number"))?);
        Ok(())
    }
}
