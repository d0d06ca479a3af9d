//! Leaves nothing of a container runtime behind: servers, shims, containers, mounts, cgroups, files.
//!
//! Reads: `/proc`, and what the runtimes keep in their folder. Yields: nothing. Costs: one sleeping `sh`, and half a
//! second at the end.
//!
//! Containers are no children of ours, and their processes lead sessions of their own: killing a process group does not
//! reach them. The `sh` waits on a pipe from us, so that dropping the value and being killed come to the same.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The folder comes by the pipe: in a command line this `sh` would find itself.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
read -r folder
while read -r _; do :; done

servers() {
  for file in /proc/[0-9]*/cmdline; do
    if grep -qsF -e "$folder/" "$file"; then file=${file%/cmdline}; echo "${file#/proc/}"; fi
  done
}
# Servers and shims first; one may start another meanwhile.
i=0
while pids=$(servers); [ -n "$pids" ] && [ $i -lt 50 ]; do
  kill -KILL $pids 2>/dev/null; sleep 0.1; i=$((i+1))
done

# The containers: with their first process its PID namespace ends. Its number may be another's by now.
{
  cat "$folder/cgroup" 2>/dev/null
  find "$folder" -name init.pid 2>/dev/null | while read -r file; do
    id=${file%/init.pid}; id=${id##*/}; pid=$(cat "$file")
    if grep -qsF -e "$id" "/proc/$pid/cgroup"; then
      sed 's/^[^/]*//' "/proc/$pid/cgroup"; kill -KILL "$pid"
    fi
  done
} | sort -u >"$folder/cgroups"

find "$folder" -name address -type f 2>/dev/null | while read -r file; do
  socket=$(cat "$file"); socket=${socket#unix://}
  case "$socket" in /run/containerd/s/*) rm -f "$socket" ;; esac
done
# Networks of pods, whose plugins nobody calls any more; the host's ends of their interfaces go with them.
find "$folder" -name '*.netns' 2>/dev/null | while read -r file; do
  netns=$(cat "$file"); umount -l "$netns" && rm -f "$netns"
done
grep -F " $folder/" /proc/self/mounts | cut -d' ' -f2 | sort -r | while read -r mount; do umount -l "$mount"; done

while read -r path; do
  for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ "$path" != / ] && [ -d "$root$path" ] || continue
    i=0
    while [ -d "$root$path" ] && [ $i -lt 50 ]; do
      find "$root$path" -depth -type d -exec rmdir {} \; 2>/dev/null || sleep 0.1
      [ ! -d "$root$path" ] || sleep 0.1
      i=$((i+1))
    done
    # Its parents, unless others use them.
    (cd "$root" && rmdir -p ".${path%/*}")
  done
done <"$folder/cgroups"
rm -rf -- "$folder"
"#;

/// One janitor; does its work when dropped, or when we are killed.
pub(crate) struct Janitor(Child);

/// Who removes empty parents of cgroups, and who makes cgroups in them, must not do it at the same time.
static CGROUPS: Mutex<()> = Mutex::new(());

impl Janitor {
    /// For the runtime that keeps everything in `folder`: pid files `ID/init.pid` of containers whose cgroups have
    /// `ID` in their names, and perhaps the path of such a cgroup in the file `cgroup`.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let mut sh = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "janitor"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start /bin/sh: {error}")))?;
        if let Some(pipe) = &mut sh.stdin {
            pipe.write_all(&[folder.as_os_str().as_bytes(), b"\n"].concat())?;
        }
        Ok(Self(sh))
    }

    /// Keeps janitors of this process from removing cgroups while one is made.
    pub(crate) fn hold() -> MutexGuard<'static, ()> {
        CGROUPS.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let _held = Self::hold();
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
