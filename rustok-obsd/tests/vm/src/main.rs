//! The first process of the virtual machine that `cargo xtask vm-test` boots: checks the daemon where it can have what
//! the host has not, above all cgroup v2 alone, and a disk of its own.
//!
//! Reads: the kernel's command line: `vm.only=TEXT` runs the checks whose names contain it. Yields: on the second serial
//! port `vm: pass NAME`, `vm: fail NAME: REASON`, `vm: skip NAME: REASON`, `vm: note NAME: TEXT`, at the end `vm: done`;
//! then the machine is off.
//! Costs: some seconds; the machine is emulated, so that no time measured in it means anything.
//!
//! A check is a function in `checks`, and a line in its list.

mod checks;
mod guest;
mod kernel;
mod system;

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use guest::{Guest, Verdict};

fn main() {
    // Should one of these fail, we end, and the kernel panics over that; the console then has the reason.
    let mut port = system::prepare().and_then(|()| File::options().write(true).open("/dev/ttyS1")).expect("a system");
    let only = system::parameter("vm.only").unwrap_or_default();
    let mut guest = Guest::default();
    for (name, check) in checks::CHECKS {
        if name.contains(&only) {
            let line = line(name, run(*check, &mut guest));
            let notes = guest.take_notes().into_iter().map(|text| format!("vm: note {name}: {}\n", one_line(&text)));
            for line in notes.chain([line]) {
                // Nobody could be told.
                let _ = port.write_all(line.as_bytes());
            }
        }
    }
    drop(guest);
    let _ = port.write_all(b"vm: done\n");
    system::power_off();
}

fn run(check: checks::Check, guest: &mut Guest) -> Result<(), Verdict> {
    catch_unwind(AssertUnwindSafe(|| check(guest))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Verdict::Fail(said.unwrap_or("a panic without words").to_owned()))
    })
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" | ")
}

fn line(name: &str, result: Result<(), Verdict>) -> String {
    match result {
        Ok(()) => format!("vm: pass {name}\n"),
        Err(Verdict::Fail(reason)) => format!("vm: fail {name}: {}\n", one_line(&reason)),
        Err(Verdict::Skip(reason)) => format!("vm: skip {name}: {}\n", one_line(&reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_and_a_reason_is_one_line() {
        let failed = run(|_| panic!("expected {},\n  found {}", 1, 2), &mut Guest::default());
        assert_eq!(line("one", failed), "vm: fail one: expected 1, | found 2\n");
        assert_eq!(line("two", run(|_| Ok(()), &mut Guest::default())), "vm: pass two\n");
    }
}
