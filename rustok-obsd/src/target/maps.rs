//! Where a process has an executable's code.
//!
//! Reads: `/proc/PID/maps` (Documentation/filesystems/proc.rst), its first 16 MiB. Yields: addresses of file offsets. Costs:
//! the read, some ten kilobytes; a process can make it hundreds of megabytes long, by many mappings of files with long paths.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

/// Bytes of the table that are read. The executable comes first: its mappings are made before all others, at low addresses.
const MAX_TABLE: u64 = 16 << 20;
/// Mappings that are kept.
const MAX_MAPPINGS: usize = 4096;

/// A part of a file in a process' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    inode: u64,
}

/// The executable parts of all files.
#[must_use]
pub fn executable(procfs: &Path, pid: u32) -> Vec<Mapping> {
    let file = File::open(procfs.join(pid.to_string()).join("maps"));
    file.map(|file| table(BufReader::new(file.take(MAX_TABLE)))).unwrap_or_default()
}

/// Line by line; a path need not be UTF-8, and what comes before it always is.
fn table(mut text: impl BufRead) -> Vec<Mapping> {
    let (mut mappings, mut line) = (Vec::new(), Vec::new());
    while mappings.len() < MAX_MAPPINGS && text.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        mappings.extend(mapping(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    mappings
}

/// The address of a file offset.
#[must_use]
pub fn address(mappings: &[Mapping], inode: u64, file_offset: u64) -> Option<u64> {
    let within = |mapping: &&Mapping| {
        mapping.inode == inode
            && file_offset.checked_sub(mapping.offset).is_some_and(|into| into < mapping.end - mapping.start)
    };
    let mapping = mappings.iter().find(within)?;
    Some(mapping.start + (file_offset - mapping.offset))
}

/// `55d0c0a0f000-55d0c0b3e000 r-xp 0000f000 fe:00 1310792    /usr/bin/server`
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end, offset) = (hex(start)?, hex(end)?, hex(fields.next()?)?);
    let inode = fields.nth(1)?.parse().ok()?;
    (permissions.contains('x') && start < end).then_some(Mapping { start, end, offset, inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_in_the_code_has_an_address() {
        let lines = [
            "55d0c0a00000-55d0c0a0f000 r--p 00000000 fe:00 1310792    /usr/bin/server",
            "55d0c0a0f000-55d0c0b3e000 r-xp 0000f000 fe:00 1310792    /usr/bin/server",
            "7ffd5a5c6000-7ffd5a5e7000 rw-p 00000000 00:00 0          [stack]",
            "none",
        ];
        let mappings = table(lines.join("\n").as_bytes());
        assert_eq!(mappings.len(), 1);
        assert_eq!(address(&mappings, 1_310_792, 0xf123), Some(0x55d0_c0a0_f123));
        assert_eq!(address(&mappings, 1_310_792, 0x123), None);
        assert_eq!(address(&mappings, 7, 0xf123), None);
    }

    #[test]
    fn a_path_of_other_bytes_hides_nothing_and_a_long_table_has_an_end() {
        let mut text = b"1000-2000 r-xp 00000000 fe:00 7 /a\xff\n2000-3000 r-xp 00001000 fe:00 7 /a\xff\n".to_vec();
        assert_eq!(address(&table(text.as_slice()), 7, 0x1001), Some(0x2001));
        text = text.repeat(MAX_MAPPINGS);
        assert_eq!(table(text.as_slice()).len(), MAX_MAPPINGS);
    }

    #[test]
    fn ones_own_code_is_found() {
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/exe").unwrap());
        let mappings = executable(Path::new("/proc"), std::process::id());
        let here = ones_own_code_is_found as *const () as u64;
        let own: Vec<_> = mappings.iter().filter(|mapping| mapping.inode == inode).collect();
        assert!(own.iter().any(|mapping| (mapping.start..mapping.end).contains(&here)), "{own:?}");
    }
}
