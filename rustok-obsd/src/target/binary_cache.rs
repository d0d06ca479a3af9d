//! Analyses of executables, each made once.
//!
//! Reads: files. Yields: shared [`Binary`]s. Costs: a look-up for a file that is known; the analysis for one that is not, on
//! the caller's thread and outside of any lock: two that ask for one file at once may both analyse it.
//!
//! A file is known by its inode and the times of its last changes, never by what it says about itself: a build id can be
//! copied from anybody's file. Two files of one content are analysed twice, which costs some milliseconds.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::binary::Binary;
use super::budget::Limits;
use super::executable::{Executable, FileIdentity};
use super::inside::Root;
use super::points::CustomPoint;

/// Files remembered; a host observes a handful.
const MAX_FILES: usize = 256;
/// Bytes of all analyses remembered; one has some ten thousand.
const MAX_BYTES: usize = 8 << 20;
/// For how long an answer is kept that a busy machine or a failing disk gave.
const PASSING: Duration = Duration::from_secs(600);

/// Where debug files are looked for belongs to the question: device and inode of the process's root.
type Key = (FileIdentity, Option<(u64, u64)>);

/// See the module's head.
#[derive(Debug, Default)]
pub struct BinaryCache {
    known: Mutex<Known>,
    custom: Vec<CustomPoint>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Known {
    files: FxHashMap<Key, Entry>,
    bytes: usize,
    uses: u64,
    analyses: u64,
    given_up: u64,
}

#[derive(Debug)]
struct Entry {
    binary: Arc<Binary>,
    bytes: usize,
    used: u64,
    /// Set where the answer does not stay.
    until: Option<Instant>,
}

impl BinaryCache {
    /// A cache of analyses that look for these functions too.
    #[must_use]
    pub fn with_functions(custom: Vec<CustomPoint>) -> Self {
        Self { custom, ..Self::default() }
    }

    /// The same with other limits than the usual ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The functions that are looked for beside those built in.
    #[must_use]
    pub fn functions(&self) -> &[CustomPoint] {
        &self.custom
    }

    /// The analysis of an executable; `root` as for [`Binary::analyse`]. Takes as long as the limits say, longer only where
    /// a single read of the file hangs.
    #[must_use]
    pub fn get(&self, executable: &Executable, root: &Path) -> Arc<Binary> {
        let root_identity = Root::guarded(root, executable.mounts()).ok().and_then(|root| root.identity().ok());
        let key = (executable.identity(), root_identity);
        if let Some(binary) = self.lock().get(&key) {
            return binary;
        }
        let binary = Arc::new(Binary::analyse(executable, root, &self.custom, self.limits));
        let mut known = self.lock();
        known.analyses += 1;
        known.given_up += u64::from(binary.too_costly().is_some());
        // What changed meanwhile may be a mixture of two contents.
        if executable.is_unchanged() {
            known.put(key, Arc::clone(&binary));
        }
        binary
    }

    /// Analyses made so far.
    #[must_use]
    pub fn analyses(&self) -> u64 {
        self.lock().analyses
    }

    /// Those of them that were given up since they cost too much.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.lock().given_up
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn get(&mut self, key: &Key) -> Option<Arc<Binary>> {
        self.uses += 1;
        let entry = self.files.get_mut(key)?;
        if entry.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        entry.used = self.uses;
        Some(Arc::clone(&entry.binary))
    }

    fn put(&mut self, key: Key, binary: Arc<Binary>) {
        let bytes = binary.bytes();
        let until = if binary.is_passing() { Instant::now().checked_add(PASSING) } else { None };
        let old = self.files.insert(key, Entry { binary, bytes, used: self.uses, until });
        self.bytes += bytes;
        self.bytes -= old.map_or(0, |old| old.bytes);
        while self.files.len() > MAX_FILES || self.bytes > MAX_BYTES {
            let oldest = self.files.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            let Some(old) = oldest.and_then(|oldest| self.files.remove(&oldest)) else { return };
            self.bytes -= old.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(folder: &tempfile::TempDir, name: &str) -> Executable {
        let path = folder.path().join(name);
        std::fs::copy("/bin/true", &path).unwrap();
        Executable::open(&path).unwrap()
    }

    #[test]
    fn a_file_is_analysed_once_and_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, root) = (BinaryCache::default(), Path::new("/"));
        let one = copy(&folder, "one");
        let binary = cache.get(&one, root);
        let again = Executable::open(one.path()).unwrap();
        assert!(Arc::ptr_eq(&binary, &cache.get(&again, root)));
        assert_eq!(cache.analyses(), 1);
        std::fs::write(one.path(), "#!/bin/sh\n").unwrap();
        let changed = Executable::open(one.path()).unwrap();
        assert!(!Arc::ptr_eq(&binary, &cache.get(&changed, root)));
        assert_eq!(cache.analyses(), 2);
    }

    #[test]
    fn a_file_with_the_build_id_of_another_has_an_analysis_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, root) = (BinaryCache::default(), Path::new("/"));
        let (one, two) = (cache.get(&copy(&folder, "one"), root), cache.get(&copy(&folder, "two"), root));
        assert_eq!(one.build_id, two.build_id);
        assert!(one.build_id.is_some() && !Arc::ptr_eq(&one, &two));
        assert_eq!(cache.analyses(), 2);
    }

    #[test]
    fn one_file_below_two_roots_is_analysed_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let cache = BinaryCache::default();
        let one = copy(&folder, "one");
        let _ = (cache.get(&one, Path::new("/")), cache.get(&one, folder.path()));
        assert_eq!(cache.analyses(), 2);
    }

    #[test]
    fn what_changes_while_it_is_analysed_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, root) = (BinaryCache::default(), Path::new("/"));
        let one = copy(&folder, "one");
        while one.is_unchanged() {
            std::fs::write(one.path(), "other").unwrap();
        }
        let _ = (cache.get(&one, root), cache.get(&one, root));
        assert_eq!(cache.analyses(), 2);
    }

    #[test]
    fn the_files_least_used_are_forgotten_and_memory_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let executable = copy(&folder, "one");
        let binary = Arc::new(Binary::analyse(&executable, Path::new("/"), &[], Limits::default()));
        let mut known = Known::default();
        let key = |inode: u64| (FileIdentity { inode, ..executable.identity() }, None);
        for inode in 0..MAX_FILES as u64 + 10 {
            known.put(key(inode), Arc::clone(&binary));
            assert!(known.get(&key(0)).is_some(), "in use");
        }
        assert_eq!((known.files.len(), known.bytes), (MAX_FILES, MAX_FILES * binary.bytes()));
        assert!(known.get(&key(1)).is_none() && known.get(&key(MAX_FILES as u64)).is_some());
    }

    #[test]
    fn an_answer_of_a_busy_moment_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let executable = copy(&folder, "one");
        let hurried = Limits { time: Duration::ZERO, ..Limits::default() };
        let cache = BinaryCache::default().with_limits(hurried);
        let binary = cache.get(&executable, Path::new("/"));
        assert!(binary.is_passing() && binary.too_costly().is_some());
        assert_eq!((cache.analyses(), cache.given_up()), (1, 1));
        let (mut known, key) = (Known::default(), (executable.identity(), None));
        known.put(key, binary);
        assert!(known.get(&key).is_some(), "asked again at once it costs nothing");
        known.files.get_mut(&key).unwrap().until = Some(Instant::now());
        assert!(known.get(&key).is_none());
    }
}
