//! NFS mounts: bytes, events, operations and transports of each.
//!
//! Reads: `/proc/self/mountstats` (fs/nfs/super.c, net/sunrpc/stats.c), and addresses of servers from mountinfo. Yields:
//! `node_mountstats_nfs_*`, once for all mounts of an export. Costs: two files, kept open.

use super::family::{counter, families_of, gauge};
use super::{Bag, CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};
use rustc_hash::FxHashSet;

const MOUNT: &[&str] = &["export", "protocol", "mountaddr"];
const OPERATION: &[&str] = &["export", "protocol", "mountaddr", "operation"];
const TRANSPORT: &[&str] = &["export", "protocol", "mountaddr", "transport"];

const INFO: Family<'static> = gauge(
    "node_mountstats_nfs_mountpoint_info",
    &["export", "protocol", "mountaddr", "mountpoint"],
    "Info metric for an NFS mountpoint.",
);
const AGE: Family<'static> =
    counter("node_mountstats_nfs_age_seconds_total", MOUNT, "The age of the NFS mount in seconds.");

/// The numbers of the line `bytes:`.
const BYTES: [Family<'static>; 8] = [
    counter("node_mountstats_nfs_read_bytes_total", MOUNT, "Number of bytes read using the read() syscall."),
    counter("node_mountstats_nfs_write_bytes_total", MOUNT, "Number of bytes written using the write() syscall."),
    counter(
        "node_mountstats_nfs_direct_read_bytes_total",
        MOUNT,
        "Number of bytes read using the read() syscall in O_DIRECT mode.",
    ),
    counter(
        "node_mountstats_nfs_direct_write_bytes_total",
        MOUNT,
        "Number of bytes written using the write() syscall in O_DIRECT mode.",
    ),
    counter("node_mountstats_nfs_total_read_bytes_total", MOUNT, "Number of bytes read from the NFS server, in total."),
    counter(
        "node_mountstats_nfs_total_write_bytes_total",
        MOUNT,
        "Number of bytes written to the NFS server, in total.",
    ),
    counter("node_mountstats_nfs_read_pages_total", MOUNT, "Number of pages read directly via mmap()'d files."),
    counter("node_mountstats_nfs_write_pages_total", MOUNT, "Number of pages written directly via mmap()'d files."),
];

