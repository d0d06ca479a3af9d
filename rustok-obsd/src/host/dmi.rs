//! What the firmware says of the machine.
//!
//! Reads: `class/dmi/id` of sysfs (drivers/firmware/dmi-id.c), once: the firmware wrote it at boot. Yields: `node_dmi_info`, with
//! a label for each attribute that is there and readable; serial numbers are root's. Costs: nothing after the first scrape.

use super::{CollectError, Collector, Context, KeptFile, Settings, family::gauge};
use crate::contract::Family;
use crate::exposition::{Encoder, WrittenLabels};
use std::path::PathBuf;

/// Attributes of sysfs; the label of `sys_vendor` is `system_vendor`.
const ATTRIBUTES: [&str; 20] = [
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_asset_tag",
    "board_name",
    "board_serial",
    "board_vendor",
    "board_version",
    "chassis_asset_tag",
    "chassis_serial",
    "chassis_vendor",
    "chassis_version",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    "sys_vendor",
];

// The labels are those that the firmware has.
const INFO: Family<'static> = gauge(
    "node_dmi_info",
    &[],
    "A metric with a constant '1' value labeled by bios_date, bios_release, bios_vendor, bios_version, board_asset_tag, \
     board_name, board_serial, board_vendor, board_version, chassis_asset_tag, chassis_serial, chassis_vendor, \
     chassis_version, product_family, product_name, product_serial, product_sku, product_uuid, product_version, \
     system_vendor if provided by DMI.",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[INFO];

struct Dmi {
    folder: PathBuf,
    /// Written labels; empty where there are none.
    labels: Option<Vec<u8>>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Dmi { folder: settings.sysfs("class/dmi/id"), labels: None })
}

impl Collector for Dmi {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let Self { folder, labels } = self;
        let labels = labels.get_or_insert_with(|| {
            let mut labels = Vec::new();
            let values: Vec<_> = ATTRIBUTES
                .into_iter()
                .filter_map(|name| {
                    let mut file = KeptFile::new(folder.join(name));
                    let text = file.read_raw().ok()?;
                    Some((if name == "sys_vendor" { "system_vendor" } else { name }, printable(text.trim_ascii())))
                })
                .collect();
            WrittenLabels::append(values.iter().map(|(name, value)| (*name, value.as_str())), &mut labels);
            labels
        });
        if labels.is_empty() {
            return Err(CollectError::NoData(folder.display().to_string()));
        }
        out.family(&INFO).put(WrittenLabels(labels), 1u64);
        Ok(())
    }
}

/// Firmware that writes bytes of no encoding gets U+FFFD for each run of them, as node_exporter's.
fn printable(text: &[u8]) -> String {
    let mut out = String::new();
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        if !chunk.invalid().is_empty() && !out.ends_with(char::REPLACEMENT_CHARACTER) {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bytes_that_are_no_text_are_replaced() {
        assert_eq!(printable(b"\xff\xfe[\xc3"), "\u{fffd}[\u{fffd}");
        assert_eq!(printable("Größe".as_bytes()), "Größe");
    }
}
