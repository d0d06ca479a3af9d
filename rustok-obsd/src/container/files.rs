//! The files of one cgroup, by what they tell.
//!
//! Reads: files of cgroupfs. Yields: their text. Costs: one `pread` per file where the descriptor is kept, else open, read
//! and close (three times as much); nothing is allocated.
//!
//! The kernel writes each of these files as one record, which one read with room enough yields whole.

use super::mounts::{CONTROLLERS, Controller, Hierarchies};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What a file tells; the source in cgroup v1 and v2 stands in [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Time on each CPU, or everything about CPU time.
    CpuUsage,
    /// Time of user and kernel.
    CpuModes,
    /// Throttling.
    CpuThrottling,
    /// Memory by kind.
    MemoryStat,
    /// Memory in use.
    MemoryUsage,
    /// The most of it.
    MemoryPeak,
    /// Times that the limit was hit.
    MemoryFailures,
    /// Memory of the kernel.
    MemoryKernel,
    /// Swap in use.
    MemorySwap,
    /// Events of memory.
    MemoryEvents,
    /// Processes killed.
    MemoryKills,
    /// Bytes of each device.
    IoBytes,
    /// Requests of each device.
    IoRequests,
    /// Pressure on CPUs.
    PressureCpu,
    /// Pressure on memory.
    PressureMemory,
    /// Pressure on devices.
    PressureIo,
    /// CPU shares or weight.
    CpuShares,
    /// CPU quota, with the period in v2.
    CpuQuota,
    /// Its period.
    CpuPeriod,
    /// Limit of memory.
    MemoryLimit,
    /// What is left to it under pressure.
    MemoryReservation,
    /// Limit of memory and swap (v1), or swap (v2).
    MemorySwapLimit,
    /// Processes.
    Processes,
}

/// Number of sources that are read at every scrape; only these are kept open.
pub const KEPT: usize = 16;

use Controller::{Cpu, CpuAcct, Io, Memory, Pressure};

/// Controller, names in v1 (the first that is there) and in v2; empty for none.
const NAMES: [(Controller, &[&str], &[&str]); 23] = [
    (CpuAcct, &["cpuacct.usage_percpu"], &["cpu.stat"]),
    (CpuAcct, &["cpuacct.stat"], &[]),
    (Cpu, &["cpu.stat"], &["cpu.stat"]),
    (Memory, &["memory.stat"], &["memory.stat"]),
    (Memory, &["memory.usage_in_bytes"], &["memory.current"]),
    (Memory, &["memory.max_usage_in_bytes"], &["memory.peak"]),
    (Memory, &["memory.failcnt"], &[]),
    (Memory, &["memory.kmem.usage_in_bytes"], &[]),
    (Memory, &[], &["memory.swap.current"]),
    (Memory, &[], &["memory.events"]),
    (Memory, &["memory.oom_control"], &["memory.events.local"]),
    // Those of bfq come before where a device has that scheduler, see [`bfq_name`].
    (Io, &["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"], &["io.stat"]),
    (Io, &["blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"], &[]),
    (Pressure, &[], &["cpu.pressure"]),
    (Pressure, &[], &["memory.pressure"]),
    (Pressure, &[], &["io.pressure"]),
    (Cpu, &["cpu.shares"], &["cpu.weight"]),
    (Cpu, &["cpu.cfs_quota_us"], &["cpu.max"]),
    (Cpu, &["cpu.cfs_period_us"], &[]),
    (Memory, &["memory.limit_in_bytes"], &["memory.max"]),
    (Memory, &["memory.soft_limit_in_bytes"], &["memory.min"]),
    (Memory, &["memory.memsw.limit_in_bytes"], &["memory.swap.max"]),
    (Memory, &["cgroup.procs"], &["cgroup.procs"]),
];

/// What all cgroups share.
#[derive(Debug)]
pub struct Reader {
    hierarchies: Hierarchies,
    path: Vec<u8>,
    buffer: Vec<u8>,
    /// Whether a device has the scheduler bfq.
    bfq: bool,
    /// Descriptors that may be kept, and that are.
    budget: usize,
    open: usize,
}

/// Files of one cgroup.
#[derive(Debug, Default)]
pub struct Files {
    kept: [Option<File>; KEPT],
    /// Sources that were absent.
    absent: u32,
    /// Readings so far.
    age: u32,
    /// A file was there, and its cgroup is not any more.
    pub gone: bool,
    /// The process has no descriptor left to open them.
    pub exhausted: bool,
}

