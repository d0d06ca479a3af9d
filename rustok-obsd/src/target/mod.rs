//! Finds the processes to observe and what is in their binaries.

pub mod axum_routes;
pub mod discovery;
pub mod elf;
pub mod environment;
pub mod memory;
mod procfs;
pub mod selector;
pub mod symbols;
