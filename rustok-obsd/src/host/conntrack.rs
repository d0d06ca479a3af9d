//! Connection tracking of the packet filter.
//!
//! Reads: `/proc/sys/net/netfilter/nf_conntrack_{count,max}`, `/proc/net/stat/nf_conntrack`
//! (net/netfilter/nf_conntrack_standalone.c). Yields: `node_nf_conntrack_*`. Costs: three small files; two failed openings where
//! the module is not loaded.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

const ENTRIES: Family<'static> =
    gauge("node_nf_conntrack_entries", &[], "Number of currently allocated flow entries for connection tracking.");
const LIMIT: Family<'static> =
    gauge("node_nf_conntrack_entries_limit", &[], "Maximum size of connection tracking table.");

/// Columns, each with its family.
const COLUMNS: [(&str, Family<'static>); 8] = [
    ("found", gauge("node_nf_conntrack_stat_found", &[], "Number of searched entries which were successful.")),
    ("invalid", gauge("node_nf_conntrack_stat_invalid", &[], "Number of packets seen which can not be tracked.")),
    (
        "ignore",
        gauge(
            "node_nf_conntrack_stat_ignore",
            &[],
            "Number of packets seen which are already connected to a conntrack entry.",
        ),
    ),
    ("insert", gauge("node_nf_conntrack_stat_insert", &[], "Number of entries inserted into the list.")),
    (
        "insert_failed",
        gauge(
            "node_nf_conntrack_stat_insert_failed",
            &[],
            "Number of entries for which list insertion was attempted but failed.",
        ),
    ),
    ("drop", gauge("node_nf_conntrack_stat_drop", &[], "Number of packets dropped due to conntrack failure.")),
    (
        "early_drop",
        gauge(
            "node_nf_conntrack_stat_early_drop",
            &[],
            "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.",
        ),
    ),
    (
        "search_restart",
        gauge(
            "node_nf_conntrack_stat_search_restart",
            &[],
            "Number of conntrack table lookups which had to be restarted due to hashtable resizes.",
        ),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    ENTRIES,
    LIMIT,
    COLUMNS[0].1,
    COLUMNS[1].1,
    COLUMNS[2].1,
    COLUMNS[3].1,
    COLUMNS[4].1,
    COLUMNS[5].1,
    COLUMNS[6].1,
    COLUMNS[7].1,
];

struct ConnTrack {
    count: KeptFile,
    max: KeptFile,
    stat: KeptFile,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(ConnTrack {
        count: settings.kept_procfs("sys/net/netfilter/nf_conntrack_count"),
        max: settings.kept_procfs("sys/net/netfilter/nf_conntrack_max"),
        stat: settings.kept_procfs("net/stat/nf_conntrack"),
    })
}

impl Collector for ConnTrack {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        for (file, family) in [(&mut self.count, &ENTRIES), (&mut self.max, &LIMIT)] {
            let number = text::u64(file.read()?.trim_ascii());
            let number = number.ok_or_else(|| CollectError::format(file.path(), "is no number"))?;
            out.family(family).put([], number);
        }
        let mut lines = text::lines(self.stat.read()?);
        // Columns changed their names and meanings over time: the head tells which are there.
        let head = lines.next().unwrap_or_default();
        let mut sums = [None; COLUMNS.len()];
        for line in lines {
            for (name, number) in text::words(head).zip(text::words(line)) {
                let at = COLUMNS.iter().position(|(column, _)| column.as_bytes() == name);
                if let (Some(at), Some(number)) = (at, text::hex(number)) {
                    sums[at] = Some(sums[at].unwrap_or(0u64).saturating_add(number));
                }
            }
        }
        for ((_, family), sum) in COLUMNS.iter().zip(sums) {
            if let Some(sum) = sum {
                out.family(family).put([], sum);
            }
        }
        Ok(())
    }
}
