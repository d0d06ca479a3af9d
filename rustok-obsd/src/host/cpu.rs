//! Time of the CPUs by mode, and how often they were throttled.
//!
//! Reads: `/proc/stat` (fs/proc/stat.c), `/sys/devices/system/cpu` (Documentation/admin-guide/cputopology.rst);
//! `/proc/cpuinfo` where asked for. Yields: `node_cpu_*`. Costs: one file, and one per package and core where the hardware
//! counts throttling; the topology is read when the set of CPUs changes.
//!
//! The kernel's idle and iowait times run back at times (fs/proc/stat.c, `get_idle_time`); ours do not. Where idle time falls
//! by three seconds or more the CPU was off line, and starts again.

use super::cpuinfo::CpuInfo;
use super::family::{counter, gauge};
use super::{CollectError, Collector, Context, KeptFile, Settings, attribute, cpus, text};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};
use std::path::Path;

const SECONDS: Family<'static> =
    counter("node_cpu_seconds_total", &["cpu", "mode"], "Seconds the CPUs spent in each mode.");
const GUEST: Family<'static> =
    counter("node_cpu_guest_seconds_total", &["cpu", "mode"], "Seconds the CPUs spent in guests (VMs) for each mode.");
const CORE: Family<'static> =
    counter("node_cpu_core_throttles_total", &["package", "core"], "Number of times this CPU core has been throttled.");
const PACKAGE: Family<'static> =
    counter("node_cpu_package_throttles_total", &["package"], "Number of times this CPU package has been throttled.");
const ISOLATED: Family<'static> = gauge(
    "node_cpu_isolated",
    &["cpu"],
    "Whether each core is isolated, information from /sys/devices/system/cpu/isolated.",
);
const ONLINE: Family<'static> = gauge("node_cpu_online", &["cpu"], "CPUs that are online and being scheduled.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    SECONDS,
    GUEST,
    CORE,
    PACKAGE,
    ISOLATED,
    ONLINE,
    super::cpuinfo::FAMILIES[0],
    super::cpuinfo::FAMILIES[1],
    super::cpuinfo::FAMILIES[2],
    super::cpuinfo::FAMILIES[3],
];

/// Modes in the order of the columns; then guest and guest_nice, which user and nice contain.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const IDLE: usize = 3;
/// `USER_HZ` is 100 on all architectures that we run on (include/uapi/asm-generic/param.h).
pub const TICK_NS: u64 = 10_000_000;
/// Three seconds.
const HOT_PLUG: u64 = 300;

/// One CPU's line.
#[derive(Debug, Default)]
pub struct Line {
    cpu: u32,
    /// The number, as a label.
    pub name: String,
    /// By column.
    pub ticks: [u64; 10],
}

/// The lines as we tell them: none of their numbers runs back.
#[derive(Debug, Default)]
pub struct Lines(pub Vec<Line>);

impl Lines {
    /// Takes over the lines of `/proc/stat`; true where the set of CPUs is another than before.
    pub fn update(&mut self, stat: &[u8]) -> bool {
        let (mut at, mut changed) = (0, false);
        // CPUs come first, by number, after their sum.
        for line in text::lines(stat) {
            let Some(rest) = line.strip_prefix(b"cpu") else { break };
            let mut words = text::words(rest);
            if rest.first().is_none_or(|byte| *byte == b' ') {
                continue;
            }
            let Some(cpu) = words.next().and_then(text::u64).and_then(|cpu| u32::try_from(cpu).ok()) else { continue };
            let mut now = [0; 10];
            for (ticks, word) in now.iter_mut().zip(words) {
                *ticks = text::u64(word).unwrap_or(0);
            }
            let gone = self.0[at..].iter().take_while(|known| known.cpu < cpu).count();
            if gone > 0 {
                self.0.drain(at..at + gone);
                changed = true;
            }
            if self.0.get(at).is_none_or(|known| known.cpu != cpu) {
                self.0.insert(at, Line { cpu, name: cpu.to_string(), ticks: [0; 10] });
                changed = true;
            }
            let known = &mut self.0[at].ticks;
            if known[IDLE].saturating_sub(now[IDLE]) >= HOT_PLUG {
                *known = [0; 10];
            }
            for (known, now) in known.iter_mut().zip(now) {
                *known = now.max(*known);
            }
            at += 1;
        }
        changed |= at < self.0.len();
        self.0.truncate(at);
        changed
    }
}

