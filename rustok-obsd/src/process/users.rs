//! Names of users.
//!
//! Reads: `/etc/passwd` of the host, its first 4 MiB; no other service of names, which could ask the network. Yields: a name, or the number.
//! Costs: the file once, and again, at most once a minute, for a number that it did not have.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::target::inside;

/// Time between two readings.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the file.
const MOST: u64 = 4 << 20;

/// The users.
#[derive(Debug)]
pub struct Users {
    rootfs: PathBuf,
    names: HashMap<u32, String>,
    read: Option<Instant>,
}

impl Users {
    /// Of a root.
    #[must_use]
    pub fn new(rootfs: &Path) -> Self {
        Self { rootfs: rootfs.to_owned(), names: HashMap::new(), read: None }
    }

    /// The name of a user.
    pub fn name(&mut self, user: u32) -> String {
        if !self.names.contains_key(&user) && self.read.is_none_or(|read| read.elapsed() > PATIENCE) {
            self.read = Some(Instant::now());
            let text = inside::read_below(&self.rootfs, Path::new("etc/passwd"), MOST).unwrap_or_default();
            let entry = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            };
            self.names = String::from_utf8_lossy(&text).lines().rev().filter_map(entry).collect();
        }
        self.names.get(&user).cloned().unwrap_or_else(|| user.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_or_numbered() {
        let mut users = Users::new(Path::new("/"));
        assert_eq!((users.name(0), users.name(4_000_000_000)), ("root".to_owned(), "4000000000".to_owned()));
        assert_eq!(Users::new(Path::new("/nowhere")).name(0), "0");
    }
}