/// Place in the line `events:`, family. One between is not used by the kernel.
const EVENTS: &[(usize, Family<'static>)] = &[
    (
        0,
        counter(
            "node_mountstats_nfs_event_inode_revalidate_total",
            MOUNT,
            "Number of times cached inode attributes are re-validated from the server.",
        ),
    ),
    (
        1,
        counter(
            "node_mountstats_nfs_event_dnode_revalidate_total",
            MOUNT,
            "Number of times cached dentry nodes are re-validated from the server.",
        ),
    ),
    (
        2,
        counter("node_mountstats_nfs_event_data_invalidate_total", MOUNT, "Number of times an inode cache is cleared."),
    ),
    (
        3,
        counter(
            "node_mountstats_nfs_event_attribute_invalidate_total",
            MOUNT,
            "Number of times cached inode attributes are invalidated.",
        ),
    ),
    (
        4,
        counter(
            "node_mountstats_nfs_event_vfs_open_total",
            MOUNT,
            "Number of times cached inode attributes are invalidated.",
        ),
    ),
    (
        5,
        counter(
            "node_mountstats_nfs_event_vfs_lookup_total",
            MOUNT,
            "Number of times a directory lookup has occurred.",
        ),
    ),
    (6, counter("node_mountstats_nfs_event_vfs_access_total", MOUNT, "Number of times permissions have been checked.")),
    (
        7,
        counter(
            "node_mountstats_nfs_event_vfs_update_page_total",
            MOUNT,
            "Number of updates (and potential writes) to pages.",
        ),
    ),
    (
        8,
        counter(
            "node_mountstats_nfs_event_vfs_read_page_total",
            MOUNT,
            "Number of pages read directly via mmap()'d files.",
        ),
    ),
    (
        9,
        counter(
            "node_mountstats_nfs_event_vfs_read_pages_total",
            MOUNT,
            "Number of times a group of pages have been read.",
        ),
    ),
    (
        10,
        counter(
            "node_mountstats_nfs_event_vfs_write_page_total",
            MOUNT,
            "Number of pages written directly via mmap()'d files.",
        ),
    ),
    (
        11,
        counter(
            "node_mountstats_nfs_event_vfs_write_pages_total",
            MOUNT,
            "Number of times a group of pages have been written.",
        ),
    ),
    (
        12,
        counter(
            "node_mountstats_nfs_event_vfs_getdents_total",
            MOUNT,
            "Number of times directory entries have been read with getdents().",
        ),
    ),
    (
        13,
        counter(
            "node_mountstats_nfs_event_vfs_setattr_total",
            MOUNT,
            "Number of times directory entries have been read with getdents().",
        ),
    ),
    (
        14,
        counter(
            "node_mountstats_nfs_event_vfs_flush_total",
            MOUNT,
            "Number of pending writes that have been forcefully flushed to the server.",
        ),
    ),
    (
        15,
        counter(
            "node_mountstats_nfs_event_vfs_fsync_total",
            MOUNT,
            "Number of times fsync() has been called on directories and files.",
        ),
    ),
    (
        16,
        counter(
            "node_mountstats_nfs_event_vfs_lock_total",
            MOUNT,
            "Number of times locking has been attempted on a file.",
        ),
    ),
    (
        17,
        counter(
            "node_mountstats_nfs_event_vfs_file_release_total",
            MOUNT,
            "Number of times files have been closed and released.",
        ),
    ),
    (19, counter("node_mountstats_nfs_event_truncation_total", MOUNT, "Number of times files have been truncated.")),
    (
        20,
        counter(
            "node_mountstats_nfs_event_write_extension_total",
            MOUNT,
            "Number of times a file has been grown due to writes beyond its existing end.",
        ),
    ),
    (
        21,
        counter(
            "node_mountstats_nfs_event_silly_rename_total",
            MOUNT,
            "Number of times a file was removed while still open by another process.",
        ),
    ),
    (
        22,
        counter(
            "node_mountstats_nfs_event_short_read_total",
            MOUNT,
            "Number of times the NFS server gave less data than expected while reading.",
        ),
    ),
    (
        23,
        counter(
            "node_mountstats_nfs_event_short_write_total",
            MOUNT,
            "Number of times the NFS server wrote less data than expected while writing.",
        ),
    ),
    (
        24,
        counter(
            "node_mountstats_nfs_event_jukebox_delay_total",
            MOUNT,
            "Number of times the NFS server indicated EJUKEBOX; retrieving data from offline storage.",
        ),
    ),
    (25, counter("node_mountstats_nfs_event_pnfs_read_total", MOUNT, "Number of NFS v4.1+ pNFS reads.")),
    (26, counter("node_mountstats_nfs_event_pnfs_write_total", MOUNT, "Number of NFS v4.1+ pNFS writes.")),
];

/// The numbers of an operation; the last three are milliseconds.
const OPERATIONS: [Family<'static>; 8] = [
    counter(
        "node_mountstats_nfs_operations_requests_total",
        OPERATION,
        "Number of requests performed for a given operation.",
    ),
    counter(
        "node_mountstats_nfs_operations_transmissions_total",
        OPERATION,
        "Number of times an actual RPC request has been transmitted for a given operation.",
    ),
    counter(
        "node_mountstats_nfs_operations_major_timeouts_total",
        OPERATION,
        "Number of times a request has had a major timeout for a given operation.",
    ),
    counter(
        "node_mountstats_nfs_operations_sent_bytes_total",
        OPERATION,
        "Number of bytes sent for a given operation, including RPC headers and payload.",
    ),
    counter(
        "node_mountstats_nfs_operations_received_bytes_total",
        OPERATION,
        "Number of bytes received for a given operation, including RPC headers and payload.",
    ),
    counter(
        "node_mountstats_nfs_operations_queue_time_seconds_total",
        OPERATION,
        "Duration all requests spent queued for transmission for a given operation before they were sent, in seconds.",
    ),
    counter(
        "node_mountstats_nfs_operations_response_time_seconds_total",
        OPERATION,
        "Duration all requests took to get a reply back after a request for a given operation was transmitted, in seconds.",
    ),
    counter(
        "node_mountstats_nfs_operations_request_time_seconds_total",
        OPERATION,
        "Duration all requests took from when a request was enqueued to when it was completely handled for a given operation, in seconds.",
    ),
];

/// Place in the line `xprt:` of a connection, of UDP (where it is there), family.
const TRANSPORTS: &[(usize, Option<usize>, Family<'static>)] = &[
    (
        1,
        Some(1),
        counter(
            "node_mountstats_nfs_transport_bind_total",
            TRANSPORT,
            "Number of times the client has had to establish a connection from scratch to the NFS server.",
        ),
    ),
    (
        2,
        None,
        counter(
            "node_mountstats_nfs_transport_connect_total",
            TRANSPORT,
            "Number of times the client has made a TCP connection to the NFS server.",
        ),
    ),
    (
        4,
        None,
        gauge(
            "node_mountstats_nfs_transport_idle_time_seconds",
            TRANSPORT,
            "Duration since the NFS mount last saw any RPC traffic, in seconds.",
        ),
    ),
    (
        5,
        Some(2),
        counter(
            "node_mountstats_nfs_transport_sends_total",
            TRANSPORT,
            "Number of RPC requests for this mount sent to the NFS server.",
        ),
    ),
    (
        6,
        Some(3),
        counter(
            "node_mountstats_nfs_transport_receives_total",
            TRANSPORT,
            "Number of RPC responses for this mount received from the NFS server.",
        ),
    ),
    (
        7,
        Some(4),
        counter(
            "node_mountstats_nfs_transport_bad_transaction_ids_total",
            TRANSPORT,
            "Number of times the NFS server sent a response with a transaction ID unknown to this client.",
        ),
    ),
    (
        9,
        Some(6),
        counter(
            "node_mountstats_nfs_transport_backlog_queue_total",
            TRANSPORT,
            "Total number of items added to the RPC backlog queue.",
        ),
    ),
    (
        10,
        Some(7),
        gauge(
            "node_mountstats_nfs_transport_maximum_rpc_slots",
            TRANSPORT,
            "Maximum number of simultaneously active RPC requests ever used.",
        ),
    ),
    (
        11,
        Some(8),
        counter(
            "node_mountstats_nfs_transport_sending_queue_total",
            TRANSPORT,
            "Total number of items added to the RPC transmission sending queue.",
        ),
    ),
    (
        12,
        Some(9),
        counter(
            "node_mountstats_nfs_transport_pending_queue_total",
            TRANSPORT,
            "Total number of items added to the RPC transmission pending queue.",
        ),
    ),
];

const EVENT_FAMILIES: &[Family<'static>] = families_of!(EVENTS, 1);
const TRANSPORT_FAMILIES: &[Family<'static>] = families_of!(TRANSPORTS, 2);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let parts: [&[Family<'static>]; 4] = [&BYTES, EVENT_FAMILIES, &OPERATIONS, TRANSPORT_FAMILIES];
    let mut families = [INFO; BYTES.len() + EVENTS.len() + OPERATIONS.len() + TRANSPORTS.len() + 2];
    families[1] = AGE;
    let (mut part, mut filled) = (0, 2);
    while part < parts.len() {
        let mut at = 0;
        while at < parts[part].len() {
            families[filled] = parts[part][at];
            (at, filled) = (at + 1, filled + 1);
        }
        part += 1;
    }
    families
};

/// Times can be differences that went below zero; what a float holds exactly is told, as by node_exporter.
const MANTISSA: u64 = 1 << 53;

struct MountStats {
    statistics: KeptFile,
    mounts: KeptFile,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(MountStats {
        statistics: settings.kept_procfs("self/mountstats"),
        mounts: settings.kept_procfs("self/mountinfo"),
        bag: Bag::default(),
    })
}

/// A mount of NFS and the lines about it.
struct Mount<'a> {
    export: &'a str,
    point: &'a str,
    lines: Vec<&'a [u8]>,
}

