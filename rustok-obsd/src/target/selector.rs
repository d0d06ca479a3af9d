//! Which processes are targets.
//!
//! Reads: what the user configured ([`Rule`]) and what `/proc` tells of a process. Yields: yes or no. Costs: some glob
//! matches per process, none per event.

use std::num::NonZeroU16;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// One entry of the configuration: all conditions that it names must hold. Several entries are alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Executable: a name (`rustok-server`), a path (`/opt/rustok/bin/server`), or a glob of either. With a `/` it is
    /// compared with the whole path, where `*` stays within a folder and `**` does not; without, with the file name.
    pub exe: Option<String>,
    /// Glob over the arguments joined by spaces, program name included: `*--config /etc/rustok/*`.
    pub cmdline: Option<String>,
    /// TCP port that the process listens on.
    pub port: Option<NonZeroU16>,
    /// Glob over the control group's path (`/system.slice/rustok.service`); `**` crosses folders.
    pub cgroup: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// Which entry of the configuration this is: an entry with alternatives is several rules.
    #[serde(skip)]
    pub entry: usize,
    /// Service name of the targets that this entry selects; else the target's own environment decides.
    pub service_name: Option<String>,
    /// Service version, likewise.
    pub service_version: Option<String>,
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Nothing to select by.
    #[error("entry {entry} selects nothing: give at least one of exe, cmdline, port, cgroup, pid")]
    Empty {
        /// Index of the entry, from 1.
        entry: usize,
    },
    /// A glob that cannot be parsed.
    #[error("entry {entry}: {key} = {glob:?} is no valid glob: {reason}")]
    Glob {
        /// Index of the entry, from 1.
        entry: usize,
        /// The key.
        key: &'static str,
        /// Its value.
        glob: String,
        /// What is wrong.
        reason: String,
    },
}

/// The compiled rules.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    rules: Vec<Compiled>,
}

#[derive(Debug, Clone)]
struct Compiled {
    exe_name: Option<GlobMatcher>,
    exe_path: Option<GlobMatcher>,
    cmdline: Option<GlobMatcher>,
    port: Option<u16>,
    cgroup: Option<GlobMatcher>,
    rule: Rule,
}

/// What rules look at. `ports` is asked only where the rest fits and a port is wanted.
pub struct Candidate<'a> {
    /// Process id.
    pub pid: u32,
    /// Path of the executable, without ` (deleted)`.
    pub exe: &'a str,
    /// Arguments, joined by spaces.
    pub cmdline: &'a str,
    /// Control group.
    pub cgroup: &'a str,
    /// Whether the process listens on the TCP port.
    pub listens_on: &'a mut dyn FnMut(u16) -> bool,
}

impl Selector {
    /// Compiles the rules; none selects nothing.
    ///
    /// # Errors
    /// [`RuleError`] naming the entry.
    pub fn new(rules: &[Rule]) -> Result<Self, RuleError> {
        let rules = rules.iter().enumerate().map(|(index, rule)| Compiled::new(index + 1, rule));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The first rule that selects the process.
    pub fn select(&self, candidate: &mut Candidate<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matches(candidate)).map(|compiled| &compiled.rule)
    }

    /// Whether a rule asks for a port: such processes become targets some time after their start, so that `/proc` has
    /// to be scanned again now and then.
    #[must_use]
    pub fn wants_ports(&self) -> bool {
        self.rules.iter().any(|rule| rule.port.is_some())
    }

    /// Whether there is no rule.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Compiled {
    fn new(entry: usize, rule: &Rule) -> Result<Self, RuleError> {
        let glob = |key, value: &Option<String>, separate| {
            let Some(glob) = value else { return Ok(None) };
            let built = GlobBuilder::new(glob).literal_separator(separate).backslash_escape(true).build();
            built.map(|built| Some(built.compile_matcher())).map_err(|error| RuleError::Glob {
                entry,
                key,
                glob: glob.clone(),
                reason: error.kind().to_string(),
            })
        };
        let exe = glob("exe", &rule.exe, true)?;
        let whole = rule.exe.as_deref().is_some_and(|exe| exe.contains('/'));
        let (exe_path, exe_name) = if whole { (exe, None) } else { (None, exe) };
        let cmdline = glob("cmdline", &rule.cmdline, false)?;
        let cgroup = glob("cgroup", &rule.cgroup, true)?;
        let port = rule.port.map(NonZeroU16::get);
        if exe_path.is_none()
            && exe_name.is_none()
            && cmdline.is_none()
            && cgroup.is_none()
            && port.is_none()
            && rule.pid.is_none()
        {
            return Err(RuleError::Empty { entry });
        }
        Ok(Self { exe_name, exe_path, cmdline, port, cgroup, rule: rule.clone() })
    }

