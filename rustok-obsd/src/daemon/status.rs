//! What `/status` and `/readyz` tell.
//!
//! Reads: the boards of the rooms. Yields: JSON. Costs: when asked.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::admission::Refused;
use super::vitals::Vitals;
use crate::{
    config::Config,
    contract::own::BUILD,
    exposition::server::Status,
    probe::{Kernel, ProbeBoard, ProbeStatus, State},
    target::TargetInfo,
};

/// The targets, shared with the thread that finds them.
#[derive(Clone, Debug, Default)]
pub(super) struct TargetBoard(Arc<Mutex<(Vec<TargetInfo>, Vec<Refused>)>>);

impl TargetBoard {
    pub(super) fn set(&self, targets: Vec<TargetInfo>, refused: Vec<Refused>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (targets, refused);
    }

    /// Pids with the names of their services.
    pub(super) fn processes(&self) -> Vec<(u32, String)> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.0.iter().map(|target| (target.pid, target.service_name.clone())).collect()
    }

    fn all(&self) -> (Vec<TargetInfo>, Vec<Refused>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The daemon's state for people and for probes of an orchestrator.
pub(super) struct DaemonStatus {
    kernel: Kernel,
    probes: ProbeBoard,
    targets: TargetBoard,
    config: Arc<Config>,
    vitals: Vitals,
}

impl DaemonStatus {
    pub(super) const fn new(
        kernel: Kernel,
        probes: ProbeBoard,
        targets: TargetBoard,
        config: Arc<Config>,
        vitals: Vitals,
    ) -> Self {
        Self { kernel, probes, targets, config, vitals }
    }
}

impl Status for DaemonStatus {
    /// Ready once the kernel's own hooks run and every process is observed that should be. A target that is not there yet
    /// is no reason to wait: it is found when it starts. What fails on one target's binary is told with that target, and takes nothing from the others.
    fn ready(&self) -> Result<(), String> {
        self.vitals.ready()?;
        let failed = |probe: &ProbeStatus| probe.target.is_empty() && probe.state == State::Failed;
        let failed = self.probes.all().into_iter().find(failed);
        if let Some(probe) = failed {
            return Err(format!("probe {} is not attached: {}", probe.probe, probe.reason));
        }
        let refused: Vec<Refused> = self.targets.all().1.into_iter().filter(|refused| refused.matters).collect();
        match &refused[..] {
            [] => Ok(()),
            [first, ..] => Err(format!(
                "{} processes match the targets and are not observed; process {}: {}",
                refused.len(),
                first.key.pid,
                first.reason
            )),
        }
    }

    fn status(&self) -> Value {
        let (targets, refused) = self.targets.all();
        let refused: Vec<Value> =
            refused.iter().map(|refused| json!({ "pid": refused.key.pid, "reason": refused.reason })).collect();
        json!({
            "version": BUILD.version,
            "revision": BUILD.revision,
            "kernel": {
                "release": self.kernel.release,
                "lockdown": self.kernel.lockdown,
                "host_pids": self.kernel.host_pids,
                "refusal": self.kernel.refusal(),
            },
            "ready": self.ready().is_ok(),
            "targets_configured": self.config.targets.len(),
            "targets": targets,
            "refused": refused,
            "probes": self.probes.all(),
            "threads": self.vitals.threads(),
            "confinement": self.vitals.confinement(),
        })
    }
}
