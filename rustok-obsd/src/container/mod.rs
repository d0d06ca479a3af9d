//! Containers: who they are.
//!
//! [`runtime`] asks the container runtimes for names, images and labels.

pub mod runtime;
