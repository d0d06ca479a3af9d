//! Operations under way.
//!
//! Reads: what calls and sockets tell of them. Yields: an operation by its number, or those of a task, newest first.
//! Costs: about 200 bytes an operation, from a pool; a map entry for a task that has some.

use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Sight;
use super::tasks::Origin;
use crate::budget::{Budget, Meter, Store, shrink};
use crate::statement::Statement;

/// Number of an operation; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId {
    index: u32,
    generation: u32,
}

/// What ends an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// sqlx says when it is done with it.
    Logged,
    /// The answer is short, comes in one piece and is no error: BEGIN, and a ROLLBACK that goes out with other bytes.
    Short,
    /// Nobody says: the next use of its connection shows that it had ended.
    OpenEnded,
    /// The protocol in clear text.
    Wire,
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct Open {
    /// Process and task; see [`task_key`].
    pub key: (u32, u64),
    /// Tokio task, 0 where unknown.
    pub task: u64,
    /// Thread that asked.
    pub tid: u32,
    /// What ends it.
    pub kind: Kind,
    /// Statement.
    pub statement: Arc<Statement>,
    /// Where the text came from.
    pub sight: Sight,
    /// Two neighbouring words by which the driver's account of it is known: address and length of the text in the
    /// process, or what is in the place of one of them.
    pub text: (u64, u64),
    /// See [`super::Operation::call_ns`].
    pub call_ns: u64,
    /// See [`super::Operation::start_ns`].
    pub start_ns: u64,
    /// See [`super::Operation::send_ns`].
    pub send_ns: u64,
    /// See [`super::Operation::first_ns`].
    pub first_ns: u64,
    /// When the last byte of the answer so far was read.
    pub last_ns: u64,
    /// Bytes were read since the last were sent.
    pub answered: bool,
    /// Rows, where known so far.
    pub rows: Option<u64>,
    /// Error, where known so far.
    pub sqlstate: Option<[u8; 5]>,
    /// Connection that it is bound to, 0 for none.
    pub conn: u64,
    /// What is left of a connection that was closed before the operation ended.
    pub peer: Option<Box<Peer>>,
    /// The connection failed while the answer was awaited.
    pub broken: bool,
    /// Number that the protocol gave it, once.
    pub wire: Option<u64>,
    /// Whose work it is.
    pub origin: Origin,
}

impl Open {
    /// One that begins now; `by` is process, task and thread.
    #[must_use]
    pub const fn new(
        by: (u32, u64, u32),
        start_ns: u64,
        statement: Arc<Statement>,
        kind: Kind,
        sight: Sight,
        origin: Origin,
    ) -> Self {
        let (tgid, task, tid) = by;
        Self {
            key: task_key(tgid, task, tid),
            task,
            tid,
            kind,
            statement,
            sight,
            text: (0, 0),
            call_ns: 0,
            start_ns,
            send_ns: 0,
            first_ns: 0,
            last_ns: 0,
            answered: false,
            rows: None,
            sqlstate: None,
            conn: 0,
            peer: None,
            broken: false,
            wire: None,
            origin,
        }
    }

    /// A call that has sent nothing yet: what its task sends next may be its.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.conn == 0 && self.send_ns == 0 && self.kind != Kind::Wire
    }
}

/// A connection to a database, as operations tell it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The target's end and the database's.
    pub addresses: (SocketAddr, SocketAddr),
    /// Name of the database.
    pub namespace: Option<Arc<str>>,
    /// Its first bytes were PostgreSQL's.
    pub speaks_postgres: bool,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Whose budget it draws on.
    owner: u32,
    /// The next one of the same task, or the next free one.
    next: u32,
    open: Option<Open>,
}

const NONE: u32 = u32::MAX;

/// The key of a task's operations. Without a task the thread has to do.
#[must_use]
pub const fn task_key(tgid: u32, task: u64, tid: u32) -> (u32, u64) {
    // Tokio counts tasks from 1 and never so far.
    (tgid, if task == 0 { 1 << 63 | tid as u64 } else { task })
}

/// All of them.
#[derive(Debug)]
pub struct OpenOperations {
    slots: Vec<Slot>,
    free: u32,
    heads: FxHashMap<(u32, u64), u32>,
    len: usize,
    /// Those that were asked for outside of any task.
    without_task: usize,
    /// Generation of slots that are made from now on: those before them gave out none as high.
    generation: u32,
    budget: Budget,
}

