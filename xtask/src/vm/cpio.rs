//! An archive in cpio's `newc` format, which the kernel unpacks as its first root file system
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Reads: nothing. Yields: bytes on a writer. Costs: a copy of each file.

use std::collections::BTreeSet;
use std::io::{Result, Write};
use std::path::{Component, Path};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// Name of the last entry.
const TRAILER: &str = "TRAILER!!!";

/// Writes one. Every path is from `/`; folders are made on the way, everything belongs to root.
pub struct Archive<W> {
    out: W,
    written: usize,
    entries: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, entries: 0, folders: BTreeSet::new() }
    }

    /// A folder.
    pub fn folder(&mut self, path: &Path) -> Result<()> {
        self.parents(path)?;
        let name = name(path);
        if !name.is_empty() && self.folders.insert(name.clone()) {
            self.entry(&name, FOLDER | 0o755, (0, 0), &[])?;
        }
        Ok(())
    }

    /// A file that everybody may run.
    pub fn program(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.parents(path)?;
        self.entry(&name(path), FILE | 0o755, (0, 0), bytes)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &str) -> Result<()> {
        self.parents(path)?;
        self.entry(&name(path), LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device.
    pub fn device(&mut self, path: &Path, major: u32, minor: u32) -> Result<()> {
        self.parents(path)?;
        self.entry(&name(path), CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Writes the end, and yields the writer.
    pub fn finish(mut self) -> Result<W> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(parent) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(data.len()).map_err(|_| std::io::Error::other(format!("{name} is too large")))?;
        let terminated = name.len() as u32 + 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, terminated, 0];
        let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.write(b"070701")?;
        self.write(header.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.pad()?;
        self.write(data)?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.write(&[0; 3][..missing])
    }
}

/// Without the first `/`: the kernel unpacks relative to its root.
fn name(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, data of each entry, read by the format's own rules.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let whole = bytes.len();
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            assert_eq!((whole - bytes.len()) % 4, 0, "headers are aligned");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).expect("ASCII");
                u32::from_str_radix(text, 16).expect("a number")
            };
            let (size, length) = (field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[110..110 + length - 1]).expect("UTF-8").to_owned();
            assert_eq!(bytes[110 + length - 1], 0);
            let start = (110 + length).next_multiple_of(4);
            if name == TRAILER {
                assert_eq!(bytes.len(), start, "nothing follows");
                return entries;
            }
            entries.push((name, field(1), bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_is_written_can_be_read_and_folders_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.program(Path::new("/init"), b"12345").expect("written");
        archive.program(Path::new("/lib/a/one.so"), b"").expect("written");
        archive.link(Path::new("/lib/a/two.so"), "one.so").expect("written");
        archive.folder(Path::new("/lib/a")).expect("written");
        archive.device(Path::new("/dev/console"), 5, 1).expect("written");
        let bytes = archive.finish().expect("written");
        let expected = [
            ("init", FILE | 0o755, b"12345".as_slice()),
            ("lib", FOLDER | 0o755, b""),
            ("lib/a", FOLDER | 0o755, b""),
            ("lib/a/one.so", FILE | 0o755, b""),
            ("lib/a/two.so", LINK | 0o777, b"one.so"),
            ("dev", FOLDER | 0o755, b""),
            ("dev/console", CHARACTER_DEVICE | 0o600, b""),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(name, mode, data)| (name.to_owned(), mode, data.to_vec())).collect();
        assert_eq!(read(&bytes), expected);
    }
}
