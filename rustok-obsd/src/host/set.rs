//! All collectors that are on, as one source of the exposition.
//!
//! Reads: the collectors. Yields: their families, then `node_scrape_collector_{duration_seconds,success}` and
//! `rustok_obsd_collector_failures_total`. Costs: see the collectors; those that may block take one thread's wake-up together.
//!
//! What may block runs on the pool and writes a [`Fragment`]; the scrape takes over those that are there by its deadline.
//! One that did not come back is not asked again until it does. An error is logged when it appears and when it goes.

use super::netlink::Links;
use super::pool::Pool;
use super::{COLLECTORS, CollectError, Collector, Context, Entry, Settings};
use crate::contract::own::{BUILD, Build, own};
use crate::contract::{Family, Kind};
use crate::exposition::{Collect, Encoder, Format, Fragment, Scrape};
use crate::host::family::gauge;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads for what blocks.
const THREADS: usize = 24;
/// What is left of a scrape's time for the text, once the last collector was waited for.
const MARGIN: Duration = Duration::from_millis(20);
/// A collector that has been busy for so long in another scrape's behalf is not waited for.
const STUCK: Duration = Duration::from_secs(1);

const DURATION: Family<'static> =
    gauge("node_scrape_collector_duration_seconds", &["collector"], "node_exporter: Duration of a collector scrape.");
const SUCCESS: Family<'static> =
    gauge("node_scrape_collector_success", &["collector"], "node_exporter: Whether a collector succeeded.");

/// Dashboards take their hosts from it.
const BUILD_INFO: Family<'static> = gauge(
    "node_exporter_build_info",
    &["branch", "goarch", "goos", "goversion", "revision", "tags", "version"],
    "A metric with a constant '1' value labeled by version, revision, branch, goversion from which node_exporter was built, and the goos and goarch for the build.",
);

/// Failures of collectors.
const FAILURES: Family<'static> = own(
    "rustok_obsd_collector_failures_total",
    Kind::Counter,
    "",
    &["collector", "reason"],
    "Times that a collector of the host had an error, was late, or is a bug of ours (panic); no_data is none.",
);

/// The families of this file.
pub const FAMILIES: &[Family<'static>] = &[BUILD_INFO, DURATION, SUCCESS, FAILURES];

/// A collector that found nothing of its kind is asked again after this time: looking in vain for the hardware and the
/// modules that a host does not have would be a fifth of a scrape.
const ABSENCE: Duration = Duration::from_secs(60);

/// Collectors of hardware, file systems and modules of the kernel: what they tell is either there or not.
const OPTIONAL: [&str; 25] = [
    "bcache",
    "bcachefs",
    "bonding",
    "btrfs",
    "conntrack",
    "dmmultipath",
    "drbd",
    "edac",
    "fibrechannel",
    "hwmon",
    "infiniband",
    "ipvs",
    "kernel_hung",
    "nfs",
    "nfsd",
    "nvme",
    "nvmesubsystem",
    "powersupplyclass",
    "rapl",
    "selinux",
    "tapestats",
    "thermal_zone",
    "watchdog",
    "xfs",
    "zfs",
];

/// The collectors that are on.
pub struct Host {
    slots: Vec<Arc<Slot>>,
    pool: Pool,
    links: Arc<Links>,
    /// How long what is not there is not asked for again.
    absence: Duration,
}

struct Slot {
    name: &'static str,
    blocks: bool,
    collector: Mutex<Box<dyn Collector>>,
    /// A fragment whose memory can be used again.
    spare: Mutex<Fragment>,
    /// When the run under way began, ns since `epoch`; 0: none is.
    busy_since: AtomicU64,
    epoch: Instant,
    /// error, late, panic.
    failures: [AtomicU64; 3],
    /// The outcome that was logged last.
    logged: AtomicU8,
    /// When it found nothing of its kind, and whether that is a success.
    absent: Mutex<Option<(Instant, bool)>>,
}

/// What became of one run.
enum Outcome {
    Fine,
    NoData(String),
    Failed(CollectError),
    Late(CollectError),
    Panicked(String),
}

impl Outcome {
    fn of(result: Result<Result<(), CollectError>, Box<dyn Any + Send>>) -> Self {
        match result {
            Ok(Ok(())) => Self::Fine,
            Ok(Err(CollectError::NoData(what))) => Self::NoData(what),
            Ok(Err(error @ CollectError::Late(_))) => Self::Late(error),
            Ok(Err(error)) => Self::Failed(error),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(ToString::to_string);
                Self::Panicked(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
            }
        }
    }

    fn is_fine(&self) -> bool {
        matches!(self, Self::Fine)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::NoData(_) => 1,
            Self::Failed(_) => 2,
            Self::Late(_) => 3,
            Self::Panicked(_) => 4,
        }
    }
}

