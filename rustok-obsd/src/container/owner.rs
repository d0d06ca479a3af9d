//! Who may have made a cgroup, and how much room such an owner gets.
//!
//! Reads: the path of a cgroup. Yields: its [`owner`], and [`Shares`] of what a cap bounds. Costs: a look at the path's
//! beginning, once per cgroup.
//!
//! systemd delegates to each user a subtree below `user.slice/user-UID.slice`; everything else (`system.slice`,
//! `kubepods`, what runtimes make) is root's. So a user who makes cgroups without end, whatever he calls them, costs nobody
//! else a place: a user may have as much as is free then, and root whatever is free.

use crate::budget::{Budget, Store};

/// Owner of all that no user may make.
pub const ROOT: u32 = 0;

/// The user below whose slice a cgroup is.
#[must_use]
pub fn owner(path: &str) -> u32 {
    let user = path.strip_prefix("/user.slice/user-").and_then(|rest| rest.split('.').next()?.parse().ok());
    user.unwrap_or(ROOT)
}

/// A number of places, and who has how many.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    taken: Budget,
}

impl Shares {
    /// So many places.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, taken: Budget::with_limit(Store::Series, most) }
    }

    /// Whether an owner may have one more.
    #[must_use]
    pub fn has_room(&self, owner: u32) -> bool {
        let fair = owner == ROOT || self.taken.held(owner) < self.taken.allowance(owner);
        self.taken.used() < self.most && fair
    }

    /// Takes a place, if there is one.
    #[must_use]
    pub fn take(&mut self, owner: u32) -> bool {
        let fits = self.has_room(owner);
        if fits {
            self.taken.resize(owner, self.taken.held(owner) + 1);
        }
        fits
    }

    /// Gives a place back.
    pub fn give(&mut self, owner: u32) {
        self.taken.release(owner, 1);
    }

    /// Places taken.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_users_slice_is_the_users_and_all_else_is_roots() {
        for (path, user) in [
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", 1000),
            ("/user.slice/user-1000.slice", 1000),
            ("/user.slice/user-0.slice/session-1.scope", ROOT),
            ("/user.slice", ROOT),
            ("/system.slice/user-1000.slice", ROOT),
            ("/kubepods/burstable/pod7", ROOT),
            ("/user.slice/user-x.slice", ROOT),
        ] {
            assert_eq!(owner(path), user, "{path}");
        }
    }

    #[test]
    fn users_leave_room_for_each_other_and_for_root() {
        let mut shares = Shares::new(100);
        let mut fill = |owner| (0..1000).filter(|_| shares.take(owner)).count();
        assert_eq!((fill(1000), fill(1001), fill(ROOT)), (50, 25, 25));
        shares.give(1000);
        assert!(shares.has_room(ROOT) && !shares.has_room(1000) && shares.taken() == 99);
    }
}
