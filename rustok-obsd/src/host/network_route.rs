//! Routes of the network.
//!
//! Reads: `RTM_GETROUTE` by netlink (rtnetlink(7)). Yields: `node_network_routes`, `node_network_route_info`. Costs: one dump,
//! which grows with the tables, and a series per route; allocates, off by default.

use super::family::gauge;
use super::netlink::{Netlink, attributes, half, word};
use super::{CollectError, Collector, Context, Settings};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::net::IpAddr;

const INFO: Family<'static> = gauge(
    "node_network_route_info",
    &["device", "src", "dest", "gw", "priority", "proto", "weight"],
    "network routing table information",
);
const ROUTES: Family<'static> = gauge("node_network_routes", &["device"], "network routes by interface");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[INFO, ROUTES];

/// `struct rtmsg`, `struct rtnexthop`.
const ROUTE: usize = 12;
const HOP: usize = 8;
/// Of rtnetlink.h; the only type that leads somewhere.
const UNICAST: u8 = 1;

/// One way of a route. Ordered by interface, so that those of one stand together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    interface: u32,
    dest: String,
    gateway: String,
    source: String,
    priority: String,
    protocol: &'static str,
    weight: String,
}

struct NetworkRoute {
    netlink: Option<Netlink>,
}

/// Makes it.
pub fn make(_: &Settings) -> Box<dyn Collector> {
    Box::new(NetworkRoute { netlink: None })
}

/// Who made the route (include/uapi/linux/rtnetlink.h), by node_exporter's spelling.
fn protocol(number: u8) -> &'static str {
    match number {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => "unknown",
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// The address in an attribute of `kind`; empty where there is none.
fn address_in(bytes: &[u8], kind: u16) -> String {
    let found = attributes(bytes).find(|(known, _)| *known == kind).and_then(|(_, value)| address(value));
    found.map(|address| address.to_string()).unwrap_or_default()
}

/// The ways of a message `RTM_NEWROUTE`; none where it is no route of IP to somewhere.
fn ways(message: &[u8]) -> Vec<Way> {
    let (Some(head), Some(rest)) = (message.get(..ROUTE), message.get(ROUTE..)) else { return Vec::new() };
    let family = i32::from(head[0]);
    if head[7] != UNICAST || (family != libc::AF_INET && family != libc::AF_INET6) {
        return Vec::new();
    }
    let number = |kind| attributes(rest).find(|(known, _)| *known == kind).and_then(|(_, value)| word(value, 0));
    let length = head[1];
    let destination = address_in(rest, libc::RTA_DST);
    let dest = if length == 0 { "default".into() } else { format!("{destination}/{length}") };
    let source = address_in(rest, libc::RTA_PREFSRC);
    let priority = number(libc::RTA_PRIORITY).unwrap_or(0).to_string();
    let way = |interface, gateway, weight| Way {
        interface,
        dest: dest.clone(),
        gateway,
        source: source.clone(),
        priority: priority.clone(),
        protocol: protocol(head[5]),
        weight,
    };
    let Some((_, mut hops)) = attributes(rest).find(|(kind, _)| *kind == libc::RTA_MULTIPATH) else {
        return vec![way(number(libc::RTA_OIF).unwrap_or(0), address_in(rest, libc::RTA_GATEWAY), String::new())];
    };
    let mut ways = Vec::new();
    while let (Some(size), Some(interface)) = (half(hops, 0).map(usize::from), word(hops, 4)) {
        let Some(inner) = hops.get(HOP..size) else { break };
        let weight = u32::from(hops[3]) + 1;
        ways.push(way(interface, address_in(inner, libc::RTA_GATEWAY), weight.to_string()));
        hops = hops.get(size.div_ceil(4) * 4..).unwrap_or_default();
    }
    ways
}

impl Collector for NetworkRoute {
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open(libc::NETLINK_ROUTE)?),
        };
        let found = std::cell::RefCell::new(Vec::new());
        let dumped = netlink.dump(
            libc::RTM_GETROUTE,
            &[0; ROUTE],
            || found.borrow_mut().clear(),
            |kind, message| {
                if kind == libc::RTM_NEWROUTE {
                    found.borrow_mut().extend(ways(message));
                }
            },
        );
        if dumped.is_err() {
            self.netlink = None;
        }
        dumped?;
        let mut found = found.into_inner();
        found.sort_unstable();
        context.links.with(|links| {
            let name = |index| {
                let link = links.iter().find(|link| link.identity.index == index);
                link.map_or("", |link| link.identity.name.as_str())
            };
            let mut samples = out.family(&ROUTES);
            for same in found.chunk_by(|a, b| a.interface == b.interface) {
                samples.put([name(same[0].interface)], same.len() as u64);
            }
            // Several tables may have the same route, which is one series.
            found.dedup();
            let mut samples = out.family(&INFO);
            for Way { interface, dest, gateway, source, priority, protocol, weight } in &found {
                samples.put([name(*interface), source, dest, gateway, priority, protocol, weight], 1u64);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().div_ceil(4) * 4, 0);
        bytes
    }

    fn route(length: u8, kind: u8) -> Vec<u8> {
        vec![libc::AF_INET as u8, length, 0, 0, 254, 16, 0, kind, 0, 0, 0, 0]
    }

    #[test]
    fn ways_are_told_with_their_weights() {
        let mut message = route(24, UNICAST);
        message.extend(attribute(libc::RTA_DST, &[10, 1, 2, 0]));
        message.extend(attribute(libc::RTA_PREFSRC, &[10, 1, 2, 9]));
        message.extend(attribute(libc::RTA_PRIORITY, &100u32.to_ne_bytes()));
        let gateway = attribute(libc::RTA_GATEWAY, &[10, 1, 2, 1]);
        let hop = |interface: u8, hops: u8, rest: &[u8]| {
            [&[8 + rest.len() as u8, 0, 0, hops, interface, 0, 0, 0], rest].concat()
        };
        message.extend(attribute(libc::RTA_MULTIPATH, &[hop(2, 0, &gateway), hop(3, 4, &[])].concat()));
        let told: Vec<_> =
            ways(&message).iter().map(|way| (way.interface, way.gateway.clone(), way.weight.clone())).collect();
        assert_eq!(told, [(2, "10.1.2.1".into(), "1".into()), (3, String::new(), "5".into())]);
        let way = &ways(&message)[0];
        assert_eq!(
            (&*way.dest, &*way.source, &*way.priority, way.protocol),
            ("10.1.2.0/24", "10.1.2.9", "100", "dhcp")
        );
        for length in 0..message.len() {
            assert!(ways(&message[..length]).len() <= 2);
        }
        assert!(ways(&route(0, 2)).is_empty(), "local");
        assert_eq!(ways(&route(0, UNICAST))[0].dest, "default");
    }

    #[test]
    fn the_kernels_own_routes_are_told() {
        let tree = Tree::new("network_route", |settings| settings.paths = crate::config::Paths::default());
        let (text, success) = tree.scrape();
        assert!(success);
        let default = std::fs::read_to_string("/proc/net/route").unwrap();
        for line in default.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let device = format!("node_network_routes{{device=\"{}\"}} ", words[0]);
            assert!(text.contains(&device), "{device} {text}");
            if words[1] == "00000000" && words[7] == "00000000" {
                let info = format!("node_network_route_info{{device=\"{}\"", words[0]);
                assert!(
                    text.lines().any(|line| line.starts_with(&info) && line.contains("dest=\"default\"")),
                    "{text}"
                );
            }
        }
    }
}
