//! One runtime's socket: its state, its counts, and the loop that finds it again after it went away.
//!
//! Reads: the socket's answers, by [`super::cri`] or [`super::docker`]. Yields: facts into the store, one log line per
//! change of state. Costs: a connection while the runtime is there; an attempt every 1 to 30 s while it is not.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UnixStream,
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    cri, docker,
    error::{Failure, Outcome},
    facts::RuntimeKind,
    store::Store,
};

/// A connection is made within this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A request is answered within this.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is taken.
pub const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Requests for lists, and attempts to connect, are this far apart at least.
pub const DEBOUNCE: Duration = Duration::from_secs(1);
/// The whole list is read this often in case an event was lost.
pub const RELIST: Duration = Duration::from_secs(60);
/// A container whose details do not come is passed over; after this many in a row it is the runtime that hangs.
pub const MOST_HUNG: u8 = 2;
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// Which API a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Kubernetes' Container Runtime Interface.
    Cri,
    /// Docker's Engine API, Podman's too.
    Docker,
}

impl Api {
    /// The value of a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cri => "cri",
            Self::Docker => "docker",
        }
    }
}

/// The state of a runtime's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The first attempt is under way.
    Connecting,
    /// It answers.
    Up,
    /// There is no socket, or no CRI behind it: a containerd that serves Docker alone.
    Absent,
    /// The socket is not for this user.
    Denied,
    /// It does not answer as it should.
    Failed,
}

impl State {
    /// All of them, for a metric's label.
    pub const ALL: [Self; 5] = [Self::Connecting, Self::Up, Self::Absent, Self::Denied, Self::Failed];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Absent => "absent",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// What is to be told of a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// State.
    pub state: State,
    /// Why it is not up, with the remedy; "" while it is.
    pub reason: String,
    /// Which runtime it is; known once it was up.
    pub kind: Option<RuntimeKind>,
    /// The runtime's name and version, as it says.
    pub version: String,
}

/// One runtime's socket.
#[derive(Debug)]
pub struct Source {
    api: Api,
    socket: PathBuf,
    pub(super) index: usize,
    pub(super) store: Arc<Store>,
    /// Somebody asks for a container.
    pub(super) wake: Notify,
    report: Mutex<Arc<Report>>,
    requests: [AtomicU64; Outcome::ALL.len()],
}

impl Source {
    pub(super) fn new(api: Api, socket: PathBuf, index: usize, store: Arc<Store>) -> Self {
        let report = Report { state: State::Connecting, reason: String::new(), kind: None, version: String::new() };
        Self {
            api,
            socket,
            index,
            store,
            wake: Notify::new(),
            report: Mutex::new(Arc::new(report)),
            requests: Default::default(),
        }
    }

    /// Which API it speaks.
    #[must_use]
    pub const fn api(&self) -> Api {
        self.api
    }

    /// Where it listens, below the root that was configured.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What is to be told of it.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests that ended so.
    #[must_use]
    pub fn requests(&self, outcome: Outcome) -> u64 {
        self.requests[outcome as usize].load(Ordering::Relaxed)
    }

    /// Whether an answer may come from it.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.report().state, State::Connecting | State::Up)
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.requests[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how a request ended.
    pub(super) fn counted<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        self.count(result.as_ref().err().map_or(Outcome::Ok, Failure::outcome));
        result
    }

    pub(super) async fn connect(&self) -> Result<UnixStream, Failure> {
        match timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(match error.kind() {
                io::ErrorKind::NotFound => Failure::Absent,
                io::ErrorKind::PermissionDenied => Failure::Denied,
                _ => Failure::Connect(error.to_string()),
            }),
            Err(_) => Err(Failure::Timeout { call: "connect", after: CONNECT_TIMEOUT }),
        }
    }

    pub(super) fn up(&self, kind: RuntimeKind, version: String) {
        let report = Report { state: State::Up, reason: String::new(), kind: Some(kind), version };
        tracing::info!("{}: {} answers", self.socket.display(), report.version);
        self.tell(report);
    }

    fn tell(&self, report: Report) -> Arc<Report> {
        let mut told = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut told, Arc::new(report))
    }

    /// Tells a failure, in the log only when it is another than before.
    fn failed(&self, failure: &Failure) {
        let state = match failure {
            Failure::Absent | Failure::NoCri(_) => State::Absent,
            Failure::Denied => State::Denied,
            _ => State::Failed,
        };
        let before = self.report();
        let (kind, version) = (before.kind, before.version.clone());
        self.tell(Report { state, reason: failure.to_string(), kind, version });
        if before.state == state && (state != State::Failed || before.reason == failure.to_string()) {
            return;
        }
        let socket = self.socket.display();
        match failure {
            // Sockets of runtimes that are not installed are looked for, too.
            Failure::Absent if before.state == State::Connecting => tracing::debug!("{socket}: {failure}"),
            Failure::NoCri(_) => tracing::info!("{socket}: {failure}"),
            _ => tracing::warn!("{socket}: {failure}; containers of this runtime keep the names they have"),
        }
    }

    /// Serves the socket until the task is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut pause = DEBOUNCE;
        loop {
            let began = Instant::now();
            let ended: Result<Infallible, Failure> = match self.api {
                Api::Cri => cri::session(&self).await,
                Api::Docker => docker::session(&self).await,
            };
            let Err(failure) = ended;
            self.failed(&failure);
            if began.elapsed() > MOST_PAUSE {
                pause = DEBOUNCE;
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(MOST_PAUSE),
                // A new container may mean that the runtime is back.
                () = async { sleep(DEBOUNCE).await; self.wake.notified().await } => {}
            }
        }
    }
}
