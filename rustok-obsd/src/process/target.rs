//! The observed servers' processes, in full.
//!
//! Reads: of each target what [`super::member`] reads, and `/proc/PID/{io,task/TID/status}` and its limits. Yields:
//! `rustok_obsd_target_process_*`, summed over the processes of a service: a label that names a process would make new
//! series at every restart. Costs: 40 µs a process, and 10 µs a thread of one that has several, for its switches.
//!
//! Counters go on when a process ends and the next one comes: what it used when last looked at stays in its service's sum.

use super::clock::TICKS;
use super::files::{Files, entries};
use super::group::OTHER;
use super::member::{Counts, Detail, MAJOR, MINOR, Member, Outcome, READ, SYSTEM, USER, WRITE, limit};
use super::parse;
use super::sum::Sum;
use super::table::NOTHING;
use super::wchan::Wchans;
use crate::budget::cut;
use crate::config::Config;
use crate::contract::{Family, Kind, Origin, Stability};
use crate::exposition::{Collect, Encoder, Value};
use crate::host::text;
use std::io;
use std::sync::{Mutex, PoisonError};

const fn target(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit, help, labels, origin: Origin::Kernel, stability: Stability::Development }
}

const SERVICE: &[&str] = &["service_name"];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    PROCESSES,
    CPU,
    MEMORY,
    DESCRIPTORS,
    DESCRIPTOR_LIMIT,
    ADDRESS_LIMIT,
    THREADS,
    STATES,
    DISK_IO,
    FILE_IO,
    FILE_CALLS,
    SWITCHES,
    FAULTS,
    START,
];

const PROCESSES: Family<'static> =
    target("rustok_obsd_target_processes", Kind::Gauge, "", SERVICE, "Processes of the observed service.");
const CPU: Family<'static> = target(
    "rustok_obsd_target_process_cpu_seconds_total",
    Kind::Counter,
    "seconds",
    &["service_name", "cpu_mode"],
    "Time on CPUs of the service's processes; those that ended count with what they had used when last looked at.",
);
const MEMORY: Family<'static> = target(
    "rustok_obsd_target_process_memory_bytes",
    Kind::Gauge,
    "bytes",
    &["service_name", "type"],
    "Memory of the service's processes: resident, virtual, swapped; proportional and proportional_swapped with process.smaps.",
);
const DESCRIPTORS: Family<'static> = target(
    "rustok_obsd_target_process_open_file_descriptors",
    Kind::Gauge,
    "",
    SERVICE,
    "File descriptors that the service's processes have open.",
);
const DESCRIPTOR_LIMIT: Family<'static> = target(
    "rustok_obsd_target_process_file_descriptors_limit",
    Kind::Gauge,
    "",
    &["service_name", "limit"],
    "Limit of file descriptors of a process, soft and hard; of several processes the lowest.",
);
const ADDRESS_LIMIT: Family<'static> = target(
    "rustok_obsd_target_process_virtual_memory_limit_bytes",
    Kind::Gauge,
    "bytes",
    SERVICE,
    "Soft limit of a process' address space, of several processes the lowest; absent where there is none.",
);
const THREADS: Family<'static> =
    target("rustok_obsd_target_process_threads", Kind::Gauge, "", SERVICE, "Threads of the service's processes.");
