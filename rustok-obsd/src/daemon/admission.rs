//! From a process that may be a target to an observed one.
//!
//! Reads: the process, aside: its files and memory may not answer. Yields: answers to the manager, one step after the
//! other: what the process is ([`Answer::Looked`]), what is in its executable ([`Answer::Analysed`]), what was attached
//! ([`Answer::Attached`]). Costs: nothing of the manager's time; each step has a bound, and one that is late costs its own
//! process alone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustok_obsd_ebpf::Scope;

use super::{
    file_probes::{Step, Wanted},
    lines::Line,
    manager::Manager,
    room::{self, Room},
};
use crate::{
    aside::{Aside, Overdue, Subject},
    contract::own::Refusal,
    probe::{
        State,
        uprobe::{Links, UprobeError},
    },
    target::{
        BinaryError, Calibrator, Executable, FileIdentity, FileNode, Process, ProcessKey, Progress, Scanner, Suspect,
        Target,
    },
    trace::TargetResource,
};

/// Reading what `/proc` has of a process.
const LOOK: Duration = Duration::from_secs(2);
/// Analysis of a binary, above its own limit of time.
const ANALYSE: Duration = Duration::from_secs(8);
/// Attaching to one binary.
const ATTACH: Duration = Duration::from_secs(10);
/// Ports of one process that are looked at.
const PORTS: usize = 64;
/// An executable that changes while it is analysed is analysed again, so many times.
const TRIES: u8 = 3;

/// What became of a step.
pub(super) enum Answer {
    /// `/proc` was read; `None`: it is no target, or it has ended.
    Looked(Box<Result<Option<Process>, Overdue>>),
    /// The executable was read; `None`: the process has ended.
    Analysed(Box<Result<Analysed, Overdue>>),
    /// Probes were attached, or what prevents each of them; `None`: the executable has changed, or the process has ended.
    Attached(Result<Option<Attachments>, Overdue>),
    /// A sample of the calibration was taken; `None`: the memory of the process did not answer.
    Calibrated(Box<Result<Option<(Calibrator, Progress)>, Overdue>>),
}

/// The target, what its spans say of it, and the ports on which it listens; `None`: the process has ended.
type Analysed = Result<Option<(Target, TargetResource, Vec<u16>)>, BinaryError>;

/// Results by step, for the processes of this scope.
pub(super) struct Attachments {
    scope: Scope,
    widens: bool,
    results: Vec<(Step, Result<Links, UprobeError>)>,
}

/// An answer with what it is about.
pub(super) struct Told {
    pub(super) pid: u32,
    pub(super) ticket: u64,
    pub(super) answer: Answer,
}

/// Answers that wait for the manager. As many as there are jobs under way; whoever puts one in does not wait.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<Told>>>);

impl Answers {
    fn put(&self, told: Told) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    pub(super) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A process on its way.
pub(super) struct Pending {
    pub(super) case: Case,
    stage: Stage,
}

/// What stays the same on the way.
#[derive(Clone, Copy)]
pub(super) struct Case {
    pub(super) ticket: u64,
    pub(super) key: ProcessKey,
    /// Real user; reads are charged to it.
    pub(super) user: u32,
    /// The programs follow it already, as the child of a target.
    pub(super) forked: bool,
    /// What it ran at first.
    pub(super) file: Option<FileNode>,
    /// Times that its executable changed under the analysis.
    pub(super) tries: u8,
}

impl Case {
    /// What reads of its files and memory are about.
    const fn subject(&self) -> Subject {
        Subject { user: self.user, pid: self.key.pid, file: self.file }
    }

