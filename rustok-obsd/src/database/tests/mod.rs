//! The tracker, fed by hand.

mod calls;
mod clear;
mod dialects;
mod forms;
mod life;
mod model;
mod world;
