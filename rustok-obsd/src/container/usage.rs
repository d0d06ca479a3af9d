//! What containers have written into their file systems, counted in the background (`container.disk_usage`).
//!
//! Reads: the directory of each container's writable layer, as its runtime names it. Yields: bytes and inodes in it. Costs:
//! only if wanted: a thread that walks one layer after the other, at most a twentieth of the time, a layer at most once a
//! minute, and never more than a million entries of one.

use rustc_hash::{FxHashMap, FxHashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::liveness::{self, Late};
use crate::target::inside::Root;

/// Between two walks of a layer at least.
const PERIOD: Duration = Duration::from_secs(60);
/// A walk is followed by so many times its own time.
const REST: u32 = 20;
/// Entries of a layer at most.
const MOST: u64 = 1_000_000;
/// After so many entries others may go first.
const BREATH: u64 = 512;
/// A walk that takes longer is shown in `/status`: a file system may hold it up for ever.
const SLOW: Duration = Duration::from_secs(600);
/// How soon a new layer is walked, and the end is noticed.
const TICK: Duration = Duration::from_millis(200);

/// What is in a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes on the device.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
    /// Device on which it is.
    pub device: (u32, u32),
}

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    used: Option<Used>,
    next: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    layers: Mutex<FxHashMap<Box<str>, Layer>>,
    stop: AtomicBool,
}

impl Shared {
    fn layers(&self) -> MutexGuard<'_, FxHashMap<Box<str>, Layer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The walker.
#[derive(Debug)]
pub struct Usage(Arc<Shared>);

impl Usage {
    /// Starts the thread.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let walker = Arc::clone(&shared);
        thread::Builder::new().name("layers".into()).spawn(move || walk(&walker))?;
        Ok(Self(shared))
    }

    /// What is known of a container's layer, which from now on is walked.
    pub fn of(&self, container: &str, path: impl FnOnce() -> PathBuf) -> Option<Used> {
        let mut layers = self.0.layers();
        if let Some(layer) = layers.get(container) {
            return layer.used;
        }
        layers.insert(container.into(), Layer { path: path(), used: None, next: Instant::now() });
        None
    }

    /// A container is gone.
    pub fn forget(&self, container: &str) {
        self.0.layers().remove(container);
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

fn walk(shared: &Shared) {
    let beat = liveness::process().register_as("layers", SLOW, Late::Shown);
    while !shared.stop.load(Ordering::Relaxed) {
        beat.alive();
        let due = |layers: &FxHashMap<Box<str>, Layer>| {
            let first = layers.iter().min_by_key(|(_, layer)| layer.next)?;
            (first.1.next <= Instant::now()).then(|| (first.0.clone(), first.1.path.clone()))
        };
        let Some((container, path)) = due(&shared.layers()) else {
            thread::sleep(TICK);
            continue;
        };
        let start = Instant::now();
        let used = count(&path, &shared.stop);
        let took = start.elapsed();
        if let Some(layer) = shared.layers().get_mut(&container) {
            layer.used = used;
            layer.next = Instant::now() + PERIOD.max(took * REST);
        }
        let until = Instant::now() + took * REST;
        while Instant::now() < until && !shared.stop.load(Ordering::Relaxed) {
            thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

/// Counts a directory, links once, without leaving its file system; `None` where it cannot be read or has too many entries.
///
/// The container may put a link in place of a directory at any time: each is opened below the layer, which no link leaves.
fn count(path: &Path, stop: &AtomicBool) -> Option<Used> {
    let meta = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir)?;
    let root =
        Root::open(path).ok().filter(|root| root.identity().is_ok_and(|root| root == (meta.dev(), meta.ino())))?;
    let device = meta.dev();
    let number = (libc::major(device), libc::minor(device));
    let mut used = Used { bytes: meta.blocks() * 512, inodes: 1, device: number };
    let (mut open, mut linked, mut seen) = (vec![PathBuf::from(".")], FxHashSet::default(), 0u64);
    while let Some(folder) = open.pop() {
        // It may be gone by now, or be the container's alone to read.
        let Ok(opened) = root.open_folder(&folder) else { continue };
        for entry in opened.entries().into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST || stop.load(Ordering::Relaxed) {
                return None;
            }
            if seen.is_multiple_of(BREATH) {
                thread::sleep(Duration::from_millis(1));
            }
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != device || (meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino())) {
                continue;
            }
            used.bytes += meta.blocks() * 512;
            used.inodes += 1;
            if meta.is_dir() {
                open.push(folder.join(entry.file_name()));
            }
        }
    }
    Some(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_counted_with_links_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("a")).unwrap();
        fs::write(path.join("a/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(path.join("a/file"), path.join("again")).unwrap();
        std::os::unix::fs::symlink("/", path.join("link")).unwrap();
        let usage = Usage::start().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let used = loop {
            if let Some(used) = usage.of("c", || path.to_owned()) {
                break used;
            }
            assert!(Instant::now() < until, "never counted");
            thread::sleep(Duration::from_millis(20));
        };
        // Two directories, a file, a symbolic link.
        assert_eq!(used.inodes, 4);
        assert!((100_000..300_000).contains(&used.bytes), "{used:?}");
        usage.forget("c");
        assert_eq!(count(&path.join("nowhere"), &AtomicBool::new(false)), None);
    }
}