const STATES: Family<'static> = target(
    "rustok_obsd_target_process_states",
    Kind::Gauge,
    "",
    &["service_name", "state"],
    "Processes of the service by the state of their main thread.",
);
const DISK_IO: Family<'static> = target(
    "rustok_obsd_target_process_disk_io_bytes_total",
    Kind::Counter,
    "bytes",
    &["service_name", "disk_io_direction"],
    "Bytes that the service's processes moved from and to storage.",
);
const FILE_IO: Family<'static> = target(
    "rustok_obsd_target_process_io_bytes_total",
    Kind::Counter,
    "bytes",
    &["service_name", "disk_io_direction"],
    "Bytes that the service's processes passed to read and write calls, files, pipes and sockets alike (rchar, wchar).",
);
const FILE_CALLS: Family<'static> = target(
    "rustok_obsd_target_process_io_calls_total",
    Kind::Counter,
    "",
    &["service_name", "disk_io_direction"],
    "Read and write calls of the service's processes (syscr, syscw).",
);
const SWITCHES: Family<'static> = target(
    "rustok_obsd_target_process_context_switches_total",
    Kind::Counter,
    "",
    &["service_name", "process_context_switch_type"],
    "Context switches of all threads of the service's processes; of threads that ended those that were seen.",
);
const FAULTS: Family<'static> = target(
    "rustok_obsd_target_process_paging_faults_total",
    Kind::Counter,
    "",
    &["service_name", "system_paging_fault_type"],
    "Page faults of the service's processes; a major one waited for storage.",
);
const START: Family<'static> = target(
    "rustok_obsd_target_process_start_time_seconds",
    Kind::Gauge,
    "seconds",
    SERVICE,
    "Start of the service's oldest process, since the Unix epoch.",
);

/// Services of one user with series of their own.
const MOST_SERVICES: usize = 100;
/// Longest name of a service, bytes.
const LONGEST: usize = 255;

/// Pids and service names of the targets, as of now.
pub type Observed = Box<dyn Fn() -> Vec<(u32, String)> + Send + Sync>;

/// The source.
pub struct TargetProcesses {
    state: Mutex<State>,
    observed: Observed,
    smaps: bool,
}

struct State {
    files: Files,
    boot: super::clock::BootTime,
    wchans: Wchans,
    alive: Vec<Alive>,
    services: Vec<Service>,
    listed: Vec<u32>,
    buffer: Vec<u8>,
}

/// A target's process.
struct Alive {
    service: usize,
    member: Member,
    /// rchar, wchar, syscr, syscw.
    calls: [u64; 4],
    /// Threads by tid, with their switches.
    threads: Vec<Thread>,
}

struct Thread {
    tid: u32,
    seen: bool,
    switches: [u64; 2],
}

#[derive(Default)]
struct Service {
    name: String,
    /// The user of its first process.
    user: u32,
    /// It had no processes when last looked at.
    idle: bool,
    sum: Sum,
    calls: [u64; 4],
    switches: [u64; 2],
    /// Soft and hard, and of the address space.
    limits: [Option<u64>; 3],
}

impl TargetProcesses {
    /// Of those that `observed` names.
    ///
    /// # Errors
    /// There is no procfs.
    pub fn new(config: &Config, observed: Observed) -> io::Result<Self> {
        let procfs = &config.path.procfs;
        let state = State {
            files: Files::open(procfs)?,
            boot: super::clock::BootTime::new(procfs),
            wchans: Wchans::default(),
            alive: Vec::new(),
            services: Vec::new(),
            listed: Vec::new(),
            buffer: Vec::new(),
        };
        Ok(Self { state: Mutex::new(state), observed, smaps: config.process.smaps })
    }
}

impl Collect for TargetProcesses {
    fn collect(&self, out: &mut Encoder<'_>) {
        let observed = (self.observed)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.update(&observed, self.smaps);
        let boot = state.boot.seconds();
        write(&state.services, boot, self.smaps, out);
    }
}

impl State {
    fn update(&mut self, observed: &[(u32, String)], smaps: bool) {
        let State { files, wchans, alive, services, listed, buffer, .. } = self;
        for service in services.iter_mut() {
            service.idle = service.sum.processes == 0;
            service.sum.restart();
            service.limits = [None; 3];
        }
        alive.retain_mut(|process| {
            let keep = observed.iter().any(|(pid, _)| *pid == process.member.pid);
            if !keep {
                process.member.forget(files);
            }
            keep
        });
        for (pid, name) in observed {
            let fresh = || Alive { service: 0, member: Member::new(*pid), calls: [0; 4], threads: Vec::new() };
            let at = alive.iter().position(|process| process.member.pid == *pid).unwrap_or_else(|| {
                alive.push(fresh());
                alive.len() - 1
            });
            let process = &mut alive[at];
            let (mut outcome, mut stat) = process.member.read_stat(files);
            if outcome == Outcome::Gone {
                // Another process may have its pid already.
                process.member.forget(files);
                *process = fresh();
                (outcome, stat) = process.member.read_stat(files);
            }
            if outcome != Outcome::Read {
                continue;
            }
            let mut used = NOTHING;
            process.member.read_rest(stat, Detail { wchan: false, smaps }, files, wchans, &mut used);
            let user = process.member.user;
            let service = service_of(services, cut(name, LONGEST), user);
            let process = &mut alive[at];
            process.service = service;
            let service = &mut services[service];
            add(&mut service.sum.counts, &used);
            service.sum.add(&process.member);
            process.read_calls(files, &mut service.calls);
            process.read_switches(files, listed, buffer, &mut service.switches);
            service.lower_limits(*pid, files);
        }
    }
}