    fn matches(&self, candidate: &mut Candidate<'_>) -> bool {
        let fits = |glob: &Option<GlobMatcher>, text: &str| glob.as_ref().is_none_or(|glob| glob.is_match(text));
        let name = candidate.exe.rsplit('/').next().unwrap_or_default();
        self.rule.pid.is_none_or(|pid| pid == candidate.pid)
            && fits(&self.exe_name, name)
            && fits(&self.exe_path, candidate.exe)
            && fits(&self.cmdline, candidate.cmdline)
            && fits(&self.cgroup, candidate.cgroup)
            && self.port.is_none_or(|port| (candidate.listens_on)(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(rules: &[Rule], exe: &str, cmdline: &str, cgroup: &str, ports: &[u16]) -> bool {
        let mut listens_on = |port| ports.contains(&port);
        let mut candidate = Candidate { pid: 42, exe, cmdline, cgroup, listens_on: &mut listens_on };
        Selector::new(rules).unwrap().select(&mut candidate).is_some()
    }

    fn exe(exe: &str) -> [Rule; 1] {
        [Rule { exe: Some(exe.to_owned()), ..Rule::default() }]
    }

    #[test]
    fn an_executable_is_selected_by_name_path_or_glob() {
        let path = "/opt/rustok/bin/rustok-server";
        for wanted in
            ["rustok-server", "rustok-*", path, "/opt/*/bin/rustok-server", "/opt/**", "rustok-{server,worker}"]
        {
            assert!(selects(&exe(wanted), path, "", "", &[]), "{wanted}");
        }
        for other in ["rustok", "/opt/rustok-server", "/opt/*/rustok-server", "Rustok-server", "bin/rustok-server"] {
            assert!(!selects(&exe(other), path, "", "", &[]), "{other}");
        }
    }

    #[test]
    fn conditions_of_an_entry_all_hold_and_entries_are_alternatives() {
        let both = Rule { port: NonZeroU16::new(80), ..exe("a")[0].clone() };
        let rules = [both, Rule { cgroup: Some("/system.slice/*.service".into()), ..Rule::default() }];
        assert!(selects(&rules, "/bin/a", "", "/x", &[80]));
        assert!(!selects(&rules, "/bin/a", "", "/x", &[81]));
        assert!(!selects(&rules, "/bin/b", "", "/x", &[80]));
        assert!(selects(&rules, "/bin/b", "", "/system.slice/b.service", &[]));
        assert!(!selects(&rules, "/bin/b", "", "/system.slice/deep/b.service", &[]));
        let cmdline = [Rule { cmdline: Some("*--config /etc/*".into()), ..Rule::default() }];
        assert!(selects(&cmdline, "/bin/a", "a --config /etc/x/y.toml", "", &[]));
    }

    #[test]
    fn a_process_is_selected_by_its_id() {
        let pid = |pid| [Rule { pid: Some(pid), ..Rule::default() }];
        assert!(selects(&pid(42), "/bin/a", "", "", &[]));
        assert!(!selects(&pid(43), "/bin/a", "", "", &[]));
    }

    #[test]
    fn rules_that_cannot_work_are_errors_that_name_the_entry() {
        let error = Selector::new(&[exe("a")[0].clone(), Rule::default()]).unwrap_err();
        assert_eq!(error.to_string(), "entry 2 selects nothing: give at least one of exe, cmdline, port, cgroup, pid");
        let error = Selector::new(&exe("a[")).unwrap_err();
        assert!(error.to_string().starts_with("entry 1: exe = \"a[\" is no valid glob:"), "{error}");
    }
}
