//! Programs that run beside us, and end with us.
//!
//! Reads: their logs. Yields: their readiness, or who ended and its last words. Costs: a poll every 20 ms while waiting.
//!
//! Each part has a process group of its own, so that Ctrl-C reaches us alone and we end them in order; the kernel ends
//! it should we be killed (`PR_SET_PDEATHSIG`). A scratch folder goes even then: a shell waits for our end of a pipe.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that an error shows.
const LAST_WORDS: usize = 15;

/// Set by SIGINT, SIGTERM and SIGHUP.
#[derive(Debug, Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the signals end what we do, not us.
    pub fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("no signal handler")?;
        }
        Ok(Self(flag))
    }

    /// Whether we are to end.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps, at most until we are to end.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.requested() {
            let Some(rest) = until.checked_duration_since(Instant::now()) else {
                return;
            };
            thread::sleep(rest.min(POLL));
        }
    }

    /// Waits until `ready` yields something.
    ///
    /// # Errors
    /// `ready` fails, the time is over, or we are to end.
    pub fn wait_for<T>(&self, what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            if self.requested() {
                bail!("interrupted while waiting for {what}");
            }
            if started.elapsed() > limit {
                bail!("{what} did not come within {limit:?}");
            }
            thread::sleep(POLL);
        }
    }
}

/// A folder for the parts' files, gone when this is dropped or we die.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    undertaker: Option<(Child, ChildStdin)>,
}

impl Scratch {
    /// Makes `$TMPDIR/rustok-obsd-NAME-…`.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("rustok-obsd-{name}-"))
            .tempdir()
            .context("no temporary folder; is TMPDIR writable?")?;
        // A server that must not run as root passes through; it cannot list.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"read _; sleep 1; rm -rf -- "$1""#, "undertaker"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = shell.spawn().context("sh could not be started")?;
        let stdin = child.stdin.take().context("sh has no input")?;
        Ok(Self { folder, undertaker: Some((child, stdin)) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some((mut child, stdin)) = self.undertaker.take() {
            // Killed before its pipe closes: we do the work ourselves, and at once.
            let _ = child.kill();
            let _ = child.wait();
            drop(stdin);
        }
    }
}

/// How a part is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGTERM.
    Terminate,
    /// SIGINT: for Postgres the one that does not wait for its clients.
    Interrupt,
    /// SIGKILL: for one that takes long and has nothing to save.
    Kill,
}

impl End {
    fn signal(self) -> libc::c_int {
        match self {
            Self::Terminate => libc::SIGTERM,
            Self::Interrupt => libc::SIGINT,
            Self::Kill => libc::SIGKILL,
        }
    }
}

/// A program that runs beside us.
#[derive(Debug)]
pub struct Part {
    name: String,
    child: Child,
    log: PathBuf,
    end: End,
    ended: Option<ExitStatus>,
}

impl Part {
    /// Starts it; what it says goes to `FOLDER/NAME.log`.
    pub fn start(name: &str, command: &mut Command, folder: &Path, end: End) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let parent = std::process::id();
        // Killing a Postgres would leave its shared memory behind.
        let on_our_death = if end == End::Interrupt { libc::SIGQUIT } else { libc::SIGKILL };
        // SAFETY: prctl and getppid are async-signal-safe, and the closure allocates nothing.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, on_our_death) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // We may have died before the call.
                if libc::getppid().unsigned_abs() != parent {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(())
            });
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} ({}) could not be started", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log, end, ended: None })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Fails where it has ended, with its last words.
    pub fn check(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended ({}); the last lines of its log:\n{}", self.name, how(status), self.last_words())
            }
        }
    }

    /// Waits for a line of its log that starts with `prefix`, and yields the rest of it.
    pub fn wait_for_line(&mut self, stop: &Stop, prefix: &str, limit: Duration) -> Result<String> {
        let what = format!("`{prefix}` from {}", self.name);
        let found = stop.wait_for(&what, limit, || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let line = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let rest = line.filter_map(|line| line.trim_end().strip_prefix(prefix)).next().map(str::to_owned);
            if rest.is_none() {
                self.check()?;
            }
            Ok(rest)
        });
        found.with_context(|| format!("{} is not ready; the last lines of its log:\n{}", self.name, self.last_words()))
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&log))
    }

    /// Ends it: by its signal, and by SIGKILL after `limit`.
    pub fn stop(&mut self, limit: Duration) {
        if self.ended().is_none() {
            self.signal(self.end.signal());
            let until = Instant::now() + limit;
            while self.ended().is_none() && Instant::now() < until {
                thread::sleep(POLL);
            }
        }
        if self.ended().is_none() {
            self.signal(libc::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }

    fn signal(&self, signal: libc::c_int) {
        let Ok(group) = libc::pid_t::try_from(self.child.id()) else {
            return;
        };
        // SAFETY: a plain system call. The group is ours: its leader has not been waited for, so its id is not reused.
        unsafe { libc::kill(-group, signal) };
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(5));
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "    (it said nothing)".to_owned();
    }
    let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Free ports of the loopback address, all different. Nobody holds them for us: whoever takes one should be ready to
/// find it gone.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// The wanted port, or a free one where it is taken.
pub fn port_or_free(wanted: u16) -> Result<u16> {
    match std::net::TcpListener::bind(("127.0.0.1", wanted)) {
        Ok(_) => Ok(wanted),
        Err(_) => free_ports::<1>().map(|[port]| port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_ends_is_named_with_its_last_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready; echo no such table >&2; exit 3"]);
        let mut part = Part::start("shop", &mut command, folder.path(), End::Terminate).expect("started");
        part.child.wait().expect("ended");
        let error = part.check().expect_err("it has ended").to_string();
        for words in ["shop ended", "exit code 3", "no such table"] {
            assert!(error.contains(words), "{words} is not in: {error}");
        }
    }

    #[test]
    fn a_part_is_ready_when_its_line_is_whole_and_ends_when_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = Stop(Arc::default());
        let mut command = Command::new("sh");
        command.args(["-c", "printf 'listening on '; sleep 0.2; echo http://127.0.0.1:1; exec sleep 1000"]);
        let mut part = Part::start("shop", &mut command, folder.path(), End::Terminate).expect("started");
        let line = part.wait_for_line(&stop, "listening on ", Duration::from_secs(10)).expect("ready");
        assert_eq!(line, "http://127.0.0.1:1");
        let pid = part.pid();
        drop(part);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_part_that_ignores_its_signal_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = Stop(Arc::default());
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]);
        let mut part = Part::start("shop", &mut command, folder.path(), End::Terminate).expect("started");
        part.wait_for_line(&stop, "deaf", Duration::from_secs(10)).expect("ready");
        part.stop(Duration::from_millis(200));
        assert_eq!(part.ended().and_then(|status| status.signal()), Some(libc::SIGKILL));
    }

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one() {
        let held = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let taken = held.local_addr().expect("an address").port();
        assert_ne!(port_or_free(taken).expect("a port"), taken);
        let [a, b, c] = free_ports().expect("ports");
        assert!(a != b && b != c && a != c);
    }
}
