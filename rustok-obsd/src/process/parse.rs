//! The files of `/proc/PID` that tell what a process does and uses. Format: `proc(5)`, fs/proc/array.c, fs/proc/base.c.
//!
//! Reads: their text. Yields: numbers. Costs: one pass each; no allocation.

use crate::host::text;

/// `PF_KTHREAD` of include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A process' name, at most 15 bytes (64 for workers of the kernel, cut).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Comm {
    bytes: [u8; 16],
    len: u8,
}

impl Comm {
    /// Up to the first zero, and at most 16 bytes.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let len = text.iter().take(16).position(|byte| *byte == 0).unwrap_or(text.len().min(16));
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(&text[..len]);
        Self { bytes, len: len as u8 }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Name of the main thread.
    pub comm: Comm,
    /// `R`, `S`, `D`, `Z`, …
    pub state: u8,
    /// Its parent.
    pub parent: u32,
    /// A thread of the kernel.
    pub kernel_thread: bool,
    /// Page faults without a read.
    pub minor_faults: u64,
    /// Page faults with a read.
    pub major_faults: u64,
    /// In user mode, clock ticks.
    pub user_ticks: u64,
    /// In the kernel, clock ticks.
    pub system_ticks: u64,
    /// Threads.
    pub threads: u64,
    /// Clock ticks after boot.
    pub start_ticks: u64,
    /// Virtual memory, bytes.
    pub virtual_bytes: u64,
    /// Resident memory, pages.
    pub resident_pages: u64,
}

/// Parses `/proc/PID/stat`; `None` where it is none. A name may hold blanks and parentheses.
#[must_use]
pub fn stat(text: &[u8]) -> Option<Stat> {
    let open = memchr::memchr(b'(', text)?;
    let close = memchr::memrchr(b')', text)?;
    let comm = Comm::new(text.get(open + 1..close)?);
    // Numbered as proc(5) does; the state is 3.
    let mut fields = text.get(close + 2..)?.split(|byte| matches!(byte, b' ' | b'\n'));
    let state = *fields.next()?.first()?;
    let parent = u32::try_from(text::u64(fields.next()?)?).ok()?;
    let mut number = |skip: usize| text::u64(fields.nth(skip)?);
    let flags = number(9 - 5)?;
    let minor_faults = number(0)?;
    let major_faults = number(1)?;
    let user_ticks = number(1)?;
    let system_ticks = number(0)?;
    // Priority and nice between them can be negative: they are skipped, not read.
    let threads = number(20 - 16)?;
    let start_ticks = number(1)?;
    let virtual_bytes = number(0)?;
    let resident_pages = number(0)?;
    Some(Stat {
        comm,
        state,
        parent,
        kernel_thread: flags & KERNEL_THREAD != 0,
        minor_faults,
        major_faults,
        user_ticks,
        system_ticks,
        threads,
        start_ticks,
        virtual_bytes,
        resident_pages,
    })
}

/// `/proc/PID/status`, what [`Stat`] lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Effective user.
    pub user: u32,
    /// Memory swapped out, bytes.
    pub swapped_bytes: u64,
    /// Of the main thread: it waited.
    pub voluntary_switches: u64,
    /// Of the main thread: its time was over.
    pub involuntary_switches: u64,
}

/// Parses `/proc/PID/status`; what is absent is 0 (threads of the kernel and zombies have no memory).
#[must_use]
pub fn status(text: &[u8]) -> Status {
    let mut status = Status::default();
    let number = |rest: &[u8], nth: usize| text::words(rest).nth(nth).and_then(text::u64).unwrap_or(0);
    for line in text::lines(text) {
        if let Some(rest) = line.strip_prefix(b"Uid:") {
            status.user = number(rest, 1) as u32;
        } else if let Some(rest) = line.strip_prefix(b"VmSwap:") {
            status.swapped_bytes = number(rest, 0) << 10;
        } else if let Some(rest) = line.strip_prefix(b"voluntary_ctxt_switches:") {
            status.voluntary_switches = number(rest, 0);
        } else if let Some(rest) = line.strip_prefix(b"nonvoluntary_ctxt_switches:") {
            status.involuntary_switches = number(rest, 0);
        }
    }
    status
}

/// `/proc/PID/io`: bytes that really went to and came from storage.
#[must_use]
pub fn io(text: &[u8]) -> Option<[u64; 2]> {
    let mut found = [None; 2];
    for line in text::lines(text) {
        if let Some(rest) = line.strip_prefix(b"read_bytes: ") {
            found[0] = text::u64(rest);
        } else if let Some(rest) = line.strip_prefix(b"write_bytes: ") {
            found[1] = text::u64(rest);
        }
    }
    Some([found[0]?, found[1]?])
}

/// `/proc/PID/schedstat`: time on a CPU in ns, and how often it came onto one.
#[must_use]
pub fn schedstat(text: &[u8]) -> Option<[u64; 2]> {
    let mut words = text.trim_ascii_end().split(|byte| *byte == b' ');
    let run = text::u64(words.next()?)?;
    Some([run, text::u64(words.nth(1)?)?])
}

