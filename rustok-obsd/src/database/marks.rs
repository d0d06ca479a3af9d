//! Calls of the mapper that wait for the driver.
//!
//! Reads: each call's time and arguments. Yields: the newest one of a task that is it, once. Costs: about 130 bytes a call
//! that waits, from a pool; bounded, and reaped by age: a call whose future was dropped before it had a connection is
//! taken by nobody.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use rustok_obsd_ebpf::CALL_WORDS;

use crate::budget::{Budget, Meter, Store};

/// A call of the mapper.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// When.
    pub time_ns: u64,
    /// Of a transaction: there is no statement to know it by.
    pub begin: bool,
    /// Of the text, where it came with the call.
    pub hash: Option<u64>,
    /// The arguments and what the first points at.
    pub words: [u64; CALL_WORDS],
}

impl Mark {
    /// It was called with this text: its address and length are among the arguments. They stay the same on the way to
    /// the driver, however often the string that owns them is moved.
    pub fn names(&self, text: u64, len: u64) -> bool {
        text != 0 && self.words.contains(&text) && self.words.contains(&len)
    }
}

#[derive(Debug)]
struct Slot {
    key: (u32, u64),
    /// Whose budget it draws on.
    owner: u32,
    mark: Mark,
    /// The next older one of the task, or the next free one.
    next: u32,
    used: bool,
}

const NONE: u32 = u32::MAX;

/// All of them.
#[derive(Debug)]
pub struct Marks {
    slots: Vec<Slot>,
    free: u32,
    /// The newest of each task.
    heads: FxHashMap<(u32, u64), u32>,
    budget: Budget,
}

impl Default for Marks {
    fn default() -> Self {
        Self { slots: Vec::new(), free: NONE, heads: FxHashMap::default(), budget: Budget::new(Store::Calls) }
    }
}

impl Marks {
    /// Bytes of a call, with its place in the table of tasks.
    const SIZE: usize = size_of::<Slot>() + 32;
    /// More do not wait in one task: the oldest was dropped.
    const OF_TASK: usize = 64;

    /// Remembers a call; yields how many gave way to it, itself included.
    pub fn put(&mut self, owner: u32, key: (u32, u64), mark: Mark) -> u64 {
        let gone = self.shorten(key);
        if !self.budget.charge(owner, Self::SIZE) {
            return gone + 1;
        }
        let slot = Slot { key, owner, mark, next: self.heads.get(&key).copied().unwrap_or(NONE), used: true };
        let index = if self.free == NONE {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let index = self.free as usize;
            self.free = self.slots[index].next;
            self.slots[index] = slot;
            index
        };
        // The budget has room for some thousand.
        self.heads.insert(key, index as u32);
        gone
    }

    /// When the newest call of the task that `is` it was made, 0 for none. It is gone then; newer ones that were passed
    /// over stay, for calls that run side by side.
    pub fn take(&mut self, key: (u32, u64), is: impl Fn(&Mark) -> bool) -> u64 {
        if self.heads.is_empty() {
            return 0;
        }
        let (mut at, mut before) = (self.heads.get(&key).copied().unwrap_or(NONE), NONE);
        while let Some(slot) = self.slots.get(at as usize) {
            if is(&slot.mark) {
                let time_ns = slot.mark.time_ns;
                self.remove(at, before);
                return time_ns;
            }
            (before, at) = (at, slot.next);
        }
        0
    }

    /// No call waits.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The same where just one call of the task `is` it.
    pub fn take_only(&mut self, key: (u32, u64), is: impl Fn(&Mark) -> bool) -> u64 {
        let (mut at, mut count) = (self.heads.get(&key).copied().unwrap_or(NONE), 0);
        while let Some(slot) = self.slots.get(at as usize) {
            count += usize::from(is(&slot.mark));
            at = slot.next;
        }
        if count == 1 { self.take(key, is) } else { 0 }
    }

    /// Forgets those older than this; yields how many.
    pub fn reap(&mut self, before_ns: u64) -> u64 {
        self.retain(|_, mark| mark.time_ns >= before_ns)
    }

