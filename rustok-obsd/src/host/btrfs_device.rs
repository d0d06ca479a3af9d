//! What a mounted btrfs says of its devices.
//!
//! Reads: mount points from mountinfo; `BTRFS_IOC_{FS_INFO,DEV_INFO,GET_DEV_STATS}` on each (include/uapi/linux/btrfs.h).
//! Yields: [`Device`]s by file system. Costs: an open and two ioctls per file system and two per device.

use super::text;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Kinds of errors, in the order of the kernel.
pub(super) const ERRORS: [&str; 5] = ["write", "read", "flush", "corruption", "generation"];

/// One device of a file system.
#[derive(Debug, PartialEq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) size: u64,
    pub(super) used: u64,
    pub(super) errors: [u64; 5],
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FileSystemInfo {
    max_id: u64,
    devices: u64,
    id: [u8; 16],
    rest: [u8; 992],
}

/// `struct btrfs_ioctl_dev_info_args`.
#[repr(C)]
struct DeviceInfo {
    id: u64,
    uuid: [u8; 16],
    used: u64,
    size: u64,
    unused: [u64; 379],
    path: [u8; 1024],
}

/// `struct btrfs_ioctl_get_dev_stats`.
#[repr(C)]
struct DeviceStats {
    id: u64,
    items: u64,
    flags: u64,
    values: [u64; 5],
    unused: [u64; 121],
}

const READ: u64 = 2;
const WRITE: u64 = 1;

/// `_IOC` of btrfs.
const fn request(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | 0x94 << 8 | number
}

const FS_INFO: u64 = request(READ, 31, size_of::<FileSystemInfo>());
const DEV_INFO: u64 = request(READ | WRITE, 30, size_of::<DeviceInfo>());
const GET_DEV_STATS: u64 = request(READ | WRITE, 52, size_of::<DeviceStats>());

/// File systems that are mounted below `root`: id, devices.
pub(super) fn mounted(mounts: &[u8], root: &Path) -> Vec<(String, Vec<Device>)> {
    let mut found: Vec<(String, Vec<Device>)> = Vec::new();
    let mut sources: Vec<&[u8]> = Vec::new();
    for (source, point) in text::lines(mounts).filter_map(mount_of) {
        // Most are mounted several times, by subvolume.
        if sources.contains(&source) {
            continue;
        }
        let path = root.join(point.strip_prefix("/").unwrap_or(&point));
        let Some((id, devices)) = File::open(path).ok().and_then(|folder| ask(&folder)) else { continue };
        sources.push(source);
        if found.iter().all(|(known, _)| *known != id) {
            found.push((id, devices));
        }
    }
    found
}

/// Source and mount point of a line of mountinfo, if it is a btrfs.
fn mount_of(line: &[u8]) -> Option<(&[u8], PathBuf)> {
    let mut words = text::words(line);
    let point = words.nth(4)?;
    words.find(|word| *word == b"-")?;
    if words.next()? != b"btrfs" {
        return None;
    }
    // Blanks, tabs, line ends and backslashes are octal there.
    let mut path = Vec::with_capacity(point.len());
    let mut rest = point;
    while let Some((first, others)) = rest.split_first() {
        let octal =
            rest.get(1..4).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match octal {
            Some(digits) => {
                path.push(digits.iter().fold(0u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &rest[4..];
            }
            None => {
                path.push(*first);
                rest = others;
            }
        }
    }
    Some((words.next()?, PathBuf::from(String::from_utf8(path).ok()?)))
}

fn ask(folder: &File) -> Option<(String, Vec<Device>)> {
    let mut info = FileSystemInfo { max_id: 0, devices: 0, id: [0; 16], rest: [0; 992] };
    call(folder, FS_INFO, &mut info)?;
    let mut devices = Vec::new();
    for id in 0..=info.max_id {
        if devices.len() as u64 == info.devices {
            break;
        }
        let mut device = DeviceInfo { id, uuid: [0; 16], used: 0, size: 0, unused: [0; 379], path: [0; 1024] };
        // Ids have gaps (ENODEV).
        if call(folder, DEV_INFO, &mut device).is_none() {
            continue;
        }
        let mut stats = DeviceStats { id, items: 5, flags: 0, values: [0; 5], unused: [0; 121] };
        call(folder, GET_DEV_STATS, &mut stats)?;
        let path = device.path.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        devices.push(Device {
            name: String::from_utf8_lossy(name).into_owned(),
            uuid: uuid(device.uuid),
            size: device.size,
            used: device.used,
            errors: stats.values,
        });
    }
    Some((uuid(info.id), devices))
}

fn call<T>(folder: &File, request: u64, argument: &mut T) -> Option<()> {
    // SAFETY: the request carries the size of `T`, which the kernel reads and writes within; the pointer is valid for it.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(argument)) };
    (result == 0).then_some(())
}

fn uuid(bytes: [u8; 16]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..4], &hex[4..6], &hex[6..8], &hex[8..10], &hex[10..]].map(<[String]>::concat).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structures_have_their_sizes() {
        assert_eq!(size_of::<FileSystemInfo>(), 1024);
        assert_eq!(size_of::<DeviceInfo>(), 4096);
        assert_eq!(size_of::<DeviceStats>(), 1032);
        assert_eq!(FS_INFO, 0x8400_941f);
    }

    #[test]
    fn mounts_of_btrfs_are_found_and_others_refuse() {
        let line = b"36 35 0:32 /sub /mnt/a\\040b rw,noatime shared:1 - btrfs /dev/sdb rw,space_cache";
        assert_eq!(mount_of(line), Some((b"/dev/sdb".as_slice(), PathBuf::from("/mnt/a b"))));
        assert_eq!(mount_of(b"36 35 0:32 / /mnt rw - ext4 /dev/sdb rw"), None);
        // A folder that is no btrfs refuses the ioctl.
        let folder = tempfile::tempdir().unwrap();
        let line = format!("36 35 0:32 / {} rw - btrfs /dev/sdb rw", folder.path().display());
        assert!(mounted(line.as_bytes(), Path::new("/")).is_empty());
        let id = [0xde, 0xad, 0xbe, 0xef, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0xab, 0xcd, 0xef, 0xab, 0xcd, 0xef];
        assert_eq!(uuid(id), "deadbeef-1234-5678-9012-abcdefabcdef");
    }
}
