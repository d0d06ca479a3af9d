//! Analyses of executables, each made once.
//!
//! Reads: files. Yields: shared [`Binary`]s. Costs: `stat` for a file that is known; the analysis for one that is not.

use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::binary::{self, Binary, BinaryError, ContentId, FileIdentity};
use super::points::CustomPoint;

/// Files remembered; a host observes a handful.
const MAX_FILES: usize = 256;

/// The cache. Two files with one content, as in two containers of one image, share the analysis.
#[derive(Debug, Default)]
pub struct BinaryCache {
    files: FxHashMap<FileIdentity, (Arc<Binary>, u64)>,
    uses: u64,
    analyses: u64,
    custom: Vec<CustomPoint>,
}

impl BinaryCache {
    /// A cache of analyses that look for these functions too.
    #[must_use]
    pub fn with_functions(custom: Vec<CustomPoint>) -> Self {
        Self { custom, ..Self::default() }
    }

    /// The functions that are looked for beside those built in.
    #[must_use]
    pub fn functions(&self) -> &[CustomPoint] {
        &self.custom
    }

    /// The analysis of the file at `path`, and the file's identity; `root` as for [`Binary::analyse`].
    ///
    /// # Errors
    /// [`BinaryError`] where the file cannot be read; errors are not remembered.
    pub fn get(&mut self, path: &Path, root: &Path) -> Result<(FileIdentity, Arc<Binary>), BinaryError> {
        let fail = |error: std::io::Error| BinaryError { path: path.to_owned(), reason: error.to_string() };
        let (file, identity) = binary::open(path).map_err(fail)?;
        self.uses += 1;
        if let Some((binary, used)) = self.files.get_mut(&identity) {
            *used = self.uses;
            return Ok((identity, Arc::clone(binary)));
        }
        let id = binary::content_id(&file, identity.size).map_err(fail)?;
        let binary = match self.known(&id) {
            Some(binary) => binary,
            None => {
                self.analyses += 1;
                Arc::new(Binary::analyse(path, root, &self.custom)?)
            }
        };
        if self.files.len() >= MAX_FILES {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(identity, _)| *identity);
            oldest.map(|identity| self.files.remove(&identity));
        }
        self.files.insert(identity, (Arc::clone(&binary), self.uses));
        Ok((identity, binary))
    }

    /// Analyses made so far.
    #[must_use]
    pub const fn analyses(&self) -> u64 {
        self.analyses
    }

    fn known(&self, id: &ContentId) -> Option<Arc<Binary>> {
        self.files.values().find(|(binary, _)| binary.id == *id).map(|(binary, _)| Arc::clone(binary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_analysed_once_and_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::copy("/bin/true", &one).unwrap();
        std::fs::copy("/bin/true", &two).unwrap();
        let (mut cache, root) = (BinaryCache::default(), Path::new("/"));
        let (first, binary) = cache.get(&one, root).unwrap();
        assert!(Arc::ptr_eq(&binary, &cache.get(&one, root).unwrap().1));
        let (second, copy) = cache.get(&two, root).unwrap();
        assert!(first != second && Arc::ptr_eq(&binary, &copy), "one content, two files");
        assert_eq!(cache.analyses(), 1);
        std::fs::write(&one, "#!/bin/sh\n").unwrap();
        assert!(!Arc::ptr_eq(&binary, &cache.get(&one, root).unwrap().1));
        assert_eq!(cache.analyses(), 2);
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let error = BinaryCache::default().get(Path::new("/nonexistent/server"), Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/server"), "{error}");
    }
}
