//! Finds targets and attaches to them.
//!
//! Reads: `/proc` at the start, process events afterwards. Yields: attached uprobes, entries in the programs' maps, and
//! [`Command`]s to the pipeline. Costs: one thread that sleeps; an analysis per binary, some ms per attachment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use rustok_obsd_ebpf::{Counter, Tag};

use super::{
    DaemonError,
    admission::{Answers, Pending, Ready, Refused},
    calibration::Calibration,
    drivers::{Seekers, functions},
    file_probes::FileProbes,
    followed::Followed,
    lines::{Line, Lines},
    rescan::Rescan,
    rules::scanner,
    status::TargetBoard,
};
use crate::{
    aside::Aside,
    capture::pipeline::{Added, Command, Notice},
    config::Config,
    contract::{
        own::{Refusal, SelfMetrics},
        recorder::{Behind, TargetKey, TargetLabels},
    },
    database::tracker::Drivers,
    exchange::RoutesExact,
    liveness::{Beat, queue::Receiver},
    probe::{ProbeBoard, State, TargetMaps, loader::Counts, uprobe::UprobePrograms},
    route::{Patterns, RouteNamer},
    target::{BinaryCache, Calibrator, FileIdentity, Process, Reader, Scanner, Target, TargetInfo, TaskSlot, Trust},
    trace::{Resources, TargetResource},
};

/// Programs behind the uprobes.
pub(super) const AXUM: &str = "axum_matched_path";
pub(super) const TOKIO: &str = "tokio_task_enter";

/// Between two looks at processes that end, and at the stop flag.
const TICK: Duration = Duration::from_millis(100);
/// The same while answers are awaited.
const SHORT_TICK: Duration = Duration::from_millis(5);
/// Between two looks at whether each target lives.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Live {
    pub(super) target: Target,
    /// What is observed of its database libraries.
    pub(super) drivers: Drivers,
    key: TargetKey,
    /// What its series are called.
    service_name: String,
    /// Its main thread ended.
    ending: bool,
    /// Where Tokio keeps the task's id; 0: not known.
    pub(super) slot: i64,
    pub(super) calibration: Calibration,
    /// As it was before the sample that is being taken.
    pub(super) calibrator: Option<Box<Calibrator>>,
    /// Samples in a row that could not be taken.
    pub(super) misses: u32,
    /// Since when it is a target.
    pub(super) since: Instant,
}

/// After this time a process is looked at again whose uprobes were prevented by what passes.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// What the manager works with.
pub(super) struct Parts {
    /// Of the kernel programs, where they run.
    pub(super) maps: Option<TargetMaps>,
    pub(super) uprobes: Option<Arc<UprobePrograms>>,
    pub(super) counts: Option<Arc<Counts>>,
    pub(super) reader: Reader,
    pub(super) probes: ProbeBoard,
    pub(super) own: Arc<SelfMetrics>,
    pub(super) resources: Arc<Resources>,
    pub(super) commands: SyncSender<Command>,
    pub(super) notices: Receiver<Notice>,
}

