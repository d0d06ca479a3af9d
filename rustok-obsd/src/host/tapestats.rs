//! Tape drives.
//!
//! Reads: `/sys/class/scsi_tape/st*/stats` (drivers/scsi/st.c). Yields: `node_tape_*`. Costs: ten small files per drive.

use super::family::{counter, families_of, gauge};
use super::folder::{Folder, numbered, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings};
use crate::config::collector::Pattern;
use crate::contract::Family;
use crate::exposition::{Encoder, Value};

const TAPE: &[&str] = &["device"];

/// File, whether it is in nanoseconds, family.
const STATISTICS: &[(&str, bool, Family<'static>)] = &[
    ("in_flight", false, gauge("node_tape_io_now", TAPE, "The number of I/Os currently outstanding to this device.")),
    (
        "io_ns",
        true,
        counter(
            "node_tape_io_time_seconds_total",
            TAPE,
            "The amount of time spent waiting for all I/O to complete (including read and write). This includes tape movement commands such as seeking between file or set marks and implicit tape movement such as when rewind on close tape devices are used.",
        ),
    ),
    (
        "other_cnt",
        false,
        counter(
            "node_tape_io_others_total",
            TAPE,
            "The number of I/Os issued to the tape drive other than read or write commands. The time taken to complete these commands uses the following calculation io_time_seconds_total-read_time_seconds_total-write_time_seconds_total",
        ),
    ),
    (
        "read_byte_cnt",
        false,
        counter("node_tape_read_bytes_total", TAPE, "The number of bytes read from the tape drive."),
    ),
    (
        "read_cnt",
        false,
        counter("node_tape_reads_completed_total", TAPE, "The number of read requests issued to the tape drive."),
    ),
    (
        "read_ns",
        true,
        counter(
            "node_tape_read_time_seconds_total",
            TAPE,
            "The amount of time spent waiting for read requests to complete.",
        ),
    ),
    (
        "resid_cnt",
        false,
        counter(
            "node_tape_residual_total",
            TAPE,
            "The number of times during a read or write we found the residual amount to be non-zero. This should mean that a program is issuing a read larger thean the block size on tape. For write not all data made it to tape.",
        ),
    ),
    (
        "write_byte_cnt",
        false,
        counter("node_tape_written_bytes_total", TAPE, "The number of bytes written to the tape drive."),
    ),
    (
        "write_cnt",
        false,
        counter("node_tape_writes_completed_total", TAPE, "The number of write requests issued to the tape drive."),
    ),
    (
        "write_ns",
        true,
        counter(
            "node_tape_write_time_seconds_total",
            TAPE,
            "The amount of time spent waiting for write requests to complete.",
        ),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = families_of!(STATISTICS, 2);

struct Tapes {
    folder: Folder,
    ignored: Pattern,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let ignored = settings.options.tapestats_ignored_devices.clone();
    Box::new(Tapes { folder: Folder::new(settings.sysfs("class/scsi_tape")), ignored, bag: Bag::default() })
}

impl Collector for Tapes {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        // nst0, st0a and the like are other ways into the drive st0.
        for tape in self.folder.names().iter().filter(|name| numbered(name, "st").is_some()) {
            if self.ignored.matches(tape) {
                continue;
            }
            let folder = self.folder.path().join(tape).join("stats");
            for (file, time, family) in STATISTICS {
                if let Some(number) = unsigned(&folder.join(file)) {
                    self.bag.add(family, &[tape], if *time { Value::Nanos(number) } else { Value::U64(number) });
                }
            }
        }
        self.bag.write(out);
        Ok(())
    }
}
