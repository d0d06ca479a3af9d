//! End to end: a real server on a real database under a real client's load, observed from the running kernel.
//!
//! Reads: `RUSTOK_OBSD_SHOP`, `RUSTOK_OBSD_SHOP_LOAD` and `RUSTOK_OBSD_BIN`, which `cargo xtask test` sets. Yields: tests
//! that compare with what the server itself wrote down; one that cannot run here says why.
#![expect(clippy::print_stderr, reason = "the tests report what they measured")]

mod daemon;
mod observe;
mod records;
mod scene;
mod truth;

/// The tests load the machine and measure it: one at a time.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
