//! Fibre Channel host adapters.
//!
//! Reads: `/sys/class/fc_host/HOST` (drivers/scsi/scsi_transport_fc.c). Yields: `node_fibrechannel_*`. Costs: a file per
//! counter and text of each adapter; its firmware is asked, so it blocks.

use super::family::{counter, gauge};
use super::folder::Folder;
use super::{Bag, CollectError, Collector, Context, Settings, attribute, text};
use crate::contract::Family;
use crate::exposition::Encoder;

const HOST: &[&str] = &["fc_host"];
/// Labels beside the adapter; each is the text of the file.
const INFO: Family<'static> = gauge(
    "node_fibrechannel_info",
    &[
        "fc_host",
        "speed",
        "port_state",
        "port_type",
        "port_id",
        "port_name",
        "fabric_name",
        "symbolic_name",
        "supported_classes",
        "supported_speeds",
        "dev_loss_tmo",
    ],
    "Non-numeric data from /sys/class/fc_host/<host>, value is always 1.",
);

/// File below `statistics`, family.
const COUNTERS: &[(&str, Family<'static>)] = &[
    ("dumped_frames", counter("node_fibrechannel_dumped_frames_total", HOST, "Number of dumped frames")),
    ("error_frames", counter("node_fibrechannel_error_frames_total", HOST, "Number of errors in frames")),
    ("fcp_packet_aborts", counter("node_fibrechannel_fcp_packet_aborts_total", HOST, "Number of aborted packets")),
    (
        "invalid_crc_count",
        counter("node_fibrechannel_invalid_crc_total", HOST, "Invalid Cyclic Redundancy Check count"),
    ),
    (
        "invalid_tx_word_count",
        counter("node_fibrechannel_invalid_tx_words_total", HOST, "Number of invalid words transmitted by host port"),
    ),
    (
        "link_failure_count",
        counter("node_fibrechannel_link_failure_total", HOST, "Number of times the host port link has failed"),
    ),
    (
        "loss_of_signal_count",
        counter("node_fibrechannel_loss_of_signal_total", HOST, "Number of times signal has been lost"),
    ),
    (
        "loss_of_sync_count",
        counter(
            "node_fibrechannel_loss_of_sync_total",
            HOST,
            "Number of failures on either bit or transmission word boundaries",
        ),
    ),
    (
        "nos_count",
        counter("node_fibrechannel_nos_total", HOST, "Number Not_Operational Primitive Sequence received by host port"),
    ),
    ("rx_frames", counter("node_fibrechannel_rx_frames_total", HOST, "Number of frames received")),
    ("rx_words", counter("node_fibrechannel_rx_words_total", HOST, "Number of words received by host port")),
    (
        "seconds_since_last_reset",
        counter(
            "node_fibrechannel_seconds_since_last_reset_total",
            HOST,
            "Number of seconds since last host port reset",
        ),
    ),
    ("tx_frames", counter("node_fibrechannel_tx_frames_total", HOST, "Number of frames transmitted by host port")),
    ("tx_words", counter("node_fibrechannel_tx_words_total", HOST, "Number of words transmitted by host port")),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [INFO; COUNTERS.len() + 1];
    let mut at = 0;
    while at < COUNTERS.len() {
        families[at + 1] = COUNTERS[at].1;
        at += 1;
    }
    families
};

struct FibreChannel {
    folder: Folder,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(FibreChannel { folder: Folder::new(settings.sysfs("class/fc_host")), bag: Bag::default() })
}

impl Collector for FibreChannel {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for host in self.folder.names() {
            let folder = self.folder.path().join(host);
            let texts: Vec<String> = INFO.labels[1..]
                .iter()
                .map(|file| {
                    let text = attribute(&folder.join(file)).unwrap_or_default();
                    // Addresses and names of ports are hexadecimal numbers, told without the mark.
                    text.strip_prefix("0x").map(ToOwned::to_owned).unwrap_or(text)
                })
                .collect();
            let mut labels = vec![host.as_str()];
            labels.extend(texts.iter().map(String::as_str));
            self.bag.add(&INFO, &labels, 1u64);
            for (file, family) in COUNTERS {
                let value =
                    attribute(&folder.join("statistics").join(file)).and_then(|word| text::hex(word.as_bytes()));
                // All bits: the adapter does not count this.
                if let Some(value) = value.filter(|value| *value != u64::MAX) {
                    self.bag.add(family, &[host], value);
                }
            }
        }
        self.bag.write(out);
        Ok(())
    }
}
