//! `rustok-obsd doctor`: what would work on this host for each target, and why the rest would not.
//!
//! Reads: the kernel, the process table, the targets' binaries; loads and attaches the kernel programs for a moment.
//! Yields: a [`Diagnosis`], printable and as JSON. Costs: about a second; nothing is left attached.

use std::fmt;

use serde::Serialize;

use super::{DaemonError, drivers::functions, rules::scanner, settings};
use crate::{
    config::Config,
    escape,
    probe::{HostPrograms, HostSettings, Kernel, ProbeBoard, ProbeStatus, Programs, State, host, kernel::Need, loader},
    target::{BinaryCache, CustomPoint, InProcess, ProbePoint, Reader, Target, TaskSlot, Trust},
};

/// One line of the diagnosis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// It would work.
    pub ok: bool,
    /// It is needed; else the daemon does without, and says so.
    pub required: bool,
    /// What was found, or why it would not work and what to do.
    pub detail: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Kernel and permissions.
    pub host: Vec<Check>,
    /// Each process that the configuration selects.
    pub targets: Vec<TargetDiagnosis>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetDiagnosis {
    /// Process id.
    pub pid: u32,
    /// Executable.
    pub exe: String,
    /// `service.name`.
    pub service_name: String,
    /// Each probe.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Everything that was asked for would work.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        let mut checks = self.host.iter().chain(self.targets.iter().flat_map(|target| &target.checks));
        checks.all(|check| check.ok || !check.required)
    }
}

/// Looks.
///
/// # Errors
/// The rules or the process table cannot be read.
pub fn diagnose(config: &Config) -> Result<Diagnosis, DaemonError> {
    let scanner = scanner(config)?;
    let trust = Trust::of_daemon();
    // A person waits, and can end it.
    let reader = Reader::new(InProcess);
    let kernel = Kernel::inspect_below(&config.path.sysfs);
    let mut host = host_checks(&kernel);
    host.extend(load_checks(config, &kernel));
    host.extend(host_event_checks(config, &kernel));
    let scan = scanner.scan()?;
    let cache = BinaryCache::with_functions(functions(config));
    let mut targets = Vec::new();
    for process in scan.targets {
        let (pid, exe, service_name) = (process.key.pid, process.exe.display().to_string(), process.service_name());
        let checks = match Target::new(process, &cache, &trust, scanner.procfs(), &reader) {
            Ok(target) => target_checks(&target, cache.functions()),
            Err(error) => vec![required("executable", Err(error.to_string()))],
        };
        targets.push(TargetDiagnosis { pid, exe, service_name, checks });
    }
    host.push(match (config.targets.is_empty(), targets.len()) {
        (true, _) => required(
            "targets",
            Err("none configured: give --exe NAME, or [[targets]] in the file of --config.file".into()),
        ),
        (false, 0) => optional(
            "targets",
            Err(format!(
                "no running process matches; {} processes were looked at{}; one that starts later is seen at once",
                scan.seen,
                if scan.denied > 0 { format!(", {} may not be read", scan.denied) } else { String::new() }
            )),
        ),
        (false, found) => required("targets", Ok(format!("{found} running"))),
    });
    Ok(Diagnosis { host, targets })
}

fn check(what: &str, required: bool, result: Result<String, String>) -> Check {
    let ok = result.is_ok();
    let (Ok(detail) | Err(detail)) = result;
    Check { what: what.into(), ok, required, detail }
}

fn required(what: &str, result: Result<String, String>) -> Check {
    check(what, true, result)
}

fn optional(what: &str, result: Result<String, String>) -> Check {
    check(what, false, result)
}

fn host_checks(kernel: &Kernel) -> Vec<Check> {
    let mut checks = vec![required("kernel", Ok(kernel.release.clone()))];
    checks.push(required(
        "capabilities",
        kernel.lacks(Need::Programs).map_or_else(|| Ok("those of the kernel programs are there".into()), Err),
    ));
    checks.push(optional(
        "other users' processes",
        kernel.lacks(Need::OtherUsers).map_or_else(|| Ok("may be read".into()), Err),
    ));
    checks.push(match kernel.lockdown.as_deref() {
        Some("confidentiality") => required("lockdown", Err(kernel.refusal().unwrap_or_default())),
        mode => required("lockdown", Ok(mode.unwrap_or("not built in").into())),
    });
    checks.push(optional(
        "pid namespace",
        if kernel.host_pids {
            Ok("the host's".into())
        } else {
            Err("not the host's, while the kernel tells host pids: run with hostPID: true (Kubernetes) or --pid=host"
                .into())
        },
    ));
    checks.push(required("kernel types", kernel.offsets.as_ref().map(|_| "BTF read".into()).map_err(Clone::clone)));
    checks
}

