//! Frequencies of the CPUs and what governs them.
//!
//! Reads: `/sys/devices/system/cpu/cpuN/cpufreq` (Documentation/admin-guide/pm/cpufreq.rst). Yields: `node_cpu_frequency_*`,
//! `node_cpu_scaling_*`. Costs: up to five files per policy, which CPUs may share; limits of the hardware are read once per
//! change of the CPUs. One file where there is no frequency to govern, as in most virtual machines.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, attribute, cpus, text};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::fs;
use std::path::PathBuf;

/// Its families; all but the last by the file of the same place.
pub const FAMILIES: &[Family<'static>] = &[
    gauge("node_cpu_frequency_hertz", &["cpu"], "Current CPU thread frequency in hertz."),
    gauge("node_cpu_scaling_frequency_hertz", &["cpu"], "Current scaled CPU thread frequency in hertz."),
    gauge("node_cpu_scaling_frequency_min_hertz", &["cpu"], "Minimum scaled CPU thread frequency in hertz."),
    gauge("node_cpu_scaling_frequency_max_hertz", &["cpu"], "Maximum scaled CPU thread frequency in hertz."),
    gauge("node_cpu_frequency_min_hertz", &["cpu"], "Minimum CPU thread frequency in hertz."),
    gauge("node_cpu_frequency_max_hertz", &["cpu"], "Maximum CPU thread frequency in hertz."),
    GOVERNOR,
];
const GOVERNOR: Family<'static> =
    gauge("node_cpu_scaling_governor", &["cpu", "governor"], "Current enabled CPU frequency governor.");

/// Files that change, in the order of the families; then those that do not.
const FILES: [&str; 6] = [
    "cpuinfo_cur_freq",
    "scaling_cur_freq",
    "scaling_min_freq",
    "scaling_max_freq",
    "cpuinfo_min_freq",
    "cpuinfo_max_freq",
];
const CHANGING: usize = 4;

/// A group of CPUs with one frequency.
struct Policy {
    folder: PathBuf,
    cpus: Vec<String>,
    files: [Option<KeptFile>; CHANGING],
    /// kHz, in the order of the files.
    values: [Option<u64>; FILES.len()],
    governor: KeptFile,
    governors: Vec<String>,
}

impl Policy {
    fn new(folder: PathBuf) -> Self {
        let number = |file: &str| text::u64(attribute(&folder.join(file))?.as_bytes());
        let file = |at: usize| number(FILES[at]).map(|_| KeptFile::new(folder.join(FILES[at])));
        let governors = attribute(&folder.join("scaling_available_governors")).unwrap_or_default();
        Self {
            cpus: Vec::new(),
            files: std::array::from_fn(file),
            values: FILES.map(number),
            governor: KeptFile::new(folder.join("scaling_governor")),
            governors: governors.split_ascii_whitespace().map(Into::into).collect(),
            folder,
        }
    }

    fn refresh(&mut self) {
        for (file, value) in self.files.iter_mut().zip(&mut self.values) {
            if let Some(file) = file {
                *value = file.read_raw().ok().and_then(|text| text::u64(text.trim_ascii()));
            }
        }
    }
}

struct CpuFreq {
    settings: Settings,
    /// Its text is another when CPUs come or go.
    online: KeptFile,
    known: Vec<u8>,
    policies: Vec<Policy>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let online = KeptFile::new(settings.sysfs("devices/system/cpu/online"));
    Box::new(CpuFreq { settings: settings.clone(), online, known: Vec::new(), policies: Vec::new() })
}

impl CpuFreq {
    fn find(&mut self) {
        let online = self.online.read_raw().unwrap_or_default();
        let same = online == self.known && !online.is_empty();
        // A driver may be loaded after we began: one look says so.
        let appeared = || self.settings.sysfs("devices/system/cpu/cpu0/cpufreq").exists();
        if same && (!self.policies.is_empty() || !appeared()) {
            return;
        }
        self.known.clear();
        self.known.extend_from_slice(online);
        self.policies.clear();
        for (cpu, folder) in cpus::folders(&self.settings) {
            let Ok(folder) = fs::canonicalize(folder.join("cpufreq")) else { continue };
            let known = self.policies.iter().position(|policy| policy.folder == folder);
            let at = known.unwrap_or_else(|| {
                self.policies.push(Policy::new(folder));
                self.policies.len() - 1
            });
            self.policies[at].cpus.push(cpu.to_string());
        }
    }
}

impl Collector for CpuFreq {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.find();
        self.policies.iter_mut().for_each(Policy::refresh);
        for (at, family) in FAMILIES[..FILES.len()].iter().enumerate() {
            let mut samples = out.family(family);
            for policy in &self.policies {
                if let Some(kilohertz) = policy.values[at] {
                    policy.cpus.iter().for_each(|cpu| samples.put([cpu.as_str()], kilohertz.saturating_mul(1000)));
                }
            }
        }
        let mut samples = out.family(&GOVERNOR);
        for Policy { governor, governors, cpus, .. } in &mut self.policies {
            let Ok(current) = governor.read_raw() else { continue };
            let current = current.trim_ascii();
            for (cpu, governor) in cpus.iter().flat_map(|cpu| governors.iter().map(move |governor| (cpu, governor))) {
                samples.put([cpu.as_str(), governor], u64::from(governor.as_bytes() == current));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;
    use std::fs;

    #[test]
    fn cpus_that_share_a_policy_cost_one_reading_and_are_told_each() {
        let tree = Tree::new("cpufreq", |_| {});
        let base = tree.path("sys/devices/system/cpu");
        tree.write("sys/devices/system/cpu/online", "0-1\n");
        let policy = "sys/devices/system/cpu/cpufreq/policy0";
        let files =
            [("scaling_cur_freq", "1500\n"), ("cpuinfo_max_freq", "2000\n"), ("cpuinfo_cur_freq", "<unknown>\n")];
        for (file, text) in files {
            tree.write(&format!("{policy}/{file}"), text);
        }
        assert_eq!(tree.text(), "");
        for cpu in ["cpu0", "cpu1"] {
            fs::create_dir_all(base.join(cpu)).unwrap();
            std::os::unix::fs::symlink("../cpufreq/policy0", base.join(cpu).join("cpufreq")).unwrap();
        }
        let both = |name: &str, hertz: u64| format!("{name}{{cpu=\"0\"}} {hertz}\n{name}{{cpu=\"1\"}} {hertz}\n");
        let scaling = both("node_cpu_scaling_frequency_hertz", 1_500_000);
        assert_eq!(tree.text(), scaling + &both("node_cpu_frequency_max_hertz", 2_000_000), "loaded late");
        tree.write(&format!("{policy}/scaling_cur_freq"), "700\n");
        fs::remove_file(base.join("cpu1/cpufreq")).unwrap();
        tree.write("sys/devices/system/cpu/online", "0\n");
        let one =
            "node_cpu_scaling_frequency_hertz{cpu=\"0\"} 700000\nnode_cpu_frequency_max_hertz{cpu=\"0\"} 2000000\n";
        assert_eq!(tree.text(), one);
    }
}