    /// What an attachment is about. It waits for the memory of every process that maps the executable, whichever is to be
    /// observed: a share of the executable's owner, so that who runs a file of somebody else uses up no turn of his own.
    fn attachment(&self, executable: &Executable) -> Subject {
        Subject { user: executable.owner().uid, pid: self.key.pid, file: Some(executable.identity().node()) }
    }
}

/// Whether a process still is what was analysed: an exec keeps its number and its start.
fn still_runs(scanner: &Scanner, key: ProcessKey, executable: &Executable) -> bool {
    let runs = || FileNode::run_by(scanner.procfs(), key.pid).ok();
    executable.is_unchanged() && scanner.is_alive(key) && runs() == Some(executable.identity().node())
}

/// How far it is.
enum Stage {
    /// `/proc` is being read.
    Looking,
    /// Its executable is being read.
    Analysing(Box<Process>),
    /// Its probes are being attached, or it waits for those of another process of the same file.
    Attaching(Box<Ready>),
}

/// A target that lacks nothing but its probes.
pub(super) struct Ready {
    pub(super) target: Target,
    pub(super) resource: Arc<TargetResource>,
    pub(super) ports: Vec<u16>,
    pub(super) steps: Vec<Step>,
    begun: bool,
}

impl Ready {
    /// To be observed at its sockets alone until what prevents its uprobes has passed.
    fn sockets_only(self, reason: &str) -> Self {
        let target = self.target.without_uprobes(reason).passing();
        Self { target, steps: Vec::new(), begun: true, ..self }
    }
}

/// A process that should be observed and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) key: ProcessKey,
    pub(super) reason: String,
    /// Not the share of a stranger: the daemon does not do what it should.
    pub(super) matters: bool,
}

/// Runs a step for the manager, and hands it the answer.
pub(super) fn step<T: Send + 'static>(
    manager: &Manager,
    case: Case,
    bound: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    wrap: impl FnOnce(Result<T, Overdue>) -> Answer + Send + 'static,
) {
    submit((&manager.aside, &manager.answers), (case.ticket, case.subject()), bound, work, wrap);
}

fn submit<T: Send + 'static>(
    (aside, answers): (&Aside, &Answers),
    (ticket, subject): (u64, Subject),
    bound: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    wrap: impl FnOnce(Result<T, Overdue>) -> Answer + Send + 'static,
) {
    let answers = answers.clone();
    let done = move |result| answers.put(Told { pid: subject.pid, ticket, answer: wrap(result) });
    aside.submit(subject, bound, work, done);
}

impl Manager {
    /// Looks at a process that began, forked, or was found by a scan.
    pub(super) fn consider(&mut self, suspect: Suspect, forked: bool) {
        let Suspect { key, user } = suspect;
        self.begin_looking(Case { ticket: 0, key, user, forked, file: None, tries: 0 });
    }

    fn begin_looking(&mut self, case: Case) {
        self.next_ticket += 1;
        let pid = case.key.pid;
        let case = Case { ticket: self.next_ticket, file: FileNode::run_by(self.scanner.procfs(), pid).ok(), ..case };
        self.pending.insert(pid, Pending { case, stage: Stage::Looking });
        let scanner = Arc::clone(&self.scanner);
        step(self, case, LOOK, move || scanner.inspect(pid), |result| Answer::Looked(Box::new(result)));
    }

    /// Takes the answer to a step. One that nobody waits for any more is dropped: the process has ended, or runs another
    /// program.
    pub(super) fn on_answer(&mut self, Told { pid, ticket, answer }: Told) {
        if let Answer::Calibrated(result) = answer {
            return self.on_calibrated(pid, ticket, *result);
        }
        let attached = matches!(answer, Answer::Attached(_));
        let done = self.attaching.iter().find(|(_, holder)| attached && **holder == ticket).map(|(file, _)| *file);
        done.map(|file| self.attaching.remove(&file));
        match self.pending.remove(&pid) {
            Some(Pending { case, stage }) if case.ticket == ticket => match (answer, stage) {
                (Answer::Looked(result), Stage::Looking) => self.on_looked(case, *result),
                (Answer::Analysed(result), Stage::Analysing(process)) => self.on_analysed(case, *process, *result),
                (Answer::Attached(result), Stage::Attaching(ready)) => self.on_attached(case, *ready, result),
                // No step answers for another one.
                _ => {}
            },
            other => {
                self.pending.extend(other.map(|pending| (pid, pending)));
                if let Answer::Attached(Ok(Some(attachments))) = answer {
                    self.files.detach(attachments.results.into_iter().filter_map(|(_, links)| links.ok()).collect());
                }
            }
        }
        // Its probes have taken the number over, or none have.
        done.into_iter().for_each(|file| self.files.ended(file));
        self.next_in_line();
    }

