//! Sockets in use.
//!
//! Reads: `/proc/net/sockstat`, `/proc/net/sockstat6` (net/ipv4/proc.c). Yields: `node_sockstat_*`. Costs: two small files.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

const USED: Family<'static> = gauge("node_sockstat_sockets_used", &[], "Number of IPv4 sockets in use.");
const TCP_BYTES: Family<'static> =
    gauge("node_sockstat_TCP_mem_bytes", &[], "Number of TCP sockets in state mem_bytes.");
const UDP_BYTES: Family<'static> =
    gauge("node_sockstat_UDP_mem_bytes", &[], "Number of UDP sockets in state mem_bytes.");

macro_rules! fields {
    ($($protocol:literal $($field:literal)+,)+) => {
        /// Protocol, field, family: in the kernel's order.
        const FIELDS: &[(&str, &str, Family<'static>)] = &[$($((
            $protocol,
            $field,
            gauge(
                concat!("node_sockstat_", $protocol, "_", $field),
                &[],
                concat!("Number of ", $protocol, " sockets in state ", $field, "."),
            ),
        ),)+)+];
    };
}

fields! {
    "TCP" "inuse" "orphan" "tw" "alloc" "mem",
    "UDP" "inuse" "mem",
    "UDPLITE" "inuse",
    "RAW" "inuse",
    "FRAG" "inuse" "memory",
    "TCP6" "inuse",
    "UDP6" "inuse",
    "UDPLITE6" "inuse",
    "RAW6" "inuse",
    "FRAG6" "inuse" "memory",
}

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [USED; FIELDS.len() + 3];
    families[1] = TCP_BYTES;
    families[2] = UDP_BYTES;
    let mut at = 0;
    while at < FIELDS.len() {
        families[at + 3] = FIELDS[at].2;
        at += 1;
    }
    families
};

struct SockStat {
    files: [KeptFile; 2],
    page_size: u64,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let files = ["net/sockstat", "net/sockstat6"].map(|file| settings.kept_procfs(file));
    Box::new(SockStat { files, page_size: super::page_size() })
}

impl Collector for SockStat {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut next = 0;
        for file in &mut self.files {
            let text = match file.read() {
                Ok(text) => text,
                // One of the protocols may be off.
                Err(CollectError::NoData(_)) => continue,
                Err(error) => return Err(error),
            };
            for (protocol, rest) in text::fields(text) {
                let mut words = text::words(rest);
                while let (Some(field), Some(value)) = (words.next(), words.next()) {
                    let Some(value) = text::u64(value) else { continue };
                    if (protocol, field) == (b"sockets", b"used") {
                        out.family(&USED).put([], value);
                        continue;
                    }
                    let is = |(a, b, _): &(&str, &str, _)| a.as_bytes() == protocol && b.as_bytes() == field;
                    let ahead = FIELDS[next..].iter().position(is).map(|at| next + at);
                    let Some(at) = ahead.or_else(|| FIELDS.iter().position(is)) else { continue };
                    next = at + 1;
                    out.family(&FIELDS[at].2).put([], value);
                    let bytes = value.saturating_mul(self.page_size);
                    match FIELDS[at] {
                        ("TCP", "mem", _) => out.family(&TCP_BYTES).put([], bytes),
                        ("UDP", "mem", _) => out.family(&UDP_BYTES).put([], bytes),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}
