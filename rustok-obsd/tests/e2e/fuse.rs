//! An executable on a file system that stops to answer: a FUSE mount of the test's own.
//!
//! Reads: the kernel's requests (include/uapi/linux/fuse.h). Yields: [`SilentFile`]. Costs: a thread that ends with the
//! mount.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use test_support::Skip;

const GETATTR: u32 = 3;
const READ: u32 = 15;
const INIT: u32 = 26;

/// See the module's head. Dropping it unmounts it, and whoever waits for its content gets an error.
pub struct SilentFile {
    pub path: PathBuf,
    silent: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

impl SilentFile {
    /// A copy of `content` that every user may run.
    pub fn mount(folder: &Path, content: &Path) -> Result<Self, Skip> {
        let content = fs::read(content).expect("the program");
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| Skip::new(format!("/dev/fuse: {error}")))?;
        let path = folder.join("silent-copy");
        fs::write(&path, "").expect("a file to mount over");
        let data = format!("fd={},rootmode=100755,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let text = |text: &str| CString::new(text).expect("no NUL");
        let (kind, point, data) = (text("fuse"), text(path.to_str().expect("UTF-8")), text(&data));
        // SAFETY: C strings that live for the call.
        let mounted = unsafe { libc::mount(kind.as_ptr(), point.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
        if mounted != 0 {
            return Err(Skip::new(format!("mount -t fuse: {}", io::Error::last_os_error())));
        }
        let (silent, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (told, counted) = (Arc::clone(&silent), Arc::clone(&reads));
        std::thread::spawn(move || serve(device, &content, &told, &counted));
        Ok(Self { path, silent, reads })
    }

    /// From now on no read is answered.
    pub fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    /// Reads that got no answer.
    pub fn unanswered(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

impl Drop for SilentFile {
    fn drop(&mut self) {
        let point = CString::new(self.path.to_str().unwrap_or_default()).unwrap_or_default();
        // SAFETY: a C string that lives for the call.
        unsafe { libc::umount2(point.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        // Its thread ends when the last user of the mount has gone; nobody waits for that here.
    }
}

fn serve(mut device: File, content: &[u8], silent: &AtomicBool, unanswered: &AtomicU64) {
    let mut request = vec![0; 256 << 10];
    while let Ok(length) = device.read(&mut request) {
        if length < 40 {
            return;
        }
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let body: Result<Vec<u8>, i32> = match word(4) {
            READ if silent.load(Ordering::SeqCst) => {
                unanswered.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            // `struct fuse_read_in`: handle, offset, size.
            READ => {
                let start = content.len().min(word(48) as usize);
                Ok(content[start..content.len().min(start + word(56) as usize)].to_vec())
            }
            INIT => Ok(words(&[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            GETATTR => Ok(words(&attributes(content.len() as u32))),
            // OPEN too: the kernel opens the file by itself then.
            _ => Err(-libc::ENOSYS),
        };
        let (error, body) = body.map_or_else(|error| (error, Vec::new()), |body| (0, body));
        let mut answer = Vec::new();
        answer.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        answer.extend_from_slice(&error.to_ne_bytes());
        answer.extend_from_slice(&request[8..16]);
        answer.extend_from_slice(&body);
        if device.write_all(&answer).is_err() {
            return;
        }
    }
}

/// `struct fuse_attr_out`: valid for an hour; a regular file that everybody may read and run.
fn attributes(size: u32) -> Vec<u32> {
    let mut words = vec![3600, 0, 0, 0];
    // ino, size, blocks, three times: 64 bits each.
    words.extend([1, 0, size, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // Nanoseconds; mode, links, owner, device, block size, flags.
    words.extend([0, 0, 0, libc::S_IFREG | 0o755, 1, 0, 0, 0, 4096, 0]);
    words
}
