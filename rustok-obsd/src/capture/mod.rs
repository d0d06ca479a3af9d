//! Turns the kernel's records into exchanges, in order, connection by connection.
//!
//! Reads: the ring buffer. Yields: metrics, spans, and process events for the room that finds targets. Costs: one
//! thread; no allocation per record in steady state.

pub mod address;
mod clock;
pub mod connections;
mod databases;
pub mod doubts;
mod losses;
mod memory;
mod outputs;
mod parked;
pub mod pipeline;
pub mod record;
pub mod ring;
mod routes;

pub use pipeline::{Command, Pipeline};
pub use record::Record;

#[cfg(test)]
mod tests;
