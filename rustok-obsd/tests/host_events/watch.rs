//! The programs, loaded, with a subscriber that keeps everything.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rustok_obsd::{
    contract::host_events::EventKind,
    events::{Event, EventSource, OomKill, ProcessId, Subscriber, Totals},
    probe::{HostPrograms, HostSettings, Kernel, LoadError, ProbeBoard, State, host::HOST_OBJECT, host_types::Use},
};
use test_support::{skip, wait_until};

/// An event that owns its parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    Exec { process: ProcessId, parent: u32, comm: String },
    Exit { process: ProcessId, parent: u32, totals: Totals, comm: String },
    Freed { process: ProcessId, totals: Totals, comm: String },
    Oom { pid: u32, cgroup: Option<u64>, comm: String },
    Made { cgroup: u64, hierarchy: u32, level: u32, path: Option<String> },
    Removed { cgroup: u64, hierarchy: u32, level: u32, path: Option<String> },
}

/// Keeps events.
#[derive(Default)]
struct Keeper(Mutex<Vec<Kept>>);

impl Subscriber for Keeper {
    fn event(&self, event: &Event<'_>) {
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
        };
        let path = |path: Option<&[u8]>| path.map(text);
        let kept = match *event {
            Event::Exec(exec) => Kept::Exec { process: exec.process, parent: exec.parent, comm: text(&exec.comm) },
            Event::Exit { process, parent, totals, comm, .. } => {
                Kept::Exit { process, parent, totals, comm: text(&comm) }
            }
            Event::Freed { process, totals, comm, .. } => Kept::Freed { process, totals, comm: text(&comm) },
            Event::Oom(OomKill { pid, cgroup, comm }) => Kept::Oom { pid, cgroup, comm: text(&comm) },
            Event::CgroupMade { cgroup, hierarchy, level, path: at } => {
                Kept::Made { cgroup, hierarchy, level, path: path(at) }
            }
            Event::CgroupRemoved { cgroup, hierarchy, level, path: at } => {
                Kept::Removed { cgroup, hierarchy, level, path: path(at) }
            }
        };
        self.0.lock().expect("no test panics with it").push(kept);
    }
}

/// How the kernel tells of ends and victims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// As it does.
    Now,
    /// As it did before Linux 6.9: who was the last thread must be found out, and a victim is known at its end.
    Before,
}

pub struct Watch {
    pub programs: HostPrograms,
    pub events: Arc<EventSource>,
    keeper: Arc<Keeper>,
}

impl Watch {
    /// `None`, and told, where this machine allows no BPF.
    pub fn start(test: &str, told: As, ring_bytes: u32) -> Option<Self> {
        let keeper = Arc::new(Keeper::default());
        let (programs, events) = load(test, told, ring_bytes, Arc::clone(&keeper) as _)?;
        Some(Self { programs, events, keeper })
    }

    /// Events of now that `pick` wants.
    pub fn all<T>(&self, pick: impl FnMut(&Kept) -> Option<T>) -> Vec<T> {
        self.events.drain();
        self.kept(pick)
    }

    /// Events that were handed on before.
    pub fn kept<T>(&self, pick: impl FnMut(&Kept) -> Option<T>) -> Vec<T> {
        self.keeper.0.lock().expect("no test panics with it").iter().filter_map(pick).collect()
    }

    /// Waits for one that may come later, or never.
    pub fn wait<T>(&self, mut pick: impl FnMut(&Kept) -> Option<T>) -> Option<T> {
        wait_until(Duration::from_secs(3), || self.all(&mut pick).into_iter().next())
    }

    /// Nothing was lost and nothing lacks a field.
    pub fn assert_whole(&self) {
        for kind in [EventKind::Exec, EventKind::Exit, EventKind::Freed, EventKind::Oom, EventKind::Malformed] {
            assert_eq!((self.events.lost(kind), self.events.incomplete(kind)), (0, 0), "{kind:?}");
        }
    }

    /// What the programs cost, for who reads the test's output.
    pub fn print_costs(&self) {
        for stats in self.programs.facts().programs() {
            let each = stats.run_time.as_nanos().checked_div(u128::from(stats.runs)).unwrap_or(0);
            println!(
                "{}: {} runs, {each} ns each, {:?} instructions",
                stats.name, stats.runs, stats.verified_instructions
            );
        }
    }
}

/// The programs and their events, handed to `subscriber`; `None`, and told, where this machine allows no BPF.
pub fn load(
    test: &str,
    told: As,
    ring_bytes: u32,
    subscriber: Arc<dyn Subscriber>,
) -> Option<(HostPrograms, Arc<EventSource>)> {
    let mut kernel = Kernel::inspect();
    if let (As::Before, Ok(types)) = (told, &mut kernel.host) {
        types.exit_tells_group_dead = false;
        types.victim_is_task = false;
        types.programs[3] = Use::LeaveOut("as on an older kernel".into());
    }
    let settings = HostSettings { ring_bytes, run_stats: true };
    let board = ProbeBoard::default();
    let (programs, ring, counts) = match HostPrograms::load(HOST_OBJECT, &kernel, settings, &board) {
        Ok(loaded) => loaded,
        Err(error @ (LoadError::NoObject | LoadError::Refused(_))) => {
            skip(test, error);
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    for probe in board.all() {
        let left_out = told == As::Before && probe.probe == "host_oom";
        let expected = if left_out { State::Disabled } else { State::Attached };
        assert_eq!(probe.state, expected, "{}: {}", probe.probe, probe.reason);
    }
    let events = EventSource::new(ring, ring_bytes, counts, vec![subscriber]);
    Some((programs, Arc::new(events)))
}