/// See the module's head.
pub(super) struct Manager {
    pub(super) config: Arc<Config>,
    pub(super) scanner: Arc<Scanner>,
    pub(super) cache: Arc<BinaryCache>,
    pub(super) trust: Arc<Trust>,
    /// Reads the memory of targets.
    pub(super) reader: Reader,
    pub(super) uprobes: Option<Arc<UprobePrograms>>,
    counts: Option<Arc<Counts>>,
    /// Lost records at the last scan.
    lost: u64,
    /// Children that were not followed at the last scan.
    unfollowed: u64,
    /// Processes that could not be read at the last scan.
    denied: usize,
    pub(super) followed: Followed,
    pub(super) files: FileProbes,
    pub(super) aside: Aside,
    /// Attaches. The kernel can keep these threads waiting for reasons of its own, and reads do not pay for that.
    pub(super) attacher: Aside,
    pub(super) answers: Answers,
    pub(super) next_ticket: u64,
    /// Processes that are being looked at, analysed and attached to.
    pub(super) pending: BTreeMap<u32, Pending>,
    /// Files to which probes are being attached, and by which ticket.
    pub(super) attaching: HashMap<FileIdentity, u64>,
    /// Processes that should be observed and are not.
    pub(super) refused: BTreeMap<u32, Refused>,
    pub(super) probes: ProbeBoard,
    pub(super) own: Arc<SelfMetrics>,
    board: TargetBoard,
    /// The board is to be written anew.
    dirty: bool,
    pub(super) resources: Arc<Resources>,
    pub(super) commands: SyncSender<Command>,
    notices: Receiver<Notice>,
    pub(super) live: BTreeMap<u32, Live>,
    pub(super) seekers: Seekers,
    next_key: u32,
    rescan: Rescan,
    looked: Instant,
    pub(super) lines: Lines,
}

impl Manager {
    pub(super) fn new(config: Arc<Config>, parts: Parts) -> Result<Self, DaemonError> {
        let Parts { maps, uprobes, counts, reader, probes, own, resources, commands, notices } = parts;
        let scanner = scanner(&config)?;
        // A process table that cannot be read is an error of the configuration: say so before anything runs.
        scanner.suspects()?;
        Ok(Self {
            cache: Arc::new(BinaryCache::with_functions(functions(&config))),
            config,
            scanner: Arc::new(scanner),
            trust: Arc::new(Trust::of_daemon()),
            reader,
            uprobes,
            counts,
            lost: 0,
            unfollowed: 0,
            denied: 0,
            followed: Followed::new(maps),
            files: FileProbes::default(),
            aside: Aside::default(),
            attacher: Aside::default(),
            answers: Answers::default(),
            next_ticket: 0,
            pending: BTreeMap::new(),
            attaching: HashMap::new(),
            refused: BTreeMap::new(),
            probes,
            own,
            board: TargetBoard::default(),
            dirty: false,
            resources,
            commands,
            notices,
            live: BTreeMap::new(),
            seekers: Seekers::new(),
            next_key: 0,
            rescan: Rescan::new(Instant::now()),
            looked: Instant::now(),
            lines: Lines::new(Instant::now()),
        })
    }

    pub(super) fn board(&self) -> TargetBoard {
        self.board.clone()
    }

