//! Capabilities: what the systemd unit grants, and no more.
//!
//! Reads: the configuration, the capabilities of the thread. Yields: smaller sets, and what they hold. Costs: some seventy
//! system calls.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use super::{Measure, State};
use crate::config::Config;

/// A capability that stays, and whether the configuration needs it.
#[derive(Clone, Copy)]
pub struct Needed {
    /// Which.
    pub capability: Capability,
    /// Whether it is of use.
    pub by: fn(&Config) -> bool,
}

/// Those of `deploy/systemd/rustok-obsd.service`, where each is explained.
pub const NEEDED: [Needed; 5] = [
    Needed { capability: Capability::CAP_BPF, by: |_| true },
    Needed { capability: Capability::CAP_PERFMON, by: |_| true },
    Needed { capability: Capability::CAP_SYS_PTRACE, by: |_| true },
    Needed { capability: Capability::CAP_DAC_READ_SEARCH, by: |_| true },
    // Uprobes, which only targets have, and run times of the kernel programs.
    Needed { capability: Capability::CAP_SYS_ADMIN, by: |config| !config.targets.is_empty() || config.ebpf.run_stats },
];

/// Reduces the sets of the calling thread, and of those that it starts.
pub(super) fn limit(config: &Config) -> Measure {
    let (state, detail) = match reduce(config) {
        Ok((kept, None)) => (State::Applied, format!("{kept}; no other can be gained")),
        Ok((kept, Some(why))) => (State::Partial, format!("{kept}; the bounding set stays: {why}")),
        Err(error) => (State::Refused, error.to_string()),
    };
    Measure { name: "capabilities", state, detail }
}

/// Yields the names of those that stay, and why the bounding set could not be reduced.
fn reduce(config: &Config) -> Result<(String, Option<String>), CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let needed = NEEDED.iter().filter(|needed| (needed.by)(config)).map(|needed| needed.capability);
    let keep: CapsHashSet = needed.filter(|capability| held.contains(capability)).collect();
    // While CAP_SETPCAP is still there.
    let bounding = bound(&keep).err().map(|error| error.to_string());
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    let mut names: Vec<_> = keep.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    let kept = if names.is_empty() { "none was held".into() } else { format!("kept {}", names.join(" ")) };
    Ok((kept, bounding))
}

/// Takes all others out of the bounding set, also those that are newer than this program.
fn bound(keep: &CapsHashSet) -> std::io::Result<()> {
    let keep = keep.iter().fold(0, |mask, capability| mask | capability.bitmask());
    for bit in 0..64 {
        // SAFETY: takes numbers.
        let there = unsafe { libc::prctl(libc::PR_CAPBSET_READ, bit, 0, 0, 0) };
        // SAFETY: the same.
        if there == 1 && keep >> bit & 1 == 0 && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, bit, 0, 0, 0) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Runs `start`; what it executes has CAP_SYS_PTRACE where the calling thread has it. Another user than root would hand
/// on nothing.
pub fn with_ptrace<T>(start: impl FnOnce() -> T) -> T {
    let one = CapsHashSet::from([Capability::CAP_SYS_PTRACE]);
    // Refused where it is not held: then what is started reads what its user may.
    let handed = caps::set(None, CapSet::Inheritable, &one).and_then(|()| caps::set(None, CapSet::Ambient, &one));
    let started = start();
    if handed.is_ok() {
        let _ = caps::clear(None, CapSet::Ambient).and_then(|()| caps::clear(None, CapSet::Inheritable));
    }
    started
}

/// Leaves the calling thread CAP_SYS_PTRACE alone. Without that one, root reads the processes that have no capability
/// beyond its own, and needs all that it has.
pub(super) fn limit_helpers() -> Result<(), CapsError> {
    let one = CapsHashSet::from([Capability::CAP_SYS_PTRACE]);
    if !caps::has_cap(None, CapSet::Permitted, Capability::CAP_SYS_PTRACE)? {
        return Ok(());
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &one)?;
    caps::set(None, CapSet::Permitted, &one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_is_handed_one_capability_and_the_thread_keeps_none_to_hand_on() {
        let run = || {
            let held = caps::has_cap(None, CapSet::Permitted, Capability::CAP_SYS_PTRACE).unwrap();
            let wanted = if held { CapsHashSet::from([Capability::CAP_SYS_PTRACE]) } else { CapsHashSet::new() };
            let handed = with_ptrace(|| caps::read(None, CapSet::Ambient).unwrap());
            assert_eq!(handed, wanted);
            if held {
                assert!(caps::read(None, CapSet::Ambient).unwrap().is_empty());
                assert!(caps::read(None, CapSet::Inheritable).unwrap().is_empty());
                limit_helpers().unwrap();
                assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), wanted);
            }
        };
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn a_thread_keeps_what_the_configuration_needs_of_what_it_has() {
        // Capabilities belong to a thread: the test's others keep theirs.
        let limited = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            let mut config = Config::default();
            config.ebpf.run_stats = false;
            let measure = limit(&config);
            let after = |set| caps::read(None, set).unwrap();
            let wanted: CapsHashSet =
                NEEDED[..4].iter().map(|needed| needed.capability).filter(|kept| before.contains(kept)).collect();
            assert_eq!((after(CapSet::Permitted), after(CapSet::Effective)), (wanted.clone(), wanted.clone()));
            assert!(after(CapSet::Inheritable).is_empty() && after(CapSet::Ambient).is_empty());
            if before.contains(&Capability::CAP_SETPCAP) {
                assert_eq!(after(CapSet::Bounding), wanted);
                assert_eq!(measure.state, State::Applied, "{}", measure.detail);
            }
            // A second time changes nothing.
            assert_ne!(limit(&config).state, State::Refused);
            assert_eq!(after(CapSet::Permitted), wanted);
        });
        limited.join().unwrap();
    }
}
