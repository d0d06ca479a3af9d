//! What the shop, a small RusToK look-alike, shares with the other example servers: [`truth`], [`load`] (binary
//! `shop-load`), [`seed`], [`clock`]. The server is the binary `shop`; it knows nothing of the daemon that observes it.

pub use example_common::{clock, load, seed, truth};