/// What changes only when CPUs come and go.
#[derive(Debug, Default)]
struct Topology {
    /// Package, core, count of throttlings.
    cores: Vec<(String, String, KeptFile)>,
    packages: Vec<(String, KeptFile)>,
    isolated: Vec<String>,
    /// All CPUs, where they can be switched off.
    switched: Vec<(u32, String)>,
}

impl Topology {
    fn read(settings: &Settings) -> Self {
        let mut found = Self::default();
        let all = cpus::folders(settings);
        let readable = |path: &Path| text::u64(attribute(path)?.as_bytes()).map(|_| KeptFile::new(path));
        for (_, folder) in &all {
            // Not a number (`-1`): the firmware does not say.
            let id = |file: &str| {
                attribute(&folder.join("topology").join(file)).filter(|id| text::u64(id.as_bytes()).is_some())
            };
            let (Some(package), Some(core)) = (id("physical_package_id"), id("core_id")) else { continue };
            let throttle = folder.join("thermal_throttle");
            if !found.cores.iter().any(|known| known.0 == package && known.1 == core)
                && let Some(count) = readable(&throttle.join("core_throttle_count"))
            {
                found.cores.push((package.clone(), core, count));
            }
            if !found.packages.iter().any(|known| known.0 == package)
                && let Some(count) = readable(&throttle.join("package_throttle_count"))
            {
                found.packages.push((package, count));
            }
        }
        let list = attribute(&settings.sysfs("devices/system/cpu/isolated")).unwrap_or_default();
        found.isolated = cpus::ranges(list.as_bytes()).flatten().map(|cpu| cpu.to_string()).collect();
        // As node_exporter: nothing is told where the first CPU cannot be switched off, as on x86 since Linux 6.5.
        if all.first().is_some_and(|(_, folder)| folder.join("online").exists()) {
            found.switched = all.iter().map(|(cpu, _)| (*cpu, cpu.to_string())).collect();
        }
        found
    }
}

struct Cpu {
    settings: Settings,
    stat: KeptFile,
    lines: Lines,
    topology: Topology,
    online: KeptFile,
    info: Option<CpuInfo>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let options = &settings.options;
    let wants_info = options.cpu_info || options.cpu_flags_include.is_set() || options.cpu_bugs_include.is_set();
    Box::new(Cpu {
        stat: settings.kept_procfs("stat"),
        online: KeptFile::new(settings.sysfs("devices/system/cpu/online")),
        info: wants_info.then(|| CpuInfo::new(settings)),
        lines: Lines::default(),
        topology: Topology::default(),
        settings: settings.clone(),
    })
}

impl Collector for Cpu {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        if self.lines.update(self.stat.read()?) {
            self.topology = Topology::read(&self.settings);
        }
        let seconds = |ticks: u64| Value::Nanos(ticks.saturating_mul(TICK_NS));
        let mut samples = out.family(&SECONDS);
        for Line { name, ticks, .. } in &self.lines.0 {
            for (mode, ticks) in MODES.iter().zip(ticks) {
                samples.put([name.as_str(), mode], seconds(*ticks));
            }
        }
        if self.settings.options.cpu_guest {
            let mut samples = out.family(&GUEST);
            for Line { name, ticks, .. } in &self.lines.0 {
                for (mode, ticks) in MODES.iter().zip(&ticks[MODES.len()..]) {
                    samples.put([name.as_str(), mode], seconds(*ticks));
                }
            }
        }
        self.hardware(out);
        match &mut self.info {
            Some(info) => info.collect(out),
            None => Ok(()),
        }
    }
}

