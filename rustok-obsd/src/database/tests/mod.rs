//! The tracker, fed by hand.

mod calls;
mod clear;
mod life;
mod model;
mod world;
