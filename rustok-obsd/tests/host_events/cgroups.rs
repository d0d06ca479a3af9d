//! Cgroups that come and go, and victims of the OOM killer in them.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use test_support::{skip, wait_until};

use crate::{
    helper,
    watch::{As, Kept, Watch},
};

/// A hierarchy: its mount, its number, and its file for the most memory.
struct Hierarchy {
    mount: PathBuf,
    number: u32,
    limit: &'static str,
}

/// Hierarchies with directories of our own: that of memory (v1, or v2 where it has the controller), and v2.
fn hierarchies() -> (Option<Hierarchy>, Option<Hierarchy>) {
    let number = |controller: &str| {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        text.lines().find_map(|line| {
            let mut parts = line.split(':');
            let number = parts.next()?.parse().ok()?;
            parts.next()?.split(',').any(|known| known == controller).then_some(number)
        })
    };
    let v2 = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|mount| Path::new(mount).join("cgroup.controllers").exists())
        .map(|mount| Hierarchy { mount: mount.into(), number: 0, limit: "memory.max" });
    let v1 = number("memory").map(|number| Hierarchy {
        mount: "/sys/fs/cgroup/memory".into(),
        number,
        limit: "memory.limit_in_bytes",
    });
    let enabled = |v2: &Hierarchy| {
        let text = fs::read_to_string(v2.mount.join("cgroup.subtree_control")).unwrap_or_default();
        text.split_whitespace().any(|controller| controller == "memory")
    };
    let memory = v1.or_else(|| {
        let mount = v2.as_ref().filter(|v2| enabled(v2))?.mount.clone();
        Some(Hierarchy { mount, number: 0, limit: "memory.max" })
    });
    (memory, v2)
}

/// A cgroup of ours, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(hierarchy: &Hierarchy, name: &str) -> io::Result<Self> {
        let path = hierarchy.mount.join(format!("rustok-obsd-{}-{name}", std::process::id()));
        fs::create_dir(&path).map(|()| Self(path))
    }

    fn inode(&self) -> u64 {
        fs::metadata(&self.0).expect("it is there").ino()
    }

    fn name(&self) -> String {
        format!("/{}", self.0.file_name().expect("a name").to_string_lossy())
    }

    /// A killed process may hold it for a moment.
    fn remove(&self) {
        let removed = wait_until(Duration::from_secs(10), || fs::remove_dir(&self.0).ok());
        removed.expect("the cgroup can be removed");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn cgroups_are_told_with_their_inode_hierarchy_level_and_path() {
    let test = "cgroups_are_told_with_their_inode_hierarchy_level_and_path";
    let Some(watch) = Watch::start(test, As::Now, 1 << 18) else { return };
    let (memory, v2) = hierarchies();
    let mut looked_at = 0;
    for hierarchy in memory.iter().chain(&v2) {
        let outer = match Cgroup::make(hierarchy, "outer") {
            Ok(outer) => outer,
            Err(error) => {
                skip(test, format!("{}: {error}", hierarchy.mount.display()));
                continue;
            }
        };
        let long = "x".repeat(220);
        let inner = Cgroup(outer.0.join("inner"));
        fs::create_dir(&inner.0).unwrap();
        let deep = Cgroup(outer.0.join(&long));
        fs::create_dir(&deep.0).unwrap();
        let inodes = [outer.inode(), inner.inode(), deep.inode()];
        for cgroup in [&deep, &inner, &outer] {
            cgroup.remove();
        }
        let paths = [Some(outer.name()), Some(format!("{}/inner", outer.name())), None];
        for ((inode, path), level) in inodes.into_iter().zip(paths).zip([1, 2, 2]) {
            let made = watch.all(|event| match event {
                Kept::Made { cgroup, hierarchy, level, path } if *cgroup == inode => {
                    Some((*hierarchy, *level, path.clone()))
                }
                _ => None,
            });
            let removed = watch.all(|event| match event {
                Kept::Removed { cgroup, hierarchy, level, path } if *cgroup == inode => {
                    Some((*hierarchy, *level, path.clone()))
                }
                _ => None,
            });
            let expected = [(hierarchy.number, level, path)];
            // Other hierarchies may have the same inode.
            let ours = |list: Vec<(u32, u32, Option<String>)>| {
                list.into_iter().filter(|(number, ..)| *number == hierarchy.number).collect::<Vec<_>>()
            };
            assert_eq!((&ours(made)[..], &ours(removed)[..]), (&expected[..], &expected[..]), "{inode}");
        }
        looked_at += 1;
    }
    println!("{looked_at} hierarchies");
    watch.assert_whole();
    watch.print_costs();
}

fn victim_is_told(test: &str, told: As) {
    let Some(watch) = Watch::start(test, told, 1 << 18) else { return };
    let Some(hierarchy) = hierarchies().0 else { return skip(test, "no hierarchy has the memory controller") };
    let cgroup = match Cgroup::make(&hierarchy, if told == As::Now { "oom" } else { "oom-before" }) {
        Ok(cgroup) => cgroup,
        Err(error) => return skip(test, format!("{}: {error}", hierarchy.mount.display())),
    };
    fs::write(cgroup.0.join(hierarchy.limit), "16777216").expect("the limit is taken");
    let inode = cgroup.inode();
    for _ in 0..3 {
        let ended = helper::run(&mut helper::eater(&cgroup.0));
        assert!(libc::WIFSIGNALED(ended.status) && libc::WTERMSIG(ended.status) == libc::SIGKILL, "{ended:?}");
        let victims = |event: &Kept| match event {
            Kept::Oom { pid, cgroup, .. } if *pid == ended.pid => Some(*cgroup),
            _ => None,
        };
        assert_eq!(watch.all(victims), [Some(inode)]);
    }
    // The last one's cgroup goes with it, before anybody looks.
    let ended = helper::run(&mut helper::eater(&cgroup.0));
    cgroup.remove();
    assert!(!cgroup.0.exists());
    let victims = |event: &Kept| match event {
        Kept::Oom { pid, cgroup, .. } if *pid == ended.pid => Some(*cgroup),
        _ => None,
    };
    assert_eq!(watch.all(victims), [Some(inode)]);
    watch.assert_whole();
    watch.print_costs();
}

#[test]
fn a_victim_is_told_with_its_cgroup_that_is_removed_straight_after() {
    victim_is_told("a_victim_is_told_with_its_cgroup_that_is_removed_straight_after", As::Now);
}

#[test]
fn a_victim_is_told_by_a_kernel_that_tells_its_pid_only() {
    victim_is_told("a_victim_is_told_by_a_kernel_that_tells_its_pid_only", As::Before);
}