impl Cpu {
    fn hardware(&mut self, out: &mut Encoder<'_>) {
        let count = |file: &mut KeptFile| file.read_raw().ok().and_then(|text| text::u64(text.trim_ascii()));
        let mut samples = out.family(&PACKAGE);
        for (package, file) in &mut self.topology.packages {
            if let Some(count) = count(file) {
                samples.put([package.as_str()], count);
            }
        }
        let mut samples = out.family(&CORE);
        for (package, core, file) in &mut self.topology.cores {
            if let Some(count) = count(file) {
                samples.put([package.as_str(), core], count);
            }
        }
        let mut samples = out.family(&ISOLATED);
        for cpu in &self.topology.isolated {
            samples.put([cpu.as_str()], 1u64);
        }
        if self.topology.switched.is_empty() {
            return;
        }
        if let Ok(list) = self.online.read_raw() {
            let mut samples = out.family(&ONLINE);
            for (cpu, name) in &self.topology.switched {
                let online = cpus::ranges(list).any(|range| range.contains(cpu));
                samples.put([name.as_str()], u64::from(online));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_never_runs_back_but_a_replugged_cpu_starts_again() {
        let mut lines = Lines::default();
        assert!(lines.update(b"cpu  1 2 3\ncpu0 5 0 9 1000 70\ncpu1 1 1 1 50\nintr 7\n"));
        assert_eq!(lines.0[0].ticks, [5, 0, 9, 1000, 70, 0, 0, 0, 0, 0]);
        // 2.99 s back: the old values stay; the others go on.
        assert!(!lines.update(b"cpu  1\ncpu0 6 0 8 701 60 0 0 0 0 0\ncpu1 2 1 1 49\n"));
        assert_eq!(lines.0[0].ticks[..5], [6, 0, 9, 1000, 70]);
        assert_eq!(lines.0[1].ticks[..4], [2, 1, 1, 50]);
        assert!(!lines.update(b"cpu  1\ncpu0 1 0 1 700 1\ncpu1 2 1 1 51\n"));
        assert_eq!(lines.0[0].ticks[..5], [1, 0, 1, 700, 1]);
    }

    #[test]
    fn cpus_come_and_go() {
        let mut lines = Lines::default();
        let mut update = |text: &str| {
            let changed = lines.update(text.as_bytes());
            (changed, lines.0.iter().map(|line| (line.cpu, line.ticks[0])).collect::<Vec<_>>())
        };
        assert_eq!(update("cpu 9\ncpu0 1\ncpu2 3\ncpu10 4\n"), (true, vec![(0, 1), (2, 3), (10, 4)]));
        assert_eq!(update("cpu 9\ncpu0 1\ncpu10 4\n"), (true, vec![(0, 1), (10, 4)]));
        assert_eq!(update("cpu 9\ncpu0 1\ncpu1 7\ncpu10 4\n"), (true, vec![(0, 1), (1, 7), (10, 4)]));
        assert_eq!(update("cpu 9\ncpu0 1\n"), (true, vec![(0, 1)]));
        assert_eq!(update("cpu 9\ncpu0 x y\ncpuX 1\n"), (false, vec![(0, 1)]));
    }

    #[test]
    fn the_set_of_cpus_that_can_be_switched_off_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.paths.sysfs = folder.path().to_owned();
        for cpu in ["cpu0", "cpu1", "cpu10", "cpufreq"] {
            std::fs::create_dir_all(folder.path().join("devices/system/cpu").join(cpu)).unwrap();
        }
        assert!(Topology::read(&settings).switched.is_empty());
        std::fs::write(folder.path().join("devices/system/cpu/cpu0/online"), "1\n").unwrap();
        let cpus: Vec<u32> = Topology::read(&settings).switched.iter().map(|(cpu, _)| *cpu).collect();
        assert_eq!(cpus, [0, 1, 10]);
    }
}
