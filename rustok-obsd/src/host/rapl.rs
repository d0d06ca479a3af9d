//! Energy that the processor's own meters have counted.
//!
//! Reads: `/sys/class/powercap/*/{name,energy_uj}` (drivers/powercap/powercap_sys.c). Yields: `node_rapl_ZONE_joules_total`,
//! or `node_rapl_joules_total` with the zone as a label where that is asked for. Costs: one file per zone, names once.

use super::folder::{Folder, metric_name};
use super::{Bag, CollectError, Collector, Context, KeptFile, Settings, attribute, text};
use crate::contract::{Family, Kind};
use crate::exposition::{Encoder, Value};

/// Families are named after zones.
pub const FAMILIES: &[Family<'static>] = &[];

struct Zone {
    name: String,
    index: String,
    path: String,
    family: String,
    help: String,
    energy: KeptFile,
}

struct Rapl {
    folder: Folder,
    zones: Vec<Zone>,
    label: bool,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let folder = Folder::new(settings.sysfs("class/powercap"));
    Box::new(Rapl { folder, zones: Vec::new(), label: settings.options.rapl_enable_zone_label, bag: Bag::default() })
}

/// `package-1` is zone `package` with the index 1; of names without one, the zones before are counted.
fn named(name: &str, before: &[Zone]) -> (String, String) {
    if let Some((zone, index)) = name.split_once('-')
        && let Ok(index) = index.parse::<u32>()
    {
        return (zone.to_owned(), index.to_string());
    }
    let index = before.iter().filter(|zone| zone.name == name).count();
    (name.to_owned(), index.to_string())
}

impl Rapl {
    fn find_zones(&mut self) {
        self.zones.clear();
        for entry in self.folder.names() {
            let path = self.folder.path().join(entry);
            // Control types such as intel-rapl have no name and no meter.
            let Some(name) = attribute(&path.join("name")) else { continue };
            let (name, index) = named(&name, &self.zones);
            let (family, help) = if self.label {
                ("node_rapl_joules_total".into(), "Current RAPL value in joules".into())
            } else {
                let family = format!("node_rapl_{}_joules_total", metric_name(&name));
                (family, format!("Current RAPL {name} value in joules"))
            };
            let energy = KeptFile::new(path.join("energy_uj"));
            self.zones.push(Zone { name, index, path: path.display().to_string(), family, help, energy });
        }
    }
}

impl Collector for Rapl {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        if self.folder.refresh()? {
            self.find_zones();
        }
        let mut outcome = Ok(());
        for Zone { name, index, path, family, help, energy } in &mut self.zones {
            // Since 2020 the meters are root's alone, for they tell what other processes do.
            let microjoules = match energy.read() {
                Ok(bytes) => text::u64(bytes.trim_ascii()),
                Err(CollectError::NoData(_)) => None,
                Err(error) => {
                    outcome = Err(error);
                    None
                }
            };
            let Some(microjoules) = microjoules else { continue };
            let labels = [("index", index.as_str()), ("path", path), ("rapl_zone", name)];
            let labels = if self.label { &labels[..] } else { &labels[..2] };
            // The encoder's exact decimals; the counter's range ends long before a u64's does.
            let joules = Value::Nanos(microjoules.saturating_mul(1000));
            self.bag.put(family, Kind::Counter, help, labels, joules);
        }
        self.bag.write(out);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_an_index_of_their_own_or_are_counted() {
        let zone = |name: &str| Zone {
            name: name.into(),
            index: String::new(),
            path: String::new(),
            family: String::new(),
            help: String::new(),
            energy: KeptFile::new("/"),
        };
        let before = [zone("dram"), zone("dram"), zone("core")];
        assert_eq!(named("package-1", &before), ("package".into(), "1".into()));
        assert_eq!(named("dram", &before), ("dram".into(), "2".into()));
        assert_eq!(named("package-0-die-1", &before), ("package-0-die-1".into(), "0".into()));
    }
}
