//! What the programs and maps cost, as the kernel counts it.
//!
//! Reads: `bpf_prog_info` and `bpf_map_info` of our own programs, `/proc/self/fdinfo` for map memory. Yields:
//! [`ProgramStats`], [`MapStats`]. Costs: two system calls a program, when asked.

use std::time::Duration;

use super::loader::Programs;

/// Runs of one program since it was loaded; zero where run statistics are off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Program.
    pub name: String,
    /// Times it ran.
    pub runs: u64,
    /// Time it ran.
    pub run_time: Duration,
    /// Instructions that the verifier walked.
    pub verified_instructions: Option<u32>,
}

impl Programs {
    /// Each loaded program.
    #[must_use]
    pub fn program_stats(&self) -> Vec<ProgramStats> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| {
                let info = program.info().ok()?;
                Some(ProgramStats {
                    name: name.into(),
                    runs: info.run_count(),
                    run_time: info.run_time(),
                    verified_instructions: info.verified_instruction_count(),
                })
            })
            .collect()
    }
}
