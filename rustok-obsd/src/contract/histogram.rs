//! Histograms with one writer and many readers, and the last traced observation of each bucket.
//!
//! Reads: integer values (ns, bytes). Yields: copies of buckets and sum. Costs: an observation is two loads and two
//! stores without a lock prefix; a reader never makes the writer wait.
//!
//! Consistency: a reader counts what it read from the buckets, so that count and +Inf bucket are equal in every
//! rendering, and no bucket ever falls. The sum is written after the bucket: it may lack observations that are in flight.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Adds to a cell that only this thread writes: a plain load and store.
pub(super) fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// `N` buckets, the last one is +Inf.
pub(super) struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    pub(super) const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }

    /// Records one value and returns its bucket. One thread only.
    pub(super) fn observe(&self, bounds: &[u64], value: u64) -> usize {
        // Counting all bounds has no branch to mispredict and is vectorised.
        let bucket = bounds.iter().filter(|bound| value > **bound).count();
        bump(&self.buckets[bucket], 1);
        bump(&self.sum, value);
        bucket
    }

    /// Observations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Adds what another one counted. One thread only, which writes neither meanwhile.
    pub(super) fn take_over(&self, other: &Self) {
        let cells = self.buckets.iter().chain([&self.sum]);
        for (cell, other) in cells.zip(other.buckets.iter().chain([&other.sum])) {
            bump(cell, other.load(Ordering::Relaxed));
        }
    }

    /// Copies the buckets (not cumulative), then the sum, into `out`, which holds `N + 1` values.
    pub(super) fn read(&self, out: &mut [u64]) {
        for (cell, out) in self.buckets.iter().chain([&self.sum]).zip(out) {
            *out = cell.load(Ordering::Relaxed);
        }
    }
}

/// Bounds in integer units: seconds to nanoseconds by 1e9, bytes by 1.
pub(super) const fn scale<const N: usize>(bounds: &[f64], by: f64) -> [u64; N] {
    assert!(bounds.len() == N);
    let mut scaled = [0; N];
    let mut i = 0;
    while i < N {
        // The nearest integer: 0.075 s times 1e9 is not exact in binary.
        scaled[i] = (bounds[i] * by + 0.5) as u64;
        i += 1;
    }
    scaled
}

/// A traced observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traced {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    /// The value observed.
    pub(super) value: u64,
    /// When, `CLOCK_MONOTONIC` ns.
    pub(super) time_ns: u64,
}

/// Holds one [`Traced`] behind a sequence lock: the writer never waits, a reader that meets a write in progress gets none.
pub(super) struct TracedCell {
    /// Odd while a write is in progress, 0 before the first.
    sequence: AtomicU64,
    words: [AtomicU64; 5],
}

impl TracedCell {
    pub(super) const fn new() -> Self {
        Self { sequence: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; 5] }
    }

    /// Replaces the content. One thread only.
    pub(super) fn write(&self, traced: &Traced) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // No store below may be seen before the odd number.
        fence(Ordering::Release);
        let words =
            [(traced.trace_id >> 64) as u64, traced.trace_id as u64, traced.span_id, traced.value, traced.time_ns];
        for (cell, word) in self.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The content, `None` where there is none or it is being replaced.
    pub(super) fn read(&self) -> Option<Traced> {
        let sequence = self.sequence.load(Ordering::Acquire);
        if sequence == 0 || sequence % 2 == 1 {
            return None;
        }
        let [high, low, span_id, value, time_ns] = self.words.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        // No load above may happen after the check.
        fence(Ordering::Acquire);
        let trace_id = u128::from(high) << 64 | u128::from(low);
        (self.sequence.load(Ordering::Relaxed) == sequence).then_some(Traced { trace_id, span_id, value, time_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::http;

    const BOUNDS: [u64; 17] = scale(http::DURATION.values, 1e9);

    #[test]
    fn bounds_scale_to_exact_nanoseconds() {
        assert_eq!(BOUNDS[0], 500_000);
        assert_eq!(BOUNDS[7], 75_000_000);
        assert_eq!(BOUNDS[16], 10_000_000_000);
        assert_eq!(scale::<5>(http::SIZE.values, 1.0), [100, 1_000, 10_000, 100_000, 1_000_000]);
    }

    #[test]
    fn an_upper_bound_is_inclusive() {
        let histogram = Histogram::<18>::new();
        assert_eq!(histogram.observe(&BOUNDS, 0), 0);
        assert_eq!(histogram.observe(&BOUNDS, 500_000), 0);
        assert_eq!(histogram.observe(&BOUNDS, 500_001), 1);
        assert_eq!(histogram.observe(&BOUNDS, 10_000_000_000), 16);
        assert_eq!(histogram.observe(&BOUNDS, u64::MAX), 17);
    }

    #[test]
    fn a_reader_never_sees_half_of_a_traced_observation() {
        let cell = TracedCell::new();
        assert_eq!(cell.read(), None);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0u64;
                while seen < 200_000 {
                    if let Some(traced) = cell.read() {
                        assert_eq!(traced.trace_id >> 64, u128::from(traced.value));
                        assert_eq!((traced.span_id, traced.time_ns), (traced.value, traced.value));
                        seen += 1;
                    }
                }
            });
            let mut value = 0u64;
            while !reader.is_finished() {
                value += 1;
                let trace_id = u128::from(value) << 64 | 1;
                cell.write(&Traced { trace_id, span_id: value, value, time_ns: value });
                if value.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
            reader.join().expect("the reader's assertions hold");
        });
    }
}
