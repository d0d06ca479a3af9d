//! Families of the host's kernel events: how many came, and how many did not.
//!
//! Reads: what [`crate::events`] and the kernel programs count. Yields: constants and label values. Costs: nothing.

use super::own::{label_values, own};
use super::{Family, Kind};

/// Every family of this file.
pub const FAMILIES: &[Family<'static>] = &[HOST_EVENTS, HOST_EVENTS_LOST, HOST_EVENTS_INCOMPLETE];

/// Events read.
pub const HOST_EVENTS: Family<'static> = own(
    "rustok_obsd_host_events_total",
    Kind::Counter,
    "",
    &["kind"],
    "Events of the host's kernel that were read: processes, victims of the OOM killer, cgroups.",
);

/// Events lost.
pub const HOST_EVENTS_LOST: Family<'static> = own(
    "rustok_obsd_host_events_lost_total",
    Kind::Counter,
    "",
    &["kind"],
    "Events of the host's kernel that the full ring buffer refused, or that could not be read (malformed).",
);

/// Events without a part.
pub const HOST_EVENTS_INCOMPLETE: Family<'static> = own(
    "rustok_obsd_host_events_incomplete_total",
    Kind::Counter,
    "",
    &["kind"],
    "Events of the host's kernel in which a field is 0 because the kernel program could not read it.",
);

label_values! {
    /// `kind` of the families.
    EventKind {
        /// A process replaced its program.
        Exec = "exec",
        /// The last thread of a process ended.
        Exit = "exit",
        /// A process was reaped.
        Freed = "freed",
        /// A process was chosen by the OOM killer.
        Oom = "oom",
        /// A cgroup was made.
        CgroupMade = "cgroup_made",
        /// A cgroup was removed.
        CgroupRemoved = "cgroup_removed",
        /// A record too short or of an unknown kind.
        Malformed = "malformed",
    }
}
