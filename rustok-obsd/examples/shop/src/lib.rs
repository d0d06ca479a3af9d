//! A small RusToK look-alike, and a load for it. It knows nothing of the daemon that observes it.
//!
//! - [`server`]: axum, sea-orm on PostgreSQL, async-graphql; binary `shop`
//! - what it shares with the other example servers: [`truth`], [`load`] (binary `shop-load`), [`seed`], [`clock`]

pub mod server;

pub use example_common::{clock, load, seed, truth};
