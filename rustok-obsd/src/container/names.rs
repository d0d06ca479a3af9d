//! Names, images and labels of containers, as whoever knows them tells.
//!
//! Reads: nothing. Yields: [`Names`], what this room asks, and [`PathNames`], which knows nothing. Costs: see who
//! implements it; nothing here waits.
//!
//! Without a runtime's answer a container is named by its id, as cAdvisor names those of containerd: dashboards select
//! containers by `name=~".+"`, and would not show it at all without a name. It has no image then.

use super::runtime::Runtimes;
pub use super::runtime::{Facts, Health, Lookup, Network};
use std::sync::Arc;

/// Who is asked. No method may wait.
pub trait Names: Send + Sync {
    /// A container, by its id.
    fn lookup(&self, id: &str) -> Lookup;
    /// The pod of a UID: any of its containers will do.
    fn pod(&self, uid: &str) -> Option<Arc<Facts>>;
    /// A container was seen.
    fn wanted(&self, id: &str);
    /// A container is gone.
    fn forget(&self, id: &str);
    /// Changes whenever an answer does.
    fn version(&self) -> u64;
}

impl Names for Runtimes {
    fn lookup(&self, id: &str) -> Lookup {
        self.lookup(id)
    }

    fn pod(&self, uid: &str) -> Option<Arc<Facts>> {
        self.pod(uid)
    }

    fn wanted(&self, id: &str) {
        self.wanted(id);
    }

    fn forget(&self, id: &str) {
        self.forget(id);
    }

    fn version(&self) -> u64 {
        self.version()
    }
}

/// Knows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathNames;

impl Names for PathNames {
    fn lookup(&self, _: &str) -> Lookup {
        Lookup::NoRuntime
    }

    fn pod(&self, _: &str) -> Option<Arc<Facts>> {
        None
    }

    fn wanted(&self, _: &str) {}

    fn forget(&self, _: &str) {}

    fn version(&self) -> u64 {
        0
    }
}
