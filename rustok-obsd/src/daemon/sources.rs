//! Registers what tells of the host, its processes and its containers.
//!
//! Reads: the configuration. Yields: sources of the exposition, and those of them that want the kernel's events. Costs: see
//! the rooms; a thread that asks container runtimes.

use std::sync::{Arc, OnceLock};

use crate::{
    config::Config,
    container::{
        self, Containers,
        names::{Names, PathNames},
        runtime::{RuntimeSettings, Runtimes},
    },
    events::{EventSource, Subscriber},
    exposition::{Collect, Encoder, Exposition, Part},
    host::{self, Host},
    process::{self, ProcessGroups},
};

/// Registers all of them; what cannot be is told in the log. Yields who wants the kernel's events, and the groups of
/// processes, which have to know whether there are any.
pub(super) fn register(
    config: &Config,
    exposition: &Exposition,
) -> (Vec<Arc<dyn Subscriber>>, Option<Arc<ProcessGroups>>) {
    let mut subscribers: Vec<Arc<dyn Subscriber>> = Vec::new();
    exposition.register(Part::Node, Arc::new(Host::new(&host::Settings::new(config))));
    let groups = process::register(config, exposition);
    subscribers.extend(groups.iter().map(|groups| Arc::clone(groups) as _));
    if config.container.enabled {
        let names = runtimes(config, exposition);
        let settings = container::Settings::new(config, container::limit::raise());
        match Containers::new(&settings, names) {
            Ok(containers) => {
                let containers = Arc::new(containers);
                exposition.register(Part::Cadvisor, Arc::clone(&containers) as _);
                subscribers.push(containers);
            }
            Err(error) => tracing::warn!("no metrics of containers: {error}"),
        }
    }
    (subscribers, groups)
}

/// Who knows the names of containers.
fn runtimes(config: &Config, exposition: &Exposition) -> Arc<dyn Names> {
    let paths = |paths: &[String]| paths.iter().map(Into::into).collect();
    let settings = RuntimeSettings {
        cri: paths(&config.container.cri_sockets),
        docker: paths(&config.container.docker_sockets),
        rootfs: config.path.rootfs.clone(),
    };
    match Runtimes::start(&settings) {
        Ok(runtimes) => {
            let runtimes = Arc::new(runtimes);
            exposition.register(Part::App, Arc::clone(&runtimes) as _);
            runtimes
        }
        Err(error) => {
            tracing::warn!(
                "containers stay without names: the thread that asks for them cannot start: {error}; raise the limit of processes (ulimit -u)"
            );
            Arc::new(PathNames)
        }
    }
}

/// Hands out the events that happened before a scrape, before the sources that follow are asked.
#[derive(Default)]
pub(super) struct Drain(pub(super) OnceLock<Arc<EventSource>>);

impl Collect for Drain {
    fn collect(&self, _: &mut Encoder<'_>) {
        if let Some(events) = self.0.get() {
            events.drain();
        }
    }
}
