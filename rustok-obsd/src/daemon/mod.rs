//! Runs everything: loads the programs, starts the threads, serves, and ends in bounded time.
//!
//! Reads: the configuration. Yields: nothing; `run` returns when the daemon was told to end. Costs: four threads (capture,
//! targets, kernel events, span export) and a small runtime for the exposition.

mod admission;
mod calibration;
mod capture_thread;
pub mod doctor;
mod drivers;
mod file_probes;
mod followed;
mod kernel_events;
mod lines;
pub mod logging;
mod manager;
mod rescan;
mod room;
mod rules;
mod sources;
mod status;
mod vitals;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    capture::pipeline::{self, Parts, Pipeline},
    config::{Backend, Config},
    contract::{
        database::DatabaseRecorder,
        own::{self, BUILD, SelfMetrics},
        recorder::HttpRecorder,
    },
    exposition::{self, BindError, Exposition, Part, server},
    host,
    liveness::{Beat, queue},
    probe::{
        Kernel, LoadError, Loaded, ProbeBoard, Programs, Settings, State, kernel::Need, loader, stats::ProbeCollector,
    },
    process,
    target::{Helpers, Reader, RuleError, ScanError, UnknownUser},
    trace::{Resources, TraceError, Tracing},
};

use kernel_events::KernelEvents;
pub use rules::rules;
use sources::Drain;
use vitals::Vitals;

