//! Units of systemd and what they do.
//!
//! Reads: `org.freedesktop.systemd1` by D-Bus (org.freedesktop.systemd1(5)). Yields: `node_systemd_*`. Costs: systemd answers
//! one `ListUnits` per scrape, and one `Get` per timer and three per socket; for services one at first and after a reload, and
//! per scrape one for each option (restarts, start time; tasks two). Off by default, as in node_exporter.

mod bus;
#[cfg(test)]
mod tests;
mod units;

use super::family::{counter, gauge};
use super::{CollectError, Collector, Context, Settings};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};
use bus::Bus;
use units::{Reading, Unit, Wanted};

const UNIT_STATE: Family<'static> = gauge("node_systemd_unit_state", &["name", "state", "type"], "Systemd unit");
const UNITS: Family<'static> = gauge("node_systemd_units", &["state"], "Summary of systemd unit states");
const VERSION: Family<'static> = gauge("node_systemd_version", &["version"], "Detected systemd version");
const VIRTUALIZATION: Family<'static> =
    gauge("node_systemd_virtualization_info", &["virtualization_type"], "Detected virtualization technology");
const RUNNING: Family<'static> =
    gauge("node_systemd_system_running", &[], "Whether the system is operational (see 'systemctl is-system-running')");
const START_TIME: Family<'static> =
    gauge("node_systemd_unit_start_time_seconds", &["name"], "Start time of the unit since unix epoch in seconds.");
const LAST_TRIGGER: Family<'static> =
    gauge("node_systemd_timer_last_trigger_seconds", &["name"], "Seconds since epoch of last trigger.");

/// Families of one property each: a number per unit that has it.
const NUMBERS: [(Wanted, Family<'static>); 8] = [
    (
        Wanted::Restarts,
        counter("node_systemd_service_restart_total", &["name"], "Service unit count of Restart triggers"),
    ),
    (Wanted::StartTime, START_TIME),
    (
        Wanted::TasksCurrent,
        gauge("node_systemd_unit_tasks_current", &["name"], "Current number of tasks per Systemd unit"),
    ),
    (Wanted::TasksMax, gauge("node_systemd_unit_tasks_max", &["name"], "Maximum number of tasks per Systemd unit")),
    (Wanted::LastTrigger, LAST_TRIGGER),
    (
        Wanted::Accepted,
        counter(
            "node_systemd_socket_accepted_connections_total",
            &["name"],
            "Total number of accepted socket connections",
        ),
    ),
    (
        Wanted::Connections,
        gauge("node_systemd_socket_current_connections", &["name"], "Current number of socket connections"),
    ),
    (
        Wanted::Refused,
        gauge("node_systemd_socket_refused_connections_total", &["name"], "Total number of refused socket connections"),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    UNIT_STATE,
    UNITS,
    VERSION,
    VIRTUALIZATION,
    RUNNING,
    NUMBERS[0].1,
    NUMBERS[1].1,
    NUMBERS[2].1,
    NUMBERS[3].1,
    NUMBERS[4].1,
    NUMBERS[5].1,
    NUMBERS[6].1,
    NUMBERS[7].1,
];

/// States that every unit is told to be in or not.
const STATES: [&str; 5] = ["active", "activating", "deactivating", "inactive", "failed"];

struct Systemd {
    bus: Bus,
    reading: Reading,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Systemd { bus: Bus::new(settings), reading: Reading::new(settings) })
}

impl Collector for Systemd {
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let Self { bus, reading } = self;
        reading.clear();
        let result = bus.run(context.deadline, async |connection| reading.read(connection).await);
        // What there was time for is told.
        self.write(out);
        result
    }
}

impl Systemd {
    fn write(&self, out: &mut Encoder<'_>) {
        let reading = &self.reading;
        if let Some(version) = &reading.version {
            out.family(&VERSION).put([version.as_str()], number_of(version));
        }
        if let Some(virtualization) = &reading.virtualization {
            out.family(&VIRTUALIZATION).put([virtualization.as_str()], 1u64);
        }
        if let Some(state) = &reading.state {
            out.family(&RUNNING).put([], u64::from(state == "running"));
        }
        let mut samples = out.family(&UNITS);
        for (state, count) in &reading.summary {
            samples.put([state.as_str()], *count);
        }
        let mut samples = out.family(&UNIT_STATE);
        for unit in &reading.units {
            // A unit without its type would be another series.
            let Some(kind) = &unit.kind else { continue };
            for state in STATES {
                samples.put([unit.name.as_str(), state, kind], u64::from(unit.state == state));
            }
        }
        for (wanted, family) in &NUMBERS {
            let mut samples = out.family(family);
            for Unit { name, numbers, .. } in &reading.units {
                if let Some(number) = numbers[*wanted as usize] {
                    // Times are in microseconds.
                    let micros = matches!(wanted, Wanted::StartTime | Wanted::LastTrigger);
                    let value = if micros { Value::Nanos(number.saturating_mul(1000)) } else { Value::U64(number) };
                    samples.put([name.as_str()], value);
                }
            }
        }
    }
}

/// The first number of at least three digits, with what follows a dot: `252.39` of `252.39-1~deb12u1`; 0 where there is none.
fn number_of(version: &str) -> f64 {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = version;
    while !rest.is_empty() {
        let whole = digits(rest);
        if whole >= 3 {
            let fraction = rest[whole..].strip_prefix('.').map_or(0, digits);
            let end = if fraction > 0 { whole + 1 + fraction } else { whole };
            return rest[..end].parse().unwrap_or(0.0);
        }
        let next = rest.char_indices().nth(whole.max(1)).map_or(rest.len(), |(at, _)| at);
        rest = &rest[next..];
    }
    0.0
}
