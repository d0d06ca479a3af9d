//! File systems of the host, which cAdvisor tells of the root cgroup, and what their devices do.
//!
//! Reads: `/proc/1/mountinfo`, `statfs` on threads that may block, `/proc/diskstats`. Yields: a [`Volume`] per device (per
//! mount point for tmpfs). Costs: two files; a `statfs` each. A mount that does not answer by the deadline is left out.
//!
//! Times of devices are ms in the kernel; cAdvisor takes them for ns, and tells a millionth. Here they are seconds, as the
//! families' HELP has it.

use super::io::number;
use super::mounts::unescape;
use crate::config::Paths;
use crate::host::pool::Pool;
use crate::host::{KeptFile, text};
use rustc_hash::FxHashMap;
use std::collections::HashSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Types that hold data of their own.
const TYPES: [&str; 9] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs"];

/// Fields of `/proc/diskstats` after the name, as families want them.
pub type DiskStat = [u64; 11];

/// One file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its device, or mount point.
    pub device: String,
    /// Number of its device.
    pub number: (u32, u32),
    /// Size, in use: bytes. Inodes, free ones.
    pub space: [u64; 4],
    /// What its device did, where there is one.
    pub stat: Option<DiskStat>,
}

/// Reads them.
pub struct FileSystems {
    rootfs: PathBuf,
    mountinfo: KeptFile,
    own_mountinfo: KeptFile,
    diskstats: KeptFile,
    stats: FxHashMap<(u32, u32), DiskStat>,
    pool: Pool,
    /// What was found.
    pub volumes: Vec<Volume>,
}

impl FileSystems {
    /// Below these paths.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        let kept = |path: &str| KeptFile::new(paths.procfs.join(path));
        Self {
            rootfs: paths.rootfs.clone(),
            mountinfo: kept("1/mountinfo"),
            own_mountinfo: kept("self/mountinfo"),
            diskstats: kept("diskstats"),
            stats: FxHashMap::default(),
            pool: Pool::new(4),
            volumes: Vec::new(),
        }
    }

    /// Reads all until `deadline`.
    pub fn read(&mut self, deadline: Instant) {
        self.volumes.clear();
        self.read_stats();
        let text = match self.mountinfo.read() {
            Ok(text) => text,
            // hidepid hides the first process.
            Err(_) => match self.own_mountinfo.read() {
                Ok(text) => text,
                Err(_) => return,
            },
        };
        let mounts = mounts(text);
        let rootfs = self.rootfs.clone();
        let work = move |(mut volume, point): (Volume, String)| {
            volume.space = statfs(&rootfs.join(point.trim_start_matches('/')))?;
            Some(volume)
        };
        let found = self.pool.run(mounts, deadline, work);
        self.volumes.extend(found.into_iter().flatten());
        self.volumes.sort_by(|a, b| a.device.cmp(&b.device));
        for volume in &mut self.volumes {
            volume.stat = self.stats.get(&volume.number).copied();
        }
    }

    fn read_stats(&mut self) {
        self.stats.clear();
        let Ok(text) = self.diskstats.read() else { return };
        for line in text::lines(text) {
            let mut words = text::words(line);
            let mut next = || words.next().and_then(text::u64);
            let (Some(major), Some(minor)) = (next(), next()) else { continue };
            let mut stat = [0; 11];
            let values = stat.iter_mut().zip(words.skip(1).map_while(text::u64));
            if values.map(|(field, value)| *field = value).count() == 11 {
                self.stats.insert((major as u32, minor as u32), stat);
            }
        }
    }
}

/// Mounts with data of their own, each device once, with their mount points.
fn mounts(text: &[u8]) -> Vec<(Volume, String)> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for line in text::lines(text).filter_map(text::utf8) {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let before: Vec<&str> = before.split(' ').collect();
        let mut after = after.split(' ');
        let (Some(kind), Some(source), Some(point)) = (after.next(), after.next(), before.get(4)) else { continue };
        if !TYPES.contains(&kind) {
            continue;
        }
        let point = unescape(point);
        let device = if kind == "tmpfs" { point.clone() } else { unescape(source) };
        let number = before.get(2).and_then(|text| number(text.as_bytes())).unwrap_or_default();
        if seen.insert(device.clone()) {
            found.push((Volume { device, number, ..Volume::default() }, point));
        }
    }
    found
}

fn statfs(path: &Path) -> Option<[u64; 4]> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero bytes are a valid value of this plain structure.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends in NUL, `found` is as large as the call writes.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } != 0 {
        return None;
    }
    let total = found.f_blocks * found.f_frsize;
    Some([total, total - (found.f_bfree * found.f_frsize).min(total), found.f_files, found.f_ffree])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_once_and_tmpfs_by_its_mount_point() {
        let text = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n42 27 254:0 /x /x rw shared:1 - ext4 /dev/vda rw\n\
                     25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n22 27 0:21 / /proc rw - proc proc rw\nshort\n\
                     50 27 259:1 / /a\\040b rw - xfs /dev/nvme0n1p1 rw\n";
        let found: Vec<_> =
            mounts(text).into_iter().map(|(volume, point)| (volume.device, volume.number, point)).collect();
        assert_eq!(
            found,
            [
                ("/dev/vda".into(), (254, 0), "/".into()),
                ("/dev/shm".into(), (0, 23), "/dev/shm".into()),
                ("/dev/nvme0n1p1".into(), (259, 1), "/a b".to_owned()),
            ]
        );
    }
}
