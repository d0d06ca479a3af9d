//! Finds targets and attaches to them.
//!
//! Reads: `/proc` at the start, process events afterwards. Yields: attached uprobes, entries in the programs' maps, and
//! [`Command`]s to the pipeline. Costs: one thread that sleeps; an analysis per binary, some ms per attachment.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use rustok_obsd_ebpf::{Counter, TaskProbe};

use super::{
    DaemonError,
    drivers::{Seekers, functions},
    rules::rules,
    status::TargetBoard,
};
use crate::{
    capture::pipeline::{Added, Command, Notice},
    config::Config,
    contract::recorder::{TargetKey, TargetLabels},
    database::tracker::Drivers,
    liveness::{Beat, queue::Receiver},
    probe::{ProbeBoard, Programs, State, loader::Counts, uprobe::Uprobes},
    route::{Patterns, RouteNamer},
    target::{
        BinaryCache, Calibrator, ProbePoint, Process, ProcessMemory, Progress, Scanner, Selector, Target, TargetInfo,
        TaskSlot,
    },
    trace::Resources,
};

/// Programs behind the uprobes.
const AXUM: &str = "axum_matched_path";
const TOKIO: &str = "tokio_task_enter";
/// Name of the slot among the probes.
const SLOT: &str = "tokio_task_slot";

/// Ports that may be those of targets that ended, before the programs' map is cleared of them.
const STALE_PORTS: usize = 256;
/// Between two looks at processes that end, and at the stop flag.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at whether each target lives.
const LOOK: Duration = Duration::from_secs(1);
/// Between two scans where events do not tell enough: a rule names a port, or the events are not to be had or were lost.
const RESCAN: Duration = Duration::from_secs(5);

pub(super) struct Live {
    pub(super) target: Target,
    /// What is observed of its database libraries.
    pub(super) drivers: Drivers,
    key: TargetKey,
    /// What its series are called.
    service_name: String,
    /// Its main thread ended.
    ending: bool,
    calibrator: Option<Calibrator>,
}

/// See the module's head.
pub(super) struct Manager {
    pub(super) config: Arc<Config>,
    scanner: Scanner,
    cache: BinaryCache,
    programs: Option<Arc<Mutex<Programs>>>,
    counts: Option<Arc<Counts>>,
    /// Lost records at the last scan.
    lost: u64,
    /// Processes that could not be read at the last scan.
    denied: usize,
    uprobes: Uprobes,
    pub(super) probes: ProbeBoard,
    board: TargetBoard,
    resources: Resources,
    pub(super) commands: SyncSender<Command>,
    notices: Receiver<Notice>,
    pub(super) live: BTreeMap<u32, Live>,
    pub(super) seekers: Seekers,
    next_key: u32,
    scanned: Instant,
    looked: Instant,
}

impl Manager {
    pub(super) fn new(
        config: Arc<Config>,
        programs: Option<Arc<Mutex<Programs>>>,
        counts: Option<Arc<Counts>>,
        probes: ProbeBoard,
        resources: Resources,
        commands: SyncSender<Command>,
        notices: Receiver<Notice>,
    ) -> Result<Self, DaemonError> {
        let scanner = Scanner::new(&config.path.procfs, Selector::new(&rules(&config.targets))?);
        // A process table that cannot be read is an error of the configuration: say so before anything runs.
        scanner.scan()?;
        Ok(Self {
            cache: BinaryCache::with_functions(functions(&config)),
            config,
            scanner,
            programs,
            counts,
            lost: 0,
            denied: 0,
            uprobes: Uprobes::default(),
            probes,
            board: TargetBoard::default(),
            resources,
            commands,
            notices,
            live: BTreeMap::new(),
            seekers: Seekers::new(),
            next_key: 0,
            scanned: Instant::now(),
            looked: Instant::now(),
        })
    }

    pub(super) fn board(&self) -> TargetBoard {
        self.board.clone()
    }

