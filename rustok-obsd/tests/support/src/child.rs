//! A child process that never outlives the test that started it.
//!
//! Reads: its standard output and error, line by line. Yields: the last lines, and waits. Costs: two reader threads
//! and one sleeping `sh` per child.
//!
//! The child leads a process group of its own, so that what it starts ends with it. The `sh` is a member of the group
//! that waits on a pipe from us: when we die without a chance to clean up (SIGKILL, Ctrl-C in a test run), the pipe
//! closes and `sh` ends the group and removes the temporary folder.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const KEPT_LINES: usize = 200;
/// Lines that an error message shows.
const LAST_WORDS: usize = 15;
const WATCHDOG: &str = r#"
trap '' INT TERM HUP QUIT
read _
kill -"$1" "$2" 2>/dev/null
i=0
while kill -0 "$2" 2>/dev/null && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done
[ -z "$3" ] || rm -rf -- "$3"
kill -KILL 0
"#;

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    last: VecDeque<String>,
    /// Lines dropped from the front of `last`.
    dropped: usize,
    open_pipes: usize,
}

/// A running child process; stopped, with all of its process group, when dropped.
pub struct Child {
    name: String,
    process: std::process::Child,
    watchdog: std::process::Child,
    log: Arc<Log>,
    stop_signal: libc::c_int,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` in a process group of its own, with its standard input closed and its output kept.
    ///
    /// # Errors
    /// If the program cannot be started; the message names it.
    pub fn spawn(name: &str, command: &mut Command) -> io::Result<Self> {
        Self::spawn_with(name, command, libc::SIGTERM, None)
    }

    /// As [`Child::spawn`], stopped by `stop_signal`; `folder` is removed if we are killed.
    pub(crate) fn spawn_with(
        name: &str,
        command: &mut Command,
        stop_signal: libc::c_int,
        folder: Option<&Path>,
    ) -> io::Result<Self> {
        let named = |what: &str, error: &io::Error| {
            io::Error::new(error.kind(), format!("{name}: cannot start {what}: {error}"))
        };
        let mut process = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| named(&command.get_program().display().to_string(), &error))?;
        let group = process.id().cast_signed();
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog", &stop_signal.to_string(), &group.to_string()])
            .arg(folder.unwrap_or(Path::new("")))
            .process_group(group)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .inspect_err(|_| {
                let _ = process.kill();
                let _ = process.wait();
            })
            .map_err(|error| named("/bin/sh", &error))?;
        let log = Arc::new(Log::default());
        if let (Some(output), Some(error)) = (process.stdout.take(), process.stderr.take()) {
            keep_lines(&log, output);
            keep_lines(&log, error);
        }
        Ok(Self { name: name.to_owned(), process, watchdog, log, stop_signal, status: None })
    }

    /// Process id, which is also the id of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The name that it was started with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it still runs, for one that should.
    ///
    /// # Errors
    /// If it has ended: its name, how it ended, and its last words.
    pub fn check(&mut self) -> Result<(), String> {
        let Some(status) = self.try_wait() else {
            return Ok(());
        };
        // What it wrote before its end may still be on the way through the pipe.
        let _ = self.wait_for_line(Duration::from_millis(200), |_| None::<()>);
        Err(format!("{} ended ({status}); its last lines:\n{}", self.name, self.last_words()))
    }

    /// Waits until a GET of `path` at `addr` answers 200.
    ///
    /// # Errors
    /// If `limit` passes or the child ends first; the message names the child and ends with its last words.
    pub fn wait_for_http(&mut self, addr: SocketAddr, path: &str, limit: Duration) -> Result<(), String> {
        let ready = crate::wait_until(limit, || match self.check() {
            Err(ended) => Some(Err(ended)),
            Ok(()) => matches!(crate::http_get(addr, path), Ok((200, ..))).then_some(Ok(())),
        });
        ready.unwrap_or_else(|| {
            let words = self.last_words();
            Err(format!("{}: http://{addr}{path} was not ready within {limit:?}; its last lines:\n{words}", self.name))
        })
    }

    /// The last lines, indented, for an error message.
    fn last_words(&self) -> String {
        let lines = lock(&self.log.lines);
        let shown = lines.last.iter().filter(|line| !line.trim().is_empty());
        let shown: Vec<_> = shown.map(|line| format!("    {line}")).collect();
        match shown.len() {
            0 => "    (it said nothing)".to_owned(),
            count => shown[count.saturating_sub(LAST_WORDS)..].join("\n"),
        }
    }

    /// The last lines (at most 200) of standard output and error, as they came.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let lines = lock(&self.log.lines);
        lines.last.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Waits for the first line, of output or error, for which `found` yields something; earlier lines count too.
    ///
    /// # Errors
    /// If `limit` passes or the output ends first; the message names the child and ends with its last lines.
    pub fn wait_for_line<T>(&self, limit: Duration, mut found: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + limit;
        let mut next: usize = 0;
        let mut lines = lock(&self.log.lines);
        loop {
            for line in lines.last.iter().skip(next.saturating_sub(lines.dropped)) {
                if let Some(value) = found(line) {
                    return Ok(value);
                }
            }
            next = lines.dropped + lines.last.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let what = match (lines.open_pipes, left.is_zero()) {
                (0, _) => "its output ended",
                (_, true) => "time ran out",
                _ => {
                    lines = self.log.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            };
            drop(lines);
            return Err(format!("{}: {what} before the awaited line; its last lines:\n{}", self.name, self.log_tail()));
        }
    }

    /// Sends a signal to the child itself, not to its group. Does nothing when it has ended.
    pub fn signal(&mut self, signal: libc::c_int) {
        if self.try_wait().is_none() {
            // SAFETY: kill(2) takes numbers only; the child is not reaped, so the id is still its own.
            unsafe { libc::kill(self.process.id().cast_signed(), signal) };
        }
    }

    /// The exit status if the child has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for the child to end by itself; `None` when `limit` passes first.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        crate::wait_until(limit, || self.try_wait())
    }

    /// Sends `signal`, waits up to `limit`, then kills what is left of the group. `None`: it had to be killed.
    pub fn stop(&mut self, signal: libc::c_int, limit: Duration) -> Option<ExitStatus> {
        self.signal(signal);
        let status = self.wait(limit);
        self.kill_group();
        status
    }

    fn kill_group(&mut self) {
        if matches!(self.watchdog.try_wait(), Ok(None)) {
            // SAFETY: kill(2) takes numbers only; the watchdog is a member of the group and not reaped, so the group's
            // id cannot have been given to another.
            unsafe { libc::kill(-self.process.id().cast_signed(), libc::SIGKILL) };
            let _ = self.watchdog.wait();
        }
        if self.status.is_none() {
            self.status = self.process.wait().ok();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() || matches!(self.watchdog.try_wait(), Ok(None)) {
            self.stop(self.stop_signal, Duration::from_secs(5));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_lines(log: &Arc<Log>, pipe: impl Read + Send + 'static) {
    let log = Arc::clone(log);
    lock(&log.lines).open_pipes += 1;
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut lines = lock(&log.lines);
            if lines.last.len() == KEPT_LINES {
                lines.last.pop_front();
                lines.dropped += 1;
            }
            lines.last.push_back(text);
            log.changed.notify_all();
        }
        lock(&log.lines).open_pipes -= 1;
        log.changed.notify_all();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Child {
        Child::spawn("sh", Command::new("/bin/sh").args(["-c", script])).expect("start sh")
    }

    fn alive(pid: i32) -> bool {
        // A zombie is not alive: what /proc says is the third field.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
    }

    #[test]
    fn a_dropped_child_takes_its_own_children_with_it() {
        let child = sh("sleep 1000 & pid=$!; trap '' TERM; echo $pid; wait; sleep 1000");
        let grandchild = child.wait_for_line(Duration::from_secs(5), |line| line.parse().ok()).expect("pid line");
        assert!(alive(grandchild));
        let mut child = child;
        assert!(child.stop(libc::SIGTERM, Duration::from_millis(100)).is_none(), "ignores SIGTERM");
        assert!(crate::wait_until(Duration::from_secs(5), || (!alive(grandchild)).then_some(())).is_some());
    }

    #[test]
    fn an_awaited_line_that_never_comes_is_an_error_with_the_log() {
        let child = sh("echo one; echo two >&2");
        let error = child.wait_for_line(Duration::from_secs(5), |_| None::<()>).expect_err("no such line");
        assert!(error.contains("one") && error.contains("two") && error.contains("output ended"), "{error}");
    }

    #[test]
    fn a_child_that_ended_is_named_with_its_last_words() {
        let mut child = sh("echo no such table >&2; exit 3");
        child.wait(Duration::from_secs(5)).expect("ended");
        let error = child.check().expect_err("it has ended");
        assert!(error.starts_with("sh ended") && error.contains('3') && error.contains("no such table"), "{error}");
        let nobody = SocketAddr::from(([127, 0, 0, 1], crate::free_port()));
        let error = child.wait_for_http(nobody, "/", Duration::from_secs(5)).expect_err("it has ended");
        assert!(error.starts_with("sh ended"), "{error}");
        let mut waiting = sh("sleep 1000");
        let error = waiting.wait_for_http(nobody, "/", Duration::from_millis(50)).expect_err("nobody listens");
        assert!(error.contains("not ready") && error.contains("it said nothing"), "{error}");
    }

    #[test]
    fn stop_returns_the_status_of_a_child_that_ends_by_itself() {
        let mut child = sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        child.wait_for_line(Duration::from_secs(5), |line| (line == "ready").then_some(())).expect("ready");
        let status = child.stop(libc::SIGTERM, Duration::from_secs(5)).expect("ended");
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn the_group_ends_when_the_pipe_from_its_owner_closes() {
        let mut child = sh("echo ready; sleep 1000");
        child.wait_for_line(Duration::from_secs(5), |line| (line == "ready").then_some(())).expect("ready");
        drop(child.watchdog.stdin.take());
        assert!(child.wait(Duration::from_secs(10)).is_some(), "the watchdog did not end it");
    }
}
