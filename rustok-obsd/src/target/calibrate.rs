//! Finds Tokio's slot by watching: which word near the thread pointer holds the ids that are passed to
//! `TaskIdGuard::enter`.
//!
//! Reads: samples of a uprobe (thread pointer and id, from the kernel's `TaskProbe`) and, shortly after each, the
//! thread's `CONTEXT`. Yields: [`Progress`]. Costs: one read of some 80 bytes per sample, for some dozens to thousands
//! of samples. Most samples miss, since the thread has gone on when we look: a miss says nothing. A word counts when
//! it held several different ids and no other word did.

use std::ops::Range;

use super::memory::{Memory, MemoryError};

/// Different ids that the slot must have held, and how many times as many as any other word.
const AGREEING: usize = 4;
/// Different ids remembered per word.
const MAX_IDS: usize = 64;
/// Samples after which the search ends.
const MAX_SAMPLES: u32 = 20_000;

/// How far the search is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More samples are needed.
    Searching,
    /// The offset from the thread pointer.
    Found(i64),
    /// The slot will not be found.
    GaveUp {
        /// Why.
        reason: String,
    },
}

/// The search for one binary's slot; samples may come from any of its processes and threads.
#[derive(Debug, Clone)]
pub struct Calibrator {
    areas: Vec<Range<i64>>,
    /// At most one per word of the areas.
    candidates: Vec<Candidate>,
    samples: u32,
    unreadable: u32,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Candidate {
    offset: i64,
    /// Different ids that it held, up to `MAX_IDS`.
    ids: Vec<u64>,
}

impl Calibrator {
    /// `areas`: the offsets of [`super::tokio_slot::TaskSlot::NeedsCalibration`].
    #[must_use]
    pub fn new(areas: &[Range<i64>]) -> Self {
        let len = areas.iter().map(|area| usize::try_from(area.end - area.start).unwrap_or(0)).sum();
        Self { areas: areas.to_vec(), candidates: Vec::new(), samples: 0, unreadable: 0, buffer: vec![0; len] }
    }

    /// Takes one sample: `task` was passed to `enter` on the thread with this thread pointer, a moment ago.
    pub fn sample<M: Memory + ?Sized>(&mut self, memory: &M, thread_pointer: u64, task: u64) -> Progress {
        self.samples = self.samples.saturating_add(1);
        let ranges: Vec<(u64, usize)> = self
            .areas
            .iter()
            .map(|area| {
                (thread_pointer.wrapping_add_signed(area.start), usize::try_from(area.end - area.start).unwrap_or(0))
            })
            .collect();
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = memory.read_many(&ranges, &mut buffer);
        if read.is_ok() && task != 0 {
            self.compare(&buffer, task);
        }
        self.buffer = buffer;
        match read {
            Ok(()) => {}
            // The thread has ended, or its process.
            Err(MemoryError::Unmapped { .. } | MemoryError::Gone { .. }) => self.unreadable += 1,
            Err(error) => return Progress::GaveUp { reason: error.to_string() },
        }
        self.progress()
    }

    /// Samples taken so far.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.samples
    }

    fn compare(&mut self, buffer: &[u8], task: u64) {
        let mut rest = buffer;
        for area in &self.areas {
            let (bytes, after) = rest.split_at(usize::try_from(area.end - area.start).unwrap_or(0));
            rest = after;
            // The word is aligned in memory, and so are the thread pointer and CONTEXT.
            for (index, word) in bytes.chunks_exact(8).enumerate() {
                if word != task.to_le_bytes() {
                    continue;
                }
                let offset = area.start + 8 * i64::try_from(index).unwrap_or(0);
                match self.candidates.iter_mut().find(|candidate| candidate.offset == offset) {
                    Some(candidate) if candidate.ids.len() < MAX_IDS && !candidate.ids.contains(&task) => {
                        candidate.ids.push(task);
                    }
                    None => {
                        self.candidates.push(Candidate { offset, ids: vec![task] });
                    }
                    _ => {}
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        let mut held: Vec<(usize, i64)> =
            self.candidates.iter().map(|candidate| (candidate.ids.len(), candidate.offset)).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        // A small number elsewhere, such as the thread's, equals an id now and then.
        let (first, second) = (held.first(), held.get(1).map_or(1, |rival| rival.0));
        match first {
            Some(&(ids, offset)) if ids >= AGREEING * second => Progress::Found(offset),
            _ if self.samples >= MAX_SAMPLES => {
                let agreeing: Vec<i64> = held.iter().filter(|word| word.0 >= AGREEING).map(|word| word.1).collect();
                Progress::GaveUp { reason: self.failure(&agreeing) }
            }
            _ => Progress::Searching,
        }
    }

    fn failure(&self, agreeing: &[i64]) -> String {
        let samples = self.samples;
        match agreeing.len() {
            0 => format!(
                "no word held the task's id after {samples} calls of TaskIdGuard::enter ({} unreadable)",
                self.unreadable
            ),
            count => format!("{count} words held the task's id in {samples} calls of TaskIdGuard::enter: {agreeing:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread's block of 12 words that ends at the thread pointer.
    struct Block([u64; 12]);
    const WHOLE: [Range<i64>; 1] = [Range { start: -80, end: 0 }];
    const POINTER: u64 = 0x7000_0060;

    impl Memory for Block {
        fn read_many(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<(), MemoryError> {
            let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
            let wanted = ranges.iter().flat_map(|&(address, len)| {
                let at = (address - (POINTER - 96)) as usize;
                bytes[at..at + len].to_vec()
            });
            for (to, from) in buf.iter_mut().zip(wanted) {
                *to = from;
            }
            Ok(())
        }
    }

    #[test]
    fn the_word_that_follows_the_ids_is_found() {
        let mut calibrator = Calibrator::new(&WHOLE);
        // Word 2 is the thread's number, which is also an id, once.
        let mut block = Block([0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for task in 1..4 {
            block.0[8] = task;
            assert_eq!(calibrator.sample(&block, POINTER, task), Progress::Searching);
            // The thread went on.
            block.0[8] = 0;
            assert_eq!(calibrator.sample(&block, POINTER, task), Progress::Searching);
        }
        block.0[8] = 4;
        assert_eq!(calibrator.sample(&block, POINTER, 4), Progress::Found(-32));
    }

    #[test]
    fn two_words_that_agree_are_not_told_apart_by_chance() {
        let mut calibrator = Calibrator::new(&[-80..-40, -40..0]);
        for task in 1..u64::from(MAX_SAMPLES) {
            let block = Block([0, 0, 0, task, 0, 0, 0, 0, task, 0, 0, 0]);
            assert_eq!(calibrator.sample(&block, POINTER, task), Progress::Searching);
        }
        let Progress::GaveUp { reason } = calibrator.sample(&Block([0; 12]), POINTER, 1) else { panic!() };
        assert!(reason.starts_with("2 words held"), "{reason}");
    }

    #[test]
    fn a_search_without_a_hit_ends_with_its_reason() {
        let mut calibrator = Calibrator::new(&WHOLE);
        let last = (0..MAX_SAMPLES).map(|_| calibrator.sample(&Block([0; 12]), POINTER, 5)).last();
        assert!(matches!(last, Some(Progress::GaveUp { reason }) if reason.starts_with("no word held")));
    }
}