    pub(super) fn run(mut self, stop: &AtomicBool, beat: &Beat) -> Self {
        self.scan(beat);
        give_back_memory();
        if self.live.is_empty() {
            let denied = match self.denied {
                0 => String::new(),
                some => format!(" ({some} may not be read; `rustok-obsd doctor` tells what is missing)"),
            };
            tracing::info!("no process matches the targets yet{denied}; new ones are seen when they start");
        }
        while !stop.load(Ordering::Relaxed) {
            beat.alive();
            match self.notices.recv_timeout(TICK) {
                Ok(notice) => self.on_notice(notice),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.bury();
            // What the refused notices would have said is found out at once.
            if self.notices.overflowed() || self.scanned.elapsed() >= RESCAN && self.must_rescan() {
                self.scan(beat);
            }
        }
        self
    }

    /// Detaches all uprobes; returns how many could not be until `deadline`.
    pub(super) fn detach(&mut self, deadline: Instant) -> usize {
        self.uprobes.detach_all(deadline)
    }

    fn must_rescan(&self) -> bool {
        let events = self
            .probes
            .all()
            .iter()
            .filter(|probe| matches!(probe.probe.as_str(), "sched_process_exec" | "sched_process_exit"))
            .all(|probe| probe.state == State::Attached);
        !events || self.scanner.selector().wants_ports() || self.lost_records() > self.lost
    }

    /// Records that found the ring full: process events may be among them.
    fn lost_records(&self) -> u64 {
        self.counts.as_ref().map_or(0, |counts| counts.get(Counter::RingFull))
    }

    fn scan(&mut self, beat: &Beat) {
        self.scanned = Instant::now();
        self.lost = self.lost_records();
        match self.scanner.scan() {
            Ok(scan) => {
                self.denied = scan.denied;
                for process in scan.targets {
                    beat.alive();
                    let known = self.live.get(&process.key.pid);
                    if known.is_none_or(|live| live.target.process.key != process.key) {
                        self.start(process);
                    }
                }
                let gone: Vec<u32> = self
                    .live
                    .values()
                    .filter(|live| !self.scanner.is_alive(live.target.process.key))
                    .map(|live| live.target.process.key.pid)
                    .collect();
                gone.into_iter().for_each(|pid| self.end(pid));
                self.unfollow_strangers();
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// A forked child is no target, or no more.
    fn disown(&self, pid: u32) {
        if let Some(mut programs) = self.lock() {
            // It may be gone already, by its end.
            let _ = programs.targets.remove(&pid);
        }
        let _ = self.commands.send(Command::Disown { tgid: pid });
    }

    /// Takes processes out of the programs' map that are no targets: children of which no more was told.
    fn unfollow_strangers(&self) {
        let Some(mut programs) = self.lock() else { return };
        let followed: Vec<u32> = programs.targets.keys().flatten().collect();
        for pid in followed.iter().filter(|pid| !self.live.contains_key(pid)) {
            let _ = programs.targets.remove(pid);
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Started(pid) => {
                let process = self.scanner.inspect(pid);
                // The same process with another program is another target.
                if self.live.contains_key(&pid) {
                    self.end(pid);
                }
                if let Some(process) = process {
                    self.start(process);
                }
            }
            Notice::Forked(pid) => match self.scanner.inspect(pid) {
                Some(process) if !self.live.contains_key(&pid) => self.start(process),
                Some(_) => {}
                None => self.disown(pid),
            },
            Notice::Ended(pid) => {
                if let Some(live) = self.live.get_mut(&pid) {
                    live.ending = true;
                }
            }
            Notice::TaskEnter(probe) => self.calibrate(&probe),
            Notice::Sought(sample) => self.seek(&sample),
            Notice::RoutesElsewhere(pid) => self.give_up_routes(pid),
            Notice::SlotDoubtful(pid) => self.give_up_slot(pid, "the word that should hold the task's id holds none"),
        }
    }

    /// Ends the targets whose processes are gone: the event comes while they still end, or when the main thread ends before
    /// the others, which may take any time. It does not come if a process was ending when it began to be followed, or if
    /// the ring was full: hence a look at all of them now and then.
    fn bury(&mut self) {
        let all = self.looked.elapsed() >= LOOK;
        if all {
            self.looked = Instant::now();
        }
        let ending = self.live.iter().filter(|(_, live)| all || live.ending);
        let gone: Vec<u32> =
            ending.filter(|(_, live)| !self.scanner.is_alive(live.target.process.key)).map(|(pid, _)| *pid).collect();
        gone.into_iter().for_each(|pid| self.end(pid));
    }

    fn start(&mut self, process: Process) {
        let pid = process.key.pid;
        let exe_file = process.exe_file.clone();
        // An ending process loses its executable before it is a zombie.
        let ends = || exe_file.read_link().is_err();
        if self.live.contains_key(&pid) {
            self.end(pid);
        }
        let target = match Target::new(process, &mut self.cache) {
            Ok(target) => target,
            Err(error) => {
                if !ends() {
                    tracing::warn!("process {pid} is not observed: {error}");
                }
                return self.disown(pid);
            }
        };
        // Short-lived: nothing can be read of it any more. What a child served counts for its parent.
        if ends() || !self.scanner.is_alive(target.process.key) {
            return self.disown(pid);
        }
        let key = TargetKey(self.next_key);
        self.next_key += 1;
        let slot = match &target.binary.task_slot {
            TaskSlot::Known(offset) => Some(*offset),
            TaskSlot::NeedsCalibration { .. } | TaskSlot::Absent { .. } => None,
        };
        let routed = self.attach_axum(&target);
        let drivers = self.attach_drivers(&target);
        let service_name = self.announce(&target, key, routed && slot.is_some(), drivers);
        tracing::info!("observing process {pid}, {} ({service_name})", target.process.exe.display());
        self.follow(&target, slot.unwrap_or(0));
        let calibrator = self.start_calibration(&target);
        self.live.insert(pid, Live { target, drivers, key, service_name, ending: false, calibrator });
        self.publish();
    }

    /// Yields the service's name.
    fn announce(&self, target: &Target, key: TargetKey, routes_exact: bool, drivers: Drivers) -> String {
        let configured = self.config.targets.get(target.process.entry).cloned().unwrap_or_default();
        let resource = Arc::new(self.resources.describe(&configured, target.process.key.pid));
        let text = |key: &str| resource.get(key).unwrap_or_default();
        let labels = TargetLabels {
            service_name: resource.service_name.clone(),
            service_version: text("service.version"),
            service_namespace: text("service.namespace"),
            deployment_environment_name: text("deployment.environment.name"),
            host_name: text("host.name"),
        };
        let patterns = Patterns::new(&configured.routes).unwrap_or_else(|error| {
            // The configuration was checked at the start.
            tracing::warn!("route patterns of {}: {error}", labels.service_name);
            Patterns::default()
        });
        let namer = RouteNamer::new(patterns, self.config.routes.limit);
        let namer = if self.config.routes.learner { namer } else { namer.without_learner() };
        let process = target.process.key;
        let service_name = labels.service_name.clone();
        let added = Added { process, key, labels, resource, namer, routes_exact, drivers };
        // The pipeline goes only when the daemon ends.
        let _ = self.commands.send(Command::Add(Box::new(added)));
        service_name
    }

    /// Lets the programs follow the process.
    fn follow(&self, target: &Target, slot: i64) {
        let Some(mut programs) = self.lock() else { return };
        let pid = target.process.key.pid;
        let words = rustok_obsd_ebpf::Target { task_slot: slot, flags: u64::from(target.binary.task_id_place) }.words();
        if let Err(error) = programs.targets.insert(pid, words, 0) {
            tracing::error!("process {pid} is not followed: the programs' map of targets: {error}");
        }
        for port in self.scanner.listening_ports(pid).unwrap_or_default() {
            if let Err(error) = programs.ports.insert(port, 1, 0) {
                tracing::debug!("port {port}: {error}");
            }
        }
    }

    pub(super) fn lock(&self) -> Option<MutexGuard<'_, Programs>> {
        Some(self.programs.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Attaches to axum's router; true if it tells routes from now on.
    fn attach_axum(&mut self, target: &Target) -> bool {
        let name = target.process.exe.display().to_string();
        let places: Vec<u64> =
            target.binary.places(ProbePoint::AxumRoute).iter().map(|place| place.file_offset).collect();
        if places.is_empty() {
            let reason = target.binary.presence_of(ProbePoint::AxumRoute);
            tracing::info!("{name}: routes come from patterns and learned templates, not from axum: {reason}");
            self.probes.set(AXUM, &name, State::Disabled, reason);
            return false;
        }
        self.attach(AXUM, target, &places)
    }

    pub(super) fn attach(&mut self, program: &'static str, target: &Target, places: &[u64]) -> bool {
        let Some(programs) = self.programs.clone() else { return false };
        let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
        let name = target.process.exe.display().to_string();
        let binary = (target.file.device, target.file.inode);
        let pid = target.process.key.pid;
        let started = Instant::now();
        match self.uprobes.attach(&mut programs, program, binary, &target.process.exe_file, places, pid) {
            Ok(()) => {
                tracing::debug!("{program} attached to {name} in {:?}", started.elapsed());
                self.probes.set(program, &name, State::Attached, "");
                true
            }
            // It ended meanwhile, and took the path with it.
            Err(error) if !self.scanner.is_alive(target.process.key) => {
                tracing::debug!("{error}");
                false
            }
            Err(error) => {
                tracing::warn!("{error}");
                self.probes.set(program, &name, State::Failed, error.to_string());
                false
            }
        }
    }

    fn start_calibration(&mut self, target: &Target) -> Option<Calibrator> {
        let name = target.process.exe.display().to_string();
        match &target.binary.task_slot {
            TaskSlot::Known(_) => {
                self.probes.set(SLOT, &name, State::Attached, "");
                None
            }
            TaskSlot::Absent { reason } => {
                self.probes.set(SLOT, &name, State::Disabled, reason.as_str());
                None
            }
            TaskSlot::NeedsCalibration { enter_offsets, areas, reason } => {
                if !self.attach(TOKIO, target, enter_offsets) {
                    return None;
                }
                self.probes.set(SLOT, &name, State::Disabled, format!("calibrating: {reason}"));
                Some(Calibrator::new(areas))
            }
        }
    }

    fn calibrate(&mut self, probe: &TaskProbe) {
        let Some(live) = self.live.get_mut(&probe.tgid) else { return };
        let Some(calibrator) = &mut live.calibrator else { return };
        let memory = ProcessMemory::new(probe.tgid);
        match calibrator.sample(&memory, probe.thread_pointer, probe.task) {
            Progress::Searching => {}
            Progress::Found(offset) => {
                live.calibrator = None;
                let target = live.target.clone();
                let name = target.process.exe.display().to_string();
                tracing::info!("{name}: Tokio's task id: {}", TaskSlot::Known(offset));
                self.uprobes.release(probe.tgid, Some(TOKIO));
                self.probes.set(TOKIO, &name, State::Disabled, "calibration is done");
                self.probes.set(SLOT, &name, State::Attached, "");
                self.follow(&target, offset);
                self.tell_tasks(probe.tgid, true);
                if self.uprobes.is_attached(AXUM, probe.tgid) {
                    let _ = self.commands.send(Command::RoutesExact { tgid: probe.tgid });
                }
            }
            Progress::GaveUp { reason } => self.give_up_slot(probe.tgid, &reason),
        }
    }

    fn give_up_routes(&mut self, pid: u32) {
        let Some(live) = self.live.get(&pid) else { return };
        let name = live.target.process.exe.display().to_string();
        let reason = "routes are matched in tasks that read from no connection; patterns and learned templates serve";
        tracing::warn!("{name}: {reason}");
        self.probes.set(AXUM, &name, State::Disabled, reason);
        self.uprobes.release(pid, Some(AXUM));
    }

    fn give_up_slot(&mut self, pid: u32, reason: &str) {
        let Some(live) = self.live.get_mut(&pid) else { return };
        live.calibrator = None;
        let target = live.target.clone();
        let name = target.process.exe.display().to_string();
        tracing::warn!("{name}: Tokio's task ids are not known: {reason}");
        self.uprobes.release(pid, Some(TOKIO));
        self.probes.set(SLOT, &name, State::Failed, reason);
        self.follow(&target, 0);
        self.tell_tasks(pid, false);
    }

    fn end(&mut self, pid: u32) {
        let Some(live) = self.live.remove(&pid) else { return };
        tracing::info!("process {pid}, {} has ended", live.target.process.exe.display());
        if let Some(mut programs) = self.lock() {
            // It may be gone already, by a replacement.
            let _ = programs.targets.remove(&pid);
        }
        self.uprobes.release(pid, None);
        self.seekers.retain(|(tgid, _), _| *tgid != pid);
        let _ = self.commands.send(Command::Remove { tgid: pid, key: live.key });
        let exe = &live.target.process.exe;
        if !self.live.values().any(|other| other.target.process.exe == *exe) {
            self.probes.forget(&exe.display().to_string());
        }
        self.forget_ports();
        self.publish();
    }

    /// Takes ports on which no target listens any more out of the programs' map. One that is listened on again just now
    /// is missed until its next `listen(2)`: then the first request of a connection tells its side.
    fn forget_ports(&self) {
        let Some(mut programs) = self.lock() else { return };
        let known: Vec<u16> = programs.ports.keys().flatten().collect();
        if known.len() <= STALE_PORTS && !self.live.is_empty() {
            return;
        }
        let listening = self.live.keys().flat_map(|pid| self.scanner.listening_ports(*pid).unwrap_or_default());
        let listening: HashSet<u16> = listening.collect();
        for port in known.iter().filter(|port| !listening.contains(port)) {
            let _ = programs.ports.remove(port);
        }
    }

    fn publish(&self) {
        self.board.set(
            self.live
                .values()
                .map(|live| TargetInfo { service_name: live.service_name.clone(), ..live.target.info() })
                .collect(),
        );
    }
}

/// Returns to the system what loading and the analysis of binaries needed for a moment: glibc would keep 14 MB of it.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
