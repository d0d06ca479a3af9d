//! Memory errors that the controllers corrected or could not.
//!
//! Reads: `/sys/devices/system/edac/mc/mc*` (drivers/edac/edac_mc_sysfs.c), the view by csrow and channel. Yields:
//! `node_edac_*_errors_total`. Costs: a file per counter; the layout is remembered while the controllers are the same.

use super::folder::{Folder, names, numbered, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings, attribute, family::counter};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::path::PathBuf;

const CONTROLLER: &[&str] = &["controller"];
const CSROW: &[&str] = &["controller", "csrow"];
const CHANNEL: &[&str] = &["controller", "csrow", "channel", "dimm_label"];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    counter("node_edac_correctable_errors_total", CONTROLLER, "Total correctable memory errors."),
    counter("node_edac_uncorrectable_errors_total", CONTROLLER, "Total uncorrectable memory errors."),
    counter("node_edac_csrow_correctable_errors_total", CSROW, "Total correctable memory errors for this csrow."),
    counter("node_edac_csrow_uncorrectable_errors_total", CSROW, "Total uncorrectable memory errors for this csrow."),
    counter("node_edac_channel_correctable_errors_total", CHANNEL, "Total correctable memory errors for this channel."),
    counter(
        "node_edac_channel_uncorrectable_errors_total",
        CHANNEL,
        "Total uncorrectable memory errors for this channel.",
    ),
];

/// One counter.
struct Count {
    path: PathBuf,
    family: usize,
    labels: Vec<String>,
}

struct Edac {
    folder: Folder,
    counts: Vec<Count>,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let folder = Folder::new(settings.sysfs("devices/system/edac/mc"));
    Box::new(Edac { folder, counts: Vec::new(), bag: Bag::default() })
}

impl Edac {
    fn find(&mut self) {
        self.counts.clear();
        let mut count = |path: PathBuf, family: usize, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            self.counts.push(Count { path, family, labels });
        };
        for entry in self.folder.names() {
            let Some(controller) = numbered(entry, "mc") else { continue };
            let folder = self.folder.path().join(entry);
            count(folder.join("ce_count"), 0, &[controller]);
            count(folder.join("ue_count"), 1, &[controller]);
            count(folder.join("ce_noinfo_count"), 2, &[controller, "unknown"]);
            count(folder.join("ue_noinfo_count"), 3, &[controller, "unknown"]);
            for entry in names(&folder).unwrap_or_default() {
                let Some(csrow) = numbered(&entry, "csrow") else { continue };
                let folder = folder.join(&entry);
                count(folder.join("ce_count"), 2, &[controller, csrow]);
                count(folder.join("ue_count"), 3, &[controller, csrow]);
                for file in names(&folder).unwrap_or_default() {
                    let channel = file.strip_prefix("ch").and_then(|file| file.split_once('_'));
                    let Some((channel, kind)) = channel else { continue };
                    let family = match kind {
                        "ce_count" => 4,
                        "ue_count" => 5,
                        _ => continue,
                    };
                    // mc#0csrow#1channel#0, unless somebody named the modules.
                    let label = attribute(&folder.join(format!("ch{channel}_dimm_label"))).unwrap_or_default();
                    let label = label.replace('#', "").replace("csrow", "_csrow").replace("channel", "_channel");
                    count(folder.join(&file), family, &[controller, csrow, channel, &label]);
                }
            }
        }
    }
}

impl Collector for Edac {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        if self.folder.refresh_if_there()? {
            self.find();
        }
        for Count { path, family, labels } in &self.counts {
            let Some(value) = unsigned(path) else { continue };
            let mut texts = [""; 4];
            texts.iter_mut().zip(labels).for_each(|(text, label)| *text = label);
            self.bag.add(&FAMILIES[*family], &texts[..labels.len()], value);
        }
        self.bag.write(out);
        Ok(())
    }
}
