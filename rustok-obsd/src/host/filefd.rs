//! Open files of the whole host.
//!
//! Reads: `/proc/sys/fs/file-nr` (Documentation/admin-guide/sysctl/fs.rst). Yields: `node_filefd_allocated`,
//! `node_filefd_maximum`. Costs: one small file.

use super::family::gauge;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    gauge("node_filefd_allocated", &[], "File descriptor statistics: allocated."),
    gauge("node_filefd_maximum", &[], "File descriptor statistics: maximum."),
];

struct FileFd(KeptFile);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(FileFd(settings.kept_procfs("sys/fs/file-nr")))
}

impl Collector for FileFd {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let path = self.0.path().to_owned();
        let mut numbers = text::words(self.0.read()?.trim_ascii()).map_while(text::u64);
        // Between them is the number of free ones, 0 since Linux 2.6.
        let (Some(allocated), Some(_), Some(maximum)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return Err(CollectError::format(&path, "is not three numbers"));
        };
        out.family(&FAMILIES[0]).put([], allocated);
        out.family(&FAMILIES[1]).put([], maximum);
        Ok(())
    }
}