/// A run on the pool.
struct Done {
    slot: usize,
    fragment: Fragment,
    outcome: Outcome,
    took: Duration,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// The collectors that `settings` has on. Names that are none were refused by the configuration.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let options = &settings.options;
        let named = |list: &[String], entry: &Entry| list.iter().any(|name| name == entry.name);
        let on = |entry: &&Entry| {
            let wanted = (entry.default && !options.disable_defaults) || named(&options.enable, entry);
            wanted && !named(&options.disable, entry)
        };
        let slot = |entry: &Entry| {
            Arc::new(Slot {
                name: entry.name,
                blocks: entry.blocks,
                collector: Mutex::new((entry.make)(settings)),
                spare: Mutex::default(),
                busy_since: AtomicU64::new(0),
                epoch: Instant::now(),
                failures: [const { AtomicU64::new(0) }; 3],
                logged: AtomicU8::new(0),
                absent: Mutex::new(None),
            })
        };
        Self {
            slots: COLLECTORS.iter().filter(on).map(slot).collect(),
            pool: Pool::new(THREADS),
            links: Arc::default(),
            absence: ABSENCE,
        }
    }

    /// The same, but for asking for what is not there at each scrape.
    #[must_use]
    pub fn always_asking(self) -> Self {
        Self { absence: Duration::ZERO, ..self }
    }
}

impl Collect for Host {
    fn collect(&self, out: &mut Encoder<'_>) {
        let scrape = out.scrape();
        self.links.begin();
        let deadline = scrape.deadline.checked_sub(MARGIN).unwrap_or(scrape.deadline);
        let wanted = |blocks: bool| {
            let slots = self.slots.iter().enumerate();
            slots.filter(move |(_, slot)| slot.blocks == blocks && scrape.wants(slot.name))
        };
        let mut results: Vec<Option<(f64, bool)>> = vec![None; self.slots.len()];
        // Those that may block go first, so that they run while the others do.
        let (mut waited, mut stuck) = (Vec::new(), Vec::new());
        for (index, slot) in wanted(true) {
            if let Some(fine) = slot.absence(self.absence) {
                results[index] = Some((0.0, fine));
            } else if slot.is_stuck() {
                stuck.push(index);
            } else {
                waited.push((index, Arc::clone(slot)));
            }
        }
        let indices: Vec<usize> = waited.iter().map(|(index, _)| *index).collect();
        let (scrape, format, pool, links) = (scrape.clone(), out.format(), self.pool.clone(), Arc::clone(&self.links));
        let running = self.pool.start(waited, move |(index, slot)| {
            slot.record(index, &scrape, format, &Context { deadline, pool: &pool, links: &links })
        });
        for (index, slot) in wanted(false) {
            if let Some(fine) = slot.absence(self.absence) {
                results[index] = Some((0.0, fine));
                continue;
            }
            let (start, before) = (Instant::now(), out.samples());
            let context = Context { deadline, pool: &self.pool, links: &self.links };
            let mut collector = lock(&slot.collector);
            let result = catch_unwind(AssertUnwindSafe(|| collector.collect(&context, out)));
            drop(collector);
            let outcome = Outcome::of(result);
            results[index] = Some((start.elapsed().as_secs_f64(), outcome.is_fine()));
            slot.remember(out.samples() - before, &outcome);
            slot.note(outcome);
        }
        for done in running.finish(&self.pool, deadline) {
            let slot = &self.slots[done.slot];
            out.absorb(&done.fragment);
            slot.remember(done.fragment.samples(), &done.outcome);
            *lock(&slot.spare) = done.fragment;
            results[done.slot] = Some((done.took.as_secs_f64(), done.outcome.is_fine()));
            slot.note(done.outcome);
        }
        for index in indices.into_iter().chain(stuck) {
            if results[index].is_none() {
                let slot = &self.slots[index];
                let busy = slot.busy();
                results[index] = Some((busy.as_secs_f64(), false));
                let what = format!("it has been waiting for {:.1} s for the kernel or a device", busy.as_secs_f64());
                slot.note(Outcome::Late(CollectError::Late(what)));
            }
        }
        self.summarise(&results, out);
    }

    fn names(&self) -> Vec<&'static str> {
        self.slots.iter().map(|slot| slot.name).collect()
    }
}

