//! What the analysis of one binary may cost.
//!
//! Reads: the clock. Yields: [`TooCostly`] as soon as a limit is reached. Costs: a clock reading per piece of a file or per
//! name. Every loop over content that the owner of a file controls asks its [`Budget`] first: a file that costs more than
//! real ones do is given up with the reason, and its processes are observed at their sockets.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Bounds of one analysis, its debug file included.
///
/// The largest binaries seen (debug builds of 190 MB with 500 000 symbols) need a twentieth of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time.
    pub time: Duration,
    /// Bytes of one section that is read as a whole: symbols, their names, relocations.
    pub section_bytes: u64,
    /// Bytes read in all.
    pub total_bytes: u64,
    /// Section headers.
    pub sections: u64,
    /// Symbol names that hold a wanted identifier and are demangled.
    pub names: u32,
    /// Symbol names that are those of wanted functions.
    pub matches: usize,
    /// Copies of a probe point's functions.
    pub point_places: usize,
    /// Copies of all probe points' functions.
    pub binary_places: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Without optimisation, as in tests, the same work takes some twenty times as long.
            time: Duration::from_secs(if cfg!(debug_assertions) { 100 } else { 5 }),
            section_bytes: 512 << 20,
            total_bytes: 2 << 30,
            sections: 4096,
            names: 1 << 16,
            matches: 4096,
            point_places: 64,
            binary_places: 256,
        }
    }
}

/// A limit of [`Limits`] was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooCostly {
    /// Wall time.
    #[error("it takes longer than {0:?}")]
    Time(Duration),
    /// One section.
    #[error("section {section} has {bytes} bytes, and at most {limit} of a section are read")]
    Section {
        /// Its name.
        section: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// All sections together.
    #[error("more than {0} bytes would be read")]
    Bytes(u64),
    /// Section headers.
    #[error("the file has {count} section headers, and at most {limit} are read")]
    Sections {
        /// What the file says.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// Names to demangle.
    #[error("more than {0} symbol names resemble those of wanted functions")]
    Names(u32),
    /// Names that matched.
    #[error("more than {0} symbols have the names of wanted functions")]
    Matches(usize),
}

/// What is left of the [`Limits`]. Once spent it stays so: what follows fails as well.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    deadline: Option<Instant>,
    read: Cell<u64>,
    names: Cell<u32>,
}

impl Budget {
    /// The time runs from now.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let deadline = Instant::now().checked_add(limits.time);
        Self { limits, deadline, read: Cell::new(0), names: Cell::new(0) }
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether anything is left.
    ///
    /// # Errors
    /// [`TooCostly`]: what was spent.
    pub fn check(&self) -> Result<(), TooCostly> {
        if self.read.get() > self.limits.total_bytes {
            return Err(TooCostly::Bytes(self.limits.total_bytes));
        }
        if self.names.get() > self.limits.names {
            return Err(TooCostly::Names(self.limits.names));
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(TooCostly::Time(self.limits.time)),
            _ => Ok(()),
        }
    }

    /// Before bytes are read.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub fn read(&self, bytes: u64) -> Result<(), TooCostly> {
        self.read.set(self.read.get().saturating_add(bytes));
        self.check()
    }

    /// Bytes read so far; every buffer whose size a file gives is charged here before it is made.
    #[must_use]
    pub const fn spent(&self) -> u64 {
        self.read.get()
    }

    /// Before a section is read as a whole.
    ///
    /// # Errors
    /// [`TooCostly::Section`].
    pub fn section(&self, section: &str, bytes: u64) -> Result<(), TooCostly> {
        let limit = self.limits.section_bytes;
        if bytes > limit {
            return Err(TooCostly::Section { section: section.to_owned(), bytes, limit });
        }
        Ok(())
    }

    /// Before a name is demangled.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub fn name(&self) -> Result<(), TooCostly> {
        self.names.set(self.names.get().saturating_add(1));
        self.check()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_stays_spent() {
        let budget = Budget::new(Limits { total_bytes: 10, names: 1, ..Limits::default() });
        assert_eq!(budget.read(10), Ok(()));
        assert_eq!(budget.read(1), Err(TooCostly::Bytes(10)));
        assert_eq!((budget.read(0), budget.check()), (Err(TooCostly::Bytes(10)), Err(TooCostly::Bytes(10))));
        let budget = Budget::new(*budget.limits());
        assert_eq!(budget.name(), Ok(()));
        assert_eq!(budget.name(), Err(TooCostly::Names(1)));
        assert_eq!(budget.read(0), Err(TooCostly::Names(1)));
        let budget = Budget::new(Limits { time: Duration::ZERO, ..Limits::default() });
        assert_eq!(budget.check(), Err(TooCostly::Time(Duration::ZERO)));
        assert_eq!(budget.read(0), budget.name());
    }
}
