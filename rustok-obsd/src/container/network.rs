//! Traffic of a container: that of the network namespace of its first process.
//!
//! Reads: `/proc/<pid>/net/dev` and the inode of `/proc/<pid>/ns/net`. Yields: an [`Interface`] each. Costs: a file opened
//! and closed for each container with a network of its own; it is not kept open, for that would keep the network of a
//! container that is gone.
//!
//! Of pods the sandbox alone has it. Of the host (`/`) cAdvisor's selection is told; in a container all but `lo`: there
//! cAdvisor's prefixes would drop interfaces that users named so.

use crate::host::text;
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Counters in the order of the families: bytes, packets, dropped, errors; received, then sent.
pub type Counters = [u64; 8];

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its counters.
    pub counters: Counters,
}

/// Interfaces of the host that are ends of containers' networks.
const HOST_SKIPS: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// Reads `/proc/<pid>/net/dev`.
#[derive(Debug)]
pub struct NetReader {
    procfs: String,
    path: String,
    text: Vec<u8>,
}

impl NetReader {
    /// Below this procfs.
    #[must_use]
    pub fn new(procfs: &Path) -> Self {
        Self { procfs: procfs.display().to_string(), path: String::new(), text: Vec::new() }
    }

    fn path(&mut self, pid: impl Display, file: &str) -> &Path {
        self.path.clear();
        let _ = write!(self.path, "{}/{pid}/{file}", self.procfs);
        Path::new(&self.path)
    }

    /// The inode of a process' network namespace.
    pub fn namespace(&mut self, pid: u32) -> Option<u64> {
        Some(self.path(pid, "ns/net").metadata().ok()?.ino())
    }

    /// The inode of the host's network namespace: that of the first process, or, where that may not be looked at, ours.
    pub fn host(&mut self) -> Option<u64> {
        let inode = |path: &Path| Some(path.metadata().ok()?.ino());
        inode(self.path(1, "ns/net")).or_else(|| inode(self.path("self", "ns/net")))
    }

    /// Reads the interfaces that a process sees into `interfaces`; false where the process is gone.
    pub fn read(&mut self, pid: u32, host: bool, interfaces: &mut Vec<Interface>) -> bool {
        let Ok(mut file) = File::open(self.path(pid, "net/dev")) else { return false };
        self.text.clear();
        if file.read_to_end(&mut self.text).is_err() {
            return false;
        }
        parse(&self.text, host, interfaces);
        true
    }
}

/// Names are written over those of the last time, so that nothing is allocated.
fn parse(text: &[u8], host: bool, interfaces: &mut Vec<Interface>) {
    let mut used = 0;
    for line in text::lines(text) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let Some(name) = text::utf8(line[..colon].trim_ascii()) else { continue };
        let skipped = if host { HOST_SKIPS.iter().any(|prefix| name.starts_with(prefix)) } else { name == "lo" };
        let mut fields = [0; 16];
        let read = fields.iter_mut().zip(text::words(&line[colon + 1..]).map_while(text::u64));
        if skipped || read.map(|(field, value)| *field = value).count() < 16 {
            continue;
        }
        // bytes packets errs drop …, 8 each way.
        let counters = [0, 1, 3, 2, 8, 9, 11, 10].map(|at: usize| fields[at]);
        match interfaces.get_mut(used) {
            Some(interface) => {
                if interface.name != name {
                    interface.name.clear();
                    interface.name.push_str(name);
                }
                interface.counters = counters;
            }
            None => interfaces.push(Interface { name: name.to_owned(), counters }),
        }
        used += 1;
    }
    interfaces.truncate(used);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
docker7: 10 20 30 40 0 0 0 0 50 60 70 80 0 0 0 0
  eth0:100 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0
 short: 1 2
";

    #[test]
    fn interfaces_of_the_host_and_of_a_container() {
        let mut found = Vec::new();
        parse(TEXT, true, &mut found);
        assert_eq!(found, [Interface { name: "eth0".into(), counters: [100, 2, 4, 3, 5, 6, 8, 7] }]);
        parse(TEXT, false, &mut found);
        assert_eq!(found[0], Interface { name: "docker7".into(), counters: [10, 20, 40, 30, 50, 60, 80, 70] });
        assert_eq!((found.len(), found[1].name.as_str()), (2, "eth0"));
    }
}
