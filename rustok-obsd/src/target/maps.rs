//! Where a process has an executable's code.
//!
//! Reads: `/proc/PID/maps` (Documentation/filesystems/proc.rst). Yields: addresses of file offsets. Costs: one read.

use std::path::Path;

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
    let text = std::fs::read_to_string(procfs.join(pid.to_string()).join("maps")).unwrap_or_default();
    text.lines().filter_map(mapping).collect()
}

/// The address of a file offset.
#[must_use]
pub fn address(mappings: &[Mapping], inode: u64, file_offset: u64) -> Option<u64> {
    let within = |mapping: &&Mapping| {
        mapping.inode == inode
            && (mapping.offset..mapping.offset + (mapping.end - mapping.start)).contains(&file_offset)
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
        let mappings: Vec<_> = lines.iter().filter_map(|line| mapping(line)).collect();
        assert_eq!(mappings.len(), 1);
        assert_eq!(address(&mappings, 1_310_792, 0xf123), Some(0x55d0_c0a0_f123));
        assert_eq!(address(&mappings, 1_310_792, 0x123), None);
        assert_eq!(address(&mappings, 7, 0xf123), None);
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