/// The service of a name, which is its process' own word. Where there are many, one user's may be as many as are free; the
/// series of one without processes end where room is needed.
fn service_of(services: &mut Vec<Service>, name: &str, user: u32) -> usize {
    if let Some(known) = services.iter().position(|service| service.name == *name) {
        return known;
    }
    let named = || services.iter().filter(|service| service.name != OTHER);
    let of_user = named().filter(|service| service.user == user).count();
    let fresh = |name: &str| Service { name: name.to_owned(), user, ..Service::default() };
    let free = (2 * MOST_SERVICES).saturating_sub(named().count());
    if of_user < free {
        services.push(fresh(name));
        return services.len() - 1;
    }
    // Its own first.
    let empty = |service: &Service| service.idle && service.sum.processes == 0 && service.name != OTHER;
    let own = services.iter().position(|service| empty(service) && service.user == user);
    if let Some(at) = own {
        services[at] = fresh(name);
        return at;
    }
    services.iter().position(|service| service.name == OTHER).unwrap_or_else(|| {
        services.push(fresh(OTHER));
        services.len() - 1
    })
}

fn add(sum: &mut Counts, used: &Counts) {
    for (sum, used) in sum.iter_mut().zip(used) {
        *sum += used;
    }
}

/// Adds to `sum` what `now` has more than `before`.
fn rise<const N: usize>(sum: &mut [u64; N], before: &mut [u64; N], now: [u64; N]) {
    for at in 0..N {
        sum[at] += now[at].saturating_sub(before[at]);
        before[at] = before[at].max(now[at]);
    }
}

impl Alive {
    fn read_calls(&mut self, files: &mut Files, sum: &mut [u64; 4]) {
        let pid = self.member.pid;
        let Ok(io) = files.read_once(format_args!("{pid}/io")) else { return };
        let mut now = self.calls;
        for (name, rest) in text::fields(io) {
            let at = match name {
                b"rchar" => 0,
                b"wchar" => 1,
                b"syscr" => 2,
                b"syscw" => 3,
                _ => continue,
            };
            now[at] = text::u64(rest).unwrap_or(now[at]);
        }
        rise(sum, &mut self.calls, now);
    }

    /// Switches of every thread: `status` of the process has those of its main thread alone.
    fn read_switches(&mut self, files: &mut Files, listed: &mut Vec<u32>, buffer: &mut Vec<u8>, sum: &mut [u64; 2]) {
        let pid = self.member.pid;
        listed.clear();
        if self.member.stat.threads > 1 {
            let Ok(folder) = files.open_file(format_args!("{pid}/task"), libc::O_RDONLY | libc::O_DIRECTORY) else {
                return;
            };
            let _ = entries(&folder, buffer, |name, _| {
                listed.extend(text::u64(name).and_then(|tid| u32::try_from(tid).ok()));
            });
        } else {
            listed.push(pid);
        }
        self.threads.iter_mut().for_each(|thread| thread.seen = false);
        for tid in listed.iter().copied() {
            let Ok(status) = files.read_once(format_args!("{pid}/task/{tid}/status")) else { continue };
            let status = parse::status(status);
            let now = [status.voluntary_switches, status.involuntary_switches];
            let at = self.threads.iter().position(|thread| thread.tid == tid).unwrap_or_else(|| {
                self.threads.push(Thread { tid, seen: true, switches: [0; 2] });
                self.threads.len() - 1
            });
            let thread = &mut self.threads[at];
            thread.seen = true;
            // A thread of a lower number of switches is another one with the tid.
            if now[0] < thread.switches[0] || now[1] < thread.switches[1] {
                thread.switches = [0; 2];
            }
            rise(sum, &mut thread.switches, now);
        }
        self.threads.retain(|thread| thread.seen);
    }
}