    /// Forgets a process; yields how many calls it had waiting.
    pub fn forget(&mut self, tgid: u32) -> u64 {
        self.retain(|key, _| key.0 != tgid)
    }

    fn retain(&mut self, keep: impl Fn((u32, u64), &Mark) -> bool) -> u64 {
        let mut gone = 0;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.used && !keep(slot.key, &slot.mark) {
                self.remove_at(index as u32);
                gone += 1;
            }
        }
        gone
    }

    /// Makes room in a task that has too many; yields how many went.
    fn shorten(&mut self, key: (u32, u64)) -> u64 {
        let (mut at, mut count) = (self.heads.get(&key).copied().unwrap_or(NONE), 0);
        let mut oldest = NONE;
        while let Some(slot) = self.slots.get(at as usize) {
            count += 1;
            oldest = at;
            at = slot.next;
        }
        if count < Self::OF_TASK {
            return 0;
        }
        self.remove_at(oldest);
        1
    }

    fn remove_at(&mut self, index: u32) {
        let key = self.slots[index as usize].key;
        let (mut at, mut before) = (self.heads.get(&key).copied().unwrap_or(NONE), NONE);
        while at != index && at != NONE {
            (before, at) = (at, self.slots[at as usize].next);
        }
        if at == index {
            self.remove(index, before);
        }
    }

    fn remove(&mut self, index: u32, before: u32) {
        let slot = &mut self.slots[index as usize];
        let (key, next) = (slot.key, slot.next);
        slot.used = false;
        slot.next = self.free;
        self.budget.release(slot.owner, Self::SIZE);
        self.free = index;
        if let Some(before) = self.slots.get_mut(before as usize) {
            before.next = next;
        } else if next == NONE {
            self.heads.remove(&key);
        } else {
            self.heads.insert(key, next);
        }
    }

    /// What the owner has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    /// Figures of the budget.
    pub fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }

    /// Calls that wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.slots.iter().filter(|slot| slot.used).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (u32, u64) = (1, 7);

    fn mark(time_ns: u64, text: u64) -> Mark {
        let mut words = [0; CALL_WORDS];
        (words[3], words[5]) = (text, 40);
        Mark { time_ns, begin: false, hash: None, words }
    }

    #[test]
    fn a_call_is_taken_by_its_text_and_only_once() {
        let mut marks = Marks::default();
        for (time, text) in [(1, 100), (2, 200), (3, 100)] {
            assert_eq!(marks.put(1, KEY, mark(time, text)), 0);
        }
        let mut take = |text| marks.take(KEY, |mark| mark.names(text, 40));
        assert_eq!([take(200), take(100), take(100), take(100), take(0)], [2, 3, 1, 0, 0]);
        assert_eq!((marks.len(), marks.heads.len()), (0, 0));
    }

    #[test]
    fn what_nobody_takes_goes_by_age_by_process_and_by_number() {
        let mut marks = Marks::default();
        for time in 0..10 {
            marks.put(1, (1, time), mark(time, 1));
            marks.put(1, (2, 5), mark(time, 1));
        }
        assert_eq!(marks.reap(5), 10);
        assert_eq!(marks.forget(2), 5);
        assert_eq!(marks.len(), 5);
        assert_eq!(
            (0..200).map(|time| marks.put(1, KEY, mark(1000 + time, 1))).sum::<u64>(),
            200 + 1 - Marks::OF_TASK as u64
        );
        let most = (Store::Calls.limit() / 2 / Marks::SIZE) as u64;
        let wave = (0..20_000).map(|task| marks.put(3, (3, task), mark(2000, 1))).sum::<u64>();
        assert!((20_000 - most..20_100 - most).contains(&wave), "{wave}");
        assert_eq!(marks.put(4, (4, 1), mark(3000, 1)), 0, "another target finds room");
        assert_eq!(marks.take((4, 1), |_| true), 3000);
        assert!(marks.meter().refused() >= 20_000 - most);
        let waiting = marks.len() as u64;
        assert_eq!(marks.reap(u64::MAX), waiting);
        assert_eq!(marks.meter().used(), 0);
        assert_eq!((marks.len(), marks.heads.len()), (0, 0));
    }
}
