//! What the network interfaces are, and their state.
//!
//! Reads: the interfaces by netlink, and what that does not tell below `class/net` of sysfs; or all of it there
//! (Documentation/ABI/testing/sysfs-class-net). Yields: `node_network_*` but the traffic. Costs: the dump that
//! [`netdev`](super::netdev) uses too; five files per interface when it is new or anything about it changed, for `speed`
//! and `duplex` ask its driver. Without netlink: 23 files per interface.

mod sysfs;

use super::family::{counter, gauge};
use super::netlink::{Identity, Link};
use super::{CollectError, Collector, Context, Settings};
use crate::config::collector::Pattern;
use crate::contract::Family;
use crate::exposition::{Encoder, LabelSet};
use std::path::PathBuf;
use sysfs::Unlinked;

/// Attribute of sysfs, family. The order is that of [`Device::values`].
const PROPERTIES: [(&str, Family<'static>); 17] = {
    macro_rules! property {
        ($kind:ident $attribute:literal $name:literal) => {
            (
                $attribute,
                $kind(concat!("node_network_", $name), &["device"], concat!("Network device property: ", $name)),
            )
        };
    }
    [
        property!(gauge "addr_assign_type" "address_assign_type"),
        property!(gauge "carrier" "carrier"),
        property!(counter "carrier_changes" "carrier_changes_total"),
        property!(counter "carrier_up_count" "carrier_up_changes_total"),
        property!(counter "carrier_down_count" "carrier_down_changes_total"),
        property!(gauge "dev_id" "device_id"),
        property!(gauge "dormant" "dormant"),
        property!(gauge "flags" "flags"),
        property!(gauge "ifindex" "iface_id"),
        property!(gauge "iflink" "iface_link"),
        property!(gauge "link_mode" "iface_link_mode"),
        property!(gauge "mtu" "mtu_bytes"),
        property!(gauge "name_assign_type" "name_assign_type"),
        property!(gauge "netdev_group" "net_dev_group"),
        property!(gauge "speed" "speed_bytes"),
        property!(gauge "tx_queue_len" "transmit_queue_length"),
        property!(gauge "type" "protocol_type"),
    ]
};
const SPEED: usize = 14;

const UP: Family<'static> = gauge("node_network_up", &["device"], "Value is 1 if operstate is 'up', 0 otherwise.");
const INFO: Family<'static> = gauge(
    "node_network_info",
    &["device", "address", "broadcast", "duplex", "operstate", "adminstate", "ifalias"],
    "Non-numeric data from /sys/class/net/<iface>, value is always 1.",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [UP; PROPERTIES.len() + 2];
    let mut at = 0;
    while at < PROPERTIES.len() {
        families[at] = PROPERTIES[at].1;
        at += 1;
    }
    families[at] = INFO;
    families
};

/// RFC 2863, net/core/net-sysfs.c.
const OPER_STATES: [&str; 7] = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];
const OPER_UP: u8 = 6;

/// Mbit/s in bytes/s.
const MEGABIT: i64 = 1_000_000 / 8;

struct Interfaces {
    netlink: bool,
    class: PathBuf,
    ignored: Pattern,
    ignore_invalid_speed: bool,
    devices: Vec<Device>,
}

/// An interface that is wanted.
struct Device {
    identity: Identity,
    unlinked: Unlinked,
    values: [Option<i64>; PROPERTIES.len()],
    up: bool,
    info: LabelSet,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let options = &settings.options;
    Box::new(Interfaces {
        netlink: options.netclass_netlink,
        class: settings.sysfs("class/net"),
        ignored: options.netclass_ignored_devices.clone(),
        ignore_invalid_speed: options.netclass_ignore_invalid_speed,
        devices: Vec::new(),
    })
}

impl Collector for Interfaces {
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        if self.netlink {
            context.links.with(|links| self.update(links))?;
        } else {
            self.devices = sysfs::devices(&self.class, &self.ignored)?;
        }
        self.write(out);
        Ok(())
    }
}

impl Interfaces {
    /// Takes the interfaces of netlink; the devices stand in their order afterwards.
    fn update(&mut self, links: &[Link]) {
        let mut at = 0;
        for link in links.iter().filter(|link| !self.ignored.matches(&link.identity.name)) {
            let ahead = self.devices[at..].iter().position(|device| device.identity.index == link.identity.index);
            match ahead {
                Some(ahead) => drop(self.devices.drain(at..at + ahead)),
                None => self.devices.insert(at, Device::new()),
            }
            let device = &mut self.devices[at];
            if device.identity != link.identity {
                device.identity = link.identity.clone();
                device.unlinked = Unlinked::read(&self.class.join(&link.identity.name));
                device.describe();
            }
            device.take(link);
            at += 1;
        }
        self.devices.truncate(at);
    }

    fn write(&self, out: &mut Encoder<'_>) {
        for (at, (_, family)) in PROPERTIES.iter().enumerate() {
            let mut samples = out.family(family);
            for device in &self.devices {
                let name = device.identity.name.as_str();
                let Some(value) = device.values[at] else { continue };
                if at != SPEED {
                    samples.put([name], value);
                } else if value >= 0 || !self.ignore_invalid_speed {
                    samples.put([name], value.saturating_mul(MEGABIT));
                }
            }
        }
        let mut samples = out.family(&UP);
        for device in &self.devices {
            samples.put([device.identity.name.as_str()], u64::from(device.up));
        }
        let mut samples = out.family(&INFO);
        for device in &self.devices {
            samples.put(&device.info, 1u64);
        }
    }
}

impl Device {
    fn new() -> Self {
        Self {
            identity: Identity::default(),
            unlinked: Unlinked::default(),
            values: [None; PROPERTIES.len()],
            up: false,
            info: LabelSet::new([]),
        }
    }

    /// Writes the labels of what has no number.
    fn describe(&mut self) {
        let Identity { name, address, broadcast, alias, oper_state, flags, .. } = &self.identity;
        let state = OPER_STATES.get(usize::from(*oper_state)).copied().unwrap_or(OPER_STATES[0]);
        let admin = if flags & libc::IFF_UP as u32 == 0 { "down" } else { "up" };
        let values = [name, address, broadcast, self.unlinked.duplex.as_str(), state, admin, alias];
        self.info = LabelSet::new(INFO.labels.iter().copied().zip(values));
    }

    /// Takes the numbers of netlink. What sysfs refuses while the interface is down is left out as there.
    fn take(&mut self, link: &Link) {
        let Unlinked { address_type, id, name_type, speed, .. } = self.unlinked;
        let while_up = |value: bool| link.is_running().then_some(i64::from(value));
        let number = |value: u32| Some(i64::from(value));
        self.up = link.identity.oper_state == OPER_UP;
        self.values = [
            address_type,
            while_up(link.carrier),
            number(link.identity.carrier_changes),
            number(link.carrier_up),
            number(link.carrier_down),
            id,
            while_up(link.dormant),
            number(link.identity.flags),
            number(link.identity.index),
            number(link.below),
            Some(i64::from(link.link_mode)),
            number(link.mtu),
            name_type,
            number(link.group),
            speed,
            number(link.queue),
            Some(i64::from(link.kind)),
        ];
    }
}
