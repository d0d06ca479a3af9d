//! Traffic of the network interfaces.
//!
//! Reads: the interfaces' 64-bit counters by netlink, or `/proc/net/dev` (net/core/net-procfs.c). Yields:
//! `node_network_{receive,transmit}_*_total`. Costs: the dump that [`netclass`](super::netclass) uses too, or one file.
//!
//! The counters are summed as `/proc/net/dev` has always summed them; it does not know `nohandler`.

use super::family::counter;
use super::netlink::STATISTICS;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::config::collector::{Collectors, Filter};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Columns of `/proc/net/dev`.
const COLUMNS: usize = 16;

/// Family, the counters of `struct rtnl_link_stats64` that make it up, column of `/proc/net/dev`.
type Row = (Family<'static>, &'static [usize], Option<usize>);

macro_rules! rows {
    ($($name:literal $counters:expr, $column:expr;)+) => {
        const ROWS: &[Row] = &[$((
            counter(
                concat!("node_network_", $name, "_total"),
                &["device"],
                concat!("Network device statistic ", $name, "."),
            ),
            &$counters,
            $column,
        ),)+];
    };
}

rows! {
    "receive_bytes" [2], Some(0);
    "receive_packets" [0], Some(1);
    "receive_errs" [4], Some(2);
    "receive_drop" [6, 15], Some(3);
    "receive_fifo" [14], Some(4);
    "receive_frame" [10, 11, 12, 13], Some(5);
    "receive_compressed" [21], Some(6);
    "receive_multicast" [8], Some(7);
    "receive_nohandler" [23], None;
    "transmit_bytes" [3], Some(8);
    "transmit_packets" [1], Some(9);
    "transmit_errs" [5], Some(10);
    "transmit_drop" [7], Some(11);
    "transmit_fifo" [18], Some(12);
    "transmit_colls" [9], Some(13);
    "transmit_carrier" [16, 17, 19, 20], Some(14);
    "transmit_compressed" [22], Some(15);
}

/// Rows of bytes, which packets, errors and drops follow.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 9;

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [ROWS[0].0; ROWS.len()];
    let mut at = 0;
    while at < ROWS.len() {
        families[at] = ROWS[at].0;
        at += 1;
    }
    families
};

/// Bytes, packets, errors and drops of an interface, in this order.
#[derive(Clone, Copy, Debug)]
pub struct Basics {
    /// What came in.
    pub received: [u64; 4],
    /// What went out.
    pub transmitted: [u64; 4],
}

/// The interfaces' counters.
pub struct Traffic {
    /// Without netlink.
    file: Option<KeptFile>,
    filter: Filter,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Traffic::new(settings))
}

impl Traffic {
    /// With the options' filter.
    pub fn new(settings: &Settings) -> Self {
        let options = &settings.options;
        Self {
            file: (!options.netdev_netlink).then(|| settings.kept_procfs("net/dev")),
            filter: Collectors::filter(&options.netdev_device_include, &options.netdev_device_exclude),
        }
    }

    /// Hands over the counts of each interface that is wanted.
    pub fn basics(&mut self, context: &Context<'_>, mut each: impl FnMut(&str, Basics)) -> Result<(), CollectError> {
        let mut wanted = |name: &str, value: &dyn Fn(&Row) -> u64| {
            if self.filter.wants(name) {
                let from = |first: usize| std::array::from_fn(|at| value(&ROWS[first + at]));
                each(name, Basics { received: from(RECEIVE), transmitted: from(TRANSMIT) });
            }
        };
        match &mut self.file {
            None => context.links.with(|links| {
                for link in links {
                    if let Some(counters) = &link.statistics {
                        wanted(&link.identity.name, &|row| sum(row, counters));
                    }
                }
            }),
            Some(file) => {
                for (name, columns) in text::lines(file.read()?).filter_map(line) {
                    wanted(name, &|row| row.2.map_or(0, |column| columns[column]));
                }
                Ok(())
            }
        }
    }
}

/// A row's counter of an interface.
fn sum(row: &Row, counters: &[u64; STATISTICS]) -> u64 {
    row.1.iter().fold(0, |sum, at| sum.wrapping_add(counters[*at]))
}

impl Collector for Traffic {
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let Self { file, filter } = self;
        match file {
            None => context.links.with(|links| {
                let devices =
                    links.iter().filter_map(|link| Some((link.identity.name.as_str(), link.statistics.as_ref()?)));
                write(&devices.filter(|(name, _)| filter.wants(name)), out, |row, counters| Some(sum(row, counters)));
            }),
            Some(file) => {
                let lines: Vec<_> = text::lines(file.read()?).filter_map(line).collect();
                let devices = lines.iter().map(|(name, columns)| (*name, columns));
                write(&devices.filter(|(name, _)| filter.wants(name)), out, |row: &Row, columns: &[u64; COLUMNS]| {
                    row.2.map(|column| columns[column])
                });
                Ok(())
            }
        }
    }
}

fn write<'d, C: 'd>(
    devices: &(impl Iterator<Item = (&'d str, &'d C)> + Clone),
    out: &mut Encoder<'_>,
    value: impl Fn(&Row, &C) -> Option<u64>,
) {
    for row in ROWS {
        let mut samples = out.family(&row.0);
        for (name, counters) in devices.clone() {
            if let Some(value) = value(row, counters) {
                samples.put([name], value);
            }
        }
    }
}

/// `NAME: NUMBER…`; the numbers may follow the colon at once. The two lines of the head have none.
fn line(line: &[u8]) -> Option<(&str, [u64; COLUMNS])> {
    // A name may have colons of its own.
    let colon = memchr::memrchr(b':', line)?;
    let name = text::utf8(line[..colon].trim_ascii())?;
    let mut columns = [0; COLUMNS];
    let mut words = text::words(&line[colon + 1..]);
    for column in &mut columns {
        *column = words.next().and_then(text::u64)?;
    }
    Some((name, columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_devices_or_skipped() {
        let numbers: [u64; COLUMNS] = std::array::from_fn(|at| at as u64);
        let text = numbers.map(|number| number.to_string()).join(" ");
        assert_eq!(line(format!("  eth0:{text}").as_bytes()), Some(("eth0", numbers)));
        assert_eq!(line(format!("a:b: {text}").as_bytes()), Some(("a:b", numbers)));
        assert_eq!(line(b" face |bytes    packets errs"), None);
        assert_eq!(line(b"eth0: 1 2 3"), None);
    }
}
