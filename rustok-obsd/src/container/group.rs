//! One cgroup that is told: who it is, its labels, its files, its values of this scrape.
//!
//! Reads: its files, by the readers of each controller. Yields: plain values. Costs: about ten small files; memory is kept
//! from scrape to scrape.

use super::cpu::{Cpu, CpuSpec};
use super::files::{Files, Reader, Source};
use super::identity::Identity;
use super::io::{self, Disk};
use super::memory::{Memory, MemorySpec};
use super::names::{Facts, Health, Lookup, Names};
use super::network::Interface;
use super::oom::Kills;
use super::pressure::{self, Pressure};
use super::usage::{Usage, Used};
use crate::exposition::WrittenLabels;
use crate::host::text;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A runtime has so long to make a container, and to answer until that is told by its id.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose network it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// None.
    None,
    /// Its own, if it has one: to be found out.
    Unknown,
    /// That of this process, in the namespace of this inode.
    Of(u32, u64),
}

/// A cgroup.
#[derive(Debug)]
pub struct Group {
    /// Its path from the root: cAdvisor's `id`.
    pub id: Box<str>,
    /// What the path says.
    pub identity: Identity,
    /// Its labels, written.
    pub labels: Vec<u8>,
    /// What its runtime says.
    pub facts: Option<Arc<Facts>>,
    /// The version of the names of which `facts` are.
    version: Option<u64>,
    /// Not told yet: its name is on its way.
    pub held: bool,
    seen: Instant,
    /// Seconds since the epoch.
    pub created: u64,
    /// Inode of its directory.
    pub inode: u64,
    /// Whether `inode` is that of the tree of memory.
    pub inode_noted: bool,
    /// Times that this was asked for.
    asked: u32,
    /// Its files.
    pub files: Files,
    /// Its limits were, or may have been, changed.
    pub changed: bool,
    /// Whether it was read in this scrape.
    pub told: bool,
    /// Limits of CPU.
    pub cpu_spec: CpuSpec,
    /// Limits of memory.
    pub memory_spec: MemorySpec,
    /// CPU time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Devices.
    pub disks: Vec<Disk>,
    /// Pressure.
    pub pressure: [Pressure; 3],
    /// Processes killed.
    pub kills: Kills,
    /// Whose network.
    pub net: Net,
    /// What is in its writable layer.
    pub used: Option<Used>,
    /// Traffic.
    pub interfaces: Vec<Interface>,
}

impl Group {
    /// Nothing is read yet. `fresh`: it was made under our eyes.
    #[must_use]
    pub fn new(id: &str, created: u64, inode: u64, fresh: bool) -> Self {
        let identity = Identity::of(id);
        let net = if id == "/" || identity.container.is_some() { Net::Unknown } else { Net::None };
        Self {
            id: id.into(),
            identity,
            labels: Vec::new(),
            facts: None,
            version: None,
            held: false,
            seen: Instant::now(),
            created,
            inode,
            inode_noted: false,
            asked: 0,
            files: Files::default(),
            changed: true,
            told: false,
            cpu_spec: CpuSpec::default(),
            memory_spec: MemorySpec::default(),
            cpu: Cpu::default(),
            memory: Memory::default(),
            disks: Vec::new(),
            pressure: [Pressure::default(); 3],
            kills: Kills::new(fresh),
            net,
            used: None,
            interfaces: Vec::new(),
        }
    }

    /// Asks for its names where they may have changed, and writes its labels.
    pub fn name(&mut self, names: &dyn Names, version: u64, wanted_labels: &[(String, String)]) {
        if self.version == Some(version) && !self.held {
            return;
        }
        let first = self.version.is_none();
        self.version = Some(version);
        let known = match (&self.identity.container, &self.identity.pod) {
            (Some(id), _) => {
                let answer = names.lookup(id);
                self.held = answer == Lookup::NotYet && self.is_young();
                match answer {
                    Lookup::Known(facts) => Some(facts),
                    _ => None,
                }
            }
            (None, Some(pod)) => names.pod(pod),
            (None, None) => None,
        };
        // An answer stays: a runtime that restarts must not rename its containers for a moment.
        if first || (known.is_some() && known != self.facts) || (self.labels.is_empty() && !self.held) {
            self.facts = known.or(self.facts.take());
            self.write_labels(wanted_labels);
            if self.identity.container.is_some() {
                self.net = Net::Unknown;
            }
        }
    }

