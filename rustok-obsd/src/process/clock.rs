//! When the system booted, for start times.
//!
//! Reads: `btime` of `/proc/stat`; anew where the wall clock was set. Yields: seconds since the Unix epoch. Costs: two
//! reads of the clock.

use crate::host::{read_once, text};
use std::path::{Path, PathBuf};

/// Ticks of the clock in a second, in what the kernel tells (`USER_HZ`): 100 on every platform that is left.
pub const TICKS: u64 = 100;
/// Nanoseconds of a tick.
pub const TICK_NS: u64 = 1_000_000_000 / TICKS;

/// The time of boot.
#[derive(Debug)]
pub struct BootTime {
    path: PathBuf,
    seconds: u64,
    /// Wall clock minus time since boot when that was read, ns.
    offset: Option<i64>,
}

impl BootTime {
    /// Of a procfs.
    #[must_use]
    pub fn new(procfs: &Path) -> Self {
        Self { path: procfs.join("stat"), seconds: 0, offset: None }
    }

    /// Seconds since the Unix epoch, whole, as the kernel tells it; 0 where it does not.
    pub fn seconds(&mut self) -> u64 {
        let offset = now(libc::CLOCK_REALTIME) - now(libc::CLOCK_BOOTTIME);
        if self.offset.is_none_or(|before| before.abs_diff(offset) > 500_000_000) {
            let mut buffer = Vec::new();
            let found = read_once(&self.path, &mut buffer).ok().and_then(|()| {
                let mut fields = text::fields(&buffer);
                fields.find_map(|(name, rest)| (name == b"btime").then(|| text::u64(rest.trim_ascii()))?)
            });
            if let Some(seconds) = found {
                self.seconds = seconds;
                self.offset = Some(offset);
            }
        }
        self.seconds
    }
}

/// Time since boot, sleep included.
#[must_use]
pub fn since_boot_ns() -> u64 {
    now(libc::CLOCK_BOOTTIME).unsigned_abs()
}

fn now(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a value of the right type.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_is_where_the_clocks_put_it() {
        let boot = BootTime::new(Path::new("/proc")).seconds();
        let clocks = (now(libc::CLOCK_REALTIME) - now(libc::CLOCK_BOOTTIME)) / 1_000_000_000;
        assert!(boot.abs_diff(clocks.unsigned_abs()) <= 1, "{boot} {clocks}");
        assert_eq!(BootTime::new(Path::new("/nowhere")).seconds(), 0);
    }
}
