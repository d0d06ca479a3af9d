//! The table of mounts, and one mount's answers.
//!
//! Reads: the text of mountinfo; statfs(2). Yields: a [`Mount`] for each line that is wanted. Costs: a comparison of the
//! text where nothing changed; else one pass with a few allocations per mount.

use super::TIMEOUT;
use crate::config::collector::{Collectors, Filter};
use crate::exposition::WrittenLabels;
use crate::host::{Settings, text};
use rustc_hash::FxHashSet;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Labels of most families.
pub const LABELS: &[&str] = &["device", "mountpoint", "fstype", "device_error"];

/// Types whose server may be gone; `fuse` and `fuse.*` too.
const REMOTE: &[&str] = &[
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuseblk",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "pvfs2",
    "smb3",
    "smbfs",
    "virtiofs",
];

/// What a mount said.
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// Nothing, yet.
    #[default]
    Nothing,
    /// An error of the kernel.
    Error(i32),
    /// Size, free, available in bytes; files, free files.
    Sizes([u64; 5]),
}

impl Answer {
    /// Text of the label `device_error`, where there is an error.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Sizes(_) => None,
            Self::Nothing => Some(TIMEOUT.into()),
            Self::Error(code) => Some(error_text(*code)),
        }
    }
}

/// An error's text as Go's table has it: the C library's, in small letters.
fn error_text(code: i32) -> String {
    if code == libc::ESTALE {
        return "stale NFS file handle".into();
    }
    let text = io::Error::from_raw_os_error(code).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// One mount.
#[derive(Debug)]
pub struct Mount {
    device: String,
    point: String,
    fs_type: String,
    major: String,
    minor: String,
    path: CString,
    /// [`LABELS`] without an error, written.
    pub labels: Vec<u8>,
    /// By its options or those of its file system.
    pub read_only: bool,
    /// Whether statfs may hang.
    pub remote: bool,
    state: Arc<State>,
}

/// What outlives a change of the table.
#[derive(Debug, Default)]
struct State {
    stuck: AtomicBool,
    answered: AtomicBool,
    answer: Mutex<Answer>,
}

impl Mount {
    /// Whether a call is under way.
    pub fn is_stuck(&self) -> bool {
        self.state.stuck.load(Ordering::Acquire)
    }

    /// Whether the last call that ended had an answer.
    pub fn answered(&self) -> bool {
        self.state.answered.load(Ordering::Relaxed)
    }

    /// Drops the last answer.
    pub fn forget(&self) {
        *self.state.answer.lock().unwrap_or_else(PoisonError::into_inner) = Answer::Nothing;
    }

    /// The answer since.
    pub fn answer(&self) -> Answer {
        if self.is_stuck() {
            self.state.answered.store(false, Ordering::Relaxed);
            return Answer::Nothing;
        }
        self.state.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the kernel; may not come back.
    pub fn ask(&self) {
        self.state.stuck.store(true, Ordering::Release);
        let mut data = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the path ends in NUL, and the kernel fills the struct where it returns 0.
        let answer = if unsafe { libc::statfs(self.path.as_ptr(), data.as_mut_ptr()) } == 0 {
            // SAFETY: see above.
            let data = unsafe { data.assume_init() };
            let unit = data.f_bsize as u64;
            let bytes = |blocks: u64| blocks.saturating_mul(unit);
            let values = [bytes(data.f_blocks), bytes(data.f_bfree), bytes(data.f_bavail), data.f_files, data.f_ffree];
            Answer::Sizes(values)
        } else {
            Answer::Error(io::Error::last_os_error().raw_os_error().unwrap_or_default())
        };
        *self.state.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
        self.state.answered.store(true, Ordering::Relaxed);
        self.state.stuck.store(false, Ordering::Release);
    }

    /// Values of [`LABELS`].
    pub fn with_error<'m>(&'m self, error: &'m str) -> [&'m str; 4] {
        [&self.device, &self.point, &self.fs_type, error]
    }

    /// Values of the labels of `node_filesystem_mount_info`.
    pub fn info_labels(&self) -> [&str; 4] {
        [&self.device, &self.major, &self.minor, &self.point]
    }
}

/// The mounts that are wanted.
#[derive(Debug)]
pub struct Table {
    text: Vec<u8>,
    /// In the kernel's order, each device, place and type once.
    pub mounts: Vec<Arc<Mount>>,
    points: Filter,
    types: Filter,
    root: Vec<u8>,
}

impl Table {
    /// Empty.
    pub fn new(settings: &Settings) -> Self {
        let options = &settings.options;
        let root = settings.paths.rootfs.as_os_str().as_bytes();
        let root = root.strip_suffix(b"/").unwrap_or(root).to_vec();
        Self {
            text: Vec::new(),
            mounts: Vec::new(),
            points: Collectors::filter(
                &options.filesystem_mount_points_include,
                &options.filesystem_mount_points_exclude,
            ),
            types: Collectors::filter(&options.filesystem_fs_types_include, &options.filesystem_fs_types_exclude),
            root,
        }
    }

    /// Takes a text of mountinfo; lines that are none are skipped.
    pub fn update(&mut self, text: &[u8]) {
        if text == self.text {
            return;
        }
        let old = std::mem::take(&mut self.mounts);
        let mut mounts = Vec::with_capacity(old.len());
        let mut seen = FxHashSet::default();
        for mut mount in text::lines(text).filter_map(|line| self.parse(line)) {
            if seen.insert((mount.device.clone(), mount.point.clone(), mount.fs_type.clone())) {
                if let Some(old) = old.iter().find(|old| old.is_stuck() && old.path == mount.path) {
                    mount.state = Arc::clone(&old.state);
                }
                mounts.push(Arc::new(mount));
            }
        }
        self.mounts = mounts;
        self.text.clear();
        self.text.extend_from_slice(text);
    }

    /// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG…] - TYPE DEVICE OPTIONS` (proc_pid_mountinfo(5)).
    fn parse(&self, line: &[u8]) -> Option<Mount> {
        let mut words = line.split(|byte| *byte == b' ');
        let mut number = words.nth(2)?.split(|byte| *byte == b':');
        let (major, minor) = (number.next()?, number.next()?);
        let point = self.below_root(unescape(words.nth(1)?));
        let options = words.next()?;
        words.find(|word| *word == b"-")?;
        let (fs_type, device, super_options) = (words.next()?, words.next()?, words.next()?);
        let owned = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, fs_type, device) = (owned(&point), owned(fs_type), owned(device));
        if !self.points.wants(&name) || !self.types.wants(&fs_type) {
            return None;
        }
        let has = |options: &[u8], wanted: &[u8]| options.split(|byte| *byte == b',').any(|option| option == wanted);
        let mut path = self.root.clone();
        path.extend_from_slice(&point);
        let mut labels = Vec::new();
        let values = [device.as_str(), &name, &fs_type, ""];
        WrittenLabels::append(LABELS.iter().copied().zip(values), &mut labels);
        Some(Mount {
            path: CString::new(path).ok()?,
            labels,
            read_only: has(options, b"ro") || has(super_options, b"ro") || has(super_options, b"emergency_ro"),
            remote: REMOTE.contains(&fs_type.as_str()) || fs_type.split('.').next() == Some("fuse"),
            state: Arc::default(),
            device,
            point: name,
            fs_type,
            major: owned(major),
            minor: owned(minor),
        })
    }

    /// A mount point as the host sees it: without `path.rootfs`.
    fn below_root(&self, point: Vec<u8>) -> Vec<u8> {
        let inside =
            Path::new(std::ffi::OsStr::from_bytes(&point)).starts_with(std::ffi::OsStr::from_bytes(&self.root));
        match point.get(self.root.len()..) {
            Some(b"") if inside => b"/".to_vec(),
            Some(rest) if inside && !self.root.is_empty() => rest.to_vec(),
            _ => point,
        }
    }
}

