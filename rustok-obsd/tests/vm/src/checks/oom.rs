//! Kills for lack of memory, also of containers that are gone before anybody looks.
//!
//! Reads: `/metrics/cadvisor`; `memory.events.local`. Yields: verdicts. Costs: three containers.

use std::fs;
use std::path::Path;

use test_support::{Scraped, Workload, wait_until};

use super::series;
use crate::guest::{Daemon, Guest, PATIENCE, Verdict, ensure};
use crate::kernel::Source;

const KILLS: Source = Source::Line("memory.events.local", "oom_kill");
const LIMIT: Option<u64> = Some(16 << 20);
/// `tail` keeps the last line, and that one has no end. The shell stays: so does the container.
const GREEDY: &str = "tail /dev/zero; sleep 1000";

/// The series say what the container's files say, with memory short: pages of files go and come back, a process is killed.
pub fn is_told_of_a_container_that_lives(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let workload = Workload {
        script: "exec 3</disk; for time in 1 2; do dd if=/disk of=/dev/null bs=1048576 count=24; done; \
                 tail /dev/zero; sleep 1000",
        memory: LIMIT,
        binds: &[(Path::new("/dev/nvme0n1"), "/disk")],
        ..Workload::default()
    };
    let (container, folder) = guest.container(&workload)?;
    killed(&folder)?;
    ensure(container.is_running(), || format!("the shell was killed: {}", container.log()))?;
    series::hold_under_pressure(&daemon, &container, &folder)
}

/// A container that scrapes have seen is killed and removed between two of them: its file is gone, the event was heard.
pub fn is_told_of_a_container_that_is_gone(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let signal = Path::new("/tmp/signal");
    fs::create_dir_all(signal)?;
    let workload = Workload {
        script: "while [ ! -e /signal/now ]; do sleep 0.1; done; tail /dev/zero; sleep 1000",
        memory: LIMIT,
        binds: &[(signal, "/signal")],
        ..Workload::default()
    };
    let (container, folder) = guest.container(&workload)?;
    let id = container.cgroup();
    let kills = told(&daemon.scrape("/metrics/cadvisor")?, &id);
    ensure(kills == Some(0.0), || format!("{kills:?} kills before there was one"))?;
    fs::write(signal.join("now"), "")?;
    let killed = killed(&folder);
    fs::remove_dir_all(signal)?;
    killed?;
    drop(container);
    ensure(!folder.exists(), || format!("{} is still there", folder.display()))?;
    let scraped = daemon.scrape("/metrics/cadvisor")?;
    let kills = told(&scraped, &id);
    ensure(kills == Some(1.0), || format!("{kills:?} kills of a container that is gone; {}", events(&daemon)))?;
    let other = scraped.sum("container_memory_usage_bytes", &[("id", &id)]);
    ensure(other.is_none(), || format!("it is gone, and uses {other:?} bytes"))
}

/// One that comes, is killed and goes between two scrapes: the kernel's events alone say which it was.
pub fn is_told_of_a_container_that_no_scrape_saw(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let unknown = |scraped: &Scraped| scraped.sum("rustok_obsd_container_oom_events_unknown_total", &[]);
    let before = unknown(&daemon.scrape("/metrics/cadvisor")?);
    let (container, folder) = guest.container(&Workload { script: GREEDY, memory: LIMIT, ..Workload::default() })?;
    let (id, name) = (container.cgroup(), container.id().to_owned());
    killed(&folder)?;
    drop(container);
    let scraped = daemon.scrape("/metrics/cadvisor")?;
    let kills = scraped.sum("container_oom_events_total", &[("id", &id), ("name", &name)]);
    ensure(kills == Some(1.0) && unknown(&scraped) == before, || {
        format!("{kills:?} kills, {before:?} and then {:?} unknown ones; {}", unknown(&scraped), events(&daemon))
    })
}

fn killed(folder: &Path) -> Result<(), Verdict> {
    let killed = wait_until(PATIENCE, || KILLS.read(folder).is_ok_and(|kills| kills > 0).then_some(()));
    ensure(killed.is_some(), || format!("no kill: {:?}", fs::read_to_string(folder.join("memory.events.local"))))
}

fn told(scraped: &Scraped, id: &str) -> Option<f64> {
    scraped.sum("container_oom_events_total", &[("id", id)])
}

/// What the kernel programs say of it, for a message.
fn events(daemon: &Daemon) -> String {
    let heard = daemon.scrape("/metrics/app").map(|app| app.sum("rustok_obsd_host_events_total", &[("kind", "oom")]));
    format!("events of kills: {heard:?}")
}
