//! Whether there is room for one more target.
//!
//! Reads: how many there are. Yields: nothing, or the bound that one more would pass. Costs: nothing.

use crate::contract::own::Refusal;

/// Targets at a time, as many as the programs' map has families.
pub(super) const MOST: usize = rustok_obsd_ebpf::MAX_TARGETS as usize;
/// Targets of one executable: what forks without end leaves room for others.
const PER_FILE: usize = 256;
/// Targets of one user whose processes are not trusted.
const PER_STRANGER: usize = 64;
/// Room that is kept for the first process of an executable, of a trusted user.
const RESERVE: usize = 128;

/// The targets that there are, and who wants to become one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) targets: usize,
    /// Those of the same executable.
    pub(super) of_file: usize,
    /// Those of the same user.
    pub(super) of_user: usize,
    pub(super) user: u32,
    pub(super) trusted: bool,
}

impl Room {
    /// The bound that one more would pass, and what to say of it.
    pub(super) fn lacks(self) -> Option<(Refusal, String)> {
        let Self { targets, of_file, of_user, user, trusted } = self;
        let most = if of_file == 0 && trusted { MOST } else { MOST - RESERVE };
        if targets >= most {
            return Some((
                Refusal::Room,
                format!("{targets} processes are observed already, and at most {most} can be"),
            ));
        }
        if of_file >= PER_FILE {
            return Some((Refusal::FileShare, format!("{PER_FILE} processes of its executable are observed already")));
        }
        (!trusted && of_user >= PER_STRANGER).then(|| {
            let reason = format!("{PER_STRANGER} processes of user {user}, who is not trusted, are observed already");
            (Refusal::UserShare, reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_admits_as_many_as_it_says() {
        const FREE: Room = Room { targets: 300, of_file: 0, of_user: 0, user: 1000, trusted: true };
        let stranger = Room { trusted: false, ..FREE };
        for (room, lacks) in [
            (Room { of_file: 255, of_user: 299, ..FREE }, None),
            (Room { of_file: 256, of_user: 299, ..FREE }, Some(Refusal::FileShare)),
            (Room { of_user: 63, ..stranger }, None),
            (Room { of_user: 64, ..stranger }, Some(Refusal::UserShare)),
            (Room { of_file: 256, ..stranger }, Some(Refusal::FileShare)),
            // What is kept: 128 of 1024.
            (Room { targets: 895, of_file: 1, ..FREE }, None),
            (Room { targets: 896, of_file: 1, ..FREE }, Some(Refusal::Room)),
            (Room { targets: 895, ..stranger }, None),
            (Room { targets: 896, ..stranger }, Some(Refusal::Room)),
            (Room { targets: 1023, ..FREE }, None),
            (Room { targets: 1024, ..FREE }, Some(Refusal::Room)),
        ] {
            assert_eq!(room.lacks().map(|(refusal, _)| refusal), lacks, "{room:?}");
        }
    }
}
