//! Swap and page faults.
//!
//! Reads: `/proc/swaps` (mm/swapfile.c), `/proc/vmstat`. Yields: `system_paging_*`. Costs: two files.
//!
//! Operations are pages swapped in and out; the kernel does not count them by type of fault, so that attribute is left out.

use super::{counter, gauge};
use crate::contract::Family;
use crate::exposition::Encoder;
use crate::host::{CollectError, KeptFile, Settings, text};

pub const USAGE: Family<'static> =
    gauge("system_paging_usage_bytes", "bytes", &["system_device", "system_paging_state"], "Unix swap usage.");
pub const FAULTS: Family<'static> =
    counter("system_paging_faults_total", "", &["system_paging_fault_type"], "The number of page faults.");
pub const OPERATIONS: Family<'static> = counter(
    "system_paging_operations_total",
    "",
    &["system_paging_direction"],
    "The number of paging operations: pages swapped in and out.",
);

const FIELDS: [&[u8]; 4] = [b"pgfault", b"pgmajfault", b"pswpin", b"pswpout"];

pub struct Paging {
    swaps: KeptFile,
    vmstat: KeptFile,
    /// The most that was told.
    minor: u64,
}

impl Paging {
    pub fn new(settings: &Settings) -> Self {
        Self { swaps: settings.kept_procfs("swaps"), vmstat: settings.kept_procfs("vmstat"), minor: 0 }
    }

    pub fn collect(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        // A kernel without swap has no such file.
        match self.swaps.read() {
            Ok(swaps) => usage(swaps, out),
            Err(CollectError::NoData(_)) => {}
            Err(error) => return Err(error),
        }
        let mut counts = [None; FIELDS.len()];
        for (name, rest) in text::fields(self.vmstat.read()?) {
            if let Some(at) = FIELDS.iter().position(|field| *field == name) {
                counts[at] = text::u64(rest.trim_ascii());
            }
        }
        let [all, major, swapped_in, swapped_out] = counts;
        if let Some((all, major)) = all.zip(major) {
            // A fault that is under way may be in the one count and not yet in the other: the difference runs back then.
            self.minor = self.minor.max(all.saturating_sub(major));
            let mut samples = out.family(&FAULTS);
            samples.put(["major"], major);
            samples.put(["minor"], self.minor);
        }
        let mut samples = out.family(&OPERATIONS);
        for (direction, count) in [("in", swapped_in), ("out", swapped_out)] {
            if let Some(count) = count {
                samples.put([direction], count);
            }
        }
        Ok(())
    }
}

/// `NAME TYPE SIZE USED PRIORITY`, in KiB; the head has no numbers.
fn usage(swaps: &[u8], out: &mut Encoder<'_>) {
    let mut samples = out.family(&USAGE);
    for line in text::lines(swaps) {
        let mut words = text::words(line);
        let Some(device) = words.next().and_then(text::utf8) else { continue };
        let mut bytes = words.skip(1).map(|word| text::u64(word).map(|kilobytes| kilobytes.saturating_mul(1024)));
        let (Some(Some(size)), Some(Some(used))) = (bytes.next(), bytes.next()) else { continue };
        samples.put([device, "used"], used);
        samples.put([device, "free"], size.saturating_sub(used));
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn minor_faults_do_not_run_back_and_a_kernel_without_swap_is_none_of_an_error() {
        let tree = Tree::new("otel", |_| {});
        let minor = |vmstat: &str| {
            tree.write("proc/vmstat", vmstat);
            let (text, success) = tree.scrape();
            assert!(success && !text.contains("system_paging_usage_bytes"), "{text}");
            let line = "system_paging_faults_total{system_paging_fault_type=\"minor\"} ";
            text.lines().find_map(|found| found.strip_prefix(line)).map(ToOwned::to_owned)
        };
        assert_eq!(minor("pgfault 10\npgmajfault 2\n").as_deref(), Some("8"));
        assert_eq!(minor("pgfault 10\npgmajfault 3\n").as_deref(), Some("8"));
        assert_eq!(minor("pgfault 12\npgmajfault 3\n").as_deref(), Some("9"));
        tree.write("proc/swaps", "Filename Type Size Used Priority\n/swap\\040file file 8 3 -2\n/short file 8\n");
        let text = tree.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("system_paging_usage")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[1].ends_with("system_paging_state=\"free\"} 5120"), "{text}");
    }
}
