//! What kind of CPUs these are, where asked for (`--collector.cpu.info`).
//!
//! Reads: `/proc/cpuinfo` (arch/*/kernel/cpu/proc.c). Yields: `node_cpu_info`, its flags and bugs that are wanted, and the
//! frequency where the collector cpufreq is on. Costs: on x86 the kernel measures each CPU's frequency for this file, up to
//! 10 ms; off by default.

use super::family::gauge;
use super::{CollectError, KeptFile, Settings, text};
use crate::config::collector::Pattern;
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its families.
pub const FAMILIES: [Family<'static>; 4] = [
    gauge(
        "node_cpu_info",
        &["package", "core", "cpu", "vendor", "family", "model", "model_name", "microcode", "stepping", "cachesize"],
        "CPU information from /proc/cpuinfo.",
    ),
    gauge("node_cpu_frequency_hertz", &["package", "core", "cpu"], "CPU frequency in hertz from /proc/cpuinfo."),
    gauge(
        "node_cpu_flag_info",
        &["flag"],
        "The `flags` field of CPU information from /proc/cpuinfo taken from the first core.",
    ),
    gauge(
        "node_cpu_bug_info",
        &["bug"],
        "The `bugs` field of CPU information from /proc/cpuinfo taken from the first core.",
    ),
];

/// Fields in the order of the labels of `node_cpu_info`.
const FIELDS: [&str; 10] = [
    "physical id",
    "core id",
    "processor",
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "microcode",
    "stepping",
    "cache size",
];
const PROCESSOR: usize = 2;

/// One CPU.
#[derive(Default)]
struct Cpu<'t> {
    labels: [&'t str; 10],
    megahertz: Option<f64>,
}

/// The file and what is wanted of it.
pub struct CpuInfo {
    file: KeptFile,
    flags: Pattern,
    bugs: Pattern,
    frequency: bool,
}

impl CpuInfo {
    /// By the options.
    pub fn new(settings: &Settings) -> Self {
        let options = &settings.options;
        let named = |list: &[String]| list.iter().any(|name| name == "cpufreq");
        Self {
            file: settings.kept_procfs("cpuinfo"),
            flags: options.cpu_flags_include.clone(),
            bugs: options.cpu_bugs_include.clone(),
            frequency: !named(&options.disable) && (!options.disable_defaults || named(&options.enable)),
        }
    }

    /// Writes its families.
    pub fn collect(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let content = self.file.read()?;
        let mut cpus: Vec<Cpu<'_>> = Vec::new();
        let (mut flags, mut bugs) = ("", "");
        for line in text::lines(content).filter_map(text::utf8) {
            let Some((name, value)) = line.split_once(':') else { continue };
            let (name, value) = (name.trim_end(), value.trim());
            let field = FIELDS.iter().position(|field| *field == name);
            if field == Some(PROCESSOR) {
                cpus.push(Cpu::default());
            }
            let first = cpus.len() == 1;
            let Some(cpu) = cpus.last_mut() else { continue };
            match (field, name) {
                (Some(field), _) => cpu.labels[field] = value,
                (_, "cpu MHz") => cpu.megahertz = value.parse().ok(),
                (_, "flags" | "Features") if first => flags = value,
                (_, "bugs") if first => bugs = value,
                _ => {}
            }
        }
        let mut samples = out.family(&FAMILIES[0]);
        for cpu in &cpus {
            samples.put(cpu.labels, 1u64);
        }
        if self.frequency {
            let mut samples = out.family(&FAMILIES[1]);
            for cpu in &cpus {
                if let Some(megahertz) = cpu.megahertz {
                    samples.put([cpu.labels[0], cpu.labels[1], cpu.labels[PROCESSOR]], megahertz * 1e6);
                }
            }
        }
        for (family, list, wanted) in [(&FAMILIES[2], flags, &self.flags), (&FAMILIES[3], bugs, &self.bugs)] {
            let mut samples = out.family(family);
            for name in list.split_ascii_whitespace().filter(|name| wanted.matches(name)) {
                samples.put([name], 1u64);
            }
        }
        Ok(())
    }
}
