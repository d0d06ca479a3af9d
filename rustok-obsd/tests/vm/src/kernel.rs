//! What the kernel's own files say, which is what the daemon is held against.
//!
//! Reads: files of a cgroup, of `/proc`. Yields: numbers as they stand there. Costs: a file for each number.

use std::fs;
use std::path::{Path, PathBuf};

use crate::guest::Verdict;

/// Where a number stands.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The file is a number; `max`, for no limit, is told as 0.
    Number(&'static str),
    /// A line `KEY NUMBER`.
    Line(&'static str, &'static str),
    /// `total=` in the line that begins with this word.
    Total(&'static str, &'static str),
    /// `KEY=` in the line of the disk in `io.stat`.
    Disk(&'static str),
    /// Nowhere: this kernel has no such thing, and the daemon tells a 0 as cAdvisor does.
    Zero,
}

impl Source {
    /// Reads it below a folder.
    pub fn read(self, folder: &Path) -> Result<u64, Verdict> {
        let file = match self {
            Self::Number(file) | Self::Line(file, _) | Self::Total(file, _) => file,
            Self::Disk(_) => "io.stat",
            Self::Zero => return Ok(0),
        };
        let path = folder.join(file);
        let text = read(&path)?;
        self.find(&text).ok_or_else(|| Verdict::Fail(format!("no {self:?} in {}: {text}", path.display())))
    }

    fn find(self, text: &str) -> Option<u64> {
        let line_of = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        let pair = |line: &str, key: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
        };
        match self {
            Self::Number(_) if text.trim() == "max" => Some(0),
            Self::Number(_) => text.trim().parse().ok(),
            Self::Line(_, key) => line_of(key)?.trim().parse().ok(),
            Self::Total(_, word) => pair(line_of(word)?, "total"),
            Self::Disk(key) => pair(line_of(&disk()?)?, key),
            Self::Zero => Some(0),
        }
    }
}

/// Name of the disk that is there for whoever wants to write.
pub const DISK: &str = "nvme0n1";

/// Its number: `259:0`.
pub fn disk() -> Option<String> {
    Some(fs::read_to_string(format!("/sys/block/{DISK}/dev")).ok()?.trim().to_owned())
}

/// A file's text; the error names it.
pub fn read(path: &Path) -> Result<String, Verdict> {
    fs::read_to_string(path).map_err(|error| Verdict::Fail(format!("{}: {error}", path.display())))
}

/// A cgroup that is made here, and removed with its value. Its processes must have ended.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes it.
    pub fn new(folder: PathBuf) -> Result<Self, Verdict> {
        fs::create_dir_all(&folder).map_err(|error| Verdict::Fail(format!("{}: {error}", folder.display())))?;
        Ok(Self(folder))
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was reaped is out of its cgroup.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_they_stand() {
        let pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 total=7\n";
        assert_eq!(Source::Total("f", "full").find(pressure), Some(7));
        assert_eq!(Source::Line("f", "nr").find("nr_periods 3\nnr 4\n"), Some(4));
        assert_eq!(Source::Line("f", "nr").find("nr_periods 3\n"), None);
        assert_eq!(Source::Number("f").find("max\n"), Some(0));
        assert_eq!(Source::Number("f").find("20000 100000\n"), None);
    }
}
