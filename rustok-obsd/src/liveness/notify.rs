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
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The daemon ends.
    pub fn stopping(self) {
        send(&[NotifyState::Stopping, NotifyState::Status("detaching")]);
    }

    /// The threads live, or `status` says which does not.
    pub fn alive(self, status: Option<&str>) {
        if self.watchdog.is_some() {
            send(&[NotifyState::Watchdog]);
        }
        if let Some(status) = status {
            send(&[NotifyState::Status(status)]);
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("the service manager's socket (NOTIFY_SOCKET): {error}");
    }
}
