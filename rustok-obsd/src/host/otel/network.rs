//! Network interfaces.
//!
//! Reads: what the collector [`netdev`](crate::host::netdev) does, with its filter. Yields: `system_network_*`. Costs: the dump of
//! interfaces that others use too, or one file.

use super::counter;
use crate::contract::Family;
use crate::exposition::Encoder;
use crate::host::netdev::{Basics, Traffic};
use crate::host::{CollectError, Context, Settings};

const LABELS: &[&str] = &["network_interface_name", "network_io_direction"];

pub const IO: Family<'static> =
    counter("system_network_io_bytes_total", "bytes", LABELS, "The number of bytes transmitted and received.");
/// The conventions have another attribute for the interface here than elsewhere.
pub const PACKETS: Family<'static> = counter(
    "system_network_packet_count_total",
    "",
    &["system_device", "network_io_direction"],
    "The number of packets transferred.",
);
pub const ERRORS: Family<'static> =
    counter("system_network_errors_total", "", LABELS, "Count of network errors detected.");
pub const DROPPED: Family<'static> = counter(
    "system_network_packet_dropped_total",
    "",
    LABELS,
    "Count of packets that are dropped or discarded even though there was no error.",
);

pub struct Network {
    traffic: Traffic,
    /// Those of this scrape come first; the rest is memory for more.
    rows: Vec<(String, Basics)>,
}

impl Network {
    pub fn new(settings: &Settings) -> Self {
        Self { traffic: Traffic::new(settings), rows: Vec::new() }
    }

    pub fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let Self { traffic, rows } = self;
        let mut interfaces = 0;
        traffic.basics(context, |name, counts| {
            match rows.get_mut(interfaces) {
                Some(row) => {
                    name.clone_into(&mut row.0);
                    row.1 = counts;
                }
                None => rows.push((name.to_owned(), counts)),
            }
            interfaces += 1;
        })?;
        for (at, family) in [&IO, &PACKETS, &ERRORS, &DROPPED].into_iter().enumerate() {
            let mut samples = out.family(family);
            for (name, counts) in &rows[..interfaces] {
                samples.put([name.as_str(), "receive"], counts.received[at]);
                samples.put([name.as_str(), "transmit"], counts.transmitted[at]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn without_netlink_the_file_of_procfs_is_read() {
        let tree = Tree::new("otel", |settings| settings.options.netdev_netlink = false);
        let interface = |name: &str, from: u64| {
            let numbers: Vec<String> = (from..from + 16).map(|number| number.to_string()).collect();
            format!("{name}: {}\n", numbers.join(" "))
        };
        let head = "Inter-| Receive | Transmit\n face |bytes packets\n";
        let lines = |text: String| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("system_network_")).map(ToOwned::to_owned).collect()
        };
        tree.write("proc/net/dev", &format!("{head}{}{}", interface("lo", 100), interface("eth0", 200)));
        assert_eq!(lines(tree.text()).len(), 16);
        tree.write("proc/net/dev", &format!("{head}{}", interface("eth0", 300)));
        assert_eq!(
            lines(tree.text()),
            [
                "system_network_io_bytes_total{network_interface_name=\"eth0\",network_io_direction=\"receive\"} 300",
                "system_network_io_bytes_total{network_interface_name=\"eth0\",network_io_direction=\"transmit\"} 308",
                "system_network_packet_count_total{system_device=\"eth0\",network_io_direction=\"receive\"} 301",
                "system_network_packet_count_total{system_device=\"eth0\",network_io_direction=\"transmit\"} 309",
                "system_network_errors_total{network_interface_name=\"eth0\",network_io_direction=\"receive\"} 302",
                "system_network_errors_total{network_interface_name=\"eth0\",network_io_direction=\"transmit\"} 310",
                "system_network_packet_dropped_total{network_interface_name=\"eth0\",network_io_direction=\"receive\"} 303",
                "system_network_packet_dropped_total{network_interface_name=\"eth0\",network_io_direction=\"transmit\"} 311",
            ]
        );
    }
}
