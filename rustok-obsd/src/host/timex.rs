//! Discipline of the clock.
//!
//! Reads: adjtimex(2). Yields: `node_timex_*`. Costs: one system call.

use super::family::{counter, gauge};
use super::{CollectError, Collector, Context, Settings};
use crate::contract::Family;
use crate::exposition::Encoder;

type Entry = (Family<'static>, fn(&Clock) -> f64);

/// Family, value.
const ENTRIES: &[Entry] = &[
    (gauge("node_timex_offset_seconds", &[], "Time offset in between local system and reference clock."), |clock| {
        clock.time.offset as f64 / clock.divisor
    }),
    (gauge("node_timex_frequency_adjustment_ratio", &[], "Local clock frequency adjustment."), |clock| {
        1.0 + clock.time.freq as f64 / PPM16
    }),
    (gauge("node_timex_maxerror_seconds", &[], "Maximum error in seconds."), |clock| {
        clock.time.maxerror as f64 / MICRO
    }),
    (gauge("node_timex_estimated_error_seconds", &[], "Estimated error in seconds."), |clock| {
        clock.time.esterror as f64 / MICRO
    }),
    (gauge("node_timex_status", &[], "Value of the status array bits."), |clock| f64::from(clock.time.status)),
    (gauge("node_timex_loop_time_constant", &[], "Phase-locked loop time constant."), |clock| {
        clock.time.constant as f64
    }),
    (gauge("node_timex_tick_seconds", &[], "Seconds between clock ticks."), |clock| clock.time.tick as f64 / MICRO),
    (gauge("node_timex_pps_frequency_hertz", &[], "Pulse per second frequency."), |clock| {
        clock.time.ppsfreq as f64 / PPM16
    }),
    (gauge("node_timex_pps_jitter_seconds", &[], "Pulse per second jitter."), |clock| {
        clock.time.jitter as f64 / clock.divisor
    }),
    (gauge("node_timex_pps_shift_seconds", &[], "Pulse per second interval duration."), |clock| {
        f64::from(clock.time.shift)
    }),
    (
        gauge(
            "node_timex_pps_stability_hertz",
            &[],
            "Pulse per second stability, average of recent frequency changes.",
        ),
        |clock| clock.time.stabil as f64 / PPM16,
    ),
    (counter("node_timex_pps_jitter_total", &[], "Pulse per second count of jitter limit exceeded events."), |clock| {
        clock.time.jitcnt as f64
    }),
    (counter("node_timex_pps_calibration_total", &[], "Pulse per second count of calibration intervals."), |clock| {
        clock.time.calcnt as f64
    }),
    (counter("node_timex_pps_error_total", &[], "Pulse per second count of calibration errors."), |clock| {
        clock.time.errcnt as f64
    }),
    (
        counter(
            "node_timex_pps_stability_exceeded_total",
            &[],
            "Pulse per second count of stability limit exceeded events.",
        ),
        |clock| clock.time.stbcnt as f64,
    ),
    (gauge("node_timex_tai_offset_seconds", &[], "International Atomic Time (TAI) offset."), |clock| {
        f64::from(clock.time.tai)
    }),
    (gauge("node_timex_sync_status", &[], "Is clock synchronized to a reliable server (1 = yes, 0 = no)."), |clock| {
        f64::from(u8::from(clock.synchronized))
    }),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [ENTRIES[0].0; ENTRIES.len()];
    let mut at = 0;
    while at < ENTRIES.len() {
        families[at] = ENTRIES[at].0;
        at += 1;
    }
    families
};

const MICRO: f64 = 1e6;
const NANO: f64 = 1e9;
/// Parts per million with 16 bits behind the point.
const PPM16: f64 = 1e6 * 65536.0;

struct Clock {
    time: libc::timex,
    /// Of offset and jitter: both are in ns where the status says so.
    divisor: f64,
    synchronized: bool,
}

struct Timex;

/// Makes it.
pub fn make(_: &Settings) -> Box<dyn Collector> {
    Box::new(Timex)
}

impl Collector for Timex {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        // SAFETY: a zeroed timex is valid, and asks for nothing to be changed.
        let mut time: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the struct.
        let state = unsafe { libc::adjtimex(&raw mut time) };
        if state < 0 {
            let error = std::io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                // A container that may not look.
                Some(libc::EPERM) => CollectError::NoData("adjtimex is not permitted".into()),
                _ => CollectError::Call { call: "adjtimex", source: error },
            });
        }
        let divisor = if time.status & libc::STA_NANO == 0 { MICRO } else { NANO };
        let clock = Clock { time, divisor, synchronized: state != libc::TIME_ERROR };
        for (family, value) in ENTRIES {
            out.family(family).put([], value(&clock));
        }
        Ok(())
    }
}
