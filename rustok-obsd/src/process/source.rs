//! Groups of processes as a source of the exposition.
//!
//! Reads: [`Table`], and ends of processes as they are told. Yields: `namedprocess_*` by process-exporter's names (0.8), and
//! the daemon's own. Costs: see [`super::table`]; an end that is told during a scrape waits in a list for its end.

use super::clock::TICKS;
use super::exit::{Ended, MOST};
use super::families as names;
use super::group::Group;
use super::member::{INVOLUNTARY, MAJOR, MINOR, READ, SYSTEM, USER, VOLUNTARY, WRITE};
use super::otel;
use super::sum::STATES;
use super::table::Table;
use super::threads::Threads;
use crate::config::Config;
use crate::contract::Family;
use crate::events::{Event, Subscriber};
use crate::exposition::{Collect, Encoder, Value};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The source.
pub struct ProcessGroups {
    state: Mutex<State>,
    waiting: Mutex<Waiting>,
    smaps: bool,
    otel: bool,
}

struct State {
    table: Table,
    threads: Option<Threads>,
    /// Group and place of each member that waits, sorted.
    waits: Vec<(u32, u16)>,
    /// The last listing failed, and that was logged.
    failed: bool,
}

/// What came while a scrape ran.
#[derive(Debug, Default)]
struct Waiting {
    news: Vec<News>,
    lost: u64,
}

/// What the kernel told.
#[derive(Clone, Copy, Debug)]
enum News {
    Ending { pid: u32, start_ticks: u64, parent: u32 },
    Ended(Ended),
}

impl ProcessGroups {
    /// Of the configuration.
    ///
    /// # Errors
    /// There is no procfs.
    pub fn new(config: &Config) -> io::Result<Self> {
        let settings = &config.process;
        let state = State {
            table: Table::new(config)?,
            threads: settings.threads.then(|| Threads::new(settings.groups_limit)),
            waits: Vec::new(),
            failed: false,
        };
        Ok(Self {
            state: Mutex::new(state),
            waiting: Mutex::default(),
            smaps: settings.smaps,
            otel: settings.otel_names,
        })
    }

    /// The kernel's events will tell of ends. They are to be handed out before each scrape.
    pub fn expect_ends(&self) {
        lock(&self.state).table.expect_ends();
    }

    /// Never waits for a scrape.
    fn tell(&self, news: News) {
        match self.state.try_lock() {
            Ok(mut state) => {
                self.catch_up(&mut state);
                state.take(&news);
            }
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(&news),
            Err(TryLockError::WouldBlock) => {
                let mut waiting = lock(&self.waiting);
                if waiting.news.len() < MOST {
                    waiting.news.push(news);
                } else {
                    waiting.lost += 1;
                }
            }
        }
    }

    fn catch_up(&self, state: &mut State) {
        let mut waiting = lock(&self.waiting);
        for news in waiting.news.drain(..) {
            state.take(&news);
        }
        waiting.news.shrink_to(1024);
    }

    /// Calls `with` with the table; for tests.
    pub fn with_table<R>(&self, with: impl FnOnce(&mut Table) -> R) -> R {
        with(&mut lock(&self.state).table)
    }
}

/// A panic of another holder leaves what is whole again after the next scrape.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscriber for ProcessGroups {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Exit { process, parent, .. } => {
                let start_ticks = process.start_ns / super::clock::TICK_NS;
                self.tell(News::Ending { pid: process.pid, start_ticks, parent });
            }
            Event::Freed { process, totals, comm, kernel_thread } => {
                self.tell(News::Ended(Ended { process, comm, kernel_thread, totals }));
            }
            _ => {}
        }
    }
}

impl State {
    fn take(&mut self, news: &News) {
        match news {
            News::Ending { pid, start_ticks, parent } => self.table.ending(*pid, *start_ticks, *parent),
            News::Ended(ended) => self.table.ended(ended),
        }
    }
}

impl Collect for ProcessGroups {
    fn collect(&self, out: &mut Encoder<'_>) {
        // Who ended is known before who is there: what is gone and was not told of by then is told of later.
        let mut state = lock(&self.state);
        self.catch_up(&mut state);
        match state.table.update(out.scrape().deadline) {
            Ok(()) => {
                state.failed = false;
                let State { table, threads, waits, .. } = &mut *state;
                match threads {
                    Some(threads) => threads.update(table),
                    None => table.given_up.clear(),
                }
                write_groups(table, self.smaps, out);
                write_waits(table, waits, out);
                if let Some(threads) = threads {
                    threads.write(table, out);
                }
                let lost = lock(&self.waiting).lost + table.ghosts_refused();
                write_own(table, lost, out);
                if self.otel {
                    otel::write_groups(table, self.smaps, out);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut state.failed, true) {
                    tracing::warn!("processes cannot be listed: {error}; mount procfs where path.procfs says");
                }
            }
        }
        let errors = state.table.errors;
        out.family(&names::SCRAPE_ERRORS).put([], errors.whole);
        out.family(&names::PROCREAD_ERRORS).put([], errors.process);
        out.family(&names::PARTIAL_ERRORS).put([], errors.partial);
        self.catch_up(&mut state);
    }
}