/// The daemon ends within this time of SIGTERM.
const SHUTDOWN: Duration = Duration::from_secs(3);
/// The process that reads targets' memory is there within this time: some milliseconds, and much more on a busy machine.
const HELPERS: Duration = Duration::from_secs(10);
/// Commands that wait for the capture thread; who sends one more waits. That thread waits for nobody.
const COMMANDS: usize = 1024;
/// Notices that wait for the thread that finds targets. The capture thread does not wait: see [`queue`].
const NOTICES: queue::Bounds = queue::Bounds { events: 4096, samples: 256, samples_of_one: 64 };

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The address of the exposition.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The rules of the targets.
    #[error("targets: {0}")]
    Rules(#[from] RuleError),
    /// A user that a target names.
    #[error("targets: {0}")]
    User(#[from] UnknownUser),
    /// The process table.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Span export.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A thread, the runtime, or signals.
    #[error("cannot start {what}: {source}; raise the limit of processes (ulimit -u) or free memory")]
    Thread {
        /// What.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The kernel programs were asked for by name and cannot run.
    #[error("ebpf.backend = \"{backend}\" was asked for: {source}; leave it at \"auto\" to go on without")]
    Backend {
        /// Backend.
        backend: &'static str,
        /// Why not.
        source: LoadError,
    },
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The daemon cannot start. What can be missing (kernel programs, a collector that is down) is no error: it is told in
/// the log, `/status` and the metrics.
pub fn run(config: Config) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(8)
        .thread_name("exposition")
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Thread { what: "the runtime", source })?;
    // Before anything is attached: a taken port must leave no trace.
    let listener = runtime.block_on(exposition::bind(&config.web.listen_address.to_string()))?;
    let vitals = Vitals::start(&config)?;
    // This thread is the runtime's.
    let beat = vitals.register("exposition", vitals::EXPOSITION);
    let ran = serve(config, &vitals, &beat, &runtime, listener);
    // Also where the daemon did not start: the error is the reason, and no thread that ends with it.
    vitals.ended();
    beat.done();
    ran
}

fn serve(
    config: Config,
    vitals: &Vitals,
    beat: &Beat,
    runtime: &tokio::runtime::Runtime,
    listener: tokio::net::TcpListener,
) -> Result<(), DaemonError> {
    let address = listener.local_addr().unwrap_or(config.web.listen_address);
    let config = Arc::new(config);
    // Loading takes as long as the kernel's verifier does.
    let starting = beat.idle();
    let daemon = Daemon::start(Arc::clone(&config), vitals.clone())?;
    vitals.system_calls(&config);
    drop(starting);
    tracing::info!("serving http://{address}/metrics");
    let shutdown = daemon.serve(runtime, beat, listener)?;
    daemon.stop(shutdown);
    Ok(())
}

struct Daemon {
    vitals: Vitals,
    exposition: Arc<Exposition>,
    status: Arc<status::DaemonStatus>,
    stop: Arc<AtomicBool>,
    programs: Option<Programs>,
    events: KernelEvents,
    manager: thread::JoinHandle<manager::Manager>,
    capture: thread::JoinHandle<()>,
    tracing: Option<Tracing>,
    sample_limit: u64,
    allowed_hosts: Vec<String>,
}

impl Daemon {
    fn start(config: Arc<Config>, vitals: Vitals) -> Result<Self, DaemonError> {
        let kernel = Kernel::inspect_below(&config.path.sysfs);
        let board = ProbeBoard::default();
        let own = Arc::new(SelfMetrics::new(BUILD));
        let loaded = load(&config, &kernel, &board)?;
        let (programs, capture, targets, counts) = match loaded {
            Some(Loaded { programs, capture, targets, counts }) => {
                (Some(programs), Some(pipeline::split(capture)), Some(targets), Some(Arc::new(counts)))
            }
            None => (None, None, None, None),
        };
        let repeated = u32::try_from(config.database.repeated).unwrap_or(u32::MAX);
        let spans = Tracing::start(&config.traces)?.map(|spans| spans.with_repeated(repeated));
        let (recorder, metrics) = HttpRecorder::new(rules::recorder_limits(&config));
        let (database, database_metrics) = DatabaseRecorder::new(rules::database_settings(&config));
        let exposition = Arc::new(Exposition::new());
        // Containers come last: their samples are the first to be beyond a limit.
        exposition.register(Part::App, Arc::clone(&own) as _);
        exposition.register(Part::App, Arc::new(vitals.clone()));
        exposition.register(Part::App, metrics);
        exposition.register(Part::App, database_metrics);
        let drain = Arc::new(Drain::default());
        exposition.register(Part::Itself, Arc::clone(&drain) as _);
        let (subscribers, groups) = sources::register(&config, &exposition);
        let events = KernelEvents::start(&config, &kernel, &board, subscribers);
        let facts = programs.as_ref().map(Programs::facts);
        let probes = ProbeCollector::new(facts, events.facts(), counts.clone(), board.clone(), Arc::clone(&own));
        exposition.register(Part::App, Arc::new(probes));
        if let Some(events) = events.events() {
            let _ = drain.0.set(Arc::clone(&events));
            groups.iter().for_each(|groups| groups.expect_ends());
            exposition.register(Part::App, events);
        }
        if let Some(spans) = &spans {
            let _ = own.spans.set(spans.counters());
        }

        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader::new(helpers(&config, &vitals));
        let (commands, obeyed) = mpsc::sync_channel(COMMANDS);
        let (noticed, notices) = queue::queue(NOTICES);
        vitals.count_notices(noticed.counts());
        let (ring, verdicts) = capture.map_or((None, None), |(ring, verdicts)| (Some(ring), Some(verdicts)));
        let parts = Parts {
            most_connections: config.capture.sockets,
            recorder,
            database,
            statement_bytes: settings(&config).statement_limit,
            databases: config.database.enabled,
            ports: config.database.ports.clone(),
            tracer: spans.as_ref().map(Tracing::tracer),
            wanted: crate::trace::wanted(&config.traces),
            own: Arc::clone(&own),
            verdicts,
            counts: counts.clone(),
            reader: reader.clone(),
        };
        let pipeline = Pipeline::new(parts, obeyed, noticed);
        let sample_limit = config.web.sample_limit as u64;
        let allowed_hosts = config.web.allowed_hosts.clone();
        let parts = manager::Parts {
            maps: targets,
            uprobes: programs.as_ref().map(|programs| Arc::clone(&programs.uprobes)),
            counts,
            reader,
            probes: board.clone(),
            own,
            resources: Arc::new(Resources::new(&config)),
            commands,
            notices,
        };
        let manager = manager::Manager::new(Arc::clone(&config), parts)?;
        let targets = manager.board();
        process::register_targets(&config, &exposition, Box::new(move || targets.processes()));
        let status = Arc::new(status::DaemonStatus::new(kernel, board, manager.board(), config, vitals.clone()));
        let thread = |what, source| DaemonError::Thread { what, source };
        let manager = {
            let stop = Arc::clone(&stop);
            let vitals = vitals.clone();
            let run = move || {
                let beat = vitals.register("targets", vitals::TARGETS);
                let manager = manager.run(&stop, &beat);
                beat.done();
                manager
            };
            thread::Builder::new()
                .name("targets".into())
                .spawn(run)
                .map_err(|e| thread("the thread that finds targets", e))?
        };
        let capture = {
            let stop = Arc::clone(&stop);
            let vitals = vitals.clone();
            let run = move || capture_thread::run(ring, pipeline, &stop, vitals.register("capture", vitals::CAPTURE));
            thread::Builder::new().name("capture".into()).spawn(run).map_err(|e| thread("the capture thread", e))?
        };
        Ok(Self {
            vitals,
            exposition,
            status,
            stop,
            programs,
            events,
            manager,
            capture,
            tracing: spans,
            sample_limit,
            allowed_hosts,
        })
    }

    /// Serves until a signal comes. Yields the deadline of the shutdown.
    fn serve(
        &self,
        runtime: &tokio::runtime::Runtime,
        beat: &Beat,
        listener: tokio::net::TcpListener,
    ) -> Result<Instant, DaemonError> {
        use tokio::signal::unix::{SignalKind, signal};
        let server = server::Server::new(
            Arc::clone(&self.exposition),
            Arc::clone(&self.status) as Arc<dyn server::Status>,
            server::Limits {
                shutdown_timeout: Duration::from_millis(500),
                samples: self.sample_limit,
                ..server::Limits::default()
            },
        );
        let owners = host::owner::Owners::default();
        let server = server
            .with_hosts(self.allowed_hosts.clone())
            .with_owners(Box::new(move |peer, local| owners.of(peer, local)));
        runtime.block_on(beat.beside(async {
            let signals = |source| DaemonError::Thread { what: "signal handling", source };
            let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
            self.vitals
                .serving(&listener.local_addr().map_or_else(|_| String::new(), |at| format!("http://{at}/metrics")));
            server::serve(listener, server, async {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("SIGTERM: detaching"),
                    _ = interrupt.recv() => tracing::info!("SIGINT: detaching"),
                }
                self.vitals.stopping(SHUTDOWN - Duration::from_millis(100));
                // What is left of the time counts from the signal, not from the last answer.
                self.stop.store(true, Ordering::Relaxed);
            })
            .await;
            Ok(Instant::now() + SHUTDOWN - Duration::from_millis(700))
        }))
    }

    fn stop(self, deadline: Instant) {
        let Self { programs, events, manager, capture, tracing, .. } = self;
        events.stop();
        // The capture thread takes what the ring still holds; spans of that are exported below.
        let _ = capture.join();
        let left = |most: Duration| deadline.saturating_duration_since(Instant::now()).min(most);
        let flushed = tracing.is_none_or(|spans| spans.shutdown(left(Duration::from_millis(1200))));
        if !flushed {
            tracing::warn!("the collector did not take all spans in time; the rest is lost");
        }
        // It may hang in a binary on a network mount: then the kernel detaches when the process ends.
        while !manager.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        if !manager.is_finished() {
            tracing::warn!("the thread that finds targets does not end; the probes are left to the kernel to detach");
            return;
        }
        if let Ok(mut manager) = manager.join() {
            let open = manager.detach(deadline);
            if open > 0 {
                tracing::info!("{open} uprobes are left to the kernel to detach");
            }
        }
        if let Some(mut programs) = programs {
            programs.detach();
        }
    }
}

