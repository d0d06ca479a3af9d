//! Gives up, once at start, what an observer never needs.
//!
//! Reads: the configuration, the process' capabilities. Yields: a process with fewer rights, and [`Confinement`]: what was
//! applied, and what was not and why. Costs: some milliseconds at start; a system call whose arguments are looked at (opening
//! a file, a socket) takes some hundred nanoseconds more, the others do not.
//!
//! Two steps, since a thread inherits the rights of the one that starts it:
//! 1. [`Confinement::privileges`], before there is a second thread: capabilities beyond those of the systemd unit, and
//!    new privileges.
//! 2. [`Confinement::system_calls`], once the daemon serves: a filter for all threads, those that run included.
//!
//! Targets' memory is read by processes of their own ([`crate::target::memory_helper`]), which are made by one that is
//! started between the two steps. They are confined further, by [`helpers`].
//!
//! Landlock is left out, see [`LANDLOCK`]. A measure that the kernel refuses is reported and costs nothing else.

mod capabilities;
mod system_calls;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::{
    config::Config,
    contract::liveness::CONFINEMENT,
    exposition::{Collect, Encoder},
};

pub use capabilities::{NEEDED, Needed, with_ptrace};
pub use system_calls::names as system_call_names;

/// Why there is no Landlock domain around the daemon: a process in a domain may not look into one outside of it
/// (`hook_ptrace_access_check` of security/landlock, for reading as well, whatever its capabilities), and that is what
/// the daemon is for. `tests/landlock.rs` shows it.
const LANDLOCK: &str = "a Landlock domain forbids to read processes outside of it (/proc/PID/exe, root, io, process_vm_readv): nothing could be observed";

/// What became of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in force.
    Applied,
    /// A part of it is.
    Partial,
    /// The kernel refused it.
    Refused,
    /// The configuration says no.
    Off,
    /// It would forbid what the daemon is for.
    Unsuitable,
}

impl State {
    const ALL: [Self; 5] = [Self::Applied, Self::Partial, Self::Refused, Self::Off, Self::Unsuitable];

    const fn text(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Off => "off",
            Self::Unsuitable => "unsuitable",
        }
    }
}

/// One measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Its name in `/status` and the metrics.
    pub name: &'static str,
    /// What became of it.
    pub state: State,
    /// What is in force, and why the rest is not.
    pub detail: String,
}

impl Measure {
    /// One that the configuration leaves out.
    #[must_use]
    pub fn off(name: &'static str) -> Self {
        Self { name, state: State::Off, detail: "security.confine = false".into() }
    }
}

/// The measure that [`helpers`] takes.
pub const HELPERS: &str = "memory_helpers";
const NAMES: [&str; 5] = ["capabilities", "no_new_privileges", "system_calls", HELPERS, "landlock"];

/// The measures. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Confinement(Arc<Mutex<Vec<Measure>>>);

impl Confinement {
    /// The first step. Call it before any thread is started.
    #[must_use]
    pub fn privileges(config: &Config) -> Self {
        let confinement = Self::default();
        if config.security.confine {
            confinement.note(capabilities::limit(config));
            confinement.note(no_new_privileges());
            let detail = LANDLOCK.to_owned();
            confinement.note(Measure { name: "landlock", state: State::Unsuitable, detail });
        } else {
            for name in NAMES {
                confinement.note(Measure::off(name));
            }
        }
        confinement
    }

    /// The second step. Call it once everything is loaded and bound; uprobes can still be attached.
    pub fn system_calls(&self, config: &Config) {
        if config.security.confine {
            self.note(system_calls::limit());
        }
    }

    /// Between the two: how the processes that read targets' memory are confined; `None` where there are none.
    pub fn helpers(&self, config: &Config, measure: Option<Measure>) {
        if config.security.confine {
            let detail = "the process that starts them is not there".into();
            self.note(measure.unwrap_or(Measure { name: HELPERS, state: State::Refused, detail }));
        }
    }

