//! Packets that the CPUs took in.
//!
//! Reads: `/proc/net/softnet_stat` (net/core/net-procfs.c). Yields: `node_softnet_*`. Costs: one file, a line per CPU.

use super::family::{counter, gauge};
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Families, each with its column.
const COLUMNS: [(usize, Family<'static>); 7] = [
    (0, counter("node_softnet_processed_total", &["cpu"], "Number of processed packets")),
    (1, counter("node_softnet_dropped_total", &["cpu"], "Number of dropped packets")),
    (2, counter("node_softnet_times_squeezed_total", &["cpu"], "Number of times processing packets ran out of quota")),
    (
        8,
        counter(
            "node_softnet_cpu_collision_total",
            &["cpu"],
            "Number of collision occur while obtaining device lock while transmitting",
        ),
    ),
    (9, counter("node_softnet_received_rps_total", &["cpu"], "Number of times cpu woken up received_rps")),
    (10, counter("node_softnet_flow_limit_count_total", &["cpu"], "Number of times flow limit has been reached")),
    (11, gauge("node_softnet_backlog_len", &["cpu"], "Softnet backlog status")),
];

/// The CPU's number, since Linux 5.10; before, the number of the line.
const CPU: usize = 12;

/// Its families.
pub const FAMILIES: &[Family<'static>] =
    &[COLUMNS[0].1, COLUMNS[1].1, COLUMNS[2].1, COLUMNS[3].1, COLUMNS[4].1, COLUMNS[5].1, COLUMNS[6].1];

struct SoftNet {
    file: KeptFile,
    /// Columns that an old kernel lacks are 0.
    lines: Vec<[u64; CPU + 1]>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(SoftNet { file: settings.kept_procfs("net/softnet_stat"), lines: Vec::new() })
}

impl Collector for SoftNet {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let path = self.file.path().to_owned();
        self.lines.clear();
        for line in text::lines(self.file.read()?) {
            let mut columns = [0; CPU + 1];
            let mut count = 0;
            for (column, word) in columns.iter_mut().zip(text::words(line)) {
                *column = text::hex(word).ok_or_else(|| CollectError::format(&path, "has no hexadecimal numbers"))?;
                count += 1;
            }
            if count <= CPU {
                columns[CPU] = self.lines.len() as u64;
            }
            if count > 0 {
                self.lines.push(columns);
            }
        }
        for (column, family) in &COLUMNS {
            let mut samples = out.family(family);
            for line in &self.lines {
                samples.put([itoa::Buffer::new().format(line[CPU])], line[*column]);
            }
        }
        Ok(())
    }
}
