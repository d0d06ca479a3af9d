//! Entries of the ARP table.
//!
//! Reads: `RTM_GETNEIGH` by netlink, or `/proc/net/arp` (net/ipv4/arp.c). Yields: `node_arp_entries`. Costs: one dump, or one
//! file; both grow with the table.

use super::netlink::{Netlink, half, word};
use super::{CollectError, Collector, Context, KeptFile, Settings, family::gauge, text};
use crate::config::collector::{Collectors, Filter};
use crate::contract::Family;
use crate::exposition::Encoder;

const ENTRIES: Family<'static> = gauge("node_arp_entries", &["device"], "ARP entries by device");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[ENTRIES];

/// `NUD_NOARP`: an address that is never asked for; `/proc/net/arp` leaves it out.
const NO_ARP: u16 = 0x40;

struct Arp {
    file: Option<KeptFile>,
    netlink: Option<Netlink>,
    filter: Filter,
    /// Index of the interface, entries.
    counts: Vec<(u32, u64)>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let options = &settings.options;
    Box::new(Arp {
        file: (!options.arp_netlink).then(|| settings.kept_procfs("net/arp")),
        netlink: None,
        filter: Collectors::filter(&options.arp_device_include, &options.arp_device_exclude),
        counts: Vec::new(),
    })
}

impl Collector for Arp {
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        if self.file.is_some() {
            return self.read_file(out);
        }
        self.dump()?;
        let Self { filter, counts, .. } = self;
        context.links.with(|links| {
            let mut samples = out.family(&ENTRIES);
            for (index, count) in counts {
                let link = links.iter().find(|link| link.identity.index == *index);
                if let Some(name) = link.map(|link| link.identity.name.as_str()).filter(|name| filter.wants(name)) {
                    samples.put([name], *count);
                }
            }
        })
    }
}

impl Arp {
    fn read_file(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut counts: Vec<(&str, u64)> = Vec::new();
        // The device is the last column; the head's last word is none.
        for line in text::lines(file.read()?).skip(1) {
            let Some(device) = text::words(line).nth(5).and_then(text::utf8) else { continue };
            match counts.iter_mut().find(|(name, _)| *name == device) {
                Some((_, count)) => *count += 1,
                None => counts.push((device, 1)),
            }
        }
        let mut samples = out.family(&ENTRIES);
        for (device, count) in counts.into_iter().filter(|(device, _)| self.filter.wants(device)) {
            samples.put([device], count);
        }
        Ok(())
    }

    /// Counts the neighbours of IPv4 by interface.
    fn dump(&mut self) -> Result<(), CollectError> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open(libc::NETLINK_ROUTE)?),
        };
        // `struct ndmsg`: family, pad, index, state, flags, type.
        let mut request = [0; 12];
        request[0] = libc::AF_INET as u8;
        let counts = std::cell::RefCell::new(&mut self.counts);
        let dumped = netlink.dump(
            libc::RTM_GETNEIGH,
            &request,
            || counts.borrow_mut().clear(),
            |kind, message| {
                let (Some(index), Some(state)) = (word(message, 4), half(message, 8)) else { return };
                if kind != libc::RTM_NEWNEIGH || i32::from(message[0]) != libc::AF_INET || state & NO_ARP != 0 {
                    return;
                }
                let mut counts = counts.borrow_mut();
                match counts.iter_mut().find(|(known, _)| *known == index) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((index, 1)),
                }
            },
        );
        if dumped.is_err() {
            self.netlink = None;
        }
        dumped
    }
}
