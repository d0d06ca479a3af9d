//! Packages of Debian and Ubuntu, installed without starting a service or creating a database cluster.
//!
//! Reads: apt's and dpkg's state. Yields: installed packages. Costs: a few minutes where the lot is missing, 0.1 s where
//! nothing is.
//!
//! The packages `postgresql`, `prometheus`, `containerd` and `docker.io` start a server when they are installed, and at each boot. A build tool has
//! no business doing that, hence for the time of the installation and for packages that we bring only:
//! - `/usr/sbin/policy-rc.d`, Debian's interface for it (`man invoke-rc.d`), says no for these services. Ours stops
//!   saying no when this process is gone, should it be killed; one that is already there stays as it is.
//! - a drop-in of `createcluster.conf` (`man pg_createcluster`) keeps the package from creating a cluster.
//! - afterwards `systemctl disable` for the units of the others, only if this run installed them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::{find_program, output_of, run};

const POLICY: &str = "/usr/sbin/policy-rc.d";
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/rustok-obsd-setup.conf";
/// Packages whose units would start at the next boot.
const UNITS: [(&str, &[&str]); 3] = [
    ("prometheus", &["prometheus.service"]),
    ("containerd", &["containerd.service"]),
    ("docker.io", &["docker.service", "docker.socket"]),
];
/// How our files are told from others' ones.
const MARK: &str = "# Written by `cargo xtask setup` of rustok-obsd for the time of an installation.";

/// Whether this machine has apt.
pub fn present() -> bool {
    Path::new("/etc/debian_version").exists() && find_program("apt-get").is_some()
}

/// Whether we may install.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The package's installed version.
pub fn installed(package: &str) -> Option<String> {
    let said = output_of(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Abbrev}${Version}", package])).ok()?;
    Some(said.strip_prefix("ii ")?.trim().to_owned())
}

/// Whether the archive offers the package.
pub fn offered(package: &str) -> bool {
    output_of(Command::new("apt-cache").args(["policy", package])).is_ok_and(|said| candidate(&said).is_some())
}

fn candidate(policy: &str) -> Option<&str> {
    policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).filter(|version| *version != "(none)")
}

/// Fetches the lists of what the archive offers.
pub fn update() -> Result<()> {
    println!("setup: apt-get update");
    run(Command::new("apt-get").args(["update", "-qq"]))
}

/// The command that installs them, as root.
pub fn install_command(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // --no-remove, --no-upgrade: what the user has stays as it is; where that conflicts, the error says so.
    command.args(["install", "-y", "-qq", "--no-install-recommends", "--no-remove", "--no-upgrade"]).args(packages);
    command
}

/// Installs packages that are missing.
pub fn install(packages: &[&str]) -> Result<()> {
    // One may come as what another depends on.
    let fresh: Vec<_> = UNITS.iter().filter(|(package, _)| installed(package).is_none()).collect();
    let policy = Temporary::policy()?;
    let no_cluster = packages.contains(&"postgresql").then(Temporary::no_cluster).transpose()?;
    let result = run(&mut install_command(packages));
    drop((policy, no_cluster));
    for (package, units) in fresh {
        if installed(package).is_some() && find_program("systemctl").is_some() {
            // Removes the links that start it at boot. A systemd that does not run cannot stop anything, and says so.
            let running = Path::new("/run/systemd/system").exists();
            run(Command::new("systemctl").args(["disable", "--quiet"]).args(running.then_some("--now")).args(*units))
                .with_context(|| format!("{package} is installed, but would start at the next boot"))?;
        }
    }
    result
}

/// Says no (101) to whatever would start one of these services, as long as the process `pid` is there.
fn policy(pid: u32) -> String {
    format!(
        "#!/bin/sh\n{MARK}\n# None of these services is started while that command runs.\n\
         [ -e /proc/{pid} ] || exit 0\ncase \"$*\" in *postgresql*|*prometheus*|*containerd*|*docker*) exit 101 ;; esac\n\
         exit 0\n"
    )
}

/// A file (and the folders made for it) that goes when this is dropped.
struct Temporary {
    file: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Temporary {
    fn policy() -> Result<Self> {
        Self::create(Path::new(POLICY), &policy(std::process::id()), 0o755)
    }

    fn no_cluster() -> Result<Self> {
        Self::create(Path::new(NO_CLUSTER), &format!("{MARK}\ncreate_main_cluster = false\n"), 0o644)
    }

    /// Leaves a file of somebody else alone, and takes over one that an earlier run of ours left.
    fn create(path: &Path, text: &str, mode: u32) -> Result<Self> {
        if fs::read_to_string(path).is_ok_and(|old| old.contains(MARK)) {
            fs::remove_file(path).with_context(|| format!("{} of an earlier run cannot be removed", path.display()))?;
        }
        let missing = path.ancestors().skip(1).take_while(|folder| !folder.exists());
        let mut made = Self { file: None, folders: missing.map(Path::to_owned).collect() };
        for folder in made.folders.iter().rev() {
            fs::create_dir(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        }
        match fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
            Ok(mut file) => {
                made.file = Some(path.to_owned());
                // The umask may have taken bits away.
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                std::io::Write::write_all(&mut file, text.as_bytes())
                    .with_context(|| format!("{} cannot be written", path.display()))?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be written", path.display()));
            }
        }
        Ok(made)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = fs::remove_file(file)
        {
            println!("setup: {} is left behind ({error}); remove it", file.display());
        }
        for folder in &self.folders {
            // Not empty means that the installation put something of its own there: then it stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_candidate_is_not_offered() {
        assert_eq!(candidate("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0\n"), Some("1.96.0"));
        assert_eq!(candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn only_our_services_are_kept_from_starting_and_only_while_we_run() {
        let answer = |pid, arguments: &[&str]| {
            let script = policy(pid);
            let status = Command::new("sh").args(["-c", &script, "policy-rc.d"]).args(arguments).status();
            status.expect("sh").code()
        };
        let ours = std::process::id();
        assert_eq!(answer(ours, &["prometheus", "start", "unknown"]), Some(101));
        assert_eq!(answer(ours, &["--quiet", "postgresql.service", "restart"]), Some(101));
        assert_eq!(answer(ours, &["docker.service", "start"]), Some(101));
        assert_eq!(answer(ours, &["ssh", "restart"]), Some(0));
        // Above the largest pid that Linux gives (PID_MAX_LIMIT, 2^22).
        assert_eq!(answer(1 << 23, &["prometheus", "start"]), Some(0));
    }

    #[test]
    fn a_temporary_file_goes_with_the_folders_made_for_it_and_spares_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b/file");
        drop(Temporary::create(&path, MARK, 0o644).expect("created"));
        assert!(!folder.path().join("a").exists());

        fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        fs::write(&path, "somebody else's").expect("written");
        drop(Temporary::create(&path, MARK, 0o644).expect("left alone"));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "somebody else's");

        fs::write(&path, MARK).expect("written");
        drop(Temporary::create(&path, MARK, 0o644).expect("taken over"));
        assert!(!path.exists(), "what an earlier run left goes");
    }
}
