//! Why a runtime gives no answer.
//!
//! Reads: what sockets, HTTP and gRPC report. Yields: one sentence with the thing, the reason and the remedy. Costs: none
//! while all is well.

use std::time::Duration;

use thiserror::Error;

/// Why a runtime gives no answer. Its socket is told beside it, by whoever tells the failure.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// There is no socket.
    #[error("there is no such socket; start the runtime, or name the socket where it listens")]
    Absent,
    /// The socket is not for this user.
    #[error("permission denied; run the daemon as root or in the group that owns the socket")]
    Denied,
    /// Nobody accepts connections.
    #[error("cannot connect: {0}; see whether the runtime runs")]
    Connect(String),
    /// No answer in time.
    #[error("no answer to {call} within {} s; see whether the runtime hangs", after.as_secs_f32())]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long.
        after: Duration,
    },
    /// An answer that is too large to be held.
    #[error(
        "the answer to {call} is larger than {most} bytes and was dropped; see what makes the runtime's lists this long"
    )]
    TooLarge {
        /// What was asked.
        call: &'static str,
        /// The bound.
        most: usize,
    },
    /// The runtime says no.
    #[error("{call} was refused: {reason}; the runtime's own log says more")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// The runtime's words.
        reason: String,
    },
    /// The answer is not of the protocol.
    #[error("the answer to {call} cannot be read: {reason}; see whether the socket belongs to a runtime of this kind")]
    Invalid {
        /// What was asked.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The runtime serves no CRI, or an older one.
    #[error(
        "CRI v1 is not served here ({0}); enable the CRI plugin (containerd 1.6 or later), or leave this socket out if \
         Kubernetes does not use it"
    )]
    NoCri(String),
    /// The connection ended.
    #[error("the connection was closed during {call}; the runtime may be restarting")]
    Closed {
        /// What was going on.
        call: &'static str,
    },
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer. That there is no such container is one, too.
    Ok,
    /// Without any in time.
    Timeout,
    /// With too large an answer.
    TooLarge,
    /// In any other way.
    Error,
}

impl Outcome {
    /// All of them, for a metric's label.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Timeout, Self::TooLarge, Self::Error];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Error => "error",
        }
    }
}

impl Failure {
    /// How the request that failed is counted.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout { .. } => Outcome::Timeout,
            Self::TooLarge { .. } => Outcome::TooLarge,
            _ => Outcome::Error,
        }
    }
}
