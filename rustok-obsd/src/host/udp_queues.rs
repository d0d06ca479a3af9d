//! What waits in the queues of UDP sockets.
//!
//! Reads: `/proc/net/udp`, `/proc/net/udp6` (net/ipv4/udp.c). Yields: `node_udp_queues`. Costs: two files, a line per socket.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its family.
pub const FAMILIES: &[Family<'static>] = &[gauge(
    "node_udp_queues",
    &["queue", "ip"],
    "Number of allocated memory in the kernel for UDP datagrams in bytes.",
)];

/// The column `tx_queue:rx_queue`.
const QUEUES: usize = 4;

struct UdpQueues([(&'static str, KeptFile); 2]);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let file = |(ip, name): (&'static str, &str)| (ip, settings.kept_procfs(name));
    Box::new(UdpQueues([("v4", "net/udp"), ("v6", "net/udp6")].map(file)))
}

impl Collector for UdpQueues {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let (mut samples, mut absent) = (out.family(&FAMILIES[0]), None);
        for (ip, file) in &mut self.0 {
            let text = match file.read() {
                Ok(text) => text,
                Err(error @ CollectError::NoData(_)) if absent.is_none() => {
                    absent = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (mut sent, mut received) = (0u64, 0u64);
            for line in text::lines(text).skip(1) {
                let queues = text::words(line).nth(QUEUES).unwrap_or_default();
                let Some(colon) = queues.iter().position(|byte| *byte == b':') else { continue };
                sent = sent.saturating_add(text::hex(&queues[..colon]).unwrap_or(0));
                received = received.saturating_add(text::hex(&queues[colon + 1..]).unwrap_or(0));
            }
            samples.put(["tx", *ip], sent);
            samples.put(["rx", *ip], received);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn queues_are_summed_and_one_protocol_may_be_absent() {
        let tree = Tree::new("udp_queues", |_| {});
        assert_eq!(tree.scrape(), (String::new(), false));
        let line = "   0: 00000000:0016 00000000:0000 07 00000015:00000002 00:00000000\n";
        tree.write("proc/net/udp6", &format!("  sl  local_address\n{line}{line}garbage\n"));
        let text = "node_udp_queues{queue=\"tx\",ip=\"v6\"} 42\nnode_udp_queues{queue=\"rx\",ip=\"v6\"} 4\n";
        assert_eq!(tree.scrape(), (text.into(), true));
    }
}
