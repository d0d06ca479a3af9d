//! Who uses up the daemon's reads when a process is read.
//!
//! Reads: `/proc/PID/status`, and `/proc/PID/cgroup` of a root that is not the host's. Yields: [`Spender`]. Costs: one or two
//! small files.
//!
//! Without a user namespace the root of a container has the user id of the host's root, and its processes would use up what
//! is kept for root. It has a PID namespace of its own, though, in which no service of the host is; and it cannot choose its
//! control group. A process of another user is its user's, wherever it runs: anybody can make a PID namespace, and would
//! have a share for each.

use std::hash::BuildHasher as _;
use std::path::Path;

use rustc_hash::FxBuildHasher;

use super::procfs::{self, Procfs, Status};

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Spender {
    /// Root of the host, as far as the daemon sees it: has shares of its own, which nobody else can use up.
    Root,
    /// Any other user.
    User(u32),
    /// Root of a container without a user namespace: a number that stands for the control group.
    Contained(u64),
    /// Of processes that cannot be asked; all of them have one share.
    Unknown,
}

impl Spender {
    /// Whose process it is.
    #[must_use]
    pub fn of(procfs: &Path, pid: u32) -> Self {
        let procfs = Procfs::new(procfs);
        let Ok(text) = procfs.read_text(pid, "status") else { return Self::Unknown };
        let group = || procfs.read_text(pid, "cgroup").unwrap_or_default();
        Self::from_status(&procfs::status(&text), group)
    }

    /// Whether it is the host's root.
    #[must_use]
    pub fn is_root(self) -> bool {
        self == Self::Root
    }

    fn from_status(status: &Status, group: impl FnOnce() -> String) -> Self {
        match (status.users, status.namespace_pids.len()) {
            (None, _) => Self::Unknown,
            // A kernel without PID namespaces gives no numbers.
            (Some((0, _)), 0 | 1) => Self::Root,
            (Some((0, _)), _) => Self::Contained(FxBuildHasher.hash_one(procfs::cgroup(&group()))),
            (Some((user, _)), _) => Self::User(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: &str, group: &str) -> Spender {
        Spender::from_status(&procfs::status(status), || group.to_owned())
    }

    #[test]
    fn the_root_of_a_container_is_not_the_hosts_and_another_user_is_the_same_everywhere() {
        let status = |user: u32, pids: &str| format!("Tgid:\t7\nUid:\t{user}\t0\t0\t0\nNStgid:\t{pids}\n");
        let (here, container) = (status(0, "7"), status(0, "7\t1"));
        assert_eq!(of(&here, "0::/docker/a\n"), Spender::Root);
        assert_eq!(of("Uid:\t0\t0\t0\t0\n", ""), Spender::Root);
        let one = of(&container, "0::/docker/a\n");
        assert!(matches!(one, Spender::Contained(_)) && one == of(&container, "0::/docker/a\n"));
        assert_ne!(one, of(&container, "0::/docker/b\n"));
        for pids in ["7", "7\t1"] {
            assert_eq!(of(&status(1000, pids), "0::/docker/a\n"), Spender::User(1000));
        }
        assert_eq!(of("Tgid:\t7\n", ""), Spender::Unknown);
    }

    #[test]
    fn a_process_says_whose_it_is() {
        // SAFETY: takes nothing.
        let user = unsafe { libc::getuid() };
        let own = Spender::of(Path::new("/proc"), std::process::id());
        assert!(own == Spender::User(user) || user == 0 && !matches!(own, Spender::User(_)), "{own:?}");
        assert_eq!(Spender::of(Path::new("/proc"), u32::MAX), Spender::Unknown);
    }
}
