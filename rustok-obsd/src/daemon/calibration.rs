//! Calibration: finds where a runtime keeps the id of the running task, while the target serves.
//!
//! Reads: samples of what a thread holds near its thread pointer, taken aside. Yields: the slot in the programs' map and
//! exact routes from then on, or the reason why there are none. Costs: one sample at a time, and a probe at every poll of
//! a task until the search ends.

use std::time::Duration;

use rustok_obsd_ebpf::TaskProbe;

use super::{
    admission::{Answer, Case, step},
    lines::Line,
    manager::{AXUM, Manager, TOKIO},
};
use crate::{
    aside::Overdue,
    capture::{Command, pipeline::monotonic_ns},
    exchange::RoutesExact,
    probe::State,
    target::{Calibrator, Memory, Progress, Target, TaskSlot},
};

/// Name of the slot among the probes.
const SLOT: &str = "tokio_task_slot";
/// Samples in a row that may fail before the search for the slot ends.
const MISSES: u32 = 100;
/// One sample.
const SAMPLE: Duration = Duration::from_secs(2);

/// Where the search for Tokio's slot stands.
pub(super) enum Calibration {
    /// The slot is known, or is not sought.
    Ends,
    /// For the next sample.
    Waits(Box<Calibrator>),
    /// A sample is being taken, by this ticket.
    Samples(u64),
}

impl Manager {
    pub(super) fn calibration(&self, target: &Target) -> Calibration {
        let name = target.process.exe.display().to_string();
        match target.task_slot() {
            TaskSlot::Known(_) => {
                self.probes.set(SLOT, &name, State::Attached, "");
                Calibration::Ends
            }
            TaskSlot::NeedsCalibration { areas, reason, .. } if self.has_probe(target, TOKIO) => {
                self.probes.set(SLOT, &name, State::Disabled, format!("calibrating: {reason}"));
                Calibration::Waits(Box::new(Calibrator::new(&areas)))
            }
            TaskSlot::NeedsCalibration { reason, .. } | TaskSlot::Absent { reason } => {
                self.probes.set(SLOT, &name, State::Disabled, reason);
                Calibration::Ends
            }
        }
    }

    /// A sample of the calibration was taken.
    pub(super) fn on_calibrated(
        &mut self,
        pid: u32,
        ticket: u64,
        result: Result<Option<(Calibrator, Progress)>, Overdue>,
    ) {
        let Some(live) = self.live.get_mut(&pid) else { return };
        if !matches!(live.calibration, Calibration::Samples(own) if own == ticket) {
            return;
        }
        match result {
            Ok(Some((calibrator, Progress::Searching))) => {
                (live.calibration, live.misses) = (Calibration::Waits(Box::new(calibrator)), 0);
            }
            Ok(Some((_, Progress::Found(offset)))) => {
                (live.calibration, live.slot) = (Calibration::Ends, offset);
                let target = live.target.clone();
                let name = target.process.exe.display().to_string();
                if self.says(Line::Tasks, &target.process) {
                    tracing::info!("{name}: Tokio's task id: {}", TaskSlot::Known(offset));
                }
                self.release(&target, TOKIO);
                self.probes.set(TOKIO, &name, State::Disabled, "calibration is done");
                self.probes.set(SLOT, &name, State::Attached, "");
                self.follow_again(&target, offset);
                self.tell_tasks(pid, true);
                if self.has_probe(&target, AXUM) {
                    // The programs have the slot from here on.
                    let exact = RoutesExact::since(monotonic_ns());
                    let _ = self.commands.send(Command::RoutesExact { tgid: pid, exact });
                }
            }
            Ok(Some((_, Progress::GaveUp { reason }))) => self.give_up_slot(pid, &reason),
            // Other reads are under way, or the machine is busy: the next call gives another sample.
            Ok(None) | Err(_) if live.misses < MISSES => {
                live.misses += 1;
                live.calibration = live.calibrator.take().map_or(Calibration::Ends, Calibration::Waits);
            }
            Ok(None) | Err(_) => self.give_up_slot(pid, "its memory does not answer"),
        }
    }

    /// Samples what a thread holds near its thread pointer, aside: the memory of the process may not answer.
    pub(super) fn sample(&mut self, probe: TaskProbe) {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let Some(live) = self.live.get_mut(&probe.tgid) else { return };
        // One sample at a time; those that come meanwhile are not needed.
        let Calibration::Waits(_) = live.calibration else { return };
        let waits = std::mem::replace(&mut live.calibration, Calibration::Samples(ticket));
        let Calibration::Waits(mut calibrator) = waits else { return };
        live.calibrator = Some(calibrator.clone());
        let (user, key) = (live.target.process.user, live.target.process.key);
        let file = live.target.file().map(|file| file.node());
        let reader = self.reader.clone();
        let work = move || {
            let sample = move |memory: &dyn Memory| {
                let progress = calibrator.sample(memory, probe.thread_pointer, probe.task);
                (*calibrator, progress)
            };
            reader.ask(probe.tgid, sample).ok()?.recv().ok()
        };
        let case = Case { ticket, key, user, forked: false, file, tries: 0 };
        step(self, case, SAMPLE, work, |result| Answer::Calibrated(Box::new(result)));
    }

    pub(super) fn give_up_slot(&mut self, pid: u32, reason: &str) {
        let Some(live) = self.live.get_mut(&pid) else { return };
        (live.calibration, live.slot) = (Calibration::Ends, 0);
        let target = live.target.clone();
        let name = target.process.exe.display().to_string();
        if self.says(Line::Tasks, &target.process) {
            tracing::warn!("{name}: Tokio's task ids are not known: {reason}");
        }
        self.release(&target, TOKIO);
        self.probes.set(SLOT, &name, State::Failed, reason);
        self.follow_again(&target, 0);
        self.tell_tasks(pid, false);
    }
}