    /// The measures so far.
    #[must_use]
    pub fn measures(&self) -> Vec<Measure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For `/status`.
    #[must_use]
    pub fn status(&self) -> Value {
        let entry = |Measure { name, state, detail }: Measure| {
            (name.to_owned(), json!({ "state": state.text(), "detail": detail }))
        };
        Value::Object(self.measures().into_iter().map(entry).collect::<Map<_, _>>())
    }

    fn note(&self, measure: Measure) {
        let Measure { name, state, detail } = &measure;
        match state {
            State::Refused | State::Partial => tracing::warn!("confinement: {name} {}: {detail}", state.text()),
            _ => tracing::info!("confinement: {name} {}: {detail}", state.text()),
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(measure);
    }
}

impl Collect for Confinement {
    fn collect(&self, out: &mut Encoder<'_>) {
        let measures = self.measures();
        let mut samples = out.family(&CONFINEMENT);
        for measure in &measures {
            for state in State::ALL {
                samples.put([measure.name, state.text()], u64::from(state == measure.state));
            }
        }
    }
}

/// Confines the calling thread and what it starts to reading memory for the daemon: CAP_SYS_PTRACE alone where it is
/// held, and some forty system calls, fork(2) among them. Yields what was refused and why, empty where nothing was:
/// [`helpers_said`] makes a measure of it in the daemon.
pub fn helpers() -> String {
    let capabilities = capabilities::limit_helpers().err().map(|error| format!("capabilities: {error}"));
    let privileges = Some(no_new_privileges()).filter(|measure| measure.state != State::Applied);
    let privileges = privileges.map(|Measure { name, detail, .. }| format!("{name}: {detail}"));
    let calls = system_calls::limit_helpers().err().map(|error| format!("system_calls: {error}"));
    [capabilities, privileges, calls].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What the processes that read targets' memory said of [`helpers`].
#[must_use]
pub fn helpers_said(refused: &str) -> Measure {
    let (state, detail) = match refused {
        "" => (State::Applied, "capabilities, no_new_privileges and system_calls of their own".to_owned()),
        _ => (State::Partial, format!("in force but for {refused}")),
    };
    Measure { name: HELPERS, state, detail }
}

/// Whatever the process executes gains no rights by it. It executes itself once, and then the filter forbids it; this is what lets
/// a process without CAP_SYS_ADMIN install the filter.
fn no_new_privileges() -> Measure {
    // SAFETY: takes numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let (state, detail) = match result {
        0 => (State::Applied, "for all threads".to_owned()),
        _ => (State::Refused, std::io::Error::last_os_error().to_string()),
    };
    Measure { name: "no_new_privileges", state, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_that_are_not_confined_or_not_there_are_reported() {
        let confinement = Confinement::default();
        let state = |measure: Option<Measure>| {
            confinement.helpers(&Config::default(), measure);
            confinement.measures().pop().unwrap()
        };
        assert_eq!(state(Some(helpers_said(""))).state, State::Applied);
        let partial = state(Some(helpers_said("system_calls: no")));
        assert!(partial.state == State::Partial && partial.detail.ends_with("system_calls: no"), "{partial:?}");
        assert_eq!((state(None).name, state(None).state), (HELPERS, State::Refused));
    }

    #[test]
    fn one_key_switches_all_measures_off_and_each_says_so() {
        let mut config = Config::default();
        config.security.confine = false;
        let confinement = Confinement::privileges(&config);
        confinement.helpers(&config, Some(Measure::off(HELPERS)));
        confinement.system_calls(&config);
        let status = confinement.status();
        for name in NAMES {
            assert_eq!(status[name], json!({ "state": "off", "detail": "security.confine = false" }), "{name}");
        }
        let text = crate::exposition::to_text(&confinement, crate::exposition::Format::Text);
        assert!(text.contains("rustok_obsd_confinement{measure=\"landlock\",state=\"off\"} 1"), "{text}");
    }
}
