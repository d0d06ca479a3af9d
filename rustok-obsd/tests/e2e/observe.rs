//! Observes a process from inside the test: the same programs, the same parsers, and every record kept.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustok_obsd::{
    capture::{pipeline, record::Record},
    exchange::{Exchange, HttpConnection, Io, Outcome, RoutesExact, Shared, Side},
    probe::{Kernel, Loaded, ProbeBoard, Programs, Settings, State, loader, uprobe::Links},
    target::{
        BinaryCache, InProcess, ProbePoint, ProcessKey, ProcessMemory, Reader, RouteTable, Rule, Scanner, Selector,
        Target, TaskSlot, Trust,
    },
};
use rustok_obsd_ebpf::{Counter, Scope, SocketOpen, Tag};
use test_support::Skip;

const TAG: Tag = Tag::new(1, Scope::File);

use super::running::LONG_PATIENCE;

/// Everything that came out of the ring, in order.
pub struct Recorded {
    pub entries: Vec<Vec<u8>>,
    /// Paths of (router, route id), read while the process lived.
    pub routes: HashMap<(u64, u32), Arc<str>>,
    pub lost: u64,
}

pub struct Observer {
    programs: Programs,
    links: Links,
    target: Target,
    counts: loader::Counts,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Observer {
    /// Observes the process of this id.
    pub fn attach(pid: u32, port: u16) -> Result<Self, Skip> {
        let kernel = Kernel::inspect();
        let board = ProbeBoard::default();
        let settings = Settings { ring_bytes: 64 << 20, ..Settings::default() };
        let loaded = Programs::load(loader::OBJECT, &kernel, settings, &board);
        let Loaded { programs, capture, mut targets, counts } = loaded.map_err(|error| Skip::new(error.to_string()))?;
        for probe in board.all() {
            if probe.state != State::Attached {
                return Err(Skip::new(format!("{}: {}", probe.probe, probe.reason)));
            }
        }
        let selector = Selector::new(&[Rule { pid: Some(pid), ..Rule::default() }]).expect("a rule");
        let process = Scanner::new(Path::new("/proc"), selector).inspect(pid).expect("the process");
        let target =
            Target::new(process, &BinaryCache::default(), &Trust::of([0]), Path::new("/proc"), &Reader::new(InProcess))
                .expect("its binary");
        let TaskSlot::Known(slot) = target.task_slot() else {
            panic!("the shop's slot is not known: {}", target.task_slot())
        };
        let places = target.places(ProbePoint::AxumRoute);
        let path = target.executable.as_ref().expect("it was read").attach_path();
        let links = programs
            .uprobes
            .attach("axum_matched_path", (&path, "the shop"), &places, TAG, None)
            .expect("attach to axum");

        let stop = Arc::new(AtomicBool::new(false));
        let (mut ring, _) = pipeline::split(capture);
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut entries = Vec::new();
            loop {
                let last = stopped.load(Ordering::Relaxed);
                while ring.drain(4096, |entry| entries.push(entry.to_vec())) > 0 {}
                if last {
                    return entries;
                }
                ring.wait();
            }
        });
        let words = rustok_obsd_ebpf::Target::new(pid, slot, 0, TAG).words();
        targets.ports.insert(port, 1, 0).expect("follow the port");
        targets.targets.insert(pid, words, 0).expect("follow the process");
        Ok(Self { programs, links, target, counts, stop, thread })
    }

    /// Reads the routes that were matched; to be called while the process lives.
    pub fn finish(mut self, end_process: impl FnOnce()) -> Recorded {
        // What was sent is in the ring when the system call returned: once none of its threads runs.
        let pid = self.target.process.key.pid;
        let rests = test_support::wait_until(LONG_PATIENCE, || {
            let before = self.counts.get(Counter::Submitted);
            (is_asleep(pid) && self.counts.get(Counter::Submitted) == before).then_some(())
        });
        assert!(rests.is_some(), "the target never rests");
        let process: ProcessKey = self.target.process.key;
        let memory = ProcessMemory::new(process.pid);
        let probe = |entries: &[Vec<u8>]| {
            let (mut routes, mut tables) = (HashMap::new(), HashMap::new());
            for entry in entries {
                if let Ok(Record::Route(hit)) = Record::parse(entry) {
                    let table = tables
                        .entry(hit.map)
                        .or_insert_with(|| RouteTable::read(&memory, hit.map).expect("the router's table"));
                    let path = table.routes.get(&hit.route).expect("the matched route's path");
                    routes.entry((hit.map, hit.route)).or_insert_with(|| Arc::clone(path));
                }
            }
            routes
        };
        // The ring belongs to the thread: look at the routes before the process ends, take the records after.
        self.stop.store(true, Ordering::Relaxed);
        let entries = self.thread.join().expect("the capture thread");
        let routes = probe(&entries);
        let lost = self.counts.get(Counter::RingFull);
        end_process();
        drop(self.links);
        self.programs.detach();
        Recorded { entries, routes, lost }
    }
}

