//! What this host's NFS client has asked of servers.
//!
//! Reads: `/proc/net/rpc/nfs` (net/sunrpc/stats.c). Yields: `node_nfs_*`. Costs: one file, kept open.

use super::family::counter;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

const PACKETS: Family<'static> =
    counter("node_nfs_packets_total", &["protocol"], "Total NFSd network packets (sent+received) by protocol type.");
const CONNECTIONS: Family<'static> =
    counter("node_nfs_connections_total", &[], "Total number of NFSd TCP connections.");
const RPC: [Family<'static>; 3] = [
    counter("node_nfs_rpcs_total", &[], "Total number of RPCs performed."),
    counter("node_nfs_rpc_retransmissions_total", &[], "Number of RPC transmissions performed."),
    counter("node_nfs_rpc_authentication_refreshes_total", &[], "Number of RPC authentication refreshes performed."),
];
const REQUESTS: Family<'static> =
    counter("node_nfs_requests_total", &["method", "proto"], "Number of NFS procedures invoked.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[PACKETS, CONNECTIONS, RPC[0], RPC[1], RPC[2], REQUESTS];

/// Procedures of version 2, in the kernel's order.
pub(super) const VERSION_2: &[&str] = &[
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create", "Remove",
    "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];

/// Procedures of version 3.
pub(super) const VERSION_3: &[&str] = &[
    "Null",
    "GetAttr",
    "SetAttr",
    "Lookup",
    "Access",
    "ReadLink",
    "Read",
    "Write",
    "Create",
    "MkDir",
    "SymLink",
    "MkNod",
    "Remove",
    "RmDir",
    "Rename",
    "Link",
    "ReadDir",
    "ReadDirPlus",
    "FsStat",
    "FsInfo",
    "PathConf",
    "Commit",
];

/// What a client sends of version 4 (include/linux/nfs4.h, NFSPROC4_CLNT_*).
const VERSION_4: &[&str] = &[
    "Null",
    "Read",
    "Write",
    "Commit",
    "Open",
    "OpenConfirm",
    "OpenNoattr",
    "OpenDowngrade",
    "Close",
    "Setattr",
    "FsInfo",
    "Renew",
    "SetClientID",
    "SetClientIDConfirm",
    "Lock",
    "Lockt",
    "Locku",
    "Access",
    "Getattr",
    "Lookup",
    "LookupRoot",
    "Remove",
    "Rename",
    "Link",
    "Symlink",
    "Create",
    "Pathconf",
    "StatFs",
    "ReadLink",
    "ReadDir",
    "ServerCaps",
    "DelegReturn",
    "GetACL",
    "SetACL",
    "FsLocations",
    "ReleaseLockowner",
    "Secinfo",
    "FsidPresent",
    "ExchangeID",
    "CreateSession",
    "DestroySession",
    "Sequence",
    "GetLeaseTime",
    "ReclaimComplete",
    "GetDeviceInfo",
    "LayoutGet",
    "LayoutCommit",
    "LayoutReturn",
    "SecinfoNoName",
    "TestStateID",
    "FreeStateID",
    "GetDeviceList",
    "BindConnToSession",
    "DestroyClientID",
    "Seek",
    "Allocate",
    "DeAllocate",
    "LayoutStats",
    "Clone",
];

struct Nfs(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Nfs(settings.kept_procfs("net/rpc/nfs")))
}

/// The numbers of the line that begins with `name`.
pub(super) fn line<'a>(file: &'a [u8], name: &str) -> Option<impl Iterator<Item = u64> + 'a> {
    let line = text::lines(file).find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b" "))?;
    Some(text::words(line).map(|word| text::u64(word).unwrap_or(0)))
}

impl Collector for Nfs {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let file = self.0.read()?;
        // Packets in all, by UDP, by TCP; connections.
        if let Some(mut numbers) = line(file, "net").map(|numbers| numbers.skip(1)) {
            let mut samples = out.family(&PACKETS);
            for (protocol, packets) in ["udp", "tcp"].iter().zip(&mut numbers) {
                samples.put([*protocol], packets);
            }
            if let Some(connections) = numbers.next() {
                out.family(&CONNECTIONS).put([], connections);
            }
        }
        for (family, number) in RPC.iter().zip(line(file, "rpc").into_iter().flatten()) {
            out.family(family).put([], number);
        }
        let mut samples = out.family(&REQUESTS);
        for (name, version, methods) in
            [("proc2", "2", VERSION_2), ("proc3", "3", VERSION_3), ("proc4", "4", VERSION_4)]
        {
            // How many there are comes first; an older kernel has fewer, which are then 0.
            let Some(numbers) = line(file, name) else { continue };
            for (method, count) in methods.iter().zip(numbers.skip(1).chain(std::iter::repeat(0))) {
                samples.put([*method, version], count);
            }
        }
        Ok(())
    }
}
