//! Cgroups and containers, by cAdvisor's names, types, labels, HELP texts and formulas (0.60).
//!
//! Reads: cgroup v1, v2 and both together, network namespaces, the machine; the kernel's events of cgroups and of processes
//! killed for lack of memory. Yields: one [`Collect`] source ([`Containers`]). Costs: between scrapes a note per cgroup that
//! is made, where there are events; at a scrape some ten `pread` and fifty samples per cgroup; nothing is
//! allocated but for cgroups that are new. Cgroups come and go by inotify.
//!
//! Unlike cAdvisor: values are those of the scrape, hence without timestamps; families that it tells as a constant 0
//! because it does not measure them are off (`container.constants`); a container without a runtime's answer is named by its
//! id; pressure is told on hybrid hosts, too; times of the host's devices are seconds.

pub mod cpu;
pub mod families;
pub mod files;
pub mod filesystem;
pub mod group;
pub mod identity;
pub mod io;
pub mod limit;
pub mod machine;
pub mod memory;
pub mod mounts;
pub mod names;
pub mod network;
pub mod oom;
pub mod owner;
pub mod pressure;
pub mod runtime;
pub mod tree;
pub mod unseen;
pub mod usage;
pub mod watch;
mod write;

#[cfg(test)]
mod tests;

use crate::config::container::ContainerOptions;
use crate::config::{Config, Paths};
use crate::events::{Event, OomKill, Subscriber};
use crate::exposition::{Collect, Encoder};
use crate::host;
use files::Reader;
use filesystem::FileSystems;
use group::{Group, Net};
use io::Devices;
use machine::Machine;
use mounts::{Hierarchies, MountError};
use names::{Names, Network};
use network::NetReader;
use oom::{Ghosts, Queue};
use rustc_hash::FxHashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tree::Tree;
use unseen::{Made, Unseen};
use usage::Usage;

/// What this is made from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where the host's file systems are.
    pub paths: Paths,
    /// What is told.
    pub options: ContainerOptions,
    /// Files that may be kept open; see [`limit::raise`].
    pub open_files: usize,
}

impl Settings {
    /// Of the configuration.
    #[must_use]
    pub fn new(config: &Config, open_files: usize) -> Self {
        // The host's file systems are asked for where process 1 sees them.
        Self { paths: host::Settings::new(config).paths, options: config.container.clone(), open_files }
    }
}

/// All cgroups.
pub struct Containers {
    names: Arc<dyn Names>,
    kills: Queue,
    unseen: Unseen,
    state: Mutex<State>,
}

struct State {
    constants: bool,
    /// Labels of containers that are wanted, with the names that they get.
    labels: Vec<(String, String)>,
    tick_ns: u64,
    reader: Reader,
    tree: Tree,
    devices: Devices,
    net: NetReader,
    /// The host's network namespace.
    host: Option<u64>,
    /// Namespaces that were told in this scrape.
    namespaces: FxHashSet<u64>,
    machine: Machine,
    filesystems: FileSystems,
    /// What is in writable layers, if that is wanted.
    usage: Option<Usage>,
    rootfs: PathBuf,
    cpus: Vec<String>,
    ghosts: Ghosts,
    events: Vec<u64>,
    /// By [`SKIPPED`].
    skipped: [u64; SKIPPED.len()],
    unknown_kills: u64,
}

const SKIPPED: [&str; 4] = ["limit", "deadline", "gone", "files"];

impl Containers {
    /// Of this host. Nothing is read before the first scrape.
    ///
    /// # Errors
    /// There are no cgroups.
    pub fn new(settings: &Settings, names: Arc<dyn Names>) -> Result<Self, MountError> {
        let Settings { paths, options, open_files } = settings;
        let reader = Reader::new(Hierarchies::find(paths)?, io::has_bfq(&paths.sysfs), *open_files);
        let unseen = Unseen::new(paths, reader.hierarchies(), options.clone());
        let tree = Tree::new(&reader, options.clone(), boot_time(paths), &paths.procfs);
        let written = |label: &String| {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            (label.clone(), format!("container_label_{}", label.chars().map(plain).collect::<String>()))
        };
        let mut labels: Vec<_> = options.labels.iter().map(written).collect();
        // Two that would be written alike are one.
        labels.sort_by(|a, b| a.1.cmp(&b.1));
        labels.dedup_by(|a, b| a.1 == b.1);
        // SAFETY: takes and gives a number.
        let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
        let mut net = NetReader::new(&paths.procfs);
        let host = net.host();
        let state = State {
            constants: options.constants,
            labels,
            tick_ns: 1_000_000_000 / ticks,
            reader,
            tree,
            devices: Devices::new(&paths.sysfs),
            net,
            host,
            namespaces: FxHashSet::default(),
            machine: Machine::new(paths),
            filesystems: FileSystems::new(paths),
            usage: if options.disk_usage { usage() } else { None },
            rootfs: paths.rootfs.clone(),
            cpus: Vec::new(),
            ghosts: Ghosts::default(),
            events: Vec::new(),
            skipped: [0; SKIPPED.len()],
            unknown_kills: 0,
        };
        Ok(Self { names, kills: Queue::default(), unseen, state: Mutex::new(state) })
    }

