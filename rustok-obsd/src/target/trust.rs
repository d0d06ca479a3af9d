//! Whose executables get uprobes.
//!
//! Reads: who started the daemon, the configuration's `trusted_owners` and `user`, the owner of an executable. Yields: a
//! verdict. Costs: once at the start; a comparison per target.
//!
//! A uprobe changes what every process runs that maps the file. Symbols are read from the inode that is probed, so that
//! an owner can spoil only files of its own; still, what is placed there follows what the owner wrote. Whoever is not
//! trusted is observed by the sockets alone.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::executable::Owner;

/// Others may write the file.
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// What the kernel says where nobody logged in (`AUDIT_UID_UNSET`).
const NO_LOGIN: u32 = u32::MAX;

/// A user that the configuration names is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user `{name}` is not in {path}; name one that is, or give the number")]
pub struct UnknownUser {
    /// As configured.
    pub name: String,
    /// Where it was sought.
    pub path: String,
}

/// Why an executable gets no uprobes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It belongs to somebody else.
    #[error(
        "the executable belongs to user {owner}, and only files of users {trusted} get uprobes: add the owner to \
         `trusted_owners` of the target (--trusted-owners {owner}), or name the user of the process by `user`"
    )]
    Owner {
        /// Its user.
        owner: u32,
        /// Those that are trusted.
        trusted: String,
    },
    /// Anybody can change it.
    #[error("every user may write the executable (mode {mode:04o}): take that right away (chmod o-w)")]
    Writable {
        /// Its permission bits.
        mode: u32,
    },
}

/// Users whose executables get uprobes, whatever the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    users: Vec<u32>,
}

impl Trust {
    /// Root, the user that the daemon runs as, and the user who started it: by `sudo`, or by a login
    /// (`/proc/self/loginuid`, which nobody can change once it is set).
    #[must_use]
    pub fn of_daemon() -> Self {
        // SAFETY: a system call without arguments.
        let own = unsafe { libc::geteuid() };
        // Whoever sets the environment of a daemon that runs as root is root.
        let sudo = std::env::var("SUDO_UID").ok().and_then(|user| user.parse().ok());
        let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|user| user.trim().parse().ok());
        let login = login.filter(|user| *user != NO_LOGIN);
        Self::of([0, own].into_iter().chain(sudo).chain(login))
    }

    /// Of these.
    #[must_use]
    pub fn of(users: impl IntoIterator<Item = u32>) -> Self {
        let mut users: Vec<u32> = users.into_iter().collect();
        users.sort_unstable();
        users.dedup();
        Self { users }
    }

    /// Whether a user is trusted.
    #[must_use]
    pub fn knows(&self, user: u32, also: &[u32]) -> bool {
        self.users.contains(&user) || also.contains(&user)
    }

    /// Whether the executable gets uprobes; `also` are users that the target's configuration trusts.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn judge(&self, file: Owner, also: &[u32]) -> Result<(), Distrust> {
        if !self.knows(file.uid, also) {
            let trusted: Vec<String> = self.users.iter().chain(also).map(ToString::to_string).collect();
            return Err(Distrust::Owner { owner: file.uid, trusted: trusted.join(", ") });
        }
        if file.mode & WRITABLE_BY_OTHERS != 0 {
            return Err(Distrust::Writable { mode: file.mode });
        }
        Ok(())
    }
}

/// Numbers of users, by `/etc/passwd` below a root; no other service of names, which could ask the network.
#[derive(Debug)]
pub struct UserNumbers {
    path: String,
    numbers: HashMap<String, u32>,
}

impl UserNumbers {
    /// Reads the file; one that is not there knows no names.
    #[must_use]
    pub fn read(rootfs: &Path) -> Self {
        let path = rootfs.join("etc/passwd");
        let text = fs::read(&path).unwrap_or_default();
        let entry = |line: &str| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        };
        // The first of two entries counts, as for getpwnam(3).
        let numbers = String::from_utf8_lossy(&text).lines().rev().filter_map(entry).collect();
        Self { path: path.display().to_string(), numbers }
    }

    /// The number of a user given by name or number.
    ///
    /// # Errors
    /// [`UnknownUser`].
    pub fn number(&self, user: &str) -> Result<u32, UnknownUser> {
        let number = self.numbers.get(user).copied().or_else(|| user.parse().ok());
        number.ok_or_else(|| UnknownUser { name: user.to_owned(), path: self.path.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn file(uid: u32, mode: u32) -> Owner {
        Owner { uid, gid: 0, mode }
    }

    #[test]
    fn only_files_of_trusted_users_get_uprobes() {
        let trust = Trust::of([0, 1000]);
        for (uid, also) in [(0, &[][..]), (1000, &[]), (1001, &[1001])] {
            assert_eq!(trust.judge(file(uid, 0o755), also), Ok(()), "{uid}");
        }
        let refused = trust.judge(file(1001, 0o755), &[1002]).unwrap_err().to_string();
        assert!(refused.contains("user 1001") && refused.contains("users 0, 1000, 1002"), "{refused}");
        assert!(refused.contains("--trusted-owners 1001"), "{refused}");
        // A group is what its members make of it; every user is too many.
        assert_eq!(trust.judge(file(0, 0o775), &[]), Ok(()));
        assert_eq!(trust.judge(file(0, 0o757), &[]), Err(Distrust::Writable { mode: 0o757 }));
    }

    #[test]
    fn users_are_found_by_name_or_number() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let text = "root:x:0:0::/:/bin/sh\nshop:x:1001:1001::/:/bin/sh\nbroken\nshop:x:7:7::/:/bin/sh\n";
        fs::write(root.path().join("etc/passwd"), text).unwrap();
        let users = UserNumbers::read(root.path());
        assert_eq!((users.number("shop"), users.number("1002")), (Ok(1001), Ok(1002)));
        let error = users.number("nobody-here").unwrap_err().to_string();
        assert!(error.contains("`nobody-here`") && error.contains("etc/passwd"), "{error}");
    }
}
