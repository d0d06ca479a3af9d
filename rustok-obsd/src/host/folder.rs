//! A folder of sysfs with one entry per device, and what of the devices does not change.
//!
//! Reads: the names in a folder; attributes that stay as they are while a device is there. Yields: both from memory as long
//! as the entries are the same ones, by name and inode: the kernel gives a device that comes back another inode. Costs: one
//! listing per reading; an absent folder costs one failed open.

use super::{CollectError, attribute};
use rustc_hash::FxHashMap;
use std::fs;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

/// A folder of devices.
#[derive(Debug, Default)]
pub struct Folder {
    path: PathBuf,
    names: Vec<String>,
    inodes: Vec<u64>,
    fixed: FxHashMap<Box<str>, String>,
}

impl Folder {
    /// Of this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists it; whether the entries are others than before. One that comes or goes makes everything remembered void, for
    /// numbers are given again.
    ///
    /// # Errors
    /// It is not there ([`CollectError::NoData`]) or cannot be read.
    pub fn refresh(&mut self) -> Result<bool, CollectError> {
        let entries = entries(&self.path);
        let (names, inodes) =
            entries.as_ref().map_or_else(|_| (Vec::new(), Vec::new()), |entries| entries.iter().cloned().unzip());
        let news = names != self.names || inodes != self.inodes;
        if news {
            self.fixed.clear();
            (self.names, self.inodes) = (names, inodes);
        }
        entries.map(|_| news)
    }

    /// The same for what node_exporter looks for by a pattern: there, nothing found is no failure of the collector, even
    /// where the folder itself is absent.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn refresh_if_there(&mut self) -> Result<bool, CollectError> {
        match self.refresh() {
            Err(CollectError::NoData(_)) => Ok(true),
            refreshed => refreshed,
        }
    }

    /// The names, sorted, as of the last refresh.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// An attribute that does not change, by its path below the folder; read once, unless it is not there yet.
    pub fn fixed(&mut self, relative: &str) -> Option<&str> {
        if !self.fixed.contains_key(relative) {
            self.fixed.insert(relative.into(), attribute(&self.path.join(relative))?);
        }
        self.fixed.get(relative).map(String::as_str)
    }
}

/// The names in a folder with their inodes, sorted.
fn entries(path: &Path) -> Result<Vec<(String, u64)>, CollectError> {
    let entries = fs::read_dir(path).map_err(|source| CollectError::read(path, source))?;
    // An entry that goes away meanwhile is as good as gone before.
    let entries = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        Some((entry.file_name().into_string().ok()?, entry.ino()))
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    Ok(entries)
}

/// The names in a folder, sorted.
///
/// # Errors
/// It is not there ([`CollectError::NoData`]) or cannot be read.
pub fn names(path: &Path) -> Result<Vec<String>, CollectError> {
    Ok(entries(path)?.into_iter().map(|(name, _)| name).collect())
}

/// A whole number in an attribute of sysfs.
#[must_use]
pub fn unsigned(path: &Path) -> Option<u64> {
    attribute(path)?.parse().ok()
}

/// What is left of `name` after `prefix`, where that is a number.
#[must_use]
pub fn numbered<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let number = name.strip_prefix(prefix)?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

/// A name that may be part of a metric's: what is neither letter nor digit becomes `_`.
#[must_use]
pub fn metric_name(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_is_read_anew_when_the_devices_change() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(root.path().join("class"));
        assert!(matches!(folder.refresh(), Err(CollectError::NoData(_))));
        assert!(folder.refresh_if_there().is_ok());
        fs::create_dir_all(root.path().join("class/a")).unwrap();
        fs::write(root.path().join("class/a/type"), "one\n").unwrap();
        assert!(folder.refresh().unwrap());
        assert_eq!(folder.fixed("a/type"), Some("one"));
        fs::write(root.path().join("class/a/type"), "two\n").unwrap();
        assert!(!folder.refresh().unwrap());
        assert_eq!(folder.fixed("a/none"), None);
        assert_eq!(folder.fixed("a/type"), Some("one"));
        fs::create_dir(root.path().join("class/b")).unwrap();
        assert!(folder.refresh().unwrap());
        assert_eq!(folder.names(), ["a", "b"]);
        assert_eq!(folder.fixed("a/type"), Some("two"));
        // Another device of the name.
        let swapped = root.path().join("class/new");
        fs::create_dir(&swapped).unwrap();
        fs::write(swapped.join("type"), "three\n").unwrap();
        fs::rename(root.path().join("class/a"), root.path().join("old")).unwrap();
        fs::rename(&swapped, root.path().join("class/a")).unwrap();
        assert!(folder.refresh().unwrap());
        assert_eq!(folder.names(), ["a", "b"]);
        assert_eq!(folder.fixed("a/type"), Some("three"));
        fs::remove_dir_all(root.path().join("class")).unwrap();
        assert!(folder.refresh().is_err() && folder.names().is_empty());
        assert_eq!((numbered("mc12", "mc"), numbered("mc", "mc"), numbered("mcx", "mc")), (Some("12"), None, None));
    }
}
