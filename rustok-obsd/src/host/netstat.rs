//! Counts of the network protocols.
//!
//! Reads: `/proc/net/{netstat,snmp,snmp6}` (net/ipv4/proc.c, net/ipv6/proc.c), of the network namespace that we are in.
//! Yields: `node_netstat_PROTOCOL_FIELD` for the fields that are wanted. Costs: three files; the pattern is asked once per field.

use super::named::{Named, Remembered, value};
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::config::collector::Pattern;
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;

/// Its families have names that the kernel gives.
pub const FAMILIES: &[Family<'static>] = &[];

/// A file of pairs of lines, names and values, and what is wanted of each pair.
struct Table {
    file: KeptFile,
    pairs: Remembered<Columns>,
}

/// The columns that are wanted.
struct Columns {
    count: usize,
    /// By place.
    wanted: Vec<(usize, Named)>,
}

struct NetStat {
    wanted: Pattern,
    tables: [Table; 2],
    snmp6: KeptFile,
    fields: Remembered<Option<Named>>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let table = |file: &str| Table { file: settings.kept_procfs(file), pairs: Remembered::default() };
    Box::new(NetStat {
        wanted: settings.options.netstat_fields.clone(),
        tables: ["net/netstat", "net/snmp"].map(table),
        snmp6: settings.kept_procfs("net/snmp6"),
        fields: Remembered::default(),
    })
}

fn named(wanted: &Pattern, protocol: &str, name: &str) -> Option<Named> {
    let key = format!("{protocol}_{name}");
    let help = || format!("Statistic {protocol}{name}.");
    wanted.matches(&key).then(|| Named::new(&format!("node_netstat_{key}"), help()))
}

impl Columns {
    fn new(wanted: &Pattern, head: &[u8]) -> Self {
        let mut words = text::words(head);
        let protocol = words.next().and_then(|word| text::utf8(word)?.strip_suffix(':')).unwrap_or_default();
        let mut columns = Self { count: 0, wanted: Vec::new() };
        for name in words {
            if let Some(named) = text::utf8(name).and_then(|name| named(wanted, protocol, name)) {
                columns.wanted.push((columns.count, named));
            }
            columns.count += 1;
        }
        columns
    }
}

impl Table {
    fn collect(&mut self, wanted: &Pattern, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let path = self.file.path().to_owned();
        let mut lines = text::lines(self.file.read()?).filter(|line| !line.is_empty());
        for pair in 0.. {
            let Some(head) = lines.next() else { break };
            let columns = self.pairs.get(pair, head, |head| Columns::new(wanted, head));
            let line = lines.next().unwrap_or_default();
            let mut words = text::words(line);
            if words.next() != text::words(head).next() || text::words(line).count() != columns.count + 1 {
                let head = String::from_utf8_lossy(head);
                return Err(CollectError::format(&path, format!("names and values differ in number at `{head:.20}…`")));
            }
            let mut next = 0;
            for (at, named) in &columns.wanted {
                let word = words.nth(at - next);
                next = at + 1;
                if let Some(value) = word.and_then(value) {
                    out.family(&named.family(Kind::Untyped, &[])).put([], value);
                }
            }
        }
        Ok(())
    }
}

impl Collector for NetStat {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        for table in &mut self.tables {
            table.collect(&self.wanted, out)?;
        }
        // Absent where IPv6 is off.
        let text = match self.snmp6.read() {
            Ok(text) => text,
            Err(CollectError::NoData(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        for (at, (name, rest)) in text::fields(text).enumerate() {
            let named = self.fields.get(at, name, |name| {
                // `Ip6InReceives`: the protocol ends with the first 6.
                let name = text::utf8(name)?;
                let (protocol, field) = name.split_at(name.find('6')? + 1);
                named(&self.wanted, protocol, field)
            });
            if let (Some(named), Some(value)) = (named, value(rest)) {
                out.family(&named.family(Kind::Untyped, &[])).put([], value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn columns_may_move_and_a_short_line_is_an_error() {
        let tree = Tree::new("netstat", |_| {});
        tree.write("proc/net/netstat", "");
        tree.write("proc/net/snmp", "Tcp: MaxConn InSegs X CurrEstab\nTcp: -1 7 8 9\nUdp: InErrors\nUdp: 3\n");
        let text = "node_netstat_Tcp_InSegs 7\nnode_netstat_Tcp_CurrEstab 9\nnode_netstat_Udp_InErrors 3\n";
        assert_eq!(tree.scrape(), (text.into(), true));
        tree.write("proc/net/snmp", "Tcp: CurrEstab InSegs\nTcp: 1 2\nUdp: InErrors\nUdp: 3\n");
        let text = "node_netstat_Tcp_CurrEstab 1\nnode_netstat_Tcp_InSegs 2\nnode_netstat_Udp_InErrors 3\n";
        assert_eq!(tree.scrape(), (text.into(), true));
        tree.write("proc/net/snmp", "Tcp: CurrEstab InSegs\nTcp: 1\n");
        assert_eq!(tree.scrape(), (String::new(), false));
    }
}
