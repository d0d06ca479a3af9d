//! A file system whose server is the test's own, and stops to answer when the test wants it.
//!
//! Reads: the kernel's requests (include/uapi/linux/fuse.h). Yields: [`Fuse`], one file or an empty folder. Costs: a thread
//! that ends with its value.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use crate::Skip;

const GETATTR: u32 = 3;
const READ: u32 = 15;
const INIT: u32 = 26;
/// `struct fuse_in_header`.
const HEAD: usize = 40;

/// What is mounted.
#[derive(Debug, Clone)]
pub enum Served {
    /// An empty folder.
    Folder,
    /// A file that every user may read and run.
    File(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    asked: AtomicU64,
    unanswered: AtomicU64,
    no_reads: AtomicBool,
    silent: AtomicBool,
}

/// See the module's head. Dropping it unmounts it; whoever waits for an answer gets an error.
#[derive(Debug)]
pub struct Fuse {
    point: PathBuf,
    state: Arc<State>,
    /// The server ends when this does.
    stop: Option<UnixStream>,
    server: Option<JoinHandle<()>>,
}

impl Fuse {
    /// Mounts over `point`, a file or a folder that is there, for all users.
    ///
    /// # Errors
    /// Where FUSE cannot be mounted.
    pub fn mount(point: &Path, served: Served) -> Result<Self, Skip> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| Skip::new(format!("/dev/fuse: {error}")))?;
        let mode = if matches!(served, Served::Folder) { "40000" } else { "100000" };
        let data = format!("fd={},rootmode={mode},user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount("silence", point, "fuse", 0, &data)?;
        let (stop, stopped) = UnixStream::pair().map_err(|error| Skip::new(format!("a pair of sockets: {error}")))?;
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let server = std::thread::spawn(move || serve(device, &stopped, &served, &shared));
        Ok(Self { point: point.to_owned(), state, stop: Some(stop), server: Some(server) })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// From now on no content is read.
    pub fn keep_content(&self) {
        self.state.no_reads.store(true, SeqCst);
    }

    /// From now on nothing is answered.
    pub fn fall_silent(&self) {
        self.state.silent.store(true, SeqCst);
    }

    /// Requests so far, but for the first one, which belongs to the mount.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.state.asked.load(SeqCst)
    }

    /// Those of them that got no answer.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.state.unanswered.load(SeqCst)
    }

    /// Ends the server. The mount stays: who waits for an answer, and who asks later, gets an error.
    ///
    /// # Panics
    /// If the server did.
    pub fn cut(&mut self) {
        self.stop = None;
        if let Some(server) = self.server.take() {
            server.join().expect("the server of the file system");
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.server.take().map(JoinHandle::join);
        let point = CString::new(self.point.to_str().unwrap_or_default()).unwrap_or_default();
        // SAFETY: a C string that lives for the call.
        unsafe { libc::umount2(point.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Mounts in the namespace of the calling thread.
///
/// # Errors
/// What the kernel said.
///
/// # Panics
/// If a text holds a NUL, or the path is not UTF-8.
pub fn mount(device: &str, point: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> Result<(), Skip> {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let [device, target, fs_type, data] = [device, point.to_str().expect("UTF-8"), kind, data].map(text);
    // SAFETY: all texts end in NUL.
    let done = unsafe { libc::mount(device.as_ptr(), target.as_ptr(), fs_type.as_ptr(), flags, data.as_ptr().cast()) };
    let error = io::Error::last_os_error();
    if done == 0 { Ok(()) } else { Err(Skip::new(format!("mount of {kind} at {}: {error}", point.display()))) }
}

/// Runs `body` in a thread with a mount namespace of its own, and others by `flags`; what it mounts goes with the thread.
///
/// # Errors
/// Those of `body`, and where the namespaces cannot be made.
///
/// # Panics
/// If `body` does.
pub fn apart<T: Send>(flags: libc::c_int, body: impl FnOnce() -> Result<T, Skip> + Send) -> Result<T, Skip> {
    let run = move || {
        // SAFETY: changes this thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS | flags) } != 0 {
            return Err(Skip::new(format!("unshare: {}", io::Error::last_os_error())));
        }
        mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
        body()
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn serve(mut device: File, stopped: &UnixStream, served: &Served, state: &State) {
    let mut request = vec![0; 256 << 10];
    while is_asked(&device, stopped) {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            // It was unmounted.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            // Who asked has gone.
            Err(_) => continue,
        };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        if length < HEAD {
            continue;
        }
        let operation = word(4);
        if operation != INIT {
            state.asked.fetch_add(1, SeqCst);
            if state.silent.load(SeqCst) || operation == READ && state.no_reads.load(SeqCst) {
                state.unanswered.fetch_add(1, SeqCst);
                continue;
            }
        }
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let body: Result<Vec<u8>, i32> = match (operation, served) {
            (INIT, _) => Ok(words(&[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            (GETATTR, served) => Ok(words(&attributes(served))),
            // `struct fuse_read_in`: handle, offset, size.
            (READ, Served::File(content)) => {
                let start = content.len().min(word(48) as usize);
                Ok(content[start..content.len().min(start + word(56) as usize)].to_vec())
            }
            // To open it as well: the kernel does that by itself then.
            _ => Err(-libc::ENOSYS),
        };
        let (error, body) = body.map_or_else(|error| (error, Vec::new()), |body| (0, body));
        let mut answer = (16 + body.len() as u32).to_ne_bytes().to_vec();
        answer.extend_from_slice(&error.to_ne_bytes());
        answer.extend_from_slice(&request[8..16]);
        answer.extend_from_slice(&body);
        // Who asked may have gone.
        let _ = device.write_all(&answer);
    }
}

/// Waits for the next request; false when the value of the file system is gone.
fn is_asked(device: &File, stopped: &UnixStream) -> bool {
    let of = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut both = [of(device.as_raw_fd()), of(stopped.as_raw_fd())];
    // SAFETY: two structures that live for the call.
    while unsafe { libc::poll(both.as_mut_ptr(), 2, -1) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
    both[1].revents == 0
}

/// `struct fuse_attr_out`: valid for an hour; every user may read and run it.
fn attributes(served: &Served) -> Vec<u32> {
    let (size, mode) = match served {
        Served::Folder => (0, libc::S_IFDIR | 0o755),
        Served::File(content) => (content.len() as u32, libc::S_IFREG | 0o755),
    };
    let mut words = vec![3600, 0, 0, 0];
    // ino, size, blocks, three times: 64 bits each.
    words.extend([1, 0, size, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // Nanoseconds; mode, links, owner, device, block size, flags.
    words.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]);
    words
}