/// Each thread of the process waits for something.
fn is_asleep(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
    })
}

/// An exchange with what it borrows copied.
#[derive(Clone, Debug)]
pub struct Seen {
    pub side: Side,
    pub task: u64,
    pub start_ns: u64,
    pub first_io_ns: u64,
    pub request_end_ns: u64,
    pub end_ns: u64,
    pub method: String,
    pub path: String,
    pub status: u16,
    pub outcome: Outcome,
    pub route: Option<String>,
}

impl From<&Exchange<'_>> for Seen {
    fn from(exchange: &Exchange<'_>) -> Self {
        Self {
            side: exchange.side,
            task: exchange.task,
            start_ns: exchange.start_ns,
            first_io_ns: exchange.first_io_ns,
            request_end_ns: exchange.request_end_ns,
            end_ns: exchange.end_ns,
            method: format!("{:?}", exchange.method).to_uppercase(),
            path: String::from_utf8_lossy(exchange.path).into_owned(),
            status: exchange.status,
            outcome: exchange.outcome,
            route: exchange.route.map(|route| route.template.to_string()),
        }
    }
}

/// One connection, replayed.
pub struct Replayed {
    pub open: SocketOpen,
    pub seen: Vec<Seen>,
}

/// Feeds the records to the parsers as the daemon does, and keeps every exchange.
pub fn replay(recorded: &Recorded) -> (Vec<Replayed>, rustok_obsd::exchange::Stats) {
    struct Live {
        open: SocketOpen,
        http: HttpConnection,
        seen: Vec<Seen>,
    }
    let mut shared = Shared::default();
    let mut live: HashMap<u64, Live> = HashMap::new();
    let mut by_task: HashMap<u64, u64> = HashMap::new();
    let mut done = Vec::new();
    for entry in &recorded.entries {
        match Record::parse(entry).expect("a record") {
            Record::Open(open) => {
                let side = match open.role {
                    1 => Some(Side::Server),
                    2 => Some(Side::Client),
                    _ => None,
                };
                let http = HttpConnection::new(side, open.flags != 0, RoutesExact::ALWAYS);
                live.insert(open.conn, Live { open, http, seen: Vec::new() });
            }
            Record::Send(io, data) | Record::Receive(io, data) => {
                let connection = live.get_mut(&io.conn).expect("announced before");
                let received = matches!(Record::parse(entry), Ok(Record::Receive(..)));
                let Live { http, seen, .. } = connection;
                let mut sink = |exchange: &Exchange<'_>| seen.push(exchange.into());
                match usize::try_from(io.result) {
                    Err(_) => http.on_error(-io.result),
                    Ok(0) => http.on_end_of_stream(io.time_ns, &mut shared, &mut sink),
                    Ok(len) => {
                        let tail = rustok_obsd::capture::record::tail(&io);
                        let (time_ns, ready_ns, task, tid) = (io.time_ns, io.ready_ns, io.task, io.tid);
                        let io = Io { time_ns, ready_ns, task, tid, len, data, tail, lost: 0 };
                        if received {
                            http.on_receive(&io, &mut shared, &mut sink);
                        } else {
                            http.on_send(&io, &mut shared, &mut sink);
                        }
                    }
                }
                if received && http.side() == Some(Side::Server) && io.task != 0 {
                    by_task.insert(io.task, io.conn);
                }
            }
            Record::Route(hit) => {
                let conn =
                    by_task.get(&hit.task).unwrap_or_else(|| panic!("{hit:?}: the task reads from no connection"));
                let path = &recorded.routes[&(hit.map, hit.route)];
                live.get_mut(conn).expect("that lives").http.on_route(path, &mut shared);
            }
            Record::Close(close) => {
                if let Some(mut connection) = live.remove(&close.conn) {
                    let seen = &mut connection.seen;
                    if close.error != 0 {
                        connection.http.on_error(close.error.cast_signed());
                    }
                    connection.http.on_close(close.time_ns, &mut shared, &mut |exchange| seen.push(exchange.into()));
                    done.push(Replayed { open: connection.open, seen: connection.seen });
                }
            }
            Record::Exec(_)
            | Record::Exit(_)
            | Record::Fork(_)
            | Record::TaskEnter(_)
            | Record::Call(..)
            | Record::Spawn(_) => {}
        }
    }
    done.extend(live.into_values().map(|connection| Replayed { open: connection.open, seen: connection.seen }));
    (done, shared.stats)
}
