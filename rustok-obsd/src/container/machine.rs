//! The machine, and who tells: `machine_*` and `cadvisor_version_info`.
//!
//! Reads: `/sys/devices/system/cpu/cpu*/topology`, `/proc/meminfo`, `/etc/machine-id`, `/etc/os-release`, DMI, EDAC.
//! Yields: one series of most families. Costs: a scrape reads `/proc/meminfo`; the rest is read every few minutes.

use super::families as f;
use crate::config::Paths;
use crate::exposition::Encoder;
use crate::host::{KeptFile, attribute, number, text};
use crate::target::inside;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long what rarely changes is believed.
const FRESH: Duration = Duration::from_secs(300);

/// The machine.
pub struct Machine {
    paths: Paths,
    meminfo: KeptFile,
    facts: Option<(Instant, Facts)>,
    /// Bytes: memory, swap, swap in use.
    pub memory: [u64; 3],
}

#[derive(Default)]
struct Facts {
    ids: [String; 3],
    kernel: String,
    system: String,
    /// Logical, physical, sockets, books, drawers.
    cpus: [u64; 5],
    /// Count and bytes by type.
    dimms: BTreeMap<String, [u64; 2]>,
}

impl Machine {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        let meminfo = KeptFile::new(paths.procfs.join("meminfo"));
        Self { paths: paths.clone(), meminfo, facts: None, memory: [0; 3] }
    }

    /// Reads what is old. False where the memory cannot be read.
    pub fn read(&mut self) -> bool {
        if self.facts.as_ref().is_none_or(|(read, _)| read.elapsed() > FRESH) {
            self.facts = Some((Instant::now(), facts(&self.paths)));
        }
        let Ok(text) = self.meminfo.read() else { return false };
        let (mut found, mut free) = ([0; 3], 0);
        for (name, value) in text::fields(text) {
            let bytes = || text::words(value).next().and_then(text::u64).unwrap_or_default() * 1024;
            match name {
                b"MemTotal" => found[0] = bytes(),
                b"SwapTotal" => found[1] = bytes(),
                b"SwapFree" => free = bytes(),
                _ => {}
            }
        }
        found[2] = found[1].saturating_sub(free);
        self.memory = found;
        found[0] > 0
    }

    /// Writes the families; `fine`: [`Machine::read`] was.
    pub fn write(&self, fine: bool, constants: bool, out: &mut Encoder<'_>) {
        let Some((_, facts)) = &self.facts else { return };
        let version = concat!("rustok-obsd ", env!("CARGO_PKG_VERSION"));
        out.family(&f::VERSION_INFO).put(["", version, "", &facts.kernel, &facts.system], 1u64);
        let ids = [facts.ids[0].as_str(), &facts.ids[1], &facts.ids[2]];
        let families = [f::CPU_BOOKS, f::CPU_CORES, f::CPU_DRAWERS, f::CPU_PHYSICAL_CORES, f::CPU_SOCKETS];
        for (family, at) in families.iter().zip([3, 0, 4, 1, 2]) {
            out.family(family).put(ids, facts.cpus[at]);
        }
        for (family, at) in [f::DIMM_CAPACITY, f::DIMM_COUNT].iter().zip([1, 0]) {
            let mut samples = out.family(family);
            for (kind, values) in &facts.dimms {
                samples.put([ids[0], ids[1], ids[2], kind], values[at]);
            }
        }
        if fine {
            out.family(&f::MEMORY_BYTES).put(ids, self.memory[0]);
            out.family(&f::SWAP_BYTES).put(ids, self.memory[1]);
        }
        if constants {
            out.family(&f::NVM_POWER).put(ids, 0u64);
            let mut samples = out.family(&f::NVM_CAPACITY);
            for mode in ["app_direct_mode", "memory_mode"] {
                samples.put([ids[0], ids[1], mode, ids[2]], 0u64);
            }
        }
        out.family(&f::MACHINE_SCRAPE_ERROR).put([], u64::from(!fine));
    }
}

/// Bytes of a text below `path.rootfs`.
const MOST_TEXT: u64 = 64 << 10;

fn facts(paths: &Paths) -> Facts {
    let text = |path: &Path| attribute(path).unwrap_or_default();
    let first = |paths: &[&Path]| paths.iter().find_map(|path| attribute(path)).unwrap_or_default();
    let below_root = |places: [&str; 2]| {
        let read = |place: &&str| inside::read_below(&paths.rootfs, Path::new(place), MOST_TEXT).ok();
        let text = places.iter().find_map(read).unwrap_or_default();
        String::from_utf8_lossy(text.trim_ascii()).into_owned()
    };
    let machine = below_root(["etc/machine-id", "var/lib/dbus/machine-id"]);
    let (dmi, tree) = (paths.sysfs.join("class/dmi/id"), paths.procfs.join("device-tree"));
    let uuid = first(&[&dmi.join("product_uuid"), &tree.join("system-id"), &tree.join("vm,uuid")]);
    // As cAdvisor has it.
    let uuid = if uuid.is_empty() { machine.clone() } else { uuid.trim_end_matches('\0').to_owned() };
    let boot = text(&paths.procfs.join("sys/kernel/random/boot_id"));
    let release = below_root(["etc/os-release", "usr/lib/os-release"]);
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    Facts {
        ids: [boot, machine, uuid],
        kernel: text(&paths.procfs.join("sys/kernel/osrelease")),
        system: pretty.trim_matches(['"', '\'']).to_owned(),
        cpus: cpus(&paths.sysfs.join("devices/system/cpu")),
        dimms: dimms(&paths.sysfs.join("devices/system/edac/mc")),
    }
}

/// Logical CPUs, cores, sockets, books and drawers (the latter two of s390).
fn cpus(folder: &Path) -> [u64; 5] {
    let (mut logical, mut seen) = (0, [const { BTreeSet::new() }; 4]);
    for cpu in below(folder, "cpu") {
        let id = |name: &str| number(&cpu.join("topology").join(name)).map(|id| id as i64);
        // One that is off line has no topology.
        let Some(core) = id("core_id") else { continue };
        logical += 1;
        let package = id("physical_package_id").unwrap_or_default();
        seen[0].insert((package, core));
        seen[1].insert((package, 0));
        for (set, name) in seen[2..].iter_mut().zip(["book_id", "drawer_id"]) {
            set.extend(id(name).filter(|id| *id >= 0).map(|id| (id, 0)));
        }
    }
    let [cores, sockets, books, drawers] = seen.map(|set| set.len() as u64);
    [logical, cores, sockets, books, drawers]
}

/// Count and bytes of memory modules by type.
fn dimms(folder: &Path) -> BTreeMap<String, [u64; 2]> {
    let mut found: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for dimm in below(folder, "mc").iter().flat_map(|controller| below(controller, "dimm")) {
        let (Some(kind), Some(megabytes)) = (attribute(&dimm.join("dimm_mem_type")), number(&dimm.join("size"))) else {
            continue;
        };
        let entry = found.entry(kind).or_default();
        entry[0] += 1;
        entry[1] += (megabytes as u64) << 20;
    }
    found
}

/// Folders `<prefix><number>` in a folder.
fn below(folder: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let fits = |name: &str| name.strip_prefix(prefix).is_some_and(|number| number.parse::<u32>().is_ok());
    entries.filter(|entry| entry.file_name().to_str().is_some_and(fits)).map(|entry| entry.path()).collect()
}
