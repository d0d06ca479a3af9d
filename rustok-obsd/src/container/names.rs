//! Names, images and labels of containers, as whoever knows them tells.
//!
//! Reads: nothing. Yields: [`Names`], what this room asks, and [`PathNames`], which knows nothing. Costs: see who
//! implements it; nothing here waits.
//!
//! Without a runtime's answer a container is named by its id, as cAdvisor names those of containerd: dashboards select
//! containers by `name=~".+"`, and would not show it at all without a name. It has no image then.

use std::sync::Arc;
use std::time::SystemTime;

/// The verdict of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not known yet, or bad.
    Unhealthy,
    /// Good.
    Healthy,
}

/// Whose network a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nobody says: its network namespace tells.
    #[default]
    Unknown,
    /// Its own, or its pod's, which is told here.
    Own,
    /// The host's, or another container's.
    Other,
}

/// What is known of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Name.
    pub name: String,
    /// Image as it was asked for.
    pub image: String,
    /// Pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Name within the pod.
    pub container: String,
    /// The pause container, which holds a pod's network.
    pub is_sandbox: bool,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// When it was started.
    pub started_at: Option<SystemTime>,
    /// Its first process.
    pub pid: Option<u32>,
    /// Health, where there is a check.
    pub health: Option<Health>,
    /// Whose network it has.
    pub network: Network,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// What is known.
    Known(Arc<Facts>),
    /// There will be an answer soon.
    NotYet,
    /// Nobody answers, or nobody knows it.
    Unknown,
}

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

/// Knows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathNames;

impl Names for PathNames {
    fn lookup(&self, _: &str) -> Lookup {
        Lookup::Unknown
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
