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
    /// User that the process runs as.
    #[serde(skip)]
    pub user: Option<u32>,
    /// Users whose executables get uprobes for this entry ([`super::trust`]).
    #[serde(skip)]
    pub trusted_owners: Vec<u32>,
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
    #[error("entry {entry} selects nothing: give at least one of exe, cmdline, port, cgroup, pid, user")]
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
    /// User that it runs as.
    pub user: u32,
    /// It is in another user namespace than the daemon: whoever made that one could give any file any path in it. Then a
    /// rule without cgroup, pid and user holds only where `same_file` does.
    pub foreign: bool,
    /// Whether the daemon finds the same file by the executable's path.
    pub same_file: &'a mut dyn FnMut() -> bool,
    /// Whether the process listens on the TCP port.
    pub listens_on: &'a mut dyn FnMut(u16) -> bool,
}

/// What is known of a process without reading anything that the process could keep from being read.
#[derive(Debug, Clone, Copy)]
pub struct Glance<'a> {
    /// Process id.
    pub pid: u32,
    /// Path of the executable, without ` (deleted)`.
    pub exe: &'a str,
    /// Control group.
    pub cgroup: &'a str,
    /// User that it runs as.
    pub user: u32,
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

    /// Whether a rule may select the process, once more is known of it.
    #[must_use]
    pub fn may_select(&self, glance: &Glance<'_>) -> bool {
        self.rules.iter().any(|rule| rule.may_match(glance))
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
            && rule.user.is_none()
        {
            return Err(RuleError::Empty { entry });
        }
        Ok(Self { exe_name, exe_path, cmdline, port, cgroup, rule: rule.clone() })
    }

    fn may_match(&self, glance: &Glance<'_>) -> bool {
        let fits = |glob: &Option<GlobMatcher>, text: &str| glob.as_ref().is_none_or(|glob| glob.is_match(text));
        let name = glance.exe.rsplit('/').next().unwrap_or_default();
        self.rule.pid.is_none_or(|pid| pid == glance.pid)
            && self.rule.user.is_none_or(|user| user == glance.user)
            && fits(&self.exe_name, name)
            && fits(&self.exe_path, glance.exe)
            && fits(&self.cgroup, glance.cgroup)
    }

    fn matches(&self, candidate: &mut Candidate<'_>) -> bool {
        let Candidate { pid, exe, cmdline, cgroup, user, foreign, .. } = *candidate;
        let known_here = !foreign || self.cgroup.is_some() || self.rule.pid.is_some() || self.rule.user.is_some();
        self.may_match(&Glance { pid, exe, cgroup, user })
            && self.cmdline.as_ref().is_none_or(|glob| glob.is_match(cmdline))
            && (known_here || (candidate.same_file)())
            && self.port.is_none_or(|port| (candidate.listens_on)(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(rules: &[Rule], exe: &str, cmdline: &str, cgroup: &str, ports: &[u16]) -> bool {
        let mut listens_on = |port| ports.contains(&port);
        let mut same_file = || unreachable!("the process is in the daemon's user namespace");
        let (foreign, same_file, listens_on) = (false, &mut same_file, &mut listens_on);
        let mut candidate = Candidate { pid: 42, exe, cmdline, cgroup, user: 1000, foreign, same_file, listens_on };
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
    fn a_process_is_selected_by_its_user() {
        let user = |user| [Rule { user: Some(user), ..exe("a")[0].clone() }];
        assert!(selects(&user(1000), "/bin/a", "", "", &[]));
        assert!(!selects(&user(1001), "/bin/a", "", "", &[]));
    }

    #[test]
    fn what_a_process_in_a_namespace_of_its_own_says_selects_it_only_where_the_daemon_sees_the_same() {
        let selects = |rule: &Rule, same: bool| {
            let (mut same_file, mut listens_on) = (|| same, |_| true);
            let (same_file, listens_on) = (&mut same_file, &mut listens_on);
            let exe = "/opt/app/bin/server";
            let cgroup = "/user.slice/user-1000.slice/a.scope";
            let mut candidate = Candidate {
                pid: 42,
                exe,
                cmdline: "server --prod",
                cgroup,
                user: 1000,
                foreign: true,
                same_file,
                listens_on,
            };
            Selector::new(std::slice::from_ref(rule)).unwrap().select(&mut candidate).is_some()
        };
        let path = exe("/opt/app/bin/server")[0].clone();
        let said = [
            path.clone(),
            exe("server")[0].clone(),
            Rule { cmdline: Some("server*".into()), ..Rule::default() },
            Rule { port: NonZeroU16::new(80), ..Rule::default() },
        ];
        for rule in said {
            assert!(!selects(&rule, false), "{rule:?}");
            assert!(selects(&rule, true), "{rule:?}");
        }
        let seen = [
            Rule { cgroup: Some("/user.slice/**".into()), ..path.clone() },
            Rule { pid: Some(42), ..path.clone() },
            Rule { user: Some(1000), ..path },
        ];
        for rule in seen {
            assert!(selects(&rule, false), "{rule:?}");
        }
    }

    #[test]
    fn rules_that_cannot_work_are_errors_that_name_the_entry() {
        let error = Selector::new(&[exe("a")[0].clone(), Rule::default()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry 2 selects nothing: give at least one of exe, cmdline, port, cgroup, pid, user"
        );
        let error = Selector::new(&exe("a[")).unwrap_err();
        assert!(error.to_string().starts_with("entry 1: exe = \"a[\" is no valid glob:"), "{error}");
    }
}
