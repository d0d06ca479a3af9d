//! Metrics of the host, by node_exporter's names, types, labels, HELP texts, filters and formulas (1.12).
//!
//! Reads: procfs, sysfs, netlink and system calls, below the configured paths. Yields: one [`Collect`] source ([`Host`]) of
//! all collectors that are on. Costs: per scrape one `pread` for most files, which stay open; nothing is done between
//! scrapes. What may block runs on threads of its own ([`pool`]) and costs, if it does, its own series only.
//!
//! One file per collector. [`list`] names them all.
//!
//! [`Collect`]: crate::exposition::Collect

mod bag;
mod bcache;
mod bcachefs;
mod bonding;
mod btrfs;
mod btrfs_device;
mod conntrack;
mod cpu;
mod cpufreq;
mod cpuinfo;
mod cpus;
mod diskstats;
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
mod ipvs;
mod kept;
mod kernel_hung;
mod list;
mod loadavg;
mod mdadm;
mod meminfo;
mod mountstats;
mod named;
mod netstat;
mod nfs;
mod nfsd;
mod nvme;
mod nvmesubsystem;
mod pcidevice;
pub mod pool;
mod powersupplyclass;
mod pressure;
mod rapl;
mod schedstat;
mod set;
mod sockstat;
mod softnet;
mod stat;
mod tapestats;
#[cfg(test)]
mod testing;
pub mod text;
mod thermal_zone;
mod udp_queues;
mod vmstat;
mod watchdog;
mod xfs;
mod zfs;

use crate::config::{Config, Paths, collector::Collectors};
use crate::exposition::Encoder;
use std::path::PathBuf;
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
        Self { paths: config.path.clone(), options: config.collector.clone() }
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

/// What a collector needs beside its own state.
pub struct Context<'a> {
    /// When its result must be there.
    pub deadline: Instant,
    /// Threads for what may block.
    pub pool: &'a pool::Pool,
}

/// Reads one thing of the host and writes its families.
pub trait Collector: Send {
    /// Writes what is there now. What was written before an error stays.
    ///
    /// # Errors
    /// The reason; [`CollectError::NoData`] where this host has nothing of the kind.
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError>;
}