    fn on_looked(&mut self, case: Case, result: Result<Option<Process>, Overdue>) {
        let pid = case.key.pid;
        let process = match result {
            Ok(Some(process)) => process,
            Ok(None) => return self.let_go(case),
            Err(overdue) => {
                return self.refuse(case, Refusal::Hung, &format!("reading what it is does not end: {overdue}"), true);
            }
        };
        let key = process.key;
        let (scanner, cache, trust) = (Arc::clone(&self.scanner), Arc::clone(&self.cache), Arc::clone(&self.trust));
        let (reader, resources) = (self.reader.clone(), Arc::clone(&self.resources));
        let configured = self.config.targets.get(process.entry).cloned().unwrap_or_default();
        let analysed = process.clone();
        let work = move || {
            let target = Target::new(analysed, &cache, &trust, scanner.procfs(), &reader)?;
            // An ending process loses its executable before it is a zombie; nothing can be read of it any more.
            if !scanner.is_alive(key) {
                return Ok(None);
            }
            let mut ports = scanner.listening_ports(pid).unwrap_or_default();
            ports.truncate(PORTS);
            let resource = resources.describe(&configured, pid);
            Ok(Some((target, resource, ports)))
        };
        let case = Case { key, ..case };
        self.pending.insert(pid, Pending { case, stage: Stage::Analysing(Box::new(process)) });
        step(self, case, ANALYSE, work, |result| Answer::Analysed(Box::new(result)));
    }

    fn on_analysed(&mut self, case: Case, process: Process, result: Result<Analysed, Overdue>) {
        let (target, resource, ports) = match result {
            Ok(Ok(Some(analysed))) => analysed,
            Ok(Ok(None)) => return self.let_go(case),
            // An ending process loses its executable.
            Ok(Err(error)) if process.exe_file.read_link().is_ok() => {
                return self.refuse(case, Refusal::Unreadable, &error.to_string(), true);
            }
            Ok(Err(_)) => return self.let_go(case),
            Err(overdue) => {
                self.own.refusals.add(Refusal::Hung, 1);
                let target = Target::unread(process, &format!("its executable does not answer: {overdue}"));
                let configured = self.config.targets.get(target.process.entry).cloned().unwrap_or_default();
                let resource = self.resources.name(&configured, target.process.exe_name());
                (target.passing(), resource, Vec::new())
            }
        };
        if let Some((refusal, reason)) = self.lacks_room(&target) {
            return self.refuse(case, refusal, &reason, refusal != Refusal::UserShare);
        }
        if target.binary.too_costly().is_some() {
            self.own.refusals.add(Refusal::TooCostly, 1);
        }
        let steps = self.plan(&target);
        let ready = Ready { target, resource: Arc::new(resource), ports, steps, begun: false };
        self.pending.insert(case.key.pid, Pending { case, stage: Stage::Attaching(Box::new(ready)) });
    }

    /// Begins to attach what waits for its turn: one process of a file at a time, those of trusted users first.
    pub(super) fn next_in_line(&mut self) {
        loop {
            let mut waiting: Vec<(bool, u64, u32)> = Vec::new();
            for (pid, pending) in &self.pending {
                if let Stage::Attaching(ready) = &pending.stage
                    && !ready.begun
                    && ready.target.file().is_none_or(|file| !self.attaching.contains_key(&file))
                {
                    waiting.push((!self.trusts(&ready.target.process), pending.case.ticket, *pid));
                }
            }
            let Some((_, _, pid)) = waiting.into_iter().min() else { return };
            self.begin_attaching(pid);
        }
    }

