//! End to end: a real server on a real database under a real client's load, observed from the running kernel.
//!
//! Reads: `RUSTOK_OBSD_SHOP`, `RUSTOK_OBSD_SHOP_LOAD` and `RUSTOK_OBSD_BIN`, which `cargo xtask test` sets. Yields: tests
//! that compare with what the server itself wrote down; one that cannot run here says why.
#![expect(clippy::print_stderr, reason = "the tests report what they measured")]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod alive;
mod calls;
mod custom;
mod daemon;
mod databases;
mod faults;
mod field;
mod hostile;
mod latecomers;
mod memory;
mod observe;
mod overload;
mod records;
mod running;
mod scene;
mod scorecard;
mod secrets;
mod shown;
mod stage;
mod truth;
mod unit;

/// The tests share the machine, its processes and its processors: one at a time.
fn serial() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
