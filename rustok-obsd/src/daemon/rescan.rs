//! When all processes are looked at anew.
//!
//! Reads: whether events were lost. Yields: yes or no. Costs: nothing. A scan reads some files of every process that there
//! is. Who forks without end makes events be lost all the time, so that there is a pause after each scan; a loss in the
//! pause is remembered until its end.

use std::time::{Duration, Instant};

/// From the end of a scan to the next one.
const PAUSE: Duration = Duration::from_secs(5);

/// See the module's head.
pub(super) struct Rescan {
    /// The end of the last one.
    last: Instant,
    /// Events were lost since it began.
    overflowed: bool,
}

impl Rescan {
    /// A scan was just made.
    pub(super) const fn new(now: Instant) -> Self {
        Self { last: now, overflowed: false }
    }

    /// Events were lost.
    pub(super) const fn overflowed(&mut self) {
        self.overflowed = true;
    }

    /// Whether to scan now: events were lost, or there is `another` reason, which is asked only where a scan may be made.
    pub(super) fn is_due(&self, now: Instant, another: impl FnOnce() -> bool) -> bool {
        now.duration_since(self.last) >= PAUSE && (self.overflowed || another())
    }

    /// A scan begins: what was lost before is found by it.
    pub(super) const fn begins(&mut self) {
        self.overflowed = false;
    }

    /// It ended.
    pub(super) const fn ended(&mut self, now: Instant) {
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_without_end_cause_no_scans_without_end() {
        let begin = Instant::now();
        let mut rescan = Rescan::new(begin);
        let (mut now, mut scans) = (begin, 0);
        // Ten minutes; each scan takes longer than the pause.
        while now < begin + Duration::from_secs(600) {
            rescan.overflowed();
            if rescan.is_due(now, || true) {
                rescan.begins();
                now += Duration::from_secs(7);
                rescan.ended(now);
                scans += 1;
            }
            now += Duration::from_millis(5);
        }
        assert!((48..=51).contains(&scans), "{scans} scans: one in twelve seconds");
    }

    #[test]
    fn a_loss_is_followed_by_a_scan_at_once_or_after_the_pause() {
        let begin = Instant::now();
        let mut rescan = Rescan::new(begin);
        assert!(!rescan.is_due(begin + PAUSE, || false));
        rescan.overflowed();
        assert!(rescan.is_due(begin + PAUSE, || false), "at once");
        rescan.begins();
        rescan.ended(begin + PAUSE);
        rescan.overflowed();
        assert!(!rescan.is_due(begin + PAUSE, || panic!("nobody asks")));
        assert!(rescan.is_due(begin + 2 * PAUSE, || false), "it is remembered");
        rescan.begins();
        rescan.ended(begin + 2 * PAUSE);
        assert!(!rescan.is_due(begin + 3 * PAUSE, || false), "and forgotten");
        assert!(rescan.is_due(begin + 3 * PAUSE, || true));
    }
}