impl Default for OpenOperations {
    fn default() -> Self {
        let (slots, heads, budget) = (Vec::new(), FxHashMap::default(), Budget::new(Store::Operations));
        Self { slots, free: NONE, heads, len: 0, without_task: 0, generation: 0, budget }
    }
}

impl OpenOperations {
    /// Bytes of one, with its place in the table of tasks, and with a short text of its own.
    pub const SIZE: usize = size_of::<Slot>() + 32 + 256;
    /// Slots that stay when all are free.
    const KEPT: usize = 256;

    /// Puts one; `None` where its owner has too many.
    pub fn insert(&mut self, owner: u32, open: Open) -> Option<OpId> {
        if !self.budget.charge(owner, Self::SIZE) {
            return None;
        }
        let index = if self.free == NONE {
            self.slots.push(Slot { generation: self.generation, owner, next: NONE, open: None });
            self.slots.len() - 1
        } else {
            self.free as usize
        };
        let number = u32::try_from(index).ok()?;
        let head = self.heads.insert(open.key, number).unwrap_or(NONE);
        let slot = &mut self.slots[index];
        if self.free == number {
            self.free = slot.next;
        }
        slot.next = head;
        slot.owner = owner;
        self.without_task += usize::from(open.task == 0);
        slot.open = Some(open);
        self.len += 1;
        Some(OpId { index: number, generation: slot.generation })
    }

