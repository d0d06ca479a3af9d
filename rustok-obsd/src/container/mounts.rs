//! Where the controllers of cgroups are mounted.
//!
//! Reads: `mountinfo` below the configured procfs (proc(5)), `cgroup.controllers` of cgroup v2. Yields: [`Hierarchies`].
//! Costs: once at start.

use crate::config::Paths;
use crate::host::text;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no tree of cgroups.
#[derive(Debug, Error)]
pub enum MountError {
    /// The mounts cannot be read.
    #[error("{} cannot be read: {source}; set path.procfs to where the host's procfs is mounted", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// None of the mounts is one.
    #[error(
        "no cgroup file system is mounted below {}; mount one (mount -t cgroup2 none /sys/fs/cgroup), or set path.sysfs to \
         where the host's sysfs is mounted", sysfs.display()
    )]
    None {
        /// Where it was looked for.
        sysfs: PathBuf,
    },
}

/// What has files of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Shares, quotas and throttling.
    Cpu,
    /// Time on CPUs.
    CpuAcct,
    /// Memory.
    Memory,
    /// Block devices.
    Io,
    /// Pressure, in cgroup v2 only.
    Pressure,
}

/// Number of controllers.
pub const CONTROLLERS: usize = 5;

/// A controller's hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where its root is.
    pub root: PathBuf,
    /// Whether it is cgroup v2.
    pub v2: bool,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    places: [Option<Place>; CONTROLLERS],
}

impl Hierarchies {
    /// Finds them.
    ///
    /// # Errors
    /// There is none.
    pub fn find(paths: &Paths) -> Result<Self, MountError> {
        let path = paths.procfs.join("self/mountinfo");
        let text = fs::read(&path).map_err(|source| MountError::Read { path, source })?;
        let mounts: Vec<Mount> = text::lines(&text).filter_map(Mount::parse).collect();
        // Of several the one of the configured sysfs counts, then one whose root is the hierarchy's.
        let best = |fits: &dyn Fn(&Mount) -> bool| {
            let rank = |mount: &&Mount| (mount.path.starts_with(&paths.sysfs), mount.whole);
            // The first of equals: others were mounted later, by whoever.
            mounts.iter().rev().filter(|mount| fits(mount)).max_by_key(rank).map(|mount| mount.path.clone())
        };
        let v1 = |name: &str| {
            let root = best(&|mount| !mount.v2 && mount.options.split(',').any(|option| option == name))?;
            Some(Place { root, v2: false })
        };
        let unified = best(&|mount| mount.v2);
        let enabled = unified.as_ref().and_then(|root| fs::read_to_string(root.join("cgroup.controllers")).ok());
        let enabled = enabled.unwrap_or_default();
        let v2 = |needs: &str| {
            let root = unified.clone()?;
            let there = needs.is_empty() || enabled.split_whitespace().any(|name| name == needs);
            there.then_some(Place { root, v2: true })
        };
        // The kernel accounts CPU time in every cgroup v2 without its controller; where v1 has the controllers, its cgroups
        // are those that count.
        let places = [
            v1("cpu").or_else(|| v2("cpu")),
            v1("cpuacct").or_else(|| v2("")),
            v1("memory").or_else(|| v2("memory")),
            v1("blkio").or_else(|| v2("io")),
            v2(""),
        ];
        if places.iter().all(Option::is_none) {
            return Err(MountError::None { sysfs: paths.sysfs.clone() });
        }
        Ok(Self { places })
    }

    /// Where a controller is.
    #[must_use]
    pub fn get(&self, controller: Controller) -> Option<&Place> {
        self.places[controller as usize].as_ref()
    }

    /// The trees whose directories are followed: of those controllers that runtimes always use. At most two.
    #[must_use]
    pub fn followed(&self) -> Vec<&Path> {
        use Controller::{Cpu, CpuAcct, Memory, Pressure};
        let places = [Cpu, Memory, CpuAcct, Pressure].map(|controller| self.get(controller));
        let mut roots: Vec<&Path> = Vec::new();
        for place in places.iter().flatten() {
            // A unified tree beside controllers of v1 has none of its own.
            let counts = roots.is_empty() || (!place.v2 && roots.len() < 2);
            if counts && !roots.contains(&&*place.root) {
                roots.push(&place.root);
            }
        }
        // cpuacct is followed only where nothing else of v1 is.
        if roots.len() == 2 && self.get(Memory).is_some_and(|memory| memory.root == *roots[0]) {
            roots.truncate(1);
        }
        roots
    }
}

