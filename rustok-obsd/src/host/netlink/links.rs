//! The table of network interfaces, dumped once for all collectors of a scrape.
//!
//! Reads: `RTM_GETLINK` (rtnetlink(7), net/core/rtnetlink.c). Yields: a [`Link`] for each interface of this network namespace.
//! Costs: one dump per scrape, about 2 KiB per interface; the memory is used again.

use super::{Netlink, attributes, half, word};
use crate::host::CollectError;
use std::sync::{Mutex, PoisonError};

/// Counters in `struct rtnl_link_stats64`.
pub const STATISTICS: usize = 25;
/// `struct ifinfomsg`: family, pad, type, index, flags, change.
const INFO: usize = 16;

// include/uapi/linux/if_link.h
const ADDRESS: u16 = 1;
const BROADCAST: u16 = 2;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const QUEUE: u16 = 13;
const OPER_STATE: u16 = 16;
const LINK_MODE: u16 = 17;
const ALIAS: u16 = 20;
const STATS64: u16 = 23;
const GROUP: u16 = 27;
const PROMISCUITY: u16 = 30;
const CARRIER: u16 = 33;
const CARRIER_CHANGES: u16 = 35;
const CARRIER_UP: u16 = 47;
const CARRIER_DOWN: u16 = 48;
const ALL_MULTICAST: u16 = 61;

/// What an interface is; a change of any of it may mean a change of what only sysfs tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// As sysfs has it: `aa:bb:…`.
    pub address: String,
    /// The same of the broadcast address.
    pub broadcast: String,
    /// Alias.
    pub alias: String,
    /// RFC 2863, include/uapi/linux/if.h.
    pub oper_state: u8,
    /// `IFF_*` as sysfs has them.
    pub flags: u32,
    /// Losses and gains of the carrier.
    pub carrier_changes: u32,
}

/// One interface.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// What it is.
    pub identity: Identity,
    /// `ARPHRD_*`.
    pub kind: u16,
    /// MTU.
    pub mtu: u32,
    /// The interface below, itself where there is none.
    pub below: u32,
    /// Length of the transmit queue.
    pub queue: u32,
    /// Policy of the operational state.
    pub link_mode: u8,
    /// Group.
    pub group: u32,
    /// Whether there is a carrier.
    pub carrier: bool,
    /// Whether it waits for something before it is up.
    pub dormant: bool,
    /// Gains of the carrier.
    pub carrier_up: u32,
    /// Losses of the carrier.
    pub carrier_down: u32,
    /// `struct rtnl_link_stats64`, where there is one.
    pub statistics: Option<[u64; STATISTICS]>,
}

impl Link {
    /// Whether it is administratively up.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.identity.flags & libc::IFF_UP as u32 != 0
    }

    /// Takes a message of type `RTM_NEWLINK`; its own memory is used again.
    fn read(&mut self, message: &[u8]) -> Option<()> {
        let (raw, index) = (word(message, 8)?, word(message, 4)?);
        let mut identity = std::mem::take(&mut self.identity);
        for text in [&mut identity.name, &mut identity.address, &mut identity.broadcast, &mut identity.alias] {
            text.clear();
        }
        *self = Self { kind: half(message, 2)?, below: index, ..Self::default() };
        identity.index = index;
        // sysfs does not have those that the kernel derives from the state.
        let derived = (libc::IFF_RUNNING | libc::IFF_LOWER_UP | libc::IFF_DORMANT) as u32;
        self.dormant = raw & libc::IFF_DORMANT as u32 != 0;
        identity.flags = raw & !derived;
        for (kind, value) in attributes(message.get(INFO..)?) {
            let number = word(value, 0).unwrap_or_default();
            match kind {
                NAME => identity.name.push_str(&text(value)),
                ALIAS => identity.alias.push_str(&text(value)),
                ADDRESS => write_address(value, &mut identity.address),
                BROADCAST => write_address(value, &mut identity.broadcast),
                MTU => self.mtu = number,
                LINK => self.below = number,
                QUEUE => self.queue = number,
                OPER_STATE => identity.oper_state = *value.first()?,
                LINK_MODE => self.link_mode = *value.first()?,
                GROUP => self.group = number,
                CARRIER => self.carrier = *value.first()? != 0,
                CARRIER_CHANGES => identity.carrier_changes = number,
                CARRIER_UP => self.carrier_up = number,
                CARRIER_DOWN => self.carrier_down = number,
                // The message has what was asked for, sysfs what is.
                PROMISCUITY => set(&mut identity.flags, libc::IFF_PROMISC as u32, number > 0),
                ALL_MULTICAST => set(&mut identity.flags, libc::IFF_ALLMULTI as u32, number > 0),
                STATS64 => {
                    let mut statistics = [0; STATISTICS];
                    for (counter, bytes) in statistics.iter_mut().zip(value.chunks_exact(8)) {
                        *counter = u64::from_ne_bytes(bytes.try_into().ok()?);
                    }
                    self.statistics = Some(statistics);
                }
                _ => {}
            }
        }
        self.identity = identity;
        Some(())
    }
}