    /// The operation, while it is under way.
    pub fn get(&mut self, id: OpId) -> Option<&mut Open> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?.open.as_mut()
    }

    /// Takes it out.
    pub fn remove(&mut self, id: OpId) -> Option<Open> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let open = slot.open.take()?;
        let next = slot.next;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next = self.free;
        self.free = id.index;
        self.len -= 1;
        self.without_task -= usize::from(open.task == 0);
        self.budget.release(slot.owner, Self::SIZE);
        // Out of the task's list.
        match self.heads.get(&open.key).copied() {
            Some(head) if head == id.index => {
                if next == NONE {
                    self.heads.remove(&open.key);
                } else {
                    self.heads.insert(open.key, next);
                }
            }
            Some(mut at) => {
                while let Some(slot) = self.slots.get_mut(at as usize) {
                    if slot.next == id.index {
                        slot.next = next;
                        break;
                    }
                    at = slot.next;
                }
            }
            None => {}
        }
        Some(open)
    }

    /// The first one of the task, newest first, for which `wanted` holds.
    pub fn find(&self, key: (u32, u64), mut wanted: impl FnMut(&Open) -> bool) -> Option<OpId> {
        let mut at = *self.heads.get(&key)?;
        while let Some(slot) = self.slots.get(at as usize) {
            if slot.open.as_ref().is_some_and(&mut wanted) {
                return Some(OpId { index: at, generation: slot.generation });
            }
            at = slot.next;
        }
        None
    }

    /// The one of the task, newest first, for which `rank` is least; `None` from `rank` leaves one out.
    pub fn find_least<R: PartialOrd>(&self, key: (u32, u64), mut rank: impl FnMut(&Open) -> Option<R>) -> Option<OpId> {
        let mut best: Option<(R, OpId)> = None;
        let mut at = *self.heads.get(&key)?;
        while let Some(slot) = self.slots.get(at as usize) {
            if let Some(rank) = slot.open.as_ref().and_then(&mut rank)
                && best.as_ref().is_none_or(|(least, _)| rank < *least)
            {
                best = Some((rank, OpId { index: at, generation: slot.generation }));
            }
            at = slot.next;
        }
        best.map(|(_, id)| id)
    }

    /// Those for which `wanted` holds, of all tasks.
    #[must_use]
    pub fn all(&self, mut wanted: impl FnMut(OpId, &Open) -> bool) -> Vec<OpId> {
        let numbered = (0u32..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| Some((OpId { index, generation: slot.generation }, slot.open.as_ref()?)));
        numbered.filter(|(id, open)| wanted(*id, open)).map(|(id, _)| id).collect()
    }

    /// The one for which `rank` is least, of those that were asked for outside of any task. Looks at all operations, if
    /// there are such.
    pub fn least_without_task<R: PartialOrd>(&self, mut rank: impl FnMut(&Open) -> Option<R>) -> Option<OpId> {
        if self.without_task == 0 {
            return None;
        }
        let mut best: Option<(R, OpId)> = None;
        for (index, slot) in (0u32..).zip(&self.slots) {
            if let Some(rank) = slot.open.as_ref().filter(|open| open.task == 0).and_then(&mut rank)
                && best.as_ref().is_none_or(|(least, _)| rank < *least)
            {
                best = Some((rank, OpId { index, generation: slot.generation }));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Gives the room of a wave back.
    pub fn shrink(&mut self) {
        let used = self.slots.iter().rposition(|slot| slot.open.is_some()).map_or(0, |last| last + 1);
        if self.slots.len() <= Self::KEPT.max(4 * used) {
            return;
        }
        let highest = self.slots[used..].iter().map(|slot| slot.generation).max().unwrap_or(0);
        self.generation = self.generation.max(highest.wrapping_add(1));
        self.slots.truncate(used);
        self.slots.shrink_to_fit();
        self.free = NONE;
        for index in (0..self.slots.len()).rev() {
            if self.slots[index].open.is_none() {
                self.slots[index].next = self.free;
                self.free = index as u32;
            }
        }
        shrink(&mut self.heads);
    }

    /// What the owner has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    /// Figures of the budget.
    pub fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(task: u64, start_ns: u64) -> Open {
        let statement = Arc::new(Statement::opaque());
        Open::new((1, task, 9), start_ns, statement, Kind::Logged, Sight::Sqlx, Origin::Background)
    }

    #[test]
    fn a_tasks_operations_are_found_newest_first_and_go_in_any_order() {
        let mut all = OpenOperations::default();
        let ids: Vec<_> = (0..4).map(|n| all.insert(1, open(7, n)).unwrap()).collect();
        let other = all.insert(1, open(8, 0)).unwrap();
        let newest = |all: &OpenOperations| all.find((1, 7), |_| true);
        assert_eq!(newest(&all), Some(ids[3]));
        assert_eq!(all.remove(ids[2]).unwrap().start_ns, 2);
        assert_eq!(all.remove(ids[3]).unwrap().start_ns, 3);
        assert_eq!(newest(&all), Some(ids[1]));
        assert_eq!(all.remove(ids[0]).unwrap().start_ns, 0);
        assert_eq!(all.find_least((1, 7), |open| Some(open.start_ns)), Some(ids[1]));
        all.remove(ids[1]).unwrap();
        assert_eq!((all.find((1, 7), |_| true), all.find((1, 8), |_| true)), (None, Some(other)));
        assert_eq!(all.len(), 1);
        assert_eq!(all.all(|_, open| open.key.0 == 1), [other]);
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut all = OpenOperations::default();
        let first = all.insert(1, open(7, 1)).unwrap();
        all.remove(first).unwrap();
        let second = all.insert(1, open(7, 2)).unwrap();
        assert!(all.get(first).is_none() && all.remove(first).is_none());
        assert_eq!(all.get(second).unwrap().start_ns, 2);
    }

    #[test]
    fn a_wave_of_one_owner_leaves_room_for_another_and_gives_its_own_back() {
        let mut all = OpenOperations::default();
        let wave: Vec<_> = (1..).map_while(|task| all.insert(1, open(task, 0))).collect();
        assert_eq!(wave.len(), Store::Operations.limit() / 2 / OpenOperations::SIZE);
        let good = all.insert(2, open(9, 5)).unwrap();
        assert_eq!(all.meter().refused(), 1);
        for id in &wave {
            all.remove(*id).unwrap();
        }
        all.shrink();
        assert_eq!(all.meter().used(), OpenOperations::SIZE as u64);
        all.remove(good).unwrap();
        all.shrink();
        assert!(all.slots.capacity() == 0 && all.heads.capacity() < 1000, "{}", all.heads.capacity());
        // What was given out before means nothing now.
        let fresh: Vec<_> = (0..2000).map(|n| all.insert(2, open(7, n)).unwrap()).collect();
        assert!(wave.iter().chain([&good]).all(|id| all.get(*id).is_none()));
        assert!(fresh.iter().all(|id| all.get(*id).is_some()));
    }
}