struct Mount {
    path: PathBuf,
    v2: bool,
    /// It shows the whole hierarchy.
    whole: bool,
    options: String,
}

impl Mount {
    /// `36 35 98:0 ROOT MOUNT_POINT OPTIONS [FIELDS] - TYPE SOURCE SUPER_OPTIONS`
    fn parse(line: &[u8]) -> Option<Self> {
        let line = text::utf8(line)?;
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, path) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let v2 = match after.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let options = after.nth(1).unwrap_or_default().to_owned();
        Some(Self { path: PathBuf::from(unescape(path)), v2, whole: root == "/", options })
    }
}

/// Undoes the octal escapes of mountinfo (blank, tab, line feed, backslash).
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        mountinfo: &str,
        controllers: Option<(&str, &str)>,
    ) -> (tempfile::TempDir, Result<Hierarchies, MountError>) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        fs::create_dir_all(folder.path().join("proc/self")).unwrap();
        fs::write(folder.path().join("proc/self/mountinfo"), mountinfo.replace('@', &root)).unwrap();
        if let Some((path, text)) = controllers {
            fs::create_dir_all(folder.path().join(path)).unwrap();
            fs::write(folder.path().join(path).join("cgroup.controllers"), text).unwrap();
        }
        let paths = Paths { procfs: folder.path().join("proc"), sysfs: folder.path().join("sys"), ..Paths::default() };
        let found = Hierarchies::find(&paths);
        (folder, found)
    }

    #[test]
    fn v1_with_joined_controllers_and_a_bare_unified_tree() {
        let text = "31 23 0:28 / @/sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    32 31 0:29 / @/sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    35 31 0:32 / @/sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                    36 31 0:32 /docker/x @/elsewhere rw,relatime - cgroup cgroup rw,memory\n\
                    41 31 0:38 / @/sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw\n";
        let (folder, found) = found(text, Some(("sys/fs/cgroup/uni fied", "hugetlb\n")));
        let found = found.unwrap();
        let at = |name: &str, v2| Some(Place { root: folder.path().join("sys/fs/cgroup").join(name), v2 });
        assert_eq!(found.get(Controller::Cpu).cloned(), at("cpu,cpuacct", false));
        assert_eq!(found.get(Controller::CpuAcct).cloned(), at("cpu,cpuacct", false));
        assert_eq!(found.get(Controller::Memory).cloned(), at("memory", false));
        assert_eq!(found.get(Controller::Io), None);
        assert_eq!(found.get(Controller::Pressure).cloned(), at("uni fied", true));
        let followed: Vec<_> = found.followed().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(followed, ["cpu,cpuacct", "memory"]);
    }

    #[test]
    fn v2_alone_is_one_tree() {
        let text = "30 23 0:26 / @/sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let (folder, found) = found(text, Some(("sys/fs/cgroup", "cpuset cpu io memory pids\n")));
        let found = found.unwrap();
        let root = folder.path().join("sys/fs/cgroup");
        use Controller::{Cpu, CpuAcct, Io, Memory, Pressure};
        for controller in [Cpu, CpuAcct, Memory, Io, Pressure] {
            assert_eq!(found.get(controller), Some(&Place { root: root.clone(), v2: true }));
        }
        assert_eq!(found.followed(), [&*root]);
    }

    #[test]
    fn without_cgroups_the_reason_names_the_remedy() {
        let error = found("22 27 0:21 / /proc rw - proc proc rw\n", None).1.unwrap_err().to_string();
        assert!(error.contains("mount -t cgroup2") && error.contains("path.sysfs"), "{error}");
        let paths = Paths { procfs: "/nowhere".into(), ..Paths::default() };
        let error = Hierarchies::find(&paths).unwrap_err().to_string();
        assert!(error.contains("/nowhere/self/mountinfo") && error.contains("path.procfs"), "{error}");
    }
}