    /// In the order in which Prometheus' client has them; what is empty is left out, which is the same to Prometheus.
    fn write_labels(&mut self, wanted: &[(String, String)]) {
        let is_container = self.identity.container.is_some();
        let name = match (&self.facts, &self.identity.container) {
            (Some(facts), Some(_)) => facts.name.as_str(),
            (None, Some(id)) => id,
            _ => "",
        };
        let none = Facts::default();
        let facts = self.facts.as_deref().unwrap_or(&none);
        let own = |text: &'_ String| if is_container { text.clone() } else { String::new() };
        // kubernetes-mixin takes rows without image for pods, and those of sandboxes for no containers.
        let (image, container) = (own(&facts.image), own(&facts.container));
        let base = [
            ("container", container.as_str()),
            ("id", &self.id),
            ("image", &image),
            ("name", name),
            ("namespace", &facts.namespace),
            ("pod", &facts.pod),
        ];
        let value = |label: &str| {
            let found = facts.labels.iter().find(|(name, _)| is_container && name == label);
            found.map_or("", |(_, value)| value.as_str())
        };
        let extra = wanted.iter().map(|(label, written)| (written.as_str(), value(label)));
        self.labels.clear();
        let pairs = base.into_iter().chain(extra).filter(|(_, value)| !value.is_empty());
        WrittenLabels::append(pairs, &mut self.labels);
    }

    /// Reads everything but the network.
    pub fn read(&mut self, reader: &mut Reader, tick_ns: u64) {
        reader.begin(&mut self.files);
        if self.changed {
            self.cpu_spec = CpuSpec::read(&self.id, &mut self.files, reader);
            self.memory_spec = MemorySpec::read(&self.id, &mut self.files, reader);
            self.changed = false;
        }
        let quota = self.cpu_spec.quota.is_some();
        self.cpu.read(&self.id, &mut self.files, reader, tick_ns, quota);
        self.memory = Memory::read(&self.id, &mut self.files, reader);
        io::read(&mut self.disks, &self.id, &mut self.files, reader);
        self.pressure = pressure::read(&self.id, &mut self.files, reader);
        self.kills.read(&self.id, &mut self.files, reader);
        self.told = !self.files.gone && !self.files.exhausted;
        self.changed = self.files.exhausted;
    }

    /// Whether it was not named yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.version.is_none()
    }

    /// Whether its name is still on its way.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.is_new() || self.held
    }

    /// Whether it may still be in the making.
    #[must_use]
    pub fn is_young(&self) -> bool {
        self.seen.elapsed() < PATIENCE
    }

    /// Whether its inode is to be asked for now: not for ever, where the tree of memory does not have it.
    pub fn asks_inode(&mut self) -> bool {
        self.asked = self.asked.saturating_add(1);
        self.asked.is_power_of_two()
    }

    /// Its first process.
    pub fn first_process(&mut self, reader: &mut Reader) -> Option<u32> {
        let known = self.facts.as_ref().and_then(|facts| facts.pid);
        let read = |text: &[u8]| text::lines(text).next().and_then(text::u64).and_then(|pid| u32::try_from(pid).ok());
        known.or_else(|| reader.read(&self.id, &mut self.files, Source::Processes).and_then(read))
    }

    /// Asks what is in its writable layer.
    pub fn read_usage(&mut self, usage: &Usage, rootfs: &Path) {
        let (Some(container), Some(facts)) = (&self.identity.container, &self.facts) else { return };
        if let Some(folder) = &facts.upper_dir {
            self.used = usage.of(container, || rootfs.join(folder.trim_start_matches('/')));
        }
    }

    /// When it was started, seconds since the epoch.
    #[must_use]
    pub fn started(&self) -> u64 {
        let told = self.facts.as_ref().filter(|_| self.identity.container.is_some()).and_then(|facts| facts.started_at);
        told.and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok())
            .map_or(self.created, |time| time.as_secs())
    }

    /// 1 healthy, 0 not, −1 without a check.
    #[must_use]
    pub fn health(&self) -> i64 {
        match self.facts.as_ref().and_then(|facts| facts.health) {
            Some(Health::Healthy) => 1,
            Some(Health::Starting | Health::Unhealthy) => 0,
            None => -1,
        }
    }
}