/// All mounts in their order; `None` for those of other kinds.
fn mounts(file: &[u8]) -> Vec<Option<Mount<'_>>> {
    let mut found: Vec<Option<Mount<'_>>> = Vec::new();
    for line in text::lines(file) {
        let Some(device) = line.strip_prefix(b"device ") else {
            if let Some(Some(mount)) = found.last_mut() {
                mount.lines.push(line);
            }
            continue;
        };
        // SERVER:PATH mounted on POINT with fstype nfs4 statvers=1.1
        let words: Vec<&str> = text::words(device).filter_map(text::utf8).collect();
        found.push(match words[..] {
            [export, "mounted", "on", point, "with", "fstype", "nfs" | "nfs4", _] => {
                Some(Mount { export, point, lines: Vec::new() })
            }
            _ => None,
        });
    }
    found
}

/// The server's address in a line of mountinfo.
fn address(line: &[u8]) -> Option<&str> {
    let options = text::utf8(text::words(line).last()?)?;
    options.split(',').find_map(|option| option.strip_prefix("addr="))
}

/// The numbers after a line's first word.
fn numbers(line: &[u8]) -> Vec<u64> {
    text::words(line).skip(1).map(|word| text::u64(word).unwrap_or(0)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "what a float holds exactly")]
fn milliseconds(count: u64) -> Value {
    Value::F64((count % MANTISSA) as f64 / 1000.0)
}

