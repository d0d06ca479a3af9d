//! Sizes of the mounted file systems.
//!
//! Reads: `mountinfo` of process 1, or our own (fs/proc_namespace.c), and statfs(2) of each mount below `path.rootfs`. Yields:
//! `node_filesystem_*`; `rustok_obsd_filesystem_stuck_mounts`. Costs: one file and one system call per mount; the table is
//! taken apart only when it changed.
//!
//! statfs of a dead file server or FUSE daemon does not return. The calls run on threads of the pool; a mount that does not
//! answer within the time-out is told as such, costs the thread that hangs in it, and is not asked again until that returns.

mod mounts;

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings};
use crate::contract::own::own;
use crate::contract::{Family, Kind};
use crate::exposition::{Encoder, WrittenLabels};
use mounts::{Answer, LABELS, Mount, Table};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const AVAIL: Family<'static> =
    gauge("node_filesystem_avail_bytes", LABELS, "Filesystem space available to non-root users in bytes.");
const DEVICE_ERROR: Family<'static> = gauge(
    "node_filesystem_device_error",
    LABELS,
    "Whether an error occurred while getting statistics for the given device.",
);
const FILES: Family<'static> = gauge("node_filesystem_files", LABELS, "Filesystem total file nodes.");
const FILES_FREE: Family<'static> = gauge("node_filesystem_files_free", LABELS, "Filesystem total free file nodes.");
const FREE: Family<'static> = gauge("node_filesystem_free_bytes", LABELS, "Filesystem free space in bytes.");
const MOUNT_INFO: Family<'static> =
    gauge("node_filesystem_mount_info", &["device", "major", "minor", "mountpoint"], "Filesystem mount information.");
const READONLY: Family<'static> = gauge("node_filesystem_readonly", LABELS, "Filesystem read-only status.");
const SIZE: Family<'static> = gauge("node_filesystem_size_bytes", LABELS, "Filesystem size in bytes.");
const STUCK: Family<'static> = own(
    "rustok_obsd_filesystem_stuck_mounts",
    Kind::Gauge,
    "",
    &[],
    "Mounts that were asked for their size and have not answered yet; each holds a thread.",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] =
    &[AVAIL, DEVICE_ERROR, FILES, FILES_FREE, FREE, MOUNT_INFO, READONLY, SIZE, STUCK];

/// The device error of a mount that does not answer, as node_exporter has it.
const TIMEOUT: &str = "mountpoint timeout";
/// What is left of the scrape's time for the text.
const MARGIN: Duration = Duration::from_millis(50);

/// Threads that may hang, by what is to be asked next. All together leave some of the pool's to other collectors; a mount that
/// answered last time is still asked when as many hang as those that never did may hold.
const HANG_UNKNOWN: usize = 8;
const HANG_ANSWERED: usize = 12;
const HANG_LOCAL: usize = 16;

struct Filesystems {
    first: KeptFile,
    own: KeptFile,
    table: Table,
    timeout: Duration,
    /// Calls under way, those of mounts that are gone from the table among them.
    asked: Arc<AtomicUsize>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Filesystems {
        first: settings.kept_procfs("1/mountinfo"),
        own: settings.kept_procfs("self/mountinfo"),
        table: Table::new(settings),
        timeout: settings.options.filesystem_mount_timeout,
        asked: Arc::default(),
    })
}

impl Collector for Filesystems {
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        // Process 1 is hidden by hidepid, and absent in a container's own pid namespace without one.
        match self.first.read_raw() {
            Ok(text) => self.table.update(text),
            Err(_) => self.table.update(self.own.read()?),
        }
        self.ask(context);
        self.write(out);
        Ok(())
    }
}

impl Filesystems {
    /// Asks every mount that is not stuck; the answers are in the mounts.
    fn ask(&self, context: &Context<'_>) {
        let mounts = &self.table.mounts;
        let mut queue = Vec::with_capacity(mounts.len());
        // First those that will not hang, then those that did not lately.
        for wanted in [HANG_LOCAL, HANG_ANSWERED, HANG_UNKNOWN] {
            let chosen = mounts.iter().filter(|mount| limit(mount) == wanted && !mount.is_stuck());
            queue.extend(chosen.map(|mount| (Arc::clone(mount), wanted)));
        }
        for mount in mounts {
            mount.forget();
        }
        let asked = Arc::clone(&self.asked);
        let margin = context.deadline.checked_sub(MARGIN).unwrap_or(context.deadline);
        let deadline = margin.min(Instant::now() + self.timeout);
        context.pool.run(queue, deadline, move |(mount, limit)| {
            if asked.fetch_add(1, Ordering::Relaxed) < limit {
                mount.ask();
            }
            asked.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn write(&self, out: &mut Encoder<'_>) {
        let mounts = &self.table.mounts;
        let answers: Vec<Answer> = mounts.iter().map(|mount| mount.answer()).collect();
        let mut samples = out.family(&DEVICE_ERROR);
        for (mount, answer) in mounts.iter().zip(&answers) {
            match answer.error() {
                None => samples.put(WrittenLabels(&mount.labels), 0u64),
                Some(error) => samples.put(mount.with_error(&error), 1u64),
            }
        }
        let mut samples = out.family(&READONLY);
        for (mount, answer) in mounts.iter().zip(&answers) {
            let value = u64::from(mount.read_only);
            match answer.error() {
                None => samples.put(WrittenLabels(&mount.labels), value),
                Some(error) => samples.put(mount.with_error(&error), value),
            }
        }
        for (at, family) in [&SIZE, &FREE, &AVAIL, &FILES, &FILES_FREE].into_iter().enumerate() {
            let mut samples = out.family(family);
            for (mount, answer) in mounts.iter().zip(&answers) {
                if let Answer::Sizes(sizes) = answer {
                    samples.put(WrittenLabels(&mount.labels), sizes[at]);
                }
            }
        }
        let mut samples = out.family(&MOUNT_INFO);
        for (mount, _) in mounts.iter().zip(&answers).filter(|(_, answer)| matches!(answer, Answer::Sizes(_))) {
            samples.put(mount.info_labels(), 1u64);
        }
        out.family(&STUCK).put([], self.asked.load(Ordering::Relaxed) as u64);
    }
}

/// How many threads may hang for this mount to be asked.
fn limit(mount: &Mount) -> usize {
    match (mount.remote, mount.answered()) {
        (false, _) => HANG_LOCAL,
        (true, true) => HANG_ANSWERED,
        (true, false) => HANG_UNKNOWN,
    }
}
