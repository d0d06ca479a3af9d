//! How many files may be open.
//!
//! Reads: `RLIMIT_NOFILE`. Yields: the limit, raised to what the administrator allows. Costs: two system calls at start.

/// Descriptors that the rest of the daemon needs.
const RESERVE: usize = 512;

/// Raises the soft limit of open files to the hard one: a thousand cgroups have ten thousand files. Yields how many of
/// them may be kept open; the others are opened for each reading.
#[must_use]
pub fn raise() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 0;
    }
    let soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid value; where it is refused the old one stays.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    let limit = usize::try_from(if raised { limit.rlim_max } else { soft }).unwrap_or(usize::MAX);
    (limit / 4 * 3).saturating_sub(RESERVE)
}
