//! The manager, without kernel programs, on processes of the test's own.

use std::{
    io::{Read as _, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
    sync::mpsc::{self, Receiver},
    time::Instant,
};

use super::*;
use crate::{
    capture::Command,
    config::{Config, Log},
    contract::own::{BUILD, SelfMetrics},
    daemon::{
        logging,
        manager::{AGAIN, Parts},
    },
    liveness::queue,
    target::{
        Executable, Memory, Reader, Rule, Scanner, Selector, Trust,
        reader::{Access, Hanging},
    },
    trace::Resources,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Users of the manager's trust: one that is trusted, and one that is not.
const TRUSTED: u32 = 54_321;
const STRANGER: u32 = 54_322;

/// Memory of which reads hang, if the test says so.
#[derive(Clone, Default)]
struct Hung(Arc<Mutex<Vec<Hanging>>>);

impl Access for Hung {
    fn memory(&self, _pid: u32, _until: Instant) -> Box<dyn Memory + '_> {
        unreachable!("nothing is read")
    }

    fn hanging(&self) -> Vec<Hanging> {
        self.0.lock().unwrap().clone()
    }
}

fn manager(access: Hung) -> (Manager, Receiver<Command>) {
    let config = Arc::new(Config::default());
    let (commands, obeyed) = mpsc::sync_channel(4096);
    let (_, notices) = queue::queue(queue::Bounds { events: 1, samples: 1, samples_of_one: 1 });
    let parts = Parts {
        maps: None,
        uprobes: None,
        counts: None,
        reader: Reader::new(access),
        probes: crate::probe::ProbeBoard::default(),
        own: Arc::new(SelfMetrics::new(BUILD)),
        resources: Arc::new(Resources::new(&config)),
        commands,
        notices,
    };
    let mut manager = Manager::new(config, parts).unwrap();
    manager.trust = Arc::new(Trust::of([TRUSTED]));
    (manager, obeyed)
}

/// A program of its own file, which waits.
struct Sleeper(Child);

impl Sleeper {
    fn new(folder: &Path, name: &str) -> Self {
        Self(Program::new(copy(folder, name, "sleep")).arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn node(&self) -> FileNode {
        FileNode::run_by(Path::new("/proc"), self.pid()).unwrap()
    }

    fn target(&self, user: u32) -> Target {
        let rule = Rule { pid: Some(self.pid()), ..Rule::default() };
        let process = Scanner::new("/proc", Selector::new(&[rule]).unwrap()).inspect(self.pid()).unwrap();
        let executable = Executable::open(&process.exe_file).unwrap();
        let mut target = Target::unread(Process { user, ..process }, "");
        (target.executable, target.sockets_only) = (Some(Arc::new(executable)), None);
        target
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of a program, made by another process: no thread of this one has it open for writing at a fork of another one.
fn copy(folder: &Path, name: &str, program: &str) -> PathBuf {
    let place = folder.join(name);
    std::fs::create_dir_all(&place).unwrap();
    let done = Program::new("sh").args(["-c", "cp \"$(command -v $0)\" \"$1\"", program]).arg(&place).status().unwrap();
    assert!(done.success());
    place.join(program)
}

fn case(target: &Target, ticket: u64) -> Case {
    let Process { key, user, .. } = target.process;
    Case { ticket, key, user, forked: false, file: None, tries: 0 }
}

fn ready(target: Target, resources: &Resources) -> Ready {
    let resource = Arc::new(resources.name(&crate::config::Target::default(), "server"));
    Ready { target, resource, ports: vec![], steps: vec![Step { program: "a", places: vec![1] }], begun: false }
}

impl Manager {
    /// Has a target wait for its turn.
    fn lines_up(&mut self, pid: u32, target: Target, ticket: u64) {
        let case = case(&target, ticket);
        let stage = Stage::Attaching(Box::new(ready(target, &self.resources)));
        self.pending.insert(pid, Pending { case, stage });
    }

    /// Attaches, as far as that goes without kernel programs; why the target is observed at its sockets only.
    fn admits(&mut self, target: Target) -> Option<String> {
        let pid = target.process.key.pid;
        self.lines_up(pid, target, 1);
        self.next_in_line();
        let live = &self.live[&pid].target;
        assert_eq!(live.is_passing(), live.sockets_only.is_some());
        live.sockets_only.clone()
    }
}

/// A job that is stuck until what this yields is dropped.
fn stick(aside: &Aside, subject: Subject) -> mpsc::SyncSender<()> {
    let (go, wait) = mpsc::sync_channel::<()>(1);
    let (begun, begins) = mpsc::sync_channel(1);
    let work = move || {
        begun.send(()).unwrap();
        let _ = wait.recv();
    };
    aside.submit(subject, Duration::from_secs(1), work, |_| ());
    begins.recv_timeout(PATIENCE).unwrap();
    aside.tick(Instant::now() + Duration::from_secs(2));
    assert_eq!(aside.stuck(), [subject]);
    go
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_exec_between_analysis_and_attachment_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (shell, other) = (copy(folder.path(), "first", "sh"), copy(folder.path(), "second", "sleep"));
    let mut program = Program::new(shell);
    program.arg("-c").arg("read line; exec \"$0\" 1000").arg(other).stdin(Stdio::piped());
    let mut child = program.spawn().map(Sleeper).unwrap();
    let target = child.target(TRUSTED);
    let scanner = Scanner::new("/proc", Selector::new(&[]).unwrap());
    let (key, executable) = (target.process.key, target.executable.unwrap());
    assert!(still_runs(&scanner, key, &executable));
    let before = child.node();
    child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    wait_until("it runs the other program", || child.node() != before);
    // Neither the process nor the file says so.
    assert!(scanner.is_alive(key) && executable.is_unchanged());
    assert!(!still_runs(&scanner, key, &executable));
}

#[test]
fn an_attachment_is_charged_to_the_owner_of_the_executable() {
    let folder = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new(folder.path(), "a");
    let target = sleeper.target(STRANGER);
    let case = Case { file: Some(sleeper.node()), ..case(&target, 1) };
    let owner = std::fs::metadata(folder.path().join("a/sleep")).unwrap().uid();
    let subject = Subject { user: STRANGER, pid: sleeper.pid(), file: Some(sleeper.node()) };
    assert_eq!(case.subject(), subject);
    assert_eq!(case.attachment(&target.executable.unwrap()), Subject { user: owner, ..subject });
}

#[test]
fn trusted_users_processes_come_first() {
    let folder = tempfile::tempdir().unwrap();
    let (mut manager, obeyed) = manager(Hung::default());
    let sleepers: Vec<Sleeper> = (0..4).map(|at| Sleeper::new(folder.path(), &at.to_string())).collect();
    for ((sleeper, user), ticket) in sleepers.iter().zip([STRANGER, TRUSTED, STRANGER, TRUSTED]).zip(1..) {
        manager.lines_up(sleeper.pid(), sleeper.target(user), ticket);
    }
    manager.next_in_line();
    let added = obeyed.try_iter().filter_map(|command| match command {
        Command::Add(added) => Some(added.process.pid),
        _ => None,
    });
    assert_eq!(added.collect::<Vec<_>>(), [1, 3, 0, 2].map(|at: usize| sleepers[at].pid()));
}

#[test]
fn nothing_is_attached_to_a_file_while_a_read_of_a_process_that_runs_it_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let hung = Hung::default();
    let (mut manager, _obeyed) = manager(hung.clone());
    let (sleeper, other) = (Sleeper::new(folder.path(), "a"), Sleeper::new(folder.path(), "b"));
    let hangs = |pid, file| *hung.0.lock().unwrap() = vec![Hanging { pid, file }];
    let reason = |pid: u32| format!("a read of process {pid}, which runs the same executable, does not return");
    assert_eq!(manager.admits(sleeper.target(TRUSTED)), None);
    // By what it runs now, and by what it ran: nobody has this pid.
    for (pid, file) in [(sleeper.pid(), None), (u32::MAX, Some(sleeper.node()))] {
        hangs(pid, file);
        assert_eq!(manager.admits(sleeper.target(TRUSTED)), Some(reason(pid)));
        assert_eq!(manager.admits(other.target(TRUSTED)), None, "another file");
    }
    hangs(other.pid(), Some(other.node()));
    assert_eq!(manager.admits(sleeper.target(TRUSTED)), None);
    hung.0.lock().unwrap().clear();
    // The same for looks and analyses.
    let go = stick(&manager.aside, Subject { user: STRANGER, pid: u32::MAX, file: Some(sleeper.node()) });
    assert_eq!(manager.admits(sleeper.target(TRUSTED)), Some(reason(u32::MAX)));
    assert_eq!(manager.admits(other.target(TRUSTED)), None, "another file");
    drop(go);
    wait_until("it was let go", || manager.aside.stuck().is_empty());
    assert_eq!(manager.admits(sleeper.target(TRUSTED)), None);
}

#[test]
fn nothing_is_attached_while_an_attachment_hangs_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut manager, _obeyed) = manager(Hung::default());
    let sleeper = Sleeper::new(folder.path(), "a");
    let pid = sleeper.pid();
    let rule = Rule { pid: Some(pid), ..Rule::default() };
    manager.scanner = Arc::new(Scanner::new("/proc", Selector::new(&[rule]).unwrap()));
    let go = stick(&manager.attacher, Subject { user: 0, pid: 1, file: None });
    let reason = manager.admits(sleeper.target(TRUSTED)).unwrap();
    assert!(reason.contains("an earlier attachment"), "{reason}");
    assert!(manager.aside.stuck().is_empty(), "root's reads pay nothing for it");
    // It is not looked at again before that can change anything.
    manager.live.get_mut(&pid).unwrap().since = Instant::now().checked_sub(AGAIN).unwrap();
    manager.look_again();
    assert!(manager.live.contains_key(&pid));
    drop(go);
    wait_until("it was let go", || manager.attacher.stuck().is_empty());
    manager.look_again();
    assert!(!manager.live.contains_key(&pid), "it is looked at again");
}

#[test]
fn what_an_answer_that_nobody_waits_for_attached_is_detached_elsewhere() {
    let (mut manager, _obeyed) = manager(Hung::default());
    // A descriptor that takes a minute to close: what was sent is not read.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut link = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    link.set_nonblocking(true).unwrap();
    while link.write(&[0; 65_536]).is_ok() {}
    link.set_nonblocking(false).unwrap();
    rustix::net::sockopt::set_socket_linger(&link, Some(PATIENCE)).unwrap();
    let results = vec![(Step { program: "a", places: vec![1] }, Ok(Links::from(std::os::fd::OwnedFd::from(link))))];
    let attachments = Attachments { scope: Scope::File, widens: false, results };
    manager.on_answer(Told { pid: 1, ticket: 7, answer: Answer::Attached(Ok(Some(attachments))) });
    // The manager goes on meanwhile.
    assert_ne!(manager.files.detacher.finish(Instant::now()), 0);
    let mut bytes = Vec::new();
    { peer }.read_to_end(&mut bytes).unwrap();
    assert_eq!(manager.files.detacher.finish(Instant::now() + PATIENCE), 0);
}

#[test]
fn who_waits_for_probes_takes_room_already() {
    let folder = tempfile::tempdir().unwrap();
    let (mut manager, _obeyed) = manager(Hung::default());
    let (first, other) = (Sleeper::new(folder.path(), "a"), Sleeper::new(folder.path(), "b"));
    let lacks = |manager: &Manager, target: &Target| manager.lacks_room(target).map(|(refusal, _)| refusal);
    manager.admits(first.target(STRANGER));
    let waits = first.target(STRANGER);
    for waiting in 0..62 {
        manager.lines_up(u32::MAX - waiting, waits.clone(), 1);
    }
    assert_eq!(lacks(&manager, &other.target(STRANGER)), None);
    manager.lines_up(u32::MAX - 62, waits.clone(), 1);
    assert_eq!(lacks(&manager, &other.target(STRANGER)), Some(Refusal::UserShare));
    assert_eq!(lacks(&manager, &other.target(STRANGER + 1)), None);
    assert_eq!(lacks(&manager, &first.target(TRUSTED)), None);
    for waiting in 63..255 {
        manager.lines_up(u32::MAX - waiting, waits.clone(), 1);
    }
    assert_eq!(lacks(&manager, &first.target(TRUSTED)), Some(Refusal::FileShare));
    assert_eq!(lacks(&manager, &other.target(TRUSTED)), None);
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_does_not_grow_with_the_processes_of_a_stranger() {
    let folder = tempfile::tempdir().unwrap();
    let (mut manager, _obeyed) = manager(Hung::default());
    let (strangers, trusted) = (Sleeper::new(folder.path(), "a"), Sleeper::new(folder.path(), "b"));
    let written = Written::default();
    let writer = written.clone();
    let subscriber = logging::subscriber(&Log::default(), move || writer.clone(), false);
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..100 {
            let target = strangers.target(STRANGER);
            manager.plan(&target);
            let case = case(&target, 1);
            // Each one ends the one before it.
            manager.admits(target);
            manager.refused.clear();
            manager.refuse(case, Refusal::Hung, "a reason", true);
        }
        manager.admits(trusted.target(TRUSTED));
        manager.admits(trusted.target(TRUSTED));
    });
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let count = |pid: u32, what: &str| {
        text.lines().filter(|line| line.contains(&format!("process {pid}")) && line.contains(what)).count()
    };
    let pid = strangers.pid();
    for what in ["observing", "has ended", "is not observed"] {
        assert_eq!(count(pid, what), 20, "{what}: {text}");
    }
    assert_eq!(text.lines().filter(|line| line.contains("routes come from")).count(), 20, "{text}");
    assert_eq!(count(trusted.pid(), "observing"), 2, "{text}");
    assert_eq!(count(trusted.pid(), "has ended"), 1, "{text}");
}
