//! Metrics of the host, by node_exporter's names, types, labels, HELP texts, filters and formulas (1.12).
//!
//! Reads: procfs, sysfs, netlink and system calls, below the configured paths. Yields: one [`Collect`] source ([`Host`]) of
//! all collectors that are on. Costs: per scrape one `pread` for most files, which stay open; nothing is done between
//! scrapes. What may block runs on threads of its own ([`pool`]) and costs, if it does, its own series only.
//!
//! One file per collector. [`list`] names them all.
//!
//! [`Collect`]: crate::exposition::Collect

mod arp;
mod bag;
mod bcache;
mod bcachefs;
mod bonding;
mod btrfs;
mod btrfs_device;
mod buddyinfo;
mod cgroups;
mod conntrack;
mod cpu;
mod cpu_vulnerabilities;
mod cpufreq;
mod cpuinfo;
mod cpus;
mod diskstats;
mod dmi;
mod dmmultipath;
mod drbd;
mod edac;
mod entropy;
mod error;
pub mod family;
mod fibrechannel;
mod filefd;
mod filesystem;
mod folder;
mod hwmon;
mod hwmon_sensor;
mod infiniband;
mod interrupts;
mod ipvs;
mod kept;
mod kernel_hung;
mod ksmd;
mod list;
mod lnstat;
mod loadavg;
mod mdadm;
mod meminfo;
mod meminfo_numa;
mod mountstats;
mod named;
mod netclass;
mod netdev;
pub mod netlink;
mod netstat;
mod network_route;
mod nfs;
mod nfsd;
mod nvme;
mod nvmesubsystem;
mod os;
mod otel;
pub mod owner;
mod pcidevice;
pub mod pool;
mod powersupplyclass;
mod pressure;
mod processes;
mod rapl;
mod schedstat;
mod selinux;
mod set;
mod slabinfo;
mod sockstat;
mod softirqs;
mod softnet;
mod stat;
mod sysctl;
mod systemd;
mod tapestats;
mod tcpstat;
#[cfg(test)]
mod testing;
pub mod text;
mod textfile;
mod thermal_zone;
mod time;
mod timex;
mod udp_queues;
mod uname;
mod vmstat;
mod watchdog;
mod xfrm;
mod xfs;
mod zfs;
mod zoneinfo;

use crate::config::{Config, Paths, collector::Collectors};
use crate::exposition::Encoder;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use bag::Bag;
pub use error::CollectError;
pub use kept::{KeptFile, attribute, number, read_all, read_once};
pub use list::{COLLECTORS, Entry};
pub use set::{FAMILIES, Host};

/// What collectors are made from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where the host's file systems are.
    pub paths: Paths,
    /// Options.
    pub options: Collectors,
}

impl Settings {
    /// Of the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut paths = config.path.clone();
        if paths.rootfs == Path::new("/") && has_mounts_of_its_own(&paths.procfs) {
            paths.rootfs = paths.procfs.join("1/root");
        }
        Self { paths, options: config.collector.clone() }
    }

    /// A path below procfs.
    #[must_use]
    pub fn procfs(&self, path: &str) -> PathBuf {
        self.paths.procfs.join(path)
    }

    /// A path below sysfs.
    #[must_use]
    pub fn sysfs(&self, path: &str) -> PathBuf {
        self.paths.sysfs.join(path)
    }

    /// A file below procfs that stays open.
    #[must_use]
    pub fn kept_procfs(&self, path: &str) -> KeptFile {
        KeptFile::new(self.procfs(path))
    }
}

/// Bytes of a page of memory.
fn page_size() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Whether this process sees other mounts than process 1, as a systemd unit with `ProtectHome` or `PrivateTmp` does: the host's
/// file systems must be asked for where process 1 sees them. False where that cannot be told.
fn has_mounts_of_its_own(procfs: &Path) -> bool {
    let namespace = |process: &str| std::fs::metadata(procfs.join(process).join("ns/mnt")).ok();
    let (ours, first) = (namespace("self"), namespace("1"));
    ours.zip(first).is_some_and(|(ours, first)| (ours.dev(), ours.ino()) != (first.dev(), first.ino()))
}

/// What a collector needs beside its own state.
pub struct Context<'a> {
    /// When its result must be there.
    pub deadline: Instant,
    /// Threads for what may block.
    pub pool: &'a pool::Pool,
    /// The network interfaces, dumped once for a scrape.
    pub links: &'a netlink::Links,
}

/// Reads one thing of the host and writes its families.
pub trait Collector: Send {
    /// Writes what is there now. What was written before an error stays.
    ///
    /// # Errors
    /// The reason; [`CollectError::NoData`] where this host has nothing of the kind.
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError>;
}
