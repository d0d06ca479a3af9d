//! Names, images and labels of containers, from the APIs of their runtimes.
//!
//! Reads: CRI (containerd, CRI-O, cri-dockerd) and Docker's Engine API (Docker, Podman) over Unix sockets; only lists,
//! statuses and events, nothing is ever changed. Yields: [`Facts`] by container id. Costs: one thread that sleeps until a
//! runtime sends an event, somebody asks for a container, or a minute passed; a few hundred bytes and the labels per
//! container. Nothing here waits for a runtime on the scrape path.

mod cri;
mod cri_api;
mod docker;
mod docker_api;
pub mod error;
pub mod facts;
pub mod source;
mod store;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinSet, time::sleep};

use crate::liveness;

use source::Api;
pub use {
    error::{Failure, Outcome},
    facts::{Facts, Health, Network, RuntimeKind},
    source::{Report, Source, State},
};

/// How long the thread may be silent: nothing in its runtime blocks.
const BOUND: Duration = Duration::from_secs(60);

/// Which sockets are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Sockets of CRI runtimes.
    pub cri: Vec<PathBuf>,
    /// Sockets that speak Docker's API.
    pub docker: Vec<PathBuf>,
    /// Where the host's `/` is seen; every socket lies below it.
    pub rootfs: PathBuf,
}

impl Default for RuntimeSettings {
    /// Where the runtimes listen if nobody tells them otherwise. `/run` rather than `/var/run`: that is a symbolic link,
    /// and an absolute one would lead out of `rootfs`.
    fn default() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Self {
            cri: paths(&[
                "/run/containerd/containerd.sock",
                "/run/crio/crio.sock",
                "/run/k3s/containerd/containerd.sock",
                "/run/cri-dockerd.sock",
            ]),
            docker: paths(&["/run/docker.sock", "/run/podman/podman.sock"]),
            rootfs: PathBuf::from("/"),
        }
    }
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// What its runtime says.
    Known(Arc<Facts>),
    /// It was asked for and the runtimes have still to look: within seconds there is another answer.
    NotYet,
    /// No runtime answers.
    NoRuntime,
    /// No runtime that answers knows it, or nobody asked for it ([`Runtimes::wanted`]).
    Unknown,
}

/// The runtimes of this host.
#[derive(Debug)]
pub struct Runtimes {
    store: Arc<store::Store>,
    sources: Vec<Arc<Source>>,
    thread: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Runtimes {
    /// Starts to ask. Returns at once; a runtime that is not there yet is found later.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(settings: &RuntimeSettings) -> io::Result<Self> {
        let store = Arc::new(store::Store::default());
        let mut sources: Vec<Arc<Source>> = Vec::new();
        let cri = settings.cri.iter().map(|path| (Api::Cri, path));
        let docker = settings.docker.iter().map(|path| (Api::Docker, path));
        for (api, path) in cri.chain(docker) {
            let socket = below(&settings.rootfs, path);
            if !sources.iter().any(|source| source.api() == api && source.socket() == socket) {
                sources.push(Arc::new(Source::new(api, socket, sources.len(), Arc::clone(&store))));
            }
        }
        let thread = if sources.is_empty() { None } else { Some(spawn(&sources, Arc::clone(&store))?) };
        Ok(Self { store, sources, thread })
    }

    /// What is known of a container. Never waits.
    #[must_use]
    pub fn lookup(&self, id: &str) -> Lookup {
        if let Some(facts) = self.store.get(id) {
            return Lookup::Known(facts);
        }
        if self.store.is_open(id, |source| self.sources[source].is_alive()) {
            Lookup::NotYet
        } else if self.sources.iter().any(|source| source.is_alive()) {
            Lookup::Unknown
        } else {
            Lookup::NoRuntime
        }
    }

    /// The sandbox of a pod, by the UID in the pod's cgroup, with `-` or systemd's `_`. Never waits.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<Arc<Facts>> {
        if uid.contains('_') { self.store.pod(&uid.replace('_', "-")) } else { self.store.pod(uid) }
    }

    /// A new container was seen: ask for it soon.
    pub fn wanted(&self, id: &str) {
        if facts::is_id(id) && self.store.want(id, self.sources.len(), Instant::now()) {
            self.sources.iter().for_each(|source| source.wake.notify_one());
        }
    }

    /// A container's facts are no longer of use.
    pub fn forget(&self, id: &str) {
        self.store.forget(id);
    }

    /// Changes whenever the facts of any container do: as long as it stays, so does every answer of `lookup` that was
    /// [`Lookup::Known`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.store.version()
    }

    /// The sockets, with state and counts.
    #[must_use]
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// Containers that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Containers that did not fit into the table.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.store.overflow()
    }

    /// Labels that were too large to be kept.
    #[must_use]
    pub fn labels_dropped(&self) -> u64 {
        self.store.labels_dropped()
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // Nothing in that thread blocks: it ends at its next await.
            let _ = thread.join();
        }
    }
}

fn spawn(
    sources: &[Arc<Source>],
    store: Arc<store::Store>,
) -> io::Result<(oneshot::Sender<()>, thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let sources = sources.to_vec();
    let run = async move {
        let mut tasks = JoinSet::new();
        for source in sources {
            // What a runtime answers is not ours: a panic over it costs that runtime's session.
            tasks.spawn(liveness::keep(source::RELIST, move || Arc::clone(&source).run()));
        }
        let sweep = async {
            loop {
                sleep(source::RELIST).await;
                store.sweep(Instant::now());
            }
        };
        tokio::select! {
            // Its sender is dropped, never used.
            _ = stopped => {}
            () = sweep => {}
        }
    };
    let body = move || {
        let beat = liveness::process().register("runtimes", BOUND);
        runtime.block_on(beat.beside(run));
        beat.done();
    };
    let thread = thread::Builder::new().name("runtimes".into()).spawn(body)?;
    Ok((stop, thread))
}

fn below(rootfs: &Path, path: &Path) -> PathBuf {
    rootfs.join(path.strip_prefix("/").unwrap_or(path))
}