impl Host {
    fn summarise(&self, results: &[Option<(f64, bool)>], out: &mut Encoder<'_>) {
        let named = || self.slots.iter().zip(results).filter_map(|(slot, result)| Some((slot, (*result)?)));
        let Build { version, revision, .. } = BUILD;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        out.family(&BUILD_INFO).put(["", architecture, "linux", "", revision, "rustok-obsd", version], 1_u64);
        let mut samples = out.family(&DURATION);
        for (slot, (seconds, _)) in named() {
            samples.put([slot.name], seconds);
        }
        let mut samples = out.family(&SUCCESS);
        for (slot, (_, success)) in named() {
            samples.put([slot.name], u64::from(success));
        }
        let mut samples = out.family(&FAILURES);
        for (slot, _) in named() {
            for (count, reason) in slot.failures.iter().zip(["error", "late", "panic"]) {
                samples.put([slot.name, reason], count.load(Ordering::Relaxed));
            }
        }
    }
}

impl Slot {
    /// Runs the collector on a thread of the pool.
    fn record(&self, index: usize, scrape: &Scrape, format: Format, context: &Context<'_>) -> Done {
        let mut collector = lock(&self.collector);
        let start = Instant::now();
        let since = u64::try_from((start - self.epoch).as_nanos()).unwrap_or(u64::MAX);
        self.busy_since.store(since.max(1), Ordering::Relaxed);
        let mut fragment = std::mem::take(&mut *lock(&self.spare));
        let result =
            catch_unwind(AssertUnwindSafe(|| fragment.record(scrape, format, |out| collector.collect(context, out))));
        self.busy_since.store(0, Ordering::Relaxed);
        Done { slot: index, fragment, outcome: Outcome::of(result), took: start.elapsed() }
    }

    /// How long the run under way has been going on.
    fn busy(&self) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.epoch.elapsed().saturating_sub(Duration::from_nanos(since)),
        }
    }

    /// Whether the host was found to have nothing of the kind within this time, and whether that is a success.
    fn absence(&self, time: Duration) -> Option<bool> {
        lock(&self.absent).filter(|(since, _)| since.elapsed() < time).map(|(_, fine)| fine)
    }

    /// Remembers whether the host has anything of the kind.
    fn remember(&self, samples: u64, outcome: &Outcome) {
        let nothing = samples == 0 && matches!(outcome, Outcome::Fine | Outcome::NoData(_));
        let absent = nothing && OPTIONAL.contains(&self.name);
        *lock(&self.absent) = absent.then(|| (Instant::now(), outcome.is_fine()));
    }

    fn is_stuck(&self) -> bool {
        self.busy() > STUCK
    }

    /// Counts and, where it is news, logs an outcome.
    fn note(&self, outcome: Outcome) {
        let code = outcome.code();
        if code >= 2 {
            self.failures[usize::from(code) - 2].fetch_add(1, Ordering::Relaxed);
        }
        if self.logged.swap(code, Ordering::Relaxed) == code {
            return;
        }
        match outcome {
            Outcome::Fine => tracing::debug!("collector {} works", self.name),
            Outcome::NoData(what) => tracing::debug!("collector {}: this host has no such data: {what}", self.name),
            Outcome::Failed(error) | Outcome::Late(error) => tracing::warn!("collector {}: {error}", self.name),
            Outcome::Panicked(text) => {
                tracing::error!("collector {} panicked ({text}): a bug of rustok-obsd, please report it", self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::to_text;

    /// Samples of `watchdog`, which a scrape of `host` tells, and whether it calls itself a success.
    fn watchdogs(host: &Host) -> (usize, bool) {
        let text = to_text(host, Format::Text);
        let success = text.contains("node_scrape_collector_success{collector=\"watchdog\"} 1\n");
        (text.lines().filter(|line| line.starts_with("node_watchdog_")).count(), success)
    }

    #[test]
    fn what_is_not_there_is_not_asked_for_again_at_once_and_what_is_there_always() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.paths.sysfs = folder.path().to_owned();
        settings.options.disable_defaults = true;
        settings.options.enable = vec!["watchdog".into()];
        let (remembering, asking) = (Host::new(&settings), Host::new(&settings).always_asking());
        let short = Host { absence: Duration::from_millis(50), ..Host::new(&settings) };
        for host in [&remembering, &asking, &short] {
            assert_eq!(watchdogs(host), (0, false));
        }
        let device = folder.path().join("class/watchdog/watchdog0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("timeout"), "60\n").unwrap();
        assert_eq!(watchdogs(&remembering), (0, false), "it was not there a moment ago");
        assert!(watchdogs(&asking).0 > 0);
        std::thread::sleep(Duration::from_millis(60));
        assert!(watchdogs(&short).0 > 0);
        std::fs::write(device.join("timeout"), "61\n").unwrap();
        let text = to_text(&short, Format::Text);
        assert!(text.contains("node_watchdog_timeout_seconds{name=\"watchdog0\"} 61\n"), "{text}");
    }

    #[test]
    fn what_may_be_absent_is_a_collector() {
        for name in OPTIONAL {
            assert!(COLLECTORS.iter().any(|entry| entry.name == name), "{name}");
        }
    }
}
