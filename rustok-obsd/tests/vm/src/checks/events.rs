//! The kernel programs of the whole host, on this kernel.
//!
//! Reads: `/metrics/app`, `/metrics/process`. Yields: verdicts. Costs: forty short processes, ten cgroups.

use std::path::PathBuf;

use test_support::{Scraped, wait_until};

use crate::guest::{CGROUPS, Daemon, Guest, PATIENCE, Verdict, ensure};
use crate::kernel::Cgroup;
use crate::system::busybox;

/// Programs that must run here. `host_oom` need not: older kernels tell a pid only, and `host_exit` a victim.
const PROGRAMS: [&str; 5] = ["host_exec", "host_exit", "host_free", "host_cgroup_mkdir", "host_cgroup_rmdir"];
const COUNT: u32 = 20;

/// The verifier takes every program, and each is attached.
pub fn programs_are_attached(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let app = daemon.scrape("/metrics/app")?;
    let probes = app.families.get("rustok_obsd_probe_state").map(|family| &family.samples);
    let states: Vec<_> = probes.into_iter().flatten().map(|((_, labels), _)| labels).collect();
    let of = |labels: &test_support::LabelMap, name: &str| labels.get(name).cloned().unwrap_or_default();
    for program in PROGRAMS {
        let state = app.sum("rustok_obsd_probe_state", &[("probe", program), ("state", "attached")]);
        ensure(state == Some(1.0), || format!("{program} is not attached: {states:?}; {}", daemon.log()))?;
    }
    let oom = states.iter().find(|labels| of(labels, "probe") == "host_oom");
    let oom = oom.map(|labels| (of(labels, "state"), of(labels, "reason"))).unwrap_or_default();
    guest.note(format!("host_oom: {} {}", oom.0, oom.1));
    // Where it does not run, that is no fault, and another one tells.
    ensure(oom.0 == "attached" || oom.0 == "disabled", || format!("host_oom is {oom:?}; {}", daemon.log()))
}

/// Processes and cgroups that come and go are told.
pub fn are_delivered(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let kinds = ["exec", "exit", "freed", "cgroup_made", "cgroup_removed"];
    let counts = |daemon: &Daemon| -> Result<[f64; 5], Verdict> {
        let app = daemon.scrape("/metrics/app")?;
        Ok(kinds.map(|kind| app.sum("rustok_obsd_host_events_total", &[("kind", kind)]).unwrap_or_default()))
    };
    let before = counts(&daemon)?;
    for number in 0..COUNT {
        busybox(&["true"])?;
        drop(Cgroup::new(PathBuf::from(format!("{CGROUPS}/event-{number}")))?);
    }
    let mut after = before;
    let came = wait_until(PATIENCE, || {
        after = counts(&daemon).ok()?;
        let enough = before.iter().zip(after).all(|(before, after)| after - before >= f64::from(COUNT));
        enough.then_some(())
    });
    ensure(came.is_some(), || format!("{COUNT} of each; {kinds:?} went from {before:?} to {after:?}"))
}

/// Processes that lived between two scrapes are in their group's counters.
pub fn of_short_lives_are_counted(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let count = |scraped: &Scraped| {
        scraped.sum("rustok_obsd_process_short_lived_total", &[("groupname", "true")]).unwrap_or_default()
    };
    let before = count(&daemon.scrape("/metrics/process")?);
    for _ in 0..COUNT {
        // By the link: the name of the process is the link's.
        std::process::Command::new("/bin/true").status()?;
    }
    let mut after = before;
    let came = wait_until(PATIENCE, || {
        after = count(&daemon.scrape("/metrics/process").ok()?);
        (after - before >= f64::from(COUNT)).then_some(())
    });
    ensure(came.is_some(), || format!("{COUNT} processes `true` ended; their count went from {before} to {after}"))
}