/// Writes the statistics of one export.
fn write(bag: &mut Bag, mount: &Mount<'_>, labels: [&str; 3]) {
    let mut transport = 0;
    let mut operations = false;
    for line in &mount.lines {
        let name = text::words(line).next().unwrap_or_default();
        let values = numbers(line);
        let [export, protocol, server] = labels;
        match name {
            b"per-op" => operations = true,
            _ if operations => {
                let Some(operation) = name.strip_suffix(b":").and_then(text::utf8) else { continue };
                let labels = [export, protocol, server, operation];
                for (at, (family, value)) in OPERATIONS.iter().zip(&values).enumerate() {
                    let value = if at < 5 { Value::U64(*value) } else { milliseconds(*value) };
                    bag.add(family, &labels, value);
                }
            }
            b"age:" => {
                if let Some(age) = values.first() {
                    bag.add(&AGE, &labels, *age);
                }
            }
            b"bytes:" => {
                for (family, value) in BYTES.iter().zip(&values) {
                    bag.add(family, &labels, *value);
                }
            }
            b"events:" => {
                for (at, family) in EVENTS {
                    if let Some(value) = values.get(*at) {
                        bag.add(family, &labels, *value);
                    }
                }
            }
            b"xprt:" => {
                let number = transport.to_string();
                transport += 1;
                let udp = text::words(line).nth(1) == Some(b"udp");
                for (at, of_udp, family) in TRANSPORTS {
                    let at = if udp { *of_udp } else { Some(*at) };
                    // The protocol comes first among the numbers.
                    let value = at.and_then(|at| values.get(at + 1)).copied().unwrap_or(0);
                    bag.add(family, &[export, protocol, server, &number], value % MANTISSA);
                }
            }
            _ => {}
        }
    }
}

impl Collector for MountStats {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let found = mounts(self.statistics.read()?);
        if found.iter().all(Option::is_none) {
            return Ok(());
        }
        // Both files have the mounts in the same order.
        let addresses: Vec<&str> =
            text::lines(self.mounts.read()?).map(|line| address(line).unwrap_or_default()).collect();
        let (mut points, mut exports) = (FxHashSet::default(), FxHashSet::default());
        for (at, mount) in found.iter().enumerate() {
            let Some(mount) = mount else { continue };
            let server = addresses.get(at).copied().unwrap_or_default();
            let transports = mount.lines.iter().filter(|line| text::words(line).next() == Some(b"xprt:"));
            for line in transports {
                let protocol = text::words(line).nth(1).and_then(text::utf8).unwrap_or_default();
                let labels = [mount.export, protocol, server];
                if points.insert((labels, mount.point)) {
                    self.bag.add(&INFO, &[mount.export, protocol, server, mount.point], 1u64);
                }
                // An export that is mounted twice has its statistics in common.
                if !exports.insert(labels) {
                    break;
                }
                write(&mut self.bag, mount, labels);
            }
        }
        self.bag.write(out);
        Ok(())
    }
}
