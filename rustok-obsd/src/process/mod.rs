//! Processes: the daemon's own, and all of the host in groups.
//!
//! Reads: procfs, below `path.procfs`. Yields: sources of the exposition: [`Itself`] (`process_*`) and [`ProcessGroups`]
//! (`namedprocess_*`, as process-exporter 0.8). Costs: nothing between scrapes but the ends of processes, where the kernel
//! tells them; see [`table`] for a scrape.

mod clock;
mod exit;
pub mod families;
pub mod files;
mod group;
mod itself;
mod member;
pub mod otel;
pub mod parse;
pub mod rule;
mod source;
mod sum;
pub mod table;
pub mod target;
#[cfg(test)]
mod tests;
mod threads;
mod users;
mod wchan;

use crate::config::Config;
use crate::exposition::{Exposition, Part};
use std::sync::Arc;

pub use clock::since_boot_ns;
pub use exit::Ended;
pub use itself::Itself;
pub use source::ProcessGroups;
pub use table::Table;
pub use target::TargetProcesses;

/// Registers the sources that the configuration has on. A host without procfs has none, which is told in the log.
/// Yields the groups, for who knows of ends of processes.
pub fn register(config: &Config, exposition: &Exposition) -> Option<Arc<ProcessGroups>> {
    files::raise_descriptors();
    match Itself::new() {
        Ok(source) => exposition.register(Part::Itself, Arc::new(source)),
        Err(error) => tracing::warn!("no process_* metrics: /proc cannot be opened: {error}; mount it"),
    }
    if !config.process.enabled {
        return None;
    }
    match ProcessGroups::new(config) {
        Ok(groups) => {
            let groups = Arc::new(groups);
            exposition.register(Part::Process, Arc::clone(&groups) as _);
            Some(groups)
        }
        Err(error) => {
            let path = config.path.procfs.display();
            tracing::warn!(
                "no groups of processes: {path} cannot be opened: {error}; mount procfs where path.procfs says"
            );
            None
        }
    }
}

/// Registers what is told of the observed servers' processes.
pub fn register_targets(config: &Config, exposition: &Exposition, observed: target::Observed) {
    match TargetProcesses::new(config, observed) {
        Ok(source) => exposition.register(Part::App, Arc::new(source)),
        Err(error) => {
            let path = config.path.procfs.display();
            tracing::warn!("no rustok_obsd_target_process_*: {path} cannot be opened: {error}; mount procfs there");
        }
    }
}
