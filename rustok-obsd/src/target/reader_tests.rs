//! The reader over memory that answers when the test says so.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::target::memory::MemoryError;

/// Memory of processes that do not exist; a read of one waits for a word on its channel.
#[derive(Clone, Default)]
struct Gates(Arc<Mutex<HashMap<u32, Gate>>>);

type Gate = Arc<Mutex<Receiver<()>>>;

struct Gated(Option<Gate>);

impl Gates {
    fn close(&self, pid: u32) -> SyncSender<()> {
        let (open, gate) = sync_channel(16);
        lock(&self.0).insert(pid, Arc::new(Mutex::new(gate)));
        open
    }
}

impl Access for Gates {
    fn memory(&self, pid: u32, _until: Instant) -> Box<dyn Memory + '_> {
        Box::new(Gated(lock(&self.0).get(&pid).cloned()))
    }
}

impl Memory for Gated {
    fn read_many(&self, _ranges: &[(u64, usize)], _buf: &mut [u8]) -> Result<(), MemoryError> {
        if let Some(gate) = &self.0 {
            let _ = lock(gate).recv();
        }
        Ok(())
    }
}

/// Processes that do not exist, all of [`Spender::Unknown`].
const NOBODY: u32 = u32::MAX / 2;

/// An answer comes a moment before its thread is free.
fn until(holds: impl Fn() -> bool) {
    while !holds() {
        thread::yield_now();
    }
}

fn ask(reader: &Reader, pid: u32) -> Result<Receiver<u32>, Refused> {
    reader.ask(pid, move |memory| {
        let _ = memory.read(0, &mut [0]);
        pid
    })
}

#[test]
fn a_process_whose_memory_hangs_holds_up_nobody_else() {
    let gates = Gates::default();
    let open = gates.close(NOBODY);
    let reader = Reader::new(gates);
    let stuck = ask(&reader, NOBODY).unwrap();
    for other in 1..200 {
        assert_eq!(ask(&reader, NOBODY + other).unwrap().recv(), Ok(NOBODY + other));
    }
    assert!(stuck.try_recv().is_err());
    drop(open);
    assert_eq!(stuck.recv(), Ok(NOBODY));
    assert_eq!(reader.stats().refused, 0);
}

#[test]
fn one_process_has_one_read_under_way_and_few_that_wait() {
    let gates = Gates::default();
    let open = gates.close(NOBODY);
    let reader = Reader::new(gates);
    let first = ask(&reader, NOBODY).unwrap();
    // The first one is under way when it waits no longer.
    while !lock(&reader.shared.state).waiting.is_empty() {
        thread::yield_now();
    }
    let waiting: Vec<_> = (0..WAITING_OF_ONE).map(|_| ask(&reader, NOBODY).unwrap()).collect();
    assert_eq!(ask(&reader, NOBODY).unwrap_err(), Refused::Full(NOBODY));
    assert_eq!(ask(&reader, NOBODY + 1).unwrap().recv(), Ok(NOBODY + 1));
    until(|| lock(&reader.shared.state).running.len() == 1);
    drop(open);
    for answer in std::iter::once(first).chain(waiting) {
        assert_eq!(answer.recv(), Ok(NOBODY));
    }
    until(|| reader.stats() == ReaderStats { done: 10, refused: 1, ..ReaderStats::default() });
}

#[test]
fn the_processes_of_one_user_leave_threads_to_others() {
    let gates = Gates::default();
    let held: Vec<_> = (0..20).map(|pid| gates.close(NOBODY + pid)).collect();
    let reader = Reader::new(gates);
    let stuck: Vec<_> = (0..20).map(|pid| ask(&reader, NOBODY + pid).unwrap()).collect();
    // This process belongs to somebody else.
    assert_eq!(ask(&reader, std::process::id()).unwrap().recv(), Ok(std::process::id()));
    until(|| {
        let state = lock(&reader.shared.state);
        (state.running.len(), state.waiting.len()) == (PER_USER, 20 - PER_USER)
    });
    drop(held);
    for answer in stuck {
        answer.recv().unwrap();
    }
}

#[test]
fn a_job_that_panics_or_waits_for_too_long_has_no_answer_and_is_counted() {
    let reader = Reader::new(Gates::default());
    let answer = reader.ask(NOBODY, |_| panic!("on purpose")).unwrap();
    let answer: Result<(), _> = answer.recv();
    assert!(answer.is_err());
    assert_eq!(ask(&reader, NOBODY).unwrap().recv(), Ok(NOBODY), "the thread lives");
    let (dropped, _held) = sync_channel::<()>(16);
    let until = Instant::now();
    let job = Job { pid: NOBODY, spender: Spender::Root, until, work: Box::new(move |_| drop(dropped)) };
    let mut state = State::default();
    state.waiting.push_back(job);
    reader.shared.drop_late(&mut state, until + Duration::from_nanos(1));
    assert!(state.waiting.is_empty());
    assert_eq!(reader.stats().late, 2);
}

/// Has jobs of a spender wait, each of another process, until no more may; how many that were.
fn fill(state: &mut State, spender: Spender) -> usize {
    let before = state.waiting.len();
    while state.has_room(spender) {
        let pid = state.waiting.len() as u32;
        state.waiting.push_back(Job { pid, spender, until: Instant::now() + DEADLINE, work: Box::new(|_| ()) });
    }
    state.waiting.len() - before
}

#[test]
fn what_waits_of_one_user_leaves_room_for_others_and_most_of_all_for_root() {
    let mut state = State::default();
    let users = [Spender::User(1000), Spender::Contained(7), Spender::User(1001), Spender::Unknown];
    let held = users.map(|user| fill(&mut state, user));
    assert_eq!(held, [64, 32, 16, 8], "each what was free, half of it");
    assert!((2000..2100).map(|user| fill(&mut state, Spender::User(user))).sum::<usize>() <= 8);
    assert_eq!(fill(&mut state, Spender::Root), WAITING_OF_ROOT);
    // Neither does root take what is theirs.
    let mut state = State::default();
    assert_eq!(fill(&mut state, Spender::Root), WAITING_OF_ROOT);
    assert_eq!(fill(&mut state, users[0]), 64);
}

#[test]
fn users_leave_a_thread_to_root() {
    let mut state = State::default();
    let users = [Spender::User(1000), Spender::Contained(7), Spender::Root].repeat(4);
    for (pid, spender) in (0..).zip(users) {
        state.waiting.push_back(Job { pid, spender, until: Instant::now() + DEADLINE, work: Box::new(|_| ()) });
    }
    // Root's come last.
    state.waiting.make_contiguous().sort_by_key(|job| job.spender.is_root());
    while let Some(job) = state.take() {
        state.running.push((job.pid, job.spender, job.until));
    }
    let of = |is: fn(&Spender) -> bool| state.running.iter().filter(|(_, spender, _)| is(spender)).count();
    assert_eq!((of(|spender| !spender.is_root()), of(|spender| spender.is_root())), (OF_USERS, PER_USER));
}
