//! The daemon's own process, by the names of Prometheus' client libraries (client_golang 1.2x).
//!
//! Reads: `/proc/self/{stat,fd,net/netstat}`, two limits. Yields: `process_*`. Costs: 60 µs, most of it for `netstat`.
//!
//! The network's numbers are those of the network namespace, whatever their HELP says: so it is with the client libraries.

use super::clock::{BootTime, TICK_NS, TICKS};
use super::families::ITSELF;
use super::files::{Files, Kept};
use super::member::{self, Member};
use super::parse;
use crate::exposition::{Collect, Encoder, Value};
use crate::host::text;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The source.
pub struct Itself(Mutex<State>);

struct State {
    files: Files,
    stat: Kept,
    netstat: Kept,
    boot: BootTime,
}

impl Itself {
    /// Of this process, always by `/proc`: another mount of procfs may know it by another pid, or not at all.
    ///
    /// # Errors
    /// There is no procfs.
    pub fn new() -> io::Result<Self> {
        let procfs = Path::new("/proc");
        let state = State {
            files: Files::open(procfs)?,
            stat: Kept::default(),
            netstat: Kept::default(),
            boot: BootTime::new(procfs),
        };
        Ok(Self(Mutex::new(state)))
    }
}

impl Collect for Itself {
    fn collect(&self, out: &mut Encoder<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { files, stat, netstat, boot } = &mut *state;
        let pid = std::process::id();
        let stat = files.read(stat, true, format_args!("self/stat")).ok().and_then(parse::stat);
        let octets = files.read(netstat, true, format_args!("self/net/netstat")).ok().and_then(octets);
        let mut member = Member::new(pid);
        if let Some(stat) = stat {
            member.stat = stat;
        }
        let limit = |which| member::limit(pid, which).map(|[soft, _]| Value::U64(soft));
        let start = boot.seconds() as f64 + member.stat.start_ticks as f64 / TICKS as f64;
        let whole = stat.map(|stat| {
            [
                Value::Nanos((stat.user_ticks + stat.system_ticks) * TICK_NS),
                Value::U64(member.resident()),
                Value::F64(start),
                Value::U64(stat.threads),
                Value::U64(stat.virtual_bytes),
            ]
        });
        let values = [
            whole.map(|whole| whole[0]),
            limit(libc::RLIMIT_NOFILE),
            octets.map(|octets| Value::U64(octets[0])),
            octets.map(|octets| Value::U64(octets[1])),
            files.open_descriptors(pid).ok().map(Value::U64),
            whole.map(|whole| whole[1]),
            whole.map(|whole| whole[2]),
            whole.map(|whole| whole[3]),
            whole.map(|whole| whole[4]),
            limit(libc::RLIMIT_AS),
        ];
        for (family, value) in ITSELF.iter().zip(values) {
            if let Some(value) = value {
                out.family(family).put([], value);
            }
        }
    }
}

/// `InOctets` and `OutOctets` of `IpExt`, whose names and values are on two lines of the same beginning.
fn octets(netstat: &[u8]) -> Option<[u64; 2]> {
    let mut lines = text::lines(netstat).filter_map(|line| line.strip_prefix(b"IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &[u8]| {
        let mut pairs = text::words(names).zip(text::words(values));
        pairs.find_map(|(name, value)| (name == wanted).then(|| text::u64(value))?)
    };
    Some([value(b"InOctets")?, value(b"OutOctets")?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::{Format, to_text};

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn this_process_is_told_as_it_is() {
        let source = Itself::new().unwrap();
        let text = to_text(&source, Format::Text);
        let cpu = value(&text, "process_cpu_seconds_total");
        let mut work = 1u64;
        let mut later = to_text(&source, Format::Text);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while value(&later, "process_cpu_seconds_total") < cpu + 0.03 {
            assert!(std::time::Instant::now() < deadline, "{later}");
            (0..1_000_000).for_each(|_| work = std::hint::black_box(work.wrapping_mul(31)));
            later = to_text(&source, Format::Text);
        }
        assert!(value(&text, "process_open_fds") >= 4.0 && value(&text, "process_threads") >= 2.0);
        assert!(value(&text, "process_resident_memory_bytes") > 1e6);
        assert!(value(&text, "process_virtual_memory_bytes") > value(&text, "process_resident_memory_bytes"));
        assert!(value(&text, "process_max_fds") >= value(&text, "process_open_fds"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..3600.0).contains(&(now - value(&text, "process_start_time_seconds"))), "{text}");
        for family in ITSELF {
            assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{}", family.name);
        }
    }

    #[test]
    fn octets_are_found_by_name() {
        let text = b"TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 17 18\n";
        assert_eq!(octets(text), Some([17, 18]));
        assert_eq!(octets(b"IpExt: InOctets\n"), None);
    }
}
