//! The daemon's own log, on standard error.
//!
//! Reads: `[log]`. Yields: lines for people, or JSON. Costs: nothing per record; the hot path does not log.

use std::io::IsTerminal as _;

use crate::config::{Choice as _, Config, LogFormat};

/// Starts logging; a second call changes nothing.
pub fn start(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(config.log.level.name());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match config.log.format {
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
