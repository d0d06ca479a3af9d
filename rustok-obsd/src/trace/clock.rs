//! Monotonic times as wall clock.
//!
//! Reads: both clocks, regularly. Yields: wall-clock times of `CLOCK_MONOTONIC` nanoseconds. Costs: about a
//! microsecond per measurement, an addition per time.
//!
//! The two clocks run at one rate, since NTP slews both: their difference is a constant that jumps when the wall clock
//! is set or the machine was suspended. One measurement is off by at most half the time between its two readings of
//! the monotonic clock, usually well below a microsecond. A new measurement that agrees with the last within their
//! errors changes nothing, so that spans keep their order; one that does not is a jump and taken over. Times from
//! before a jump that are converted after it are off by the jump: spans of the last `traces.schedule_delay`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Readings per measurement, of which the tightest counts.
const READINGS: usize = 5;

/// Converts monotonic nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    now: Measurement,
}

/// Wall clock minus monotonic clock, and how far off that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measurement {
    offset_ns: i64,
    error_ns: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Measures for the first time.
    pub fn new() -> Self {
        Self { now: measure() }
    }

    /// Measures again; to be called before each batch.
    pub fn refresh(&mut self) {
        self.adopt(measure());
    }

    /// Bound of the error of one conversion, without jumps.
    pub fn error(&self) -> Duration {
        Duration::from_nanos(self.now.error_ns.unsigned_abs())
    }

    /// The wall-clock time of a `CLOCK_MONOTONIC` time in nanoseconds; keeps order and differences.
    pub fn wall(&self, monotonic_ns: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(monotonic_ns.saturating_add_signed(self.now.offset_ns))
    }

    fn adopt(&mut self, new: Measurement) {
        let apart = self.now.offset_ns.abs_diff(new.offset_ns);
        if apart > self.now.error_ns.unsigned_abs() + new.error_ns.unsigned_abs() {
            self.now = new;
        }
    }
}

fn measure() -> Measurement {
    let readings = (0..READINGS).map(|_| {
        let before = read(libc::CLOCK_MONOTONIC);
        let wall = read(libc::CLOCK_REALTIME);
        let after = read(libc::CLOCK_MONOTONIC);
        let error_ns = (after - before) / 2 + 1;
        Measurement { offset_ns: wall - (before + (after - before) / 2), error_ns }
    });
    readings.min_by_key(|reading| reading.error_ns).unwrap_or(Measurement { offset_ns: 0, error_ns: i64::MAX })
}

fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call; both clocks exist on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_now_within_the_documented_error() {
        let clock = Clock::new();
        let before = SystemTime::now();
        let converted = clock.wall(read(libc::CLOCK_MONOTONIC).unsigned_abs());
        let after = SystemTime::now();
        assert!(clock.error() < Duration::from_millis(1), "{:?}", clock.error());
        assert!(converted + clock.error() >= before && converted <= after + clock.error());
    }

    #[test]
    fn noise_changes_nothing_and_a_jump_is_taken_over() {
        let mut clock = Clock { now: Measurement { offset_ns: 1_000_000_000_000, error_ns: 50 } };
        let before = clock.wall(7);
        for noise in [-90, 90] {
            clock.adopt(Measurement { offset_ns: 1_000_000_000_000 + noise, error_ns: 50 });
            assert_eq!(clock.wall(7), before);
        }
        for jump in [-2_000_000_000i64, 3_600_000_000_000] {
            let expected = Measurement { offset_ns: 1_000_000_000_000 + jump, error_ns: 50 };
            clock.adopt(expected);
            assert_eq!(clock.now, expected);
        }
    }

    #[test]
    fn conversion_keeps_differences_and_survives_any_number() {
        let clock = Clock { now: Measurement { offset_ns: 1_700_000_000_000_000_000, error_ns: 1 } };
        let apart = clock.wall(2_000_000_500).duration_since(clock.wall(2_000_000_000)).unwrap();
        assert_eq!(apart, Duration::from_nanos(500));
        assert!(clock.wall(u64::MAX) > clock.wall(0));
        assert_eq!(Clock { now: Measurement { offset_ns: -5, error_ns: 1 } }.wall(3), UNIX_EPOCH);
    }
}
