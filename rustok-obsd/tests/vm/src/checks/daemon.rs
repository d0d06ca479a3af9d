//! The daemon on this kernel.
//!
//! Reads: its `/metrics`. Yields: verdicts. Costs: its start.

use crate::guest::{Guest, Verdict, ensure};

/// It starts, and exposes its own build.
pub fn serves_metrics(guest: &mut Guest) -> Result<(), Verdict> {
    let metrics = guest.daemon()?.metrics("")?;
    ensure(metrics.contains("\nrustok_obsd_build_info{"), || format!("no build_info: {metrics}"))
}
