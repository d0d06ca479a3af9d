//! The daemon's own health: its threads and their watchdog, what its queues refused, and how it is confined.
//!
//! Reads: [`crate::liveness`], [`crate::confine`]. Yields: parts of `/readyz` and `/status`, the families of
//! [`crate::contract::liveness`], messages to systemd. Costs: see there.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::{Value, json};

use super::DaemonError;
use crate::{
    config::Config,
    confine::{Confinement, Measure},
    contract::liveness::{PANICS, QUEUE_REFUSED, THREAD_SILENT},
    exposition::{Collect, Encoder},
    liveness::{self, Beat, Heartbeats, Notify, Watchdog, queue},
};

/// How long each thread may be silent. A round of the first three takes milliseconds, and none of them waits for a target.
pub(super) const CAPTURE: Duration = Duration::from_secs(20);
/// The runtime of the exposition: a scrape has a thread of its own.
pub(super) const EXPOSITION: Duration = Duration::from_secs(20);
/// A scan of `/proc`, or what is done about one process.
pub(super) const TARGETS: Duration = Duration::from_secs(60);

/// See the module's head. Clones share it.
#[derive(Clone)]
pub(super) struct Vitals {
    beats: Heartbeats,
    watchdog: Watchdog,
    confinement: Confinement,
    notices: Arc<OnceLock<queue::Counts>>,
}

impl Vitals {
    /// Takes the first step of the confinement and starts the watchdog. No other thread may run yet.
    pub(super) fn start(config: &Config) -> Result<Self, DaemonError> {
        liveness::install_panic_hook();
        let confinement = Confinement::privileges(config);
        let beats = liveness::process().clone();
        let watchdog = Watchdog::start(&beats, Notify::from_environment())
            .map_err(|source| DaemonError::Thread { what: "the watchdog", source })?;
        Ok(Self { beats, watchdog, confinement, notices: Arc::default() })
    }

    pub(super) fn register(&self, name: &'static str, bound: Duration) -> Beat {
        self.beats.register(name, bound)
    }

    /// What the queue from capture to the thread that finds targets refused.
    pub(super) fn count_notices(&self, counts: queue::Counts) {
        let _ = self.notices.set(counts);
    }

    /// How the processes that read targets' memory are confined.
    pub(super) fn helpers(&self, config: &Config, measure: Option<Measure>) {
        self.confinement.helpers(config, measure);
    }

    /// The second step of the confinement: everything is loaded and bound.
    pub(super) fn system_calls(&self, config: &Config) {
        self.confinement.system_calls(config);
    }

    /// The daemon serves.
    pub(super) fn serving(&self, status: &str) {
        self.watchdog.ready(status);
    }

    /// The daemon ends, at the latest after `within`.
    pub(super) fn stopping(&self, within: Duration) {
        self.watchdog.stopping(within);
    }

    /// The daemon ended, or did not start: threads that end from now on do so for that reason.
    pub(super) fn ended(&self) {
        self.beats.stopping();
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        self.beats.ready()
    }

    pub(super) fn threads(&self) -> Value {
        json!(self.beats.report())
    }

    pub(super) fn confinement(&self) -> Value {
        self.confinement.status()
    }
}

impl Collect for Vitals {
    fn collect(&self, out: &mut Encoder<'_>) {
        let mut threads: Vec<(&str, u64)> =
            self.beats.report().iter().map(|report| (report.name, report.silent_seconds)).collect();
        // The longest first, and of each name that one.
        threads.sort_unstable_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1)));
        threads.dedup_by_key(|(name, _)| *name);
        let mut samples = out.family(&THREAD_SILENT);
        for (name, silent) in threads {
            samples.put([name], silent);
        }
        out.family(&PANICS).put([], liveness::panics());
        if let Some(notices) = self.notices.get() {
            let mut samples = out.family(&QUEUE_REFUSED);
            samples.put(["notices", "event"], notices.events());
            samples.put(["notices", "sample"], notices.samples());
        }
        self.confinement.collect(out);
    }
}
