//! SELinux.
//!
//! Reads: `fs/selinux/enforce` and `/etc/selinux/config` below `path.rootfs`. Yields: `node_selinux_*`. Costs: one failed
//! open where it is off; two small files where it is on.

use super::{CollectError, Collector, Context, KeptFile, Settings, family::gauge, text};
use crate::contract::Family;
use crate::exposition::Encoder;
use crate::target::inside;
use std::path::{Path, PathBuf};

const ENABLED: Family<'static> = gauge("node_selinux_enabled", &[], "SELinux is enabled, 1 is true, 0 is false");
const CONFIG_MODE: Family<'static> = gauge("node_selinux_config_mode", &[], "Configured SELinux enforcement mode");
const CURRENT_MODE: Family<'static> = gauge("node_selinux_current_mode", &[], "Current SELinux enforcement mode");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[ENABLED, CONFIG_MODE, CURRENT_MODE];

/// Below `path.rootfs`, and bytes of it.
const CONFIG: &str = "etc/selinux/config";
const MOST: u64 = 64 << 10;

struct Selinux {
    enforce: KeptFile,
    rootfs: PathBuf,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let (enforce, rootfs) = (settings.sysfs("fs/selinux/enforce"), settings.paths.rootfs.clone());
    Box::new(Selinux { enforce: KeptFile::new(enforce), rootfs })
}

impl Collector for Selinux {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let current = match self.enforce.read() {
            Ok(text) => text::i64(text.trim_ascii()).unwrap_or(-1),
            Err(CollectError::NoData(_)) => {
                out.family(&ENABLED).put([], 0u64);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        out.family(&ENABLED).put([], 1u64);
        let configured = match inside::read_below(&self.rootfs, Path::new(CONFIG), MOST) {
            Ok(config) => mode(&config),
            Err(_) => DISABLED,
        };
        out.family(&CONFIG_MODE).put([], configured);
        out.family(&CURRENT_MODE).put([], current);
        Ok(())
    }
}

const DISABLED: i64 = -1;

/// `SELINUX=enforcing`, the last of them.
fn mode(config: &[u8]) -> i64 {
    let values = text::lines(config).filter_map(|line| line.trim_ascii().strip_prefix(b"SELINUX="));
    match values.last().map(<[u8]>::trim_ascii) {
        Some(b"enforcing") => 1,
        Some(b"permissive") => 0,
        _ => DISABLED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_mode_is_that_of_the_file() {
        assert_eq!(mode(b"# SELINUX=permissive\nSELINUXTYPE=targeted\n SELINUX=enforcing \n"), 1);
        assert_eq!((mode(b"SELINUX=permissive\n"), mode(b"SELINUX=disabled"), mode(b"")), (0, -1, -1));
    }
}
