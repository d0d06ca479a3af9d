//! One process: what it used when last looked at, and what it uses now.
//!
//! Reads: `/proc/PID/{stat,schedstat,status,io,wchan,fd,smaps_rollup}`, `prlimit64(2)`. Yields: [`Member`]. Costs: 5 µs for
//! a process of one thread that has not run since, 20 µs for any other, while descriptors can be kept.
//!
//! Whether a process of one thread has run is exact: `schedstat` counts how often its thread came onto a CPU. What has
//! not run has made no call, hence its I/O, switches, descriptors, limits and place of waiting are what they were. What
//! others can do to it meanwhile shows in `stat`, which is always read: its pages are taken away, and then swap is read
//! again. Order matters: `schedstat` is read before what rests on it, so that whatever happens in between is seen next
//! time. Only `prlimit(2)` by another process escapes, until the process runs.
//!
//! Traps: the kernel adds a child's I/O to its parent's when that waits for it (kernel/exit.c, `wait_task_zombie`), hence a
//! shell's group has that of its children too, as with process-exporter. Context switches in `status` are those of the
//! main thread, as process-exporter tells them; what the kernel tells at the end of a process are those of all threads, hence
//! [`Member::threaded`].

use super::files::{Files, Kept};
use super::parse::{self, Stat};
use super::wchan::Wchans;
use std::io;
use std::sync::LazyLock;

/// What only rises.
pub const COUNTS: usize = 8;

/// Index in [`Counts`]: time in user mode, ns.
pub const USER: usize = 0;
/// Time in the kernel, ns.
pub const SYSTEM: usize = 1;
/// Bytes from storage.
pub const READ: usize = 2;
/// Bytes to storage.
pub const WRITE: usize = 3;
/// Page faults without a read.
pub const MINOR: usize = 4;
/// Page faults with a read.
pub const MAJOR: usize = 5;
/// Switches since it waited.
pub const VOLUNTARY: usize = 6;
/// Switches since its time was over.
pub const INVOLUNTARY: usize = 7;

/// What a process or a group used.
pub type Counts = [u64; COUNTS];

/// Adds what `now` has more than `before`, and makes `before` that. A number that is less than before adds nothing.
pub fn advance(sum: &mut Counts, before: &mut Counts, now: &Counts) {
    for ((sum, before), now) in sum.iter_mut().zip(before).zip(now) {
        *sum += now.saturating_sub(*before);
        *before = (*before).max(*now);
    }
}

/// Bytes of a page.
static PAGE: LazyLock<u64> = LazyLock::new(|| {
    // SAFETY: takes no pointer.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
});

/// What is read beside what always is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detail {
    /// Where its main thread waits.
    pub wchan: bool,
    /// Its share of memory, which makes the kernel walk its page tables.
    pub smaps: bool,
}

/// A process.
#[derive(Debug)]
pub struct Member {
    /// Its id.
    pub pid: u32,
    /// Whether it was read before.
    known: bool,
    stat_file: Kept,
    schedstat_file: Kept,
    status_file: Kept,
    io_file: Kept,
    wchan_file: Kept,
    /// Last text of its `stat`.
    pub stat: Stat,
    /// It was seen with more threads than one: its context switches, those of the main thread, are not comparable with what
    /// the kernel tells at its end, those of all threads.
    pub threaded: bool,
    schedstat: Option<[u64; 2]>,
    /// What it used, never less than before.
    pub counts: Counts,
    /// Effective user.
    pub user: u32,
    /// Swapped out, bytes.
    pub swapped: u64,
    /// Open descriptors, where they may be counted.
    pub descriptors: Option<u64>,
    /// Soft limit of descriptors.
    pub most_descriptors: Option<u64>,
    /// Its share of resident memory and swap, bytes.
    pub shares: [u64; 2],
    /// Where its main thread waits, in [`Wchans`].
    pub wchan: Option<u16>,
    /// Something of it could not be read.
    pub partial: bool,
}

/// What came of reading a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as of now.
    Read,
    /// It has ended.
    Gone,
    /// It may not be read at all.
    Refused,
}