impl Service {
    fn lower_limits(&mut self, pid: u32, files: &mut Files) {
        let (descriptors, space) = if files.own_pids() {
            (limit(pid, libc::RLIMIT_NOFILE), limit(pid, libc::RLIMIT_AS).map(|[soft, _]| soft))
        } else {
            let text = files.read_once(format_args!("{pid}/limits")).unwrap_or_default();
            let soft = parse::limit(text, b"Max open files");
            (soft.map(|soft| [soft, soft]), parse::limit(text, b"Max address space"))
        };
        let space = space.filter(|space| *space != u64::MAX);
        let [soft, hard] = descriptors.map_or([None; 2], |limits| limits.map(Some));
        for (lowest, limit) in self.limits.iter_mut().zip([soft, hard, space]) {
            *lowest = lowest.map_or(limit, |before| Some(limit.map_or(before, |limit| limit.min(before))));
        }
    }
}

fn write(services: &[Service], boot: u64, smaps: bool, out: &mut Encoder<'_>) {
    let mut one = |family: &Family<'static>, value: &dyn Fn(&Service) -> Option<Value>| {
        let mut samples = out.family(family);
        for service in services {
            if let Some(value) = value(service) {
                samples.put([service.name.as_str()], value);
            }
        }
    };
    one(&PROCESSES, &|service| Some(Value::U64(service.sum.processes)));
    one(&DESCRIPTORS, &|service| Some(Value::U64(service.sum.descriptors)));
    one(&ADDRESS_LIMIT, &|service| service.limits[2].map(Value::U64));
    one(&THREADS, &|service| Some(Value::U64(service.sum.threads)));
    one(&START, &|service| Some(Value::F64(boot as f64 + service.sum.oldest? as f64 / TICKS as f64)));
    let mut some = |family: &Family<'static>, kinds: &[&str], value: &dyn Fn(&Service, usize) -> Option<Value>| {
        let mut samples = out.family(family);
        for service in services {
            for (at, kind) in kinds.iter().enumerate() {
                if let Some(value) = value(service, at) {
                    samples.put([service.name.as_str(), kind], value);
                }
            }
        }
    };
    let count = |service: &Service, at: usize| Some(Value::U64(service.sum.counts[at]));
    some(&CPU, &["user", "system"], &|service, at| Some(Value::Nanos(service.sum.counts[[USER, SYSTEM][at]])));
    let kinds = ["resident", "virtual", "swapped", "proportional", "proportional_swapped"];
    some(&MEMORY, &kinds[..if smaps { 5 } else { 3 }], &|service, at| {
        let sum = &service.sum;
        Some(Value::U64([sum.resident, sum.virtual_bytes, sum.swapped, sum.shares[0], sum.shares[1]][at]))
    });
    some(&DESCRIPTOR_LIMIT, &["soft", "hard"], &|service, at| service.limits[at].map(Value::U64));
    some(&STATES, &super::sum::STATES, &|service, at| Some(Value::U64(service.sum.states[at])));
    some(&DISK_IO, &["read", "write"], &|service, at| count(service, [READ, WRITE][at]));
    some(&FILE_IO, &["read", "write"], &|service, at| Some(Value::U64(service.calls[at])));
    some(&FILE_CALLS, &["read", "write"], &|service, at| Some(Value::U64(service.calls[2 + at])));
    some(&SWITCHES, &["voluntary", "involuntary"], &|service, at| Some(Value::U64(service.switches[at])));
    some(&FAULTS, &["major", "minor"], &|service, at| count(service, [MAJOR, MINOR][at]));
}
