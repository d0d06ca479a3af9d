//! Processes.
//!
//! Reads: `/proc/PID/stat`, as the collector [`processes`](crate::host::processes) does. Yields: `system_process_count`;
//! [`cpu`](super::cpu) writes the other. Costs: three system calls per process.

use super::{counter, gauge};
use crate::contract::Family;
use crate::exposition::Encoder;
use crate::host::processes::Processes;
use crate::host::{CollectError, Settings};

pub const COUNT: Family<'static> =
    gauge("system_process_count", "", &["process_state"], "Total number of processes in each state.");
pub const CREATED: Family<'static> = counter(
    "system_process_created_total",
    "",
    &[],
    "Total number of processes created over uptime of the host; the kernel counts threads, too.",
);

/// States of the conventions; the kernel's others (`D`, `I`, `P`) are kinds of sleep.
const STATES: [&str; 4] = ["running", "sleeping", "stopped", "defunct"];

/// Which of them a letter of the kernel's is (fs/proc/array.c).
fn state(letter: u8) -> usize {
    match letter {
        b'R' => 0,
        b'T' | b't' => 2,
        b'Z' | b'X' | b'x' => 3,
        _ => 1,
    }
}

pub struct Count(Processes);

impl Count {
    pub fn new(settings: &Settings) -> Self {
        Self(Processes::new(settings))
    }

    pub fn collect(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut counts = [0u64; STATES.len()];
        for (letter, count) in (0u8..).zip(self.0.by_state()?) {
            counts[state(letter)] += count;
        }
        let mut samples = out.family(&COUNT);
        for (state, count) in STATES.iter().zip(counts) {
            samples.put([*state], count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn the_kernels_states_are_the_conventions() {
        let tree = Tree::new("otel", |_| {});
        for (pid, letter) in "RSDITtZXP".chars().enumerate() {
            let stat = format!("{pid} (a) {letter} 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 5\n");
            tree.write(&format!("proc/{pid}/stat"), &stat);
        }
        let text = tree.text();
        let counts = ["running", "sleeping", "stopped", "defunct"].map(|state| {
            let line = format!("system_process_count{{process_state=\"{state}\"}} ");
            text.lines().find_map(|found| found.strip_prefix(&line)).map(ToOwned::to_owned)
        });
        assert_eq!(counts.map(Option::unwrap), ["1", "4", "2", "2"]);
    }
}
