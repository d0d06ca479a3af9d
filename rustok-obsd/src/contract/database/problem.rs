//! What the daemon could not make out of a target's traffic with its database.
//!
//! Reads: nothing. Yields: the values of a label of [`super::PROBLEMS`]. Costs: nothing.

use crate::contract::own::label_values;

label_values! {
    /// `problem` of [`super::PROBLEMS`].
    DatabaseProblem {
        /// A prepared statement whose text was sent before the daemon watched.
        UnknownStatement = "unknown_statement",
        /// A call of a database library that never was sent: cancelled, or failed before.
        UnmatchedCall = "unmatched_call",
        /// A call of the driver for which no socket's bytes were seen: cancelled before it sent, or no TCP.
        Unbound = "unbound",
        /// The end of a statement whose begin was not seen.
        UnmatchedEnd = "unmatched_end",
        /// An operation whose end was not seen.
        LostEnd = "lost_end",
        /// More operations were under way than are followed.
        TooMany = "too_many",
        /// An argument that should hold SQL held none.
        LayoutDoubt = "layout_doubt",
        /// A statement longer than the bytes that are captured.
        TruncatedStatement = "truncated_statement",
        /// The sequence of messages of a connection was lost; it is found again.
        LostSync = "lost_sync",
        /// Encrypted bytes went and came, and no symbol told of which statement.
        OpaqueRoundTrip = "opaque_round_trip",
        /// Messages that begin a connection.
        OtherMessageStartup = "other_message_startup",
        /// Messages of authentication.
        OtherMessageAuthentication = "other_message_authentication",
        /// A Sync alone: the pool asks whether the connection lives.
        OtherMessagePing = "other_message_ping",
        /// A request to cancel a query.
        OtherMessageCancel = "other_message_cancel",
        /// A notification of the database.
        OtherMessageNotification = "other_message_notification",
        /// The operation ran outside of any task.
        ParentUnknownNoTask = "parent_unknown_no_task",
        /// The task's spawn was not seen.
        ParentUnknownNoSpawn = "parent_unknown_no_spawn",
        /// Records were lost.
        ParentUnknownLossy = "parent_unknown_lossy",
        /// The task serves a connection on which no request can be told.
        ParentUnknownConnection = "parent_unknown_connection",
        /// The connection to the database is driven by a task of its own, whoever asks.
        ParentUnknownSharedConnection = "parent_unknown_shared_connection",
    }
}
