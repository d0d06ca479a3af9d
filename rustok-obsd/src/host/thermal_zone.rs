//! Temperatures and cooling devices of the kernel's thermal framework.
//!
//! Reads: `/sys/class/thermal/{thermal_zone,cooling_device}*` (drivers/thermal/thermal_sysfs.c). Yields: `node_thermal_zone_temp`,
//! `node_cooling_device_{cur,max}_state`. Costs: one file per zone and cooling device; a zone may ask its firmware, so it blocks.

use super::folder::{Folder, numbered};
use super::{CollectError, Collector, Context, Settings, attribute, family::gauge};
use crate::contract::Family;
use crate::exposition::Encoder;

const TEMPERATURE: Family<'static> = gauge("node_thermal_zone_temp", &["zone", "type"], "Zone temperature in Celsius");
const CURRENT: Family<'static> =
    gauge("node_cooling_device_cur_state", &["name", "type"], "Current throttle state of the cooling device");
const MOST: Family<'static> =
    gauge("node_cooling_device_max_state", &["name", "type"], "Maximum throttle state of the cooling device");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[TEMPERATURE, CURRENT, MOST];

struct Thermal(Folder);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Thermal(Folder::new(settings.sysfs("class/thermal"))))
}

impl Thermal {
    fn write(
        &mut self,
        family: &Family<'_>,
        prefix: &str,
        out: &mut Encoder<'_>,
        value: impl Fn(&mut Folder, &str) -> Option<f64>,
    ) {
        let names = self.0.names().to_vec();
        let mut samples = out.family(family);
        for name in &names {
            let Some(number) = numbered(name, prefix) else { continue };
            // A zone that is switched off or busy refuses to tell (ENODATA, EAGAIN).
            if let Some(value) = value(&mut self.0, name) {
                let kind = self.0.fixed(&format!("{name}/type")).unwrap_or_default();
                samples.put([number, kind], value);
            }
        }
    }
}

impl Collector for Thermal {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.0.refresh_if_there()?;
        let now = |folder: &Folder, name: &str, file: &str| -> Option<f64> {
            attribute(&folder.path().join(name).join(file))?.parse().ok()
        };
        self.write(&TEMPERATURE, "thermal_zone", out, |folder, name| Some(now(folder, name, "temp")? / 1000.0));
        self.write(&CURRENT, "cooling_device", out, |folder, name| now(folder, name, "cur_state"));
        self.write(&MOST, "cooling_device", out, |folder, name| {
            folder.fixed(&format!("{name}/max_state"))?.parse().ok()
        });
        Ok(())
    }
}
