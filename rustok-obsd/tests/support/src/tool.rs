//! Programs that no distribution has at the version that the tests want, and where they are looked for.
//!
//! Reads: the environment, `PATH`, the cache folder in which `cargo xtask setup --tests` leaves what it built. Yields:
//! a path, or what is missing and what brings it. Costs: a few `stat` calls.

use std::path::{Path, PathBuf};

use crate::{Skip, find_on_path};

/// One such program.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// File name.
    pub name: &'static str,
    /// The environment variable that names one to use as it is.
    pub variable: &'static str,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a [`Tool`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Built by `cargo xtask setup --tests` at this version; one in `PATH` does, too.
    BuiltOrPath(&'static str),
    /// Built by `cargo xtask setup --tests`: tests hold their subject to this very version.
    Built(&'static str),
    /// Only given by hand.
    Given,
}

/// Traces in, traces out; its `cmd/jaeger` is Jaeger 2.
pub const JAEGER: Tool =
    Tool { name: "jaeger", variable: "RUSTOK_OBSD_JAEGER", origin: Origin::BuiltOrPath("v1.76.0") };
/// The host's metrics as Prometheus' own exporter has them.
pub const NODE_EXPORTER: Tool =
    Tool { name: "node_exporter", variable: "RUSTOK_OBSD_NODE_EXPORTER", origin: Origin::Built("v1.12.1") };
/// Speaks a container runtime's API (CRI) as a kubelet does.
pub const CRICTL: Tool =
    Tool { name: "crictl", variable: "RUSTOK_OBSD_CRICTL", origin: Origin::BuiltOrPath("v1.34.0") };
/// Metrics of groups of processes.
pub const PROCESS_EXPORTER: Tool =
    Tool { name: "process-exporter", variable: "RUSTOK_OBSD_PROCESS_EXPORTER", origin: Origin::Given };
/// Metrics of containers.
pub const CADVISOR: Tool = Tool { name: "cadvisor", variable: "RUSTOK_OBSD_CADVISOR", origin: Origin::Given };

impl Tool {
    /// Its path.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing and what brings it.
    pub fn find(&self) -> Result<PathBuf, Skip> {
        let Self { name, variable, origin } = self;
        self.lookup()?.ok_or_else(|| match origin {
            Origin::Given => Skip::new(format!("{variable} is not set: install {name} and name its program there")),
            Origin::Built(version) | Origin::BuiltOrPath(version) => Skip::new(format!(
                "{name} {version} is missing: `cargo xtask setup --tests` builds it, or name one in {variable}"
            )),
        })
    }

    /// Its path, `None` where there is none.
    ///
    /// # Errors
    /// The variable names no program.
    pub fn lookup(&self) -> Result<Option<PathBuf>, Skip> {
        let Self { name, variable, origin } = self;
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) {
            if !is_executable(&path) {
                let path = path.display();
                return Err(Skip::new(format!(
                    "{variable} names {path}, which is no executable file; unset it, or name a {name}"
                )));
            }
            return Ok(Some(path));
        }
        let in_path = matches!(origin, Origin::BuiltOrPath(_)).then(|| find_on_path(name)).flatten();
        Ok(in_path.or_else(|| self.cached()).filter(|path| is_executable(path)))
    }

    /// Where its build is kept.
    #[must_use]
    pub fn cached(&self) -> Option<PathBuf> {
        match self.origin {
            Origin::Given => None,
            Origin::Built(version) | Origin::BuiltOrPath(version) => {
                Some(cache_folder()?.join(format!("{}-{version}", self.name)))
            }
        }
    }
}

/// The user's cache folder for what is too dear to make twice: `$XDG_CACHE_HOME/rustok-obsd`. `None` where neither
/// that nor `HOME` is set.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    // The XDG specification: a relative path is to be ignored.
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(base.or_else(|| Some(std::env::home_dir()?.join(".cache")))?.join("rustok-obsd"))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_brings_it() {
        let given = Tool { name: "no-such-peer", variable: "RUSTOK_OBSD_NO_SUCH_PEER", origin: Origin::Given };
        let said = given.find().expect_err("absent").to_string();
        assert!(said.contains("no-such-peer") && said.contains("RUSTOK_OBSD_NO_SUCH_PEER"), "{said}");
        let built = Tool { origin: Origin::Built("v9.9"), ..given };
        let said = built.find().expect_err("absent").to_string();
        assert!(said.contains("no-such-peer v9.9") && said.contains("setup --tests"), "{said}");
        assert!(built.cached().is_none_or(|path| path.ends_with("rustok-obsd/no-such-peer-v9.9")));
    }
}