    /// The kernel chose a process to be killed for lack of memory: `cgroup` is the inode of the directory of its cgroup, in
    /// the tree of memory. Never waits for a scrape.
    pub fn oom(&self, cgroup: u64) {
        if !self.unseen.kill(cgroup) {
            self.kills.push(cgroup);
        }
    }
}

impl Subscriber for Containers {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Oom(OomKill { cgroup: Some(cgroup), .. }) => self.oom(cgroup),
            Event::CgroupMade { cgroup, hierarchy, path: Some(path), .. } => {
                // A runtime knows its name as long as it is there, which may be less than until the next scrape.
                if let Some(container) = self.unseen.made(cgroup, hierarchy, path) {
                    self.names.wanted(&container);
                }
            }
            Event::CgroupRemoved { cgroup, hierarchy, .. } => {
                if let Some(container) = self.unseen.removed(cgroup, hierarchy) {
                    self.names.forget(&container);
                }
            }
            _ => {}
        }
    }
}

/// The walker of layers; `None`, and told, where its thread cannot start.
fn usage() -> Option<Usage> {
    let started = Usage::start().map_err(|error| {
        tracing::warn!(
            "container.disk_usage: no thread can be started: {error}; raise the limit of processes (ulimit -u)"
        );
    });
    started.ok()
}

