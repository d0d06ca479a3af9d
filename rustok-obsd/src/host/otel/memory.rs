//! Memory.
//!
//! Reads: `/proc/meminfo`. Yields: `system_memory_*`. Costs: one file.
//!
//! `used` is what the conventions say: all but what is available. So the states do not make up the limit: what the caches can
//! give back is in `free`, `buffers` and `cached`, and slabs are told apart.

use super::gauge;
use crate::contract::Family;
use crate::exposition::Encoder;
use crate::host::{CollectError, KeptFile, Settings, text};

pub const USAGE: Family<'static> =
    gauge("system_memory_usage_bytes", "bytes", &["system_memory_state"], "Reports memory in use by state.");
pub const LIMIT: Family<'static> =
    gauge("system_memory_limit_bytes", "bytes", &[], "Total memory available in the system.");
pub const AVAILABLE: Family<'static> = gauge(
    "system_memory_linux_available_bytes",
    "bytes",
    &[],
    "An estimate of how much memory is available for starting new applications, without causing swapping.",
);
pub const SLAB: Family<'static> = gauge(
    "system_memory_linux_slab_usage_bytes",
    "bytes",
    &["system_memory_linux_slab_state"],
    "Reports the memory used by the Linux kernel for managing caches of frequently used objects.",
);

const FIELDS: [&[u8]; 7] =
    [b"MemTotal", b"MemFree", b"MemAvailable", b"Buffers", b"Cached", b"SReclaimable", b"SUnreclaim"];

pub struct Memory(KeptFile);

impl Memory {
    pub fn new(settings: &Settings) -> Self {
        Self(settings.kept_procfs("meminfo"))
    }

    pub fn collect(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut bytes = [None; FIELDS.len()];
        for (name, rest) in text::fields(self.0.read()?) {
            if let Some(at) = FIELDS.iter().position(|field| *field == name) {
                let kilobytes = text::words(rest).next().and_then(text::u64);
                bytes[at] = kilobytes.map(|kilobytes| kilobytes.saturating_mul(1024));
            }
        }
        let [total, free, available, buffers, cached, reclaimable, unreclaimable] = bytes;
        // Before Linux 3.14 there is no estimate of what is available; the conventions name this instead.
        let unused = available.or_else(|| Some(free?.saturating_add(buffers?).saturating_add(cached?)));
        let used = total.zip(unused).map(|(total, unused)| total.saturating_sub(unused));
        let states = [("used", used), ("free", free), ("buffers", buffers), ("cached", cached)];
        let slabs = [("reclaimable", reclaimable), ("unreclaimable", unreclaimable)];
        for (family, values) in [(&USAGE, states.as_slice()), (&SLAB, &slabs)] {
            let mut samples = out.family(family);
            for (state, value) in values {
                if let Some(value) = value {
                    samples.put([*state], *value);
                }
            }
        }
        for (family, value) in [(&LIMIT, total), (&AVAILABLE, available)] {
            if let Some(value) = value {
                out.family(family).put([], value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn what_is_used_is_what_is_not_available() {
        let tree = Tree::new("otel", |_| {});
        tree.write(
            "proc/meminfo",
            "MemTotal: 100 kB\nMemFree: 20 kB\nMemAvailable: 70 kB\nBuffers: x\nCached: 40 kB\n",
        );
        let text = tree.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("system_memory_")).collect();
        assert_eq!(
            lines,
            [
                "system_memory_usage_bytes{system_memory_state=\"used\"} 30720",
                "system_memory_usage_bytes{system_memory_state=\"free\"} 20480",
                "system_memory_usage_bytes{system_memory_state=\"cached\"} 40960",
                "system_memory_limit_bytes 102400",
                "system_memory_linux_available_bytes 71680",
            ]
        );
    }
}
