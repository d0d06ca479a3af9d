//! The virtual machine's root file system: programs of this host with the libraries that they load.
//!
//! Reads: the programs, `ldd`. Yields: an archive in a file. Costs: 60 MB with a release build of the daemon.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use crate::workspace::output_of;

/// Where file systems are mounted, and what programs expect.
const FOLDERS: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/etc"];

/// What goes in.
pub struct Contents<'a> {
    /// Each program with its place.
    pub programs: &'a [(&'a Path, &'a str)],
    /// As `/bin/busybox`, and links to it. Containers want one that is linked statically.
    pub busybox: &'a Path,
}

/// Writes it.
pub fn write(contents: &Contents<'_>, file: &Path) -> Result<()> {
    let out = File::create(file).with_context(|| format!("{} cannot be created", file.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    for folder in FOLDERS {
        archive.folder(Path::new(folder))?;
    }
    // The kernel opens it for the first process before anything is mounted.
    archive.device(Path::new("/dev/console"), 5, 1)?;
    // std::process does, for whatever it starts.
    archive.device(Path::new("/dev/null"), 1, 3)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let mut libraries = BTreeSet::new();
    for (program, place) in contents.programs {
        archive.program(Path::new(place), &read(program)?)?;
        libraries.extend(libraries_of(program)?);
    }
    libraries.extend(libraries_of(contents.busybox)?);
    for library in libraries {
        archive.program(&library, &read(&library)?)?;
    }
    archive.program(Path::new("/bin/busybox"), &read(contents.busybox)?)?;
    let applets = output_of(Command::new(contents.busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive.link(&Path::new("/bin").join(applet), "busybox")?;
    }
    archive.finish().with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(())
}

fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("`ldd` could not be started")?;
    // It fails for a program that is linked statically, which needs none.
    if !output.status.success() {
        return Ok(Vec::new());
    }
    Ok(libraries(&String::from_utf8_lossy(&output.stdout)))
}

/// Paths in what `ldd` prints, the loader's among them.
fn libraries(said: &str) -> Vec<PathBuf> {
    let paths = said.lines().filter_map(|line| {
        let path = line.split_once(" => ").map_or(line, |(_, path)| path).trim();
        path.starts_with('/').then(|| PathBuf::from(path.split(" (").next().unwrap_or(path)))
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_vdso_is_none() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(said), paths);
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