/// What reads targets' memory. Its first process must be there before the daemon's system calls are limited.
fn helpers(config: &Config, vitals: &Vitals) -> Helpers {
    let helpers = Helpers::new("/proc/self/exe", config.security.confine);
    if let Err(error) = helpers.prepare(Instant::now() + HELPERS) {
        tracing::error!(
            "no helper process, hence routes from patterns and learned templates only: {error}; restart the daemon"
        );
    }
    vitals.helpers(config, helpers.confinement());
    helpers
}

/// Loads the kernel programs; `None`, and told, if they cannot run and were not asked for by name.
fn load(config: &Config, kernel: &Kernel, board: &ProbeBoard) -> Result<Option<Loaded>, DaemonError> {
    match Programs::load(loader::OBJECT, kernel, settings(config), board) {
        Ok(loaded) => {
            if let Some(reason) = kernel.lacks(Need::Uprobes).filter(|_| loaded.programs.uprobes.wants_admin()) {
                tracing::warn!("routes may be learned instead of exact: {reason}");
            }
            if let Some(reason) = kernel.lacks(Need::OtherUsers) {
                tracing::warn!("other users' processes may stay unseen: {reason}");
            }
            for probe in board.all().iter().filter(|probe| probe.state == State::Failed) {
                tracing::warn!("probe {} is not attached: {}", probe.probe, probe.reason);
            }
            Ok(Some(loaded))
        }
        Err(source) if config.ebpf.backend == Backend::Sock => Err(DaemonError::Backend { backend: "sock", source }),
        Err(error) => {
            tracing::error!("no kernel programs, hence no HTTP metrics and no spans: {error}");
            for tracepoint in crate::probe::offsets::TRACEPOINTS {
                board.set(tracepoint.name, "", State::Failed, error.to_string());
            }
            Ok(None)
        }
    }
}

/// The programs' bounds of the configuration.
fn settings(config: &Config) -> Settings {
    let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let payload = small(config.capture.payload_bytes).min(rustok_obsd_ebpf::MAX_PAYLOAD as u32 - 1);
    Settings {
        ring_bytes: small(config.capture.ring_bytes),
        sockets: small(config.capture.sockets),
        receive_limit: payload,
        // A response's head is what matters of a send.
        send_limit: payload.min(2048),
        statement_limit: small(config.database.statement_bytes).min(rustok_obsd_ebpf::MAX_STATEMENT as u32 - 1),
        run_stats: config.ebpf.run_stats,
    }
}

/// What `rustok-obsd version` prints.
#[must_use]
pub fn version() -> String {
    let kernel = if loader::OBJECT.is_some() { "with" } else { "without" };
    let own::Build { version, revision, rustc } = BUILD;
    format!("rustok-obsd {version} ({revision}), {rustc}, {kernel} kernel programs\n")
}
