//! NVMe subsystems and the paths to them.
//!
//! Reads: `/sys/class/nvme-subsystem/*` (drivers/nvme/host/multipath.c). Yields: `node_nvmesubsystem_*`. Costs: a folder per
//! subsystem, the state of each path; identity once.

use super::folder::{Folder, names, numbered};
use super::{Bag, CollectError, Collector, Context, Settings, attribute, family::gauge};
use crate::contract::Family;
use crate::exposition::Encoder;

const INFO: Family<'static> = gauge(
    "node_nvmesubsystem_info",
    &["subsystem", "nqn", "model", "serial", "iopolicy"],
    "Non-numeric information about an NVMe subsystem.",
);
const NAMESPACE: Family<'static> = gauge(
    "node_nvmesubsystem_namespace_info",
    &["subsystem", "device"],
    "Maps an NVMe namespace block device to its subsystem.",
);
const PATHS: Family<'static> =
    gauge("node_nvmesubsystem_paths", &["subsystem"], "Number of controller paths for an NVMe subsystem.");
const LIVE: Family<'static> = gauge(
    "node_nvmesubsystem_paths_live",
    &["subsystem"],
    "Number of controller paths in live state for an NVMe subsystem.",
);
const STATE: Family<'static> = gauge(
    "node_nvmesubsystem_path_state",
    &["subsystem", "controller", "transport", "state"],
    "Current NVMe controller path state (1 for the current state, 0 for all others).",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[INFO, NAMESPACE, PATHS, LIVE, STATE];

/// States that are told; of a path in passing (`new`, `deleting`) all are 0.
const STATES: [&str; 5] = ["live", "connecting", "resetting", "dead", "unknown"];
const PASSING: [&str; 3] = ["new", "deleting", "deleting (no IO)"];

struct Subsystems {
    folder: Folder,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Subsystems { folder: Folder::new(settings.sysfs("class/nvme-subsystem")), bag: Bag::default() })
}

/// Whether this is a namespace as a block device: `nvme0n1`, not a path to it (`nvme0c1n1`).
fn is_namespace(name: &str) -> bool {
    let parts = name.strip_prefix("nvme").and_then(|rest| rest.split_once('n'));
    parts.is_some_and(|(subsystem, id)| numbered(subsystem, "").is_some() && numbered(id, "").is_some())
}

impl Collector for Subsystems {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for subsystem in self.folder.names().to_vec() {
            if numbered(&subsystem, "nvme-subsys").is_none() {
                continue;
            }
            let mut fixed =
                |file: &str| self.folder.fixed(&format!("{subsystem}/{file}")).unwrap_or_default().to_owned();
            let [nqn, model, serial] = ["subsysnqn", "model", "serial"].map(&mut fixed);
            let folder = self.folder.path().join(&subsystem);
            let policy = attribute(&folder.join("iopolicy")).unwrap_or_default();
            self.bag.add(&INFO, &[&subsystem, &nqn, &model, &serial, &policy], 1u64);
            let (mut paths, mut live) = (0u64, 0u64);
            for entry in names(&folder).unwrap_or_default() {
                if is_namespace(&entry) {
                    self.bag.add(&NAMESPACE, &[&subsystem, &entry], 1u64);
                }
                if numbered(&entry, "nvme").is_none() {
                    continue;
                }
                let state = attribute(&folder.join(&entry).join("state")).unwrap_or_default();
                let transport = attribute(&folder.join(&entry).join("transport")).unwrap_or_default();
                let known = STATES.contains(&state.as_str()) || PASSING.contains(&state.as_str());
                let state = if known { state.as_str() } else { "unknown" };
                (paths, live) = (paths + 1, live + u64::from(state == "live"));
                for one in STATES {
                    self.bag.add(&STATE, &[&subsystem, &entry, &transport, one], u64::from(state == one));
                }
            }
            self.bag.add(&PATHS, &[&subsystem], paths);
            self.bag.add(&LIVE, &[&subsystem], live);
        }
        self.bag.write(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;
    use std::fs;

    #[test]
    fn paths_are_counted_by_state() {
        let tree = Tree::new("nvmesubsystem", |_| {});
        let subsystem = "sys/class/nvme-subsystem/nvme-subsys0";
        for (path, state) in [("nvme0", "live"), ("nvme1", "dead"), ("nvme2", "deleting"), ("nvme3", "odd")] {
            tree.write(&format!("{subsystem}/{path}/state"), state);
            tree.write(&format!("{subsystem}/{path}/transport"), "fc");
        }
        tree.write(&format!("{subsystem}/subsysnqn"), "nqn.x");
        fs::create_dir(tree.path(&format!("{subsystem}/nvme0n1"))).unwrap();
        let text = tree.text();
        let state = |path: &str, state: &str, value: u8| {
            let labels = format!("subsystem=\"nvme-subsys0\",controller=\"{path}\",transport=\"fc\",state=\"{state}\"");
            let line = format!("node_nvmesubsystem_path_state{{{labels}}} {value}\n");
            assert!(text.contains(&line), "{line} in {text}");
        };
        state("nvme0", "live", 1);
        state("nvme1", "dead", 1);
        state("nvme2", "unknown", 0);
        state("nvme3", "unknown", 1);
        for line in [
            "node_nvmesubsystem_namespace_info{subsystem=\"nvme-subsys0\",device=\"nvme0n1\"} 1",
            "node_nvmesubsystem_paths{subsystem=\"nvme-subsys0\"} 4",
            "node_nvmesubsystem_paths_live{subsystem=\"nvme-subsys0\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(is_namespace("nvme12n3") && !is_namespace("nvme0c1n1") && !is_namespace("nvme0"));
    }
}
