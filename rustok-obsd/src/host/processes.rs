//! Processes and threads by state.
//!
//! Reads: `/proc/PID/stat`, `/proc/PID/task/TID/stat` (fs/proc/array.c), the kernel's limits. Yields: `node_processes_*`. Costs:
//! three system calls per process and per thread of those that have several; off by default.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;

const THREADS: Family<'static> = gauge("node_processes_threads", &[], "Allocated threads in system");
const MAX_THREADS: Family<'static> = gauge("node_processes_max_threads", &[], "Limit of threads in the system");
const STATE: Family<'static> = gauge("node_processes_state", &["state"], "Number of processes in each state.");
const THREADS_STATE: Family<'static> =
    gauge("node_processes_threads_state", &["thread_state"], "Number of threads in each state.");
const PIDS: Family<'static> = gauge("node_processes_pids", &[], "Number of PIDs");
const MAX_PIDS: Family<'static> = gauge("node_processes_max_processes", &[], "Number of max PIDs limit");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[THREADS, MAX_THREADS, STATE, THREADS_STATE, PIDS, MAX_PIDS];

/// Counts by the letter of the state.
pub type States = [u64; 128];

/// The processes of a procfs.
pub struct Processes {
    /// Of procfs; what is appended is taken off again.
    path: PathBuf,
    max_threads: KeptFile,
    max_pids: KeptFile,
    buffer: Vec<u8>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Processes::new(settings))
}

/// State and number of threads. The name before them may hold anything, but nothing after them holds a `)`.
fn parse(stat: &[u8]) -> Option<(u8, u64)> {
    let end = memchr::memrchr(b')', stat)?;
    let mut words = text::words(&stat[end + 1..]);
    let state = *words.next()?.first()?;
    // Fields 3 and 20 of proc(5).
    Some((state & 127, words.nth(16).and_then(text::u64)?))
}

impl Processes {
    /// Nothing is read yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            path: settings.paths.procfs.clone(),
            max_threads: settings.kept_procfs("sys/kernel/threads-max"),
            max_pids: settings.kept_procfs("sys/kernel/pid_max"),
            buffer: vec![0; 4096],
        }
    }

    /// Processes, without their threads, by the letter of their state.
    pub fn by_state(&mut self) -> Result<States, CollectError> {
        self.below(|this| {
            let mut states = [0; 128];
            for process in this.numbers().map_err(|error| CollectError::read(&this.path, error))? {
                this.path.push(process);
                if let Some((state, _)) = this.stat()? {
                    states[usize::from(state)] += 1;
                }
                this.path.pop();
            }
            Ok(states)
        })
    }

    /// Runs what appends to the path; after an error, what was appended is taken off.
    fn below<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.as_os_str().len();
        let result = run(self);
        if self.path.as_os_str().len() > length {
            self.path =
                self.path.ancestors().find(|path| path.as_os_str().len() == length).map(Into::into).unwrap_or_default();
        }
        result
    }

    /// `None`: it has gone meanwhile.
    fn stat(&mut self) -> Result<Option<(u8, u64)>, CollectError> {
        self.path.push("stat");
        let read = File::open(&self.path).and_then(|mut file| file.read(&mut self.buffer));
        let result = match read {
            Ok(length) => Ok(parse(&self.buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(CollectError::read(&self.path, error)),
        };
        self.path.pop();
        result
    }

    /// The numbers that are names in the folder `path`.
    fn numbers(&self) -> io::Result<Vec<String>> {
        let number = |entry: fs::DirEntry| {
            entry.file_name().into_string().ok().filter(|name| text::u64(name.as_bytes()).is_some())
        };
        Ok(fs::read_dir(&self.path)?.flatten().filter_map(number).collect())
    }

    fn threads(&mut self, process: &str, state: u8, count: u64, states: &mut States) -> Result<(), CollectError> {
        if count <= 1 {
            // Its only thread is itself.
            states[usize::from(state)] += 1;
            return Ok(());
        }
        self.path.push("task");
        let tasks = self.numbers().unwrap_or_default();
        for task in &tasks {
            if task == process {
                states[usize::from(state)] += 1;
                continue;
            }
            self.path.push(task);
            let stat = self.stat();
            self.path.pop();
            if let Some((state, _)) = stat? {
                states[usize::from(state)] += 1;
            }
        }
        self.path.pop();
        Ok(())
    }
}

impl Collector for Processes {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.below(|this| this.count(out))
    }
}

