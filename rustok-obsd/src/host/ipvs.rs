//! Virtual servers of the kernel's load balancer.
//!
//! Reads: `/proc/net/ip_vs`, `/proc/net/ip_vs_stats` (net/netfilter/ipvs/ip_vs_ctl.c). Yields: totals, and connections and
//! weight of each backend; where fewer labels are asked for, sums. Costs: two files, kept open.

use super::family::{counter, gauge};
use super::{Bag, CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What a backend can be told by.
const LABELS: [&str; 6] = ["local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"];

const TOTALS: [Family<'static>; 5] = [
    counter("node_ipvs_connections_total", &[], "The total number of connections made."),
    counter("node_ipvs_incoming_packets_total", &[], "The total number of incoming packets."),
    counter("node_ipvs_outgoing_packets_total", &[], "The total number of outgoing packets."),
    counter("node_ipvs_incoming_bytes_total", &[], "The total amount of incoming data."),
    counter("node_ipvs_outgoing_bytes_total", &[], "The total amount of outgoing data."),
];
/// Active, inactive, weight: the numbers of a backend in that order.
const BACKEND: [Family<'static>; 3] = [
    gauge(
        "node_ipvs_backend_connections_active",
        &LABELS,
        "The current active connections by local and remote address.",
    ),
    gauge(
        "node_ipvs_backend_connections_inactive",
        &LABELS,
        "The current inactive connections by local and remote address.",
    ),
    gauge("node_ipvs_backend_weight", &LABELS, "The current backend weight by local and remote address."),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] =
    &[TOTALS[0], TOTALS[1], TOTALS[2], TOTALS[3], TOTALS[4], BACKEND[0], BACKEND[1], BACKEND[2]];

struct Ipvs {
    totals: KeptFile,
    backends: KeptFile,
    /// Labels that are told, by their place in [`LABELS`].
    labels: Result<Vec<usize>, String>,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Ipvs {
        totals: settings.kept_procfs("net/ip_vs_stats"),
        backends: settings.kept_procfs("net/ip_vs"),
        labels: places(&settings.options.ipvs_backend_labels),
        bag: Bag::default(),
    })
}

fn places(wanted: &[String]) -> Result<Vec<usize>, String> {
    let place = |name: &String| {
        let place = LABELS.iter().position(|label| label == name);
        place.ok_or_else(|| format!("collector.ipvs.backend_labels: `{name}` is none; allowed: {}", LABELS.join(", ")))
    };
    wanted.iter().map(place).collect()
}

/// Labels of a backend, and its numbers.
type Backend = ([String; 6], [u64; 3]);

/// The backends in `ip_vs`: a line per virtual server, and one per backend below it.
fn backends(file: &[u8]) -> Vec<Backend> {
    let mut found = Vec::new();
    let (mut protocol, mut mark, mut local) = (String::new(), String::new(), None);
    for line in text::lines(file) {
        let mut words = text::words(line);
        match words.next() {
            Some(name @ (b"TCP" | b"UDP" | b"SCTP")) => {
                protocol = String::from_utf8_lossy(name).into_owned();
                mark.clear();
                local = words.next().and_then(endpoint);
            }
            Some(b"FWM") => {
                "FWM".clone_into(&mut protocol);
                mark = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
                local = Some((String::new(), "0".into()));
            }
            Some(b"->") => {
                let (Some(local), Some(remote)) = (&local, words.next().and_then(endpoint)) else { continue };
                // How packets are forwarded, weight, active, inactive.
                let mut number = || words.next().and_then(text::u64);
                let (Some(weight), Some(active), Some(inactive)) = (
                    {
                        number();
                        number()
                    },
                    number(),
                    number(),
                ) else {
                    continue;
                };
                let (address, port) = local.clone();
                let labels = [address, port, remote.0, remote.1, protocol.clone(), mark.clone()];
                found.push((labels, [active, inactive, weight]));
            }
            _ => {}
        }
    }
    found
}

/// `C0A80016:0CEA` or `[2620:0000:…:0001]:0050`: address and port as they are usually written.
fn endpoint(word: &[u8]) -> Option<(String, String)> {
    let colon = memchr::memrchr(b':', word)?;
    let port = u16::try_from(text::hex(&word[colon + 1..])?).ok()?;
    let address = &word[..colon];
    let address = match address.strip_prefix(b"[").and_then(|address| address.strip_suffix(b"]")) {
        Some(address) => text::utf8(address)?.parse::<Ipv6Addr>().ok()?.to_string(),
        None => Ipv4Addr::from(u32::try_from(text::hex(address)?).ok()?).to_string(),
    };
    Some((address, port.to_string()))
}

impl Collector for Ipvs {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let labels = self.labels.as_ref().map_err(|error| CollectError::Other(error.clone()))?;
        // Two lines of titles, then the numbers, hexadecimal.
        let totals = text::lines(self.totals.read()?).nth(2).unwrap_or_default();
        for (family, word) in TOTALS.iter().zip(text::words(totals)) {
            if let Some(total) = text::hex(word) {
                out.family(family).put([], total);
            }
        }
        // Sorted and added up: a backend may stand behind several servers, and labels may be left out.
        let mut sums: BTreeMap<Vec<String>, [u64; 3]> = BTreeMap::new();
        for (texts, numbers) in backends(self.backends.read()?) {
            let sum = sums.entry(labels.iter().map(|place| texts[*place].clone()).collect()).or_default();
            sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        for (at, family) in BACKEND.iter().enumerate() {
            for (texts, numbers) in &sums {
                let names = labels.iter().map(|place| LABELS[*place]);
                let pairs: Vec<(&str, &str)> = names.zip(texts.iter().map(String::as_str)).collect();
                self.bag.put(family.name, family.kind, family.help, &pairs, numbers[at]);
            }
        }
        self.bag.write(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_of_all_kinds_are_read() {
        let file = b"IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            UDP  [2620:0000:0000:0000:0000:0000:0000:0001]:0050 sh\n  -> [2620:0000:0000:0000:0000:0000:0000:0002]:0051      Tunnel  0      1          2\n\
            FWM  10001000 wlc\n  -> C0A8321A:0CEA      Route   20     64         1\n  -> garbage\n";
        let found = backends(file);
        let labels = |texts: [&str; 6]| texts.map(ToOwned::to_owned);
        assert_eq!(
            found,
            [
                (labels(["2620::1", "80", "2620::2", "81", "UDP", ""]), [1, 2, 0]),
                (labels(["", "0", "192.168.50.26", "3306", "FWM", "10001000"]), [64, 1, 20]),
            ]
        );
    }

    #[test]
    fn unknown_labels_are_refused() {
        assert_eq!(places(&["proto".into(), "local_port".into()]), Ok(vec![4, 1]));
        let error = places(&["port".into()]).unwrap_err();
        assert!(error.contains("`port`") && error.contains("remote_port"), "{error}");
    }
}