/// `/proc/PID/smaps_rollup`: the process' share of resident memory and of swap, bytes.
#[must_use]
pub fn smaps_rollup(text: &[u8]) -> Option<[u64; 2]> {
    let mut found = [None; 2];
    for (name, rest) in text::fields(text) {
        let kilobytes = || text::words(rest).next().and_then(text::u64).map(|value| value << 10);
        match name {
            b"Pss" => found[0] = kilobytes(),
            b"SwapPss" => found[1] = kilobytes(),
            _ => {}
        }
    }
    Some([found[0]?, found[1].unwrap_or(0)])
}

/// The soft limit of a line of `/proc/PID/limits`; `unlimited` is the largest number.
#[must_use]
pub fn limit(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text::lines(text).find_map(|line| line.strip_prefix(name))?;
    let word = text::words(line).next()?;
    if word == b"unlimited" { Some(u64::MAX) } else { text::u64(word) }
}

/// The path of a line of `/proc/PID/cgroup`: version 2 where a process is in it, else systemd's own hierarchy, else the
/// first that says something.
#[must_use]
pub fn cgroup(text: &[u8]) -> &[u8] {
    let mut first: &[u8] = b"/";
    let mut systemd = None;
    for line in text::lines(text) {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if path == b"/" {
            continue;
        }
        if id == b"0" {
            return path;
        }
        if controllers == b"name=systemd" {
            systemd = Some(path);
        }
        if first == b"/" {
            first = path;
        }
    }
    systemd.unwrap_or(first)
}

/// The systemd unit that a cgroup belongs to: the first part of its path that is no slice.
#[must_use]
pub fn unit(cgroup: &[u8]) -> Option<&[u8]> {
    let part = cgroup.split(|byte| *byte == b'/').find(|part| !part.is_empty() && !part.ends_with(b".slice"))?;
    (part.ends_with(b".service") || part.ends_with(b".scope")).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_with_blanks_and_parentheses_in_its_name() {
        let text =
            b"77 (a) b (c)) S 5 77 77 0 -1 4194560 101 7 3 9 12 34 5 6 20 -5 4 0 22 8192 33 18446744073709551615 1 1";
        let stat = stat(text).unwrap();
        assert_eq!(stat.comm.as_bytes(), b"a) b (c)");
        assert_eq!((stat.state, stat.parent, stat.kernel_thread), (b'S', 5, false));
        assert_eq!((stat.minor_faults, stat.major_faults), (101, 3));
        assert_eq!((stat.user_ticks, stat.system_ticks), (12, 34));
        assert_eq!((stat.threads, stat.start_ticks), (4, 22));
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (8192, 33));
    }

    #[test]
    fn cut_texts_are_none_and_never_a_panic() {
        let text = b"77 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 3 0 0";
        assert!(stat(text).unwrap().kernel_thread);
        for end in 0..text.len() - 1 {
            assert_eq!(stat(&text[..end]), None, "{end}");
        }
        for text in [b"".as_slice(), b"read_bytes: 1\n", b"read_bytes: x\nwrite_bytes: 1\n"] {
            assert_eq!(io(text), None);
        }
        assert_eq!((schedstat(b"1 2"), smaps_rollup(b"Rss: 1 kB\n")), (None, None));
    }

    #[test]
    fn the_kernels_own_files_are_understood() {
        let read = |name: &str| std::fs::read(format!("/proc/self/{name}")).unwrap();
        let stat = stat(&read("stat")).unwrap();
        assert!(stat.threads >= 1 && stat.resident_pages > 100 && stat.start_ticks > 0 && !stat.kernel_thread);
        assert!(status(&read("status")).voluntary_switches + status(&read("status")).involuntary_switches > 0);
        assert!(io(&read("io")).is_some() && schedstat(&read("schedstat")).unwrap()[0] > 0);
        assert!(smaps_rollup(&read("smaps_rollup")).unwrap()[0] > 100 << 10);
        let mut limit_now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a value of the right type.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit_now) };
        assert_eq!(limit(&read("limits"), b"Max open files"), Some(limit_now.rlim_cur));
    }

    #[test]
    fn units_and_cgroups() {
        assert_eq!(
            cgroup(b"5:cpu:/docker/x:y\n1:name=systemd:/system.slice/a.service\n0::/\n"),
            b"/system.slice/a.service"
        );
        assert_eq!(cgroup(b"5:cpu:/docker/x:y\n0::/\n"), b"/docker/x:y");
        assert_eq!(cgroup(b"5:cpu:/a\n0::/b\n"), b"/b");
        assert_eq!(cgroup(b""), b"/");
        for (path, wanted) in [
            (b"/system.slice/a.service".as_slice(), Some(b"a.service".as_slice())),
            (b"/user.slice/user-0.slice/session-1.scope", Some(b"session-1.scope")),
            (b"/user.slice/user-0.slice/user@0.service/app.slice/x.service", Some(b"user@0.service")),
            (b"/init.scope", Some(b"init.scope")),
            (b"/", None),
            (b"/docker/abc", None),
            (b"/system.slice", None),
        ] {
            assert_eq!(unit(path), wanted);
        }
    }
}