/// More text than any of these files has: `io.stat` has 100 bytes a device.
const LONGEST: usize = 64 * 1024;

impl Reader {
    /// Keeps up to `budget` descriptors.
    #[must_use]
    pub fn new(hierarchies: Hierarchies, bfq: bool, budget: usize) -> Self {
        Self { hierarchies, path: Vec::new(), buffer: vec![0; LONGEST], bfq, budget, open: 0 }
    }

    /// Where the controllers are.
    #[must_use]
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Whether a source is of cgroup v2.
    #[must_use]
    pub fn is_v2(&self, source: Source) -> bool {
        self.hierarchies.get(NAMES[source as usize].0).is_some_and(|place| place.v2)
    }

    /// Descriptors that are kept.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Begins a reading of a cgroup's files.
    pub fn begin(&self, files: &mut Files) {
        files.age = files.age.wrapping_add(1);
        (files.gone, files.exhausted) = (false, false);
    }

    /// Closes a cgroup's files.
    pub fn close(&mut self, files: &mut Files) {
        for kept in &mut files.kept {
            self.open -= usize::from(kept.take().is_some());
        }
    }

    /// Others use more descriptors than was thought: fewer are kept from now on, so that files can be opened at all.
    fn exhaust(&mut self, files: &mut Files) {
        if !files.exhausted {
            tracing::warn!(
                "files of cgroups cannot be opened, {} of them are kept open: raise the limit of open files (LimitNOFILE=, \
                 ulimit -n); fewer are kept from now on",
                self.open
            );
        }
        files.exhausted = true;
        files.absent = 0;
        self.close(files);
        self.budget = self.open;
    }

    /// The text of a source of the cgroup `id`; `None` where it has none.
    pub fn read(&mut self, id: &str, files: &mut Files, source: Source) -> Option<&[u8]> {
        let index = source as usize;
        let mut lost = false;
        if let Some(Some(file)) = files.kept.get(index) {
            match read_whole(file, &mut self.buffer) {
                Ok(read) => return Some(&self.buffer[..read]),
                // ENODEV: the cgroup is gone, or was made anew; EOPNOTSUPP: pressure is not accounted.
                Err(error) => {
                    lost = error.raw_os_error() == Some(libc::ENODEV);
                    files.kept[index] = None;
                    self.open -= 1;
                }
            }
        }
        // What was absent is looked for again ever more rarely: runtimes make a cgroup controller by controller.
        if files.absent & (1 << index) != 0 && !files.age.is_power_of_two() {
            return None;
        }
        let (controller, v1, v2) = NAMES[index];
        let place = self.hierarchies.get(controller)?;
        let names = if place.v2 { v2 } else { v1 };
        files.absent |= 1 << index;
        let first = if self.bfq && !place.v2 { bfq_name(source) } else { None };
        for name in first.iter().chain(names) {
            self.path.clear();
            self.path.extend_from_slice(place.root.as_os_str().as_bytes());
            self.path.extend_from_slice(id.as_bytes());
            if !id.ends_with('/') {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            let file = match File::open(Path::new(OsStr::from_bytes(&self.path))) {
                Ok(file) => file,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    self.exhaust(files);
                    return None;
                }
                Err(_) => continue,
            };
            let Ok(read) = read_whole(&file, &mut self.buffer) else { continue };
            files.absent &= !(1 << index);
            if index < KEPT && self.open < self.budget {
                files.kept[index] = Some(file);
                self.open += 1;
            }
            return Some(&self.buffer[..read]);
        }
        files.gone |= lost;
        None
    }
}

/// Of v1, which counts each device where its requests are scheduled: bfq its own, blk-throttle those that have limits (all
/// before Linux 6.10).
fn bfq_name(source: Source) -> Option<&'static str> {
    match source {
        Source::IoBytes => Some("blkio.bfq.io_service_bytes_recursive"),
        Source::IoRequests => Some("blkio.bfq.io_serviced_recursive"),
        _ => None,
    }
}

fn read_whole(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

const _: () = assert!(Source::PressureIo as usize + 1 == KEPT && Source::Processes as usize + 1 == NAMES.len());
const _: () = assert!(CONTROLLERS == Pressure as usize + 1);