fn set(flags: &mut u32, flag: u32, on: bool) {
    *flags = if on { *flags | flag } else { *flags & !flag };
}

fn text(value: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value))
}

fn write_address(bytes: &[u8], out: &mut String) {
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 {
            out.push(':');
        }
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
}

/// The interfaces, as the collectors of a scrape share them.
#[derive(Debug, Default)]
pub struct Links(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    netlink: Option<Netlink>,
    links: Vec<Link>,
    filled: usize,
    fresh: bool,
}

impl Links {
    /// A scrape begins: what was dumped before is old.
    pub fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fresh = false;
    }

    /// Hands over the interfaces of this scrape, in the kernel's order.
    ///
    /// # Errors
    /// See [`Netlink`].
    pub fn with<R>(&self, use_them: impl FnOnce(&[Link]) -> R) -> Result<R, CollectError> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.fresh {
            table.fill()?;
        }
        Ok(use_them(&table.links[..table.filled]))
    }
}

impl Table {
    fn fill(&mut self) -> Result<(), CollectError> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open(libc::NETLINK_ROUTE)?),
        };
        let (links, filled) = (&mut self.links, std::cell::Cell::new(0));
        let dumped = netlink.dump(
            libc::RTM_GETLINK,
            &[0; INFO],
            || filled.set(0),
            |kind, message| {
                if kind == libc::RTM_NEWLINK {
                    if links.len() == filled.get() {
                        links.push(Link::default());
                    }
                    if links[filled.get()].read(message).is_some() {
                        filled.set(filled.get() + 1);
                    }
                }
            },
        );
        self.filled = filled.get();
        if let Err(error) = dumped {
            // What is left of a dump in the socket is not to be met again.
            self.netlink = None;
            return Err(error);
        }
        self.fresh = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_of_this_machine_are_those_of_sysfs() {
        let links = Links::default();
        let read = |name: &str, attribute: &str| {
            std::fs::read_to_string(format!("/sys/class/net/{name}/{attribute}")).unwrap_or_default().trim().to_owned()
        };
        let check = |links: &[Link]| {
            assert!(!links.is_empty());
            for link in links {
                let of = |attribute| read(&link.identity.name, attribute);
                assert_eq!(link.identity.address, of("address"));
                assert_eq!(link.identity.broadcast, of("broadcast"));
                assert_eq!(format!("0x{:x}", link.identity.flags), of("flags"));
                assert_eq!((link.mtu.to_string(), link.queue.to_string()), (of("mtu"), of("tx_queue_len")));
                assert_eq!((link.below.to_string(), link.kind.to_string()), (of("iflink"), of("type")));
                assert!(link.statistics.is_some());
            }
            links.as_ptr()
        };
        let first = links.with(check).unwrap();
        links.begin();
        assert_eq!(links.with(check).unwrap(), first, "the memory is used again");
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_or_read_in_part() {
        let mut message = vec![0; INFO];
        message[4] = 7;
        for (kind, value) in
            [(NAME, b"eth7\0".as_slice()), (STATS64, &[1; 200]), (LINK, &[9, 0, 0, 0]), (OPER_STATE, &[6])]
        {
            message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            message.extend_from_slice(&kind.to_ne_bytes());
            message.extend_from_slice(value);
            message.resize(message.len().div_ceil(4) * 4, 0);
        }
        let mut link = Link::default();
        for length in 0..message.len() {
            let read = link.read(&message[..length]);
            assert_eq!(read.is_some(), length >= INFO);
        }
        link.read(&message).unwrap();
        assert_eq!((link.identity.index, link.identity.name.as_str(), link.below), (7, "eth7", 9));
        assert_eq!((link.identity.oper_state, link.statistics), (6, Some([0x0101_0101_0101_0101; STATISTICS])));
    }
}