    pub(super) fn run(mut self, stop: &AtomicBool, beat: &Beat) -> Self {
        self.scan(beat);
        let mut starting = true;
        while !stop.load(Ordering::Relaxed) {
            beat.alive();
            let tick = if self.pending.is_empty() { TICK } else { SHORT_TICK };
            match self.notices.recv_timeout(tick) {
                Ok(notice) => self.on_notice(notice),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            self.aside.tick(now);
            self.attacher.tick(now);
            for told in self.answers.take() {
                beat.alive();
                self.on_answer(told);
            }
            if starting && self.pending.is_empty() {
                starting = false;
                self.has_started();
            }
            self.bury();
            self.write_board();
            if let Some(left_out) = self.lines.left_out(now) {
                tracing::warn!("{left_out}");
            }
            if self.is_scan_due() {
                self.scan(beat);
            }
        }
        self
    }

    /// The processes that were there are looked at.
    fn has_started(&self) {
        give_back_memory();
        if self.live.is_empty() {
            let denied = match self.denied {
                0 => String::new(),
                some => format!(" ({some} may not be read; `rustok-obsd doctor` says what is missing)"),
            };
            tracing::info!("no process matches the targets yet{denied}; new ones are seen when they start");
        }
    }

    /// Detaches all uprobes; returns how many could not be until `deadline`.
    pub(super) fn detach(&mut self, deadline: Instant) -> usize {
        self.files.clear();
        self.files.detacher.finish(deadline)
    }

    /// What refused notices would have said is found out by a scan, and events may not say enough: a rule names a port, they
    /// are not there or were lost, or a process is not observed that should be.
    fn is_scan_due(&mut self) -> bool {
        if self.notices.overflowed() {
            self.rescan.overflowed();
        }
        self.rescan.is_due(Instant::now(), || self.must_rescan())
    }

    fn must_rescan(&self) -> bool {
        let events = self
            .probes
            .all()
            .iter()
            .filter(|probe| matches!(probe.probe.as_str(), "sched_process_exec" | "sched_process_exit"))
            .all(|probe| probe.state == State::Attached);
        !events
            || self.scanner.selector().wants_ports()
            || !self.refused.is_empty()
            || self.lost_records() > self.lost
            || self.unfollowed_children() > self.unfollowed
    }

    /// Children that the programs did not follow, of which no notice came.
    fn unfollowed_children(&self) -> u64 {
        self.counts.as_ref().map_or(0, |counts| counts.get(Counter::ChildRefused))
    }

    /// Records that found the ring full: process events may be among them.
    fn lost_records(&self) -> u64 {
        self.counts.as_ref().map_or(0, |counts| counts.get(Counter::RingFull))
    }

    fn scan(&mut self, beat: &Beat) {
        self.rescan.begins();
        self.look_at_all(beat);
        self.rescan.ended(Instant::now());
    }

    fn look_at_all(&mut self, beat: &Beat) {
        self.lost = self.lost_records();
        self.unfollowed = self.unfollowed_children();
        // An exec whose notice was lost: the process is another program now.
        let others: Vec<u32> = self.live.keys().copied().filter(|pid| !self.followed.follows(*pid)).collect();
        others.into_iter().for_each(|pid| self.end(pid));
        let (suspects, denied) = match self.scanner.suspects() {
            Ok(found) => found,
            Err(error) => return tracing::warn!("{error}"),
        };
        self.denied = denied;
        let before = self.refused.len();
        self.refused.retain(|_, refused| suspects.iter().any(|suspect| suspect.key == refused.key));
        for suspect in suspects {
            beat.alive();
            let pid = suspect.key.pid;
            let live = self.live.get(&pid).is_some_and(|live| live.target.process.key == suspect.key);
            let pending = self.pending.get(&pid).is_some_and(|pending| pending.case.key == suspect.key);
            if !live && !pending {
                self.consider(suspect, false);
            }
        }
        let gone = self.live.values().map(|live| live.target.process.key).filter(|key| !self.scanner.is_alive(*key));
        let gone: Vec<u32> = gone.map(|key| key.pid).collect();
        gone.into_iter().for_each(|pid| self.end(pid));
        let Self { followed, live, pending, .. } = self;
        followed.keep_only(|pid| live.contains_key(&pid) || pending.contains_key(&pid));
        if self.refused.len() != before {
            self.publish();
        }
    }

    /// A forked child is no target, or no more.
    pub(super) fn disown(&mut self, pid: u32) {
        self.followed.disown(pid);
        let _ = self.commands.send(Command::Disown { tgid: pid });
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Started(pid) => {
                // The same process with another program is another target.
                if self.pending.remove(&pid).is_some() {
                    self.followed.recount();
                }
                if self.live.contains_key(&pid) {
                    self.end(pid);
                }
                if let Some(suspect) = self.scanner.suspect(pid) {
                    self.consider(suspect, false);
                }
            }
            Notice::Forked(pid) if self.live.contains_key(&pid) => {}
            Notice::Forked(pid) => match self.scanner.suspect(pid) {
                Some(suspect) => self.consider(suspect, true),
                None => self.disown(pid),
            },
            Notice::Ended(pid) => {
                if let Some(live) = self.live.get_mut(&pid) {
                    live.ending = true;
                }
            }
            Notice::TaskEnter(probe) => self.sample(probe),
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
            self.followed.settle();
        }
        let ending = self.live.iter().filter(|(_, live)| all || live.ending);
        let gone: Vec<u32> =
            ending.filter(|(_, live)| !self.scanner.is_alive(live.target.process.key)).map(|(pid, _)| *pid).collect();
        gone.into_iter().for_each(|pid| self.end(pid));
        if all {
            self.look_again();
        }
    }