/// When the host was started, seconds since the epoch.
fn boot_time(paths: &Paths) -> u64 {
    let text = std::fs::read_to_string(paths.procfs.join("stat")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or_default()
}

impl Collect for Containers {
    fn collect(&self, out: &mut Encoder<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let scrape = out.scrape();
        // The text of what was read has to be written in time, too.
        let deadline = Instant::now() + scrape.left() / 4 * 3;
        let state = &mut *state;
        state.update(&*self.names, &self.kills, &self.unseen);
        let machine = state.machine.read();
        state.filesystems.read(deadline);
        state.read(&*self.names, deadline);
        state.write(machine, out);
    }
}

impl State {
    /// Takes in which cgroups came and went, and kills.
    fn update(&mut self, names: &dyn Names, kills: &Queue, unseen: &Unseen) {
        let now = Instant::now();
        let Self { tree, reader, ghosts, events, usage, unknown_kills, labels, .. } = self;
        ghosts.forget(now);
        events.extend(std::iter::from_fn(|| kills.pop()));
        // First to those that are known: they may be gone in a moment.
        let mut give = |tree: &mut Tree, ghosts: &mut Ghosts| {
            events.retain(|inode| match tree.by_inode(*inode) {
                Some(group) => {
                    group.kills.events(1);
                    false
                }
                None => !ghosts.event(*inode, now),
            });
        };
        give(tree, ghosts);
        tree.update(names, &mut |mut group: Box<Group>| {
            reader.close(&mut group.files);
            if let (Some(usage), Some(container)) = (&*usage, &group.identity.container) {
                usage.forget(container);
            }
            ghosts.add(group, now);
        });
        tree.note_inodes(reader);
        give(tree, ghosts);
        *unknown_kills += events.len() as u64;
        events.clear();
        let known = |made: &Made| {
            let over = tree.is_over(&made.id);
            match tree.by_inode(made.inode) {
                Some(group) => group.kills.events(made.kills),
                None if over => *unknown_kills += made.kills,
                None => return false,
            }
            true
        };
        unseen.scraped(known, |made| {
            let mut group = Group::new(&made.id, 0, made.inode, true);
            group.kills.events(made.kills);
            ghosts.add(Box::new(group), now);
        });
        if ghosts.is_empty() {
            return;
        }
        for group in tree.groups().filter(|group| group.is_new()) {
            if let Some(earlier) = ghosts.take(&group.id) {
                group.kills.after(earlier);
            }
        }
        ghosts.name(names, names.version(), labels, now);
    }

    /// Reads all cgroups until the deadline.
    fn read(&mut self, names: &dyn Names, deadline: Instant) {
        self.devices.begin();
        self.namespaces.clear();
        let Self {
            tree,
            reader,
            devices,
            net,
            namespaces,
            labels,
            skipped,
            cpus,
            machine,
            tick_ns,
            host,
            usage,
            rootfs,
            ..
        } = self;
        let version = names.version();
        let host = *host;
        let mut late = false;
        for (number, group) in tree.groups().enumerate() {
            group.told = false;
            late = late || (number % 16 == 15 && Instant::now() >= deadline);
            if late {
                skipped[1] += 1;
                continue;
            }
            group.name(names, version, labels);
            if group.held {
                continue;
            }
            group.read(reader, *tick_ns);
            if !group.told {
                skipped[if group.files.exhausted { 3 } else { 2 }] += 1;
                continue;
            }
            if &*group.id == "/" {
                whole_machine(group, machine.memory, reader);
            }
            network(group, host, net, namespaces, reader);
            if let Some(usage) = usage {
                group.read_usage(usage, rootfs);
            }
            for cpu in cpus.len()..group.cpu.per_cpu.len() {
                cpus.push(format!("cpu{cpu:02}"));
            }
            for disk in &group.disks {
                devices.learn(disk.number);
            }
        }
        skipped[0] += (tree.over + tree.beyond) as u64;
    }

    fn write(&mut self, machine: bool, out: &mut Encoder<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let scene = write::Scene {
            groups: self.tree.all().filter(|group| group.told),
            devices: &self.devices,
            volumes: &self.filesystems.volumes,
            cpus: &self.cpus,
            ghosts: &self.ghosts,
            now,
            constants: self.constants,
        };
        scene.write(out);
        let root = self.tree.all().any(|group| group.told && &*group.id == "/");
        out.family(&families::SCRAPE_ERROR).put([], u64::from(!root));
        self.machine.write(machine, self.constants, out);
        let mut samples = out.family(&families::SKIPPED);
        for (reason, count) in SKIPPED.iter().zip(self.skipped) {
            samples.put([*reason], count);
        }
        out.family(&families::TOLD).put([], self.tree.told() as u64);
        let mut samples = out.family(&families::WATCHES);
        samples.put(["present"], self.tree.watches() as u64);
        samples.put(["missing"], self.tree.unwatched as u64);
        let mut samples = out.family(&families::RESCANS);
        for (reason, count) in tree::RESCANS.iter().zip(self.tree.rescans) {
            samples.put([*reason], count);
        }
        out.family(&families::KILLS_UNKNOWN).put([], self.unknown_kills);
        out.family(&families::OPEN_FILES).put([], self.reader.open() as u64);
    }
}

/// The root's limit is the machine's memory; in v2 it has no swap of its own.
fn whole_machine(group: &mut Group, [memory, _, swap]: [u64; 3], reader: &Reader) {
    group.memory_spec.there = true;
    group.memory_spec.limit = memory;
    if reader.is_v2(files::Source::MemoryStat) && group.memory.usage.is_some() {
        group.memory.swap = Some(swap);
    }
}

/// Reads the traffic of a cgroup that has a network to show.
fn network(group: &mut Group, host: Option<u64>, net: &mut NetReader, told: &mut FxHashSet<u64>, reader: &mut Reader) {
    if &*group.id == "/" {
        if !net.read(1, true, &mut group.interfaces) {
            group.interfaces.clear();
        }
        return;
    }
    if let Net::Of(pid, namespace) = group.net {
        // The number may be another process' by now.
        if net.namespace(pid) != Some(namespace) {
            group.net = Net::Unknown;
        }
    }
    if group.net == Net::Unknown {
        group.net = find_network(group, host, net, reader);
    }
    // Where no runtime says which container holds a pod's network, the first of each network shows it.
    let read = match group.net {
        Net::Of(pid, namespace) => told.insert(namespace) && net.read(pid, false, &mut group.interfaces),
        Net::None | Net::Unknown => false,
    };
    if !read {
        group.interfaces.clear();
    }
}

fn find_network(group: &mut Group, host: Option<u64>, net: &mut NetReader, reader: &mut Reader) -> Net {
    if let Some(facts) = &group.facts {
        let of_the_pod = !facts.pod.is_empty() && !facts.is_sandbox;
        if matches!(facts.network, Network::Host | Network::Of(_)) || of_the_pod {
            return Net::None;
        }
    }
    let Some(pid) = group.first_process(reader) else { return Net::Unknown };
    match net.namespace(pid) {
        Some(namespace) if Some(namespace) != host => Net::Of(pid, namespace),
        // runc's process enters the cgroup first and its namespaces a moment later.
        Some(_) if group.is_young() => Net::Unknown,
        Some(_) => Net::None,
        None => Net::Unknown,
    }
}
