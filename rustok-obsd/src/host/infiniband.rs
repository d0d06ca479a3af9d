//! InfiniBand and RDMA adapters.
//!
//! Reads: `/sys/class/infiniband/DEVICE/ports/PORT` (drivers/infiniband/core/sysfs.c). Yields: `node_infiniband_*`. Costs: a
//! file per counter of each port; an adapter answers by a management datagram of its own, so it blocks.

use super::family::{counter, gauge};
use super::folder::{Folder, names, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings, attribute};
use crate::contract::Family;
use crate::exposition::Encoder;

const PORT: &[&str] = &["device", "port"];
const INFO: Family<'static> = gauge(
    "node_infiniband_info",
    &["board_id", "device", "firmware_version", "hca_type"],
    "Non-numeric data from /sys/class/infiniband/<device>, value is always 1.",
);
const STATE: Family<'static> = gauge(
    "node_infiniband_state_id",
    PORT,
    "State of the InfiniBand port (0: no change, 1: down, 2: init, 3: armed, 4: active, 5: act defer)",
);
const PHYSICAL_STATE: Family<'static> = gauge(
    "node_infiniband_physical_state_id",
    PORT,
    "Physical state of the InfiniBand port (0: no change, 1: sleep, 2: polling, 3: disable, 4: shift, 5: link up, 6: link error recover, 7: phytest)",
);
const RATE: Family<'static> = gauge("node_infiniband_rate_bytes_per_second", PORT, "Maximum signal transfer rate");

