//! One run of the virtual machine.
//!
//! Reads: its second serial port, where the first process reports; its first one, the kernel's console, afterwards.
//! Yields: reports, and how it ended. Costs: 1 GB of memory and a core for 10 to 60 s: the processor is emulated (TCG),
//! since few machines that run tests may use KVM.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use test_support::Child;

/// One line of the first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A check passed.
    Pass(String),
    /// A check failed: name and reason.
    Fail(String, String),
    /// A check could not run: name and reason.
    Skip(String, String),
    /// What a check says beside its verdict: name and text.
    Note(String, String),
    /// All checks ran.
    Done,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// All checks ran.
    Done,
    /// The machine broke, which says nothing of the daemon: why, with the console's last lines.
    Broken(String),
}

/// What a run needs.
pub struct Machine<'a> {
    pub qemu: &'a Path,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// 64 MB, `/dev/nvme0n1`.
    pub disk: &'a Path,
    /// For files of the run.
    pub folder: &'a Path,
    /// More of the kernel's command line.
    pub parameters: &'a str,
    pub limit: Duration,
}

impl Machine<'_> {
    /// Runs it, and hands on each report as it comes.
    pub fn run(&self, mut report: impl FnMut(&Report)) -> Result<End> {
        let console = self.folder.join("console");
        let child = Child::spawn("QEMU", &mut self.command(&console))?;
        let ended = child.wait_for_line(self.limit, |line| {
            let said = Report::read(line)?;
            report(&said);
            (said == Report::Done).then_some(())
        });
        let Err(ended) = ended else {
            return Ok(End::Done);
        };
        let said = fs::read_to_string(&console).unwrap_or_default();
        let panic = said.lines().position(|line| line.contains("Kernel panic"));
        let why = if panic.is_some() { "the kernel panicked".to_owned() } else { ended };
        // What leads to a panic stands before it; the stack after it is that of the panic itself.
        let lines = panic.map_or(usize::MAX, |line| line + 1);
        Ok(End::Broken(format!("{why}; the console's last lines:\n{}", tail(said.lines().take(lines), 25))))
    }

    fn command(&self, console: &Path) -> Command {
        let mut command = Command::new(self.qemu);
        command
            // One thread: with more, QEMU 7.2 at times lets the kernel see memory out of order, and it panics.
            .args(["-accel", "tcg,thread=single", "-cpu", "max,la57=off", "-smp", "2", "-m", "1024M"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-net", "none"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .arg("-append")
            // panic=-1: at once, and -no-reboot makes that the end.
            .arg(format!(
                "console=ttyS0 loglevel=5 panic=-1 oops=panic nokaslr mitigations=off psi=1 \
                 cgroup_no_v1=all {}",
                self.parameters
            ))
            .arg("-drive")
            .arg(format!("file={},if=none,id=disk,format=raw", self.disk.display()))
            .args(["-device", "nvme,serial=disk,drive=disk"]);
        command
    }
}

impl Report {
    /// Reads a line such as `vm: fail NAME: REASON`.
    fn read(line: &str) -> Option<Self> {
        let said = line.trim().strip_prefix("vm: ")?;
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        let (name, reason) = rest.split_once(": ").unwrap_or((rest, ""));
        let (name, reason) = (name.to_owned(), reason.to_owned());
        match word {
            "pass" => Some(Self::Pass(name)),
            "fail" => Some(Self::Fail(name, reason)),
            "skip" => Some(Self::Skip(name, reason)),
            "note" => Some(Self::Note(name, reason)),
            "done" => Some(Self::Done),
            _ => None,
        }
    }
}

fn tail<'a>(lines: impl Iterator<Item = &'a str>, count: usize) -> String {
    let all: Vec<_> = lines.map(str::trim_end).collect();
    all[all.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_from_other_lines() {
        assert_eq!(Report::read("vm: pass a_check\r"), Some(Report::Pass("a_check".into())));
        let failed = Report::Fail("a_check".into(), "cpu.max is max: no limit".into());
        assert_eq!(Report::read("vm: fail a_check: cpu.max is max: no limit"), Some(failed));
        assert_eq!(Report::read("vm: skip a: no runc"), Some(Report::Skip("a".into(), "no runc".into())));
        assert_eq!(Report::read("vm: note a: 9 MiB"), Some(Report::Note("a".into(), "9 MiB".into())));
        assert_eq!(Report::read("vm: done"), Some(Report::Done));
        assert_eq!(Report::read("[    1.9] vm: pass a_check"), None);
        assert_eq!(Report::read("vm: other"), None);
    }

    #[test]
    fn a_tail_is_what_comes_last() {
        assert_eq!(tail("a\r\nb\nc".lines(), 2), "b\nc");
        assert_eq!(tail("a".lines(), 2), "a");
    }
}
