//! CPUs.
//!
//! Reads: `/proc/stat`, as the collector [`cpu`](crate::host::cpu) does, and the CPUs' `topology` of sysfs. Yields:
//! `system_cpu_*`, and `system_process_created_total`, which stands in the same file. Costs: one file; the topology is read when
//! the set of CPUs changes.

use super::process::CREATED;
use super::{counter, gauge};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};
use crate::host::cpu::{Lines, TICK_NS};
use crate::host::{CollectError, KeptFile, Settings, attribute, cpus, text};
use std::path::Path;

pub const TIME: Family<'static> = counter(
    "system_cpu_time_seconds_total",
    "seconds",
    &["cpu_logical_number", "cpu_mode"],
    "Seconds each logical CPU spent on each mode.",
);
pub const LOGICAL: Family<'static> = gauge(
    "system_cpu_logical_count",
    "",
    &[],
    "Logical processor cores that the operating system has and that are on line.",
);
pub const PHYSICAL: Family<'static> =
    gauge("system_cpu_physical_count", "", &[], "Physical processor cores that have a logical one on line.");

/// Mode, the columns of `/proc/stat` that make it up: the conventions know one kind of interrupt, the kernel two.
const MODES: [(&str, &[usize]); 7] = [
    ("user", &[0]),
    ("system", &[2]),
    ("nice", &[1]),
    ("idle", &[3]),
    ("iowait", &[4]),
    ("interrupt", &[5, 6]),
    ("steal", &[7]),
];

pub struct Cpus {
    settings: Settings,
    stat: KeptFile,
    lines: Lines,
    /// 0: the machine does not say.
    physical: u64,
}

impl Cpus {
    pub fn new(settings: &Settings) -> Self {
        let (stat, lines) = (settings.kept_procfs("stat"), Lines::default());
        Self { settings: settings.clone(), stat, lines, physical: 0 }
    }

    pub fn collect(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let stat = self.stat.read()?;
        if self.lines.update(stat) {
            self.physical = physical(&self.settings);
        }
        let mut created = text::lines(stat).filter_map(|line| line.strip_prefix(b"processes "));
        if let Some(created) = created.next().and_then(|count| text::u64(count.trim_ascii())) {
            out.family(&CREATED).put([], created);
        }
        let lines = &self.lines.0;
        let mut samples = out.family(&TIME);
        for line in lines {
            for (mode, columns) in MODES {
                let ticks = columns.iter().fold(0u64, |sum, at| sum.saturating_add(line.ticks[*at]));
                samples.put([line.name.as_str(), mode], Value::Nanos(ticks.saturating_mul(TICK_NS)));
            }
        }
        out.family(&LOGICAL).put([], lines.len() as u64);
        if self.physical > 0 {
            out.family(&PHYSICAL).put([], self.physical);
        }
        Ok(())
    }
}

/// How many cores the logical CPUs are of. CPUs that are off line have no topology.
fn physical(settings: &Settings) -> u64 {
    let core = |folder: &Path| {
        let file = |name: &str| attribute(&folder.join("topology").join(name)).filter(|text| !text.is_empty());
        // Numbers of cores may come twice in a package (clusters of Arm); lists of siblings do not. The second is an old name.
        file("core_cpus_list")
            .or_else(|| file("thread_siblings_list"))
            .or_else(|| Some(format!("{} {}", file("physical_package_id")?, file("core_id")?)))
    };
    let mut cores: Vec<String> = cpus::folders(settings).iter().filter_map(|(_, folder)| core(folder)).collect();
    cores.sort_unstable();
    cores.dedup();
    cores.len() as u64
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn threads_of_a_core_are_one_physical_and_cpus_off_line_are_none() {
        let tree = Tree::new("otel", |_| {});
        tree.write("proc/stat", "cpu 1\ncpu0 1 2 3 4 5 6 7 8\ncpu1 1\ncpu2 1\nprocesses 9\n");
        for (cpu, siblings, core) in [(0, "0,2", 0), (1, "1", 0), (2, "0,2", 0)] {
            let path = |file: &str| format!("sys/devices/system/cpu/cpu{cpu}/topology/{file}");
            tree.write(&path("core_cpus_list"), siblings);
            tree.write(&path("physical_package_id"), "-1\n");
            tree.write(&path("core_id"), &core.to_string());
        }
        std::fs::create_dir_all(tree.path("sys/devices/system/cpu/cpu3")).unwrap();
        let (text, success) = tree.scrape();
        assert!(success);
        for line in [
            "system_cpu_logical_count 3\n",
            "system_cpu_physical_count 2\n",
            "system_cpu_time_seconds_total{cpu_logical_number=\"0\",cpu_mode=\"interrupt\"} 0.13\n",
            "system_process_created_total 9\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