    /// Looks again at processes whose uprobes were prevented by what passes, unless something still does.
    pub(super) fn look_again(&mut self) {
        let due = |live: &&Live| {
            let prevented = || live.target.file().is_some_and(|file| self.prevents_attaching(file).is_some());
            live.target.is_passing() && live.since.elapsed() >= AGAIN && !prevented()
        };
        let due: Vec<u32> = self.live.values().filter(due).map(|live| live.target.process.key.pid).collect();
        for pid in due {
            if let Some(suspect) = self.scanner.suspect(pid) {
                self.end(pid);
                self.consider(suspect, false);
            }
        }
    }

    /// Everything is attached: the target is announced, then followed.
    pub(super) fn conclude(&mut self, ready: Ready) {
        let Ready { target, resource, ports, .. } = ready;
        let pid = target.process.key.pid;
        // Short-lived: what a child served counts for its parent.
        if !self.scanner.is_alive(target.process.key) {
            if let Some(file) = target.file() {
                self.files.release(file, pid, None);
            }
            return self.disown(pid);
        }
        if self.live.contains_key(&pid) {
            self.end(pid);
        }
        self.refused.remove(&pid);
        let key = TargetKey(self.next_key);
        self.next_key += 1;
        let slot = match target.task_slot() {
            TaskSlot::Known(offset) => offset,
            TaskSlot::NeedsCalibration { .. } | TaskSlot::Absent { .. } => 0,
        };
        let routed = self.has_probe(&target, AXUM);
        let drivers = self.drivers(&target);
        let exact = if routed && slot != 0 { RoutesExact::ALWAYS } else { RoutesExact::NEVER };
        let service_name = self.announce(&target, &resource, key, exact, drivers);
        let how =
            target.sockets_only.as_ref().map_or_else(String::new, |reason| format!(", at its sockets only: {reason}"));
        if self.says(Line::Observed, &target.process) {
            tracing::info!("observing process {pid}, {} ({service_name}){how}", target.process.exe.display());
        }
        if let Err(error) = self.follow(&target, slot) {
            return self.not_followed(&target, key, &error);
        }
        self.followed.listens(pid, &ports);
        let calibration = self.calibration(&target);
        let live = Live {
            target,
            drivers,
            key,
            service_name,
            ending: false,
            slot,
            calibration,
            calibrator: None,
            misses: 0,
            since: Instant::now(),
        };
        self.live.insert(pid, live);
        self.publish();
    }

    /// Whether `program` is attached for the target.
    pub(super) fn has_probe(&self, target: &Target, program: &str) -> bool {
        target.file().is_some_and(|file| self.files.is_attached(file, program, target.process.key.pid))
    }

    /// Whether a process is of a user whose executables may get uprobes.
    pub(super) fn trusts(&self, process: &Process) -> bool {
        self.trust.knows(process.user, &process.trusted_owners)
    }

    /// Whether the log takes a line on a process.
    pub(super) fn says(&mut self, line: Line, process: &Process) -> bool {
        let trusted = self.trusts(process);
        self.lines.admit(line, trusted)
    }

