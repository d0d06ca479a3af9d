//! Why a collector yields nothing, or less.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a collector failed. What it had written by then stays.
#[derive(Debug, Error)]
pub enum CollectError {
    /// This host has nothing of the kind: told at the log level debug only.
    #[error("this host has no such data: {0}")]
    NoData(String),
    /// A file cannot be read.
    #[error("{} cannot be read: {source}{}", path.display(), remedy(source))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file says what nobody expects there.
    #[error("{}: {what}; this kernel's format is not known, please report it", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A system call.
    #[error("{call}: {source}{}", remedy(source))]
    Call {
        /// Which.
        call: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It did not come back in time.
    #[error("not finished within the scraper's time-out; {0}")]
    Late(String),
    /// Anything else, with reason and remedy.
    #[error("{0}")]
    Other(String),
}

/// What helps against an error of the kernel, where something does.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or grant CAP_DAC_READ_SEARCH",
        _ => "",
    }
}

impl CollectError {
    /// From an error of reading `path`: a file that is not there, nor its folder, is no data.
    #[must_use]
    pub fn read(path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            Self::NoData(path.display().to_string())
        } else {
            Self::Read { path: path.to_owned(), source }
        }
    }

    /// From content that is not understood.
    #[must_use]
    pub fn format(path: &Path, what: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), what: what.into() }
    }

    /// From the last error of a system call.
    #[must_use]
    pub fn call(call: &'static str) -> Self {
        Self::Call { call, source: io::Error::last_os_error() }
    }
}
