//! How long at least one of several things was under way.
//!
//! Reads: intervals, in any order. Yields: the length of their union. Costs: a comparison where they come in order, which
//! is nearly always; bounded.

/// Intervals kept apart; more are added up, and what begins before their end counts from there.
const KEPT: usize = 32;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Busy {
    /// Apart from each other, in order.
    intervals: Vec<(u64, u64)>,
    /// Length of those that are not kept any more, and where the last of them ended.
    before_ns: u64,
    from_ns: u64,
}

impl Busy {
    /// From the beginning; keeps its memory.
    pub fn clear(&mut self) {
        self.intervals.clear();
        (self.before_ns, self.from_ns) = (0, 0);
    }

    /// Something was under way from `begin` to `end`.
    pub fn add(&mut self, begin: u64, end: u64) {
        let (mut begin, mut end) = (begin.max(self.from_ns), end);
        if end <= begin {
            return;
        }
        // Those that it touches become one with it.
        let first = self.intervals.partition_point(|(_, other)| *other < begin);
        let past = self.intervals.partition_point(|(other, _)| *other <= end);
        if let Some(&[(earliest, _), ..]) = self.intervals.get(first..past) {
            begin = begin.min(earliest);
            end = self.intervals[first..past].last().map_or(end, |(_, latest)| end.max(*latest));
            self.intervals[first] = (begin, end);
            self.intervals.drain(first + 1..past);
            return;
        }
        if self.intervals.len() >= KEPT {
            let half = self.intervals.drain(..KEPT / 2);
            let (length, last) = half.fold((0, 0), |(sum, _), (begin, end)| (sum + (end - begin), end));
            self.before_ns = self.before_ns.saturating_add(length);
            self.from_ns = last;
            return self.add(begin, end);
        }
        self.intervals.insert(first, (begin, end));
    }

    /// All of it.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.intervals.iter().fold(self.before_ns, |sum, (begin, end)| sum.saturating_add(end - begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_union_is_exact_in_any_order() {
        let mut busy = Busy::default();
        for (interval, total) in [
            ((10, 20), 10),
            ((30, 40), 20),
            ((15, 18), 20),
            ((20, 22), 22),
            ((21, 31), 30),
            ((0, 5), 35),
            ((0, 50), 50),
        ] {
            busy.add(interval.0, interval.1);
            assert_eq!(busy.total_ns(), total, "{interval:?}");
        }
        busy.add(7, 7);
        busy.add(9, 3);
        assert_eq!(busy.total_ns(), 50);
        busy.clear();
        assert_eq!(busy.total_ns(), 0);
    }

    #[test]
    fn a_thousand_apart_are_counted_in_bounds() {
        let mut busy = Busy::default();
        for n in 0..1000 {
            busy.add(n * 10, n * 10 + 4);
            assert!(busy.intervals.len() <= KEPT);
        }
        assert_eq!(busy.total_ns(), 4000);
        busy.add(0, 10_000);
        assert!(busy.total_ns() <= 10_000);
        busy.add(0, u64::MAX);
    }
}
