//! Replicated block devices of DRBD 8.
//!
//! Reads: `/proc/drbd` (drivers/block/drbd/drbd_proc.c). Yields: `node_drbd_*`. Costs: one file.

use super::family::{counter, gauge};
use super::{Bag, CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

const DEVICE: &[&str] = &["device"];
const NODE: &[&str] = &["device", "node"];

const CONNECTED: Family<'static> = gauge("node_drbd_connected", DEVICE, "Whether DRBD is connected to the peer.");
const ROLE: Family<'static> =
    gauge("node_drbd_node_role_is_primary", NODE, "Whether the role of the node is in the primary state.");
const DISK: Family<'static> =
    gauge("node_drbd_disk_state_is_up_to_date", NODE, "Whether the disk of the node is up to date.");

/// Key, factor (data are counted in KiB; `nr` too, but node_exporter tells it as it is), family.
const NUMBERS: &[(&[u8], u64, Family<'static>)] = &[
    (b"ns", 1024, counter("node_drbd_network_sent_bytes_total", DEVICE, "Total number of bytes sent via the network.")),
    (
        b"nr",
        1,
        counter("node_drbd_network_received_bytes_total", DEVICE, "Total number of bytes received via the network."),
    ),
    (
        b"dw",
        1024,
        counter("node_drbd_disk_written_bytes_total", DEVICE, "Net data written on local hard disk; in bytes."),
    ),
    (b"dr", 1024, counter("node_drbd_disk_read_bytes_total", DEVICE, "Net data read from local hard disk; in bytes.")),
    (
        b"al",
        1,
        counter(
            "node_drbd_activitylog_writes_total",
            DEVICE,
            "Number of updates of the activity log area of the meta data.",
        ),
    ),
    (
        b"bm",
        1,
        counter("node_drbd_bitmap_writes_total", DEVICE, "Number of updates of the bitmap area of the meta data."),
    ),
    (b"lo", 1, gauge("node_drbd_local_pending", DEVICE, "Number of open requests to the local I/O sub-system.")),
    (
        b"pe",
        1,
        gauge(
            "node_drbd_remote_pending",
            DEVICE,
            "Number of requests sent to the peer, but that have not yet been answered by the latter.",
        ),
    ),
    (
        b"ua",
        1,
        gauge(
            "node_drbd_remote_unacknowledged",
            DEVICE,
            "Number of requests received by the peer via the network connection, but that have not yet been answered.",
        ),
    ),
    (
        b"ap",
        1,
        gauge(
            "node_drbd_application_pending",
            DEVICE,
            "Number of block I/O requests forwarded to DRBD, but not yet answered by DRBD.",
        ),
    ),
    (b"ep", 1, gauge("node_drbd_epochs", DEVICE, "Number of Epochs currently on the fly.")),
    (b"oos", 1024, gauge("node_drbd_out_of_sync_bytes", DEVICE, "Amount of data known to be out of sync; in bytes.")),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [CONNECTED; NUMBERS.len() + 3];
    (families[1], families[2]) = (ROLE, DISK);
    let mut at = 0;
    while at < NUMBERS.len() {
        families[at + 3] = NUMBERS[at].2;
        at += 1;
    }
    families
};

struct Drbd {
    file: KeptFile,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Drbd { file: settings.kept_procfs("drbd"), bag: Bag::default() })
}

impl Collector for Drbd {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut device = String::new();
        // ` 1: cs:Connected ro:Primary/Secondary ds:…`, then a line of numbers; other words are of no use.
        for word in text::lines(self.file.read()?).flat_map(text::words) {
            let Some(colon) = memchr::memchr(b':', word) else { continue };
            let (key, value) = (&word[..colon], &word[colon + 1..]);
            if value.is_empty() {
                if let Some(minor) = text::u64(key) {
                    device = format!("drbd{minor}");
                }
                continue;
            }
            if device.is_empty() {
                continue;
            }
            if let Some((_, factor, family)) = NUMBERS.iter().find(|(known, ..)| *known == key) {
                if let Some(number) = text::u64(value) {
                    self.bag.add(family, &[&device], number.saturating_mul(*factor));
                }
                continue;
            }
            let (family, wanted) = match key {
                b"cs" => {
                    self.bag.add(&CONNECTED, &[&device], u64::from(value == b"Connected"));
                    continue;
                }
                b"ro" => (&ROLE, b"Primary".as_slice()),
                b"ds" => (&DISK, b"UpToDate".as_slice()),
                _ => continue,
            };
            for (node, state) in ["local", "remote"].iter().zip(value.split(|byte| *byte == b'/')) {
                self.bag.add(family, &[&device, node], u64::from(state == wanted));
            }
        }
        self.bag.write(out);
        Ok(())
    }
}