    /// Yields the service's name.
    fn announce(
        &mut self,
        target: &Target,
        resource: &Arc<TargetResource>,
        key: TargetKey,
        routes_exact: RoutesExact,
        drivers: Drivers,
    ) -> String {
        let configured = self.config.targets.get(target.process.entry).cloned().unwrap_or_default();
        let resource = Arc::clone(resource);
        let text = |key: &str| resource.get(key).unwrap_or_default();
        let trusted = self.trust.knows(target.process.user, &target.process.trusted_owners);
        let labels = TargetLabels {
            behind: if trusted { Behind::Trusted } else { Behind::Stranger(target.process.user) },
            service_name: resource.service_name.clone(),
            service_version: text("service.version"),
            service_namespace: text("service.namespace"),
            deployment_environment_name: text("deployment.environment.name"),
            host_name: text("host.name"),
        };
        let patterns = Patterns::new(&configured.routes).unwrap_or_else(|error| {
            // The configuration was checked at the start.
            if self.says(Line::Routes, &target.process) {
                tracing::warn!("route patterns of {}: {error}", labels.service_name);
            }
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
    fn follow(&mut self, target: &Target, slot: i64) -> Result<(), String> {
        let tag = target.file().map_or(Tag::NONE, |file| self.files.tag(file));
        self.followed.follow(target.process.key.pid, slot, target.binary.task_id_place, tag)
    }

    /// The same for a target that is followed already.
    pub(super) fn follow_again(&mut self, target: &Target, slot: i64) {
        if let Err(error) = self.follow(target, slot)
            && self.says(Line::Maps, &target.process)
        {
            tracing::error!("process {} is followed as before: {error}", target.process.key.pid);
        }
    }

    /// The programs' maps have no room for it: every scan tries again.
    fn not_followed(&mut self, target: &Target, key: TargetKey, error: &str) {
        let process = target.process.key;
        if self.says(Line::Refused, &target.process) {
            tracing::error!("process {} is not observed: {error}", process.pid);
        }
        self.own.refusals.add(Refusal::Room, 1);
        self.followed.forget(process.pid);
        if let Some(file) = target.file() {
            self.files.release(file, process.pid, None);
        }
        let _ = self.commands.send(Command::Remove { tgid: process.pid, key });
        let matters = self.trusts(&target.process);
        self.refused.insert(process.pid, Refused { key: process, reason: error.to_owned(), matters });
        self.publish();
    }

    /// The probes of the target are those of its file now.
    pub(super) fn refollow(&mut self, pid: u32) {
        let Some(live) = self.live.get(&pid) else { return };
        let (target, slot) = (live.target.clone(), live.slot);
        self.follow_again(&target, slot);
    }

    /// The target does without this program from now on.
    pub(super) fn release(&mut self, target: &Target, program: &str) {
        if let Some(file) = target.file() {
            self.files.release(file, target.process.key.pid, Some(program));
        }
    }

    fn give_up_routes(&mut self, pid: u32) {
        let Some(live) = self.live.get(&pid) else { return };
        let target = live.target.clone();
        let name = target.process.exe.display().to_string();
        let reason = "routes are matched in tasks that read from no connection; patterns and learned templates serve";
        if self.says(Line::Routes, &target.process) {
            tracing::warn!("{name}: {reason}");
        }
        self.probes.set(AXUM, &name, State::Disabled, reason);
        self.release(&target, AXUM);
    }

    fn end(&mut self, pid: u32) {
        let Some(live) = self.live.remove(&pid) else { return };
        if self.says(Line::Ended, &live.target.process) {
            tracing::info!("process {pid}, {} has ended", live.target.process.exe.display());
        }
        self.followed.forget(pid);
        if let Some(file) = live.target.file() {
            self.files.release(file, pid, None);
        }
        self.seekers.retain(|(tgid, _), _| *tgid != pid);
        let _ = self.commands.send(Command::Remove { tgid: pid, key: live.key });
        let exe = &live.target.process.exe;
        if !self.live.values().any(|other| other.target.process.exe == *exe) {
            self.probes.forget(&exe.display().to_string());
        }
        self.publish();
    }

    /// Has the board written at the end of the round.
    pub(super) fn publish(&mut self) {
        self.dirty = true;
    }

    fn write_board(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let targets = self.live.values();
        let infos = targets.map(|live| TargetInfo { service_name: live.service_name.clone(), ..live.target.info() });
        self.board.set(infos.collect(), self.refused.values().cloned().collect());
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
