//! Which probe is in which state, and why: what `/status`, `/readyz`, `doctor` and `rustok_obsd_probe_state` tell.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

/// State of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It runs.
    Attached,
    /// It was left out, for a reason that is no fault (the binary has no such function, another source serves).
    Disabled,
    /// It should run and does not.
    Failed,
}

impl State {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Disabled => "disabled",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeStatus {
    /// Program or probe point.
    pub probe: String,
    /// Binary it is attached to; empty for the kernel's own hooks.
    pub target: String,
    /// State.
    pub state: State,
    /// Why; empty if attached.
    pub reason: String,
}

/// All probes, shared between the room that attaches and those that tell.
#[derive(Clone, Debug, Default)]
pub struct ProbeBoard(Arc<Mutex<Vec<ProbeStatus>>>);

impl ProbeBoard {
    /// Sets the state of a probe.
    pub fn set(&self, probe: &str, target: &str, state: State, reason: impl Into<String>) {
        let status = ProbeStatus { probe: probe.into(), target: target.into(), state, reason: reason.into() };
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match board.iter_mut().find(|known| known.probe == probe && known.target == target) {
            Some(known) => *known = status,
            None => board.push(status),
        }
    }

    /// Forgets the probes of a binary that no process runs any more.
    pub fn forget(&self, target: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known.target != target);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<ProbeStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
