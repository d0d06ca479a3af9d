//! Starts and ends what follows the whole host's kernel events.
//!
//! Reads: the configuration, the kernel. Yields: [`KernelEvents`]. Costs: see [`crate::events`].

use std::sync::Arc;

use crate::{
    config::Config,
    events::{EventSource, EventThread, Subscriber},
    probe::{
        HostPrograms, HostSettings, Kernel, ProbeBoard, State, host, host_types::HOST_PROGRAMS, stats::ProgramFacts,
    },
};

/// What runs of it; all of it or nothing.
pub(super) struct KernelEvents(Option<Running>);

struct Running {
    programs: HostPrograms,
    events: Arc<EventSource>,
    thread: EventThread,
}

impl KernelEvents {
    /// Loads the programs and starts the thread. What cannot be is told in the log and on the board.
    pub(super) fn start(
        config: &Config,
        kernel: &Kernel,
        board: &ProbeBoard,
        subscribers: Vec<Arc<dyn Subscriber>>,
    ) -> Self {
        if !config.ebpf.host_events {
            for (program, _) in HOST_PROGRAMS {
                board.set(program, "", State::Disabled, "ebpf.host_events = false");
            }
            return Self(None);
        }
        let ring_bytes = u32::try_from(config.ebpf.host_ring_bytes).unwrap_or(u32::MAX);
        let settings = HostSettings { ring_bytes, run_stats: config.ebpf.run_stats };
        let (programs, ring, counts) = match HostPrograms::load(host::HOST_OBJECT, kernel, settings, board) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("no events of the host's kernel, hence short-lived processes stay unseen: {error}");
                return Self(None);
            }
        };
        for probe in board.all() {
            if probe.state == State::Failed && HOST_PROGRAMS.iter().any(|(program, _)| *program == probe.probe) {
                tracing::warn!("probe {} is not attached: {}", probe.probe, probe.reason);
            }
        }
        let events = Arc::new(EventSource::new(ring, ring_bytes, counts, subscribers));
        match EventThread::start(Arc::clone(&events)) {
            Ok(thread) => Self(Some(Running { programs, events, thread })),
            Err(error) => {
                tracing::error!(
                    "no events of the host's kernel: their thread cannot start: {error}; raise the limits of processes (ulimit -u) and files (ulimit -n)"
                );
                for (program, _) in HOST_PROGRAMS {
                    board.set(program, "", State::Failed, format!("the thread cannot start: {error}"));
                }
                Self(None)
            }
        }
    }

    /// What the programs cost.
    pub(super) fn facts(&self) -> Option<ProgramFacts> {
        self.0.as_ref().map(|running| running.programs.facts())
    }

    /// The events' source, to be drained by a scrape.
    pub(super) fn events(&self) -> Option<Arc<EventSource>> {
        self.0.as_ref().map(|running| Arc::clone(&running.events))
    }

    /// Detaches the programs and ends the thread.
    pub(super) fn stop(self) {
        if let Some(Running { mut programs, events: _, thread }) = self.0 {
            programs.detach();
            thread.stop();
        }
    }
}
