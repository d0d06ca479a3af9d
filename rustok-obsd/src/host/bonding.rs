//! Bonded interfaces.
//!
//! Reads: `class/net/bonding_masters` and below (Documentation/networking/bonding.rst). Yields: `node_bonding_slaves`,
//! `node_bonding_active`. Costs: one failed open without the driver; two small files per bond and one per member with it.

use super::{CollectError, Collector, Context, KeptFile, Settings, attribute, family::gauge, text};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::path::PathBuf;

const SLAVES: Family<'static> =
    gauge("node_bonding_slaves", &["master"], "Number of configured slaves per bonding interface.");
const ACTIVE: Family<'static> =
    gauge("node_bonding_active", &["master"], "Number of active slaves per bonding interface.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[SLAVES, ACTIVE];

struct Bonding {
    masters: KeptFile,
    class: PathBuf,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let class = settings.sysfs("class/net");
    Box::new(Bonding { masters: KeptFile::new(class.join("bonding_masters")), class })
}

impl Collector for Bonding {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut bonds = Vec::new();
        for line in text::lines(self.masters.read()?) {
            for master in text::words(line).filter_map(text::utf8) {
                let folder = self.class.join(master);
                let Some(slaves) = attribute(&folder.join("bonding/slaves")) else { continue };
                let is_up = |slave: &&str| {
                    // The link's name has been lower_ since 3.13.
                    let status = |prefix| attribute(&folder.join(format!("{prefix}_{slave}/bonding_slave/mii_status")));
                    status("lower").or_else(|| status("slave")).is_some_and(|status| status == "up")
                };
                let slaves = slaves.split_whitespace();
                bonds.push((master.to_owned(), slaves.clone().count() as u64, slaves.filter(is_up).count() as u64));
            }
        }
        let mut samples = out.family(&SLAVES);
        for (master, slaves, _) in &bonds {
            samples.put([master.as_str()], *slaves);
        }
        let mut samples = out.family(&ACTIVE);
        for (master, _, active) in &bonds {
            samples.put([master.as_str()], *active);
        }
        Ok(())
    }
}