/// Loads and attaches for real, for a moment: nothing else tells as well whether it would work.
fn load_checks(config: &Config, kernel: &Kernel) -> Vec<Check> {
    let board = ProbeBoard::default();
    match Programs::load(loader::OBJECT, kernel, settings(config), &board) {
        Ok(loaded) => {
            let mut checks: Vec<Check> = board
                .all()
                .into_iter()
                .map(|probe| {
                    let ok = probe.state == State::Attached;
                    required(&probe.probe, if ok { Ok("attaches".into()) } else { Err(probe.reason) })
                })
                .collect();
            let lacking = kernel.lacks(Need::Uprobes).filter(|_| loaded.programs.uprobes.wants_admin());
            drop(loaded);
            checks.sort_by(|a, b| a.what.cmp(&b.what));
            checks.push(optional("uprobes", lacking.map_or_else(|| Ok("may be attached".into()), Err)));
            checks
        }
        Err(error) => vec![required("kernel programs", Err(error.to_string()))],
    }
}

/// The same for the programs of the whole host, without which requests and queries are seen all the same.
fn host_event_checks(config: &Config, kernel: &Kernel) -> Vec<Check> {
    if !config.ebpf.host_events {
        return Vec::new();
    }
    let board = ProbeBoard::default();
    drop(HostPrograms::load(host::HOST_OBJECT, kernel, HostSettings::default(), &board));
    let told = |probe: ProbeStatus| match probe.state {
        State::Attached => optional(&probe.probe, Ok("attaches".into())),
        State::Disabled => optional(&probe.probe, Ok(probe.reason)),
        State::Failed => optional(&probe.probe, Err(probe.reason)),
    };
    board.all().into_iter().map(told).collect()
}

fn target_checks(target: &Target, functions: &[CustomPoint]) -> Vec<Check> {
    // A library that is not there is no news; calibration's own probe is told with the task id below.
    let told = |point: &ProbePoint| match point {
        ProbePoint::TokioTaskEnter => false,
        ProbePoint::SqlxStatement => target.places(ProbePoint::SqlxQuery).is_empty(),
        _ => true,
    };
    let points = target.binary.probes.iter().map(|(point, _)| *point);
    let trusted = target.sockets_only.clone().map_or_else(|| Ok("may get uprobes".into()), Err);
    let found: Vec<Check> = points
        .filter(|point| told(point) && (target.binary.has(point.library()) || matches!(point, ProbePoint::Custom(_))))
        .map(|point| {
            let presence = target.presence_of(point);
            let name = match point {
                ProbePoint::Custom(index) => functions.get(usize::from(index)).map_or(point.path(), |own| own.path),
                built_in => built_in.path(),
            };
            optional(name, if target.places(point).is_empty() { Err(presence) } else { Ok(presence) })
        })
        .collect();
    let mut checks = vec![optional("executable", trusted)];
    checks.extend(found);
    checks.push(optional(
        "tokio task id",
        match &target.task_slot() {
            slot @ (TaskSlot::Known(_) | TaskSlot::NeedsCalibration { .. }) => Ok(slot.to_string()),
            slot @ TaskSlot::Absent { .. } => Err(slot.to_string()),
        },
    ));
    checks
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, check: &Check| {
            let verdict = match (check.ok, check.required) {
                (true, _) => "ok",
                (false, true) => "FAIL",
                (false, false) => "without",
            };
            writeln!(f, "  {verdict:<8} {:<24} {}", escape::line(&check.what), escape::line(&check.detail))
        };
        writeln!(f, "host")?;
        self.host.iter().try_for_each(|check| line(f, check))?;
        for target in &self.targets {
            let (exe, service_name) = (escape::line(&target.exe), escape::line(&target.service_name));
            writeln!(f, "process {} {exe} ({service_name})", target.pid)?;
            target.checks.iter().try_for_each(|check| line(f, check))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_forges_no_line() {
        let hostile = "shop\n  ok       all\x1b[2J\u{9b}";
        let check = required(hostile, Err(hostile.into()));
        let target =
            TargetDiagnosis { pid: 1, exe: hostile.into(), service_name: hostile.into(), checks: vec![check.clone()] };
        let text = Diagnosis { host: vec![check], targets: vec![target] }.to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.contains(|letter| letter != '\n' && escape::forges(letter)), "{text:?}");
    }
}