    fn begin_attaching(&mut self, pid: u32) {
        let Some(Pending { case, stage: Stage::Attaching(mut ready) }) = self.pending.remove(&pid) else { return };
        let file = ready.target.file().filter(|_| !ready.steps.is_empty());
        if let Some(reason) = file.and_then(|file| self.prevents_attaching(file)) {
            self.own.refusals.add(Refusal::Hung, 1);
            return self.conclude(ready.sockets_only(&reason));
        }
        let (Some(uprobes), Some(executable), false) =
            (self.uprobes.clone(), ready.target.executable.clone(), ready.steps.is_empty())
        else {
            return self.conclude(*ready);
        };
        let (file, subject) = (executable.identity(), case.attachment(&executable));
        let Wanted { steps, scope, tag, widens } = self.files.wanted(file, &ready.steps, uprobes.reaches_processes());
        let (key, scanner, name) =
            (case.key, Arc::clone(&self.scanner), ready.target.process.exe.display().to_string());
        let work = move || {
            let path = executable.attach_path();
            let process = (scope == Scope::Process).then_some(key.pid);
            let attach = |step: Step| {
                let links = uprobes.attach(step.program, (&path, &name), &step.places, tag, process);
                (step, links)
            };
            let results = steps.into_iter().map(attach).collect();
            // What was read may have been another content, or another program of the process: then nothing stays.
            still_runs(&scanner, key, &executable).then_some(Attachments { scope, widens, results })
        };
        self.attaching.insert(file, case.ticket);
        ready.begun = true;
        self.pending.insert(pid, Pending { case, stage: Stage::Attaching(ready) });
        submit((&self.attacher, &self.answers), (case.ticket, subject), ATTACH, work, Answer::Attached);
    }

    /// Why nothing can be attached to a file now. The kernel keeps all forks of the host waiting while it waits for the
    /// locks of the memory of all processes that map the file; a read of such a process that hangs may hold one.
    pub(super) fn prevents_attaching(&self, file: FileIdentity) -> Option<String> {
        if !self.attacher.stuck().is_empty() {
            return Some("the kernel has not ended an earlier attachment, and it makes one at a time".to_owned());
        }
        let node = file.node();
        let aside = self.aside.stuck().into_iter().map(|subject| (subject.pid, subject.file));
        let mut hung = aside.chain(self.reader.hanging().into_iter().map(|read| (read.pid, read.file)));
        // What a process ran when it was read is held by that read, whatever became of the process.
        let runs = |pid, then| then == Some(node) || FileNode::run_by(self.scanner.procfs(), pid).ok() == Some(node);
        let (pid, _) = hung.find(|(pid, then)| runs(*pid, *then))?;
        Some(format!("a read of process {pid}, which runs the same executable, does not return"))
    }

