//! The time, its zone and its sources.
//!
//! Reads: the clock; the zone's offset as the C library has it; `devices/system/clocksource` of sysfs. Yields:
//! `node_time_seconds`, `node_time_zone_offset_seconds`, `node_time_clocksource_*_info`. Costs: a small file per source
//! device; which sources there are, is read once per minute.

use super::{CollectError, Collector, Context, KeptFile, Settings, attribute, family::gauge};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};
use std::ffi::CStr;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TIME: Family<'static> = gauge("node_time_seconds", &[], "System time in seconds since epoch (1970).");
const ZONE: Family<'static> =
    gauge("node_time_zone_offset_seconds", &["time_zone"], "System time zone offset in seconds.");
const AVAILABLE: Family<'static> = gauge(
    "node_time_clocksource_available_info",
    &["device", "clocksource"],
    "Available clocksources read from '/sys/devices/system/clocksource'.",
);
const CURRENT: Family<'static> = gauge(
    "node_time_clocksource_current_info",
    &["device", "clocksource"],
    "Current clocksource read from '/sys/devices/system/clocksource'.",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[TIME, ZONE, AVAILABLE, CURRENT];

/// A source that was found unstable is gone from the list, which nobody needs to know at once.
const REFRESH: Duration = Duration::from_secs(60);

struct Time {
    folder: PathBuf,
    sources: Vec<Source>,
    read: Option<Instant>,
}

struct Source {
    device: String,
    available: Vec<String>,
    current: KeptFile,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Time { folder: settings.sysfs("devices/system/clocksource"), sources: Vec::new(), read: None })
}

impl Collector for Time {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        out.family(&TIME).put([], Value::Nanos(nanos));
        zone(now.as_secs(), out)?;
        if self.read.is_none_or(|read| read.elapsed() >= REFRESH) {
            self.refresh();
        }
        let mut samples = out.family(&AVAILABLE);
        for source in &self.sources {
            for name in &source.available {
                samples.put([source.device.as_str(), name], 1u64);
            }
        }
        let mut samples = out.family(&CURRENT);
        for source in &mut self.sources {
            if let Some(name) = source.current.read().ok().and_then(|name| std::str::from_utf8(name).ok()) {
                samples.put([source.device.as_str(), name.trim()], 1u64);
            }
        }
        Ok(())
    }
}

impl Time {
    fn refresh(&mut self) {
        self.read = Some(Instant::now());
        self.sources.clear();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(device) = name.to_str().and_then(|name| name.strip_prefix("clocksource")) else { continue };
            let available = attribute(&entry.path().join("available_clocksource")).unwrap_or_default();
            self.sources.push(Source {
                device: device.into(),
                available: available.split_whitespace().map(Into::into).collect(),
                current: KeptFile::new(entry.path().join("current_clocksource")),
            });
        }
        self.sources.sort_by(|a, b| a.device.cmp(&b.device));
    }
}

fn zone(seconds: u64, out: &mut Encoder<'_>) -> Result<(), CollectError> {
    let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    // SAFETY: a zeroed tm is valid.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid; the function fills the struct or returns null.
    if unsafe { libc::localtime_r(&raw const seconds, &raw mut local) }.is_null() {
        return Err(CollectError::call("localtime_r"));
    }
    if local.tm_zone.is_null() {
        return Ok(());
    }
    // SAFETY: the C library's text of the zone lives as long as the process, and ends in NUL.
    let name = unsafe { CStr::from_ptr(local.tm_zone) }.to_string_lossy();
    out.family(&ZONE).put([&*name], local.tm_gmtoff);
    Ok(())
}