/// Writes a family of one sample per group.
pub(super) fn each<V: Into<Value>>(
    table: &Table,
    family: &Family<'static>,
    value: impl Fn(&Group) -> V,
    out: &mut Encoder<'_>,
) {
    let mut samples = out.family(family);
    for group in table.groups.all() {
        samples.put([group.name.as_str()], value(group));
    }
}

/// Writes a family of several samples per group.
pub(super) fn each_of<const N: usize>(
    table: &Table,
    family: &Family<'static>,
    kinds: [&str; N],
    values: impl Fn(&Group) -> [Value; N],
    out: &mut Encoder<'_>,
) {
    let mut samples = out.family(family);
    for group in table.groups.all() {
        for (kind, value) in kinds.into_iter().zip(values(group)) {
            samples.put([group.name.as_str(), kind], value);
        }
    }
}

fn write_groups(table: &mut Table, smaps: bool, out: &mut Encoder<'_>) {
    let boot = table.boot.seconds();
    let table = &*table;
    each(table, &names::NUM_PROCS, |group| group.sum.processes, out);
    let nanos = |group: &Group, at: usize| Value::Nanos(group.sum.counts[at]);
    let count = |group: &Group, at: usize| Value::U64(group.sum.counts[at]);
    each_of(table, &names::CPU, ["user", "system"], |group| [nanos(group, USER), nanos(group, SYSTEM)], out);
    each(table, &names::READ_BYTES, |group| count(group, READ), out);
    each(table, &names::WRITE_BYTES, |group| count(group, WRITE), out);
    each(table, &names::MAJOR_FAULTS, |group| count(group, MAJOR), out);
    each(table, &names::MINOR_FAULTS, |group| count(group, MINOR), out);
    let switches = |group: &Group| [count(group, VOLUNTARY), count(group, INVOLUNTARY)];
    each_of(table, &names::CONTEXT_SWITCHES, ["voluntary", "nonvoluntary"], switches, out);
    let memory = |group: &Group| {
        let sum = &group.sum;
        [sum.resident, sum.virtual_bytes, sum.swapped, sum.shares[0], sum.shares[1]].map(Value::U64)
    };
    if smaps {
        let kinds = ["resident", "virtual", "swapped", "proportionalResident", "proportionalSwapped"];
        each_of(table, &names::MEMORY, kinds, memory, out);
    } else {
        let memory = |group: &Group| {
            let [resident, virtual_bytes, swapped, ..] = memory(group);
            [resident, virtual_bytes, swapped]
        };
        each_of(table, &names::MEMORY, ["resident", "virtual", "swapped"], memory, out);
    }
    each(table, &names::OPEN_DESCRIPTORS, |group| group.sum.descriptors, out);
    each(table, &names::WORST_RATIO, |group| group.sum.worst_ratio, out);
    let oldest = |group: &Group| group.sum.oldest.map_or(Value::U64(0), |ticks| Value::U64(boot + ticks / TICKS));
    each(table, &names::OLDEST_START, oldest, out);
    each(table, &names::NUM_THREADS, |group| group.sum.threads, out);
    each_of(table, &names::STATES, STATES, |group| group.sum.states.map(Value::U64), out);
}

/// Members by the place in which they wait.
fn write_waits(table: &Table, waits: &mut Vec<(u32, u16)>, out: &mut Encoder<'_>) {
    waits.clear();
    waits.extend(table.waiting());
    waits.sort_unstable();
    let mut samples = out.family(&names::THREADS_WCHAN);
    for same in waits.chunk_by(|a, b| a == b) {
        let (group, wchan) = same[0];
        samples.put([table.groups.name(group), table.wchans.name(wchan)], same.len() as u64);
    }
}

fn write_own(table: &Table, lost: u64, out: &mut Encoder<'_>) {
    each(table, &names::STARTS, |group| group.starts, out);
    each(table, &names::EXITS, |group| group.exits, out);
    each(table, &names::SHORT_LIVED, |group| group.short_lived, out);
    out.family(&names::OVERFLOW).put([], table.groups.overflow());
    out.family(&names::RECLAIMED).put([], table.groups.reclaimed);
    out.family(&names::ENDS_LOST).put([], lost);
}