impl Member {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            known: false,
            stat_file: Kept::default(),
            schedstat_file: Kept::default(),
            status_file: Kept::default(),
            io_file: Kept::default(),
            wchan_file: Kept::default(),
            stat: Stat::default(),
            threaded: false,
            schedstat: None,
            counts: [0; COUNTS],
            user: 0,
            swapped: 0,
            descriptors: None,
            most_descriptors: None,
            shares: [0; 2],
            wchan: None,
            partial: false,
        }
    }

    /// Resident memory, bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.stat.resident_pages * *PAGE
    }

    /// Reads its `stat`. With [`Member::read_rest`] that is all; alone it tells who the process is.
    pub fn read_stat(&mut self, files: &mut Files) -> (Outcome, Stat) {
        let pid = self.pid;
        let stat = match files.read(&mut self.stat_file, true, format_args!("{pid}/stat")) {
            Ok(text) => parse::stat(text),
            Err(error) if is_gone(&error) => return (Outcome::Gone, self.stat),
            Err(_) => None,
        };
        match stat {
            // Another process has its id.
            Some(stat) if self.known && stat.start_ticks != self.stat.start_ticks => (Outcome::Gone, self.stat),
            Some(stat) => (Outcome::Read, stat),
            None => (Outcome::Refused, self.stat),
        }
    }

    /// Takes over a `stat` and reads the rest, where that can have changed; adds to `sum` what it used meanwhile.
    pub fn read_rest(&mut self, stat: Stat, detail: Detail, files: &mut Files, wchans: &mut Wchans, sum: &mut Counts) {
        let pid = self.pid;
        // Room for one more of each that is still to come.
        let keep = files.has_room(64);
        let schedstat = if stat.threads == 1 {
            let text = files.read(&mut self.schedstat_file, keep, format_args!("{pid}/schedstat"));
            text.ok().and_then(parse::schedstat)
        } else {
            None
        };
        let idle = self.known
            && schedstat.is_some()
            && schedstat == self.schedstat
            && self.stat.threads == 1
            && stat.state != b'R'
            && stat.resident_pages == self.stat.resident_pages;
        let mut counts = self.counts;
        counts[USER] = stat.user_ticks * super::clock::TICK_NS;
        counts[SYSTEM] = stat.system_ticks * super::clock::TICK_NS;
        counts[MINOR] = stat.minor_faults;
        counts[MAJOR] = stat.major_faults;
        self.known = true;
        self.stat = stat;
        self.threaded |= stat.threads > 1;
        self.schedstat = schedstat;
        if !idle {
            self.partial = false;
            if let Some(text) = self.file(files, |own| &mut own.status_file, keep, "status") {
                let status = parse::status(text);
                counts[VOLUNTARY] = status.voluntary_switches;
                counts[INVOLUNTARY] = status.involuntary_switches;
                self.swapped = status.swapped_bytes;
                self.user = status.user;
            }
            if let Some(text) = self.file(files, |own| &mut own.io_file, keep, "io") {
                match parse::io(text) {
                    Some([read, write]) => (counts[READ], counts[WRITE]) = (read, write),
                    None => self.partial = true,
                }
            }
            match files.open_descriptors(pid) {
                Ok(count) => self.descriptors = Some(count),
                Err(error) => self.partial |= !is_gone(&error),
            }
            self.most_descriptors = descriptor_limit(pid, files);
            if detail.wchan {
                let text = self.file(files, |own| &mut own.wchan_file, keep, "wchan");
                self.wchan = text.and_then(|text| wchans.index(text));
            }
        }
        if detail.smaps {
            match files.read_once(format_args!("{pid}/smaps_rollup")) {
                Ok(text) => self.shares = parse::smaps_rollup(text).unwrap_or_default(),
                // Threads of the kernel and zombies have none.
                Err(error) => {
                    self.shares = [0; 2];
                    self.partial |= error.kind() == io::ErrorKind::PermissionDenied;
                }
            }
        }
        advance(sum, &mut self.counts, &counts);
    }

    /// Reads one of its files; that it may not be read makes the process a partial one.
    fn file<'f>(
        &mut self,
        files: &'f mut Files,
        kept: fn(&mut Self) -> &mut Kept,
        keep: bool,
        name: &str,
    ) -> Option<&'f [u8]> {
        let pid = self.pid;
        match files.read(kept(self), keep, format_args!("{pid}/{name}")) {
            Ok(text) => Some(text),
            Err(error) => {
                self.partial |= !is_gone(&error);
                None
            }
        }
    }

    /// Closes its descriptors.
    pub fn forget(&mut self, files: &mut Files) {
        for kept in [
            &mut self.stat_file,
            &mut self.schedstat_file,
            &mut self.status_file,
            &mut self.io_file,
            &mut self.wchan_file,
        ] {
            files.forget(kept);
        }
    }
}

/// Whether an error only says that the process has ended.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The soft limit of descriptors.
fn descriptor_limit(pid: u32, files: &mut Files) -> Option<u64> {
    if files.own_pids()
        && let Some([soft, _]) = limit(pid, libc::RLIMIT_NOFILE)
    {
        return Some(soft);
    }
    files.read_once(format_args!("{pid}/limits")).ok().and_then(|text| parse::limit(text, b"Max open files"))
}

/// A limit of a process, soft and hard; of another user's only with `CAP_SYS_RESOURCE`.
#[must_use]
pub fn limit(pid: u32, which: libc::__rlimit_resource_t) -> Option<[u64; 2]> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: a pointer to a value of the right type, and none to be set.
    let result = unsafe { libc::prlimit64(pid, which, std::ptr::null(), &raw mut limit) };
    (result == 0).then_some([limit.rlim_cur, limit.rlim_max])
}
