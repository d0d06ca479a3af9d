//! What the example servers share. It knows neither sea-orm nor sqlx, nor the daemon that observes them.
//!
//! - [`truth`]: what a server did, as it saw it itself: the ground truth that tests compare with
//! - [`observe`]: the axum layer that fills it, and what notes each statement
//! - [`causal`]: the routes that exercise causality, and which statements each of them runs, where
//! - [`sql`]: the statements' texts
//! - [`serve`]: command line, start and end of a server
//! - [`load`]: the client; binary `shop-load`
//! - [`seed`], [`migrate`]: the rows that exist from the start, known to servers and client
//! - [`clock`]: the time line that all share

pub mod bodies;
pub mod causal;
pub mod clock;
pub mod load;
pub mod migrate;
pub mod observe;
pub mod seed;
pub mod serve;
pub mod sql;
pub mod truth;
