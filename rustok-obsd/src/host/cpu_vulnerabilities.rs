//! Known weaknesses of the CPU and what the kernel does about them.
//!
//! Reads: `/sys/devices/system/cpu/vulnerabilities` (Documentation/admin-guide/hw-vuln). Yields:
//! `node_cpu_vulnerabilities_info`. Costs: a folder of some 20 small files; allocates, off by default.

use super::family::gauge;
use super::{CollectError, Collector, Context, Settings, attribute};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::fs;
use std::path::PathBuf;

/// Its family.
pub const FAMILIES: &[Family<'static>] = &[gauge(
    "node_cpu_vulnerabilities_info",
    &["codename", "state", "mitigation"],
    "Details of each CPU vulnerability reported by sysfs. The value of the series is an int encoded state of the vulnerability. The same state is stored as a string in the label",
)];

struct Vulnerabilities(PathBuf);

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Vulnerabilities(settings.sysfs("devices/system/cpu/vulnerabilities")))
}

/// State and mitigation.
fn state(text: &str) -> (&'static str, &str) {
    let after = |rest: &'_ str| rest.trim_start_matches([':', ' ', ',', ';']).len();
    let is = |state: &str| text.strip_prefix(state).map(|rest| &text[text.len() - after(rest)..]);
    if text == "Not affected" {
        ("not affected", "")
    } else if let Some(mitigation) = is("Vulnerable") {
        ("vulnerable", mitigation)
    } else if let Some(mitigation) = is("Mitigation") {
        ("mitigation", mitigation)
    } else {
        ("unknown", "")
    }
}

impl Collector for Vulnerabilities {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let entries = fs::read_dir(&self.0).map_err(|error| CollectError::read(&self.0, error))?;
        let mut samples = out.family(&FAMILIES[0]);
        for path in entries.flatten().map(|entry| entry.path()) {
            let (Some(name), Some(text)) = (path.file_name().and_then(|name| name.to_str()), attribute(&path)) else {
                continue;
            };
            let (state, mitigation) = state(&text);
            samples.put([name, state, mitigation], 1u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn states_are_understood() {
        use super::state;
        assert_eq!(state("Not affected"), ("not affected", ""));
        assert_eq!(state("Vulnerable: No microcode"), ("vulnerable", "No microcode"));
        assert_eq!(state("Mitigation: PTE Inversion; VMX: off"), ("mitigation", "PTE Inversion; VMX: off"));
        assert_eq!(state("KVM: Mitigation: VMX disabled"), ("unknown", ""));
    }
}
