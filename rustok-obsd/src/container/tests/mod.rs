//! Made-up trees of cgroup v1 and v2: every family by value, and what comes and goes.

mod tree;
mod values;

use super::names::{Facts, Lookup, Names};
use super::{Containers, Settings};
use crate::config::Paths;
use crate::config::container::ContainerOptions;
use crate::exposition::{Format, to_text};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use test_support::Scraped;

/// Id of a container.
pub(super) const ID: &str = "8f1b000c43577533339c8fc1da1763db39ebbfe5b0edf2ca78a7af9503a11527";

/// A host in a folder.
pub(super) struct Host {
    folder: tempfile::TempDir,
    pub(super) options: ContainerOptions,
}

impl Host {
    pub(super) fn new(mountinfo: &str) -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap(), options: ContainerOptions::default() };
        host.file("proc/self/mountinfo", &mountinfo.replace('@', &host.folder.path().display().to_string()));
        host.file("proc/stat", "cpu 1 2 3\nbtime 1000000030\n");
        host.file("proc/meminfo", "MemTotal: 1000 kB\nSwapTotal: 200 kB\nSwapFree: 150 kB\n");
        host.file("proc/sys/kernel/osrelease", "6.1.0\n");
        host.file("proc/sys/kernel/random/boot_id", "boot\n");
        host.file("etc/os-release", "NAME=x\nPRETTY_NAME=\"Test 1\"\n");
        host.file("etc/machine-id", "machine\n");
        host.file("sys/dev/block/259:0/uevent", "MAJOR=259\nMINOR=0\nDEVNAME=nvme0n1\n");
        host
    }

    /// With the controllers of v1, each by itself, and a bare unified tree.
    pub(super) fn v1() -> Self {
        let names = ["cpu", "cpuacct", "memory", "blkio"];
        let line = |name: &str| format!("32 31 0:29 / @/sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n");
        let mut lines: String = names.iter().map(|name| line(name)).collect();
        lines.push_str("41 31 0:38 / @/sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let host = Self::new(&lines);
        host.file("sys/fs/cgroup/unified/cgroup.controllers", "\n");
        names.iter().for_each(|name| host.folder(&format!("sys/fs/cgroup/{name}")));
        host
    }

    pub(super) fn v2() -> Self {
        let host = Self::new("30 23 0:26 / @/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        host.file("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n");
        host
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(super) fn folder(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    pub(super) fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Files of a cgroup: `controller/file` and text, one a line.
    pub(super) fn files(&self, files: &[(&str, &str)]) {
        files.iter().for_each(|(path, text)| self.file(&format!("sys/fs/cgroup/{path}"), text));
    }

    pub(super) fn containers(&self, names: Arc<dyn Names>) -> Containers {
        let root = self.folder.path();
        let paths = Paths {
            procfs: root.join("proc"),
            sysfs: root.join("sys"),
            rootfs: root.to_owned(),
            udev_data: root.join("udev"),
        };
        let settings = Settings { paths, options: self.options.clone(), open_files: 1000 };
        Containers::new(&settings, names).unwrap()
    }
}

/// What tests know.
#[derive(Default)]
pub(super) struct Told {
    pub(super) answers: Mutex<HashMap<String, Lookup>>,
    pub(super) version: AtomicU64,
}

impl Told {
    pub(super) fn set(&self, id: &str, answer: Lookup) {
        self.answers.lock().unwrap().insert(id.to_owned(), answer);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn known(&self, id: &str, facts: Facts) {
        self.set(id, Lookup::Known(Arc::new(facts)));
    }
}

impl Names for Told {
    fn lookup(&self, id: &str) -> Lookup {
        self.answers.lock().unwrap().get(id).cloned().unwrap_or(Lookup::Unknown)
    }

    fn pod(&self, uid: &str) -> Option<Arc<Facts>> {
        match self.answers.lock().unwrap().get(uid)? {
            Lookup::Known(facts) => Some(Arc::clone(facts)),
            _ => None,
        }
    }

    fn wanted(&self, _: &str) {}

    fn forget(&self, _: &str) {}

    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

pub(super) fn text(containers: &Containers) -> String {
    to_text(containers, Format::Text)
}

pub(super) fn scrape(containers: &Containers) -> Scraped {
    Scraped::parse(&text(containers)).unwrap()
}

/// The ids that a scrape tells.
pub(super) fn ids(containers: &Containers) -> Vec<String> {
    let text = text(containers);
    let lines = text.lines().filter(|line| line.starts_with("container_last_seen"));
    let mut ids: Vec<String> =
        lines.map(|line| line.split("id=\"").nth(1).unwrap().split('"').next().unwrap().into()).collect();
    ids.sort();
    ids
}

pub(super) fn remove(path: &Path) {
    fs::remove_dir_all(path).unwrap();
}