/// File below the port, bytes or events per unit (data are counted in words of four bytes), family.
const COUNTERS: &[(&str, u64, Family<'static>)] = &[
    (
        "counters/link_downed",
        1,
        counter(
            "node_infiniband_link_downed_total",
            PORT,
            "Number of times the link failed to recover from an error state and went down",
        ),
    ),
    (
        "counters/link_error_recovery",
        1,
        counter(
            "node_infiniband_link_error_recovery_total",
            PORT,
            "Number of times the link successfully recovered from an error state",
        ),
    ),
    (
        "counters/multicast_rcv_packets",
        1,
        counter(
            "node_infiniband_multicast_packets_received_total",
            PORT,
            "Number of multicast packets received (including errors)",
        ),
    ),
    (
        "counters/multicast_xmit_packets",
        1,
        counter(
            "node_infiniband_multicast_packets_transmitted_total",
            PORT,
            "Number of multicast packets transmitted (including errors)",
        ),
    ),
    (
        "counters/port_rcv_constraint_errors",
        1,
        counter(
            "node_infiniband_port_constraint_errors_received_total",
            PORT,
            "Number of packets received on the switch physical port that are discarded",
        ),
    ),
    (
        "counters/port_xmit_constraint_errors",
        1,
        counter(
            "node_infiniband_port_constraint_errors_transmitted_total",
            PORT,
            "Number of packets not transmitted from the switch physical port",
        ),
    ),
    (
        "counters/port_rcv_data",
        4,
        counter("node_infiniband_port_data_received_bytes_total", PORT, "Number of data octets received on all links"),
    ),
    (
        "counters/port_xmit_data",
        4,
        counter(
            "node_infiniband_port_data_transmitted_bytes_total",
            PORT,
            "Number of data octets transmitted on all links",
        ),
    ),
    (
        "counters/port_rcv_discards",
        1,
        counter(
            "node_infiniband_port_discards_received_total",
            PORT,
            "Number of inbound packets discarded by the port because the port is down or congested",
        ),
    ),
    (
        "counters/port_xmit_discards",
        1,
        counter(
            "node_infiniband_port_discards_transmitted_total",
            PORT,
            "Number of outbound packets discarded by the port because the port is down or congested",
        ),
    ),
    (
        "counters/port_rcv_errors",
        1,
        counter(
            "node_infiniband_port_errors_received_total",
            PORT,
            "Number of packets containing an error that were received on this port",
        ),
    ),
    (
        "counters/port_rcv_packets",
        1,
        counter(
            "node_infiniband_port_packets_received_total",
            PORT,
            "Number of packets received on all VLs by this port (including errors)",
        ),
    ),
    (
        "counters/port_xmit_packets",
        1,
        counter(
            "node_infiniband_port_packets_transmitted_total",
            PORT,
            "Number of packets transmitted on all VLs from this port (including errors)",
        ),
    ),
    (
        "counters/port_xmit_wait",
        1,
        counter(
            "node_infiniband_port_transmit_wait_total",
            PORT,
            "Number of ticks during which the port had data to transmit but no data was sent during the entire tick",
        ),
    ),
    (
        "counters/unicast_rcv_packets",
        1,
        counter(
            "node_infiniband_unicast_packets_received_total",
            PORT,
            "Number of unicast packets received (including errors)",
        ),
    ),
    (
        "counters/unicast_xmit_packets",
        1,
        counter(
            "node_infiniband_unicast_packets_transmitted_total",
            PORT,
            "Number of unicast packets transmitted (including errors)",
        ),
    ),
    (
        "counters_ext/port_multicast_rcv_packets",
        1,
        counter(
            "node_infiniband_legacy_multicast_packets_received_total",
            PORT,
            "Number of multicast packets received",
        ),
    ),
    (
        "counters_ext/port_multicast_xmit_packets",
        1,
        counter(
            "node_infiniband_legacy_multicast_packets_transmitted_total",
            PORT,
            "Number of multicast packets transmitted",
        ),
    ),
    (
        "counters_ext/port_rcv_data_64",
        4,
        counter(
            "node_infiniband_legacy_data_received_bytes_total",
            PORT,
            "Number of data octets received on all links",
        ),
    ),
    (
        "counters_ext/port_xmit_data_64",
        4,
        counter(
            "node_infiniband_legacy_data_transmitted_bytes_total",
            PORT,
            "Number of data octets transmitted on all links",
        ),
    ),
    (
        "counters_ext/port_rcv_packets_64",
        1,
        counter("node_infiniband_legacy_packets_received_total", PORT, "Number of data packets received on all links"),
    ),
    (
        "counters_ext/port_xmit_packets_64",
        1,
        counter(
            "node_infiniband_legacy_packets_transmitted_total",
            PORT,
            "Number of data packets received on all links",
        ),
    ),
    (
        "counters_ext/port_unicast_rcv_packets",
        1,
        counter("node_infiniband_legacy_unicast_packets_received_total", PORT, "Number of unicast packets received"),
    ),
    (
        "counters_ext/port_unicast_xmit_packets",
        1,
        counter(
            "node_infiniband_legacy_unicast_packets_transmitted_total",
            PORT,
            "Number of unicast packets transmitted",
        ),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [INFO; COUNTERS.len() + 4];
    (families[1], families[2], families[3]) = (STATE, PHYSICAL_STATE, RATE);
    let mut at = 0;
    while at < COUNTERS.len() {
        families[at + 4] = COUNTERS[at].2;
        at += 1;
    }
    families
};

struct Infiniband {
    folder: Folder,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Infiniband { folder: Folder::new(settings.sysfs("class/infiniband")), bag: Bag::default() })
}

/// The number before the colon: `4: ACTIVE`.
fn state(text: &str) -> Option<u64> {
    text.split_once(':')?.0.trim().parse().ok()
}

/// Bytes a second of `2.5 Gb/sec (1X SDR)`.
fn rate(text: &str) -> Option<f64> {
    Some(text.split_once(' ')?.0.parse::<f64>().ok()? * 125_000_000.0)
}

impl Collector for Infiniband {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for device in self.folder.names().to_vec() {
            // Not all drivers have all three.
            let mut fixed = |file: &str| self.folder.fixed(&format!("{device}/{file}")).unwrap_or_default().to_owned();
            let [board, firmware, hca] = ["board_id", "fw_ver", "hca_type"].map(&mut fixed);
            self.bag.add(&INFO, &[&board, &device, &firmware, &hca], 1u64);
            let ports = self.folder.path().join(&device).join("ports");
            for port in names(&ports).unwrap_or_default() {
                let folder = ports.join(&port);
                let labels = [device.as_str(), &port];
                let read = |file: &str| attribute(&folder.join(file));
                if let Some(id) = read("state").as_deref().and_then(state) {
                    self.bag.add(&STATE, &labels, id);
                }
                if let Some(id) = read("phys_state").as_deref().and_then(state) {
                    self.bag.add(&PHYSICAL_STATE, &labels, id);
                }
                if let Some(bytes) = read("rate").as_deref().and_then(rate) {
                    self.bag.add(&RATE, &labels, bytes);
                }
                let old = folder.join("counters_ext").is_dir();
                for (file, unit, family) in COUNTERS {
                    if !old && file.starts_with("counters_ext") {
                        continue;
                    }
                    // `N/A (no PMA)` is no number either.
                    if let Some(value) = unsigned(&folder.join(file)) {
                        self.bag.add(family, &labels, value.wrapping_mul(*unit));
                    }
                }
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
    fn states_and_rates_are_read_or_left_out() {
        assert_eq!((state("4: ACTIVE"), state("ACTIVE"), state("x: y")), (Some(4), None, None));
        assert_eq!((rate("2.5 Gb/sec (1X SDR)"), rate("unknown")), (Some(312_500_000.0), None));
    }
}
