//! Ctrl-C.
//!
//! Reads: SIGINT, SIGTERM and SIGHUP. Yields: whether we are to end. Costs: a poll every 20 ms while sleeping.
//!
//! The parts are in process groups of their own, so that the first signal reaches us alone and we end them in order. A
//! second one ends us at once; the parts then end by their watchdogs (`test_support::Child`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Set by the first signal.
#[derive(Debug, Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the first signal ends what we do, not us.
    pub fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // In this order: the second signal finds the flag set by the first.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .context("no signal handler")?;
        }
        Ok(Self(flag))
    }

    /// Whether we are to end.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps, at most until we are to end.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.requested() {
            let Some(rest) = until.checked_duration_since(Instant::now()) else {
                return;
            };
            thread::sleep(rest.min(Duration::from_millis(20)));
        }
    }
}
