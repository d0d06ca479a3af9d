//! What the service manager hears: `READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=` (sd_notify(3)).
//!
//! Reads: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. Yields: datagrams; nothing without a service manager. Costs: a
//! socket per message.

use std::time::Duration;

use sd_notify::NotifyState;

/// Speaks to the service manager.
#[derive(Clone, Copy, Debug)]
pub struct Notify {
    /// Without a message for so long the service manager ends the daemon.
    pub watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// The daemon serves.
    pub fn ready(self, status: &str) {
        log(sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]));
    }

    /// The daemon ends.
    pub fn stopping(self) {
        log(sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("detaching")]));
    }

    /// The threads live, or `status` says which does not. An error is not logged: the watchdog must not wait for the log.
    pub fn alive(self, status: Option<&str>) {
        if self.watchdog.is_some() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        if let Some(status) = status {
            let _ = sd_notify::notify(&[NotifyState::Status(status)]);
        }
    }
}

fn log(sent: std::io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!("the service manager's socket (NOTIFY_SOCKET): {error}");
    }
}
