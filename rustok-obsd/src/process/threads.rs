//! Threads by name, as process-exporter's option `-threads` has them.
//!
//! Reads: `/proc/PID/task/TID/{stat,status,io,wchan}` of every member with more than one thread. Yields:
//! `namedprocess_namegroup_thread_*`. Costs: 40 µs a thread, hence off; names beyond the cap of groups are `~other`.

use super::clock::TICK_NS;
use super::families as names;
use super::files::{Files, entries};
use super::group::OTHER;
use super::member::{COUNTS, Counts, INVOLUNTARY, MAJOR, MINOR, READ, SYSTEM, USER, VOLUNTARY, WRITE, advance};
use super::parse;
use super::table::{NOTHING, Table};
use crate::budget::{Budget, Store};
use crate::exposition::{Encoder, Value};
use crate::host::text;
use rustc_hash::FxHashMap;
use std::os::fd::OwnedFd;

/// Names of threads by group.
#[derive(Debug)]
pub struct Threads {
    names: Vec<Name>,
    by_name: FxHashMap<(u32, Box<[u8]>), u32>,
    /// Those alive, by tid and start.
    alive: FxHashMap<(u32, u64), Alive>,
    round: u64,
    listed: Vec<u32>,
    processes: Vec<(u32, u32)>,
    buffer: Vec<u8>,
    limit: usize,
    /// Names of each group; a unit is a name.
    room: Budget,
    /// A name found no room.
    wanted: bool,
}

#[derive(Debug)]
struct Name {
    group: u32,
    text: String,
    count: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Alive {
    round: u64,
    counts: Counts,
}

impl Threads {
    /// At most so many names.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            names: Vec::new(),
            by_name: FxHashMap::default(),
            alive: FxHashMap::default(),
            round: 0,
            listed: Vec::new(),
            processes: Vec::new(),
            buffer: Vec::new(),
            limit,
            room: Budget::with_limit(Store::Series, limit),
            wanted: false,
        }
    }

    /// Looks at the threads of all members.
    pub fn update(&mut self, table: &mut Table) {
        self.reclaim(&std::mem::take(&mut table.given_up));
        self.round += 1;
        self.names.iter_mut().for_each(|name| name.count = 0);
        self.processes.clear();
        self.processes.extend(
            table.members().filter(|(_, member)| member.stat.threads > 1).map(|(group, member)| (group, member.pid)),
        );
        for at in 0..self.processes.len() {
            let (group, pid) = self.processes[at];
            let Ok(folder) = table.files.open_file(format_args!("{pid}/task"), libc::O_RDONLY | libc::O_DIRECTORY)
            else {
                continue;
            };
            self.list(&folder);
            for at in 0..self.listed.len() {
                self.look(group, pid, self.listed[at], &mut table.files);
            }
        }
        let round = self.round;
        self.alive.retain(|_, thread| thread.round == round);
    }

    /// Forgets the names of groups that were given up, and, where room was wanted, those that no thread has any more.
    fn reclaim(&mut self, given_up: &[u32]) {
        let wanted = std::mem::take(&mut self.wanted);
        if given_up.is_empty() && !wanted {
            return;
        }
        self.names.retain(|name| !(given_up.contains(&name.group) || wanted && name.count == 0));
        self.room = Budget::with_limit(Store::Series, self.limit);
        self.by_name.clear();
        for (index, name) in (0u32..).zip(&self.names) {
            self.room.resize(name.group, self.room.held(name.group) + 1);
            self.by_name.insert((name.group, name.text.as_bytes().into()), index);
        }
    }

    fn list(&mut self, folder: &OwnedFd) {
        self.listed.clear();
        let listed = &mut self.listed;
        // What vanishes meanwhile is not listed.
        let _ = entries(folder, &mut self.buffer, |name, _| {
            listed.extend(text::u64(name).and_then(|tid| u32::try_from(tid).ok()));
        });
    }

    fn look(&mut self, group: u32, pid: u32, tid: u32, files: &mut Files) {
        let stat = files.read_once(format_args!("{pid}/task/{tid}/stat")).ok().and_then(parse::stat);
        let Some(stat) = stat else { return };
        let mut counts = [0; COUNTS];
        counts[USER] = stat.user_ticks * TICK_NS;
        counts[SYSTEM] = stat.system_ticks * TICK_NS;
        counts[MINOR] = stat.minor_faults;
        counts[MAJOR] = stat.major_faults;
        if let Ok(text) = files.read_once(format_args!("{pid}/task/{tid}/status")) {
            let status = parse::status(text);
            counts[VOLUNTARY] = status.voluntary_switches;
            counts[INVOLUNTARY] = status.involuntary_switches;
        }
        let io = files.read_once(format_args!("{pid}/task/{tid}/io")).ok().and_then(parse::io);
        [counts[READ], counts[WRITE]] = io.unwrap_or_default();
        let name = self.name(group, stat.comm.as_bytes());
        let thread = self.alive.entry((tid, stat.start_ticks));
        let thread = thread.or_insert(Alive { round: 0, counts: NOTHING });
        thread.round = self.round;
        let name = &mut self.names[name as usize];
        name.count += 1;
        advance(&mut name.counts, &mut thread.counts, &counts);
    }

    fn name(&mut self, group: u32, text: &[u8]) -> u32 {
        if let Some(index) = self.by_name.get(&(group, text.into())) {
            return *index;
        }
        let fits = self.names.len() < self.limit && self.room.held(group) < self.room.allowance(group).max(1);
        self.wanted |= !fits;
        let text = if fits { text } else { OTHER.as_bytes() };
        let next = self.names.len() as u32;
        let index = *self.by_name.entry((group, text.into())).or_insert(next);
        if index == next {
            let text = String::from_utf8_lossy(text).into_owned();
            self.names.push(Name { group, text, count: 0, counts: NOTHING });
            self.room.resize(group, self.room.held(group) + 1);
        }
        index
    }

    /// Writes the families.
    pub fn write(&self, table: &Table, out: &mut Encoder<'_>) {
        let all = || self.names.iter().map(|name| (table.groups.name(name.group), name));
        let mut samples = out.family(&names::THREAD_COUNT);
        for (group, name) in all() {
            samples.put([group, name.text.as_str()], name.count);
        }
        let mut samples = out.family(&names::THREAD_CPU);
        for (group, name) in all() {
            samples.put([group, &name.text, "user"], Value::Nanos(name.counts[USER]));
            samples.put([group, &name.text, "system"], Value::Nanos(name.counts[SYSTEM]));
        }
        let mut samples = out.family(&names::THREAD_IO);
        for (group, name) in all() {
            samples.put([group, &name.text, "read"], name.counts[READ]);
            samples.put([group, &name.text, "write"], name.counts[WRITE]);
        }
        for (family, at) in [(&names::THREAD_MAJOR_FAULTS, MAJOR), (&names::THREAD_MINOR_FAULTS, MINOR)] {
            let mut samples = out.family(family);
            for (group, name) in all() {
                samples.put([group, &name.text], name.counts[at]);
            }
        }
        let mut samples = out.family(&names::THREAD_CONTEXT_SWITCHES);
        for (group, name) in all() {
            samples.put([group, &name.text, "voluntary"], name.counts[VOLUNTARY]);
            samples.put([group, &name.text, "nonvoluntary"], name.counts[INVOLUNTARY]);
        }
    }
}
