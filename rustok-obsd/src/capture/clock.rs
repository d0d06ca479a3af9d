//! The clock of the records.
//!
//! Reads: `CLOCK_MONOTONIC`. Yields: nanoseconds. Costs: a call of the vDSO.

/// `CLOCK_MONOTONIC`, the clock of the records.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec that lives here; cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