/// The kernel writes blank, tab, line feed, backslash and `#` as `\ooo`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let byte = octal.and_then(|digits| {
            u8::try_from(digits.iter().fold(0u32, |sum, digit| sum * 8 + u32::from(digit - b'0'))).ok()
        });
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Paths;

    fn table(root: &str) -> Table {
        Table::new(&Settings { paths: Paths { rootfs: root.into(), ..Paths::default() }, ..Settings::default() })
    }

    fn points(table: &Table) -> Vec<(&str, &str)> {
        table.mounts.iter().map(|mount| (mount.point.as_str(), mount.path.to_str().unwrap_or("?"))).collect()
    }

    #[test]
    fn lines_are_taken_apart_once_and_garbage_is_skipped() {
        let mut table = table("/");
        let text = b"29 1 259:2 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw,errors=remount-ro\n\
            garbage\n\n1 2 3\n30 29 x / /y rw - ext4 d rw\n\
            31 29 8:1 / /a\\040b\\011c\\134d rw - xfs /dev/b rw\n\
            31 29 8:1 / /a\\040b\\011c\\134d rw - xfs /dev/b rw\n\
            32 29 8:1 / /bad\xff\\99 ro,noatime - xfs /dev/b rw\n\
            33 29 8:1 / /sup rw - nfs4 host:/x ro,vers=4\n\
            34 29 8:1 / /emergency rw - fuse.sshfs host: rw,emergency_ro\n\
            35 29 0:22 / /sys rw - sysfs sysfs rw\n\
            36 29 0:22 / /run rw - proc proc rw\n";
        table.update(text);
        assert_eq!(
            points(&table),
            [
                ("/", "/"),
                ("/a b\tc\\d", "/a b\tc\\d"),
                ("/bad\u{fffd}\\99", "?"),
                ("/sup", "/sup"),
                ("/emergency", "/emergency")
            ]
        );
        let of = |what: fn(&Mount) -> bool| table.mounts.iter().map(|mount| what(mount)).collect::<Vec<_>>();
        assert_eq!(of(|mount| mount.read_only), [false, false, true, true, true]);
        assert_eq!(of(|mount| mount.remote), [false, false, false, true, true]);
        assert_eq!(table.mounts[0].info_labels(), ["/dev/sda1", "259", "2", "/"]);
        let before = Arc::as_ptr(&table.mounts[0]);
        table.update(text);
        assert_eq!(Arc::as_ptr(&table.mounts[0]), before, "the same text is not taken apart again");
    }

    #[test]
    fn the_root_is_taken_off_at_whole_names_only() {
        let mut table = table("/host/");
        table.update(
            b"29 1 259:0 / /host rw - ext4 /dev/a rw\n30 1 260:0 / /host/media/volume1 rw - ext4 /dev/b rw\n\
            31 1 260:0 / /hostile rw - ext4 /dev/c rw\n31 26 0:26 / /run/lock rw - tmpfs tmpfs rw\n",
        );
        assert_eq!(
            points(&table),
            [
                ("/", "/host/"),
                ("/media/volume1", "/host/media/volume1"),
                ("/hostile", "/host/hostile"),
                ("/run/lock", "/host/run/lock")
            ]
        );
    }

    #[test]
    fn a_change_of_the_table_keeps_what_is_stuck() {
        let mut table = table("/");
        table.update(b"29 1 0:9 / /m rw - nfs a:/ rw\n");
        table.mounts[0].state.stuck.store(true, Ordering::Release);
        table.update(b"29 1 0:9 / /m rw - nfs a:/ rw\n30 1 0:9 / /n rw - nfs a:/ rw\n");
        assert!(table.mounts[0].is_stuck() && !table.mounts[1].is_stuck());
    }

    #[test]
    fn errors_have_the_texts_of_go() {
        for (code, text) in [
            (libc::EACCES, "permission denied"),
            (libc::ENOTCONN, "transport endpoint is not connected"),
            (libc::ESTALE, "stale NFS file handle"),
        ] {
            assert_eq!(Answer::Error(code).error().as_deref(), Some(text));
        }
    }
}
