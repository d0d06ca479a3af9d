//! Reads and writes of a cgroup, by device.
//!
//! Reads: v1 `blkio.bfq.io_{service_bytes,serviced}_recursive` where a device has that scheduler, else
//! `blkio.throttle.*`, in which Linux 6.10 and later count limited devices only; v2 `io.stat`; `/sys/dev/block` for names. Yields: a
//! [`Disk`] per device. Costs: one or two small files; a device's name once in a while.

use super::files::{Files, Reader, Source};
use crate::host::text;
use rustc_hash::FxHashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Operations that v1 counts, as it names them.
pub const OPERATIONS: [&str; 6] = ["Read", "Write", "Sync", "Async", "Discard", "Total"];

/// One device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Major and minor number.
    pub number: (u32, u32),
    /// Bytes by [`OPERATIONS`].
    pub bytes: [Option<u64>; 6],
    /// Requests read and written.
    pub requests: [Option<u64>; 2],
    /// `cost.usage`, `cost.wait`, `cost.indebt`, `cost.indelay`, µs.
    pub cost: [Option<u64>; 4],
}

/// Reads all devices into `disks`.
pub fn read(disks: &mut Vec<Disk>, id: &str, files: &mut Files, reader: &mut Reader) {
    disks.clear();
    let v2 = reader.is_v2(Source::IoBytes);
    let Some(text) = reader.read(id, files, Source::IoBytes) else { return };
    if v2 {
        disks.extend(text::lines(text).filter_map(v2_line));
        return;
    }
    v1_lines(text, |number, operation, value| {
        entry(disks, number).bytes[operation] = Some(value);
    });
    if let Some(text) = reader.read(id, files, Source::IoRequests) {
        v1_lines(text, |number, operation, value| {
            if operation < 2 {
                entry(disks, number).requests[operation] = Some(value);
            }
        });
    }
}

fn entry(disks: &mut Vec<Disk>, number: (u32, u32)) -> &mut Disk {
    let at = disks.iter().position(|disk| disk.number == number).unwrap_or_else(|| {
        disks.push(Disk { number, ..Disk::default() });
        disks.len() - 1
    });
    &mut disks[at]
}

/// `8:0 Read 4096`; the line `Total 4096` is of no device.
fn v1_lines(text: &[u8], mut each: impl FnMut((u32, u32), usize, u64)) {
    for line in text::lines(text) {
        let mut words = text::words(line);
        let (Some(device), Some(operation), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
        let operation = OPERATIONS.iter().position(|name| name.as_bytes() == operation);
        if let (Some(number), Some(operation), Some(value)) = (number(device), operation, text::u64(value)) {
            each(number, operation, value);
        }
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7`
fn v2_line(line: &[u8]) -> Option<Disk> {
    let mut words = text::words(line);
    let mut disk = Disk { number: number(words.next()?)?, ..Disk::default() };
    for word in words {
        let Some(at) = memchr::memchr(b'=', word) else { continue };
        let value = text::u64(&word[at + 1..]);
        match &word[..at] {
            b"rbytes" => disk.bytes[0] = value,
            b"wbytes" => disk.bytes[1] = value,
            b"rios" => disk.requests[0] = value,
            b"wios" => disk.requests[1] = value,
            b"cost.usage" => disk.cost[0] = value,
            b"cost.wait" => disk.cost[1] = value,
            b"cost.indebt" => disk.cost[2] = value,
            b"cost.indelay" => disk.cost[3] = value,
            _ => {}
        }
    }
    // A device that only its number is known of.
    (disk.bytes[0].is_some() || disk.cost[0].is_some()).then_some(disk)
}

/// `8:0`
pub(super) fn number(text: &[u8]) -> Option<(u32, u32)> {
    let at = memchr::memchr(b':', text)?;
    let part = |part| text::u64(part).and_then(|number| u32::try_from(number).ok());
    Some((part(&text[..at])?, part(&text[at + 1..])?))
}

/// Whether a block device of this host has the scheduler bfq, which then counts in v1.
#[must_use]
pub fn has_bfq(sysfs: &Path) -> bool {
    let devices = fs::read_dir(sysfs.join("block")).into_iter().flatten().flatten();
    let scheduler =
        |device: fs::DirEntry| fs::read_to_string(device.path().join("queue/scheduler")).unwrap_or_default();
    devices.map(scheduler).any(|text| text.contains("[bfq]"))
}

/// Names of devices by number.
#[derive(Debug)]
pub struct Devices {
    folder: PathBuf,
    names: FxHashMap<(u32, u32), Box<str>>,
    /// Readings until numbers may mean other devices.
    fresh: u32,
}

/// Scrapes after which names are asked for anew.
const FRESH: u32 = 64;

impl Devices {
    /// By the links below `dev/block` of sysfs.
    #[must_use]
    pub fn new(sysfs: &Path) -> Self {
        Self { folder: sysfs.join("dev/block"), names: FxHashMap::default(), fresh: 0 }
    }

    /// Begins a scrape.
    pub fn begin(&mut self) {
        if self.fresh == 0 {
            self.names.clear();
            self.fresh = FRESH;
        }
        self.fresh -= 1;
    }

    /// Learns the name of a device: `/dev/<name>`, or the empty text where the kernel does not know it any more.
    pub fn learn(&mut self, number: (u32, u32)) {
        let folder = &self.folder;
        self.names.entry(number).or_insert_with(|| {
            let text = fs::read_to_string(folder.join(format!("{}:{}/uevent", number.0, number.1)));
            let text = text.unwrap_or_default();
            let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
            name.map(|name| format!("/dev/{name}")).unwrap_or_default().into()
        });
    }

    /// The name of a device that was learnt.
    #[must_use]
    pub fn name(&self, number: (u32, u32)) -> &str {
        self.names.get(&number).map_or("", |name| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_versions_are_read() {
        let disk = v2_line(b"259:3 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=6 cost.usage=7").unwrap();
        assert_eq!(
            (disk.number, disk.bytes[0], disk.requests[1], disk.cost[0]),
            ((259, 3), Some(10), Some(2), Some(7))
        );
        assert_eq!(v2_line(b"7:0 "), None);
        assert_eq!(v2_line(b"garbage rbytes=1"), None);
        let mut seen = Vec::new();
        v1_lines(b"8:0 Read 5\n8:0 Total 6\n8:x Read 1\nTotal 6\n8:16 Fly 1\n", |n, o, v| seen.push((n, o, v)));
        assert_eq!(seen, [((8, 0), 0, 5), ((8, 0), 5, 6)]);
    }
}
