//! What this host's NFS server has been asked.
//!
//! Reads: `/proc/net/rpc/nfsd` (fs/nfsd/stats.c). Yields: `node_nfsd_*`. Costs: one file, kept open.

use super::family::{counter, gauge};
use super::nfs::{VERSION_2, VERSION_3, line};
use super::{CollectError, Collector, Context, KeptFile, Settings};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Line, which of its numbers, family.
const NUMBERS: [(&str, usize, Family<'static>); 11] = [
    (
        "rc",
        0,
        counter(
            "node_nfsd_reply_cache_hits_total",
            &[],
            "Total number of NFSd Reply Cache hits (client lost server response).",
        ),
    ),
    (
        "rc",
        1,
        counter(
            "node_nfsd_reply_cache_misses_total",
            &[],
            "Total number of NFSd Reply Cache an operation that requires caching (idempotent).",
        ),
    ),
    (
        "rc",
        2,
        counter(
            "node_nfsd_reply_cache_nocache_total",
            &[],
            "Total number of NFSd Reply Cache non-idempotent operations (rename/delete/…).",
        ),
    ),
    ("fh", 0, counter("node_nfsd_file_handles_stale_total", &[], "Total number of NFSd stale file handles")),
    ("io", 0, counter("node_nfsd_disk_bytes_read_total", &[], "Total NFSd bytes read.")),
    ("io", 1, counter("node_nfsd_disk_bytes_written_total", &[], "Total NFSd bytes written.")),
    ("th", 0, gauge("node_nfsd_server_threads", &[], "Total number of NFSd kernel threads that are running.")),
    ("ra", 0, gauge("node_nfsd_read_ahead_cache_size_blocks", &[], "How large the read ahead cache is in blocks.")),
    (
        "ra",
        11,
        counter("node_nfsd_read_ahead_cache_not_found_total", &[], "Total number of NFSd read ahead cache not found."),
    ),
    ("net", 3, counter("node_nfsd_connections_total", &[], "Total number of NFSd TCP connections.")),
    ("rpc", 0, counter("node_nfsd_server_rpcs_total", &[], "Total number of NFSd RPCs.")),
];
const PACKETS: Family<'static> =
    counter("node_nfsd_packets_total", &["proto"], "Total NFSd network packets (sent+received) by protocol type.");
const ERRORS: Family<'static> =
    counter("node_nfsd_rpc_errors_total", &["error"], "Total number of NFSd RPC errors by error type.");
const REQUESTS: Family<'static> =
    counter("node_nfsd_requests_total", &["method", "proto"], "Total number NFSd Requests by method and protocol.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [PACKETS; NUMBERS.len() + 3];
    (families[1], families[2]) = (ERRORS, REQUESTS);
    let mut at = 0;
    while at < NUMBERS.len() {
        families[at + 3] = NUMBERS[at].2;
        at += 1;
    }
    families
};

/// Operations of version 4 by their numbers (RFC 7530); the empty ones are not told.
const VERSION_4: &[&str] = &[
    "",
    "",
    "",
    "Access",
    "Close",
    "Commit",
    "Create",
    "DelegPurge",
    "DelegReturn",
    "GetAttr",
    "GetFH",
    "Link",
    "Lock",
    "Lockt",
    "Locku",
    "Lookup",
    "LookupRoot",
    "Nverify",
    "Open",
    "OpenAttr",
    "OpenConfirm",
    "OpenDgrd",
    "PutFH",
    "",
    "",
    "Read",
    "ReadDir",
    "ReadLink",
    "Remove",
    "Rename",
    "Renew",
    "RestoreFH",
    "SaveFH",
    "SecInfo",
    "SetAttr",
    "SetClientID",
    "SetClientIDConfirm",
    "Verify",
    "Write",
    "RelLockOwner",
];

struct Nfsd(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Nfsd(settings.kept_procfs("net/rpc/nfsd")))
}

impl Collector for Nfsd {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let file = self.0.read()?;
        for (name, at, family) in &NUMBERS {
            // Kernels since 5.4 have no read-ahead cache.
            if let Some(number) = line(file, name).and_then(|mut numbers| numbers.nth(*at)) {
                out.family(family).put([], number);
            }
        }
        let mut samples = out.family(&PACKETS);
        for (protocol, packets) in ["udp", "tcp"].iter().zip(line(file, "net").into_iter().flatten().skip(1)) {
            samples.put([*protocol], packets);
        }
        let mut samples = out.family(&ERRORS);
        for (error, count) in ["fmt", "auth", "cInt"].iter().zip(line(file, "rpc").into_iter().flatten().skip(2)) {
            samples.put([*error], count);
        }
        let mut samples = out.family(&REQUESTS);
        // The first number is how many follow. Procedure Null is not told.
        for (name, version, methods, skip) in
            [("proc2", "2", &VERSION_2[1..], 2), ("proc3", "3", &VERSION_3[1..], 2), ("proc4ops", "4", VERSION_4, 1)]
        {
            // A server that was built without a version has no line of it.
            let Some(numbers) = line(file, name) else { continue };
            let counts = numbers.skip(skip).chain(std::iter::repeat(0));
            for (method, count) in methods.iter().zip(counts).filter(|(method, _)| !method.is_empty()) {
                samples.put([*method, version], count);
            }
        }
        if let Some(count) = line(file, "wdeleg_getattr").and_then(|mut numbers| numbers.next()) {
            samples.put(["WdelegGetattr", "4"], count);
        }
        Ok(())
    }
}
