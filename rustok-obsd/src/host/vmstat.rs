//! Counts of the virtual memory.
//!
//! Reads: `/proc/vmstat` (mm/vmstat.c). Yields: `node_vmstat_FIELD` for the fields that are wanted. Costs: one file; the
//! pattern is asked once per field.

use super::named::{Named, Remembered, value};
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::config::collector::Pattern;
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;

/// Its families have names that the kernel gives.
pub const FAMILIES: &[Family<'static>] = &[];

struct VmStat {
    file: KeptFile,
    wanted: Pattern,
    fields: Remembered<Option<Named>>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let wanted = settings.options.vmstat_fields.clone();
    Box::new(VmStat { file: settings.kept_procfs("vmstat"), wanted, fields: Remembered::default() })
}

impl Collector for VmStat {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        for (at, (name, rest)) in text::fields(self.file.read()?).enumerate() {
            let named = self.fields.get(at, name, |name| {
                let name = text::utf8(name).filter(|name| self.wanted.matches(name))?;
                let help = format!("/proc/vmstat information field {name}.");
                Some(Named::new(&format!("node_vmstat_{name}"), help))
            });
            if let (Some(named), Some(value)) = (named, value(rest)) {
                out.family(&named.family(Kind::Untyped, &[])).put([], value);
            }
        }
        Ok(())
    }
}