impl Processes {
    fn count(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let (mut pids, mut threads) = (0u64, 0u64);
        let (mut states, mut thread_states): (States, States) = ([0; 128], [0; 128]);
        let processes = self.numbers().map_err(|error| CollectError::read(&self.path, error))?;
        let mut tasks = None;
        for process in &processes {
            self.path.push(process);
            if let Some((state, count)) = self.stat()? {
                pids += 1;
                threads += count;
                states[usize::from(state)] += 1;
                // A copy of procfs may lack them.
                if *tasks.get_or_insert_with(|| self.path.join("task").exists()) {
                    self.threads(process, state, count, &mut thread_states)?;
                }
            }
            self.path.pop();
        }
        out.family(&THREADS).put([], threads);
        out.family(&PIDS).put([], pids);
        for (family, states) in [(&STATE, &states), (&THREADS_STATE, &thread_states)] {
            let mut samples = out.family(family);
            for (letter, count) in (0u8..).zip(states).filter(|(_, count)| **count > 0) {
                samples.put([char::from(letter).encode_utf8(&mut [0; 4]) as &str], *count);
            }
        }
        for (family, file) in [(&MAX_THREADS, &mut self.max_threads), (&MAX_PIDS, &mut self.max_pids)] {
            let limit = text::u64(file.read()?.trim_ascii());
            out.family(family).put([], limit.ok_or_else(|| CollectError::format(file.path(), "is no number"))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    #[test]
    fn a_name_may_look_like_fields() {
        let rest = "R 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 37 0 5\n";
        assert_eq!(parse(format!("7 (a) S 1) b) {rest}").as_bytes()), Some((b'R', 37)));
        assert_eq!(parse(b"7 (a) R 1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn our_own_threads_are_counted() {
        let tree = Tree::new("processes", |settings| settings.paths = crate::config::Paths::default());
        let (stop, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let sleeper = std::thread::spawn(move || wait.recv());
        let number = |text: &str, name: &str| -> u64 {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
        };
        let (text, success) = tree.scrape();
        assert!(success, "{text}");
        let (pids, threads) = (number(&text, "node_processes_pids"), number(&text, "node_processes_threads"));
        assert!(pids >= 1 && threads > pids && number(&text, "node_processes_max_processes") > pids, "{text}");
        let sum = |family: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(family));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        assert_eq!(sum("node_processes_state{"), pids);
        let states = sum("node_processes_threads_state{");
        assert!(states.abs_diff(threads) <= threads / 2, "{text}");
        drop(stop);
        assert!(sleeper.join().unwrap().is_err());
    }

    #[test]
    fn a_process_that_cannot_be_read_is_an_error_once_and_no_more() {
        let tree = Tree::new("processes", |_| {});
        tree.write("proc/sys/kernel/threads-max", "9\n");
        tree.write("proc/sys/kernel/pid_max", "8\n");
        fs::create_dir_all(tree.path("proc/5/stat")).unwrap();
        assert!(!tree.scrape().1);
        fs::remove_dir(tree.path("proc/5/stat")).unwrap();
        tree.write("proc/5/stat", "5 (x) Z 1 1 1 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5\n");
        let text = "node_processes_threads 1\nnode_processes_pids 1\nnode_processes_state{state=\"Z\"} 1\n\
                    node_processes_max_threads 9\nnode_processes_max_processes 8\n";
        assert_eq!(tree.scrape(), (text.into(), true));
    }
}
