//! End to end: a real server on a real database under a real client's load, observed from the running kernel.
//!
//! Reads: `RUSTOK_OBSD_SHOP`, `RUSTOK_OBSD_SHOP_LOAD` and `RUSTOK_OBSD_BIN`, which `cargo xtask test` sets. Yields: tests
//! that compare with what the server itself wrote down; one that cannot run here says why.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod daemon;
mod observe;
mod records;
mod scene;
mod truth;
