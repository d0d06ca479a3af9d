//! A small RusToK look-alike, and a load for it. It knows nothing of the daemon that observes it.
//!
//! - [`server`]: axum, sea-orm on PostgreSQL, async-graphql; binary `shop`
//! - [`truth`]: what the server did, as it saw it itself: the ground truth that tests compare with
//! - [`load`]: the client; binary `shop-load`
//! - [`seed`]: the rows that exist from the start, known to both

pub mod clock;
pub mod load;
pub mod seed;
pub mod server;
pub mod truth;