    fn on_attached(&mut self, case: Case, ready: Ready, result: Result<Option<Attachments>, Overdue>) {
        // The kernel or the machine was busy, or the file is being written: it is looked at again later.
        let Attachments { scope, widens, results } = match result {
            Ok(Some(attachments)) => attachments,
            Ok(None) if !self.scanner.is_alive(case.key) => return self.let_go(case),
            Ok(None) if case.tries < TRIES => {
                return self.begin_looking(Case { tries: case.tries + 1, ..case });
            }
            Ok(None) => {
                self.own.refusals.add(Refusal::FileChanges, 1);
                return self.conclude(ready.sockets_only("its executable keeps changing while probes are attached"));
            }
            Err(overdue) => {
                self.own.refusals.add(Refusal::Hung, 1);
                let reason = format!("the kernel does not attach probes to its executable: {overdue}");
                return self.conclude(ready.sockets_only(&reason));
            }
        };
        let Some(file) = ready.target.file() else { return };
        let name = ready.target.process.exe.display().to_string();
        let trusted = self.trusts(&ready.target.process);
        let (mut links, mut failed) = (Vec::new(), None);
        for (step, result) in results {
            match result {
                Ok(attached) => links.push((step, attached)),
                Err(error) => {
                    if self.lines.admit(Line::Attached, trusted) {
                        tracing::warn!("{error}");
                    }
                    self.probes.set(step.program, &name, State::Failed, error.to_string());
                    failed = Some(error);
                }
            }
        }
        if let (Some(error), true) = (&failed, widens) {
            // The probes of the other processes stay as they are.
            self.files.detach(links.into_iter().map(|(_, links)| links).collect());
            return self.conclude(ready.sockets_only(&error.to_string()));
        }
        let Ready { target, resource, ports, steps, .. } = ready;
        let has = |step: &Step| {
            links.iter().any(|(done, _)| done.program == step.program) || self.files.has(file, step.program)
        };
        let failed = failed.map(|_| ());
        if failed.is_none() && !steps.iter().all(has) {
            // What another process of the file had was detached meanwhile, with the end of that process.
            self.files.detach(links.into_iter().map(|(_, links)| links).collect());
            let ready = Ready { target, resource, ports, steps, begun: false };
            self.pending.insert(case.key.pid, Pending { case, stage: Stage::Attaching(Box::new(ready)) });
            return;
        }
        let attached: Vec<Step> = steps
            .into_iter()
            .filter(|step| {
                links.iter().any(|(done, _)| done.program == step.program) || self.files.has(file, step.program)
            })
            .collect();
        let (others, old) = self.files.attached(file, case.key.pid, scope, links, &attached);
        for other in others {
            self.refollow(other);
        }
        self.files.detach(old);
        for step in &attached {
            self.probes.set(step.program, &name, State::Attached, "");
        }
        self.conclude(Ready { target, resource, ports, steps: attached, begun: true });
    }

    /// Whether there is room for one more target, and which bound it would pass.
    fn lacks_room(&self, target: &Target) -> Option<(Refusal, String)> {
        let waiting = self.pending.values().filter_map(|pending| match &pending.stage {
            Stage::Attaching(ready) => Some(&ready.target),
            Stage::Looking | Stage::Analysing(_) => None,
        });
        let (file, user, trusted) = (target.file(), target.process.user, self.trusts(&target.process));
        let mut room = Room { targets: 0, of_file: 0, of_user: 0, user, trusted };
        for other in self.live.values().map(|live| &live.target).chain(waiting) {
            room.targets += 1;
            room.of_file += usize::from(other.file() == file);
            room.of_user += usize::from(other.process.user == user);
        }
        room.lacks()
    }

    /// The process is not observed, though it should be; every scan tries again.
    fn refuse(&mut self, case: Case, refusal: Refusal, reason: &str, matters: bool) {
        let pid = case.key.pid;
        let matters = matters && self.trust.knows(case.user, &[]);
        let refused = Refused { key: case.key, reason: reason.to_owned(), matters };
        if self.refused.get(&pid).is_none_or(|known| known.key != case.key) {
            self.own.refusals.add(refusal, 1);
            // The first one says what there is to say; /status has them all.
            let trusted = self.trust.knows(case.user, &[]);
            if self.refused.is_empty() && self.lines.admit(Line::Refused, trusted) {
                tracing::warn!("process {pid} is not observed: {reason}");
            } else {
                tracing::debug!("process {pid} is not observed: {reason}");
            }
        }
        if self.refused.len() < room::MOST || self.refused.contains_key(&pid) {
            self.refused.insert(pid, refused);
        }
        if case.forked {
            self.disown(pid);
        }
        self.publish();
    }

    /// The process is no target, or has ended. What a child served counts for its parent.
    fn let_go(&mut self, case: Case) {
        self.refused.remove(&case.key.pid);
        if case.forked {
            self.disown(case.key.pid);
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
