//! The metrics server over real sockets: answers, negotiation, clients that misbehave, shutdown.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod answers;
mod doors;
mod peers;
mod running;
