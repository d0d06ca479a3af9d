//! One collector on a tree of its own.
//!
//! Reads: files that a test writes. Yields: the samples, without heads and without what every scrape has. Costs: nothing.

use super::{Host, Settings};
use crate::config::Paths;
use crate::exposition::{Format, Scrape, to_text_of};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// A folder with `proc` and `sys`, and a collector that reads it.
pub struct Tree {
    folder: tempfile::TempDir,
    host: Host,
}

impl Tree {
    /// With the options that `set` changes.
    pub fn new(collector: &str, set: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let paths = Paths {
            procfs: root.join("proc"),
            sysfs: root.join("sys"),
            rootfs: root.to_owned(),
            udev_data: root.join("run/udev/data"),
        };
        let mut settings = Settings { paths, ..Settings::default() };
        settings.options.disable_defaults = true;
        settings.options.enable = vec![collector.to_owned()];
        set(&mut settings);
        let host = Host::new(&settings).always_asking();
        Self { folder, host }
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file with its folders.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The samples of a scrape.
    pub fn text(&self) -> String {
        self.scrape().0
    }

    /// The samples of a scrape, and whether the collector succeeded.
    pub fn scrape(&self) -> (String, bool) {
        self.scrape_until(Scrape::default().deadline)
    }

    /// All that a scrape gives.
    pub fn exposition(&self, deadline: Instant) -> String {
        to_text_of(&self.host, &Scrape { deadline, ..Scrape::default() }, Format::Text)
    }

    /// The same with a deadline.
    pub fn scrape_until(&self, deadline: Instant) -> (String, bool) {
        let all = self.exposition(deadline);
        let common = ["#", "node_scrape_collector_", "node_exporter_build_info", "rustok_obsd_"];
        let own = all.lines().filter(|line| !common.iter().any(|prefix| line.starts_with(prefix)));
        let success = |line: &str| line.starts_with("node_scrape_collector_success{") && line.ends_with(" 1");
        (own.map(|line| format!("{line}\n")).collect(), all.lines().any(success))
    }
}
